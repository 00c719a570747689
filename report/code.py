"""Code and differences of code as HTML: highlighted by pygments, compared by difflib.

Promises: whatever the code is, what comes back is escaped, has an element only where a colour
changes, and is made in bounded time; it is cut at `LINES` lines of at most `COLUMNS` characters.
"""

import difflib
import functools
from dataclasses import dataclass

from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Token

from report.safe_text import clean

LINES, COLUMNS = 2_500, 400
CLASSES = {  # token type: class in report.css
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Literal.String: "s",
    Token.Literal.Number: "m",
    Token.Comment: "c",
    Token.Name.Function: "f",
    Token.Name.Class: "f",
    Token.Name.Decorator: "f",
    Token.Name.Builtin: "b",
}


@dataclass(frozen=True)
class Row:
    """A line of a comparison."""

    kind: str  # "same", "old", "new" or "gap"
    old: int | None  # number of the line, from 1
    new: int | None
    html: Markup


def lines_of(code: str) -> list[str]:
    """The lines that are shown of some code."""
    lines = clean(code).splitlines()
    shown = [line if len(line) <= COLUMNS else f"{line[:COLUMNS]}…" for line in lines[:LINES]]
    return shown + [f"# … {len(lines) - LINES:,} more lines"] * (len(lines) > LINES)


def highlight(lines: list[str]) -> tuple[Markup, ...]:
    """Each line of Python as HTML."""
    return _highlight("\n".join(lines))


@functools.lru_cache(maxsize=256)  # a design's code stands on its own page and in those of its children
def _highlight(code: str) -> tuple[Markup, ...]:
    out: list[list[str]] = [[]]
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        name = _class(kind)
        for place, part in enumerate(text.split("\n")):
            if place:
                out.append([])
            if part:
                out[-1].append(f"<i class={name}>{escape(part)}</i>" if name else escape(part))
    return tuple(Markup("".join(parts)) for parts in out)


def _class(kind) -> str:
    while kind is not Token:
        if kind in CLASSES:
            return CLASSES[kind]
        kind = kind.parent
    return ""


def difference(old: str, new: str, context: int = 3) -> list[Row]:
    """What was changed from one code to another, with some unchanged lines around."""
    before, after = lines_of(old), lines_of(new)
    shown_before, shown_after = highlight(before), highlight(after)
    rows: list[Row] = []
    for group in difflib.SequenceMatcher(None, before, after).get_grouped_opcodes(context):
        _, i1, i2, j1, j2 = group[0][0], group[0][1], group[-1][2], group[0][3], group[-1][4]
        rows.append(Row("gap", None, None, escape(f"lines {i1 + 1} to {i2} → {j1 + 1} to {j2}")))
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                rows += [Row("same", i + 1, j1 + i - i1 + 1, shown_before[i]) for i in range(i1, i2)]
            else:
                rows += [Row("old", i + 1, None, shown_before[i]) for i in range(i1, i2)]
                rows += [Row("new", None, j + 1, shown_after[j]) for j in range(j1, j2)]
    return rows
