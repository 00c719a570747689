"""Runs memory designs, which are code that nobody has read, in jailed child processes.

It promises that a design cannot read the host's environment, keys, files or other designs; open a
socket; write outside a small scratch folder; start a process; signal, trace or outlive the host;
use more memory, CPU time, threads, descriptors or output than `Limits` says; or hang a call past
its deadline. A design talks to the host in length-prefixed JSON over one socket pair. Whatever it
sends cannot crash, block or bloat the host, and it never holds what its score is computed from.

It does not promise that two designs take the same time, nor that a design's own files or threads
behave as outside; it is no defence against a hole in the kernel. Layers that are missing are
named, and without the needed ones nothing runs unless `unsafe` is given.

Five files: this one is the host's side, `sandbox_frames.py` judges what comes in, `sandbox_layers.py`
builds the jail, `sandbox_child.py` is what runs in it, `sandbox_state.py` keeps what was learned. Try it: `python alma.py check baselines/no_memory.py --json`.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sandbox_frames as frames
from endpoints import FairSlots
from errors import DesignError, InfrastructureError, UserError
from memory_base import Trajectory
from sandbox_frames import Limits

HERE = Path(__file__).resolve().parent
RECORD = struct.Struct("!cQq")  # control socket: kind, worker's number, value
BOOT = """
import json, sys, types
setup = json.load(sys.stdin)
child = sys.modules["sandbox_child"] = types.ModuleType("sandbox_child")
exec(compile(setup["sources"]["sandbox_child"], "/alma/sandbox_child.py", "exec"), vars(child))
child.main(setup, int(sys.argv.pop()))
"""  # the template gets all code from the host, so that no path leads back to the repository
CLOSE_SECONDS = 10.0  # that the template has to end by itself
REBUILDS = 5  # times that work is done again for a template process that was killed
START_SECONDS = 60.0  # until the template or a worker answers for the first time
TRACE_SECONDS = 0.1  # that a worker has to print where it hangs
ERROR_CHARS = 8_000  # of a design's traceback that are kept


class TemplateDied(InfrastructureError):
    """Something killed the template process, and with it every worker; the next worker gets a new one."""


async def outlive(work: Callable[[], Awaitable]) -> Any:
    """`await work()`, from its start again where the template process is killed meanwhile."""
    for number in range(1, REBUILDS):
        with contextlib.suppress(TemplateDied):
            return await work()
        await asyncio.sleep(number)  # what kills one after the other may pass
    return await work()


class Sandbox:
    """Starts workers for designs that learn from `trajectories`; use with `async with`.

    `layers`: names of the layers that hold. `unsafe`: True where a needed one is missing. `disable`
    names layers to leave out ("namespaces", "landlock", "seccomp"), for tests and for bug hunting;
    the environment variable ALMA_SANDBOX_DISABLE does the same. Raises UserError where a needed
    layer is missing and `unsafe` is not given.
    """

    def __init__(self, trajectories: Sequence[Trajectory] = (), *, limits: Limits | None = None,
                 unsafe: bool = False, max_workers: int = 16, disable: Iterable[str] = ()):
        self.limits, self.layers = limits or Limits(), []
        self.unsafe = False
        self._trajectories = [_dump(trajectory) for trajectory in trajectories]
        self._allow_unsafe = unsafe
        self._disable = {*disable, *os.environ.get("ALMA_SANDBOX_DISABLE", "").replace(",", " ").split()}
        self._slots, self._starting = FairSlots(max_workers), asyncio.Lock()  # shared by designs
        self._template: _Template | None = None

    async def __aenter__(self) -> "Sandbox":
        try:
            self.layers = await outlive(self._first_layers)
            self._judge_layers()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception) -> None:
        if self._template is not None:
            await self._template.close()

    async def _first_layers(self) -> list[str]:
        async with self._jail(tools=None) as worker:
            return worker.layers

    @contextlib.asynccontextmanager
    async def worker(self, source: str, tools: Any) -> AsyncIterator["Worker"]:
        """A fresh worker with the design loaded; it ends with the block. Raises DesignError.

        `tools` has `async ask(system, user, schema, model) -> str` and `async embed(texts)`; what
        these raise comes out of the worker's methods.
        """
        async with self._slots.slot(source), self._jail(tools) as worker:
            await worker.load(source)
            yield worker

    @contextlib.asynccontextmanager
    async def _jail(self, tools: Any) -> AsyncIterator["Worker"]:
        """A worker that has locked itself down and holds no design yet."""
        worker = await self._fork(tools)
        try:
            yield worker
        finally:
            await worker.close()

    async def _fork(self, tools: Any) -> "Worker":
        """A worker; a template that has died is started again, once."""
        for attempt in (1, 2):
            template = await self._live_template()
            worker = Worker(template, tools, self.limits, len(self._trajectories))
            try:
                await worker.start()
                if self.layers and worker.layers != self.layers:
                    raise InfrastructureError(f"a worker holds {worker.layers}, the first one held {self.layers}")
                return worker
            except BaseException as error:
                await worker.close()
                if not isinstance(error, InfrastructureError) or attempt == 2 or template.alive:
                    raise
        raise AssertionError("not reached")

    async def _live_template(self) -> "_Template":
        async with self._starting:
            if self._template is not None and not self._template.alive:
                await self._template.close()
                self._template = None
            if self._template is None:
                self._template = await _Template.start(self._setup())
            return self._template

    def _setup(self) -> dict:
        names = ("memory_base", "sandbox_layers", "sandbox_state", "sandbox_child")
        sources = {name: (HERE / f"{name}.py").read_text(encoding="utf-8") for name in names}
        return {"trajectories": self._trajectories, "limits": dataclasses.asdict(self.limits),
                "disable": sorted(self._disable), "sources": sources, "host": os.getpid(),
                "temporary": tempfile.gettempdir()}

    def _judge_layers(self) -> None:
        held = {name.split()[0] for name in self.layers}
        missing = []
        if not held & {"landlock", "namespaces"}:
            missing.append("Landlock (or user and mount namespaces)")
        if "seccomp" not in held:
            missing.append("seccomp")
        if missing and not self._allow_unsafe:
            raise UserError(
                f"the sandbox lacks {' and '.join(missing)} on this system, so a design could reach your files "
                "and keys; use Linux 5.13 or newer on x86-64, or give --unsafe-sandbox to run it anyway"
            )
        self.unsafe = bool(missing)


class _Template:
    """The host's end of the template process."""

    def __init__(self, process: subprocess.Popen, control: socket.socket, errors: Any):
        self._process, self._control, self._errors = process, control, errors
        self._numbers = itertools.count(1)
        self._exits: dict[int, asyncio.Future] = {}  # worker's number: exit code, -1 for no answer
        self._cpu: dict[int, float] = {}  # last known CPU seconds of a worker
        self._cpu_asked: dict[int, asyncio.Future] = {}
        self._reader: asyncio.Task | None = None
        self.alive = True
        self.ready: asyncio.Future = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, setup: dict) -> "_Template":
        control, childs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the template
        with childs, tempfile.TemporaryFile() as given:
            given.write(json.dumps(setup).encode())
            given.seek(0)
            process = subprocess.Popen(
                _command(childs.fileno()), stdin=given, stdout=errors, stderr=errors, cwd="/",
                env=_clean_environment(), pass_fds=(childs.fileno(),), start_new_session=True,
            )
        template = cls(process, control, errors)
        control.setblocking(False)
        template._reader = asyncio.ensure_future(template._read())
        try:
            await asyncio.wait_for(asyncio.shield(template.ready), START_SECONDS)
        except TimeoutError:
            await template.close()
            raise InfrastructureError(f"the sandbox's template did not start in {START_SECONDS} s") from None
        except BaseException:
            await template.close()
            raise
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
        if kind == b"c" and number in self._cpu_asked:
            self._cpu_asked.pop(number).set_result(None)

    def _died(self) -> None:
        self.alive = False
        self._errors.seek(0)
        said = frames.clean(self._errors.read(1 << 16).decode(errors="replace"))[-2000:].strip()
        error = TemplateDied(f"the sandbox's template process ended: {said or 'it said nothing'}")
        for future in [self.ready, *self._exits.values(), *self._cpu_asked.values()]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # looked at, whoever waits for it or not

    def fork(self, connection: socket.socket, output: int) -> int:
        """Ask for a worker with these two descriptors; its number."""
        number = next(self._numbers)
        self._exits[number] = asyncio.get_running_loop().create_future()
        self._send(b"f", number, [connection.fileno(), output])
        return number

    def kill(self, number: int) -> None:
        if self.alive and number in self._exits and not self._exits[number].done():
            self._send(b"k", number)

    def ask_for_trace(self, number: int) -> None:
        """Have a worker print where it is."""
        self._send(b"t", number)

    async def exit_code(self, number: int, seconds: float) -> int:
        """Waits for a worker's end: its exit code, or minus the signal that ended it."""
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

    def _send(self, kind: bytes, number: int, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [RECORD.pack(kind, number, 0)], descriptors)
        except OSError as error:
            raise TemplateDied(f"the sandbox's template process cannot be reached: {error}") from error

    async def close(self) -> None:
        """End the template and with it every worker: it leaves when the host hangs up."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(InfrastructureError):
            self._send(b"q", 0)  # for other children of this process may hold a copy of the socket
        self._control.close()
        self._died()
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._errors.close()


class Worker:
    """The host's end of one worker. Its methods raise DesignError for all that is the design's fault."""

    def __init__(self, template: _Template, tools: Any, limits: Limits, trajectories: int):
        self._template, self._tools, self.limits = template, tools, limits
        self._trajectories = trajectories
        self.layers: list[str] = []
        self.seconds = 0.0  # time spent in calls, waiting for models included
        self._number, self._loop = 0, asyncio.get_running_loop()
        self._turn, self._writing = asyncio.Lock(), asyncio.Lock()
        self._slots = asyncio.Semaphore(limits.parallel)
        self._numbers = itertools.count(1)
        self._pending: tuple[int, asyncio.Future] | None = None  # the command that the worker is at
        self._hello: asyncio.Future = self._loop.create_future()
        self._end: BaseException | None = None  # why no more commands are taken
        self._tasks: set[asyncio.Task] = set()
        self._calls = 0  # model calls during the present command
        self._judge = frames.judge_retrieved  # looks at the present command's answer
        self._clock = frames.Stopwatch()
        self._reading: asyncio.Task | None = None
        self._stream: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._output = frames.Output(limits, self._flooded)

    # ------------------------------------------------------------------ what the evaluation calls

    async def update(self, trajectory: int | Trajectory) -> None:
        """Let the design learn from a trajectory, or from one that the sandbox was started with."""
        if isinstance(trajectory, Trajectory):
            trajectory = dataclasses.asdict(trajectory)
        await self._command("update", trajectory=trajectory)

    async def learn(self) -> None:
        """Let the design learn from all trajectories that the sandbox was started with, in order."""
        for index in range(self._trajectories):
            await self.update(index)

    async def retrieve(self, init: dict) -> Any:
        """What the design says of a new task: a JSON value within the limits."""
        return await self._command("retrieve", init=init)

    async def save(self) -> str | None:
        """What the design has learned, for `restore`; None where it cannot be kept whole."""
        return await self._command("save")

    async def restore(self, state: str) -> None:
        """Bring the design that was just loaded to what `save` of another worker returned."""
        await self._command("restore", state=state)

    async def load(self, source: str) -> None:
        await self._command("load", source=source)

    @property
    def output(self) -> str:
        """What the design wrote to stdout and stderr so far, cut, without control characters."""
        return self._output.text()

    # ------------------------------------------------------------------------------ start and end

    async def start(self) -> None:
        """Have the process forked and locked down."""
        here, there = socket.socketpair()
        try:
            with there, self._output.writing_end() as output:
                self._number = self._template.fork(there, output)
        except InfrastructureError:
            here.close()
            raise
        self._stream, self._writer = await asyncio.open_connection(sock=here, limit=1 << 16)
        self._reading = asyncio.ensure_future(self._read())
        try:
            hello = await asyncio.wait_for(self._hello, START_SECONDS)
        except TimeoutError:
            raise InfrastructureError(f"a worker of the sandbox did not start in {START_SECONDS} s") from None
        except DesignError as error:  # no design is loaded yet
            raise InfrastructureError(f"a worker of the sandbox did not start: {error}") from None
        if hello.get("op") != "hello":
            raise InfrastructureError(f"a worker of the sandbox could not lock itself down: {hello.get('error')}")
        self.layers = hello["layers"]

    async def close(self) -> None:
        """End the process, whatever it is at, and wait until it is gone."""
        self._stop(InfrastructureError("the worker has been closed"))
        tasks = [*self._tasks, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._number:
            with contextlib.suppress(InfrastructureError):
                await self._template.bury(self._number)
        if self._writer is not None:
            self._writer.transport.abort()
        self._output.close()

    def _stop(self, error: BaseException) -> None:
        """Take no more commands, fail the present one with `error`, kill the process."""
        if self._end is None:
            self._end = error
        if self._number:
            with contextlib.suppress(InfrastructureError):
                self._template.kill(self._number)
        for future in (self._hello, self._pending[1] if self._pending else self._hello):
            if not future.done():
                future.set_exception(error)
                future.exception()

    def _flooded(self) -> None:
        self._stop(DesignError("flood", f"more than {self.limits.flood_bytes} bytes on stdout and stderr"))

    # ----------------------------------------------------------------------------------- commands

    async def _command(self, op: str, **fields: Any) -> Any:
        async with self._turn:
            if self._end is not None:
                raise self._end
            number, future = next(self._numbers), self._loop.create_future()
            self._pending, self._calls, started = (number, future), 0, time.monotonic()
            self._judge = frames.judge_state if op == "save" else frames.judge_retrieved
            self._clock.restart()
            try:
                await self._write(frames.pack({"op": op, "id": number, **fields}))
                return await self._watched(future, op)
            except asyncio.CancelledError:
                self._stop(InfrastructureError("the call was cancelled"))
                raise
            finally:
                self._pending = None
                self.seconds += time.monotonic() - started

    async def _watched(self, future: asyncio.Future, op: str) -> Any:
        """The answer to a command; ends the worker when its time is up."""
        limits, used_before = self.limits, None
        look = min(1.0, limits.cpu_seconds / 4, limits.wall_seconds / 4)
        while True:
            done, _ = await asyncio.wait({future}, timeout=look)
            if done:
                return future.result()
            used = await self._template.cpu_seconds(self._number)
            used_before = used if used_before is None else used_before
            if used - used_before > limits.cpu_seconds:
                await self._time_out(f"{op} used more than {limits.cpu_seconds:g} s of CPU time")
            elif self._clock.seconds() > limits.wall_seconds:
                await self._time_out(f"{op} took more than {limits.wall_seconds:g} s")

    async def _time_out(self, message: str) -> None:
        """End the worker, and say what it was at."""
        self._template.ask_for_trace(self._number)
        await asyncio.sleep(TRACE_SECONDS)
        self._stop(DesignError("timeout", f"{message}\n{self._output.last_words()}".strip()))

    async def _write(self, frame: bytes) -> None:
        """Send a frame; a worker that does not read it in time is ended."""
        async with self._writing:
            self._writer.write(frame)
            try:
                async with asyncio.timeout(self.limits.io_seconds):
                    await self._writer.drain()
            except TimeoutError:
                self._stop(DesignError("timeout", f"it did not read for {self.limits.io_seconds:g} s"))
            except ConnectionError:
                pass  # the reading side finds out how the process ended

    # ------------------------------------------------------------------------- what the child says

    async def _read(self) -> None:
        """Read frames until the connection ends; anything wrong with one ends the worker."""
        try:
            while self._end is None:
                header = await self._stream.readexactly(frames.LENGTH.size)
                async with asyncio.timeout(self.limits.io_seconds):
                    body = await self._stream.readexactly(frames.length(header, self.limits))
                await self._take(frames.parse(body, self.limits))
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._hung_up()
        except TimeoutError:
            self._stop(DesignError("protocol", f"a message was not complete after {self.limits.io_seconds:g} s"))
        except DesignError as error:
            self._stop(error)

    async def _hung_up(self) -> None:
        """The connection is closed: say how the process ended; if it has not, it will now."""
        try:
            code = await self._template.exit_code(self._number, 1.0)
        except TimeoutError:
            self._stop(DesignError("died", "the process closed its connection to the host"))
        except InfrastructureError as error:
            self._stop(error)
        else:
            if self._template.last_cpu_seconds(self._number) >= self.limits.life_cpu_seconds - 1:
                used = f"all calls together used {self.limits.life_cpu_seconds} s of CPU time"
                self._stop(DesignError("timeout", used))
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
            self._stop(DesignError("died", f"the process {how}\n{self._output.last_words()}".strip()))

    async def _take(self, message: dict) -> None:
        op = message.get("op")
        if not self._hello.done():
            self._hello.set_result(message)  # no design is loaded yet: this is our own code
        elif op in ("done", "fail"):
            self._take_answer(message)
        elif op in ("ask", "embed"):
            await self._take_request(op, message)
        else:
            raise DesignError("protocol", f"a message of no known kind: {frames.clean(str(op))[:80]}")

    def _take_answer(self, message: dict) -> None:
        number = message.get("id")
        if self._pending is None or type(number) is not int or number != self._pending[0]:
            raise DesignError("protocol", f"an answer to a call that was never made: {str(number)[:80]}")
        future = self._pending[1]
        if future.done():
            raise DesignError("protocol", "two answers to one call")
        try:
            if message["op"] == "done":
                future.set_result(self._judge(message.get("value"), self.limits))
            else:
                status = "invalid" if message.get("status") == "invalid" else "error"
                raise DesignError(status, frames.clean(str(message.get("error")))[:ERROR_CHARS])
        except DesignError as error:
            future.set_exception(error)

    async def _take_request(self, op: str, message: dict) -> None:
        self._calls += 1
        if self._calls > self.limits.calls:
            raise DesignError("budget", f"more than {self.limits.calls} model calls in one call of the design")
        number = message.get("id")
        if type(number) is not int:
            raise DesignError("protocol", f"a request without a number: {str(number)[:80]}")
        await self._slots.acquire()  # until then nothing more is read: the worker has to wait
        task = asyncio.ensure_future(self._serve(op, number, message))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _serve(self, op: str, number: int, message: dict) -> None:
        """Answer one model call of the design."""
        try:
            message, problem = self._judge_request(op, message)
            if problem is not None:
                answer = {"op": "refuse", "id": number, "error": problem}
            else:
                with self._clock.paused():
                    value = await self._call_tool(op, message)
                answer = {"op": "answer", "id": number, "value": value}
            frame = frames.pack(answer)
        except Exception as error:
            self._stop(error)  # whatever the tools raise comes out of the call that is under way
        else:
            await self._write(frame)

    async def _call_tool(self, op: str, message: dict) -> Any:
        if op == "embed":
            return await self._tools.embed(message["texts"])
        return await self._tools.ask(*(message[name] for name in ("system", "user", "schema", "model")))

    def _judge_request(self, op: str, message: dict) -> tuple[dict, str | None]:
        """The request with whole text, and what is wrong with it in words for the design."""
        try:
            message = frames.judge(message, self.limits)
        except DesignError as error:
            return message, str(error)
        if op == "embed":
            return message, frames.wrong_with_texts(message.get("texts"), self.limits)
        fields = [message.setdefault(name) for name in ("system", "user", "schema", "model")]
        return message, frames.wrong_with_question(*fields, self.limits)


# -------------------------------------------------------------------------------------- the rest


def _command(control: int) -> list[str]:
    # As isolated as -I, which would ignore PYTHONHASHSEED too: no user site, no unsafe path, and
    # an environment that holds nothing but what stands below.
    return [sys.executable, "-s", "-P", "-B", "-c", BOOT, str(control)]


def _clean_environment() -> dict[str, str]:
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR")}
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/scratch", "TMPDIR": "/scratch",
        "PYTHONHASHSEED": "0",  # the same order of sets in every run
        "MALLOC_ARENA_MAX": "1",  # an arena for each thread would eat the address space
        **one_thread,
    }


def _dump(trajectory: Trajectory) -> str:
    return json.dumps(dataclasses.asdict(trajectory))


async def check(source: str, trajectories: Sequence[Trajectory], tools: Any, limits: Limits | None = None,
                unsafe: bool = False, disable: Iterable[str] = ()) -> dict[str, Any]:
    """Run one design on a few trajectories: load, learn from each, retrieve for each one's `init`.

    `status` is "ok" or a DesignError's status; `retrieved` is a list, one value for each trajectory.
    """
    started = time.monotonic()
    report: dict[str, Any] = {"status": "ok", "error": None, "retrieved": None, "output": ""}
    async with Sandbox(trajectories, limits=limits, unsafe=unsafe, disable=disable) as box:
        try:
            async with box.worker(source, tools) as worker:
                try:
                    await worker.learn()
                    report["retrieved"] = [await worker.retrieve(one.init) for one in trajectories]
                finally:
                    report["output"] = worker.output
        except DesignError as error:
            report.update(status=error.status, error=str(error))
        report.update(layers=box.layers, unsafe=box.unsafe)
    return {**report, "seconds": round(time.monotonic() - started, 3)}


def bench(seconds: float = 10.0) -> dict[str, float]:
    """Medians in milliseconds, in about `seconds`: a worker, an empty retrieval, a cold start of Python.

    The last is what each worker would cost without the template: `python -I` with the same imports.
    """
    return asyncio.run(_bench(seconds))


async def _bench(seconds: float) -> dict[str, float]:
    source = "class Empty:\n async def general_update(self, t): pass\n async def general_retrieve(self, t): return {}"
    command = [sys.executable, "-I", "-c", "import numpy, networkx"]
    times: dict[str, list[float]] = {"worker": [], "retrieve": [], "cold_start": []}

    @contextlib.contextmanager
    def timed(name: str):
        started = time.perf_counter()
        yield
        times[name].append(1000 * (time.perf_counter() - started))

    async with Sandbox() as box:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with timed("cold_start"):
                await asyncio.to_thread(subprocess.run, command, check=True)
            for _ in range(10):
                async with contextlib.AsyncExitStack() as stack:
                    with timed("worker"):
                        worker = await stack.enter_async_context(box.worker(source, None))
                    for _ in range(20):
                        with timed("retrieve"):
                            await worker.retrieve({})
    return {name: statistics.median(values) for name, values in times.items()}
