"""Where a key is not: a whole run's files, prompts, output, children and their memory."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from tests.endpoint import ModelServer
from tests.runs import ROOT, TOY, descendants, finish, folder, models, start, writes_notes

KEY = "sk-proj-" + "Zq7" * 12  # in the environment
OTHER = "sk-proj-" + "Wm4" * 12  # in .env


class Nosy(ModelServer):
    """Keeps the keys that it got, and once says one in an error."""

    authorized = frozenset()

    def _refusal(self, headers: dict, body: dict):
        self.authorized |= {headers["authorization"]}
        if self.requests == 20:
            return 500, {"error": {"message": f"I got {headers['authorization']}", "code": headers["authorization"]}}
        return super()._refusal(headers, body)


def found_in(text: bytes) -> list[bytes]:
    return [key for key in (KEY.encode(), OTHER.encode()) if key in text]


def memory_of(pid: int) -> bytes:
    """What a core dump of a process would hold: its writable memory."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            low, high, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if mode.startswith("rw"):
                parts.append(_read(memory, int(low, 16), int(high, 16)))
    return b"".join(parts)


def _read(memory, low: int, high: int) -> bytes:
    try:
        memory.seek(low)
        return memory.read(high - low)
    except (OSError, OverflowError, ValueError):
        return b""  # not mapped to anything


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A run with keys: what it said, its folder, the server, and its children as they were in the middle."""
    place, children = tmp_path_factory.mktemp("keys"), {}
    (place / ".env").write_text(f"OPENAI_API_KEY_ELSEWHERE='{OTHER}'\nSOME_PASSWORD={OTHER}\n")
    environment = {**os.environ, "OPENAI_API_KEY_127_0_0_1": KEY, "OPENAI_API_KEY": OTHER, "MY_SECRET_TOKEN": KEY, "PYTHONPATH": str(ROOT)}

    with Nosy(writes_notes) as server:
        process = start("learn", *TOY, *models(server), "--runs", place / "runs", cwd=place, env=environment)

        def look() -> None:
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or may not be looked at
                    texts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
                    children[pid] = *texts, memory_of(pid)

        for event in (60, 300, 450):  # agents play; designs are verified and evaluated
            server.at[event] = look
        said = finish(process)
    if os.geteuid() == 0:  # others may not read it
        assert found_in(children[process.pid][2]) == [KEY.encode(), OTHER.encode()], "this looks at no memory"
    del children[process.pid]
    return said, folder(place / "runs"), server, children


def test_the_key_is_in_no_file_of_the_run_and_in_nothing_it_said(seen):
    said, run, server, _ = seen
    assert server.authorized == {f"Bearer {KEY}"}  # it was used
    assert "I got" in said and not found_in(said.encode())  # an endpoint that says it is not repeated
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {"store.sqlite", "log.txt", "report.html", "report.md", "config.json"} <= {path.name for path in files}
    assert not [path for path in files if found_in(path.read_bytes())]
    assert not found_in(repr(server.bodies).encode())


def test_the_key_is_in_no_childs_command_environment_or_memory(seen):
    *_, children = seen
    commands = b"".join(command for command, _, _ in children.values())
    assert b"forkserver" in commands and b"jail.child" in commands
    assert len(children) >= 5
    if os.geteuid() == 0:
        assert sum(len(memory) > 1_000_000 for _, _, memory in children.values()) >= 5
    for command, environment, memory in children.values():
        assert not found_in(command) and not found_in(environment) and not found_in(memory)
