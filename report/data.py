"""What a run's folder says, read for the report however unfinished or damaged the folder is.

Promises: `read_run` raises nothing but UserError where there is no run at all; what is missing is
None or empty, what could not be read is named in `RunData.notes`; no file is read beyond a limit.
Texts come back as they stand in the files: whoever shows them cleans and escapes them.

Try it: `python -c "import sys, report_data; print(report_data.read_run(sys.argv[1]).state)" runs/RUN`
"""

import fcntl
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from errors import InfrastructureError, UserError
from harness.run_folder import RunFolder
from models.store import Store
from report.safe_text import line

TEXT_LIMIT = 400_000  # characters of one file that is shown
LINE_LIMIT = 50_000_000  # bytes of one line of a .jsonl file
STEPS_FIRST, STEPS_LAST = 12, 28  # of a sample trajectory; those between are left out
OBSERVATION_LIMIT, ACTION_LIMIT, RETRIEVED_LIMIT = 700, 200, 6_000  # characters
SAMPLES = 6  # trajectories of a design
LEARNED = "learned design"  # its name in results-*.json
_ID, _CANDIDATE = re.compile(r"[0-9a-f]{4,64}"), re.compile(r"\d{1,6}\.\d{1,6}")


@dataclass(frozen=True)
class Node:
    """One candidate: a line of the archive."""

    name: str  # "<learning step>.<place in it>"
    id: str  # hash of the code
    parent: str | None  # name of the candidate that it was made from
    step: int
    state: str  # "evaluated", "dropped" or "duplicate"
    score: float | None
    stderr: float | None
    difference: float | None  # paired, to no memory
    tokens: float | None  # retrieved for a task
    visits: int
    tries: int
    cost: float | None  # dollars; None where unknown
    error: str
    twin: str | None = None  # of a duplicate: the candidate that had the code first


@dataclass(frozen=True)
class Sample:
    """One deployed episode, cut so that it can be shown."""

    task: str
    family: str
    number: int  # of the pass
    score: float
    without: float | None  # score of the same episode without memory
    tokens: float
    retrieved: str  # JSON
    goal: str
    steps: tuple[tuple[int, str, str, float | None], ...]  # number, action, observation, score so far
    total_steps: int
    error: str


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

    code: str = ""
    plan: dict = field(default_factory=dict)
    log: str = ""  # prompts and answers
    error: str = ""
    score: dict = field(default_factory=dict)
    tasks: tuple[TaskScore, ...] = ()
    samples: tuple[Sample, ...] = ()
    episodes: int = 0


@dataclass(frozen=True)
class Result:
    """A design's score on a task set, as results-*.json has it."""

    name: str
    id: str | None
    mean: float
    stderr: float | None
    difference: float | None
    interval: tuple[float, float] | None
    tokens: float | None
    steps: float | None
    usd: float | None  # of the design's own model calls
    calls: float | None  # these calls
    best_other: str  # the best other memory, empty where there is none
    to_best_other: tuple[float, float] | None  # 95 % interval of the paired difference to it
    tasks: tuple[TaskScore, ...]


@dataclass(frozen=True)
class State:
    """How far a run has come."""

    kind: str  # "finished", "running", "interrupted", "stopped"
    words: str
    resumed: int  # times
    started: str  # ISO time, empty where unknown
    ended: str  # of the last thing that is known


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows but the designs' files, which `design` reads one by one."""

    path: Path
    config: dict
    about: dict
    labels: tuple[str, ...]
    state: State
    nodes: tuple[Node, ...]
    results: dict[str, dict[str, Result]]  # "test-static" -> name -> result
    usage: tuple[dict, ...]  # rows of Store.usage()
    notes: tuple[str, ...]  # what could not be read

    @property
    def evaluated(self) -> list[Node]:
        return [node for node in self.nodes if node.state == "evaluated"]

    @property
    def learned(self) -> Node | None:
        """The best design on the learning set; of equal ones the first."""
        return max(self.evaluated, key=lambda node: node.score, default=None)

    @property
    def f0(self) -> float | None:
        """Score of no memory on what the learning set deploys on."""
        known = self.results.get("learning-static", {}).get("no_memory")
        if known:
            return known.mean
        return next((one.score - one.difference for one in self.evaluated if one.difference is not None), None)

    def lineage(self, node: Node | None) -> list[str]:
        """Names of the candidates from the first design to `node`."""
        by_name, path = {one.name: one for one in self.nodes}, []
        while node and node.name not in path:
            path.append(node.name)
            node = by_name.get(node.parent)
        return path[::-1]

    def design(self, node: Node) -> Design:
        """The files of a candidate; empty where they are missing."""
        folder = self.path / "dropped" / node.name if node.state == "dropped" else self.path / "designs" / node.id
        return read_design(folder)

    def calls(self, node: Node) -> list[dict]:
        """Model calls booked to a candidate or to its design."""
        own = {node.name} if node.state != "evaluated" else {node.name, node.id}
        return [row for row in self.usage if row["design"] in own]


