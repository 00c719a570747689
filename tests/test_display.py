"""What a run shows while it goes on: on a terminal, without one, and with others writing in between."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.progress import Display, clock, short, usage_words

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import json, os, subprocess, sys, time
from pathlib import Path
from harness.progress import Display

log = open("log.txt", "w")
with Display(lambda text: print(text, file=log, flush=True), plain={plain}, output=Path("output.txt")) as display:
    display.log("run folder: runs/x \\x1b[31m\\u202e [bold]")
    display.stage("learning step 1/2")
    display.best("best 0.500, no memory 0.300")
    display.cost_from(lambda: {{"in_flight": 3, "tokens": 12345, "usd": 0.5, "budget_usd": 2}})
    display.candidate("1.1", "evaluate", "from scratch", design="abc", episodes=20)
    for number in range(20):
        subprocess.run("echo worker says hello; echo and complains >&2", shell=True)
        print("a library prints", flush=True)
        print("and warns", file=sys.stderr, flush=True)
        display.episode("abc")
        if number == 10:
            display.log("in the middle")
    {end}
print(json.dumps({{"done": True}}))
"""


class Screen:
    """As much of a terminal as rich uses: what somebody sees in the end."""

    def __init__(self, text):
        self.lines, self.row, self.column, self.cursor = [""], 0, 0, True
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+|\x1b", text):
            self.take(part)

    def take(self, part):
        if part == "\r":
            self.column = 0
        elif part == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif not part.startswith("\x1b"):
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
            self.column += len(part)
        elif part.endswith("A"):
            self.row = max(0, self.row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part in ("\x1b[?25l", "\x1b[?25h"):
            self.cursor = part.endswith("h")
        else:
            assert part.endswith("m"), f"not known: {part!r}"

    def text(self):
        return [line.rstrip() for line in self.lines if line.strip()]


def on_terminal(folder, code, kill=0):
    """Run code with a terminal as stderr and a pipe as stdout; returns both texts and the exit code."""
    host, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(terminal)
    seen = b""
    while select.select([host], [], [], 30)[0]:
        try:
            part = os.read(host, 65536)
        except OSError:  # the terminal is closed
            break
        seen += part
        if kill and b"ready" in seen:
            process.send_signal(kill)
            kill = 0
    os.close(host)
    stdout = process.stdout.read().decode()
    return seen.decode(), stdout, process.wait(timeout=30)


def test_on_a_terminal_others_cannot_garble_the_picture_and_stdout_holds_the_result_alone(tmp_path):
    seen, stdout, code = on_terminal(tmp_path, RUN.format(plain=False, end="time.sleep(0.6)"))
    assert code == 0 and json.loads(stdout) == {"done": True}
    for word in ("learning step 1/2", "evaluate", "20/20", "best 0.500", "3 calls in flight", "12.3k tokens", "$0.50 of 2.00"):
        assert word in re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", seen)
    for noise in ("worker says", "complains", "library", "warns"):
        assert noise not in seen
        assert (tmp_path / "output.txt").read_text().count(noise) == 20
    screen = Screen(seen)
    assert screen.text() == ["run folder: runs/x ␛[31m⟨U+202E⟩ [bold]", "in the middle"]
    assert screen.cursor and "in the middle" in (tmp_path / "log.txt").read_text()


def test_without_a_terminal_or_with_plain_there_are_only_lines(tmp_path):
    for plain in (True, False):
        run = subprocess.run([sys.executable, "-c", RUN.format(plain=plain, end="")], cwd=tmp_path, capture_output=True,
                             text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        assert json.loads(run.stdout) == {"done": True}
        assert "\x1b" not in run.stderr and "worker" not in run.stderr
        assert run.stderr.splitlines()[1:3] == ["learning step 1/2: 0:00", "1.1 evaluate from scratch"]
    seen, _, _ = on_terminal(tmp_path, RUN.format(plain=True, end=""))
    assert "\x1b" not in seen and "in the middle" in seen


@pytest.mark.parametrize("end", ["raise ValueError('by design')", "print('ready', file=display._terminal, flush=True); time.sleep(30)"],
                         ids=["exception", "ctrl-c"])
def test_after_an_exception_or_ctrl_c_the_terminal_is_as_it_was(tmp_path, end):
    seen, stdout, code = on_terminal(tmp_path, RUN.format(plain=False, end=end), kill=signal.SIGINT)
    assert code != 0 and stdout == ""
    screen = Screen(seen)
    assert screen.cursor and ("by design" in screen.text()[-1] or "KeyboardInterrupt" in screen.text()[-1])


def shown(display, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(display)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_picture_shows_each_candidate_its_stage_and_its_episodes_at_any_width(width):
    display = Display(lambda text: None, plain=True)
    display.stage("learning step 3/6")
    for number, stage in enumerate(("ideate", "implement", "verify", "evaluate", "archived", "dropped"), 1):
        display.candidate(f"3.{number}", stage, f"note {number}", design=f"id{number}", episodes=9 if number == 4 else 0)
    display.episode("id4")
    text = shown(display, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert re.search(r"3\.4.*evaluate 1/9", text) and "learning step 3/6" in text
    assert all(f"3.{number}" in text for number in range(1, 7)) and ("ideate › implement" in text) == (width > 90)
    display.stage("learning step 4/6")
    assert "3.4" not in shown(display, width)


def test_the_time_left_goes_by_the_episodes_that_were_played_here():
    display = Display(lambda text: None, plain=True)
    display.plan(100)
    for number in range(50):
        display.episode(fresh=number >= 40)  # forty were known from before the run was resumed
    assert display.seconds_left(20.0) == pytest.approx(20.0 * 50 / 10)
    assert display.seconds_left(1.0) is None
    for _ in range(60):
        display.episode()
    assert display.seconds_left(20.0) is None and display.total == 110


def test_numbers_are_short():
    assert [short(999), short(12_345), short(2_500_000)] == ["999", "12.3k", "2.5M"]
    assert [clock(5), clock(125), clock(3725)] == ["0:05", "2:05", "1:02:05"]
    assert usage_words("") == [] and usage_words({}) == [] and usage_words("3 tokens") == ["3 tokens"]
    assert usage_words({"tokens": 10, "usd": 0}) == ["10 tokens", "$0.00"]
