"""What the meta agent is shown of a design: tables, digests, and episodes beside the same ones without memory.

An episode is a line of `trajectories.jsonl.gz`, a `score.Outcome` as a dict. Texts of designs, agents and games are
quoted, so that none of them can pose as part of the prompt.
"""

import ast
import contextlib
import gzip
import itertools
import json
import math
import pprint
import random
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prompts import count_tokens, quote, quote_cell, quote_lines
from score import paired

EPISODES = "trajectories.jsonl.gz"  # the file of a design's deployed episodes
BEST, RELATIVES = 3, 12  # designs of the archive that are shown: the best ones, and in all
MOST_ROWS = 12  # keys of what was retrieved, and kinds of errors, that are shown
MOST_ITEMS = 5  # of a list or a dictionary in an episode that is shown as Python data
MOST_VERBS = 8  # first words of an episode's commands that are counted for the reader
FIRST_STEPS, BARE_STEPS = 3, 20  # of an episode that are shown with what was seen after them; as commands alone


@dataclass(frozen=True)
class Evidence:
    """What is known of a design that is to be changed."""

    id: str
    code: str
    score: dict  # a Score's summary
    deployed: list[dict]  # lines of trajectories.jsonl.gz
    changes: list[dict]  # of the plan that it was made by; none for a design from scratch
    before: list[dict]  # the parent's lines of trajectories.jsonl.gz; none for a design from scratch
    relatives: list[dict]  # lines of the archive with `relation` and `what`: parents, siblings, children, the best

    @classmethod
    def read(cls, folder, archive, design) -> "Evidence":
        """From the run's folder (`harness.run_folder.RunFolder`) and the archive from which the design was drawn."""
        best = archive.finalists(BEST)
        relatives, first = [], {}
        for one in archive.designs:
            again = one.state == "duplicate"  # it has the id of the design that was there before, and no folder
            kin = {"parent": one.id in design.parents and not again, "among the best": one in best,
                   "child": design.id in one.parents, "sibling": set(one.parents) & set(design.parents)}  # fmt: skip
            relation = ", ".join(name for name, holds in kin.items() if holds)
            if relation and one.candidate != design.candidate:
                place = folder.path / "dropped" / one.candidate if one.state == "dropped" else folder.design(one.id)
                what = f"the same code as {first[one.id]}" if again else _what(place)
                relatives.append({**vars(one), "relation": relation, "what": what})
            first.setdefault(one.id, one.candidate)
        relatives.sort(key=lambda one: (not one["relation"].startswith(("parent", "among")), -one["step"]))
        own, (parent, *_) = folder.design(design.id), (*design.parents, None)
        return cls(
            id=design.id,
            code=(own / "design.py").read_text(encoding="utf-8"),
            score=json.loads((own / "score.json").read_text(encoding="utf-8")),
            deployed=read_episodes(own),
            changes=(json.loads((own / "plan.json").read_text(encoding="utf-8")) or {}).get("changes", []),
            before=read_episodes(folder.design(parent)) if parent else [],
            relatives=relatives[:RELATIVES],
        )

    def change(self) -> dict | None:
        """What the last change did to the score, episode by episode, with the 95 % interval; None without a parent."""
        if not self.before:
            return None
        rows = self.before, self.deployed
        before, now = ({(one["task"], one["number"]): one["score"] for one in lines} for lines in rows)
        shared = {key: score for key, score in now.items() if key in before}  # a race may have stopped the parent
        return dict(zip(("difference", "low", "high"), paired(shared, before), strict=True))


def read_episodes(design: Path) -> list[dict]:
    """The deployed episodes of a design, from its folder; older runs did not pack them."""
    packed = design / EPISODES
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes()
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


def _what(place: Path) -> str:
    """What a candidate is, in one line: its plan's changes, else what its code says of itself."""
    if plan := json.loads((place / "plan.json").read_text(encoding="utf-8")):
        return "; ".join(change.get("name") or change["what"] for change in plan["changes"])
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.get_docstring(ast.parse((place / "design.py").read_text(encoding="utf-8"))) or ""
    return ""


