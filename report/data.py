"""Reads a run folder for the report, however unfinished or damaged the folder is.

Promises: `read_run` raises UserError where there is no run at all, and nothing else; a missing value is None or empty,
a file that cannot be read is named in `RunData.notes`, and no file is read beyond a limit. Texts are not cleaned.
"""

import contextlib
import fcntl
import gzip
import itertools
import json
import os
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from errors import UserError
from report.words import line, model_labels

DAMAGE = (OSError, EOFError, zlib.error)  # of a file, also of one that is packed
SAMPLES, OBSERVATION_LIMIT, RETRIEVED_LIMIT = 6, 700, 6_000  # trajectories of a design; characters
LEARNED = "learned design"  # its name in results-*.json
USAGE = """select {columns}, count(*) calls, sum(prompt_tokens) prompt_tokens, sum(cached_tokens) cached_tokens,
    sum(completion_tokens) completion_tokens, sum(reasoning_tokens) reasoning_tokens, sum(usd) usd,
    sum(usd is null) unpriced, sum(seconds) seconds from calls group by {columns} order by {columns}"""


# Checks: each returns a value of JSON that is what it should be, else None or what is empty.
def number(value: Any, low: float = 0.0, high: float = 1e12) -> float | None:
    """A number from `low` to `high`, else None: only differences are ever below 0."""
    return value if type(value) in (int, float) and low <= value <= high else None


def kept(value: Any, kind: type = dict) -> Any:
    """A value of a kind, by itself an object; else an empty one."""
    return value if isinstance(value, kind) else kind()


rate = partial(number, high=1.0)
gain = partial(number, low=-1.0, high=1.0)  # a difference of rates
text = partial(kept, kind=str)


def gains(value: Any, count: int = 2) -> tuple[float, ...] | None:
    """So many differences of rates, such as the ends of an interval; None where one is missing."""
    found = tuple(map(gain, kept(value, list)))
    return None if None in found or len(found) != count else found


def whole(value: Any) -> int:
    return int(number(value) or 0)


def texts(value: Any) -> list[str]:
    return [one for one in kept(value, list) if isinstance(one, str)]


def complete(value: Any, **checks: Callable) -> dict | None:
    """An object with each of these fields, else None."""
    found = {key: check(kept(value).get(key)) for key, check in checks.items()}
    return None if None in found.values() else found


three = partial(gains, count=3)  # a difference and the ends of its interval
read_luck = partial(complete, difference=gain, interval=gains, noise=rate)


def checked(check: Callable, key: str = "") -> Any:
    """A field of a dataclass that `fill` takes from a JSON object, under its own name or `key`."""
    return field(default=check(None), metadata={"check": check, "key": key})


def fill(kind: type, value: Any, **known: Any) -> Any:
    """A dataclass with its checked fields from a JSON object and the others as they are given."""
    for one in fields(kind):
        if check := one.metadata.get("check"):
            known[one.name] = check(kept(value).get(one.metadata["key"] or one.name))
    return kind(**known)


@dataclass(frozen=True)
class Node:
    """One candidate: a line of the archive."""

    name: str  # "<learning step>.<place in it>"
    id: str  # hash of the code
    parents: tuple[str, ...]  # names of the candidates that it was made from
    step: int
    state: str  # "evaluated", "dropped" or "duplicate"
    score: float | None = checked(rate)
    stderr: float | None = checked(rate)
    difference: float | None = checked(gain)  # paired, to no memory
    tokens: float | None = checked(number, "retrieved_tokens")  # for a task
    visits: int = checked(whole)
    tries: int = checked(lambda value: whole(value) or 1)
    cost: float | None = checked(number)  # dollars; None where unknown
    error: str = checked(text)
    experience: float | None = checked(gain)  # score(all) - score(one), where the search climbs it
    raced: int = checked(whole)  # episodes after which `--race` stopped it, and of which the score is; 0: all
    fresh: float | None = checked(gain)  # of a finalist: what the search climbs, measured again on fresh seeds
    final: float | None = checked(gain)  # of a finalist: the same over all passes
    by: str = checked(lambda value: line(text(value), 20))  # "sketch" where a recorded search lacks it, else empty
    twin: str | None = None  # of a duplicate: the candidate that had the code first

    @property
    def parent(self) -> str | None:
        """The first parent: lineages and differences of code follow it."""
        return self.parents[0] if self.parents else None


