"""docs/forking.md: each diff applies to a copy of the repository, touches as few files as it says, and runs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = re.findall(r"^## \d+\. (.*?) \((\d+) files?\)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "forking.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the repository with its bytecode, without its history, runs and virtual environment."""
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", ".hypothesis", "docs")
    return Path(shutil.copytree(ROOT, tmp_path / "alma", ignore=ignored))


def test_there_are_seven_of_them():
    assert len(SECTIONS) == 7


@pytest.mark.parametrize(("files", "text"), [one[1:] for one in SECTIONS], ids=[one[0] for one in SECTIONS])
def test_a_diff_applies_and_its_commands_run(copy, files, text):
    (diff,) = re.findall(r"^```diff\n(.*?)^```", text, re.M | re.S)
    assert len(re.findall(r"^\+\+\+ ", diff, re.M)) == int(files)
    applied = subprocess.run(["git", "apply", "-"], input=diff, cwd=copy, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    for name, code in re.findall(r"^```python\n# (\S+)\n(.*?)^```", text, re.M | re.S):
        (copy / name).write_text(code, encoding="utf-8")
    commands = re.findall(r"^(?:\w+=\S+ )?python alma\.py .*$", text, re.M)
    assert commands
    for line in commands:
        done = subprocess.run(["env", *_with_this_python(shlex.split(line))], cwd=copy, capture_output=True, text=True)
        if "CEREBRAS" in line:  # there is no network, or the key is refused there
            assert done.returncode == 3 and "api.cerebras.ai" in done.stderr, done.stderr
        else:
            assert done.returncode == 0, done.stderr


def _with_this_python(words: list[str]) -> list[str]:
    """The same command with this interpreter, and without the report's plots."""
    instead = {"python": sys.executable, "alma.py": "tests/without_plots.py"}
    return [instead.get(word, word) for word in words]
