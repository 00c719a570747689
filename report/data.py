"""Reads a run folder for the report, however unfinished or damaged the folder is.

Promises: `read_run` raises UserError where there is no run at all, and nothing else; a missing value is
None or empty, a file that cannot be read is named in `RunData.notes`, and no file is read beyond a limit.
Texts are returned unchanged: whoever shows them cleans and escapes them.
"""

import contextlib
import fcntl
import functools
import gzip
import json
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from errors import UserError
from report.words import line, model_labels

TEXT_LIMIT = 400_000  # characters of one file that is shown
LINE_LIMIT = 50_000_000  # bytes of one line of a .jsonl file
STEPS_FIRST, STEPS_LAST = 12, 28  # shown of a sample trajectory
OBSERVATION_LIMIT, ACTION_LIMIT, RETRIEVED_LIMIT = 700, 200, 6_000  # characters
SAMPLES = 6  # trajectories of a design
LEARNED = "learned design"  # its name in results-*.json
USAGE = """
select {columns}, count(*) calls, sum(prompt_tokens) prompt_tokens,
    sum(cached_tokens) cached_tokens, sum(completion_tokens) completion_tokens,
    sum(reasoning_tokens) reasoning_tokens, sum(usd) usd, sum(usd is null) unpriced, sum(seconds) seconds
from calls group by {columns} order by {columns}
"""


@dataclass(frozen=True)
class Node:
    """One candidate: a line of the archive."""

    name: str  # "<learning step>.<place in it>"
    id: str  # hash of the code
    parents: tuple[str, ...]  # names of the candidates that it was made from
    step: int
    state: str  # "evaluated", "dropped" or "duplicate"
    score: float | None = None
    stderr: float | None = None
    difference: float | None = None  # paired, to no memory
    tokens: float | None = None  # retrieved for a task
    visits: int = 0
    tries: int = 1
    cost: float | None = None  # dollars; None where unknown
    error: str = ""
    experience: float | None = None  # score(all) - score(one), where the search climbs it
    raced: int = 0  # episodes after which `--race` stopped it, and of which the score is; 0: all were played
    fresh: float | None = None  # of a finalist: what the search climbs, measured again on fresh seeds
    final: float | None = None  # of a finalist: the same over all passes
    by: str = ""  # "sketch" where a recorded search lacks it; empty: the run's meta agent
    twin: str | None = None  # of a duplicate: the candidate that had the code first

    @property
    def parent(self) -> str | None:
        """The first parent: lineages and differences of code follow it."""
        return self.parents[0] if self.parents else None


@dataclass(frozen=True)
class TaskScore:
    """A design on one task, mean over the passes."""

    task: str
    family: str
    score: float
    without: float | None
    tokens: float


@dataclass(frozen=True)
class Design:
    """The files of one design or dropped candidate."""

    code: str
    plan: dict
    log: str  # prompts and answers
    error: str
    score: dict
    tasks: tuple[TaskScore, ...]
    samples: tuple[dict, ...]  # some deployed episodes, as _sample cuts them
    episodes: int


@dataclass(frozen=True)
class Result:
    """A memory's score on a task set, from results-*.json."""

    name: str
    mean: float
    stderr: float | None
    difference: float | None  # paired, to no memory
    interval: tuple[float, float] | None
    tokens: float | None
    steps: float | None
    usd: float | None  # of the memory's own model calls
    calls: float | None  # these calls
    invalid: float | None  # share of the agent's answers that were no valid actions
    example: str  # one of these answers
    against_best: dict | None  # the best other memory: its name, the paired difference to it, the interval
    experience: dict | None  # what it has from experience: as `score.experience` returns it
    tasks: tuple[TaskScore, ...]


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
    luck: dict[str, dict]  # "test-static" -> what chance alone does there: as `score.luck` returns it
    no_memory: float | None  # on the learning set, where the run is finished
    usage: tuple[dict, ...]  # model calls by role, model and stage: the columns of USAGE
    usage_by_design: tuple[dict, ...]  # the same for each design
    notes: tuple[str, ...]  # what could not be read

    @functools.cached_property
    def evaluated(self) -> list[Node]:
        return [node for node in self.nodes if node.state == "evaluated"]

    @property
    def objective(self) -> str:
        """What the search climbs: "score" or "experience"."""
        return "experience" if self.config.get("objective") == "experience" else "score"

    @functools.cached_property
    def finalists(self) -> list[Node]:
        """The designs that were measured again on fresh seeds, the best of the search first."""
        again = [node for node in self.evaluated if node.fresh is not None and node.final is not None]
        return sorted(again, key=lambda node: -self.lead(node))

    @functools.cached_property
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
        whole = (self.design(one).episodes for one in self.evaluated if not one.raced)
        planned = next(filter(None, whole), 0)
        return f"{node.raced} of {planned} episodes" if planned > node.raced else f"{node.raced} episodes"

    @functools.cached_property
    def f0(self) -> float | None:
        """Score of no memory on the deployment half of the learning set."""
        known = self.results.get("learning-static", {}).get("no_memory")
        if known:
            return known.mean
        if self.no_memory is not None:
            return self.no_memory
        whole = (one for one in self.evaluated if one.difference is not None and not one.raced)
        return next((one.score - one.difference for one in whole), None)

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
            found = [(file.name, file.stat()) for file in os.scandir(folder)]
            stamps = tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in found))
        return _read_design(folder, stamps)


