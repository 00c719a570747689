"""The sandbox works, or says in one line why not, on machines that are set up in another way."""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from errors import InfrastructureError
from sandbox import Sandbox
from tests.test_sandbox import LINUX, SHORT, Tools, design, trajectories

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not LINUX, reason="the sandbox's layers are those of Linux on x86-64")
BOTH = pytest.mark.parametrize("disable", ["", "namespaces"], ids=["all layers", "no namespaces"])

PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from sandbox import Sandbox

source = '''

from memory_base import *
class Design(MemoryDesign):
    "A docstring."
    async def general_update(self, trajectory): pass
    async def general_retrieve(self, trajectory):
        return [self.__doc__, MemoryDesign.__doc__ is not None, trajectory.init]
'''

async def main():
    async with Sandbox([]) as box, box.worker(source, None, forks=True) as worker:
        async with worker.fork(None) as fork:
            print(await fork.retrieve({"n": 1}), box.unsafe)

asyncio.run(main())
"""


def run_with(tmp_path, disable: str, prepare=None, **variables: str) -> str:
    """What the program above prints in a process for which `prepare` was called, with these variables."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ALMA_SANDBOX_DISABLE": disable, **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT)], env=environment, preexec_fn=prepare,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


WORKS = "['A docstring.', True, {'n': 1}] False\n"


@BOTH
@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_a_strict_umask_changes_nothing(tmp_path, disable, mask):
    assert run_with(tmp_path, disable, lambda: os.umask(mask)) == WORKS


@BOTH
@pytest.mark.parametrize("most", [40, 64, 256])
def test_few_descriptors_are_enough_for_one_worker(tmp_path, disable, most):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # noqa: E731
    assert run_with(tmp_path, disable, limit) == WORKS


@BOTH
def test_optimized_bytecode_and_a_long_temporary_folder_change_nothing(tmp_path, disable):
    folder = tmp_path / ("long-" * 25) / ("long-" * 25)
    folder.mkdir(parents=True)
    assert run_with(folder, disable, PYTHONOPTIMIZE="2") == WORKS
    assert os.listdir(folder) == []


@BOTH
def test_a_temporary_folder_that_is_deleted_under_a_run_is_no_fault(tmp_path, disable, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    async def go():
        async with Sandbox(trajectories(1), limits=SHORT, disable=[disable]) as box:
            shutil.rmtree(folder)
            box._template._process.kill()
            box._template._process.wait()
            said = []
            for _ in range(2):
                async with box.worker(design(retrieve="return open('x', 'w').write('1')"), Tools()) as worker:
                    said.append(await worker.retrieve({}))
            return said

    assert asyncio.run(go()) == [1, 1]


def test_no_descriptors_left_is_said_in_one_line():
    async def go():
        async with Sandbox([], limits=SHORT) as box:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)  # the first free number: the limit is one of numbers, and some below may be free
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
            try:
                async with box.worker(design(), Tools()) as worker:
                    return await worker.retrieve({})
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)

    with pytest.raises(InfrastructureError, match="ulimit -n") as raised:
        asyncio.run(go())
    assert "\n" not in str(raised.value)


def test_a_sandbox_that_could_not_start_can_be_left_twice():
    async def go():
        box = Sandbox([], limits=SHORT)
        async with box:
            pass
        await box.__aexit__()

    asyncio.run(go())

