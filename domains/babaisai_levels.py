"""The 53 levels of Baba Is AI: their names, and a generator that draws their layouts.

Regions, texts and distributions are those of the public benchmark (nacloos/baba-is-ai, commit ad466e0). The same
state of the generator gives the same layout everywhere, but not the original's, which uses numpy's legacy generator."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Rows = Sequence[Sequence[str]]  # a grid, row by row; a cell is its stack, bottom to top, joined by ">"

LEVELS = tuple(tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["levels"])
LEVEL_COLOURS, LEVEL_NOUNS = ("red", "blue", "green"), ("ball", "key", "door")
# Cells (x, y) where a distracting noun lies in one-room levels; two of them stand twice.
ONE_ROOM_SPOTS = ((4, 6), (5, 6), (6, 6), (4, 1), (5, 1), (6, 1), *((6, y) for y in range(1, 7)))
# Cells of the right room from which a text cannot be brought back.
UNPUSHABLE = ((11, 2), (11, 3), (11, 4), (11, 5), (11, 6), (11, 7), (10, 7), (9, 7), (8, 7))


def level_id(name: str, error: type[Exception] = ValueError) -> str:
    """The level of an id with or without its prefix `env/`. Raises `error` if there is none."""
    level = name.removeprefix("env/") if isinstance(name, str) else name
    if level not in LEVELS:
        raise error(f"level={name!r} is unknown; choose from {', '.join(LEVELS)}")
    return level


def level_size(level: str) -> tuple[int, int]:
    """Width and height of a level's grid in cells."""
    return (13, 9) if level.startswith("two_room") else (6, 6) if level.startswith("you_win") else (8, 8)


class Canvas:
    """A grid being drawn, and the generator that draws it."""

    def __init__(self, rng: np.random.Generator, width: int, height: int):
        self.rng = rng
        edge = ["#>#", *["#"] * (width - 2), "#>#"]  # corners twice, as in the original
        self.rows = [edge, *(["#", *[""] * (width - 2), "#"] for _ in range(height - 2)), list(edge)]

    def choice(self, options: Sequence):
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, items: Sequence) -> list:
        return [items[int(i)] for i in self.rng.permutation(len(items))]

    def empty(self, region: tuple[int, int, int, int]) -> tuple[int, int]:
        """An empty cell, each with the same chance. The region: first x, first y, last x, last y, inclusive."""
        x0, y0, x1, y1 = region
        return self.choice([(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1) if not self.rows[y][x]])

    def put(self, at: tuple[int, int], things: str) -> None:
        """Put things, separated by spaces, side by side from the cell `at` rightwards, on top of what is there."""
        x, y = at
        for cell, thing in enumerate(things.split(), start=x):
            below = self.rows[y][cell]
            self.rows[y][cell] = f"{below}>{thing}" if below else thing

    def shift(self, origin: tuple[int, int], at: tuple[int, int]) -> None:
        """Move the one thing on the cell `origin` to `at`."""
        x, y = origin
        thing, self.rows[y][x] = self.rows[y][x], ""
        self.put(at, thing)


def draw_level(level: str, rng: np.random.Generator) -> Rows:
    """A layout of a level; it may hide the player under a text where the original's may."""
    canvas, parts = Canvas(rng, *level_size(level)), set(re.split("[-#]", level))
    if "you_win" in parts:  # four objects in a 2x2 room: one is YOU, a neighbour of it is WIN
        pairs = canvas.shuffled([(colour, noun) for colour in LEVEL_COLOURS for noun in LEVEL_NOUNS])[:4]
        for y, (colour, noun), word in ((1, pairs[0], "you"), (2, pairs[1], "win")):
            canvas.put((1, y), f"c:{colour} t:{noun} t:is p:{word}")
        for at in ((1, 3), (1, 4), (4, 3), (4, 4)):
            canvas.put(at, "#")
        x, y = (2, 3) if "fixed_you" in parts else canvas.choice([(2, 3), (3, 3), (2, 4), (3, 4)])
        neighbours = canvas.shuffled([(5 - x, y), (x, 7 - y)])
        for at, (colour, noun) in zip([(x, y), *neighbours, (5 - x, 7 - y)], pairs, strict=True):
            canvas.put(at, f"o:{noun}:{colour}")
        return canvas.rows

    # Nouns of the win object, of the distracting object and the third one; again where the level rules the first out.
    nouns = canvas.shuffled(LEVEL_NOUNS)
    while ("no_ball_win" if nouns[0] == "ball" else "only_ball_win") in parts:
        nouns = canvas.shuffled(LEVEL_NOUNS)
    third = parts & {"irrelevant_rule", "make_wall_win"}  # the distractor is the noun whose text lies about
    second = parts & {"distr_rule", "distr_obj_rule", "distr_win_rule", "make_you"}
    distractor = f"t:{nouns[2 if third else 1]}" if third or second else None
    two_objects = parts & {"distr_obj", "distr_obj_rule", "distr_win_rule", "make_you", "make_wall_win"}

    if "two_room" not in parts:
        left = others = (1, 2, 6, 6)  # where baba lies, and where objects lie
        canvas.put((1, 6), "t:baba t:is p:you")
        canvas.put((1, 1), f"t:{nouns[0]} t:is p:win")
        if "make_win" in parts:
            canvas.shift((1, 1), canvas.empty((2, 2, 5, 5)))
        if distractor:
            canvas.put(canvas.choice(ONE_ROOM_SPOTS), distractor)
    else:  # two rooms with a column of walls between them
        make_you, make_wall = "make_you" in parts, "make_wall_win" in parts  # another noun YOU, or the wall WIN
        # Where a text can be pushed back and forth in each room (baba lies on the left), and where objects lie.
        left, right, others = (2, 3, 5, 5), (7, 3, 10, 5), (7, 2, 10, 7)
        if make_you or make_wall:
            left, right = (2, 3, 4, 5), (8, 3, 10, 5)
        for y in range(1, 8):
            canvas.put((6, y), "o:wall:grey")
        canvas.put((1, 6 if make_you else 7), "t:baba t:is p:you")
        canvas.put((1, 1) if make_you else (2, 2) if make_wall else (1, 2), "t:wall t:is p:stop")
        canvas.put((9, 1), f"t:{nouns[0]} t:is p:win")
        if distractor:
            stuck = two_objects and not parts & {"irrelevant_rule", "make_you", "make_wall_win"}
            place = canvas.choice(UNPUSHABLE) if stuck else canvas.empty(left if make_you else right)
            canvas.put(place, distractor)
        if make_wall:
            canvas.shift((9, 1), canvas.choice(UNPUSHABLE))
        elif "maybe_break_stop" in parts:
            others = (1, 2, 11, 7)
        elif not make_you and "break_stop" not in parts:
            others = (1, 1, 4, 7)
            canvas.shift(canvas.choice([(2, 2), (3, 2)]), canvas.empty(left))
        if "make_win" in parts:
            canvas.shift((9, 1), canvas.empty(right))

    canvas.put(canvas.empty(left), "o:baba:white")
    for noun in nouns[:2] if two_objects else nouns[:1]:
        canvas.put(canvas.empty(others), f"o:{noun}:{canvas.choice(LEVEL_COLOURS)}")
    if "distr_win_rule" in parts:  # Quirk: on top of what is there, texts and the player too.
        canvas.put((9, 4) if "two_room" in parts else (4, 4), f"t:{nouns[2]} t:is p:win")
    return canvas.rows