def read_run(path: str | Path) -> RunData:
    """A run's folder; raises UserError where it holds no run."""
    path, notes = Path(path), []
    if not (path / "config.json").is_file():
        raise UserError(f"no run in {path}: it has no config.json")
    config = read_object(path / "config.json", notes)
    about = config.pop("about", None)
    about = about if isinstance(about, dict) else {}
    nodes = _nodes(path, notes)

    results, luck, labels = {}, {}, texts(about.get("labels"))
    for file in sorted(path.glob("results-*.json")):
        value = read_object(file, notes)
        scores = value.get("scores")
        found = [read_result(name, one) for name, one in scores.items()] if isinstance(scores, dict) else []
        if not found or None in found:
            notes.append(f"{file.name}: not every score could be read")
        key = file.stem.removeprefix("results-")
        results[key] = {one.name: one for one in found if one}
        if chance := read_luck(value.get("noise")):
            luck[key] = chance
        labels += texts(value.get("labels"))
    printed = read_object(path / "score.json", notes)
    noise = printed.get("noise") if isinstance(printed.get("noise"), dict) else {}
    if chance := read_luck(noise.get("learning")):
        luck.setdefault("learning-static", chance)
    named = model_labels({role.removesuffix("_model"): config[role] for role in config if role.endswith("_model")})
    named += ["partly by sketch"] * any(node.by for node in nodes)
    labels = named + ["unsafe sandbox"] * (config.get("unsafe_sandbox") is True) + labels

    usage = usage_by_design = ()
    if (path / "store.sqlite").exists():
        address = f"{(path / 'store.sqlite').absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as db:
                db.row_factory = sqlite3.Row
                usage, usage_by_design = (
                    tuple(dict(row) for row in db.execute(USAGE.format(columns=columns)))
                    for columns in ("role, model, stage", "role, model, design, stage")
                )
        except sqlite3.Error as error:
            notes.append(f"model calls in store.sqlite could not be read: {error}")

    labels = tuple(dict.fromkeys(line(label, 40) for label in labels))
    state = _state(path, config, nodes, notes)
    return RunData(path, config, about, labels, state, nodes, results, luck, rate(printed.get("no_memory")), usage,
                   usage_by_design, tuple(notes))


def _nodes(path: Path, notes: list[str]) -> tuple[Node, ...]:
    """The candidates of archive.jsonl, in the order in which they entered."""
    nodes: dict[str, Node] = {}
    first: dict[str, str] = {}  # design id: name of the candidate that had this code first
    for place, value in enumerate(read_lines(path / "archive.jsonl", notes), 1):
        name, key, state = (text(value.get(one)) for one in ("candidate", "id", "state"))
        score, step = rate(value.get("score")), number(value.get("step"), 0, 1e6)
        # Names and ids become names of folders, so nothing else may pass.
        valid = re.fullmatch(r"\d{1,6}\.\d{1,6}", name) and re.fullmatch("[0-9a-f]{4,64}", key)
        if not valid or name in nodes or (state == "evaluated" and score is None):
            notes.append(f"archive.jsonl: line {place} is not a new, valid candidate")
            continue
        parents = texts(value.get("parents")) or texts([value.get("parent")])  # older runs
        nodes[name] = Node(
            name=name,
            id=key,
            parents=tuple(dict.fromkeys(first[parent] for parent in parents if parent in first)),
            step=int(step if step is not None else name.split(".")[0]),
            state=state if state in ("evaluated", "duplicate") else "dropped",
            score=score,
            stderr=rate(value.get("stderr")),
            difference=gain(value.get("difference")),
            tokens=number(value.get("retrieved_tokens")),
            visits=int(number(value.get("visits")) or 0),
            tries=int(number(value.get("tries")) or 1),
            cost=number(value.get("cost")),
            error=text(value.get("error")),
            experience=gain(value.get("experience")),
            raced=int(number(value.get("raced")) or 0),
            fresh=gain(value.get("fresh")),
            final=gain(value.get("final")),
            by=line(text(value.get("by")), 20),
            twin=first.get(key) if state == "duplicate" else None,
        )
        if state == "evaluated":
            first.setdefault(key, name)
    return tuple(nodes.values())


