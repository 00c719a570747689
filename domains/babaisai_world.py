"""The engine of Baba Is AI: stacks of things, the rules that their words spell, one move, and a picture.

It does what the public benchmark (nacloos/baba-is-ai, commit ad466e0) does with YOU, WIN, STOP, colours and
noun-is-noun; its quirks are reproduced and marked "Quirk". No level has LOSE, PUSH, OPEN or SHUT; they work in
their plain meaning. PULL and MOVE form rules without effect. Levels, rewards and episodes are in `babaisai.py`."""

from collections import defaultdict
from functools import lru_cache
from itertools import chain

import numpy as np
from PIL import Image, ImageDraw

from domains.babaisai_levels import Rows

ACTIONS = ("idle", "up", "right", "down", "left")
# A word or a colour -> its second code in the array observation, an object -> its first.
OBJECTS = {"ball": 11, "wall": 12, "door": 13, "key": 14, "baba": 15}
NOUNS = {"wall": 7, "ball": 8, "door": 9, "key": 10, "baba": 21}
PROPERTIES = {"push": 11, "stop": 12, "win": 13, "lose": 14, "you": 16, "pull": 17, "move": 18, "open": 19, "shut": 20}
COLOURS = {"red": 0, "green": 1, "blue": 2, "purple": 3, "yellow": 4, "grey": 5, "white": 6}
DEFAULT_COLOUR = {"baba": "white", "wall": "grey", "ball": "green", "door": "red", "key": "blue"}

# The kinds of thing, by the names that `rows()` uses, with their three numbers in the array observation. A kind's own
# number is its place in this table.
CODES = {
    "": (1, 0, 0), "#": (2, 5, 0), "t:is": (18, 15, 0),
    **{f"t:{noun}": (17, code, 0) for noun, code in NOUNS.items()},
    **{f"p:{word}": (19, code, 0) for word, code in PROPERTIES.items()},
    **{f"c:{colour}": (20, code, 0) for colour, code in COLOURS.items()},
    **{f"o:{noun}:{colour}": (OBJECTS[noun], COLOURS[colour], 0) for noun in OBJECTS for colour in COLOURS},
}  # fmt: skip
KINDS = tuple(CODES)
ARRAY_CODES = np.array(list(CODES.values()), np.uint8)
CODE = {name: kind for kind, name in enumerate(KINDS)}
EMPTY, BORDER, IS = 0, 1, 2
TEXTS = {kind: name[2:] for kind, name in enumerate(KINDS) if name[:2] in ("t:", "p:", "c:")}
THINGS = {kind: tuple(name.split(":")[1:]) for kind, name in enumerate(KINDS) if name[:2] == "o:"}
# A translation table that keeps texts only: two grids with the same texts on top have the same rules.
ONLY_TEXTS = bytes(kind if kind in TEXTS else EMPTY for kind in range(256))
# For each noun, a translation table that has 1 for its objects.
OF_NOUN = {noun: bytes(THINGS.get(kind, ("",))[0] == noun for kind in range(256)) for noun in NOUNS}
# The name of each kind in the text observation. Baba, border and colour words are never listed.
NAMES = {kind: f"rule `{word}`" for kind, word in TEXTS.items() if word not in COLOURS}
NAMES |= {kind: noun for kind, (noun, _) in THINGS.items() if noun != "baba"}


