"""Text that a model, a design or a game wrote, made fit to be looked at.

Promises: what comes back holds no control character but newline and tab, no character that turns
the direction of writing or that nobody can see, no lone surrogate, and no more characters than
allowed; each of those that were there is named in its place. It does not escape for HTML or for
Markdown: templates do that.

Try it: `python -c "from safe_text import line; print(line('a\\x1b[31mb\\u202ec'))"`
"""

import unicodedata

from errors import clean

_CHUNK = 4  # characters of raw text that are looked at for each one that may be shown


def block(text: str, limit: int) -> str:
    """At most about `limit` characters of a text, lines kept, with a mark where it was cut."""
    shown = clean(text[: limit * _CHUNK])
    if len(shown) <= limit and len(text) <= limit * _CHUNK:
        return shown
    return f"{shown[:limit]}\n[… cut: {len(text):,} characters in all]"


def line(text: str, limit: int = 160) -> str:
    """The text in one line of at most `limit` characters."""
    shown = " ".join(clean(text[: limit * _CHUNK]).split())
    return shown if len(shown) <= limit else f"{shown[: max(0, limit - 1)]}…"


def ascii_line(text: str, limit: int = 40) -> str:
    """The same in ASCII, for plots: no font has every letter."""
    plain = unicodedata.normalize("NFKD", line(text, limit)).replace("…", "...")
    return plain.encode("ascii", "replace").decode("ascii")
