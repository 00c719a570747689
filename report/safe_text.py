"""Text that a model, a design or a game wrote, made fit to be looked at.

Promises: what comes back holds no control character but newline and tab, no character that turns
the direction of writing or that nobody can see, no lone surrogate, and no more characters than
allowed; each of those that were there is named in its place. It does not escape for HTML or for
Markdown: templates do that.

Try it: `python -c "from safe_text import line; print(line('a\\x1b[31mb\\u202ec'))"`
"""

import re
import unicodedata

_TURNS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
_UNSEEN = "\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # no width, or hidden text
_NAMED = re.compile(f"[{_TURNS}{_UNSEEN}\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_MARKS = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})"
                    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+")  # piled on one letter
_CHUNK = 4  # characters of raw text that are looked at for each one that may be shown


def clean(text: str) -> str:
    """The text with each control, direction or unseen character named in its place."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    text = re.sub("[\u2028\u2029]", "\n", text)
    text = _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])), text)  # U+2400...: their pictures
    text = _NAMED.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    return _MARKS.sub(r"\1", text)


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
