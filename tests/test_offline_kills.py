"""A run of real processes that is stopped or killed at random: same archive, nothing done twice, no score of 0.

`python tests/test_offline_kills.py 30` kills the host 30 times, and its children as often.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where this is run as a script

from tests.runs import TOY, archive, finish, start

RUN = [*TOY, "--env", "tests.toy:Witnessed", "--steps", "4", "--race", "--workers", "2"]


class Witness:
    """The episodes that the workers of a run played to their end."""

    def __init__(self, path: Path):
        self.path, self.environment = path, {**os.environ, "ALMA_WITNESS": str(path)}

    def played(self) -> int:
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0


def undisturbed_run(folder: Path) -> tuple[list[dict], int, float]:
    """The archive of a run that nobody disturbs, the number of its episodes, and how many seconds it took."""
    witness, begin = Witness(folder / "witness"), time.monotonic()
    finish(start("learn", *RUN, "--runs", folder / "runs", env=witness.environment))
    return archive(folder / "runs"), witness.played(), time.monotonic() - begin


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[list[dict], int, float]:
    whole = undisturbed_run(tmp_path_factory.mktemp("undisturbed"))
    assert len({line["id"] for line in whole[0]}) >= 3
    assert len({line["retrieved_tokens"] for line in whole[0]}) > 1  # the designs say different things
    return whole


def test_ctrl_c_stops_in_order_and_says_how_to_go_on(undisturbed, tmp_path):
    witness = Witness(tmp_path / "witness")
    process = go_on(tmp_path / "runs", witness)
    process.stderr.readline()  # its handlers are in place
    process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    said = finish(process, 130).strip().splitlines()
    assert said[-1].startswith("resume with: python alma.py learn --resume ")
    assert not any("Traceback" in line for line in said)
    finish(start("learn", "--resume", said[-1].split()[-1], "--plain", env=witness.environment))
    assert archive(tmp_path / "runs") == undisturbed[0]


def go_on(runs: Path, witness: Witness) -> subprocess.Popen:
    """Start the one run of a folder, or resume it."""
    runs.mkdir(exist_ok=True)
    begun = [path for path in runs.iterdir() if (path / "config.json").exists()]
    arguments = ["--resume", begun[0], "--plain"] if begun else [*RUN, "--runs", runs]
    return start("learn", *arguments, env=witness.environment)


def kill_host_often(folder: Path, kills: int = 0, seed: int = 0, seconds: float = 0.0, points=()) -> tuple[list[dict], int, int]:
    """Kill a run's host so many times, each time within so many seconds; or at these points: when so many episodes
    have been played.

    Returns the run's archive, the episodes played, and the number of kills that met the host alive.
    """
    rng, witness, met = random.Random(seed), Witness(folder / "witness"), 0
    for point in [*[None] * kills, *points]:
        process = go_on(folder / "runs", witness)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.1, 1.0) * seconds if point is None else 0.01)
        while point and process.poll() is None and witness.played() < point:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            met += 1
        process.communicate()
        if process.returncode == 0:
            return archive(folder / "runs"), witness.played(), met
    finish(go_on(folder / "runs", witness))
    return archive(folder / "runs"), witness.played(), met


def test_a_host_killed_in_the_middle_of_races_and_finalists_plays_no_finished_episode_twice(undisturbed, tmp_path):
    whole, episodes, _ = undisturbed
    search = episodes - sum(line["final"] is not None for line in whole) * 24 - 24  # then come the finalists and no memory
    lines, played, kills = kill_host_often(tmp_path, points=(episodes // 3, search - 12, episodes - 6))
    assert kills >= 2
    assert lines == whole
    assert played <= episodes + 2 * kills  # what two workers were at, or had just ended


def children(host: int, kind: str) -> list[int]:
    """A run's processes of a kind: workers are forks of the fork server and look like it."""
    found, templates = [], children(host, "template") if kind == "memory" else [host]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = stat.with_name("cmdline").read_text()
            parent, _, session = map(int, stat.read_text().rsplit(")", 1)[1].split()[1:4])
        except OSError:  # it is gone
            continue
        if kind in ("template", "memory"):  # a memory's process is a fork of the template
            right = "json.load(sys.stdin)" in command and parent in templates
        else:
            right = "forkserver" in command and session == host and (parent == host) == (kind == "fork server")
        found += [int(stat.parent.name)] if right else []
    return found


def kill_children_often(folder: Path, kinds: tuple[str, ...], kills: int, seed: int) -> tuple[list[dict], dict[str, int]]:
    """Kill so many processes of each kind while a run goes on; its archive, and how many were killed.

    More than three a run would be too many for one episode: the run would stop, to be resumed.
    """
    rng, killed = random.Random(seed), dict.fromkeys(kinds, 0)
    process = go_on(folder / "runs", Witness(folder / "witness"))
    while process.poll() is None and (left := [kind for kind in kinds if killed[kind] < kills]):
        kind = min(left, key=killed.get)
        ready = kind != "fork server" or children(process.pid, "worker")  # else it never comes to a worker
        there = children(process.pid, kind) if ready else []
        with contextlib.suppress(IndexError, ProcessLookupError):  # none there, or it has just ended
            os.kill(rng.choice(there), signal.SIGKILL)
            killed[kind] += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 0.6) if kind != "memory" else 0.001)  # it lives for a moment
    finish(process)
    return archive(folder / "runs"), killed


KINDS = (("worker", "template"), ("fork server", "memory"))  # of which a run loses some


@pytest.mark.parametrize("kinds", KINDS)
def test_processes_killed_during_a_run_change_nothing(undisturbed, tmp_path, kinds):
    lines, killed = kill_children_often(tmp_path, kinds, 3, seed=7)
    assert min(killed.values()) > 0
    assert lines == undisturbed[0]


def main(kills: int) -> None:
    """Kills at full number; prints what came of them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "whole").mkdir()
        whole, episodes, seconds = undisturbed_run(root / "whole")
        left, number = kills, 0
        while left > 0:
            number += 1
            run = root / f"host-{number}"
            run.mkdir()
            lines, played, met = kill_host_often(run, left, seed=number, seconds=seconds)
            left -= met
            again = {"killed": met, "same archive": lines == whole, "played": played, "undisturbed": episodes}
            print("host", json.dumps(again), flush=True)
        for kind in (kind for kinds in KINDS for kind in kinds):
            killed, same, number = 0, True, 0
            while killed < kills:
                number += 1
                run = root / f"{kind}-{number}"
                run.mkdir()
                lines, more = kill_children_often(run, (kind,), 3, seed=number)
                killed, same = killed + more[kind], same and lines == whole
            print(kind, json.dumps({"killed": killed, "runs": number, "same archive": same}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