def by_kind(lists: dict[str, list[dict]], most_steps: int) -> list[dict]:
    """A row for each kind of task and one for all: each list's mean score, and how the last list's episodes ended."""
    rows, (*_, own) = [], lists.values()
    for kind in [*sorted({one["family"] for one in own}), "all"]:
        kept = [[one for one in ones if kind in ("all", one["family"])] for ones in lists.values()]
        ends = Counter(ended(one, most_steps) for one in kept[-1]).most_common()
        rest = sum(count for _, count in ends[4:])
        scores = [statistics.fmean(one["score"] for one in ones) if ones else None for ones in kept]
        how = ", ".join([f"{end} {count}" for end, count in ends[:4]] + [f"otherwise {rest}"] * (rest > 0))
        tasks, invalid = len({one["task"] for one in kept[-1]}), sum(one.get("invalid", 0) for one in kept[-1])
        empty = sum(not _says(one.get("retrieved")) for one in kept[-1])
        rows.append({"kind": kind, "tasks": tasks, "scores": scores, "ended": how, "invalid": invalid, "empty": empty})
    return rows


def ended(episode: dict, most_steps: int) -> str:
    """How an episode ended: won, out of steps, lost by a command, or not played because the design failed."""
    if episode["trajectory"] is None:
        return "not played"
    steps = episode["trajectory"]["steps"]
    lost = "out of steps" if len(steps) >= most_steps else f"lost by `{quote_cell(steps[-1]['action_took'])}`"
    return "won" if episode["score"] >= 1 else lost


def chance(without: list[dict]) -> float:
    """How far two equally good designs lie apart in 19 of 20 cases, by what a task's score without memory differs from
    pass to pass; not less than one episode makes."""
    by_task: dict[str, list[float]] = {}
    for one in without:
        by_task.setdefault(one["task"], []).append(one["score"])
    mean = statistics.fmean(one["score"] for one in without)
    repeated = [statistics.variance(scores) for scores in by_task.values() if len(scores) > 1]
    variance = statistics.fmean(repeated or [mean * (1 - mean)])
    return max(1.96 * math.sqrt(2 * variance / len(without)), 1 / len(without))


def _says(value) -> bool:
    """Whether there is anything in what was retrieved: {"plans": []} says nothing."""
    inner = value.values() if isinstance(value, dict) else value
    return any(map(_says, inner)) if isinstance(value, dict | list) else value not in (None, "")


def by_key(deployed: list[dict]) -> list[dict]:
    """A row for what was retrieved and one for each key of it: how often it says something, and how these episodes
    went, as the mean difference to no memory, beside the others."""
    whole = [one["retrieved"] for one in deployed]
    keys = Counter(key for value in whole if isinstance(value, dict) for key in value).most_common(MOST_ROWS)
    columns, rows = {"all together": whole}, []
    for key, _ in keys:
        columns[f"`{quote_cell(key)}`"] = [value.get(key) if isinstance(value, dict) else None for value in whole]
    for key, values in columns.items():
        told, gains = [json.dumps(value) for value in values if _says(value)], {True: [], False: []}
        for one, value in zip(deployed, values, strict=True):
            gains[_says(value)].append(one["score"] - one["without"])
        means = [statistics.fmean(gains[which]) if gains[which] else None for which in (True, False)]
        tokens = statistics.fmean(map(count_tokens, told)) if told else 0
        rows.append({"key": key, "told": len(told), "different": len(set(told)), "tokens": tokens, "gains": means})
    return rows


def errors_by_kind(code: str, deployed: list[dict], kept: list[str]) -> list[dict]:
    """A design's errors: how often in which call, of what kind and in which function, with one example. `kept` are
    those of its score, "count × call: status: message"; of these the updates are taken."""
    texts = Counter(f"retrieve: {one['error']}" for one in deployed if one["error"])
    for count, _, text in (one.partition(" × ") for one in kept):
        if text.startswith("update"):
            texts[text] += int(count)
    rows: dict[tuple, dict] = {}
    for text, count in texts.most_common():
        call, status, message = (*text.split(": ", 2), "", "")[:3]
        raised = re.match(r"[\w.]+", message.strip().rpartition("\n")[2]) if status == "error" else None
        kind, place = raised[0] if raised else status, _function(code, message)
        row = {"call": call, "kind": kind, "function": place, "count": 0, "example": quote_lines(message, 200)}
        rows.setdefault((call, kind, place), row)["count"] += count
    return sorted(rows.values(), key=lambda row: -row["count"])[:MOST_ROWS]