def by_task(episodes: Any) -> tuple[dict, ...]:
    """For each task its name, family, and means over the passes, in the order in which the tasks first appear."""
    groups: dict[str, list[dict]] = {}
    for one in map(kept, kept(episodes, list)):
        if rate(one.get("score")) is not None:
            groups.setdefault(text(one.get("task")), []).append(one)

    def mean(rows: list[dict], key: str, check: Callable = rate) -> float | None:
        values = [check(row.get(key)) for row in rows]
        return None if None in values else sum(values) / len(values)

    return tuple({"task": task, "family": text(rows[0].get("family")), "score": mean(rows, "score"),
                  "without": mean(rows, "without"), "tokens": mean(rows, "tokens", number) or 0.0}
                 for task, rows in groups.items())  # fmt: skip


@dataclass(frozen=True)
class Design:
    """The files of one design or dropped candidate."""

    code: str
    title: str  # what it calls itself: the first line of its docstring, else nothing
    plan: dict[str, list[tuple[str, str, str]]]  # (verdict, text, reason) by the name of the list
    log: str  # prompts and answers
    error: str
    score: dict
    tasks: tuple[dict, ...]
    samples: tuple[dict, ...]  # some deployed episodes, cut so that they can be shown
    episodes: int


@dataclass(frozen=True)
class Result:
    """A memory's score on a task set, from results-*.json."""

    name: str
    mean: float = checked(rate)
    stderr: float | None = checked(rate)
    difference: float | None = checked(gain)  # paired, to no memory
    interval: tuple[float, float] | None = checked(gains)
    tokens: float | None = checked(number, "retrieved_tokens")
    steps: float | None = checked(number)
    usd: float | None = checked(number)  # of the memory's own model calls
    calls: float | None = checked(number, "memory_calls")  # these calls
    invalid: float | None = checked(rate)  # share of the agent's answers that were no valid actions
    example: str = checked(text)  # one of these answers
    # The best other memory, and what `score.experience` returns:
    against_best: dict | None = checked(partial(complete, name=text, difference=gain, interval=gains))
    experience: dict | None = checked(
        partial(complete, none=rate, one=rate, all=rate, gives=three, brought=three, wakes=three))  # fmt: skip
    tasks: tuple[dict, ...] = checked(by_task)


def read_result(name: str, value: Any) -> Result | None:
    """A score of results-*.json or score.json; None where it has no mean."""
    found = fill(Result, value, name=name)
    return None if found.mean is None else found


