"""What a run shows while it goes on: a live picture on a terminal, plain lines elsewhere.

Promises: nothing but this module writes to the terminal while it is shown (with `output`, what workers
and engines print goes into that file, whichever language they are written in); every text is cleaned
of control characters; stdout stays free for the result; every message is in the run's log too. The
time left assumes that what is to come goes as fast as what was played, and is said to be "about".

Try it: `python alma.py learn --env babaisai`, and the same with `--plain`
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from errors import clean
from report.words import line

STAGES = ("ideate", "implement", "verify", "evaluate")
ENDS = ("archived", "duplicate", "dropped")
LINES_EVERY = 10.0  # seconds between two plain lines about progress
SHOWN = 8  # candidates at a time


@dataclass(frozen=True)
class Row:
    """A candidate of this learning step, or a design that is compared."""

    name: str
    stage: str  # one of STAGES or ENDS, or any other word
    note: str = ""  # what it is made from, its score, why it was dropped
    done: int = 0  # episodes
    expected: int = 0


class Display:
    """Progress and messages of a run; `with Display(...)` shows them.

    `log(line)` keeps a message. `plain` writes lines only, at most one about progress in ten
    seconds. `output` is a file for all that others print meanwhile.
    """

    def __init__(self, log: Callable[[str], None], plain: bool, output: Path | None = None):
        self._write_log, self._output = log, output
        self.plain = plain or not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown")
        self._stage, self._best, self._rows, self._designs = "", "", {}, {}
        self._done = self._fresh = self._expected = self._planned = 0
        self._usage: Callable[[], str | Mapping] = dict
        self._started = self._last = time.monotonic()
        self._terminal, self._saved, self._live = sys.stderr, [], None

    def __enter__(self) -> "Display":
        if self._output:
            self._divert(self._output)
        if not self.plain:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._terminal, highlight=False, markup=False, emoji=False)
            python = not self._output  # else what Python prints goes where all the rest goes
            self._live = Live(
                self, console=console, refresh_per_second=4, transient=True, redirect_stdout=python, redirect_stderr=python
            )
            self._live.start()
            console.show_cursor(True)  # a killed process must not leave a terminal without one
        return self

    def __exit__(self, *exception) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if self._saved:
            self._restore()

    def _divert(self, path: Path) -> None:
        """Point file descriptors 1 and 2, which every child inherits, to a file."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = [os.dup(1), os.dup(2)]
        self._terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)

    def _restore(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        self._terminal.close()
        self._terminal, self._saved = sys.stderr, []

    # ------------------------------------------------------------------------ what there is to say

    def cost_from(self, usage: Callable[[], str | Mapping]) -> None:
        """`usage()` is a short text, or a mapping with any of `in_flight`, `tokens`, `usd`, `budget_usd`."""
        self._usage = usage

    def log(self, text: str) -> None:
        """Say a line and keep it in the run's log."""
        self._write_log(line(text, 4000))
        self._say(clean(text))

    def stage(self, stage: str) -> None:
        """What is going on now: "learning step 2/6"; the candidates of the stage before are done with."""
        self._stage, self._rows, self._designs = line(stage, 80), {}, {}
        self._write_log(self._stage)
        self._progress(now=True)

    def best(self, text: str) -> None:
        self._best = line(text, 100)

    def candidate(self, name: str, stage: str, note: str = "", design: str = "", episodes: int = 0) -> None:
        """A candidate has come to a stage: one of STAGES, "repair", or one of ENDS.

        `design`: the id under which its episodes are counted; `episodes`: how many there will be.
        """
        known = self._rows.get(name, Row(name, stage))
        row = replace(known, stage=line(stage, 20), note=line(note, 100) or known.note)
        self._rows[name] = replace(row, expected=episodes) if episodes else row
        if design:
            self._designs[design] = name
        if self.plain:
            self._say(" ".join(part for part in (name, row.stage, row.note) if part))

    def plan(self, episodes: int) -> None:
        """How many episodes the whole run has, as far as one can know: the time left is told from it."""
        self._planned = episodes

    def expect(self, episodes: int) -> None:
        """So many more episodes are to be played; fewer, where the number is negative."""
        self._expected += episodes

    def episode(self, design: str = "", fresh: bool = True) -> None:
        """An episode is over; `fresh` unless it was known from before."""
        self._done += 1
        self._fresh += fresh
        name = self._designs.get(design, design)
        if name in self._rows:
            self._rows[name] = replace(self._rows[name], done=self._rows[name].done + 1)
        self._progress()

    # ------------------------------------------------------------------------------- how it is said

    def _say(self, text: str) -> None:
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(text))
        else:
            print(text, file=self._terminal, flush=True)

    def _progress(self, now: bool = False) -> None:
        if self.plain and (now or time.monotonic() - self._last > LINES_EVERY):
            self._last = time.monotonic()
            self._say(f"{self._stage or 'starting'}: {'  '.join(self.facts())}".removesuffix(": "))

    @property
    def total(self) -> int:
        """Episodes in all, as far as they are known."""
        return max(self._planned, self._expected, self._done)

    def facts(self) -> list[str]:
        """Episodes, best score, model calls, money and time, each as a short text."""
        return self._episodes() + self._known() + self._times()

    def _episodes(self) -> list[str]:
        return [f"{self._done}/{self.total} episodes"] if self.total else []

    def _known(self) -> list[str]:
        return ([self._best] if self._best else []) + usage_words(self._usage())

    def _times(self) -> list[str]:
        elapsed = time.monotonic() - self._started
        left = self.seconds_left(elapsed)
        return [clock(elapsed)] + ([f"about {clock(left)} left"] if left is not None else [])

    def seconds_left(self, elapsed: float) -> float | None:
        """What is left at the pace of the episodes played here; None while that says little."""
        if self._fresh < 5 or elapsed < 5 or self._done >= self.total:
            return None
        return elapsed * (self.total - self._done) / self._fresh

    def __rich_console__(self, console, options):
        """The live picture, as rich asks for it."""
        yield self.picture(options.max_width)

    def picture(self, width: int):
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.rule import Rule
        from rich.table import Table
        from rich.text import Text

        rows = list(self._rows.values())
        more = [Text(f"and {len(rows) - SHOWN} more", "dim")] if len(rows) > SHOWN else []
        bar = ProgressBar(total=self.total or None, completed=self._done, pulse=not self.total)
        progress = Table.grid(padding=(0, 2), expand=True)
        progress.add_column(ratio=1)
        progress.add_column(no_wrap=True)
        progress.add_row(bar, Text("  ".join([*self._episodes(), *self._times()])))
        title = Rule(Text(self._stage or "starting", "bold"), align="left", style="dim")
        known = Text("  ·  ".join(self._known()))
        return Group(title, *more, *([self._table(rows[-SHOWN:], width >= 90)] if rows else []), progress, known)

    def _table(self, rows: list[Row], wide: bool):
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=min(30, max(len(row.name) for row in rows)))
        for _ in range(2 + wide):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for row in rows:
            bar = ProgressBar(total=row.expected, completed=row.done, width=16) if row.expected else ""
            note = Text(row.note, "dim")
            table.add_row(Text(line(row.name, 30), "bold"), _track(row, wide), *([bar, note] if wide else [note]))
        return table


