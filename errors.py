"""Whose fault it is decides what happens next: the kinds of failure that are never mixed.
`clean` is here because the messages of errors quote what designs, models and games wrote."""

import errno
import re


class UserError(Exception):
    """The user's mistake: one line that says what would have been right, exit code 2."""


class DesignError(Exception):
    """The memory design's fault: counted against it and shown to the meta agent. `status` is one of "error", "timeout",
    "died", "protocol", "invalid", "flood", "budget". The message came from hostile code: it is cut, and must be quoted
    wherever it is shown."""

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status


class AnswerError(Exception):
    """A model's answer cannot be used; the message is a sentence to send back, `answer` what it said."""

    def __init__(self, message: str, answer: str = ""):
        super().__init__(message)
        self.answer = answer


class InfrastructureError(Exception):
    """An endpoint is down, a worker died, the disk is full: retried, then the run stops. Never a score of 0."""


class BudgetError(Exception):
    """The run's budget is spent: the run stops in an orderly way and can be resumed with more."""


class ContextOverflow(Exception):
    """The prompt does not fit into the model's context: leave out the oldest turns and ask again."""


# What helps where the machine refuses something, by the number of the error.
_WRITABLE = "choose a place that can be written (--runs, ALMA_CACHE, TMPDIR)"
_HELP = {
    errno.EMFILE: "raise the limit of open files (ulimit -n) or use fewer --workers",
    errno.ENFILE: "other programs use all files that this system can open",
    errno.EAGAIN: "raise the limit of processes (ulimit -u) or use fewer --workers",
    errno.ENOMEM: "use fewer --workers",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _WRITABLE),
}


def machine_fault(error: BaseException | None) -> str:
    """One line on what the machine refused and what helps; empty where the error is of another kind."""
    if isinstance(error, MemoryError):
        return f"the memory is used up: {_HELP[errno.ENOMEM]}"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"no more threads can be started: {_HELP[errno.EAGAIN]}"
    if not isinstance(error, OSError):
        return ""
    place = f": {error.filename}" if error.filename is not None else ""
    help = f"; {_HELP[error.errno]}" if error.errno in _HELP else ""
    return clean(f"{error.strerror or error}{place}{help}").replace("\n", " ")


_TURNS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
_UNSEEN = "\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # no width, or hidden text
_ABOVE = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"  # marks on the letter before


def clean(text: str) -> str:
    """Text that a stranger wrote, with each control, direction or invisible character named in its place. Newlines and
    tabs stay; lone surrogates become question marks. Escaping for HTML or Markdown is the templates' part."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    text = re.sub("[\u2028\u2029]", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), text)  # U+2400...: their pictures
    text = re.sub(f"[{_TURNS}{_UNSEEN}\x7f-\x9f]", lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    return re.sub(f"([{_ABOVE}]{{3}})[{_ABOVE}]+", r"\1", text)
