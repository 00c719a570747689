"""NetHack's screen in English, by the convention of the NetHack language wrapper.

`describe_nethack` turns the arrays that NLE returns into the wrapper's texts, character for character, several thousand
times a second. Spelling ("alter") and oddities stay: agents and memory designs of this field know these texts."""

import functools
import re
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DISTANCES = ("very far", "far", "near", "very near", "adjacent")  # in the order of the lines
DIRECTIONS = ("north", "northnortheast", "northeast", "eastnortheast", "east", "eastsoutheast", "southeast",
              "southsoutheast", "south", "southsouthwest", "southwest", "westsouthwest", "west", "westnorthwest",
              "northwest", "northnorthwest")  # fmt: skip
ROWS, COLUMNS = 21, 79  # of the map
# The convention's words for NetHack's numbers.
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NOTHING, ANYWHERE, ON_A_RAY, ENDS_A_RAY = range(4)  # how a glyph is seen


def glyph_names() -> list[str]:
    """The name of every glyph, in NLE's order of glyphs."""
    from nle import nethack as nh  # slow

    square, beams = WORDS["square"], WORDS["beams"]
    around = [place for place in square if place != "middle center"]
    monsters = [nh.permonst(index).mname for index in range(nh.NUMMONS)]
    objects = []  # an object goes by its appearance if NetHack has a word for that
    for index in range(nh.NUM_OBJECTS):
        name, looks = nh.objdescr.from_idx(index).oc_name or "", nh.objdescr.from_idx(index).oc_descr or ""
        forms = {
            nh.ARMOR_CLASS: looks or name, nh.TOOL_CLASS: looks or name,
            nh.AMULET_CLASS: looks if "Amulet" in looks else f"{looks} amulet",
            nh.GEM_CLASS: name if looks in name else f"{looks} {name}",
            nh.RING_CLASS: f"{looks} ring", nh.POTION_CLASS: f"{looks} potion", nh.WAND_CLASS: f"{looks} wand",
            nh.SPBOOK_CLASS: f"{looks} spellbook", nh.SCROLL_CLASS: f"scroll labeled {looks}",
            nh.FOOD_CLASS: name + looks, nh.VENOM_CLASS: f"splash of {name}",
        }  # fmt: skip
        objects.append(forms.get(ord(nh.objclass(index).oc_class), name))
    return [
        *monsters, *(f"tame {name}" for name in monsters), "invisible creature",
        *(form.format(name) for form in ("detected {}", "{} corpse", "ridden {}") for name in monsters),
        *objects, *WORDS["ground"],
        *(f"swallow {place}" for place in around),
        *(f"explosion {square[i % 9]}" for i in range(nh.GLYPH_ZAP_OFF - nh.GLYPH_EXPLODE_OFF)),
        *(f"{beams[i % 4]} zap beam" for i in range(nh.GLYPH_SWALLOW_OFF - nh.GLYPH_ZAP_OFF)),
        *(f"swallow {around[i % 8]}" for i in range(nh.GLYPH_WARNING_OFF - nh.GLYPH_SWALLOW_OFF)),
        *(f"unknown creature causing you {feeling}" for feeling in WORDS["feelings"]),
        *(f"{name} statue" for name in monsters),
    ]  # fmt: skip


def place(dx: int, dy: int) -> int:
    """16 * distance + direction of a square (dx to the east, dy to the south), as indices."""
    distance = sum(max(abs(dx), abs(dy)) <= furthest for furthest in (79, 19, 5, 2, 1)) - 1  # in squares
    vertical = "north" if dy < 0 else "south" if dy > 0 else ""
    horizontal = "west" if dx < 0 else "east" if dx > 0 else ""
    direction = vertical + horizontal
    if vertical and horizontal and abs(dx) != abs(dy):
        direction = (horizontal if abs(dx) > abs(dy) else vertical) + direction
    return 16 * distance + (DIRECTIONS.index(direction) if direction else 0)