class Law:
    """What sentences (a colour or "", a noun, what it is) mean; the tables are indexed by kind and hold 0 or 1."""

    def __init__(self, sentences: tuple[tuple[str, str, str], ...]):
        self.rules = [f"{colour} {noun} is {word}".strip() for colour, noun, word in sentences]
        listed = [f"{noun} is {word}" for _, noun, word in sentences if word in PROPERTIES]
        self.header = "Active rules:\n" + "\n".join(listed) + "\n\nObjects on the map:\n"
        things = [THINGS.get(kind, ("", "")) for kind in range(len(KINDS))]
        colours = defaultdict(set)  # of the sentences for a noun and a word
        for colour, noun, word in sentences:
            colours[noun, word].add(colour)
        # For each property, the objects that have it. Quirk: one rule with a colour takes the property from all
        # other colours of the noun, even where the same sentence stands without a colour too.
        self.has = {word: bytes(colour in colours[noun, word] or colours[noun, word] == {""} for noun, colour in things)
                    for word in PROPERTIES}  # fmt: skip
        stop, push = self.has["stop"], self.has["push"]
        # What is pushed on: texts, and objects that are PUSH.
        self.push = bytes(kind in TEXTS or flag for kind, flag in enumerate(push))
        # What can be stepped onto: empty cells, and objects that are neither STOP nor PUSH.
        # Quirk: an object that is YOU by a rule with a colour is STOP too.
        self.enter = bytes(
            kind == EMPTY or (kind in THINGS and not (stop[kind] or push[kind] or colour in colours[noun, "you"]))
            for kind, (noun, colour) in enumerate(things))  # fmt: skip
        # What noun-is-noun turns into another kind, in the rules' order.
        becomes = [(OF_NOUN[noun], word) for _, noun, word in sentences if word in NOUNS]
        self.becomes = [(table, CODE[f"o:{noun}:{DEFAULT_COLOUR[noun]}"]) for table, noun in becomes]
        # What the text's positions are relative to. Quirk: by the noun of the last YOU rule, whatever its colour.
        self.player = next((OF_NOUN[noun] for _, noun, word in reversed(sentences) if word == "you"), bytes(256))


law_of = lru_cache(maxsize=1024)(Law)  # few different lists of sentences occur