@dataclass(frozen=True)
class State:
    """How far a run has come."""

    kind: str  # "finished", "running", "interrupted", "stopped"
    words: str
    resumed: int  # times
    started: datetime | None  # UTC, None where unknown
    ended: datetime | None  # the last event that is known


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows except the designs' files, which `design` reads one by one."""

    path: Path
    config: dict
    about: dict
    labels: tuple[str, ...]
    state: State
    nodes: tuple[Node, ...]
    results: dict[str, dict[str, Result]]  # "test-static" -> name -> result
    tested: Result | None  # the learned design on the test set
    luck: dict[str, dict]  # "test-static" -> what chance alone does there: as `score.luck` returns it
    f0: float | None  # score of no memory on the deployment half of the learning set
    objective: str  # what the search climbs: "score" or "experience"
    usage: tuple[dict, ...]  # model calls by role, model and stage: the columns of USAGE
    usage_by_design: tuple[dict, ...]  # the same for each design
    notes: tuple[str, ...]  # what could not be read

    @cached_property
    def evaluated(self) -> list[Node]:
        return [node for node in self.nodes if node.state == "evaluated"]

    @cached_property
    def finalists(self) -> list[Node]:
        """The designs that were measured again on fresh seeds, the best of the search first."""
        again = [node for node in self.evaluated if node.fresh is not None and node.final is not None]
        return sorted(again, key=lambda node: -self.lead(node))

    @cached_property
    def learned(self) -> Node | None:
        """The learned design, as `alma.Archive.best` chooses it: the best finalist, else the best of the search."""
        if again := [node for node in self.evaluated if node.final is not None]:
            return max(again, key=lambda node: node.final)
        whole = [node for node in self.evaluated if not node.raced]
        return max(whole or self.evaluated[:1], key=self.lead, default=None)

    def lead(self, node: Node) -> float:
        """What the search climbs: the lead over no memory or, with that objective, what experience gives."""
        if node.experience is not None:
            return node.experience
        return node.difference if node.raced and node.difference is not None else node.score - (self.f0 or 0.0)

    def noise(self, key: str = "learning-static") -> float:
        """The difference below which chance alone may be at work on a task set; 0 where that is not known."""
        return self.luck[key]["noise"] if key in self.luck else 0.0

    def played(self, node: Node) -> str:
        """How many of its episodes a design played that a race stopped; empty where it played all."""
        if not node.raced:
            return ""
        planned = next(filter(None, (self.design(one).episodes for one in self.evaluated if not one.raced)), 0)
        return f"{node.raced} of {planned} episodes" if planned > node.raced else f"{node.raced} episodes"

    def lineage(self, node: Node | None) -> list[Node]:
        """The candidates from the first design to `node`, by first parents."""
        by_name, path = {one.name: one for one in self.nodes}, []
        while node and node not in path:
            path.append(node)
            node = by_name.get(node.parent)
        return path[::-1]

    def design(self, node: Node) -> Design:
        """The files of a candidate; empty where they are missing."""
        folder = self.path / (f"dropped/{node.name}" if node.state == "dropped" else f"designs/{node.id}")
        stamps = ()
        with contextlib.suppress(OSError):
            stamps = tuple(sorted((one.name, one.stat().st_mtime_ns, one.stat().st_size) for one in os.scandir(folder)))
        return _read_design(folder, stamps)


def read_run(path: str | Path) -> RunData:
    """A run's folder; raises UserError where it holds no run."""
    path, notes = Path(path), []
    if not (path / "config.json").is_file():
        raise UserError(f"no run in {path}: it has no config.json")
    config = read_object(path / "config.json", notes)
    about = kept(config.pop("about", None))

    # The candidates, in the order in which they entered the archive.
    known: dict[str, Node] = {}
    first: dict[str, str] = {}  # design id: name of the candidate that had this code first
    for place, value in enumerate(read_lines(path / "archive.jsonl", notes), 1):
        name, key, state = (text(value.get(one)) for one in ("candidate", "id", "state"))
        # Names and ids become names of folders, so nothing else may pass.
        valid = re.fullmatch(r"\d{1,6}\.\d{1,6}", name) and re.fullmatch("[0-9a-f]{4,64}", key)
        if not valid or name in known or (state == "evaluated" and rate(value.get("score")) is None):
            notes.append(f"archive.jsonl: line {place} is not a new, valid candidate")
            continue
        parents = texts(value.get("parents")) or texts([value.get("parent")])  # older runs
        parents = tuple(dict.fromkeys(first[parent] for parent in parents if parent in first))
        twin = first.get(key) if state == "duplicate" else None
        known[name] = fill(Node, value, name=name, id=key, parents=parents, step=int(name.split(".")[0]), twin=twin,
                           state=state if state in ("evaluated", "duplicate") else "dropped")  # fmt: skip
        if state == "evaluated":
            first.setdefault(key, name)
    nodes = tuple(known.values())

    results, luck, labels = {}, {}, texts(about.get("labels"))
    for file in sorted(path.glob("results-*.json")):
        value, key = read_object(file, notes), file.stem.removeprefix("results-")
        found = [read_result(name, one) for name, one in kept(value.get("scores")).items()]
        if not found or None in found:
            notes.append(f"{file.name}: not every score could be read")
        results[key] = {one.name: one for one in found if one}
        if chance := read_luck(value.get("noise")):
            luck[key] = chance
        labels += texts(value.get("labels"))
    printed = read_object(path / "score.json", notes)
    if chance := read_luck(kept(printed.get("noise")).get("learning")):
        luck.setdefault("learning-static", chance)
    f0 = rate(printed.get("no_memory"))  # where the run is finished
    if "no_memory" in results.get("learning-static", {}):
        f0 = results["learning-static"]["no_memory"].mean
    elif f0 is None:
        played = (one for one in nodes if one.state == "evaluated" and one.difference is not None and not one.raced)
        f0 = next((one.score - one.difference for one in played), None)
    named = model_labels({role.removesuffix("_model"): config[role] for role in config if role.endswith("_model")})
    named += ["partly by sketch"] * any(node.by for node in nodes)
    labels = named + ["unsafe sandbox"] * (config.get("unsafe_sandbox") is True) + labels

    usage = usage_by_design = ()
    if (path / "store.sqlite").exists():
        address = f"{(path / 'store.sqlite').absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as db:
                db.row_factory = sqlite3.Row
                usage, usage_by_design = (tuple(map(dict, db.execute(USAGE.format(columns=columns))))
                                          for columns in ("role, model, stage", "role, model, design, stage"))
        except sqlite3.Error as error:
            notes.append(f"model calls in store.sqlite could not be read: {error}")

    labels = tuple(dict.fromkeys(line(label, 40) for label in labels))
    state = _state(path, config, max((node.step for node in nodes), default=0), notes)
    objective = "experience" if config.get("objective") == "experience" else "score"
    tested = results.get("test-static", {}).get(LEARNED)
    return RunData(path, config, about, labels, state, nodes, results, tested, luck, f0, objective, usage,
                   usage_by_design, tuple(notes))


