"""The README does what it says: its Python runs, its command lines are ones that there are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli as commands

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python" and "memory_base" in block])
def test_a_learned_memory_works_in_ones_own_agent_as_shown(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "open door" in done.stdout


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python alma.py")])
def test_every_command_line_is_one_that_there_is(line):
    assert commands.parse(shlex.split(line.partition("#")[0])[2:]).run


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_every_make_target_is_one_that_there_is(line):
    words = shlex.split(line.partition("#")[0])
    assert subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+\.py)`", README))))
def test_every_file_that_is_named_is_there(name):
    assert (ROOT / name).is_file() or (ROOT / "tests" / name).is_file() or name in ("design.py", "my.py")
