"""The figures of a run: the archive as a tree, and plots for papers, issues and the page.

Promises: the same run gives the same bytes; a plot shows only numbers of the run's folder, and there is none without
data. matplotlib is used without pyplot, so nothing global is left behind; it is slow to import, so functions import it.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from report.data import LEARNED, Node, RunData
from report.words import FOLDER, ascii_line

INK, MUTED, GRID, ACCENT, WARM, EMPTY = "#20242c", "#6d7480", "#dedad0", "#1f6f8b", "#b4572d", "#fffffe"
PAPER = "#fffffd"  # behind a plot; the page has its own
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", WARM: "--warm", EMPTY: "--card"}
COLOURS = {"axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.titlecolor": INK, "grid.color": GRID,
           "xtick.color": MUTED, "ytick.color": MUTED}  # fmt: skip
STYLE = FOLDER / "plots.mplstyle"

COLUMN, ROW, MARGIN, HEAD = 96, 50, 40, 30  # of the tree, pixels
SMALLEST, LARGEST, DROPPED = 14, 25, 8  # radius of a node, pixels
WORSE, EQUAL, BETTER = (178, 84, 42), (226, 222, 211), (22, 104, 138)  # red, green, blue


@dataclass(frozen=True)
class Plot:
    """A plot with the words that go with it."""

    name: str  # of its file
    title: str
    caption: str
    figure: Any  # of matplotlib

    @cached_property
    def svg(self) -> str:
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        return self._saved("svg", metadata=nothing, facecolor=PAPER).decode()

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
        return self._saved("png", dpi=160, metadata={"Software": None})

    def _saved(self, kind: str, **options: Any) -> bytes:
        import matplotlib

        buffer = io.BytesIO()
        with matplotlib.rc_context({**COLOURS, "svg.hashsalt": f"alma-{self.name}"}, STYLE):
            self.figure.savefig(buffer, format=kind, **options)
        return buffer.getvalue()


def drawn(name: str, draw: Callable, title: str, caption: str, size: tuple[float, float] = (5.1, 3.4)) -> Plot | None:
    """The plot that a function draws into an empty figure; None where it draws nothing, for want of data."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(COLOURS, STYLE):
        figure = Figure(figsize=size)
        draw(figure)
        return Plot(name, title, caption, figure) if figure.axes else None


# Each of these draws into an empty figure, and nothing where the run has no data for it.
def progress(figure, run: RunData, key: str = "score") -> None:
    """Every "score", with the baselines as lines, or what "experience" gives; and the best so far by learning step."""
    shown = {one: 100 * value for one in run.evaluated if (value := getattr(one, key)) is not None}
    best = {step: shown[one] for step, one in best_by_step(run).items() if one in shown}
    if not best:
        return
    axes = figure.subplots()
    for one, value in shown.items():
        style = {"facecolors": "none", "edgecolors": MUTED} if one.raced else {"color": MUTED, "linewidths": 0}
        axes.scatter([one.step], [value], s=14, alpha=0.8 if one.raced else 0.45, **style)
    axes.plot(*zip(*best.items(), strict=True), "o-", color=ACCENT, lw=2.2, ms=4.5, drawstyle="steps-post")
    labels = [("best so far", None, best[max(best)], ACCENT)]
    results = run.results.get("learning-static", {}) if key == "score" else {}
    baselines = {name: one.mean for name, one in results.items() if name != LEARNED}
    if run.f0 is not None and key == "score":
        baselines.setdefault("no_memory", run.f0)
    for name, score in baselines.items():
        axes.axhline(100 * score, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        labels.append((ascii_line(name.replace("_", " "), 24), None, 100 * score, MUTED))
    by_steps(axes, max(best), "success, % of the learning set" if key == "score" else "from experience, points", labels)


def cost(figure, run: RunData, split: str = "learning") -> None:
    """Success against retrieved tokens, on the learning set with every design."""
    results = run.results.get(f"{split}-static", {})
    rows = [(name, one.tokens, one.mean, None) for name, one in results.items()]  # the last: a candidate
    if split == "learning":
        rows += [(LEARNED if one is run.learned else "", one.tokens, one.score, one) for one in run.evaluated]
        if run.f0 is not None and "no_memory" not in results:
            rows.append(("no_memory", 0.0, run.f0, None))
    rows = sorted((row for row in rows if row[1] is not None), key=lambda row: row[0])
    if not rows:
        return
    axes = figure.subplots()
    for name, tokens, score, candidate in rows:
        hollow = candidate and candidate.raced
        colour = "none" if hollow else ACCENT if name == LEARNED else WARM if name else MUTED
        dot = axes.scatter([tokens], [100 * score], s=45, color=colour, alpha=0.55, linewidths=0.6, edgecolors=INK)
        if candidate:
            dot.set_urls([f"#design-{candidate.name}"])
    axes.set_xscale("symlog", linthresh=10, linscale=0.35)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlabel="retrieved tokens a task", ylabel="success, %")
    axes.margins(0.08)
    axes.grid(True, axis="both")
    label(axes, [(ascii_line(name.replace("_", " "), 24), tokens, 100 * score, INK)
                 for name, tokens, score, _ in rows if name])  # fmt: skip