# ------------------------------------------------------------------------------------ the whole run


def read_run(path: str | Path) -> RunData:
    """A run's folder; raises UserError where it holds no run."""
    folder, notes = RunFolder.open(Path(path)), []
    config = read_object(folder.path / "config.json", notes)
    about = config.pop("about", None)
    about = about if isinstance(about, dict) else {}
    nodes = _nodes(folder.path, notes)
    results, labels = _results(folder.path, notes)
    return RunData(
        path=folder.path,
        config=config,
        about=about,
        labels=_labels(config, [*texts(about.get("labels")), *labels]),
        state=_state(folder.path, config, nodes, notes),
        nodes=nodes,
        results=results,
        usage=_usage(folder.path / "store.sqlite", notes),
        notes=tuple(notes),
    )


def _nodes(path: Path, notes: list[str]) -> tuple[Node, ...]:
    nodes: list[Node] = []
    first: dict[str, str] = {}  # name of the candidate that had a design's code first
    for place, value in enumerate(read_lines(path / "archive.jsonl", notes), 1):
        node = _node(value)
        if node is None or any(one.name == node.name for one in nodes):
            notes.append(f"archive.jsonl: line {place} is no new candidate")
            continue
        twin = first.get(node.id) if node.state == "duplicate" else None
        nodes.append(replace(node, parent=first.get(node.parent), twin=twin))
        if node.state == "evaluated":
            first.setdefault(node.id, node.name)
    return tuple(nodes)


def _node(value: dict) -> Node | None:
    name, design, state = (text(value.get(key)) for key in ("candidate", "id", "state"))
    score, step = rate(value.get("score")), number(value.get("step"), 0, 1e6)
    if not (_CANDIDATE.fullmatch(name) and _ID.fullmatch(design)) or (state == "evaluated" and score is None):
        return None
    return Node(
        name=name,
        id=design,
        parent=text(value.get("parent")) or None,
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
    )


def _results(path: Path, notes: list[str]) -> tuple[dict[str, dict[str, Result]], list[str]]:
    results, labels = {}, []
    for file in sorted(path.glob("results-*.json")):
        value = read_object(file, notes)
        scores = value.get("scores")
        found = [read_result(name, one) for name, one in scores.items()] if isinstance(scores, dict) else []
        if not found or None in found:
            notes.append(f"{file.name}: not every score could be read")
        results[file.stem.removeprefix("results-")] = {one.name: one for one in found if one}
        labels += texts(value.get("labels"))
    return results, labels


def read_result(name: str, value: Any) -> Result | None:
    mean = rate(value.get("mean")) if isinstance(value, dict) else None
    if mean is None:
        return None
    best = value.get("against_best") if isinstance(value.get("against_best"), dict) else {}
    tasks = value.get("tasks") if isinstance(value.get("tasks"), list) else []
    return Result(
        name=name,
        id=text(value.get("id")) or None,
        mean=mean,
        stderr=rate(value.get("stderr")),
        difference=gain(value.get("difference")),
        interval=_interval(value.get("interval")),
        tokens=number(value.get("retrieved_tokens")),
        steps=number(value.get("steps")),
        usd=number(value.get("usd")),
        calls=number(value.get("memory_calls")),
        best_other=text(best.get("name")),
        to_best_other=_interval(best.get("interval")),
        tasks=by_task([one for one in tasks if isinstance(one, dict)]),
    )


