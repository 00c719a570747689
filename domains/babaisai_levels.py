"""The 53 levels of Baba Is AI: their names, and a generator that draws their layouts.

Regions, texts and distributions are those of the public benchmark (nacloos/baba-is-ai, commit
ad466e0). The same state of the generator gives the same layout everywhere, but not the layout that
the original draws from a seed: the original uses numpy's legacy generator.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Rows = Sequence[Sequence[str]]  # a grid, row by row; a cell is its stack, bottom to top, joined by ">"

# The 53 levels in the original's order of registration.
LEVELS = tuple(tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["levels"])
LEVEL_COLOURS, LEVEL_NOUNS = ("red", "blue", "green"), ("ball", "key", "door")
# Cells (x, y) where a distracting noun lies in one-room levels; two of them stand twice.
ONE_ROOM_SPOTS = (
    (4, 6), (5, 6), (6, 6), (4, 1), (5, 1), (6, 1), (6, 1), (6, 2), (6, 3), (6, 4), (6, 5), (6, 6),
)  # fmt: skip
# Cells of the right room from which a text cannot be brought back.
UNPUSHABLE = ((11, 2), (11, 3), (11, 4), (11, 5), (11, 6), (11, 7), (10, 7), (9, 7), (8, 7))
Region = tuple[int, int, int, int]  # first x, first y, last x, last y, inclusive


def level_id(name: str) -> str:
    """The level of an id with or without its prefix `env/`. Raises ValueError if there is none."""
    level = name.removeprefix("env/") if isinstance(name, str) else name
    if level not in LEVELS:
        raise ValueError(f"level={name!r} is unknown; choose from {', '.join(LEVELS)}")
    return level


def level_size(level: str) -> tuple[int, int]:
    """Width and height of a level's grid in cells."""
    if level.startswith("two_room"):
        return 13, 9
    return (6, 6) if level.startswith("you_win") else (8, 8)


def family(level: str) -> str:
    """The kind of level, without its distractors: "make_win", "two_room-break_stop-goto_win"."""
    return re.sub(r"(-distr|-irrelevant|-fixed|#).*", "", level)


class Canvas:
    """A grid being drawn, and the generator that draws it."""

    def __init__(self, rng: np.random.Generator, width: int, height: int):
        self.rng = rng
        inside = ["#", *[""] * (width - 2), "#"]
        edge = ["#>#", *["#"] * (width - 2), "#>#"]  # corners twice, as in the original
        self.rows = [edge, *(list(inside) for _ in range(height - 2)), list(edge)]

    def choice(self, options: Sequence):
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, items: Sequence) -> list:
        return [items[int(i)] for i in self.rng.permutation(len(items))]

    def put(self, at: tuple[int, int], *things: str) -> None:
        """Put things side by side, rightwards from the cell `at`, on top of what is there."""
        x, y = at
        for cell, thing in enumerate(things, start=x):
            below = self.rows[y][cell]
            self.rows[y][cell] = f"{below}>{thing}" if below else thing

    def sentence(self, at: tuple[int, int], noun: str, word: str) -> None:
        self.put(at, f"t:{noun}", "t:is", f"p:{word}")

    def empty(self, region: Region) -> tuple[int, int]:
        """An empty cell of the region, each with the same chance."""
        x0, y0, x1, y1 = region
        inside = ((x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1))
        return self.choice([(x, y) for x, y in inside if not self.rows[y][x]])

    def shift(self, origin: tuple[int, int], at: tuple[int, int]) -> None:
        """Move the one thing on the cell `origin` to `at`."""
        x, y = origin
        thing, self.rows[y][x] = self.rows[y][x], ""
        self.put(at, thing)

    def bodies(self, baba: Region, others: Region, nouns: Sequence[str]) -> None:
        """Baba, then an object of each noun in a random colour, on empty cells of their regions."""
        self.put(self.empty(baba), "o:baba:white")
        for noun in nouns:
            self.put(self.empty(others), f"o:{noun}:{self.choice(LEVEL_COLOURS)}")


