"""The archive as a tree: where each candidate stands in the picture.

Columns are learning steps, a design stands to the right of the one that it was made from, subtrees
are packed as closely as they go without touching. Colours stand for the score against no memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from report.data import Node, RunData

COLUMN, ROW, MARGIN, HEAD = 96, 50, 40, 30  # pixels
SMALLEST, LARGEST, DROPPED = 14, 25, 8  # radius of a node, pixels
WORSE, EQUAL, BETTER = (178, 84, 42), (226, 222, 211), (22, 104, 138)  # red, green, blue


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


@dataclass(frozen=True)
class Tree:
    spots: tuple[Spot, ...]
    edges: tuple[Edge, ...]
    columns: tuple[tuple[int, float], ...]  # learning step, x
    width: int
    height: int
    span: float  # distance to no memory at which the colours end, in points of success rate


def tree(run: RunData) -> Tree:
    """The picture of a run's archive."""
    rows, path = _rows(run.nodes), set(run.lineage(run.learned))
    steps = sorted({node.step for node in run.nodes})
    x = {step: MARGIN + COLUMN * place for place, step in enumerate(steps)}
    span = max([0.05, *(abs(node.score - run.f0) for node in run.evaluated)]) if run.f0 is not None else 1.0
    spots = {}
    for node in run.nodes:
        fill, ink = colours(node.score, run.f0, span) if node.state == "evaluated" else ("none", "currentColor")
        y, best = HEAD + MARGIN + ROW * rows[node.name], node is run.learned
        spots[node.name] = Spot(node, x[node.step], y, _radius(node), fill, ink, node.name in path, best)
    edges = tuple(
        Edge(_curve(spots[spot.node.parent], spot), spot.node.name, spot.on_path)
        for spot in sorted(spots.values(), key=lambda spot: spot.on_path)
        if spot.node.parent in spots
    )
    height = max((spot.y for spot in spots.values()), default=0) + MARGIN + 8
    width = max(x.values(), default=0) + MARGIN + 8
    return Tree(tuple(spots.values()), edges, tuple(x.items()), int(width), int(height), 100 * span)


def _radius(node: Node) -> float:
    if node.state != "evaluated":
        return DROPPED
    return min(LARGEST, SMALLEST + 3.2 * math.sqrt(node.visits))


def _rows(nodes: Sequence[Node]) -> dict[str, float]:
    """The row of each candidate, from 0; parents stand before their children in `nodes`.

    Bottom up, each design takes the subtrees of its children one below the other, each as high as
    its columns allow, and stands in the middle of them; top down, the rows then add up.
    """
    children: dict[str | None, list[Node]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    columns = {step: place for place, step in enumerate(sorted({node.step for node in nodes}))}
    outlines: dict[str, dict[int, tuple[float, float]]] = {}  # by column: first and last row, from the node's own
    below: dict[str | None, float] = {}  # rows from a node's parent to the node
    for node in reversed(nodes):
        outline = _pack(children.get(node.name, []), outlines, below)
        outlines[node.name] = outline | {columns[node.step]: (0.0, 0.0)}
        _reserve_edges(outlines[node.name], columns, node, children.get(node.name, []), below)
    roots = children.get(None, [])
    _pack(roots, outlines, below)
    rows: dict[str | None, float] = {None: 0.0}
    for node in nodes:
        rows[node.name] = rows[node.parent] + below[node.name]
    del rows[None]
    top = min(rows.values(), default=0.0)
    return {name: row - top for name, row in rows.items()}


def _pack(siblings: list[Node], outlines: dict, below: dict) -> dict[int, tuple[float, float]]:
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


def _reserve_edges(outline: dict, columns: dict, node: Node, siblings: list[Node], below: dict) -> None:
    """Keep the columns that an edge crosses free of other subtrees."""
    for child in siblings:
        for column in range(columns[node.step] + 1, columns[child.step]):
            row = below[child.name]
            first, last = outline.get(column, (row, row))
            outline[column] = min(first, row), max(last, row)


def _curve(parent: Spot, child: Spot) -> str:
    """Leaves the parent to the right, is level within one column, then runs straight."""
    start, end = parent.x + parent.radius, child.x - child.radius
    bend = min(end, parent.x + COLUMN - SMALLEST)
    middle = (start + bend) / 2
    return f"M{start:.1f},{parent.y:.1f} C{middle:.1f},{parent.y:.1f} {middle:.1f},{child.y:.1f} {bend:.1f},{child.y:.1f} H{end:.1f}"


def colours(score: float, f0: float | None, span: float) -> tuple[str, str]:
    """Fill and text colour: orange is worse than no memory, blue better, and darker is more."""
    part = 0.0 if f0 is None else max(-1.0, min(1.0, (score - f0) / span))
    end = BETTER if part > 0 else WORSE
    rgb = [round(a + (b - a) * abs(part) ** 0.8) for a, b in zip(EQUAL, end, strict=True)]
    light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    return "#{:02x}{:02x}{:02x}".format(*rgb), "#14181f" if light > 140 else "#ffffff"