def families(figure, run: RunData) -> None:
    """Success by kind of task: the learned design against no memory."""
    sets = [(title, rows) for title, tasks in learned_tasks(run).items() if (rows := by_family(tasks))]
    if not sets:
        return
    figure.set_size_inches(5.1, 1.1 + 0.55 * (len(sets) - 1) + 0.27 * sum(len(rows) for _, rows in sets))
    heights = [len(rows) + 0.5 for _, rows in sets]
    panels = figure.subplots(len(sets), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows) in zip(panels, sets, strict=True):
        for place, (_, _, score, without) in enumerate(rows):
            colour = ACCENT if score >= without else WARM
            axes.plot([100 * without, 100 * score], [place, place], color=colour, linewidth=2)
            axes.scatter([100 * without], [place], s=26, facecolors=EMPTY, edgecolors=MUTED, zorder=3)
            axes.scatter([100 * score], [place], s=34, zorder=4, color=colour)
        axes.set_yticks(range(len(rows)), [f"{ascii_line(family or '-', 28)} ({count})" for family, count, *_ in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-3, 103))
        axes.grid(True, axis="both")
        axes.set_title(title, loc="left")
    panels[-1].set_xlabel("success, %")


def plots(run: RunData) -> list[Plot]:
    """Every plot that the run has data for."""
    raced = " Hollow: stopped early by --race, so of fewer episodes." * any(one.raced for one in run.evaluated)
    made = (
        ("progress", progress, "Score by learning step",
         f"Each dot is a design. Dashed: no memory, and baselines that were evaluated on the learning set.{raced}"),
        ("experience", partial(progress, key="experience"), "What experience gives by learning step",
         "Score after all collected episodes less that after a single one: what this search climbs."),
        ("cost", cost, "Success against retrieved tokens, learning set",
         f"Each dot is a memory, most of them designs of the search.{raced}"),
        ("cost-test", partial(cost, split="test"), "Success against retrieved tokens, test set",
         "All played the same episodes."),
        ("families", families, "Success by kind of task",
         "Open: no memory. Filled: the learned design. In brackets: the number of tasks."),
    )  # fmt: skip
    return [one for name, draw, *words in made if (one := drawn(name, partial(draw, run=run), *words))]


def best_by_step(run: RunData) -> dict[int, Node]:
    """The best design so far by learning step, by what the search climbs."""
    whole = [one for one in run.evaluated if not one.raced]
    return {step: max((one for one in whole if one.step <= step), key=run.lead)
            for step in sorted({one.step for one in whole})}  # fmt: skip


def learned_tasks(run: RunData) -> dict[str, tuple[dict, ...]]:
    """The learned design by task, with no memory beside it, for each task set that it was evaluated on."""
    found = {"learning set": run.design(run.learned).tasks} if run.learned else {}
    for key, results in run.results.items():
        if LEARNED in results:
            split, _, mode = key.partition("-")
            found[f"{split} set" if mode == "static" else f"{split} set, {mode} mode"] = results[LEARNED].tasks
    return {title: tasks for title, tasks in found.items() if tasks}


def by_family(tasks: Sequence[dict]) -> list[tuple[str, int, float, float]]:
    """Family, number of tasks, mean score with memory, mean score without; sorted by name."""
    groups: dict[str, list[dict]] = {}
    for one in tasks:
        if one["without"] is not None:
            groups.setdefault(one["family"], []).append(one)
    return [(family, len(rows), *(fmean(one[key] for one in rows) for key in ("score", "without")))
            for family, rows in sorted(groups.items())]  # fmt: skip


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions for labels at `values`: in the same order, `gap` or more apart, as near as possible."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    piles: list[tuple[float, int]] = []  # labels that touch: their centre and number
    for place in order:
        centre, size = values[place], 1
        while piles and centre - gap * size / 2 < piles[-1][0] + gap * piles[-1][1] / 2:
            other, more = piles.pop()
            centre, size = (centre * size + other * more) / (size + more), size + more
        piles.append((centre, size))
    spots = (centre + gap * (rank - (size - 1) / 2) for centre, size in piles for rank in range(size))
    return [spot for _, spot in sorted(zip(order, spots, strict=True))]