def draw_level(level: str, rng: np.random.Generator) -> Rows:
    """A layout of a level; it may hide the player under a text where the original's may."""
    canvas, parts = Canvas(rng, *level_size(level)), set(re.split("[-#]", level))
    if "you_win" in parts:
        _draw_you_win(canvas, fixed="fixed_you" in parts)
        return canvas.rows
    # Nouns of the win object, of the distracting object and the third one, drawn until they fit the level.
    balls, others = {"ball"}, {"key", "door"}
    fitting = balls if "only_ball_win" in parts else others if "no_ball_win" in parts else balls | others
    nouns = canvas.shuffled(LEVEL_NOUNS)
    while nouns[0] not in fitting:
        nouns = canvas.shuffled(LEVEL_NOUNS)
    # Objects beside baba, and the noun whose text lies about.
    two = {"distr_obj", "distr_obj_rule", "distr_win_rule", "make_you", "make_wall_win"}
    objects, distractor = nouns[:2] if parts & two else nouns[:1], None
    if parts & {"irrelevant_rule", "make_wall_win"}:
        distractor = nouns[2]
    elif parts & {"distr_rule", "distr_obj_rule", "distr_win_rule", "make_you"}:
        distractor = nouns[1]
    draw = _draw_two_rooms if "two_room" in parts else _draw_one_room
    if parts & {"make_you", "make_wall_win"}:
        draw = _draw_make_rule
    draw(canvas, parts, objects, distractor)
    if "distr_win_rule" in parts:  # Quirk: on top of what is there, texts and the player too.
        canvas.sentence((9, 4) if "two_room" in parts else (4, 4), nouns[2], "win")
    return canvas.rows


def _draw_you_win(canvas: Canvas, fixed: bool) -> None:
    """Four objects in a 2x2 room: one is YOU, a neighbour of it is WIN."""
    pairs = canvas.shuffled([(colour, noun) for colour in LEVEL_COLOURS for noun in LEVEL_NOUNS])[:4]
    for y, (colour, noun), word in ((1, pairs[0], "you"), (2, pairs[1], "win")):
        canvas.put((1, y), f"c:{colour}", f"t:{noun}", "t:is", f"p:{word}")
    for at in ((1, 3), (1, 4), (4, 3), (4, 4)):
        canvas.put(at, "#")
    x, y = (2, 3) if fixed else canvas.choice([(2, 3), (3, 3), (2, 4), (3, 4)])
    neighbours = canvas.shuffled([(5 - x, y), (x, 7 - y)])
    for at, (colour, noun) in zip([(x, y), *neighbours, (5 - x, 7 - y)], pairs, strict=True):
        canvas.put(at, f"o:{noun}:{colour}")


def _draw_one_room(canvas: Canvas, parts: set[str], objects: list[str], distractor: str | None) -> None:
    canvas.sentence((1, 6), "baba", "you")
    canvas.sentence((1, 1), objects[0], "win")
    if "make_win" in parts:
        canvas.shift((1, 1), canvas.empty((2, 2, 5, 5)))
    if distractor:
        canvas.put(canvas.choice(ONE_ROOM_SPOTS), f"t:{distractor}")
    canvas.bodies((1, 2, 6, 6), (1, 2, 6, 6), objects)


def _two_rooms(canvas: Canvas, noun: str, you: tuple[int, int], stop: tuple[int, int]) -> None:
    """Two rooms with a column of walls between them; `you` and `stop` are where these sentences begin."""
    for y in range(1, 8):
        canvas.put((6, y), "o:wall:grey")
    canvas.sentence(you, "baba", "you")
    canvas.sentence(stop, "wall", "stop")
    canvas.sentence((9, 1), noun, "win")


def _draw_two_rooms(canvas: Canvas, parts: set[str], objects: list[str], distractor: str | None) -> None:
    _two_rooms(canvas, objects[0], you=(1, 7), stop=(1, 2))
    left, right = (2, 3, 5, 5), (7, 3, 10, 5)  # where a text can be pushed back and forth
    if distractor:
        stuck = len(objects) == 2 and "irrelevant_rule" not in parts
        canvas.put(canvas.choice(UNPUSHABLE) if stuck else canvas.empty(right), f"t:{distractor}")
    others = (7, 2, 10, 7)
    if "maybe_break_stop" in parts:
        others = (1, 2, 11, 7)
    elif "break_stop" not in parts:
        others = (1, 1, 4, 7)
        canvas.shift(canvas.choice([(2, 2), (3, 2)]), canvas.empty(left))
    if "make_win" in parts:
        canvas.shift((9, 1), canvas.empty(right))
    canvas.bodies(left, others, objects)


def _draw_make_rule(canvas: Canvas, parts: set[str], objects: list[str], distractor: str) -> None:
    """Two rooms in which the player must make another noun YOU or the wall WIN."""
    left, right = (2, 3, 4, 5), (8, 3, 10, 5)  # where a text can be pushed back and forth
    if "make_you" in parts:
        _two_rooms(canvas, objects[0], you=(1, 6), stop=(1, 1))
        canvas.put(canvas.empty(left), f"t:{distractor}")
        if "make_win" in parts:
            canvas.shift((9, 1), canvas.empty(right))
    else:
        _two_rooms(canvas, objects[0], you=(1, 7), stop=(2, 2))
        canvas.put(canvas.empty(right), f"t:{distractor}")
        canvas.shift((9, 1), canvas.choice(UNPUSHABLE))
    canvas.bodies(left, (7, 2, 10, 7), objects)
