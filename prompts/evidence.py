"""What the meta agent is shown of a design's episodes: tables, digests, and episodes in pairs.

An episode is a line of `trajectories.jsonl`, a `score.Outcome` as a dict. What is shown follows from the arguments
alone. Texts of designs, agents and games are quoted, so that none of them can pose as part of the prompt.
"""

import ast
import json
import math
import pprint
import random
import re
import statistics
import textwrap
from collections import Counter

from prompts import count_tokens, quote, quote_cell, quote_lines

MOST_ROWS = 12  # parts of what was retrieved, and kinds of errors, that are shown
MOST_ITEMS = 5  # of a list or a dictionary in the example of an episode
LOCATED = re.compile(r'File "design\.py", line (\d+)')


# ------------------------------------------------------------------------------------------ tables


def by_kind(episodes: dict[str, list[dict]], most_steps: int) -> list[dict]:
    """A row for each kind of task and one for all: each list's mean score, and how the last list's episodes ended."""
    rows, own = [], list(episodes.values())[-1]
    for kind in [*sorted({one["family"] for one in own}), None]:
        scores = [[one["score"] for one in ones if kind in (None, one["family"])] for ones in episodes.values()]
        shown = [one for one in own if kind in (None, one["family"])]
        ends = Counter(ended(one, most_steps) for one in shown).most_common()
        told = [f"{end} {count}" for end, count in ends[:4]]
        told += [f"otherwise {sum(count for _, count in ends[4:])}"] if ends[4:] else []
        steps = sum(one["steps"] for one in shown)
        rows.append({
            "kind": kind or "all",
            "tasks": len({one["task"] for one in shown}),
            "scores": [statistics.fmean(ones) if ones else None for ones in scores],
            "ended": ", ".join(told),
            "invalid": sum(one.get("invalid", 0) for one in shown) / max(1, steps),
        })  # fmt: skip
    return rows


def ended(episode: dict, most_steps: int) -> str:
    """How an episode ended: won, out of steps, lost by a command, or not played because the design failed."""
    if episode["trajectory"] is None:
        return "not played"
    steps = episode["trajectory"]["steps"]
    if episode["score"] >= 1:
        return "won"
    return "out of steps" if len(steps) >= most_steps else f"lost by `{quote_cell(str(steps[-1]['action_took']))}`"


def chance(episodes: list[dict]) -> float:
    """How far two equally good designs lie apart in 19 of 20 cases, by what one task's score differs from pass to pass.

    `episodes` are those without memory. Not less than one episode won or lost makes.
    """
    by_task: dict[str, list[float]] = {}
    for one in episodes:
        by_task.setdefault(one["task"], []).append(one["score"])
    repeated = [statistics.variance(scores) for scores in by_task.values() if len(scores) > 1]
    mean = statistics.fmean(one["score"] for one in episodes)
    variance = statistics.fmean(repeated) if repeated else mean * (1 - mean)  # of one task that was played once
    return max(1.96 * math.sqrt(2 * variance / len(episodes)), 1 / len(episodes))


# ----------------------------------------------------------------------------------------- digests


def is_filled(value) -> bool:
    """Whether a JSON value says anything: {"plans": []} does not."""
    if isinstance(value, dict | list):
        return any(map(is_filled, value.values() if isinstance(value, dict) else value))
    return value not in (None, "")


def parts(deployed: list[dict]) -> list[dict]:
    """A row for each key of what was retrieved: how often it says something, and how well these episodes went."""
    found: dict[str, list[tuple[dict, str]]] = {}  # by key, the episodes in which it says something, and what
    for one in deployed:
        whole = one["retrieved"] if isinstance(one["retrieved"], dict) else {"(all)": one["retrieved"]}
        for key, value in whole.items():
            found.setdefault(key, []).extend([(one, json.dumps(value))] if is_filled(value) else [])

    def gain(ones: list[dict]) -> float | None:
        return statistics.fmean(one["score"] - one["without"] for one in ones) if ones else None

    rows = []
    for key, told in sorted(found.items(), key=lambda item: -len(item[1]))[:MOST_ROWS]:
        having = {id(one) for one, _ in told}
        rows.append({
            "key": quote_cell(key),
            "filled": len(told),
            "different": len({text for _, text in told}),
            "tokens": statistics.fmean(count_tokens(text) for _, text in told) if told else 0,
            "with": gain([one for one, _ in told]),
            "without": gain([one for one in deployed if id(one) not in having]),
        })  # fmt: skip
    return rows


