"""The figures of a run: the archive as a tree, and plots for papers, issues and the page.

Promises: the same run gives the same bytes; a plot shows only numbers of the run's folder, and there is
none without data; `themed` SVG takes the page's own colours. matplotlib is used without pyplot, so nothing
global is left behind. It is slow to import, so the functions that draw import it.

Try it: `python alma.py report RUN`, then look into RUN/plots
"""

import functools
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from report.data import LEARNED, Node, Result, RunData, TaskScore
from report.words import ascii_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, ACCENT, WARM, EMPTY = "#20242c", "#6d7480", "#dedad0", "#1f6f8b", "#b4572d", "#fffffe"
PAPER = "#fffffd"  # behind a plot; the page has its own
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
SMALLEST_BUBBLE, LARGEST_BUBBLE = 25, 420  # area, square points
DASHED = (0, (4, 3))

COLUMN, ROW, MARGIN, HEAD = 96, 50, 40, 30  # of the tree, pixels
SMALLEST, LARGEST, DROPPED = 14, 25, 8  # radius of a node, pixels
WORSE, EQUAL, BETTER = (178, 84, 42), (226, 222, 211), (22, 104, 138)  # red, green, blue


@dataclass(frozen=True)
class Plot:
    """A plot with the words that go with it."""

    name: str  # of its file
    title: str
    caption: str
    figure: "Figure"

    @functools.cached_property
    def svg(self) -> str:
        """The plot as an SVG file."""
        import matplotlib

        buffer = io.StringIO()
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"alma-{self.name}"}):
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            self.figure.savefig(buffer, format="svg", metadata=nothing, facecolor=PAPER)
        return buffer.getvalue()

    @property
    def themed(self) -> str:
        """The plot as a part of the page, whose colours and fonts it takes."""
        svg = self.svg[self.svg.index("<svg") :].replace(PAPER, "none")
        for colour, variable in THEME.items():
            svg = svg.replace(colour, f"var({variable})")
        # Ids must be unique on the page.
        svg = re.sub(r'(\bid="|url\(#|xlink:href="#)(?!design)', rf"\g<1>{self.name}-", svg)
        svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would apply to the whole page
        svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
        size = re.search(r'<svg[^>]* viewBox="([^"]+)"', svg)[1]
        head = f'<svg class="plot" role="img" aria-label="{self.title}" viewBox="{size}"'
        return re.sub(r"<svg[^>]*>", f'{head} xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)

    @property
    def png(self) -> bytes:
        import matplotlib

        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()


def plots(run: RunData) -> list[Plot]:
    """Every plot that the run has data for."""
    import matplotlib
    from matplotlib.figure import Figure

    made = []
    with matplotlib.rc_context(STYLE):
        for name, (draw, title, caption) in PLOTS.items():
            figure = Figure(figsize=(5.1, 3.4))
            if draw(figure, run):
                made.append(Plot(name, title, caption, figure))
    return made


# Each of these draws into an empty figure and returns False where the run has no data for it.


def progress(figure: "Figure", run: RunData) -> bool:
    """Best and mean score by learning step, with the baselines of the learning set as lines."""
    if not run.evaluated:
        return False
    axes = figure.subplots()
    best, mean = curves(run.evaluated)
    scores = [100 * one.score for one in run.evaluated]
    axes.scatter([one.step for one in run.evaluated], scores, s=14, color=MUTED, alpha=0.45, linewidths=0)
    labels = []
    thin = {"color": WARM, "linewidth": 1.4, "markersize": 3}
    thick = {"color": ACCENT, "linewidth": 2.2, "markersize": 4.5, "drawstyle": "steps-post"}
    for name, curve, style in (("mean of the step", mean, thin), ("best so far", best, thick)):
        values = [100 * score for score in curve.values()]
        axes.plot(list(curve), values, marker="o", **style)
        labels.append((name, values[-1], style["color"]))
    results = run.results.get("learning-static", {})
    baselines = {name: one.mean for name, one in results.items() if name != LEARNED}
    if run.f0 is not None:
        baselines.setdefault("no_memory", run.f0)
    for name, score in baselines.items():
        axes.axhline(100 * score, color=MUTED, linewidth=1, linestyle=DASHED)
        labels.append((_name(name), 100 * score, MUTED))
    last = max(best)
    axes.set(xlim=(0.5, last + 0.5), xticks=range(1, last + 1, 1 + last // 13), xlabel="learning step",
             ylim=_limits(scores + [y for _, y, _ in labels]), ylabel="success, % of the learning set")
    label_right(axes, labels)
    return True


def cost(figure: "Figure", run: RunData) -> bool:
    """Success against retrieved tokens on the learning set, every design among them."""
    named = [row for row in _measured(run.results.get("learning-static", {})) if row[0] != LEARNED]
    designs = [
        (LEARNED if node is run.learned else "", node.tokens, node.score, node.cost, node)
        for node in run.evaluated if node.tokens is not None
    ]
    if designs and run.f0 is not None and "no_memory" not in {name for name, *_ in named}:
        named.append(("no_memory", 0.0, run.f0, 0.0, None))
    return _bubbles(figure, sorted(designs, key=lambda row: row[0]) + named)


def cost_test(figure: "Figure", run: RunData) -> bool:
    """Success against retrieved tokens on the test set."""
    return _bubbles(figure, _measured(run.results.get("test-static", {})))


def _measured(results: dict[str, Result]) -> list[tuple]:
    """Rows for `_bubbles` of the memories whose tokens are known."""
    known = {name: one for name, one in results.items() if one.tokens is not None}
    return [(name, one.tokens, one.mean, one.usd, None) for name, one in known.items()]


def _bubbles(figure: "Figure", rows: list[tuple[str, float, float, float | None, Node | None]]) -> bool:
    """A bubble for each row of name (may be empty), tokens, score, dollars and candidate."""
    if not rows:
        return False
    axes = figure.subplots()
    dollars = max(usd or 0 for _, _, _, usd, _ in rows)
    labels = []
    for name, tokens, score, usd, node in rows:
        size = SMALLEST_BUBBLE + (LARGEST_BUBBLE - SMALLEST_BUBBLE) * (usd or 0) / dollars if dollars else 45
        colour = ACCENT if name == LEARNED else WARM if name else MUTED
        drawn = axes.scatter([tokens], [100 * score], s=size, color=colour, alpha=0.55, linewidths=0.6,
                             edgecolors=INK)
        if node:
            drawn.set_urls([f"#design-{node.name}"])
        if name:
            labels.append((_name(name), tokens, 100 * score, math.sqrt(size) / 2))
    positive = [tokens for _, tokens, *_ in rows if tokens > 0] or [10.0]
    linear = max(1.0, 10.0 ** math.floor(math.log10(min(positive))))
    axes.set_xscale("symlog", linthresh=linear, linscale=0.35)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlim=(-0.12 * min(positive) - 0.5, 1.5 * max(positive)), xlabel="retrieved tokens a task",
             ylim=_limits([100 * score for _, _, score, *_ in rows]), ylabel="success, %")
    axes.grid(True, axis="both")
    _label_points(axes, labels)
    return True


def transfer(figure: "Figure", run: RunData) -> bool:
    """Learning set against test set: how much of a difference on the one is left on the other."""
    test = run.results.get("test-static", {})
    learning = {"no_memory": (run.f0, None)} if run.f0 is not None else {}
    learning |= {name: (one.mean, one.stderr) for name, one in run.results.get("learning-static", {}).items()}
    if run.learned:
        learning[LEARNED] = run.learned.score, run.learned.stderr
    rows = [(name, *score, test[name]) for name, score in learning.items() if name in test]
    if not rows:
        return False
    axes = figure.subplots()
    for name, score, stderr, tested in rows:
        axes.errorbar([100 * score], [100 * tested.mean], xerr=100 * (stderr or 0),
                      yerr=100 * (tested.stderr or 0), fmt="o", color=ACCENT if name == LEARNED else WARM,
                      markersize=6, elinewidth=1)
    limits = _limits([100 * value for _, score, _, tested in rows for value in (score, tested.mean)])
    axes.plot(limits, limits, color=MUTED, linewidth=1, linestyle=DASHED)
    axes.set(xlim=limits, ylim=limits, xlabel="success on the learning set, %",
             ylabel="success on the test set, %")
    axes.grid(True, axis="both")
    _label_points(axes, [(_name(name), 100 * score, 100 * tested.mean, 4) for name, score, _, tested in rows])
    return True


def families(figure: "Figure", run: RunData) -> bool:
    """Success by kind of task: the learned design against no memory."""
    sets = [(title, rows) for title, tasks in learned_tasks(run).items() if (rows := by_family(tasks))]
    if not sets:
        return False
    figure.set_size_inches(5.1, 1.1 + 0.55 * (len(sets) - 1) + 0.27 * sum(len(rows) for _, rows in sets))
    heights = [len(rows) + 0.5 for _, rows in sets]
    panels = figure.subplots(len(sets), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows) in zip(panels, sets, strict=True):
        for place, (_, _, score, without) in enumerate(rows):
            colour = ACCENT if score >= without else WARM
            axes.plot([100 * without, 100 * score], [place, place], color=colour, linewidth=2)
            axes.scatter([100 * without], [place], s=26, facecolors=EMPTY, edgecolors=MUTED, zorder=3)
            axes.scatter([100 * score], [place], s=34, zorder=4, color=colour)
        names = [f"{ascii_line(family or '-', 28)} ({count})" for family, count, *_ in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-3, 103))
        axes.grid(True, axis="both")
        axes.set_title(title, loc="left")
    panels[-1].set_xlabel("success, %")
    return True


