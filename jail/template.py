"""The host's end of the template process (`jail/child.py`), which forks a jailed worker for each memory.

It promises that the template is started by exec in a clean environment and holds nothing of the host's,
that its death is noticed at once (`TemplateDied`, never a design's fault), and that nothing outlives `close`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from errors import DesignError, InfrastructureError
from jail import frames
from jail.child import RECORD

# The template gets all code from the host, so that no path leads back to the repository: there is no folder /alma.
BOOT = """
import json, linecache, os, sys, types
os.dup2(int(sys.argv.pop()), 3)
setup = json.load(sys.stdin)
sys.modules["jail"] = types.ModuleType("jail")
for name, source in setup["sources"].items():
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = file = f"/alma/{name.replace('.', '/')}.py"
    if name == "memory_base":  # tracebacks show its lines, and none of the jail
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    exec(compile(source, file, "exec"), vars(module))
sys.modules["jail.child"].main(setup)
"""
START_SECONDS = 60.0  # until a worker or the template answers
TRIES = 5  # times that work is begun whose processes are killed


class TemplateDied(InfrastructureError):
    """Something killed the template process, and with it every worker; the next worker gets a new one."""


class WorkerKilled(TemplateDied):
    """A worker was killed from outside: not by the host, a limit, or the design."""


async def outlive(work: Callable[[], Awaitable]) -> Any:
    """`await work()` again if a process of the sandbox is killed; DesignError if a worker is, each time."""
    for number in range(1, TRIES + 1):
        try:
            return await work()
        except TemplateDied as error:
            if number == TRIES:
                raise DesignError("died", str(error)) if isinstance(error, WorkerKilled) else error from None
        await asyncio.sleep(number)  # what kills one after the other may pass


class Template:
    """The host's end of the template process."""

    def __init__(self, setup: dict):
        here, sources = Path(__file__).resolve().parents[1], {}
        for name in ("memory_base", "jail.layers", "jail.child"):  # in the order in which they are run
            sources[name] = (here / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        self._control, childs = socket.socketpair()
        self._control.setblocking(False)
        self._errors = _unnamed_file()
        # As isolated as -I, which would ignore PYTHONHASHSEED too: no user site, no unsafe path, and an environment
        # that holds nothing but what stands below. Unbuffered (-u), for a design may end at any moment.
        command = [sys.executable, "-s", "-P", "-B", "-u", "-c", BOOT, str(childs.fileno())]
        environment = {
            "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/scratch", "TMPDIR": "/scratch",
            "PYTHONHASHSEED": "0",  # the same order of sets in every run
            "PYTHONIOENCODING": "utf-8:backslashreplace",  # any text can be printed
            "MALLOC_ARENA_MAX": "1",  # an arena for each thread would eat the address space
            **{f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR")},
        }
        with childs, _unnamed_file() as given:
            given.write(json.dumps({**setup, "sources": sources}).encode())
            given.seek(0)
            self._process = subprocess.Popen(
                command, stdin=given, stdout=self._errors, stderr=self._errors, cwd="/", env=environment,
                pass_fds=(childs.fileno(),), start_new_session=True)
        self._numbers = itertools.count(1)
        self._awaited: dict[tuple[bytes, int], asyncio.Future] = {}  # values by kind and number of their record
        self._dead: TemplateDied | None = None
        self._reader = asyncio.ensure_future(self._read())

    @property
    def alive(self) -> bool:
        return self._dead is None and self._process.poll() is None

    def fork(self, connection: socket.socket, output: int, forks: bool, worker: int) -> int:
        """Ask for a new worker (`forks`: to be forked), or let number `worker` fork once: the new process's number."""
        number = next(self._numbers)
        self._awaited[b"e", number] = asyncio.Future()
        record = (b"p", worker, number) if worker else (b"f", number, int(forks))
        self.send(*record, [connection.fileno(), output])
        return number

    async def cpu_seconds(self, number: int) -> float:
        """CPU time that a worker has used."""
        self.send(b"c", number)
        try:
            return await self.value(b"c", number, START_SECONDS) / 1000
        except TimeoutError:
            raise InfrastructureError("the sandbox's template process does not answer") from None
        finally:
            self._awaited.pop((b"c", number), None)

    async def bury(self, number: int) -> int:
        """Kill a worker and wait until it is gone: its exit code. A template that cannot do that goes too."""
        try:
            self.send(b"k", number)
            return await self.value(b"e", number, START_SECONDS)
        except TimeoutError:
            self._process.kill()
            raise TemplateDied("the sandbox's template process could not end a worker") from None
        finally:
            self._awaited.pop((b"e", number), None)

    async def value(self, kind: bytes, number: int, seconds: float) -> int:
        """Wait for a record: b"e" a process's exit code, minus the signal that ended it, or WROTE; b"c" its CPU ms."""
        if self._dead is not None:
            raise self._dead
        future = self._awaited.setdefault((kind, number), asyncio.Future())
        return await asyncio.wait_for(asyncio.shield(future), seconds)

    def send(self, kind: bytes, number: int, value: int = 0, descriptors: Sequence[int] = ()) -> None:
        """Ask for something: b"k" kills a worker, b"t" has it print where it is; the others have methods above."""
        try:
            if self._dead is None:
                socket.send_fds(self._control, [RECORD.pack(kind, number, value)], descriptors)
        except OSError as error:
            self._died(f"cannot be reached: {error}")
        if self._dead is not None:
            raise self._dead

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._control, RECORD.size):
                kind, number, value = RECORD.unpack(data)
                if (future := self._awaited.get((kind, number))) is not None and not future.done():
                    future.set_result(value)
        self._died("ended")

    def _died(self, how: str) -> None:
        if self._dead is None:
            self._errors.seek(0)
            said = frames.clean_trace(self._errors.read(1 << 16).decode(errors="replace"))[-2000:].strip()
            self._dead = TemplateDied(f"the sandbox's template process {how}: {said or 'it said nothing'}")
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(self._dead)
                future.exception()  # no warning where nobody waits for it

    async def close(self) -> None:
        """End the template and with it every worker: it leaves when the host hangs up."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # other children of this process may hold a copy of the socket
        self._control.close()
        self._died("was closed")
        try:
            await asyncio.to_thread(self._process.wait, 10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        # If the template was killed and there are no namespaces, forks of workers are left in its session.
        for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[3]) == self._process.pid:
                    os.kill(int(name), signal.SIGKILL)
        self._errors.close()


def _unnamed_file():
    """A temporary file, on Linux in memory: the temporary folder may be gone or full."""
    return open(os.memfd_create("alma"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()