def errors_by_kind(code: str, deployed: list[dict], kept: list[str]) -> list[dict]:
    """The design's errors: how often in which call, of what kind, in which function, and one example in full.

    `kept` are those of its score, "count × call: status: message", of which the updates are taken.
    """
    counts = Counter(f"retrieve: {one['error']}" for one in deployed if one["error"])
    for count, text in (one.split(" × ", 1) for one in kept if " × update: " in one):
        counts[text] += int(count)
    kinds: dict[tuple, dict] = {}
    for text, count in counts.most_common():
        call, status, message = (text.split(": ", 2) + [""])[:3]
        raised = re.match(r"[\w.]+", message.strip().rpartition("\n")[2]) if status == "error" else None
        kind = (call, raised[0] if raised else status, _function(code, message))
        row = kinds.setdefault(kind, {"count": 0, "example": quote(message, 200)})
        row["count"] += count
    rows = [{"call": call, "kind": kind, "function": place, **row} for (call, kind, place), row in kinds.items()]
    return sorted(rows, key=lambda row: -row["count"])[:MOST_ROWS]


def _function(code: str, trace: str) -> str:
    """The function of a design in which a traceback ends, as `World.plan`; empty where it names no line of it."""
    lines, names = LOCATED.findall(trace), []
    if not lines:
        return ""
    line = int(lines[0] if "ost recent call first" in trace else lines[-1])
    try:
        node = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    while node := next(
        (one for one in node.body if isinstance(one, definitions) and one.lineno <= line <= one.end_lineno), None
    ):
        names.append(node.name)
    return ".".join(names)


# ------------------------------------------------------------------------------------------- episodes


def pairs(deployed: list[dict], without: list[dict], most_steps: int, rng: random.Random) -> list[dict]:
    """Deployed episodes beside the same ones without memory: gains, losses and equal ones in turn, the largest
    difference first. Of those that are alike (retrieval, kind of task, both outcomes) one is drawn."""
    plain = {(one["task"], one["number"]): one for one in without}
    kinds: dict[tuple, dict] = {}
    for one in rng.sample(deployed, len(deployed)):
        other = plain[one["task"], one["number"]]
        outcomes = ended(one, most_steps), ended(other, most_steps)
        kind = (json.dumps(one["retrieved"], sort_keys=True), one["family"], *outcomes)
        pair = kinds.setdefault(kind, {"with": one, "without": other, "outcomes": outcomes, "alike": 0})
        pair["alike"] += 1
    ranked, groups = [], Counter()
    for pair in sorted(kinds.values(), key=lambda pair: (-abs(gain(pair)), pair["with"]["score"])):
        group = 0 if gain(pair) > 0 else 1 if gain(pair) < 0 else 2
        ranked.append((groups[group], group, pair))
        groups[group] += 1
    return [pair for *_, pair in sorted(ranked, key=lambda one: one[:2])]


def gain(pair: dict) -> float:
    """What memory did to an episode's score."""
    return pair["with"]["score"] - pair["without"]["score"]


