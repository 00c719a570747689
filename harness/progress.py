"""What a run shows while it works: a live picture on a terminal, plain lines elsewhere.

Only this module writes to the terminal: with `output`, what workers and engines print goes to that file.
Texts are cleaned of control characters, messages are in the run's log too, and stdout is kept for the result.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from errors import clean
from report.words import line

STAGES = ("ideate", "implement", "verify", "evaluate")
ENDS = {"archived": "green", "duplicate": "yellow", "dropped": "red"}
SHOWN = 8  # candidates at a time


@dataclass
class Row:  # a candidate of this learning step, or a design in a comparison
    stage: str = ""  # one of STAGES or ENDS, or any other word
    note: str = ""  # its parent, its score, or why it was dropped
    done: int = 0  # episodes
    expected: int = 0


class Display:
    """Progress and messages of a run; `with Display(...)` shows them. `log(line)` keeps a message. `plain`: only lines,
    at most one about progress in ten seconds. `output`: a file for everything that others print meanwhile."""

    def __init__(self, log: Callable[[str], None], plain: bool, output: Path | str = os.devnull):
        self._write_log, self._output = log, output
        self.plain = plain or not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown")
        self._stage, self._best, self._rows, self._designs, self._once = "", "", {}, {}, set()
        self._done = self._fresh = self._expected = self._planned = 0
        self._usage: Callable[[], str | Mapping] = dict
        self._started = self._last = time.monotonic()
        self._terminal, self._saved, self._live = sys.stderr, [], None

    def __enter__(self) -> "Display":
        self._terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
        with open(self._output, "ab") as file:  # file descriptors 1 and 2, which every child inherits, point to it
            for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
                stream.flush()
                self._saved.append((stream, descriptor, os.dup(descriptor)))
                os.dup2(file.fileno(), descriptor)
        if not self.plain:
            console = Console(file=self._terminal, highlight=False, markup=False, emoji=False)
            self._live = Live(self, console=console, refresh_per_second=4, transient=True,
                              redirect_stdout=False, redirect_stderr=False)  # what Python prints is in the file
            self._live.start()
            console.show_cursor(True)  # a killed process must leave a terminal with a cursor
        return self

    def __exit__(self, *exception) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        for stream, descriptor, saved in self._saved:
            with contextlib.suppress(OSError):  # no room in the file; the reason is still to be told on the terminal
                stream.flush()
            os.dup2(saved, descriptor)
            os.close(saved)
        with contextlib.suppress(OSError):
            self._terminal.close()
        self._terminal, self._saved = sys.stderr, []

    def cost_from(self, usage: Callable[[], str | Mapping]) -> None:
        """`usage()` is a short text, or a mapping with any of the keys that `usage_words` knows."""
        self._usage = usage

    def log(self, text: str) -> None:
        """Show a message and keep it in the run's log."""
        self._write_log(line(text, 4000))
        self._say(clean(text))

    def stage(self, stage: str) -> None:
        """Begin a stage, such as "learning step 2/6"; the candidates of the last one disappear."""
        self._stage, self._rows, self._designs = line(stage, 80), {}, {}
        self._write_log(self._stage)
        self._progress(now=True)

    def best(self, text: str) -> None:
        self._best = line(text, 100)

    def candidate(self, name: str, stage: str, note: str = "", design: str = "", episodes: int = 0) -> None:
        """A candidate enters a stage: one of STAGES, "repair", or one of ENDS.
        `design`: the id under which its episodes are counted; `episodes`: how many there will be."""
        row = self._rows.setdefault(name, Row())
        row.stage, row.note, row.expected = line(stage, 20), line(note, 100) or row.note, episodes or row.expected
        if design:
            self._designs[design] = name
        if self.plain:
            self._say(" ".join(filter(None, (name, row.stage, row.note))))

    def plan(self, episodes: int) -> None:
        """Set the expected number of episodes of the whole run, from which the time left follows."""
        self._planned = episodes

    def expect(self, episodes: int) -> None:
        """Add to the number of episodes that will be played."""
        self._expected += episodes

    def episode(self, design: str = "", fresh: bool = True, once: str = "") -> None:
        """Count a finished episode, once for each `once`; `fresh` unless it was played before the run was resumed."""
        if once in self._once:
            return
        self._once |= {once} - {""}
        self._done += 1
        self._fresh += fresh
        if row := self._rows.get(self._designs.get(design, design)):
            row.done += 1
        self._progress()

    @property
    def total(self) -> int:
        """The number of all episodes, as far as it is known."""
        return max(self._planned, self._expected, self._done)

    def seconds_left(self, elapsed: float) -> float | None:
        """Time left if the other episodes take as long as those played by this process; None while they are too few."""
        if self._fresh < 5 or elapsed < 5 or self._done >= self.total:
            return None
        return elapsed * (self.total - self._done) / self._fresh

    def _say(self, text: str) -> None:
        if self._live:
            return self._live.console.print(Text(text))
        with contextlib.suppress(OSError):  # a run goes on although its messages cannot be printed
            print(text, file=self._terminal, flush=True)

    def _progress(self, now: bool = False) -> None:
        if self.plain and (now or time.monotonic() - self._last > 10):  # seconds between two lines
            self._last = time.monotonic()
            played, known, times = self._facts()
            self._say(f"{self._stage or 'starting'}: {'  '.join(played + known + times)}")

    def _facts(self) -> tuple[list[str], list[str], list[str]]:
        """Short texts: the episodes; the best score, model calls and dollars; the time."""
        elapsed = time.monotonic() - self._started
        left = self.seconds_left(elapsed)
        times = [clock(elapsed)] + ([f"about {clock(left)} left"] if left is not None else [])
        played = [f"{self._done}/{self.total} episodes"] if self.total else []
        return played, [self._best] * bool(self._best) + usage_words(self._usage()), times

    def __rich_console__(self, console, options):
        """The live picture: title, candidates, the bar of all episodes, and what is known."""
        played, known, times = self._facts()
        rows, wide = dict(list(self._rows.items())[-SHOWN:]), options.max_width >= 90
        parts = [Rule(Text(self._stage or "starting", "bold"), align="left", style="dim")]
        if len(self._rows) > SHOWN:
            parts.append(Text(f"and {len(self._rows) - SHOWN} more", "dim"))
        widest = min(30, max(map(len, rows), default=0))
        others = (Column(no_wrap=True) for _ in range(2 + wide))
        table = Table.grid(Column(no_wrap=True, min_width=widest), *others, padding=(0, 2))
        for name, row in rows.items():
            # The stage, and where there is room, the stages before and after it.
            stages = STAGES if wide and row.stage in STAGES else (row.stage,)
            track, at = Text(), stages.index(row.stage)
            for place, stage in enumerate(stages):
                track.append(" › " if place else "", "dim")
                track.append(stage, ENDS.get(stage, "bold cyan") if place == at else "dim" if place > at else "")
            if row.expected and row.stage not in ENDS:
                track.append(f" {row.done}/{row.expected}", "cyan")
            bar = [ProgressBar(row.expected, row.done, width=16) if row.expected else ""] if wide else []
            table.add_row(Text(line(name, 30), "bold"), track, *bar, Text(row.note, "dim"))
        bar = Table.grid(Column(), Column(no_wrap=True), padding=(0, 1), expand=True)
        bar.add_row(ProgressBar(self.total or None, self._done), Text("  ".join(played + times)))
        yield Group(*parts, table, bar, Text("  ·  ".join(known)))


def usage_words(usage: str | Mapping) -> list[str]:
    """Answers that a person is to write, calls in flight, tokens and dollars, as far as they are known."""
    if isinstance(usage, str):
        return [line(usage, 80)] if usage else []
    waiting, in_flight, tokens, usd, most = map(usage.get, ("waiting", "in_flight", "tokens", "usd", "budget_usd"))
    words = ((waiting, f"waiting for answers in inbox/: {waiting}"), (in_flight, f"{in_flight} calls in flight"),
             (tokens, f"{short(tokens or 0)} tokens"),
             (usd or tokens, f"${usd or 0:,.2f}" + (f" of {most:,.2f}" if most else "")))  # fmt: skip
    return [text for known, text in words if known]


def short(number: float) -> str:
    """12,345 as "12.3k"."""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next((f"{number / size:.1f}{unit}" for size, unit in units if number >= size), f"{number:.0f}")


def clock(seconds: float) -> str:
    """Seconds as "2:05" or "1:02:05"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