class World:
    """Stacks of things and the rules that they spell: the engine, without levels and rewards. A cell is a number, row
    by row. Only the top of a stack acts; `tops` repeats the tops of the stacks because everything reads them. Below
    each stack lies an EMPTY that is always there."""

    def __init__(self, rows: Rows):
        self.height, self.width = len(rows), len(rows[0]) if rows else 0
        stacks = {}  # of each cell's text; most cells are alike
        for cell in dict.fromkeys(chain(*rows)):
            names = cell.split(">")
            if unknown := [name for name in names if name not in CODE]:
                raise ValueError(f"unknown thing {unknown[0]!r} in cell {cell!r}; known are {', '.join(KINDS[1:])}")
            stacks[cell] = [EMPTY, *(CODE[name] for name in names if name)]
        self.stacks = [list(stacks[cell]) for row in rows for cell in row]
        if not self.width or any(len(row) != self.width for row in rows):
            raise ValueError(f"rows must have one length above 0, not {[len(row) for row in rows]}")
        self.tops = bytearray(stack[-1] for stack in self.stacks)
        tops, width = self.tops, self.width
        if set(tops[:width] + tops[-width:] + tops[::width] + tops[width - 1 :: width]) != {BORDER}:
            raise ValueError("the outermost ring of rows must be border, '#'")
        self._texts = b""  # what the rules were last read from
        self._read_rules()

    def rows(self) -> list[list[str]]:
        """The grid in the form that the constructor takes."""
        cells = [">".join(KINDS[kind] for kind in stack[1:]) for stack in self.stacks]
        return [cells[start : start + self.width] for start in range(0, len(cells), self.width)]

    def move(self, direction: int) -> tuple[bool, bool]:
        """Everything that a step which is not idle does; `direction` in 1..4 as in ACTIONS. Returns whether it wins and
        whether it loses, by the rules from before the move."""
        delta = (0, -self.width, 1, self.width, -1)[direction]
        law, tops, moved, met = self.law, self.tops, set(), EMPTY
        you = law.has["you"]
        # The grid changes during this scan. Quirk: a player that covers another one on its way right
        # or down keeps it from moving. Quirk: the last player to try decides about winning.
        for cell in range(len(tops)):
            if you[tops[cell]] and cell not in moved:
                met = self._push(cell, delta, moved)
        self._read_rules()
        for table, kind in self.law.becomes:
            for cell, top in enumerate(bytes(tops)):
                if table[top]:
                    self._put(cell, kind)  # Quirk: the new thing comes on top, the old one stays below.
        return bool(law.has["win"][met]), bool(law.has["lose"][met])

    def _push(self, cell: int, delta: int, moved: set[int]) -> int:
        """Move the top thing of `cell` if it can move. Returns what it moved onto, or itself if it stays."""
        target, law, tops = cell + delta, self.law, self.tops
        if law.push[tops[target]]:
            self._push(target, delta, moved)
        mover, met = tops[cell], tops[target]  # a push may have uncovered something
        opens, shuts = law.has["open"], law.has["shut"]
        if (opens[mover] and shuts[met]) or (shuts[mover] and opens[met]):
            self._take(cell)
            self._take(target)
            return EMPTY
        if not law.enter[met]:
            return mover
        self._put(target, self._take(cell))
        if mover in THINGS:
            moved.discard(cell)
            moved.add(target)
        return met

    def _take(self, cell: int) -> int:
        kind = self.stacks[cell].pop()
        self.tops[cell] = self.stacks[cell][-1]
        return kind

    def _put(self, cell: int, kind: int) -> None:
        self.stacks[cell].append(kind)
        self.tops[cell] = kind

    def _read_rules(self) -> None:
        """Read the sentences that the visible texts form, in the original's order, duplicates kept."""
        texts, sentences, cell = self.tops.translate(ONLY_TEXTS), [], -1
        if texts == self._texts:
            return
        while (cell := texts.find(IS, cell + 1)) >= 0:
            for step in (1, self.width):  # left to right, then top to bottom
                noun, word = TEXTS.get(texts[cell - step]), TEXTS.get(texts[cell + step])
                if noun in NOUNS and (word in NOUNS or word in PROPERTIES):
                    # The noun is not on the border, so the cell before it is inside the grid.
                    colour = TEXTS.get(texts[cell - 2 * step])
                    coloured = colour in COLOURS and word in PROPERTIES  # noun-is-noun ignores the colour
                    sentences.append((colour if coloured else "", noun, word))
        self._texts, self.law = texts, law_of(tuple(sentences))

    def player(self) -> int | None:
        """Cell that the text's positions are relative to; None where nobody visible is YOU."""
        found = self.tops.translate(self.law.player).find(1)
        return None if found < 0 else found

    def text(self) -> str:
        """The text observation; without positions where nobody visible is YOU."""
        player, width = self.player(), self.width
        lines = [_line(top, cell, player, width) for cell, top in enumerate(self.tops) if top > BORDER and top in NAMES]
        return self.law.header + "\n".join(lines)


@lru_cache(maxsize=65536)
def _line(kind: int, cell: int, player: int | None, width: int) -> str:
    """A thing and its position relative to the player, as cells. Quirks: the player's own line is empty, and only
    right and down have a plural."""
    name = NAMES[kind]
    if player is None:
        return name
    dx, dy = cell % width - player % width, cell // width - player // width
    across = f"{dx} step{'s' * (dx > 1)} to the right" if dx > 0 else f"{-dx} step to the left" if dx else ""
    along = f"{dy} step{'s' * (dy > 1)} down" if dy > 0 else f"{-dy} step up" if dy else ""
    return f"{name} {across}{' and ' if across and along else ''}{along}" if across or along else ""


def picture(world: World) -> np.ndarray:
    """The tops as an RGB image, (24 * height, 24 * width, 3): texts bright on black, objects black on their colour."""
    image = Image.new("RGB", (24 * world.width, 24 * world.height))
    draw = ImageDraw.Draw(image)
    for cell, kind in enumerate(world.tops):
        y, x = divmod(cell, world.width)
        word, ground = THINGS.get(kind, (TEXTS.get(kind, ""), "dimgrey" if kind == BORDER else "black"))
        draw.rectangle((24 * x + 1, 24 * y + 1, 24 * x + 22, 24 * y + 22), ground)
        ink = "black" if kind in THINGS else word if word in COLOURS else "white"
        draw.text((24 * x + 12, 24 * y + 12), word, ink, anchor="mm", font_size=9)
    return np.array(image)
