"""The page of a run: report.html, one file that needs no network, and report.md.

Promises: every text that came from a model, a design or a game is cleaned (safe_text), cut and escaped
by jinja2, so that it changes nothing but its own cell; the page's policy lets no script run but its
own; a page of 43 designs stays under 15 MB, since designs share `PAGE_BYTES`. Each design is a
piece of HTML in a JSON string, which is parsed when it is opened: so a large page opens at once.
"""

import base64
import functools
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.config import Config
from report import words as report
from report.code import Row, difference, highlight, lines_of
from report.data import (
    LEARNED,
    Design,
    Node,
    Result,
    RunData,
    TaskScore,
    read_result,
    seconds_between,
    text,
    texts,
)
from report.figures import Plot, by_family, learned_tasks, with_baseline
from report.safe_text import block, clean, line
from report.tree import tree
from report.words import percent, points

FOLDER = Path(__file__).parent / "templates"
PAGE_BYTES = 12_000_000  # shared by the designs of a page
DESIGN_BYTES = 280_000  # the most that one design gets
PRINT_LIMIT = 60_000  # characters of any one printed value
TOLD, TOLD_LIMIT = 3, 2000  # tasks for which report.md shows what was retrieved, and characters of it
ENVIRONMENTS = {"alfworld": "ALFWorld", "textworld": "TextWorld", "babaisai": "Baba Is AI", "minihack": "MiniHack"}