PLOTS = {
    "progress": (progress, "Score by learning step",
                 "Each dot is a design. Dashed: no memory and the baselines on the learning set."),
    "cost": (cost, "Success against retrieved tokens, learning set",
             "Each bubble is a design or a baseline; its area is its cost in dollars, where that is known."),
    "cost-test": (cost_test, "Success against retrieved tokens, test set",
                  "All played the same episodes. The area is the cost of the memory's own model calls."),
    "transfer": (transfer, "Learning set against test set",
                 "Dashed: both are equal. The best of many is partly lucky, so it tends to lie below."),
    "families": (families, "Success by kind of task",
                 "Open: no memory. Filled: the learned design. In brackets: the number of tasks."),
}


# --------------------------------------------------------------------------------------- the numbers


def curves(designs: Sequence[Node]) -> tuple[dict[int, float], dict[int, float]]:
    """By learning step: the best score so far, and the mean score of the step's designs."""
    steps = sorted({one.step for one in designs})
    best = {step: max(one.score for one in designs if one.step <= step) for step in steps}
    scores = {step: [one.score for one in designs if one.step == step] for step in steps}
    return best, {step: fmean(values) for step, values in scores.items()}


def learned_tasks(run: RunData) -> dict[str, tuple[TaskScore, ...]]:
    """The learned design by task, with no memory beside it, for each task set that it was evaluated on."""
    sets = {}
    if run.learned:
        sets["learning set"] = run.design(run.learned).tasks, run.results.get("learning-static", {})
    for key, results in run.results.items():
        split, _, mode = key.partition("-")
        if LEARNED in results and split != "learning":
            title = f"{split} set" if mode == "static" else f"{split} set, {mode} mode"
            sets[title] = results[LEARNED].tasks, results
    found = {}
    for title, (tasks, results) in sets.items():
        none = {one.task: one.score for one in results["no_memory"].tasks} if "no_memory" in results else {}
        if tasks:
            found[title] = tuple(
                replace(one, without=none.get(one.task)) if one.without is None else one for one in tasks
            )
    return found