def _track(row: Row, wide: bool):
    """The stages of a candidate: where it is, and where there is room, what is behind it and before it."""
    from rich.text import Text

    if row.stage in ENDS:
        return Text(row.stage, {"archived": "green", "dropped": "red"}.get(row.stage, "yellow"))
    if row.stage not in STAGES or not wide:
        return Text(row.stage + (f" {row.done}/{row.expected}" if row.expected else ""), "bold cyan")
    track, at = Text(), STAGES.index(row.stage)
    for place, stage in enumerate(STAGES):
        track.append(f"{' › ' if place else ''}", "dim")
        track.append(stage, "bold cyan" if place == at else "dim" if place > at else "")
    return track.append(f" {row.done}/{row.expected}", "cyan") if row.expected else track


def usage_words(usage: str | Mapping) -> list[str]:
    """Calls in flight, tokens and dollars, as far as they are known."""
    if isinstance(usage, str):
        return [line(usage, 80)] if usage else []
    words = [f"{usage['in_flight']} calls in flight"] if usage.get("in_flight") else []
    words += [f"{short(usage['tokens'])} tokens"] if usage.get("tokens") else []
    if usage.get("usd") or usage.get("tokens"):
        limit = f" of {usage['budget_usd']:,.2f}" if usage.get("budget_usd") else ""
        words.append(f"${usage.get('usd') or 0:,.2f}{limit}")
    return words


def short(number: float) -> str:
    """12,345 as "12.3k"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """Seconds as "2:05" or "1:02:05"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