def _function(code: str, trace: str) -> str:
    """The function of a design in which a traceback ends, as `World.plan`; empty where it names no line of it."""
    lines, names, node = re.findall(r'File "design\.py", line (\d+)', trace), [], None
    if lines:  # one that was printed by force begins with the innermost
        line = int(lines[0] if "ost recent call first" in trace else lines[-1])
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            node = ast.parse(code)
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    while node:
        inside = (one for one in node.body if isinstance(one, kinds) and one.lineno <= line <= one.end_lineno)
        if node := next(inside, None):
            names.append(node.name)
    return ".".join(names)


def pairs(deployed: list[dict], without: list[dict], most_steps: int, rng: random.Random) -> list[dict]:
    """Deployed episodes beside the same ones without memory: gains, losses and equal ones in turn, the largest
    difference first. Of those that are alike (retrieval, kind of task, both outcomes) one is drawn."""
    plain = {(one["task"], one["number"]): one for one in without}
    kinds: dict[tuple, dict] = {}
    for one in rng.sample(deployed, len(deployed)):
        other = plain[one["task"], one["number"]]
        ends, gain = [ended(one, most_steps), ended(other, most_steps)], one["score"] - other["score"]
        pair = {"with": one, "without": other, "ended": ends, "gain": gain, "alike": 0}
        kinds.setdefault((json.dumps(one["retrieved"], sort_keys=True), one["family"], *ends), pair)["alike"] += 1
    ordered = sorted(kinds.values(), key=lambda pair: (-abs(pair["gain"]), pair["with"]["score"]))
    gains, losses = [one for one in ordered if one["gain"] > 0], [one for one in ordered if one["gain"] < 0]
    turns = itertools.zip_longest(gains, losses, [one for one in ordered if one["gain"] == 0])
    return [pair for turn in turns for pair in turn if pair]


