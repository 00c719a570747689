"""Whole runs in processes of their own, and designs that ask every model, for the tests of runs."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.endpoint import ModelServer, stand_in

ROOT = Path(__file__).resolve().parents[1]
ALMA = [sys.executable, str(ROOT / "tests" / "without_plots.py")]
ROLES = ("meta", "agent", "memory", "embedding")
# One fold and two finalists: each stage of a run takes place. Two folds are those of test_evaluate and of what has the defaults.
TOY = ["--env", "tests.toy:Doors", "--steps", "3", "--passes", "1", "--collection-passes", "1", "--folds", "1"]
TOY += ["--finalists", "2", "--final-passes", "1", "--workers", "3", "--plain", "--yes"]

DESIGN = '''"""Notes what lay behind which door, in a model's words. Version {number}."""

from memory_base import Agent, Embedding, MemoryDesign, VectorStore

SCHEMA = {{"type": "object", "properties": {{"fact": {{"type": "string"}}}}, "required": ["fact"]}}
EXAMPLE = """
```python
print("a fence in a string ends no code")
```
"""


class Notes(MemoryDesign):
    def __init__(self):
        self.store = VectorStore(Embedding())

    async def general_update(self, trajectory):
        goal, last = trajectory.init["goal"], trajectory.steps[-1]
        fact = await Agent("You note facts.", SCHEMA).ask(f"{{goal}} {{last['action_took']}}. {{last['obs']}}")
        self.store.add_texts([f"{{goal}} {{last['action_took']}}: {{fact['fact']}}"])

    async def general_retrieve(self, trajectory):
        goal = trajectory.init["goal"]
        near = [one.page_content for one in self.store.similarity_search(goal, k={number} % 3 + 1)]
        return {{"near": near, "advice": await Agent("You advise.").ask(f"{{goal}} {{near}} {number}")}}
'''


def writes_notes(role: str, body: dict) -> str:
    """Answers of a server whose meta agent writes designs that ask models and embed texts."""
    if role != "meta" or "# Stage: ideate" in body["messages"][1]["content"]:
        return stand_in(role, body)
    prompt = hashlib.sha256(body["messages"][1]["content"].encode()).hexdigest()
    return f"```python\n{DESIGN.format(number=int(prompt[:4], 16))}```"


def start(*arguments, **options) -> subprocess.Popen:
    """`alma.py` without plots in a session of its own; `options` as of Popen."""
    command = [*ALMA, *map(str, arguments)]
    pipe = subprocess.PIPE
    settings = {"cwd": ROOT, "stdout": pipe, "stderr": pipe, "text": True, "start_new_session": True, **options}
    return subprocess.Popen(command, **settings)


def finish(process: subprocess.Popen, code: int = 0, seconds: float = 300) -> str:
    """What it printed; fails where it ends with another exit code."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == code, err[-3000:]
    return out + err


def models(server: ModelServer, *roles: str) -> list[str]:
    """Flags that put roles on a server."""
    return [part for role in roles or ROLES for part in (f"--{role}-model", f"{role}@{server.url}")]


def folder(runs: Path) -> Path:
    """The one run in a folder."""
    (run,) = [path for path in runs.iterdir() if (path / "config.json").is_file()]
    return run


def archive(runs: Path) -> list[dict]:
    """The archive of the one run in a folder."""
    return [json.loads(line) for line in (folder(runs) / "archive.jsonl").read_text().splitlines()]


def played(runs: Path) -> Counter[str]:
    """Every episode in a run's store, as it is stored: what was seen, done and scored."""
    return Counter(text for (text,) in rows(runs, "select episode from episodes"))


def rows(runs: Path, query: str) -> list[tuple]:
    """What the store of the one run in a folder answers."""
    with sqlite3.connect(folder(runs) / "store.sqlite") as store:
        return store.execute(query).fetchall()


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    stats, found = _stats(), {pid}
    for _ in range(6):
        found |= {one for one, parent, _ in stats if parent in found}
    return sorted(found - {pid})


def _stats() -> list[tuple[int, int, int]]:
    """Pid, parent and session of every process that has not ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found.append((int(pid), int(fields[1]), int(fields[3])))
    return found
