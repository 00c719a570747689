"""The pool of this machine's processes: order, and the death of a worker. Real processes."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from errors import InfrastructureError
from harness.pool import Pool
from tests.toy import Doors

ROOT = Path(__file__).resolve().parents[1]
TOY = "tests.toy:Doors"
KILLED_HOST = """
import asyncio, os, signal, sys
from harness.pool import Pool
from tests.test_pool import leave_a_folder

async def main():
    pool = Pool("tests.test_pool:Loaded", 1)
    print(*await pool.run(leave_a_folder), flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


class Loaded(Doors):
    """A domain that notes which process has loaded it."""

    @classmethod
    def load(cls):
        os.environ["LOADED_BY"] = str(os.getpid())


def in_pool(workers: int, work):
    """What `await work(pool)` says."""

    async def go():
        pool = Pool(TOY, workers)
        try:
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(go())


def test_of_those_that_wait_the_longest_starts_first():
    async def work(pool):
        lengths = (0, 2, 3, 1)  # the first finds a free worker
        return await asyncio.gather(*(pool.run(time.monotonic, length=length) for length in lengths))

    first, two, three, one = in_pool(1, work)
    assert first < three < two < one


def die_once(witness: str) -> str:
    """Take the worker with it, the first time."""
    try:
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "played again"
    os.kill(os.getpid(), signal.SIGKILL)


def outlive(witness: str) -> int:
    """Be at work when the other worker dies."""
    while not os.path.exists(witness):
        pass
    return os.getpid()


def test_a_worker_that_dies_takes_no_other_with_it_and_its_work_is_done_again(tmp_path):
    async def work(pool):
        witness = str(tmp_path / "witness")
        workers = set(await asyncio.gather(pool.run(os.getpid), pool.run(os.getpid)))
        survivor, again = await asyncio.gather(pool.run(outlive, witness), pool.run(die_once, witness))
        return survivor in workers, again

    assert in_pool(2, work) == (True, "played again")


def test_what_kills_every_worker_stops_the_run_and_is_no_score():
    with pytest.raises(InfrastructureError, match="workers died"):
        in_pool(1, lambda pool: pool.run(os._exit, 1))


def test_an_error_of_the_work_itself_is_raised_and_the_worker_lives():
    async def work(pool):
        worker = await pool.run(os.getpid)
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 1, 0)
        return worker, await pool.run(os.getpid)

    before, after = in_pool(1, work)
    assert before == after


def leave_a_folder() -> tuple[str, int, bool]:
    """What an engine that is never closed leaves; by whom; whether the parent has loaded the domain."""
    return tempfile.mkdtemp(), os.getpid(), os.environ.get("LOADED_BY") == str(os.getppid())


def test_what_workers_leave_in_the_temporary_folder_goes_with_the_pool(tmp_path):
    async def work(pool):
        left, _, _ = await pool.run(leave_a_folder)
        assert os.path.isdir(left)
        return left

    left = Path(in_pool(1, work))
    assert not left.exists() and not left.parent.exists()


def test_what_a_killed_host_leaves_is_removed_and_its_domain_was_loaded_once_for_all_workers(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED_HOST]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        left, worker, loaded = host.stdout.readline().split()
        assert Path(left).is_dir() and tmp_path in Path(left).parents
        ended = os.pidfd_open(int(worker))
        host.communicate("\n")
    assert host.returncode == -signal.SIGKILL and loaded == "True"
    assert select.select([ended], [], [], 20)[0], "a worker outlives its host"
    os.close(ended)
    assert not list(tmp_path.iterdir())
