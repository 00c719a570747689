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
from collections.abc import Sequence
from typing import Any

from errors import InfrastructureError
from jail import frames
from jail.child import RECORD

BOOT = """
import json, sys, types
setup = json.load(sys.stdin)
child = sys.modules["jail.child"] = types.ModuleType("jail.child")
exec(compile(setup["sources"]["jail.child"], "/alma/jail/child.py", "exec"), vars(child))
child.main(setup, int(sys.argv.pop()))
"""  # the template gets all code from the host, so that no path leads back to the repository
CLOSE_SECONDS = 10.0  # that the template has to end by itself
START_SECONDS = 60.0  # until the template or a worker answers for the first time


class TemplateDied(InfrastructureError):
    """Something killed the template process, and with it every worker; the next worker gets a new one."""


class Template:
    """The host's end of the template process."""

    def __init__(self, process: subprocess.Popen, control: socket.socket, errors: Any):
        self._process, self._control, self._errors = process, control, errors
        self._numbers = itertools.count(1)
        self._exits: dict[int, asyncio.Future] = {}  # worker's number: exit code, -1 for no answer
        self._cpu: dict[int, float] = {}  # last known CPU seconds of a worker
        self._cpu_asked: dict[int, asyncio.Future] = {}
        self.created: set[int] = set()  # forked workers that, or a fork of which, tried to create a file
        self._reader = asyncio.ensure_future(self._read())
        self.alive = True
        self.ready: asyncio.Future = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, setup: dict) -> "Template":
        control, childs = socket.socketpair()
        errors = _unnamed_file()
        # As isolated as -I, which would ignore PYTHONHASHSEED too: no user site, no unsafe path, and
        # an environment that holds nothing but what stands below.
        command = [sys.executable, "-s", "-P", "-B", "-c", BOOT, str(childs.fileno())]
        environment = {
            "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/scratch", "TMPDIR": "/scratch",
            "PYTHONHASHSEED": "0",  # the same order of sets in every run
            "MALLOC_ARENA_MAX": "1",  # an arena for each thread would eat the address space
            **{f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR")},
        }
        with childs, _unnamed_file() as given:
            given.write(json.dumps(setup).encode())
            given.seek(0)
            process = subprocess.Popen(
                command, stdin=given, stdout=errors, stderr=errors, cwd="/", env=environment,
                pass_fds=(childs.fileno(),), start_new_session=True,
            )
        control.setblocking(False)
        template = cls(process, control, errors)
        try:
            await asyncio.wait_for(asyncio.shield(template.ready), START_SECONDS)
        except BaseException as error:
            await template.close()
            late = InfrastructureError(f"the sandbox's template did not start in {START_SECONDS} s")
            raise (late if isinstance(error, TimeoutError) else error) from None
        return template

    async def _read(self) -> None:
        loop, data = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError):
            while received := await loop.sock_recv(self._control, 1 << 16):
                data += received
                while len(data) >= RECORD.size:
                    self._take(*RECORD.unpack(data[: RECORD.size]))
                    data = data[RECORD.size :]
        self._died()

    def _take(self, kind: bytes, number: int, value: int) -> None:
        if kind == b"r":
            self.ready.set_result(None)
        elif kind == b"e" and number in self._exits:
            self._exits[number].set_result(value)
        elif kind == b"c" and value >= 0:
            self._cpu[number] = value / 1000
        elif kind == b"w":
            self.created.add(number)
        if kind == b"c" and number in self._cpu_asked:
            self._cpu_asked.pop(number).set_result(None)

    def _died(self) -> None:
        self.alive = False
        self._errors.seek(0)
        said = frames.clean_trace(self._errors.read(1 << 16).decode(errors="replace"))[-2000:].strip()
        error = TemplateDied(f"the sandbox's template process ended: {said or 'it said nothing'}")
        for future in [self.ready, *self._exits.values(), *self._cpu_asked.values()]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # no warning where nobody waits for it

    def fork(self, connection: socket.socket, output: int, forks: bool, worker: int) -> int:
        """Ask for a new worker (`worker` 0) or let a worker fork once; returns the new process's number.

        The process gets these descriptors. `forks`: whether a new worker is to be forked.
        """
        number = next(self._numbers)
        self._exits[number] = asyncio.get_running_loop().create_future()
        record = (b"p", worker, number) if worker else (b"f", number, int(forks))
        self._send(*record, [connection.fileno(), output])
        return number

    def kill(self, number: int) -> None:
        if self.alive and number in self._exits and not self._exits[number].done():
            self._send(b"k", number)

    def ask_for_trace(self, number: int) -> None:
        """Have a worker print where it is."""
        self._send(b"t", number)

    async def exit_code(self, number: int, seconds: float) -> int:
        """Wait for a worker's end: its exit code, or minus the signal that ended it."""
        return await asyncio.wait_for(asyncio.shield(self._exits[number]), seconds)

    async def cpu_seconds(self, number: int) -> float:
        """CPU time that a worker has used."""
        asked = self._cpu_asked.setdefault(number, asyncio.get_running_loop().create_future())
        self._send(b"c", number)
        try:
            await asyncio.wait_for(asyncio.shield(asked), START_SECONDS)
        except TimeoutError:
            raise InfrastructureError("the sandbox's template process does not answer") from None
        return self.last_cpu_seconds(number)

    def last_cpu_seconds(self, number: int) -> float:
        return self._cpu.get(number, 0.0)

    async def bury(self, number: int) -> None:
        """Kill a worker and wait until it is gone; a template that cannot do that goes too."""
        self.kill(number)
        try:
            await self.exit_code(number, START_SECONDS)
        except TimeoutError:
            self._process.kill()
        finally:
            for kept in (self._exits, self._cpu, self._cpu_asked):
                kept.pop(number, None)

    def _send(self, kind: bytes, number: int, value: int = 0, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [RECORD.pack(kind, number, value)], descriptors)
        except OSError as error:
            self.alive = False
            raise TemplateDied(f"the sandbox's template process cannot be reached: {error}") from error

    async def close(self) -> None:
        """End the template and with it every worker: it leaves when the host hangs up."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(InfrastructureError):
            self._send(b"q", 0)  # other children of this process may hold a copy of the socket
        self._control.close()
        self._died()
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_SECONDS)
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