@functools.cache
def tables() -> tuple[list[str], np.ndarray, list[int]]:
    """The name of each glyph ("" for ground that is never mentioned), how it is seen (uint8), and the place of a square
    at (dy + ROWS) * 2 * COLUMNS + dx + COLUMNS. The first call takes 40 ms."""
    from nle import nethack as nh  # slow

    names = glyph_names()
    seen = np.full(len(names), ANYWHERE, dtype=np.uint8)
    anywhere = {*range(15, 19), *range(23, 35), 37, 38}  # closed doors to trees, stairs to lava, raised drawbridges
    for index, name in enumerate(names[nh.GLYPH_CMAP_OFF : nh.GLYPH_EXPLODE_OFF]):
        if index not in anywhere:
            seen[nh.GLYPH_CMAP_OFF + index] = NOTHING if not name else ENDS_A_RAY if index < 12 else ON_A_RAY
    places = [place(dx, dy) for dy in range(-ROWS, ROWS) for dx in range(-COLUMNS, COLUMNS)]
    return names, seen, places


# How the convention forms the plural, which is not always English: the first pattern that fits, and its substitute.
PLURALS = (
    ("^(scroll|worthless piece|unknown creature|swallow|shield|boom) ", r"\1s "),  # "scrolls labeled FOOBIE BLETCH"
    ("(boots|shoes|scales|lenses|bars)$", r"\1"), ("^(ice|lava)$", r"area of \1"),
    ("^(can(?= of grease$)|Master(?= of Thieves$))", r"\1s"),
    ("(?<=[^aeiou])y$", "ies"), ("f+$", "ves"), ("([sxz]|sh)$", r"\1es"), ("$", "s"),
)  # fmt: skip


@functools.cache
def plural(noun: str) -> str:
    pattern, ending = next(rule for rule in PLURALS if re.search(rule[0], noun))
    return re.sub(pattern, ending, noun, count=1)