def by_steps(axes, last: int, what: str, labels: list[tuple]) -> None:
    """Axes of a plot of something by learning step, with labels as `label` takes them."""
    axes.set(xlim=(0.5, last + 0.5), xticks=range(1, last + 1, 1 + last // 13), xlabel="learning step", ylabel=what)
    axes.margins(y=0.08)
    label(axes, labels)


def label(axes, labels: list[tuple[str, float | None, float, str]]) -> None:
    """Names (name, x, y, colour): beside dots, to the left where a plot ends; without x, right of lines."""
    low, high = axes.get_ylim()
    spots = spread([y for _, _, y, _ in labels], (high - low) / 17)
    for (name, x, _, colour), y in zip(labels, spots, strict=True):
        left = x is not None and axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0] > 0.6
        axes.annotate(name, (1 if x is None else x, y), xycoords=("axes fraction" if x is None else "data", "data"),
                      xytext=(-6 if left else 6, 0), textcoords="offset points", color=colour, va="center",
                      ha="right" if left else "left", fontsize=8.5, annotation_clip=False)  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """A candidate in the picture."""

    node: Node
    x: float
    y: float
    radius: float
    fill: str
    ink: str  # colour of the text in it
    text: str
    on_path: bool  # from the first design to the learned one


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
    span: float  # lead at which the colours end, in points


def tree(run: RunData) -> Tree:
    """The picture of a run's archive: a column for each learning step, a child to the right of its parents.

    Colours and numbers show what the search climbs: orange is less than nothing, blue more, darker is farther from it.
    """
    steps = sorted({node.step for node in run.nodes})
    by_name, path = {node.name: node for node in run.nodes}, run.lineage(run.learned)
    # The rows of each candidate in the columns after its (first) parent's, up to its own: column by column, it stands
    # as near to its parent's row as its neighbours allow. A line that passes a column has a place there like a
    # candidate, so that it neither meets one nor crosses another line.
    rows: dict[str, list[float]] = {}
    for step in steps:
        wanted: dict[str, float] = {}
        below = max((own[-1] for own in rows.values()), default=0.0)  # designs from scratch start there
        for node in run.nodes:
            if node.step == step or (node.parent and by_name[node.parent].step < step < node.step):
                wanted[node.name] = rows.get(node.name, rows.get(node.parent, [below]))[-1]
        for name, row in zip(wanted, spread(list(wanted.values()), 1.0), strict=True):
            rows.setdefault(name, []).append(row)

    top = min((min(own) for own in rows.values()), default=0.0)
    x = {step: MARGIN + COLUMN * place for place, step in enumerate(steps)}
    y = {name: [HEAD + MARGIN + ROW * (row - top) for row in own] for name, own in rows.items()}
    span = max([0.05, *(abs(run.lead(node)) for node in run.evaluated)]) if run.f0 is not None else 1.0
    spots: dict[str, Spot] = {}
    for node in run.nodes:
        radius, fill, ink, text = DROPPED, "none", "currentColor", "=" if node.state == "duplicate" else "×"
        if node.state == "evaluated":
            radius = min(LARGEST, SMALLEST + 3.2 * math.sqrt(node.visits))
            text = f"{100 * node.score:.0f}" if node.experience is None else f"{100 * node.experience:+.0f}"
            part = 0.0 if run.f0 is None else run.lead(node) / span
            pairs = zip(EQUAL, BETTER if part > 0 else WORSE, strict=True)
            rgb = [round(a + (b - a) * min(1.0, abs(part)) ** 0.8) for a, b in pairs]
            fill = "#{:02x}{:02x}{:02x}".format(*rgb)
            ink = "#14181f" if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 else "#ffffff"
        spots[node.name] = Spot(node, x[node.step], y[node.name][-1], radius, fill, ink, text, node in path)

    edges = []
    for child in sorted(spots.values(), key=lambda spot: spot.on_path):
        for name in reversed(child.node.parents):
            parent, first = spots[name], name == child.node.parent
            stops = y[child.node.name] if first else [child.y]
            here, above, curve = parent.x, parent.y, f"M{parent.x + parent.radius:.1f},{parent.y:.1f}"
            for place, row in enumerate(stops, 1):
                # Becomes level within one column, then runs straight to the next stop or the child.
                middle, bend = here + COLUMN / 2, here + COLUMN - LARGEST
                curve += f" C{middle:.1f},{above:.1f} {middle:.1f},{row:.1f} {bend:.1f},{row:.1f}"
                here, above = child.x - COLUMN * (len(stops) - place), row
                curve += f" H{here:.1f}" if place < len(stops) else f" H{child.x - child.radius:.1f}"
            edges.append(Edge(curve, child.node.name, child.on_path and first, first))
    height = max((spot.y for spot in spots.values()), default=0) + MARGIN + 8
    width = max(x.values(), default=0) + MARGIN + 8
    return Tree(tuple(spots.values()), tuple(edges), tuple(x.items()), int(width), int(height), 100 * span)
