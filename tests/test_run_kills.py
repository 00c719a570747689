"""Runs that are killed, again and again: nothing done is lost, none of it is paid for twice."""

import contextlib
import os
import random
import select
import signal
import subprocess
from pathlib import Path

from models.store import Store
from tests.endpoint import ROLES, ModelServer
from tests.runs import TOY, archive, descendants, finish, folder, models, played, rows, start, writes_notes

KILLS, IN_FLIGHT = 12, 4
RUN = [*TOY, "--in-flight", str(IN_FLIGHT), *(part for role in ROLES for part in ("--price", f"{role}=3,1,2"))]


class Killer:
    """Kills a process with SIGKILL and can tell when all that was below it has ended."""

    def __init__(self, process):
        self._process, self._below = process, []  # file descriptors of processes

    def __call__(self) -> None:
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                self._below.append(os.pidfd_open(pid))
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def wait_for_the_others(self) -> None:
        """The fork server, workers, the sandbox's template and its workers must notice by themselves."""
        for descriptor in self._below:
            ended, _, _ = select.select([descriptor], [], [], 20)
            os.close(descriptor)
            assert ended, "a process outlives its host"


def test_a_run_killed_at_a_dozen_random_points_ends_in_the_same_archive_and_asks_nothing_twice(tmp_path):
    whole, killed, rng = tmp_path / "whole", tmp_path / "killed", random.Random(4)
    with ModelServer(writes_notes) as server:
        finish(start("learn", *RUN, *models(server), "--runs", whole))
        events = server.events
    with ModelServer(writes_notes) as server:
        first = ["learn", *RUN, *models(server), "--runs", killed]
        for number in range(KILLS):
            process = start(*(["learn", "--resume", folder(killed), "--plain"] if _begun(killed) else first))
            killer = Killer(process)
            if number % 4:  # in the middle of something: a request has come, an answer was sent
                server.at = {server.events + rng.randrange(1, events // KILLS * 2): killer}
                process.communicate(timeout=300)
            else:  # on its way up, or while it catches up
                _wait(process, rng.uniform(0.1, 1.5))
                killer()
                process.communicate()
            assert process.returncode in (-signal.SIGKILL, 0)
            killer.wait_for_the_others()
            _check_store(killed)
        server.at = {}
        finish(start("learn", "--resume", folder(killed), "--plain"))
        answered = sum(server.stats()["answered"].values())
    assert archive(killed) == archive(whole) and played(killed) == played(whole)
    kept = rows(killed, "select count(*) from calls")[0][0]
    print(f"{answered} answers, {kept} kept, {answered - kept} lost in {KILLS} kills")
    assert answered - kept <= KILLS * IN_FLIGHT


def _begun(runs: Path) -> bool:
    return runs.is_dir() and any((path / "config.json").is_file() for path in runs.iterdir())


def _wait(process, seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _check_store(runs: Path) -> None:
    """What a kill leaves can be read."""
    if _begun(runs) and (folder(runs) / "store.sqlite").exists():
        Store(folder(runs) / "store.sqlite").close()