def episode(pair: dict, told: dict[str, str], tokens: int) -> dict:
    """One pair for the prompt in about `tokens` tokens: what was retrieved, the first observation, and the steps.

    `told` has the retrievals that were shown before, with their tasks: each is shown once.
    """
    one, other = pair["with"], pair["without"]
    retrieved = json.dumps(one["retrieved"], indent=1, ensure_ascii=False)
    shown = json.dumps(f"the same as for {told.get(retrieved)}")
    if retrieved not in told or len(retrieved) < len(shown):
        told[retrieved], shown = one["task"], quote(retrieved, tokens // 3)
    left = tokens - count_tokens(shown)

    # The first observation: all that a retrieval gets. Short texts leave their room to long ones.
    init = (one["trajectory"] or other["trajectory"])["init"]
    texts = {key: value.split("\n") for key, value in init.items() if isinstance(value, str)}
    room, first = left // 2, {}
    for place, key in enumerate(sorted(texts, key=lambda key: sum(map(len, texts[key])))):
        first[key] = _ends(texts[key], room // (len(texts) - place))
        room -= count_tokens(first[key])
    left -= sum(map(count_tokens, first.values()))

    same, steps = 0, [one["trajectory"]["steps"] if one["trajectory"] else [], other["trajectory"]["steps"]]
    while same < min(map(len, steps)) and steps[0][same] == steps[1][same]:
        same += 1
    with_memory = _steps(init, steps[0], ">", left * 2 // 3)
    left -= sum(map(count_tokens, with_memory))
    return {
        **pair,
        "retrieved": shown,
        "first": {key: first[key] for key in texts},
        "same": same,
        "steps": with_memory or [f"(not played: {quote(one['error'], 200)})"],
        "plain_steps": _steps(init, steps[1], "-", left, same),
    }


def _steps(init: dict, steps: list[dict], mark: str, tokens: int, skipped: int = 0) -> list[str]:
    """Commands behind `mark`, each with what was not seen right before it, from the step `skipped` on.

    Where not all fit, steps that changed the score stay, then the last one, then the first ones.
    """
    blocks, changed, before, score = [], [], init, 0.0
    for place, step in enumerate(steps):
        known = {line for value in before.values() if isinstance(value, str) for line in value.split("\n")}
        texts = [value for key, value in step.items() if isinstance(value, str) and key != "action_took"]
        new = [line for text in texts for line in text.split("\n") if line not in known]
        block = f"{mark} {quote_cell(str(step['action_took']), 50)}"
        block += f"\n{_ends(new, tokens // 4)}" if new else ""
        if step["scores"] != score:
            block += f"\n(score {score:.2f} → {step['scores']:.2f})"
            changed.append(place)
        blocks.append(block)
        before, score = step, step["scores"]
    kept, left = set(), tokens
    for place in dict.fromkeys([*changed, *range(len(steps))[-1:], *range(skipped, len(steps))]):
        left -= count_tokens(blocks[place]) + 1
        if left < 0:
            break
        kept.add(place)
    lines, gap = [], 0
    for place in range(skipped, len(steps) + 1):
        if place in kept or place == len(steps):
            lines += [f"({gap} steps left out)"] if gap else []
            lines += blocks[place : place + 1]
            gap = 0
        else:
            gap += 1
    return lines


def _ends(lines: list[str], tokens: int) -> str:
    """Lines as data in at most about `tokens` tokens: where that is too few, the middle ones are left out."""
    sizes = [min(count_tokens(line), 100) + 1 for line in lines]
    kept, over = list(range(len(lines))), sum(sizes) - tokens
    while over > 0 and len(kept) > 1:
        over -= sizes[kept.pop(len(kept) // 2)]
    middle = next((place for place, number in enumerate(kept) if number != place), len(kept))
    shown = [quote_lines(lines[number], min(100, max(tokens, 1))) for number in kept]
    left_out = [f"({len(lines) - len(kept)} lines left out)"] if len(kept) < len(lines) else []
    return "\n".join([*shown[:middle], *left_out, *shown[middle:]])


def as_python(trajectory: dict, tokens: int) -> str:
    """A whole episode as a design gets it, in Python: its first steps and its last, long lists cut and said so."""

    def short(value):
        if isinstance(value, dict):
            kept = {key: short(one) for key, one in list(value.items())[:MOST_ITEMS]}
            return {**kept, "...": f"{len(value) - MOST_ITEMS} more"} if len(value) > len(kept) else kept
        if isinstance(value, list):
            rest = [f"... {len(value) - MOST_ITEMS} more"] if len(value) > MOST_ITEMS else []
            return [short(one) for one in value[:MOST_ITEMS]] + rest
        return value

    def written(value: dict, indent: int) -> str:
        text = pprint.pformat({key: short(one) for key, one in value.items()}, width=108 - indent, sort_dicts=False)
        return textwrap.indent(text, " " * indent).lstrip()

    *steps, last = [written(step, 8) for step in trajectory["steps"]]
    left, shown = tokens - count_tokens(last), 0
    while shown < len(steps) and (shown < 2 or count_tokens("".join(steps[: shown + 1])) < left):
        shown += 1
    skipped = [f"# ... {len(steps) - shown} steps left out"] if shown < len(steps) else []
    lines = "\n        ".join([*(f"{step}," for step in steps[:shown]), *skipped, f"{last},"])
    init, reward = written(trajectory["init"], 9), trajectory["reward"]
    return f"Trajectory(\n    init={init},\n    steps=[\n        {lines}\n    ],\n    reward={reward},\n)"
