"""The whole loop in real processes, on a small domain: same seed, same archive, whatever happens to it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.endpoint import ModelServer, stand_in
from tests.runs import TOY, archive, finish, models, start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    runs = tmp_path_factory.mktemp("runs")
    finish(start("learn", *TOY, "--runs", runs))
    return archive(runs)


def test_two_runs_with_one_seed_give_the_same_archive(undisturbed, tmp_path):
    finish(start("learn", *TOY, "--runs", tmp_path))
    assert archive(tmp_path) == undisturbed
    assert len({line["id"] for line in undisturbed}) >= 3
    assert len({line["retrieved_tokens"] for line in undisturbed}) > 1  # the designs say different things


def kill_after(process: subprocess.Popen, seconds: float) -> None:
    """SIGKILL the host alone; its workers must notice by themselves."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_host_leaves_no_process(tmp_path):
    process = start("learn", *TOY, "--runs", tmp_path)
    kill_after(process, 2.0)
    deadline = time.monotonic() + 20
    while (left := in_session(process.pid)) and time.monotonic() < deadline:
        pass
    assert not left


def in_session(session: int) -> list[str]:
    """Processes of a session that are still alive."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            alive.append(str(path))
    return alive


def test_ctrl_c_stops_in_order_and_says_how_to_go_on(undisturbed, tmp_path):
    process = start("learn", *TOY, "--runs", tmp_path)
    process.stderr.readline()  # its handlers are in place
    process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    said = finish(process, 130).strip().splitlines()
    assert said[-1].startswith("resume with: python alma.py learn --resume ")
    assert not any("Traceback" in line for line in said)
    finish(start("learn", "--resume", said[-1].split()[-1], "--plain"))
    assert archive(tmp_path) == undisturbed


BROKEN = "```python\nfrom memory_base import MemoryDesign\n\n\nclass Broken(MemoryDesign):\n    pass\n```"


def test_a_candidate_that_fails_three_times_is_dropped_and_the_run_goes_on(tmp_path):
    def answer(role: str, body: dict) -> str:
        prompt = body["messages"][1]["content"]
        mends = prompt.startswith(("# Stage: repair", "# Stage: implement"))
        return BROKEN if mends else stand_in(role, body)

    with ModelServer(answer) as server:
        said = finish(start("learn", *TOY, *models(server, "meta"), "--runs", tmp_path))
    lines = archive(tmp_path)
    assert [line["state"] for line in lines] == ["evaluated", "dropped", "dropped"]
    assert lines[1]["tries"] == 3 and "general_update" in lines[1]["error"]
    assert "2.1 dropped" in said
    (run,) = tmp_path.iterdir()
    assert "Broken" in (run / "dropped" / "2.1" / "design.py").read_text()


def test_a_meta_agent_that_writes_no_code_is_dropped_too(tmp_path):
    def answer(role: str, body: dict) -> str:
        prompt = body["messages"][1]["content"]
        return "I would rather not." if prompt.startswith("# Stage: implement") else stand_in(role, body)

    with ModelServer(answer) as server:
        finish(start("learn", *TOY, *models(server, "meta"), "--runs", tmp_path))
    assert [line["state"] for line in archive(tmp_path)] == ["evaluated", "dropped", "dropped"]


def test_a_dead_endpoint_stops_the_run_with_one_line_and_a_way_on(tmp_path):
    dead = "x@http://127.0.0.1:9/v1"
    arguments = [*TOY, "--agent-model", dead, "--outage-seconds", "0.2", "--runs", tmp_path]
    said = finish(start("learn", *arguments), 3).strip().splitlines()
    assert said[-2].startswith("alma: stopped: ") and "127.0.0.1:9" in said[-2]
    assert said[-1].startswith("resume with: ")
