"""A Dask cluster of real processes plays the episodes: same archive as locally, whatever happens to it."""

import os
import signal
import subprocess
import sys

import pytest

from errors import InfrastructureError
from harness.pool import in_worker
from harness.run_folder import fingerprint
from tests.endpoint import ModelServer
from tests.runs import ROOT, TOY, archive, finish, models, start

WORKERS = 3
FEW = [*TOY, "--steps", "2"]


class Machines:
    """A scheduler and workers of one thread each, as the README starts them."""

    def __init__(self, folder):
        self._folder, self._workers = folder, []
        self._scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", until="Scheduler at:")

    def start_workers(self, number: int) -> None:
        """Start those that are missing."""
        workers = ["--nthreads", "1", "--no-nanny", "--local-directory", self._folder]
        while len(self._workers) < number:
            self._workers.append(self._start("worker", self.address, *workers, until="Registered to"))

    def _start(self, *arguments, until: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *map(str, arguments), "--no-dashboard"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in process.stderr:
            if until in line:
                self.address = line.split()[-1] if arguments[0] == "scheduler" else self.address
                return process
        raise AssertionError(f"dask {arguments[0]} ended with {process.wait()}")

    def kill_worker(self) -> None:
        self._end(self._workers.pop())

    def kill_scheduler(self) -> None:
        self._end(self._scheduler)

    @staticmethod
    def _end(process: subprocess.Popen) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def close(self) -> None:
        for process in (*self._workers, self._scheduler):
            self._end(process) if process.returncode is None else None


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """One cluster for all tests: to start a worker costs as much as a run. What a test leaves, the next one uses."""
    pytest.importorskip("distributed", reason="needs requirements-dask.txt")
    cluster = Machines(tmp_path_factory.mktemp("machines"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def archived_here(tmp_path_factory) -> list[dict]:
    runs = tmp_path_factory.mktemp("runs")
    finish(start("learn", *FEW, "--runs", runs))
    return archive(runs)


def wait_for(process: subprocess.Popen, words: str) -> None:
    """Read what a run says until it says `words`."""
    assert any(words in line for line in process.stderr), f"the run ended without {words!r}"


def test_a_cluster_gives_the_archive_that_this_machine_gives(machines, tmp_path, archived_here):
    machines.start_workers(WORKERS)
    said = finish(start("learn", *FEW, "--runs", tmp_path / "there", "--scheduler", machines.address))
    assert f"episodes go to {machines.address}: {WORKERS} workers" in said
    assert archive(tmp_path / "there") == archived_here


def test_a_worker_killed_while_models_answer_changes_nothing(machines, tmp_path):
    machines.start_workers(WORKERS)
    with ModelServer(latency=0.05) as server:
        agent = models(server, "agent")
        finish(start("learn", *FEW, *agent, "--runs", tmp_path / "here"))
        run = start("learn", *FEW, *agent, "--runs", tmp_path / "there", "--scheduler", machines.address)
        for line in ("1.1 evaluate", "2.1 evaluate"):  # two of three workers: the last one does all
            wait_for(run, line)
            machines.kill_worker()
        finish(run)
    assert archive(tmp_path / "there") == archive(tmp_path / "here")


def test_without_its_scheduler_a_run_stops_and_goes_on_elsewhere(machines, tmp_path, archived_here):
    machines.start_workers(1)
    run = start("learn", *FEW, "--runs", tmp_path / "there", "--scheduler", machines.address)
    wait_for(run, "1.1 evaluate")
    machines.kill_scheduler()
    said = finish(run, 3).strip().splitlines()
    assert said[-2].startswith("alma: stopped: ") and machines.address in said[-2]
    finish(start("learn", "--resume", said[-1].split()[-1], "--scheduler", "", "--plain"))
    assert archive(tmp_path / "there") == archived_here


def test_a_scheduler_that_cannot_be_used_is_one_line_and_code_2(tmp_path):
    pytest.importorskip("distributed", reason="needs requirements-dask.txt")
    flags = ["--runs", tmp_path, "--scheduler"]
    for address, why in (("tcp://127.0.0.1:9", "no Dask scheduler answers"), ("host:8786", "is no address")):
        said = finish(start("learn", *FEW, *flags, address), 2)
        assert said.count("\n") == 1 and why in said


def test_without_dask_a_scheduler_is_one_line_and_code_2(tmp_path):
    arguments = ["learn", *FEW, "--runs", str(tmp_path), "--scheduler", "tcp://127.0.0.1:9"]
    code = f"import sys; sys.modules['distributed'] = None; from harness.cli import main; sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "requirements-dask.txt" in done.stderr


def test_a_worker_with_other_code_plays_nothing():
    assert in_worker(fingerprint(), len, "four") == 4
    with pytest.raises(InfrastructureError, match="another version"):
        in_worker("other", len, "four")
