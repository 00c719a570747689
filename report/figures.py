"""The figures of a run, for papers, issues and the page: each function returns one, or None without data.

Promises: the same run gives the same bytes; no figure is drawn from numbers that are not in the run's
folder; the colours of an SVG become the page's own where `themed` asks for that. Uses matplotlib
without pyplot, so nothing global is left behind and any thread may call it, one at a time.

Try it: `python alma.py report RUN` and look into RUN/plots
"""

import functools
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from errors import UserError
from harness.run_folder import write_atomic
from report.data import LEARNED, Node, Result, RunData, TaskScore
from report.safe_text import ascii_line

INK, MUTED, GRID, ACCENT, WARM, EMPTY = "#20242c", "#6d7480", "#dedad0", "#1f6f8b", "#b4572d", "#fffffe"
PAPER = "#fffffd"  # behind a figure; the page has its own
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", WARM: "--warm", EMPTY: "--card"}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are no formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "font.size": 9.5,
    "figure.constrained_layout.use": True,
}
SMALLEST, LARGEST = 25, 420  # area of a bubble, square points


@dataclass(frozen=True)
class Plot:
    """A figure with the words that go with it."""

    name: str  # of its file
    title: str
    caption: str
    figure: Figure

    @functools.cached_property
    def _drawn(self) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"alma-{self.name}"}):
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            self.figure.savefig(buffer, format="svg", metadata=nothing, facecolor=PAPER)
        return buffer.getvalue()

    def svg(self, themed: bool = False) -> str:
        """The figure as SVG; `themed` for a part of the page, whose colours it takes."""
        return _as_part_of_page(self._drawn, self.name, self.title) if themed else self._drawn

    def png(self) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write the figure as PNG, or with any other ending as SVG; raises UserError."""
        if path.suffix.lower() != ".png":
            write_atomic(path, self.svg())
            return
        try:
            path.write_bytes(self.png())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error


def _as_part_of_page(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :].replace(PAPER, "none")
    for colour, variable in THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)(?!design)', rf"\g<1>{name}-", svg)  # ids are unique on the page
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
    size = re.search(r'<svg[^>]* viewBox="([^"]+)"', svg)[1]
    head = f'<svg class="plot" role="img" aria-label="{title}" viewBox="{size}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"<svg[^>]*>", head, svg, count=1)


def plots(run: RunData) -> list[Plot]:
    """Every figure that the run has data for."""
    made = []
    with matplotlib.rc_context(STYLE):
        for name, (function, title, caption) in FIGURES.items():
            figure = function(run)
            if figure:
                made.append(Plot(name, title, caption, figure))
    return made


# -------------------------------------------------------------------------------------- one by one


def progress(run: RunData) -> Figure | None:
    """Best and mean score by learning step, with the baselines of the learning set as lines."""
    if not run.evaluated:
        return None
    figure = Figure(figsize=(5.1, 3.4))
    axes = figure.subplots()
    best, mean = curves(run.evaluated)
    axes.scatter([one.step for one in run.evaluated], _percent(one.score for one in run.evaluated), s=14, color=MUTED,
                 alpha=0.45, linewidths=0)
    axes.plot(list(mean), _percent(mean.values()), color=WARM, linewidth=1.4, marker="o", markersize=3)
    axes.plot(list(best), _percent(best.values()), color=ACCENT, linewidth=2.2, drawstyle="steps-post", marker="o",
              markersize=4.5)
    labels = [("best so far", 100 * list(best.values())[-1], ACCENT), ("mean of the step", 100 * list(mean.values())[-1], WARM)]
    for name, score in learning_baselines(run).items():
        axes.axhline(100 * score, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        labels.append((_name(name), 100 * score, MUTED))
    last = max(best)
    axes.set_xlim(0.5, last + 0.5)
    axes.set_xticks(range(1, last + 1, 1 + last // 13))
    axes.set_ylim(*_limits([100 * one.score for one in run.evaluated] + [value for _, value, _ in labels]))
    axes.set_xlabel("learning step")
    axes.set_ylabel("success, % of the learning set")
    _label_right(axes, labels)
    return figure


def cost(run: RunData) -> Figure | None:
    """Success against retrieved tokens on the learning set, every design among them."""
    return _bubble_chart(_learning_bubbles(run))


def cost_test(run: RunData) -> Figure | None:
    """Success against retrieved tokens on the test set."""
    return _bubble_chart(_bubbles(run.results.get("test-static", {})))


def _bubble_chart(bubbles: list["Bubble"]) -> Figure | None:
    if not bubbles:
        return None
    figure = Figure(figsize=(5.1, 3.4))
    axes = figure.subplots()
    dollars = max(one.usd or 0 for one in bubbles)
    sizes = [SMALLEST + (LARGEST - SMALLEST) * (one.usd or 0) / dollars if dollars else 45 for one in bubbles]
    for one, size in zip(bubbles, sizes, strict=True):
        colour = ACCENT if one.name == LEARNED else WARM if one.name else MUTED
        drawn = axes.scatter([one.tokens], [100 * one.score], s=size, color=colour, alpha=0.55, linewidths=0.6,
                             edgecolors=INK)
        if one.node:
            drawn.set_urls([f"#design-{one.node.name}"])
    positive = [one.tokens for one in bubbles if one.tokens > 0] or [10.0]
    axes.set_xscale("symlog", linthresh=max(1.0, 10.0 ** math.floor(math.log10(min(positive)))), linscale=0.35)
    axes.set_xlim(-0.12 * min(positive) - 0.5, 1.5 * max(positive))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("retrieved tokens a task")
    axes.set_ylabel("success, %")
    axes.set_ylim(*_limits([100 * one.score for one in bubbles]))
    axes.grid(True, axis="both")
    named = [(one, size) for one, size in zip(bubbles, sizes, strict=True) if one.name]
    _label_points(axes, [(_name(one.name), one.tokens, 100 * one.score, math.sqrt(size) / 2) for one, size in named])
    return figure


def transfer(run: RunData) -> Figure | None:
    """Learning set against test set: how much of a difference on the one is left on the other."""
    learning, test = run.results.get("learning-static", {}), run.results.get("test-static", {})
    points = {name: (score, test[name]) for name, score in learning_scores(run, learning).items() if name in test}
    if not points:
        return None
    figure = Figure(figsize=(5.1, 3.4))
    axes = figure.subplots()
    for name, ((score, stderr), tested) in points.items():
        axes.errorbar([100 * score], [100 * tested.mean], xerr=100 * (stderr or 0), yerr=100 * (tested.stderr or 0),
                      fmt="o", color=ACCENT if name == LEARNED else WARM, markersize=6, elinewidth=1)
    values = [100 * value for (score, _), tested in points.values() for value in (score, tested.mean)]
    low, high = _limits(values)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.grid(True, axis="both")
    axes.set_xlabel("success on the learning set, %")
    axes.set_ylabel("success on the test set, %")
    rows = [(_name(name), 100 * score, 100 * tested.mean, 4) for name, ((score, _), tested) in points.items()]
    _label_points(axes, rows)
    return figure


def families(run: RunData) -> Figure | None:
    """Success by kind of task: the learned design's memory against none."""
    sets = [(title, by_family(tasks)) for title, tasks in learned_tasks(run).items()]
    sets = [(title, rows) for title, rows in sets if rows]
    if not sets:
        return None
    tall = sum(len(rows) for _, rows in sets)
    figure = Figure(figsize=(5.1, 1.1 + 0.55 * (len(sets) - 1) + 0.27 * tall))
    heights = [len(rows) + 0.5 for _, rows in sets]
    panels = figure.subplots(len(sets), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (title, rows) in zip(panels, sets, strict=True):
        for place, (_, _, score, without) in enumerate(rows):
            axes.plot([100 * without, 100 * score], [place, place], color=ACCENT if score >= without else WARM, linewidth=2)
        places = range(len(rows))
        axes.scatter([100 * row[3] for row in rows], places, s=26, facecolors=EMPTY, edgecolors=MUTED, zorder=3)
        axes.scatter([100 * row[2] for row in rows], places, s=34, zorder=4,
                     color=[ACCENT if row[2] >= row[3] else WARM for row in rows])
        axes.set_yticks(places, [f"{ascii_line(family or '-', 28)} ({count})" for family, count, *_ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-3, 103)
        axes.grid(True, axis="both")
        axes.set_title(title, loc="left")
    panels[-1].set_xlabel("success, %")
    return figure


FIGURES = {
    "progress": (progress, "Score by learning step",
                 "Each dot is a design. Dashed: what was evaluated beside them on the learning set."),
    "cost": (cost, "Success against retrieved tokens, learning set",
             "A bubble for each design and baseline; its area is what it cost in dollars, where that is known."),
    "cost-test": (cost_test, "Success against retrieved tokens, test set",
                  "The same episodes for all. The area is what the design's own model calls cost."),
    "transfer": (transfer, "Learning set against test set",
                 "On the dashed line nothing is lost. The best of many designs is partly luck, so it falls below."),
    "families": (families, "Success by kind of task",
                 "Open: without memory. Filled: with the learned design's. In brackets: tasks."),
}


# --------------------------------------------------------------------------------------- the numbers


def curves(designs: Sequence[Node]) -> tuple[dict[int, float], dict[int, float]]:
    """Best score so far, and mean score of the designs of the step, by learning step."""
    steps = sorted({one.step for one in designs})
    best = {step: max(one.score for one in designs if one.step <= step) for step in steps}
    scores = {step: [one.score for one in designs if one.step == step] for step in steps}
    return best, {step: sum(values) / len(values) for step, values in scores.items()}


def learning_baselines(run: RunData) -> dict[str, float]:
    """Scores on the learning set of what is no learned design."""
    known = {name: one.mean for name, one in run.results.get("learning-static", {}).items() if name != LEARNED}
    return known if "no_memory" in known or run.f0 is None else {"no_memory": run.f0, **known}


def learning_scores(run: RunData, results: dict[str, Result]) -> dict[str, tuple[float, float | None]]:
    """Score and standard error on the learning set by name, the learned design's from the archive."""
    scores = {"no_memory": (run.f0, None)} if run.f0 is not None else {}
    scores |= {name: (one.mean, one.stderr) for name, one in results.items()}
    if run.learned:
        scores[LEARNED] = (run.learned.score, run.learned.stderr)
    return scores


def learned_tasks(run: RunData) -> dict[str, tuple[TaskScore, ...]]:
    """The learned design by task, for each task set that it was evaluated on."""
    sets = {"learning set": run.design(run.learned).tasks} if run.learned else {}
    for key, results in run.results.items():
        split, _, mode = key.partition("-")
        if LEARNED in results and split != "learning":
            name = f"{split} set" + (f", {mode} mode" if mode != "static" else "")
            sets[name] = with_baseline(results[LEARNED].tasks, results.get("no_memory"))
    return {title: tasks for title, tasks in sets.items() if tasks}


def with_baseline(tasks: Sequence[TaskScore], no_memory: Result | None) -> tuple[TaskScore, ...]:
    """The same, with no memory's score of each task where it is not there yet."""
    known = {one.task: one.score for one in no_memory.tasks} if no_memory else {}
    return tuple(replace(one, without=known.get(one.task)) if one.without is None else one for one in tasks)


def by_family(tasks: Sequence[TaskScore]) -> list[tuple[str, int, float, float]]:
    """Family, number of tasks, mean score with memory, mean score without; by name."""
    groups: dict[str, list[TaskScore]] = {}
    for one in tasks:
        if one.without is not None:
            groups.setdefault(one.family, []).append(one)
    return [
        (family, len(rows), sum(one.score for one in rows) / len(rows), sum(one.without for one in rows) / len(rows))
        for family, rows in sorted(groups.items())
    ]


@dataclass(frozen=True)
class Bubble:
    """A design or a baseline in a chart of success against tokens."""

    name: str  # empty for a design that is not the learned one
    tokens: float
    score: float
    usd: float | None
    node: Node | None = None


def _learning_bubbles(run: RunData) -> list[Bubble]:
    named = [one for one in _bubbles(run.results.get("learning-static", {})) if one.name != LEARNED]
    designs = [
        Bubble(LEARNED if node is run.learned else "", node.tokens, node.score, node.cost, node)
        for node in run.evaluated
        if node.tokens is not None
    ]
    if designs and "no_memory" not in {one.name for one in named} and run.f0 is not None:
        named.append(Bubble("no_memory", 0.0, run.f0, 0.0))
    return sorted(designs, key=lambda one: one.name) + named


def _bubbles(results: dict[str, Result]) -> list[Bubble]:
    return [Bubble(name, one.tokens, one.mean, one.usd) for name, one in results.items() if one.tokens is not None]


# --------------------------------------------------------------------------------------------- labels


def _percent(scores) -> list[float]:
    return [100 * score for score in scores]


def _name(name: str) -> str:
    return ascii_line(name.replace("_", " "), 24)


def _limits(values: list[float]) -> tuple[float, float]:
    """Limits of an axis in percent with some room, at least ten points apart."""
    low, high = min(values), max(values)
    room = max(10 - (high - low), 0.12 * (high - low), 2) / 2
    return max(-1.0, low - room), min(102.0, high + room)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions for labels at `values`: the same order, at least `gap` apart, moved as little as need be."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    groups: list[list] = []  # [centre, places], each a pile of labels around its centre
    for place in order:
        groups.append([values[place], [place]])
        while len(groups) > 1 and _low(groups[-1], gap) < _high(groups[-2], gap):
            centre, places = groups.pop()
            other, others = groups.pop()
            total = len(places) + len(others)
            groups.append([(centre * len(places) + other * len(others)) / total, others + places])
    spots = [0.0] * len(values)
    for centre, places in groups:
        for rank, place in enumerate(places):
            spots[place] = centre + gap * (rank - (len(places) - 1) / 2)
    return spots


def _low(group: list, gap: float) -> float:
    return group[0] - gap * len(group[1]) / 2


def _high(group: list, gap: float) -> float:
    return group[0] + gap * len(group[1]) / 2


def _label_right(axes, labels: list[tuple[str, float, str]]) -> None:
    """Names at the right end of lines."""
    low, high = axes.get_ylim()
    for (name, _, colour), spot in zip(labels, spread([value for _, value, _ in labels], (high - low) / 17), strict=True):
        axes.annotate(name, (1, spot), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
                      color=colour, va="center", fontsize=8.5, annotation_clip=False)


def _label_points(axes, points: list[tuple[str, float, float, float]]) -> None:
    """Names beside points (name, x, y, radius); those in the right part stand to the left of theirs."""
    low, high = axes.get_ylim()
    spots = spread([y for _, _, y, _ in points], (high - low) / 18)
    for (name, x, _, radius), spot in zip(points, spots, strict=True):
        left = axes.transAxes.inverted().transform(axes.transData.transform((x, spot)))[0] > 0.6
        axes.annotate(name, (x, spot), xytext=((-4 - radius) if left else 4 + radius, 0), textcoords="offset points",
                      va="center", ha="right" if left else "left", fontsize=8.5, color=INK, annotation_clip=False)