def _interval(value: Any) -> tuple[float, float] | None:
    """Two differences of rates, else None."""
    ends = tuple(map(gain, value)) if isinstance(value, list) and len(value) == 2 else (None,)
    return None if None in ends else ends


def by_task(episodes: list[dict]) -> tuple[TaskScore, ...]:
    """Means over the passes of each task, in the order in which tasks come first."""
    groups: dict[str, list[dict]] = {}
    for one in episodes:
        if rate(one.get("score")) is not None:
            groups.setdefault(text(one.get("task")), []).append(one)

    def mean(rows: list[dict], key: str, kind=rate) -> float | None:
        values = [kind(row.get(key)) for row in rows]
        return None if None in values else sum(values) / len(values)

    return tuple(
        TaskScore(
            task, text(rows[0].get("family")), mean(rows, "score"), mean(rows, "without"), mean(rows, "tokens", number) or 0.0
        )
        for task, rows in groups.items()
    )


def _labels(config: dict, known: list[str]) -> tuple[str, ...]:
    """What every result of the run carries, in plain sight."""
    offline = any(config.get(role) == "offline" for role in config if role.endswith("_model"))
    own = ["offline"] * offline + ["unsafe sandbox"] * (config.get("unsafe_sandbox") is True)
    return tuple(dict.fromkeys([*own, *(line(label, 40) for label in known)]))


def _usage(path: Path, notes: list[str]) -> tuple[dict, ...]:
    if not path.exists():
        return ()
    try:
        with Store(path, readonly=True) as store:
            return tuple(store.usage())
    except (UserError, InfrastructureError) as error:
        notes.append(f"model calls: {error}")
        return ()


# --------------------------------------------------------------------------------- how far it has come


def _state(path: Path, config: dict, nodes: tuple[Node, ...], notes: list[str]) -> State:
    """From history.jsonl, the archive, and whether a process holds the folder."""
    events = [one for one in read_lines(path / "history.jsonl", notes) if text(one.get("event"))]
    last = events[-1] if events else {}
    resumed = sum(one["event"] == "resumed" for one in events)
    stamps = [text(one.get("time")) for one in events] + _log_times(path / "log.txt")
    stamps = sorted(stamp for stamp in stamps if _is_time(stamp))
    done, steps = max((node.step for node in nodes), default=0), int(number(config.get("steps")) or 0)
    progress = f"{done} of {steps} learning steps are in the archive"
    learning = text(last.get("command")) != "evaluate"
    if last.get("event") == "finished" or (not events and steps and done >= steps):
        kind, words = "finished", "The run is finished"
    elif last.get("event") == "stopped":
        kind, words = "stopped", f"The run stopped: {line(text(last.get('why')), 300) or 'no reason is known'}"
    elif _is_claimed(path):
        kind, words = "running", "The run was at work when this page was written"
    else:
        kind, words = "interrupted", "The run was interrupted: it has no end, and no process is at work in its folder"
    words = f"{words}. {progress.capitalize()}." if learning and kind != "finished" else f"{words}."
    if resumed:
        words += f" It was resumed {'once' if resumed == 1 else f'{resumed} times'}."
    return State(kind, words, resumed, *((stamps[0], stamps[-1]) if stamps else ("", "")))


def _log_times(path: Path) -> list[str]:
    """Times of the first and the last line of log.txt."""
    try:
        with open(path, "rb") as file:
            first = file.read(20)
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = file.read().splitlines()
    except OSError:
        return []
    return [one[:20].decode("ascii", "replace") for one in (first, *lines[-3:])]


def _is_time(stamp: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp))


def seconds_between(start: str, end: str) -> float:
    """Seconds from one ISO time to another; 0 where one is unknown."""
    if not (_is_time(start) and _is_time(end)):
        return 0.0
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return 0.0


def _is_claimed(path: Path) -> bool:
    """Whether a process is at work in the folder: it holds the lock of RunFolder.claim."""
    try:
        with open(path / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# ------------------------------------------------------------------------------ the files of a design


def read_design(folder: Path) -> Design:
    """The files of designs/<id>/ or dropped/<candidate>/."""
    stamps = tuple(_stamp(folder / name) for name in ("trajectories.jsonl", "score.json", "design.py", "error.json"))
    return _read_design(folder, stamps)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=256)  # a run writes its report after each step; its designs do not change