def read_result(name: str, value: Any) -> Result | None:
    """A score of results-*.json or score.json; None where it has no mean."""
    mean = rate(value.get("mean")) if isinstance(value, dict) else None
    if mean is None:
        return None
    best = value.get("against_best") if isinstance(value.get("against_best"), dict) else {}
    against_best = {
        "name": text(best.get("name")),
        "difference": gain(best.get("difference")),
        "interval": _gains(best.get("interval"), 2),
    }
    tasks = value.get("tasks") if isinstance(value.get("tasks"), list) else []
    return Result(
        name=name,
        mean=mean,
        stderr=rate(value.get("stderr")),
        difference=gain(value.get("difference")),
        interval=_gains(value.get("interval"), 2),
        tokens=number(value.get("retrieved_tokens")),
        steps=number(value.get("steps")),
        usd=number(value.get("usd")),
        calls=number(value.get("memory_calls")),
        invalid=rate(value.get("invalid")),
        example=text(value.get("example")),
        against_best=None if None in against_best.values() else against_best,
        experience=read_experience(value.get("experience")),
        tasks=_by_task([one for one in tasks if isinstance(one, dict)]),
    )


def read_experience(value: Any) -> dict | None:
    """What `score.experience` returned; None where it is not whole."""
    value = value if isinstance(value, dict) else {}
    found = {key: rate(value.get(key)) for key in ("none", "one", "all")}
    found |= {key: _gains(value.get(key), 3) for key in ("gives", "brought", "wakes")}
    return None if None in found.values() else found


def read_luck(value: Any) -> dict | None:
    """What `score.luck` returned; None where it is not whole."""
    value = value if isinstance(value, dict) else {}
    found = {"difference": gain(value.get("difference")), "interval": _gains(value.get("interval"), 2)}
    found["noise"] = rate(value.get("noise"))
    return None if None in found.values() else found


def _gains(value: Any, count: int) -> tuple[float, ...] | None:
    """So many differences of rates; None where one is missing."""
    found = tuple(map(gain, value)) if isinstance(value, list) and len(value) == count else (None,)
    return None if None in found else found


def _by_task(episodes: list[dict]) -> tuple[TaskScore, ...]:
    """Means over the passes of each task, in the order in which the tasks first appear."""
    groups: dict[str, list[dict]] = {}
    for one in episodes:
        if rate(one.get("score")) is not None:
            groups.setdefault(text(one.get("task")), []).append(one)

    def mean(rows: list[dict], key: str, kind=rate) -> float | None:
        values = [kind(row.get(key)) for row in rows]
        return None if None in values else sum(values) / len(values)

    return tuple(
        TaskScore(task, text(rows[0].get("family")), mean(rows, "score"), mean(rows, "without"),
                  mean(rows, "tokens", number) or 0.0)
        for task, rows in groups.items()
    )