def _state(path: Path, config: dict, done: int, notes: list[str]) -> State:
    """From history.jsonl, the learning steps that are done, and whether a process holds the folder's lock."""
    events = [one for one in read_lines(path / "history.jsonl", notes) if text(one.get("event"))]
    last, steps = events[-1] if events else {}, whole(config.get("steps"))
    claimed = False  # a process that works in the folder holds this lock
    with contextlib.suppress(OSError), open(path / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            claimed = True
    if last.get("event") == "finished" or (not events and steps and done >= steps):
        kind, words = "finished", "The run is finished."
    elif last.get("event") == "stopped":
        kind, words = "stopped", f"The run stopped: {line(text(last.get('why')), 300) or 'the reason is unknown'}."
    elif claimed:
        kind, words = "running", "The run was at work when this page was written."
    else:
        kind, words = "interrupted", "The run was interrupted: no process is at work in its folder."
    if kind != "finished" and last.get("command") != "evaluate":
        words += f" {done} of {steps} learning steps are in the archive."
    if resumed := sum(one["event"] == "resumed" for one in events):
        words += f" It was resumed {'once' if resumed == 1 else f'{resumed} times'}."
    times = []
    for one in events:
        with contextlib.suppress(ValueError):
            times.append(datetime.strptime(text(one.get("time")), "%Y-%m-%dT%H:%M:%SZ"))
    return State(kind, words, resumed, min(times, default=None), max(times, default=None))


@lru_cache(maxsize=256)  # a run writes its report after each step; its designs do not change
def _read_design(folder: Path, stamps: tuple) -> Design:
    """The files of designs/<id>/ or dropped/<candidate>/, with a few episodes of each outcome."""
    rows: list[dict] = []
    kinds: dict[str, list[dict]] = {}  # sorted by name, the most interesting kinds of episodes come first
    packed = folder / "trajectories.jsonl.gz"
    for value in read_lines(packed if packed.exists() else packed.with_suffix(""), []):  # older runs
        score, without = rate(value.get("score")), rate(value.get("without"))
        if score is None:
            continue
        rows.append({key: value.get(key) for key in ("task", "family", "score", "without", "tokens")})
        if text(value.get("error")):
            kind = "0 the design failed"
        elif without is not None and score != without:
            kind = "1 better with memory" if score > without else "2 worse with memory"
        else:
            kind = "3 failed" if score < 1 / 3 else "4 partly" if score < 2 / 3 else "5 succeeded"
        if len(kinds.setdefault(kind, [])) < SAMPLES:
            kinds[kind].append(value)

    # One episode of each kind, then a second one of each, ...; of a long one the first 12 steps and the last 28.
    turns = itertools.chain(*itertools.zip_longest(*(kinds[kind] for kind in sorted(kinds))))
    samples = []
    for value in itertools.islice(filter(None, turns), SAMPLES):
        trajectory = kept(value.get("trajectory"))
        init, steps = kept(trajectory.get("init")), kept(trajectory.get("steps"), list)
        shown, numbered = [], [(place, step) for place, step in enumerate(steps, 1) if isinstance(step, dict)]
        for place, step in [(0, init), *numbered[:12], *numbered[12:][-28:]]:
            # An observation is every text of a step, whatever key the domain keeps it under, without empty lines.
            parts = [text(one) for key, one in step.items() if key not in ("action_took", "goal")]
            lines = [row.rstrip() for one in parts for row in one[: 4 * OBSERVATION_LIMIT].splitlines()]
            seen = "\n".join(filter(None, lines))
            seen = seen if len(seen) <= OBSERVATION_LIMIT else f"{seen[:OBSERVATION_LIMIT]}…"
            shown.append((place, text(step.get("action_took"))[:200], seen, rate(step.get("scores"))))
        samples.append({
            "task": text(value.get("task")), "goal": text(init.get("goal"))[:1000],
            "number": whole(value.get("number")),  # of the pass
            "score": rate(value.get("score")), "without": rate(value.get("without")),  # the latter: with no memory
            "tokens": number(value.get("tokens")) or 0.0,
            "retrieved": json.dumps(value.get("retrieved"), indent=1, ensure_ascii=False)[:RETRIEVED_LIMIT],
            "error": text(value.get("error"))[:RETRIEVED_LIMIT],
            "steps": shown, "total_steps": len(steps),  # number, action, observation, score so far
        })  # fmt: skip
    found, score, error = (read_object(folder / f"{name}.json", []) for name in ("plan", "score", "error"))
    plan = {}  # whatever a model made of its lists
    for key, label in (("changes", "what"), ("problems", ""), ("verdicts", "item"), ("worked", "")):
        items = [one if isinstance(one, dict) else {label: one} for one in kept(found.get(key), list)[:40]]
        plan[key] = [tuple(str(one.get(part, ""))[:2000] for part in ("verdict", label, "why")) for one in items]
    log = read_text(folder / "log.txt.gz") or read_text(folder / "log.txt")  # older runs
    code = read_text(folder / "design.py")
    start = code.lstrip()[:400]
    quotes = start[:3] if start[:3] in ('"""', "'''") else ""
    title = line(start[3:].split(quotes)[0].strip().split("\n")[0], 110) if quotes else ""
    return Design(code, title, plan, log, text(error.get("error")), score, by_task(rows), tuple(samples), len(rows))


def read_text(path: Path) -> str:
    """The beginning of a file; empty where there is none that can be read."""
    opened = gzip.open if path.suffix == ".gz" else open
    with contextlib.suppress(*DAMAGE), opened(path, "rt", encoding="utf-8", errors="replace") as file:
        return file.read(400_000)  # characters
    return ""


def read_object(path: Path, notes: list[str]) -> dict:
    """The JSON object of a file; empty where there is none, and noted where it is damaged."""
    try:
        return kept(json.loads(path.read_text(encoding="utf-8", errors="replace"))) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} could not be read: {line(str(error), 120)}")
        return {}


def read_lines(path: Path, notes: list[str]) -> Iterator[dict]:
    """The JSON objects of a .jsonl file; any other line is noted and left out."""
    opened = gzip.open if path.suffix == ".gz" else open
    with contextlib.suppress(*DAMAGE), opened(path, "rt", encoding="utf-8", errors="replace") as file:
        for place, row in enumerate(iter(lambda: file.readline(50_000_000), ""), 1):
            try:
                value = json.loads(row)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield value
            elif row.strip():
                notes.append(f"{path.name}: line {place} could not be read")