def by_family(tasks: Sequence[TaskScore]) -> list[tuple[str, int, float, float]]:
    """Family, number of tasks, mean score with memory, mean score without; sorted by name."""
    groups: dict[str, list[TaskScore]] = {}
    for one in tasks:
        if one.without is not None:
            groups.setdefault(one.family, []).append(one)
    return [
        (family, len(rows), fmean(one.score for one in rows), fmean(one.without for one in rows))
        for family, rows in sorted(groups.items())
    ]


# --------------------------------------------------------------------------------------------- labels


def _name(name: str) -> str:
    return ascii_line(name.replace("_", " "), 24)


def _limits(values: list[float]) -> tuple[float, float]:
    """Limits of an axis in percent with some room, at least ten points apart."""
    low, high = min(values), max(values)
    room = max(10 - (high - low), 0.12 * (high - low), 2) / 2
    return max(-1.0, low - room), min(102.0, high + room)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions for labels at `values`: in the same order, `gap` or more apart, as near as possible."""
    piles: list[tuple[float, list[int]]] = []  # labels that touch, as a centre and the places of its values
    for place in sorted(range(len(values)), key=lambda place: values[place]):
        centre, places = values[place], [place]
        while piles and centre - gap * len(places) / 2 < piles[-1][0] + gap * len(piles[-1][1]) / 2:
            other, others = piles.pop()
            centre = (centre * len(places) + other * len(others)) / (len(places) + len(others))
            places = others + places
        piles.append((centre, places))
    spots = [0.0] * len(values)
    for centre, places in piles:
        for rank, place in enumerate(places):
            spots[place] = centre + gap * (rank - (len(places) - 1) / 2)
    return spots


def label_right(axes, labels: list[tuple[str, float, str]]) -> None:
    """Names (name, y, colour) at the right end of lines."""
    low, high = axes.get_ylim()
    spots = spread([y for _, y, _ in labels], (high - low) / 17)
    for (name, _, colour), spot in zip(labels, spots, strict=True):
        axes.annotate(name, (1, spot), xycoords=("axes fraction", "data"), xytext=(5, 0), color=colour,
                      textcoords="offset points", va="center", fontsize=8.5, annotation_clip=False)


def _label_points(axes, points: list[tuple[str, float, float, float]]) -> None:
    """Names beside points (name, x, y, radius); in the right part of the plot, to the left of them."""
    low, high = axes.get_ylim()
    spots = spread([y for _, _, y, _ in points], (high - low) / 18)
    for (name, x, _, radius), spot in zip(points, spots, strict=True):
        left = axes.transAxes.inverted().transform(axes.transData.transform((x, spot)))[0] > 0.6
        axes.annotate(name, (x, spot), xytext=((-4 - radius) if left else 4 + radius, 0), color=INK,
                      textcoords="offset points", va="center", ha="right" if left else "left", fontsize=8.5,
                      annotation_clip=False)


# ------------------------------------------------------------------------------- the archive as a tree


@dataclass(frozen=True)
class Spot:
    """A candidate in the picture."""

    node: Node
    x: float
    y: float
    radius: float
    fill: str
    ink: str  # colour of the text in it
    on_path: bool  # from the first design to the learned one
    best: bool  # the learned design


@dataclass(frozen=True)
class Edge:
    """From a design to one that was made from it."""

    path: str  # of SVG
    child: str  # name of the candidate
    on_path: bool
    first: bool  # from the first parent


@dataclass(frozen=True)
class Tree:
    spots: tuple[Spot, ...]
    edges: tuple[Edge, ...]
    columns: tuple[tuple[int, float], ...]  # learning step, x
    width: int
    height: int
    span: float  # distance to no memory at which the colours end, in points of success rate


def tree(run: RunData) -> Tree:
    """The picture of a run's archive: a column for each learning step, a child to the right of its parents.

    Colours show the score against no memory: orange is worse, blue better, darker is more.
    """
    steps = sorted({node.step for node in run.nodes})
    rows, path = _rows(run.nodes, steps), run.lineage(run.learned)
    x = {step: MARGIN + COLUMN * place for place, step in enumerate(steps)}
    span = max([0.05, *(abs(node.score - run.f0) for node in run.evaluated)]) if run.f0 is not None else 1.0
    spots: dict[str, Spot] = {}
    for node in run.nodes:
        radius, fill, ink = DROPPED, "none", "currentColor"
        if node.state == "evaluated":
            radius = min(LARGEST, SMALLEST + 3.2 * math.sqrt(node.visits))
            part = 0.0 if run.f0 is None else (node.score - run.f0) / span
            end = BETTER if part > 0 else WORSE
            rgb = [round(a + (b - a) * min(1.0, abs(part)) ** 0.8) for a, b in zip(EQUAL, end, strict=True)]
            fill = "#{:02x}{:02x}{:02x}".format(*rgb)
            ink = "#14181f" if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 else "#ffffff"
        y = HEAD + MARGIN + ROW * rows[node.name]
        spots[node.name] = Spot(node, x[node.step], y, radius, fill, ink, node in path, node is run.learned)
    edges = []
    for child in sorted(spots.values(), key=lambda spot: spot.on_path):
        for name in reversed(child.node.parents):
            # Leaves the parent to the right, becomes level within one column, then runs straight.
            parent, first = spots[name], name == child.node.parent
            start, end = parent.x + parent.radius, child.x - child.radius
            bend = min(end, parent.x + COLUMN - SMALLEST)
            middle = (start + bend) / 2
            curve = f"C{middle:.1f},{parent.y:.1f} {middle:.1f},{child.y:.1f} {bend:.1f},{child.y:.1f}"
            curve = f"M{start:.1f},{parent.y:.1f} {curve} H{end:.1f}"
            edges.append(Edge(curve, child.node.name, child.on_path and first, first))
    height = max((spot.y for spot in spots.values()), default=0) + MARGIN + 8
    width = max(x.values(), default=0) + MARGIN + 8
    return Tree(tuple(spots.values()), tuple(edges), tuple(x.items()), int(width), int(height), 100 * span)


def _rows(nodes: Sequence[Node], steps: list[int]) -> dict[str, float]:
    """The row of each candidate, from 0; parents come before their children in `nodes`.

    Bottom up, each design stacks the subtrees of its children (by first parent) as closely as their
    columns allow and stands in the middle of them; top down, the rows then add up.
    """
    children: dict[str | None, list[Node]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    columns = {step: place for place, step in enumerate(steps)}
    outlines: dict[str, dict[int, tuple[float, float]]] = {}  # by column: first and last row, from the node's
    below: dict[str, float] = {}  # rows from a node's parent to the node

    def stack(siblings: list[Node]) -> dict[int, tuple[float, float]]:
        """Place subtrees one below the other around row 0; returns their common outline."""
        merged: dict[int, tuple[float, float]] = {}
        places = []
        for node in siblings:
            outline = outlines[node.name]
            down = max((merged[c][1] + 1 - outline[c][0] for c in outline if c in merged), default=0.0)
            down = max([down, *([places[-1] + 0.6] if places else [])])
            places.append(down)
            for column, (first, last) in outline.items():
                known = merged.get(column, (first + down, last + down))
                merged[column] = min(known[0], first + down), max(known[1], last + down)
        middle = (places[0] + places[-1]) / 2 if places else 0.0
        for node, place in zip(siblings, places, strict=True):
            below[node.name] = place - middle
        return {column: (first - middle, last - middle) for column, (first, last) in merged.items()}

    for node in reversed(nodes):
        siblings = children.get(node.name, [])
        outline = outlines[node.name] = stack(siblings) | {columns[node.step]: (0.0, 0.0)}
        for child in siblings:  # keep the columns that an edge crosses free of other subtrees
            for column in range(columns[node.step] + 1, columns[child.step]):
                row = below[child.name]
                first, last = outline.get(column, (row, row))
                outline[column] = min(first, row), max(last, row)
    stack(children.get(None, []))
    rows: dict[str | None, float] = {None: 0.0}
    for node in nodes:
        rows[node.name] = rows[node.parent] + below[node.name]
    del rows[None]
    top = min(rows.values(), default=0.0)
    return {name: row - top for name, row in rows.items()}