def _state(path: Path, config: dict, nodes: tuple[Node, ...], notes: list[str]) -> State:
    """From history.jsonl, the archive, and whether a process holds the folder's lock."""
    events = [one for one in read_lines(path / "history.jsonl", notes) if text(one.get("event"))]
    last = events[-1] if events else {}
    done, steps = max((node.step for node in nodes), default=0), int(number(config.get("steps")) or 0)
    claimed = False  # a process that works in the folder holds this lock
    with contextlib.suppress(OSError), open(path / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            claimed = True
    if last.get("event") == "finished" or (not events and steps and done >= steps):
        kind, words = "finished", "The run is finished."
    elif last.get("event") == "stopped":
        why = line(text(last.get("why")), 300) or "the reason is unknown"
        kind, words = "stopped", f"The run stopped: {why}."
    elif claimed:
        kind, words = "running", "The run was at work when this page was written."
    else:
        kind, words = "interrupted", "The run was interrupted: no process is at work in its folder."
    if kind != "finished" and last.get("command") != "evaluate":
        words += f" {done} of {steps} learning steps are in the archive."
    resumed = sum(one["event"] == "resumed" for one in events)
    if resumed:
        words += f" It was resumed {'once' if resumed == 1 else f'{resumed} times'}."

    times = []
    for one in events:
        with contextlib.suppress(ValueError):
            times.append(datetime.strptime(text(one.get("time")), "%Y-%m-%dT%H:%M:%SZ"))
    return State(kind, words, resumed, min(times, default=None), max(times, default=None))


@functools.lru_cache(maxsize=256)  # a run writes its report after each step; its designs do not change
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
            kinds[kind].append(_sample(value))
    sorts = [kinds[kind] for kind in sorted(kinds)]
    turns = [found[place] for place in range(SAMPLES) for found in sorts if place < len(found)]
    unread: list[str] = []  # a missing file shows as missing
    return Design(
        code=read_text(folder / "design.py"),
        plan=read_object(folder / "plan.json", unread),
        log=read_text(folder / "log.txt"),
        error=text(read_object(folder / "error.json", unread).get("error")),
        score=read_object(folder / "score.json", unread),
        tasks=_by_task(rows),
        samples=tuple(turns[:SAMPLES]),
        episodes=len(rows),
    )


def _sample(value: dict) -> dict:
    """One deployed episode, cut so that it can be shown."""
    trajectory = value.get("trajectory") if isinstance(value.get("trajectory"), dict) else {}
    init = trajectory.get("init") if isinstance(trajectory.get("init"), dict) else {}
    steps = trajectory.get("steps") if isinstance(trajectory.get("steps"), list) else []
    numbered = [(place, step) for place, step in enumerate(steps, 1) if isinstance(step, dict)]
    if len(numbered) > STEPS_FIRST + STEPS_LAST:
        numbered = numbered[:STEPS_FIRST] + numbered[-STEPS_LAST:]
    shown = []
    for place, step in [(0, init), *numbered]:
        # An observation is every text of a step, whatever key the domain keeps it under, without empty lines.
        seen = [text(one) for key, one in step.items() if key not in ("action_took", "goal")]
        rows = [row.rstrip() for one in seen for row in one[: 4 * OBSERVATION_LIMIT].splitlines()]
        seen = "\n".join(row for row in rows if row)
        seen = seen if len(seen) <= OBSERVATION_LIMIT else f"{seen[:OBSERVATION_LIMIT]}…"
        shown.append((place, text(step.get("action_took"))[:ACTION_LIMIT], seen, rate(step.get("scores"))))
    return {
        "task": text(value.get("task")),
        "number": int(number(value.get("number")) or 0),  # of the pass
        "score": rate(value.get("score")),
        "without": rate(value.get("without")),  # score of the same episode without memory
        "tokens": number(value.get("tokens")) or 0.0,
        "retrieved": json.dumps(value.get("retrieved"), indent=1, ensure_ascii=False)[:RETRIEVED_LIMIT],
        "goal": text(init.get("goal"))[:1000],
        "steps": shown,  # number, action, observation, score so far
        "total_steps": len(steps),
        "error": text(value.get("error"))[:RETRIEVED_LIMIT],
    }


def read_text(path: Path) -> str:
    """The beginning of a file; empty where there is none."""
    opened = gzip.open if path.suffix == ".gz" else open
    damage = (OSError, EOFError, zlib.error)  # of what is packed
    with contextlib.suppress(*damage), opened(path, "rt", encoding="utf-8", errors="replace") as file:
        return file.read(TEXT_LIMIT)
    return ""


def read_object(path: Path, notes: list[str]) -> dict:
    """The JSON object of a file; empty where there is none, and noted where it is damaged."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} could not be read: {line(str(error), 120)}")
        return {}
    return value if isinstance(value, dict) else {}


def read_lines(path: Path, notes: list[str]) -> Iterator[dict]:
    """The JSON objects of a .jsonl file; any other line is noted and left out."""
    opened = gzip.open if path.suffix == ".gz" else open
    damage = (OSError, EOFError, zlib.error)  # of what is packed
    with contextlib.suppress(*damage), opened(path, "rt", encoding="utf-8", errors="replace") as file:
        for place, row in enumerate(iter(lambda: file.readline(LINE_LIMIT), ""), 1):
            try:
                value = json.loads(row)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield value
            elif row.strip():
                notes.append(f"{path.name}: line {place} could not be read")


def number(value: Any, low: float = 0.0, high: float = 1e12) -> float | None:
    """A number from `low` to `high`, else None: only differences are ever below 0."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    return value if good else None


def rate(value: Any) -> float | None:
    return number(value, 0.0, 1.0)


def gain(value: Any) -> float | None:
    """A difference of rates."""
    return number(value, -1.0, 1.0)


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
