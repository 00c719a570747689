"""A run on a small disk of its own, which fills up: one line, nothing corrupt, and on it goes when there is room."""

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.runs import TOY, archive, finish, start

RUN = [*TOY, "--steps", "2"]


@pytest.fixture
def disk(tmp_path) -> Path:
    """A file system of 8 MB, if this machine lets us mount one."""
    if not shutil.which("mount"):
        pytest.skip("needs the mount command")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes of room."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - left))
    return filler


def stopped(said: str) -> str:
    """The one line that says why, and no traceback."""
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("alma: ")]
    assert line.startswith("alma: stopped: ") and ("full" in line or "No space left" in line)
    return line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    runs = tmp_path_factory.mktemp("runs")
    finish(start("learn", *RUN, "--runs", runs))
    return archive(runs)


@pytest.mark.parametrize("room", [100_000, 300_000])
def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room_and_a_report_without_room_leaves_the_old_one(disk, undisturbed, room):
    filler = fill(disk, room)
    said = finish(start("learn", *RUN, "--runs", disk / "runs"), 3)
    assert stopped(said)
    (run,) = (disk / "runs").iterdir()
    assert f"resume with: python alma.py learn --resume {run}" in said
    assert stopped(finish(start("learn", "--resume", run, "--plain"), 3))  # still full
    filler.unlink()
    finish(start("learn", "--resume", run, "--plain"))
    assert archive(disk / "runs") == undisturbed
    store = sqlite3.connect(run / "store.sqlite")
    assert store.execute("pragma integrity_check").fetchone() == ("ok",)
    store.close()
    report = (run / "report.html").read_text()
    fill(disk, 0)
    stopped(finish(start("report", run), 3))
    assert (run / "report.html").read_text() == report


def test_a_disk_that_is_full_at_the_start_is_one_line(disk):
    fill(disk, 0)
    stopped(finish(start("learn", *RUN, "--runs", disk / "runs"), 3))
