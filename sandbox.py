"""Runs memory designs, which are code that nobody has read, in jailed child processes (README, Safety).

Whatever a design sends cannot crash, block or bloat the host, which never gives it what its score is computed from.
A worker that has learned can be forked for each retrieval (`Worker.fork`): the fork has all that the design keeps,
also in closures and cached functions, and no other fork sees what it writes. Where that cannot be promised there is
no fork (`CannotFork`), and the memory has to be built again. A design that overwrites our checks on purpose can pass
words through a pipe to its own forks, and to nobody else's.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any

from errors import DesignError, InfrastructureError, UserError, clean
from jail import frames
from jail.child import WROTE
from jail.frames import Limits
from jail.template import START_SECONDS, Template, WorkerKilled, outlive
from memory_base import Tools, Trajectory
from models.fair_queue import FairQueue


class CannotFork(Exception):
    """A worker cannot be forked without losing something, or without its forks seeing each other's files."""


async def uninterrupted(work: Awaitable) -> Any:
    """Await `work` to its end, although this task may be cancelled meanwhile: that comes out afterwards."""
    at_work, cancelled = asyncio.ensure_future(work), None
    while not at_work.done():
        try:
            await asyncio.wait({at_work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return at_work.result()


async def side_by_side(work: Iterable[Awaitable]) -> list:
    """The results in order. Where one raises, the others are cancelled and have ended before its error comes out."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await uninterrupted(asyncio.gather(*tasks, return_exceptions=True))


class Sandbox:
    """Starts workers for designs that learn from `trajectories`; use with `async with`.

    `layers`: names of the layers that hold. `unsafe`: True where a needed one is missing, which raises UserError
    unless the argument `unsafe` is True. `disable` (and the environment variable ALMA_SANDBOX_DISABLE) names layers
    to leave out in tests: "namespaces", "landlock", "seccomp".
    """

    def __init__(self, trajectories: Sequence[Trajectory] = (), *, limits: Limits | None = None,
                 unsafe: bool = False, max_workers: int = 16, disable: Iterable[str] = ()):
        self.limits, self.layers = limits or Limits(), []
        self.unsafe, self._allow_unsafe = False, unsafe
        self.trajectories = [json.dumps(dataclasses.asdict(one)) for one in trajectories]
        self._disable = {*disable, *os.environ.get("ALMA_SANDBOX_DISABLE", "").replace(",", " ").split()}
        # Shared by designs. Workers that are forked wait for none of the other slots while they hold theirs.
        self._forked, self.slots = FairQueue(max_workers), FairQueue(max_workers)
        self._most_forks = max_workers
        self._template: Template | None = None

    async def __aenter__(self) -> "Sandbox":
        async def first_layers() -> list[str]:
            async with self.worker(None, None) as worker:
                return worker.layers

        try:
            self.layers = await outlive(first_layers)
            held = {name.split()[0] for name in self.layers}
            files = [] if held & {"landlock", "namespaces"} else ["Landlock (or user and mount namespaces)"]
            missing = [*files, *{"seccomp"} - held]
            self.unsafe = bool(missing)
            if missing and not self._allow_unsafe:
                raise UserError(
                    f"the sandbox lacks {' and '.join(missing)} on this system, so a design could reach your files and "
                    "keys; use Linux 5.13 or newer on x86-64, or give --unsafe-sandbox to run it anyway")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception) -> None:
        template, self._template = self._template, None
        if template is not None:
            await template.close()

    @contextlib.asynccontextmanager
    async def worker(self, source: str | None, tools: Tools | None, forks: bool = False) -> AsyncIterator["Worker"]:
        """A fresh worker with the design loaded, if there is one, until the block ends. `forks`: it is to be forked."""
        async with (self._forked if forks else self.slots).turn(source or ""):
            if (dead := self._template) is None or not dead.alive:
                self._template = Template({
                    "trajectories": self.trajectories, "limits": dataclasses.asdict(self.limits),
                    "disable": sorted(self._disable), "host": os.getpid(), "temporary": tempfile.gettempdir(),
                    "tools": frames.tools(), "most_forks": self._most_forks})
                if dead is not None:
                    await dead.close()
            worker = Worker(self, self._template, tools, source or "")
            try:
                await worker._connect(forks=forks)
                try:
                    answer = await asyncio.wait_for(worker._pending[1], START_SECONDS)
                    hello = frames.outcome(answer, self.limits)
                except (TimeoutError, DesignError) as error:  # no design is loaded yet
                    why = str(error) or f"it took more than {START_SECONDS:g} s"
                    raise InfrastructureError(f"a worker of the sandbox did not start: {why}") from None
                worker.layers, worker.can_fork = hello["layers"], hello["supervised"] and forks
                if self.layers and worker.layers != self.layers:
                    raise InfrastructureError(f"a worker holds {worker.layers}, the first one held {self.layers}")
                if source is not None:
                    await worker._command("load", source=source)
                yield worker
            finally:
                await uninterrupted(worker.close())


class Worker:
    """The host's end of one worker. Its methods raise DesignError for the design's faults, and what `tools` raise."""

    def __init__(self, box: Sandbox, template: Template, tools: Tools | None, source: str):
        self._box, self._template, self._tools, self._source = box, template, tools, source
        self._limits, self._output = box.limits, frames.Output(box.limits, self._stop)
        self.layers, self.can_fork = [], False
        self.seconds = 0.0  # time spent in calls, waiting for models included
        self._number = 0  # the template's for the process
        self._turn, self._forking = asyncio.Lock(), asyncio.Lock()
        self._slots = asyncio.Semaphore(box.limits.parallel)
        self._pending = 0, asyncio.Future()  # the present command, at first its start
        self._end: BaseException | None = None  # why no more commands are taken
        self._tasks: set[asyncio.Task] = set()  # the reader, and one for each model call
        self._calls = 0  # model calls during the present command
        self._serving = 0  # of them are being answered
        self._spent, self._since = 0.0, 0.0  # seconds of the present command without models, up to a moment
        self._writer: asyncio.StreamWriter | None = None

    async def update(self, trajectory: int | Trajectory) -> None:
        """Let the design learn from a trajectory, or from the one with this index in the sandbox."""
        given = dataclasses.asdict(trajectory) if isinstance(trajectory, Trajectory) else trajectory
        await self._command("update", trajectory=given)

    async def learn(self) -> None:
        """Let the design learn from all trajectories that the sandbox was started with, in order."""
        for index in range(len(self._box.trajectories)):
            await self.update(index)

    async def retrieve(self, init: dict) -> Any:
        """What the design retrieves for a new task: a JSON value within the limits."""
        return await self._command("retrieve", init=init)

    @contextlib.asynccontextmanager
    async def fork(self, tools: Tools) -> AsyncIterator["Worker"]:
        """An exact copy of this worker as it now is; it ends with the block.

        Raises CannotFork, also at the end of the block: what the design did in it then does not count.
        After WorkerKilled and TemplateDied this worker is of no use.
        """
        async with self._box.slots.turn(self._source):
            copy, fault = Worker(self._box, self._template, tools, self._source), None
            try:
                async with self._forking:
                    await copy._start_as_fork(self)
                yield copy
            except DesignError as error:
                fault = error
            finally:
                copy._stop(InfrastructureError("the fork has been closed"))  # at once, before the worker forks again
                exit_code = await uninterrupted(copy.close())
            if exit_code == WROTE:
                raise CannotFork("a fork wanted to create a file")
            if fault is not None:
                raise fault

    @property
    def ended(self) -> bool:
        """Whether no more commands are taken."""
        return self._end is not None

    @property
    def output(self) -> str:
        """What the design wrote to stdout and stderr so far, cut, without control characters."""
        return self._output.text()

    async def _start_as_fork(self, worker: "Worker") -> None:
        """Have `worker` forked. From here on all that the fork sends may come from the design."""
        if not worker.can_fork:
            raise CannotFork("the template does not answer for it")
        await self._connect(worker=worker._number)
        try:
            if (why_not := await worker._command("fork")) != "":
                raise CannotFork(clean(str(why_not)))
            await asyncio.wait_for(self._pending[1], START_SECONDS)
        except (TimeoutError, DesignError) as error:
            late = f"no fork came in {START_SECONDS:g} s"
            if isinstance(error, TimeoutError):
                worker._stop(DesignError("protocol", late))
            raise CannotFork(str(error) or late) from None

    async def _connect(self, forks: bool = False, worker: int = 0) -> None:
        """Have the process forked, with one end of a new connection and of a new output."""
        try:
            here, there = socket.socketpair()
            with there:
                stream, self._writer = await asyncio.open_connection(sock=here, limit=1 << 16)
                with open(self._output.open(), "wb") as output:
                    self._number = self._template.fork(there, output.fileno(), forks, worker)
        except OSError as error:
            why = f"no connection to a worker of the sandbox: {error.strerror} (ulimit -n)"
            raise InfrastructureError(why) from None
        self._tasks.add(asyncio.ensure_future(self._read(stream)))

    async def close(self) -> int | None:
        """End the process, whatever it is at, and wait until it is gone; its exit code, None for no process."""
        self._stop(InfrastructureError("the worker has been closed"))
        tasks, exit_code = [*self._tasks], None  # a model call takes itself out of the set
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._number:
            with contextlib.suppress(InfrastructureError):
                exit_code = await self._template.bury(self._number)
        if self._writer is not None:
            self._writer.transport.abort()
        self._output.close()
        return exit_code

    def _stop(self, error: BaseException) -> None:
        """Take no more commands, fail the present one with `error`, kill the process."""
        self._end = error if self._end is None else self._end
        if self._number:
            with contextlib.suppress(InfrastructureError):
                self._template.send(b"k", self._number)  # kill
        if not self._pending[1].done():
            self._pending[1].set_exception(error)
            self._pending[1].exception()  # no warning where nobody waits for it

    async def _command(self, op: str, **fields: Any) -> Any:
        """The worker's answer to a command; ends the worker when its time is up."""
        limits, used_before = self._limits, None
        look = min(1.0, limits.cpu_seconds / 4, limits.wall_seconds / 4)
        async with self._turn:
            if self._end is not None:
                raise self._end
            started, future = time.monotonic(), asyncio.Future()
            self._pending = self._pending[0] + 1, future
            self._calls, self._spent, self._since = 0, 0.0, started
            try:
                await self._write(frames.pack({"op": op, "id": self._pending[0], **fields}))
                while not (await asyncio.wait({future}, timeout=look))[0]:
                    used = await self._template.cpu_seconds(self._number)
                    used_before = used if used_before is None else used_before
                    if used - used_before > limits.cpu_seconds:
                        message = f"{op} used more than {limits.cpu_seconds:g} s of CPU time"
                    elif self._seconds_without_models() > limits.wall_seconds:
                        message = f"{op} took more than {limits.wall_seconds:g} s"
                    else:
                        continue
                    self._template.send(b"t", self._number)  # it prints where it is
                    await asyncio.sleep(0.1)
                    self._stop(DesignError("timeout", f"{message}\n{self.output[-2_000:].strip()}".strip()))
                return frames.outcome(future.result(), limits)
            except asyncio.CancelledError:
                self._stop(InfrastructureError("the call was cancelled"))
                raise
            finally:
                self.seconds += time.monotonic() - started

    def _seconds_without_models(self) -> float:
        return self._spent if self._serving else self._spent + time.monotonic() - self._since

    async def _write(self, frame: bytes) -> None:
        """Send a frame; a worker that does not read it in time is ended."""
        self._writer.write(frame)
        try:
            async with asyncio.timeout(self._limits.io_seconds):
                await self._writer.drain()
        except TimeoutError:
            self._stop(DesignError("timeout", f"it did not read for {self._limits.io_seconds:g} s"))
        except ConnectionError:
            pass  # the reading side finds out how the process ended

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Take messages until the connection ends; anything wrong with one ends the worker."""
        limits = self._limits
        try:
            while self._end is None:
                header = await stream.readexactly(frames.LENGTH.size)
                async with asyncio.timeout(limits.io_seconds):
                    body = await stream.readexactly(frames.length(header, limits.frame_bytes))
                message = frames.parse(body, limits)
                op, number, tool = message.get("op"), message.get("id"), message.get("tool")
                if op != "call":  # the answer to the present command
                    expected, future = self._pending
                    if op not in ("done", "fail") or number != expected or future.done():
                        what = clean(f"{op} {number}")[:80]
                        raise DesignError("protocol", f"a message that nobody waits for: {what}")
                    future.set_result(message)
                    continue
                self._calls += 1
                frames.limit(self._calls, limits.calls, "model calls in one call of the design", "budget")
                if type(number) is not int or tool not in frames.tools():
                    raise DesignError("protocol", f"a call of no known tool: {clean(str(tool))[:80]}")
                await self._slots.acquire()  # until then nothing more is read: the worker has to wait
                task = asyncio.ensure_future(self._serve(tool, number, message.get("arguments")))
                self._tasks.add(task)
                task.add_done_callback(lambda done: (self._tasks.discard(done), self._slots.release()))
            return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the connection is closed
        except (TimeoutError, ValueError) as error:  # of the length
            late = f"a message was not complete after {limits.io_seconds:g} s"
            return self._stop(DesignError("protocol", str(error) or late))
        except DesignError as error:
            return self._stop(error)
        # Say how the process ended, or end it.
        how = "closed its connection to the host"
        try:
            code = await self._template.value(b"e", self._number, 1.0)
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
            if code == -signal.SIGXCPU:
                self._stop(DesignError("timeout", f"all calls together used {limits.life_cpu_seconds} s of CPU time"))
            elif code == -signal.SIGKILL:
                self._stop(WorkerKilled("the process was killed"))
        except TimeoutError:
            pass  # it lives
        except InfrastructureError as error:
            self._stop(error)
        self._stop(DesignError("died", f"the process {how}\n{self.output[-2_000:].strip()}".strip()))

    async def _serve(self, tool: str, number: int, arguments: Any) -> None:
        try:
            try:
                arguments = frames.judge(arguments, self._limits)
                frames.check_call(tool, arguments, self._limits)
            except DesignError as error:
                return await self._write(frames.pack({"op": "refuse", "id": number, "error": str(error)}))
            self._spent, self._serving = self._seconds_without_models(), self._serving + 1
            try:
                value = await getattr(self._tools, tool)(*arguments)
            finally:
                self._serving, self._since = self._serving - 1, time.monotonic()
            await self._write(frames.pack({"op": "answer", "id": number, "value": value}))
        except Exception as error:
            self._stop(error)  # what the tools raise ends the call that is under way


async def check(source: str, trajectories: Sequence[Trajectory], tools: Tools, limits: Limits | None = None,
                unsafe: bool = False, disable: Iterable[str] = ()) -> dict[str, Any]:
    """Run one design on a few trajectories: load, learn from each, retrieve for each one's `init`.

    `status` is "ok" or a DesignError's status; `retrieved` is a list, one value for each trajectory.
    """
    started, report = time.monotonic(), {"status": "ok", "error": None, "retrieved": None, "output": ""}

    async def try_out() -> list:
        async with box.worker(source, tools) as worker:
            try:
                await worker.learn()
                return [await worker.retrieve(one.init) for one in trajectories]
            finally:
                report["output"] = worker.output

    async with Sandbox(trajectories, limits=limits, unsafe=unsafe, disable=disable) as box:
        try:
            report["retrieved"] = await outlive(try_out)
        except DesignError as error:
            report.update(status=error.status, error=str(error))
    return {**report, "layers": box.layers, "unsafe": box.unsafe, "seconds": round(time.monotonic() - started, 3)}