@dataclass(frozen=True)
class Detail:
    """How much of a design is shown."""

    samples: int = 6
    steps: int = 40
    lines: int = 2_000  # of code
    text: int = 30_000  # characters of prompts and answers, a third of that for other texts

    def less(self) -> "Detail":
        return Detail(self.samples - 1, self.steps // 2, self.lines // 2, self.text // 3)


@functools.cache
def _environment(escape: str) -> jinja2.Environment:
    """Templates whose every printed string is cleaned, cut, and escaped for "html" or "md"."""

    def finish(value):
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        return block(value, PRINT_LIMIT) if escape == "html" else Markup(escape_markdown(value))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=escape == "html",
        finalize=finish,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": line, "block": block, "percent": percent, "points": points, "usd": usd, "times": times}
    environment.filters |= {"count": count, "interval": report.interval_words, "verdict": report.verdict_words}
    return environment


def page(run: RunData, plots: Sequence[Plot]) -> str:
    """report.html of a run."""
    style, script = (_file(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment("html").get_template("report.html").render(
        style=Markup(style),
        script=Markup(script),
        script_hash=Markup(digest),
        figures=[(one, Markup(one.svg(themed=True))) for one in plots],
        tree=tree(run),
        pieces=_pieces(run),
        rows=[(node, title(run.design(node).code)) for node in run.nodes],
        **_facts(run),
    )


def markdown(run: RunData, plots: Sequence[Plot]) -> str:
    """report.md of a run."""
    path = [node for node in run.nodes if node.name in run.lineage(run.learned)]
    changes = [(node, _changes(run.design(node).plan)) for node in path]
    samples = {one.task: one for one in run.design(run.learned).samples} if run.learned else {}
    told = [(one, _indented(one.retrieved)) for one in list(samples.values())[:TOLD]]
    return _environment("md").get_template("report.md").render(plots=plots, changes=changes, told=told, **_facts(run))


def _indented(retrieved: str) -> Markup:
    """A block of code in Markdown that nothing inside can end."""
    return Markup("\n".join(f"    {one}" for one in block(retrieved, TOLD_LIMIT).splitlines()))


def tree_svg(run: RunData) -> str:
    """The archive as an SVG file of its own."""
    return _environment("html").get_template("archive.svg").render(tree=tree(run), style=Markup(_file("archive.css")))


def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


# -------------------------------------------------------------------------------- facts of the run


def _facts(run: RunData) -> dict:
    """What both report.html and report.md show."""
    return {
        "run": run,
        "title": f"ALMA on {environment(run)}",
        "headline": headline(run),
        "tiles": tiles(run),
        "results": [(result_title(key), rows) for key, rows in run.results.items() if rows],
        "paper": report.PAPER.get(text(run.config.get("env")), {}),
        "paper_shift": report.PAPER_SHIFT.get(text(run.config.get("env")), {}),
        "tasks": [(title, by_family(rows), rows) for title, rows in _tasks(run).items()],
        "by_stage": by_stage(run),
        "command": command(run),
        "states": {state: sum(node.state == state for node in run.nodes) for state in ("evaluated", "dropped", "duplicate")},
        "learned": run.learned,
        "LEARNED": LEARNED,
    }


def _tasks(run: RunData) -> dict[str, tuple[TaskScore, ...]]:
    none = run.results.get("learning-static", {}).get("no_memory")
    return {title: with_baseline(tasks, none) for title, tasks in learned_tasks(run).items()}


def environment(run: RunData) -> str:
    name = str(run.config.get("env", "an unknown environment"))
    return ENVIRONMENTS.get(name, line(name, 60))


def result_title(key: str) -> str:
    """"test-static" or "test-static-20" in words."""
    split, mode, size = (*line(key, 60).split("-", 2), "", "")[:3]
    words = f"{split.capitalize()} set, {mode} mode" if mode else split
    return f"{words}, {size} episodes collected" if size else words


def headline(run: RunData) -> list[str]:
    """What came of the run, in sentences."""
    best = run.learned
    if best is None:
        dropped = f" {len(run.nodes)} candidates were dropped." if run.nodes else ""
        return [f"No design has been evaluated{'' if run.state.kind == 'finished' else ' yet'}.{dropped}"]
    words = f"The learned design, {best.name}, scored {percent(best.score)} % on the learning set"
    if run.f0 is not None:
        words += f" (no memory: {percent(run.f0)} %)"
    tested = run.results.get("test-static", {}).get(LEARNED)
    if tested and best.difference is not None and tested.difference is not None:
        return [f"{words}.", report.shrinkage_words(best.difference, tested.difference, tested.interval)]
    many = len(run.evaluated)
    luck = f" As the best of {many} it is partly lucky." if many > 1 else ""
    return [f"{words}. It has not been evaluated on the test set.{luck}"]


def tiles(run: RunData) -> list[tuple[str, str, str]]:
    """Title, number and small print of the most important numbers."""
    best, tested = run.learned, run.results.get("test-static", {}).get(LEARNED)
    tiles = []
    if best:
        none = f" · no memory {percent(run.f0)} %" if run.f0 is not None else ""
        tiles.append(("learning set", f"{percent(best.score)} %", f"± {percent(best.stderr or 0)} standard error{none}"))
    if tested:
        none = run.results["test-static"].get("no_memory")
        note = f" · no memory {percent(none.mean)} %" if none else ""
        tiles.append(("test set", f"{percent(tested.mean)} %", f"± {percent(tested.stderr or 0)} standard error{note}"))
    states = [f"{sum(node.state == state for node in run.nodes)} {state}" for state in ("dropped", "duplicate")]
    tiles.append(("designs", str(len(run.evaluated)), ", ".join(states)))
    tiles.append(("spent", *spent(run.usage)))
    seconds = seconds_between(run.state.started, run.state.ended)
    if seconds:
        tiles.append(("from start to end", duration(seconds), f"{moment(run.state.started)} to {moment(run.state.ended)} UTC"))
    return tiles


def spent(usage: Sequence[dict]) -> tuple[str, str]:
    """Dollars, and the calls and tokens that they were spent on."""
    if not usage:
        return "nothing", "no call of a model with a price"
    unpriced = sum(row["unpriced"] for row in usage)
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in usage)
    note = f"{count(sum(row['calls'] for row in usage))} calls, {count(tokens)} tokens"
    note += f"; {count(unpriced)} calls have no known price" if unpriced else ""
    return usd(sum(row["usd"] or 0 for row in usage)), note


def by_stage(run: RunData) -> list[dict]:
    """Model calls by role, model and stage; by design they stand with the designs."""
    rows: dict[tuple, dict] = {}
    for row in run.usage:
        kind = {name: row[name] for name in ("role", "model", "stage")}
        total = rows.setdefault(tuple(kind.values()), kind | dict.fromkeys(_SUMS, 0) | {"usd": None})
        for key in _SUMS:
            total[key] += row[key] or 0
        if row["usd"] is not None:
            total["usd"] = (total["usd"] or 0) + row["usd"]
    return list(rows.values())


_SUMS = (
    "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "unpriced", "seconds",
)  # fmt: skip


def command(run: RunData) -> str:
    """The command line that makes such a run again."""
    words = ["python", "alma.py", "reproduce" if "test-static" in run.results else "learn"]
    for one in fields(Config):
        value = run.config.get(one.name)
        default = one.default if one.default is not MISSING else None
        if one.name not in run.config or value == default or value in ([], None, ""):
            continue
        flag = f"--{one.name.replace('_', '-')}"
        values = value if isinstance(value, list) else [value]
        words += [flag] if value is True else [part for each in values for part in (flag, line(str(each), 200))]
    return shlex.join(words)


# ------------------------------------------------------------------------------------- one design


def _pieces(run: RunData) -> list[tuple[str, Markup]]:
    """Each candidate's name and its piece of the page as a JSON string that may stand in a script."""
    share = min(DESIGN_BYTES, PAGE_BYTES // max(1, len(run.nodes)))
    pieces = []
    for place, node in enumerate(run.nodes):
        around = [run.nodes[other].name if 0 <= other < len(run.nodes) else None for other in (place - 1, place + 1)]
        pieces.append((node.name, Markup(_fitting(run, node, around, share))))
    return pieces


def _fitting(run: RunData, node: Node, around: list, share: int) -> str:
    """The piece of a design in as much detail as fits its share."""
    detail = Detail()
    while True:
        piece = as_script(_piece(run, node, around, detail))
        if len(piece.encode()) <= share or detail.samples <= 0:
            return piece
        detail = detail.less()


def as_script(html: str) -> str:
    """A JSON string that cannot end the script element it stands in."""
    return json.dumps(html, ensure_ascii=False).replace("<", "\\u003c")


def _piece(run: RunData, node: Node, around: list, detail: Detail) -> str:
    shown = run.design(node)
    by_name = {one.name: one for one in run.nodes}
    parent = by_name.get(node.parent)
    lines = lines_of(shown.code)
    return _environment("html").get_template("design.html").render(
        node=node,
        run=run,
        shown=shown,
        title=title(shown.code),
        parent=parent,
        children=[one for one in run.nodes if one.parent == node.name],
        best=node is run.learned,
        score=_score(node, shown),
        scale=max([0.0001, *(one.score + (one.stderr or 0) for one in run.evaluated), run.f0 or 0]),
        plan=plan(shown.plan),
        code=highlight(lines)[: detail.lines],
        code_lines=len(lines),
        changed=_changed(run, parent, shown, detail),
        families=by_family(shown.tasks),
        samples=[(one, one.steps[: detail.steps + 1]) for one in shown.samples[: max(0, detail.samples)]],
        text=detail.text,
        errors=texts(shown.score.get("errors")),
        output=text(shown.score.get("output")),
        calls=run.calls(node),
        previous=around[0],
        following=around[1],
    )


def _changed(run: RunData, parent: Node | None, shown: Design, detail: Detail) -> list[Row] | None:
    """The difference to the parent's code; None for a design without one."""
    if parent is None or not shown.code:
        return None
    return difference(run.design(parent).code, shown.code)[: detail.lines]


def _score(node: Node, shown: Design) -> Result | None:
    """The score with its interval, which only the design's own file has."""
    return read_result(node.name, shown.score) if node.state == "evaluated" else None


def title(code: str) -> str:
    """What a design calls itself: the first line of its docstring, else nothing."""
    start = code.lstrip()[:400]
    quotes = start[:3] if start[:3] in ('"""', "'" * 3) else None
    return line(start[3:].split(quotes)[0].strip().split("\n")[0], 110) if quotes else ""


def plan(value: dict) -> dict[str, list[tuple[str, str, str]]]:
    """A plan's lists as (label, text, reason), whatever a model made of them."""
    shown = {}
    for key, label in (("changes", "what"), ("problems", ""), ("verdicts", "item"), ("worked", "")):
        rows = value.get(key) if isinstance(value.get(key), list) else []
        shown[key] = [_plan_row(row, label) for row in rows[:40]]
    return shown


def _plan_row(row, label: str) -> tuple[str, str, str]:
    if not isinstance(row, dict):
        return "", str(row)[:2000], ""
    return tuple(str(row.get(key, ""))[:2000] for key in ("verdict", label, "why"))


def _changes(value: dict) -> list[str]:
    return [line(what, 200) for _, what, _ in plan(value)["changes"]]


# ------------------------------------------------------------------------------------------ words


def usd(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value == 0 or value >= 0.1 else f"${value:.4f}".rstrip("0")


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def moment(stamp: str) -> str:
    """An ISO time for people."""
    return stamp[:16].replace("T", " ")


def duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {int(seconds) % 60} s"


def escape_markdown(value: str) -> str:
    """A line of text that is no Markdown and no HTML."""
    shown = clean(value[:2_000]).replace("\n", " ")
    for mark, instead in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}.items():
        shown = shown.replace(mark, instead)
    return "".join(f"\\{char}" if char in "\\`*_[]|~$" else char for char in shown)