def pair_as_text(pair: dict, told: dict[str, str], tokens: int) -> dict:
    """A pair with what was retrieved, the first observation and the steps as texts of about `tokens` tokens in all.
    `told` has the texts that were shown before, each with its task: no long text is shown twice."""
    one, other = pair["with"], pair["without"]

    def once(text: str, shown: str) -> str:
        known = f'"the same as for {told.get(text)}"'
        if text in told and len(known) < len(text):
            return known
        told[text] = one["task"]
        return shown

    retrieved = json.dumps(one["retrieved"], indent=1, ensure_ascii=False)
    shown = once(retrieved, quote(retrieved, tokens // 3))
    left = tokens - count_tokens(shown)

    # The first observation is all that a retrieval gets. Short texts leave their room to long ones.
    init = (one["trajectory"] or other["trajectory"])["init"]
    texts = {key: value for key, value in init.items() if isinstance(value, str)}
    room, first = left // 2, {}
    for place, key in enumerate(sorted(texts, key=lambda key: len(texts[key]))):
        first[key] = once(texts[key], _ends(texts[key].split("\n"), room // (len(texts) - place)))
        room -= count_tokens(first[key])
    left -= sum(map(count_tokens, first.values()))

    same, steps = 0, [one["trajectory"]["steps"] if one["trajectory"] else [], other["trajectory"]["steps"]]
    while same < min(map(len, steps)) and steps[0][same] == steps[1][same]:
        same += 1
    played = _steps(init, steps[0], ">", left * 3 // 5) if steps[0] else f"(not played: {quote_cell(one['error'], 100)})"
    rest = _steps(init, steps[1], "-", left - count_tokens(played), same)
    first = {key: first[key] for key in texts}
    verbs = [Counter(quote_cell(step["action_took"], 50).split(" ")[0] for step in one).most_common(MOST_VERBS) for one in steps]
    counts = [", ".join(f"{verb} {count}" for verb, count in most) for most in verbs]
    return {**pair, "retrieved": shown, "first": first, "same": same, "steps": played, "plain_steps": rest, "counts": counts}


def _steps(init: dict, steps: list[dict], mark: str, tokens: int, skipped: int = 0) -> str:
    """Commands behind `mark` from the step `skipped` on, with the lines that were not in the observation right before.
    Where not all fit, what was seen stays after steps that changed the score, the last one and the first ones; then
    commands stand alone; then steps are left out, and it is said how many."""
    bare, full, changed, before, score = [], [], [], init, 0.0
    for place, step in enumerate(steps):
        known = {line for text in before.values() if isinstance(text, str) for line in text.split("\n")}
        texts = [text for key, text in step.items() if isinstance(text, str) and key != "action_took"]
        new = [line for text in texts for line in text.split("\n") if line.strip() and line not in known]
        bare.append(f"{mark} {quote_cell(step['action_took'], 50)}")
        full.append(f"{bare[-1]}\n{_ends(new or ['(nothing new)'], tokens // 5)}")
        if step["scores"] != score:
            note = f"\n(score {score:.2f} → {step['scores']:.2f})"
            bare[-1], full[-1], changed = bare[-1] + note, full[-1] + note, [*changed, place]
        before, score = step, step["scores"]
    rest, shown, left = range(skipped, len(steps)), {}, tokens
    must = [place for place in (*changed, *rest[-1:]) if place >= skipped]
    for texts, places in ((full, [*must, *rest[:FIRST_STEPS]]), (bare, [*must, *rest[:BARE_STEPS]]), (full, rest)):
        for place in places:
            more = count_tokens(texts[place]) + 1 - count_tokens(shown.get(place, ""))
            if more > left:
                break
            if len(texts[place]) > len(shown.get(place, "")):
                shown[place], left = texts[place], left - more
    lines = []
    for there, group in itertools.groupby(rest, shown.__contains__):
        places = list(group)
        lines += [shown[place] for place in places] if there else [f"({len(places)} steps left out)"]
    return "\n".join(lines)


def _ends(lines: list[str], tokens: int) -> str:
    """Lines as data in at most about `tokens` tokens: where that is too few, the middle ones are left out."""
    kept, most = list(range(len(lines))), max(1, tokens)
    sizes = [min(count_tokens(line), most) + 1 for line in lines]
    over = sum(sizes) - tokens
    while over > 0 and len(kept) > 1:
        over -= sizes[kept.pop(len(kept) // 2)]
    texts = [quote_lines(lines[number], most) for number in kept]
    if left_out := len(lines) - len(kept):
        gap = next((place for place, number in enumerate(kept) if place != number), len(kept))
        texts.insert(gap, f"({left_out} of {len(lines)} lines left out)")
    return "\n".join(texts)


def as_python(trajectory: dict, tokens: int) -> str:
    """A whole episode as a design gets it, in Python of about `tokens` tokens: its first steps, two at least, and its
    last one, with only the first items of long lists and dictionaries."""

    def short(value):
        if not isinstance(value, dict | list) or len(value) <= MOST_ITEMS:
            return value
        first = list(value.items() if isinstance(value, dict) else value)[:MOST_ITEMS]
        rest = f"{len(value) - MOST_ITEMS} more"
        return {**dict(first), "...": rest} if isinstance(value, dict) else [*first, f"... {rest}"]

    def written(first: int) -> str:
        gap = [f"... {len(steps) - first} more steps, and then the last one"] if first < len(steps) else []
        shown = {**trajectory, "init": init, "steps": [*steps[:first], *gap, last]}
        return f"Trajectory(**\n{pprint.pformat(shown, width=108, sort_dicts=False)}\n)"

    parts = [{key: short(value) for key, value in one.items()} for one in (trajectory["init"], *trajectory["steps"])]
    (init, *steps, last), first = parts, 2
    while first < len(steps) and count_tokens(written(first + 1)) < tokens:
        first += 1
    return written(first)