def glyphs_text(glyphs: np.ndarray, blstats: np.ndarray) -> str:
    """One line for each thing and distance, far to near, then clockwise: "boulders far southwest and west".
    Monsters, objects, closed doors, stairs, lava and the like are seen anywhere on the screen; walls, dark areas,
    doorways, traps and other ground only along the eight compass directions, up to nine squares away and not
    behind a wall or a dark area."""
    names, kinds, places = tables()
    x, y = int(blstats[0]), int(blstats[1])
    flat = np.ascontiguousarray(glyphs).reshape(-1)
    seen, here = kinds[flat], y * COLUMNS + x
    # The place of square i is places[offset + i + (i's row) * COLUMNS], with rows 2 * COLUMNS wide.
    offset = (ROWS - y) * 2 * COLUMNS + COLUMNS - x

    # What can be seen, as (place, name): anywhere, then along the rays, clockwise.
    cells = np.flatnonzero(seen == ANYWHERE).tolist()
    found = [(places[offset + i + i // COLUMNS * COLUMNS], names[flat[i]]) for i in cells if i != here]
    seen = seen.tobytes()
    for dx, dy in ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)):
        for step in range(1, 10):
            column, row = x + step * dx, y + step * dy
            if not (0 <= column < COLUMNS and 0 <= row < ROWS):
                break
            i = row * COLUMNS + column
            if seen[i] >= ON_A_RAY:
                found.append((places[offset + i + row * COLUMNS], names[flat[i]]))
                if seen[i] == ENDS_A_RAY:
                    break
    found.sort(key=lambda sighting: sighting[0])  # stable: squares of one place keep their order

    groups: dict[tuple[str, int], dict[int, int]] = {}  # (name, distance) -> direction -> how many
    for where, name in found:
        counts = groups.setdefault((name, where >> 4), {})
        counts[where & 15] = counts.get(where & 15, 0) + 1
    lines, listed = [], {}  # (noun, distance) of each line, and the directions of each in words
    for (name, distance), counts in groups.items():
        for several in (False, True):
            if where := [DIRECTIONS[one] for one, count in counts.items() if (count > 1) == several]:
                # Quirk: where singular and plural are the same word ("bars"), the plural's directions
                # replace those of the singular, and the line appears twice.
                lines.append((plural(name) if several else name, distance))
                more = len(where) > 2
                listed[lines[-1]] = f"{', '.join(where[:-1])}, and {where[-1]}" if more else " and ".join(where)
    return "\n".join(f"{noun} {DISTANCES[distance]} {listed[noun, distance]}" for noun, distance in lines)


def cursor_text(glyphs: np.ndarray, blstats: np.ndarray, tty_cursor: np.ndarray) -> str:
    """What the cursor is on; empty if it is not on the map."""
    column, row = int(tty_cursor[1]), int(tty_cursor[0]) - 1
    dx, dy = column - int(blstats[0]), row - int(blstats[1])
    inside = 0 < column + row * COLUMNS < ROWS * COLUMNS
    if not (inside and -COLUMNS <= dx < COLUMNS and -ROWS < dy <= ROWS):
        return ""
    glyph = glyphs.reshape(-1)[column + row * COLUMNS]
    names, seen, _ = tables()
    name = names[glyph] if seen[glyph] == ANYWHERE else ""
    if dx == dy == 0:
        return f"Yourself a {name}"
    where = place(dx, dy)
    return f"{DISTANCES[where >> 4]} {DIRECTIONS[where & 15]} {name}"


def message_text(tty_chars: np.ndarray) -> str:
    """The message on the screen's first row, or the whole page or menu that begins there."""
    width = tty_chars.shape[1]
    screen = tty_chars.tobytes().decode("latin-1").replace("\0", " ")
    first = screen[:width].strip(" ")
    if not first or not any(mark in screen for mark in ("--More--", "(end)", " of ")):
        return first
    indent = width - len(screen[:width].lstrip(" "))
    lines = []
    for start in range(0, len(screen), width):
        line = screen[start + indent : start + width].strip(" ")
        lines.append(line)
        before, _, after = line.partition(" of ")
        numbered = before[-2:-1] == "(" and after[1:2] == ")"  # "(1 of 2)"
        if numbered or "--More--" in line or "(end)" in line:
            return "\n".join(lines)
    return first


def inventory_text(inv_strs: np.ndarray, inv_letters: np.ndarray) -> str:
    letters = inv_letters.tobytes().partition(b"\0")[0]
    items = (item.tobytes().partition(b"\0")[0].decode("latin-1") for item in inv_strs)
    return "\n".join(f"{chr(letter)}: {item}" for letter, item in zip(letters, items, strict=False))


def map_text(tty_chars: np.ndarray) -> str:
    """The map as the terminal shows it, without empty rows around it and empty columns left of it."""
    width = tty_chars.shape[1]
    screen = tty_chars[1 : ROWS + 1].tobytes().decode("latin-1").replace("\0", " ")
    rows = [screen[start : start + width].rstrip() for start in range(0, len(screen), width)]
    return textwrap.dedent("\n".join(rows).strip("\n"))


def describe_nethack(observation: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The texts of one observation, as the NetHack language wrapper makes them.
    `observation`: arrays as NLE returns them, by NLE's names; `glyphs`, `blstats`, `tty_chars`, `tty_cursor`,
    `inv_strs` and `inv_letters` are read. Returns `text_message`, `text_glyphs`, `text_cursor`, `text_inventory` and
    `text_blstats` (the status lines)."""
    glyphs, blstats = observation["glyphs"], observation["blstats"]
    numbers = blstats.tolist()
    held = [condition for bit, condition in enumerate(WORDS["conditions"]) if numbers[25] >> bit & 1]
    return {
        "text_message": message_text(observation["tty_chars"]),
        "text_glyphs": glyphs_text(glyphs, blstats),
        "text_cursor": cursor_text(glyphs, blstats, observation["tty_cursor"]),
        "text_inventory": inventory_text(observation["inv_strs"], observation["inv_letters"]),
        "text_blstats": WORDS["status"].format(
            *numbers, hunger=WORDS["hunger"][numbers[21]], encumbrance=WORDS["encumbrance"][numbers[22]],
            alignment=WORDS["alignments"].get(str(numbers[26]), "None"), condition=" ".join(held) or "None")}  # fmt: skip