def _read_design(folder: Path, stamps: tuple) -> Design:
    unread: list[str] = []  # what is missing here shows as missing
    tasks, samples, episodes = _deployed(folder / "trajectories.jsonl")
    return Design(
        code=read_text(folder / "design.py"),
        plan=read_object(folder / "plan.json", unread),
        log=read_text(folder / "log.txt"),
        error=text(read_object(folder / "error.json", unread).get("error")),
        score=read_object(folder / "score.json", unread),
        tasks=tasks,
        samples=samples,
        episodes=episodes,
    )


def _deployed(path: Path) -> tuple[tuple[TaskScore, ...], tuple[Sample, ...], int]:
    """Scores of all deployed episodes, and a few episodes of each kind to look at."""
    rows: list[dict] = []
    kinds: dict[str, list[Sample]] = {}
    for value in read_lines(path, []):
        if rate(value.get("score")) is None:
            continue
        rows.append({key: value.get(key) for key in ("task", "family", "score", "without", "tokens")})
        chosen = kinds.setdefault(_kind(value), [])
        if len(chosen) < SAMPLES:
            chosen.append(_sample(value))
    turns = [kinds[kind][place] for place in range(SAMPLES) for kind in sorted(kinds) if place < len(kinds[kind])]
    return by_task(rows), tuple(turns[:SAMPLES]), len(rows)


def _kind(value: dict) -> str:
    """What is most worth looking at comes first by name."""
    score, without = rate(value.get("score")), rate(value.get("without"))
    if text(value.get("error")):
        return "0 the design failed"
    if without is not None and score != without:
        return "1 better with memory" if score > without else "2 worse with memory"
    return "3 failed" if score < 1 / 3 else "4 partly" if score < 2 / 3 else "5 succeeded"


def _sample(value: dict) -> Sample:
    trajectory = value.get("trajectory") if isinstance(value.get("trajectory"), dict) else {}
    init = trajectory.get("init") if isinstance(trajectory.get("init"), dict) else {}
    steps = trajectory.get("steps") if isinstance(trajectory.get("steps"), list) else []
    numbered = [(place, step) for place, step in enumerate(steps, 1) if isinstance(step, dict)]
    if len(numbered) > STEPS_FIRST + STEPS_LAST:
        numbered = numbered[:STEPS_FIRST] + numbered[-STEPS_LAST:]
    return Sample(
        task=text(value.get("task")),
        family=text(value.get("family")),
        number=int(number(value.get("number")) or 0),
        score=rate(value.get("score")),
        without=rate(value.get("without")),
        tokens=number(value.get("tokens")) or 0.0,
        retrieved=json.dumps(value.get("retrieved"), indent=1, ensure_ascii=False)[:RETRIEVED_LIMIT],
        goal=text(init.get("goal"))[:1000],
        steps=((0, "", observation(init), None), *(_step(place, step) for place, step in numbered)),
        total_steps=len(steps),
        error=text(value.get("error"))[:RETRIEVED_LIMIT],
    )


def _step(place: int, step: dict) -> tuple[int, str, str, float | None]:
    return place, text(step.get("action_took"))[:ACTION_LIMIT], observation(step), rate(step.get("scores"))


def observation(record: dict) -> str:
    """The texts of an observation, under whichever keys the domain keeps them, without empty lines."""
    values = [value for key, value in record.items() if isinstance(value, str) and key not in ("action_took", "goal")]
    lines = [one.rstrip() for value in values for one in value[: 4 * OBSERVATION_LIMIT].splitlines()]
    joined = "\n".join(one for one in lines if one)
    return joined if len(joined) <= OBSERVATION_LIMIT else f"{joined[:OBSERVATION_LIMIT]}…"


# ---------------------------------------------------------------------- files and values, half or wrong


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """The beginning of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(limit)
    except OSError:
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
    """The JSON objects of a .jsonl file; a line that is none is noted and left out."""
    try:
        file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
    except OSError:
        return
    with file:
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
    """A number from `low` to `high`, else None: nothing that a report shows is below 0 but differences."""
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
