"""What runs inside the sandbox: the template process, and the worker that it forks for each design.

The template gets this source and the trajectories from the host, imports what designs use and forks workers. It never
sees a design. A worker locks itself down (`jail/layers.py`) before it reads the first byte of one, then serves `load`,
`update`, `retrieve` and `fork`. The host trusts nothing that it answers. Every design starts in the same state: same
modules, seeds and trajectories. A fork has all that the design has learned, wherever it keeps it, or there is none.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import errno
import faulthandler
import fcntl
import functools
import gc
import importlib
import inspect
import itertools
import json
import linecache
import os
import queue
import random
import select
import selectors
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
import traceback
import types

import memory_base
from jail import layers

RECORD = struct.Struct("!cQq")  # control socket: kind, worker's number, value
WROTE = 256  # in place of a fork's exit code: it, or another process of its family, wanted to create a file
LENGTH = struct.Struct("!I")  # a frame: length in bytes, then JSON
PRELOADED = ("networkx", "numpy", "numpy.random", "collections", "copy", "datetime", "difflib", "hashlib", "heapq",
             "logging", "math", "re", "sqlite3", "statistics", "string", "textwrap", "typing", "uuid")
DESIGN = "design.py"  # what a design's file is called in tracebacks


class Invalid(Exception):
    """What the design returned is not JSON, or is too large."""


class Family:
    """A worker and its forks: one process group, which none of them can leave.

    Seccomp holds a call that forks or creates a file until it is answered here. A worker that has created a file, even
    a deleted one (it may be open or mapped), is not forked, and one that was forked creates none: forks would share it.
    `folder`: where on the host's disk to make a scratch folder; None if the worker has a root of its own.
    """

    def __init__(self, number: int, folder: str | None):
        self.number = number  # the host's for the worker
        self.pid = self.group = 0  # of the worker; of all
        self.exit_code = -signal.SIGKILL  # of the worker
        self.ended = False  # killed as a whole, not all reaped yet
        self.forks: dict[int, int] = {}  # number: process id
        self.starting, self.given = 0, []  # number of a fork that has not reported yet, and what it is to get
        self.let_through = False  # whether it exists already
        self.wrote = False  # wanted to create a file after it was forked
        self._created = self._forked = False
        self._left = 256 if folder else sys.maxsize  # files to create where nothing else limits the scratch folder
        if folder:
            os.makedirs(folder, exist_ok=True)  # somebody may have cleaned up
        self.scratch = tempfile.mkdtemp(prefix="alma-sandbox-", dir=folder) if folder else None
        # The worker sends its listener through them; from then on `descriptor` is the listener.
        self._ours, self.theirs = socket.socketpair()
        self.descriptor, self._listening = self._ours.fileno(), False

    def serve(self) -> bool:
        """Take the listener, later answer one call; False if none will come."""
        if not self._listening:
            for listener in socket.recv_fds(self._ours, 1, 1)[1]:
                os.dup2(listener, self.descriptor)
                os.close(listener)
                self._listening = True
            return self._listening
        notice = bytearray(80)
        with contextlib.suppress(OSError):  # the thread that called has ended or was interrupted
            fcntl.ioctl(self.descriptor, layers.NOTIFY_RECEIVE, notice)
            key, pid, _, call = struct.unpack_from("QIIi", notice)
            refused = self._refuse(call, key, pid)
            flags = 0 if refused or call == layers.REPORT else layers.CONTINUE  # a report is served, never run
            fcntl.ioctl(self.descriptor, layers.NOTIFY_SEND, struct.pack("QqiI", key, 0, -refused, flags))
        return True

    def _refuse(self, call: int, key: int, pid: int) -> int:
        """The error that answers a call of the thread `pid`; 0 lets it through."""
        if call == layers.SYS_CLONE:
            if self._created or not self.starting or self.let_through or pid != self.pid:
                return errno.EPERM
            self._forked = self.let_through = True
            return 0
        if call == layers.REPORT:
            if not self.let_through:
                return errno.EPERM
            new = False
            with contextlib.suppress(ChildProcessError):  # a thread, or nobody's child
                new = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            if not new or pid in (self.pid, *self.forks.values()):
                self.end()  # another process than the one that was let through
                return errno.EPERM
            self.forks[self.starting] = pid
            connection, output = self.given
            for number, ours in ((1, output), (2, output), (3, connection)):
                added = struct.pack("QIIII", key, layers.AT_THIS_NUMBER, ours, number, 0)
                fcntl.ioctl(self.descriptor, layers.NOTIFY_ADD_DESCRIPTOR, added)
            self.withdraw()
            return 0
        self._created, self._left = True, self._left - 1
        self.wrote = self.wrote or self._forked
        return errno.EDQUOT if self._forked or self._left < 0 else 0

    def withdraw(self) -> None:
        """Let no fork through any more."""
        for descriptor in self.given:
            os.close(descriptor)
        self.starting, self.given, self.let_through = 0, [], False

    def end(self) -> None:
        self.ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind; all processes have ended."""
        self.withdraw()
        self._ours.close()
        if self.scratch is None:
            return
        try:
            for _, names, _, folder in os.fwalk(self.scratch):
                for name in names:
                    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                        os.chmod(name, 0o700, dir_fd=folder)  # it may have been made unreadable
            shutil.rmtree(self.scratch)
        except OSError as error:
            print(f"a scratch folder is left: {error}", file=sys.stderr)


class Template:
    """At the host's request: forks workers, permits their forks, kills them. Reports how they end."""

    def __init__(self, control: socket.socket, setup: dict):
        self._control, self._setup = control, setup
        self._families: dict[int, Family] = {}  # by descriptor
        self._signals, signals = os.pipe()  # readable after a signal
        os.set_blocking(signals, False)
        signal.set_wakeup_fd(signals)
        for number in (signal.SIGCHLD, signal.SIGTERM):  # no exception, which could interrupt cleaning up
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Answer the host until it is gone or dead, then leave nothing behind."""
        try:
            while True:
                ready = dict(self._poll.poll())
                while select.select([self._control], [], [], 0)[0]:  # first: it may permit what a worker has called
                    if not self._answer():
                        return
                for descriptor in ready.keys() & self._families.keys():
                    if not (ready[descriptor] & select.POLLIN and self._families[descriptor].serve()):
                        self._poll.unregister(descriptor)
                if self._signals in ready:
                    numbers = os.read(self._signals, 4096)
                    self._reap()
                    if signal.SIGTERM in numbers:
                        return
        finally:
            for family in self._families.values():
                family.end()
            with contextlib.suppress(ChildProcessError):
                while os.wait():
                    pass
            for family in self._families.values():
                family.close()

    def _answer(self) -> bool:
        """Do what the host asks; False when it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(self._control, RECORD.size, 2)
        if len(data) < RECORD.size:
            return False
        kind, number, value = RECORD.unpack(data)
        family = next((one for one in self._families.values()
                       if number in (one.number, one.starting, *one.forks)), None)
        pid = family and {family.number: family.pid, **family.forks}.get(number)
        if kind == b"f":
            family = Family(number, None if self._setup["namespaces"] else self._setup["temporary"])
            family.pid, family.group = layers.fork(self._setup, bool(value))
            if family.pid == 0:
                run_worker(descriptors, self._setup, family)
            family.theirs.close()
            self._families[family.descriptor] = family
            self._poll.register(family.descriptor, select.POLLIN)
        elif kind == b"p" and family and not family.ended:  # let the worker fork once
            family.withdraw()
            family.starting, family.given = value, descriptors
            return True
        elif kind == b"p":
            self._control.sendall(RECORD.pack(b"e", value, -signal.SIGKILL))
        elif kind == b"c":
            milliseconds = -1
            with contextlib.suppress(OSError):  # the clock id of another process is -8 pid - 6
                milliseconds = int(1000 * time.clock_gettime(-8 * pid - 6)) if pid else -1
            self._control.sendall(RECORD.pack(b"c", number, milliseconds))
        elif kind == b"t" and pid:
            os.kill(pid, signal.SIGUSR1)
        elif kind == b"k" and family and number in family.forks:
            os.kill(pid, signal.SIGKILL)
        elif kind == b"k" and family and number == family.starting and not family.let_through:
            family.withdraw()
            self._control.sendall(RECORD.pack(b"e", number, -signal.SIGKILL))
        elif kind == b"k" and family:  # the worker, or a fork whose process is not known yet
            family.end()
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _reap(self) -> None:
        """Take notice of processes that have ended, and close a family with its last one."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                group = os.getpgid(ended.si_pid)
                family = next(one for one in self._families.values() if one.group == group)
                pid, status, usage = os.wait4(ended.si_pid, 0)
                exit_code = os.waitstatus_to_exitcode(status)
                spent = usage.ru_utime + usage.ru_stime >= self._setup["limits"]["life_cpu_seconds"] - 1
                if spent and exit_code == -signal.SIGKILL:
                    exit_code = -signal.SIGXCPU  # so that the host knows why the kernel killed it
                number = next((number for number, fork in family.forks.items() if fork == pid), None)
                if number is not None:
                    del family.forks[number]
                    self._control.sendall(RECORD.pack(b"e", number, WROTE if family.wrote else exit_code))
                else:  # the worker, the first process of its namespace, or a fork that never reported
                    family.end()
                if pid == family.pid:
                    family.exit_code = exit_code
                try:
                    os.killpg(group, 0)
                except ProcessLookupError:
                    self._control.sendall(RECORD.pack(b"e", family.starting, -signal.SIGKILL))
                    self._control.sendall(RECORD.pack(b"e", family.number, family.exit_code))
                    del self._families[family.descriptor]
                    with contextlib.suppress(KeyError):  # served to its end before
                        self._poll.unregister(family.descriptor)
                    family.close()


def main(setup: dict) -> None:
    """Become the template, with the `setup` that the host sent; descriptor 3 leads to the host."""
    layers.enter_template(setup)
    for name in PRELOADED:  # once here, so that no worker has to
        importlib.import_module(name)
    for name, members in OTHER_NAMES.items():  # imports of the authors' published designs
        package, _, _ = name.partition(".")
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)
    gc.collect()
    gc.freeze()  # the collector would write to pages that all workers share
    Template(socket.socket(fileno=3), setup).serve()


def run_worker(descriptors: list[int], setup: dict, family: Family) -> None:
    """Lock down, then serve one design until the host hangs up. Never returns to the template's code."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        connection, output = descriptors
        for number, source in enumerate((os.open("/dev/null", os.O_RDONLY), output, output, connection)):
            os.dup2(source, number)  # the last one in the place of the template's own connection
        server = Server(socket.socket(fileno=3), setup)
        try:
            held, supervised = layers.lock_down(setup, family.scratch, family.theirs.fileno())
            hello = {"op": "done", "id": 0, "value": {"layers": held, "supervised": supervised}}
        except OSError as error:
            hello = {"op": "fail", "id": 0, "error": f"it could not lock itself down: {error}"}
        server.start()
        server.send(hello)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)  # the host asks where a worker hangs before it kills it
        server.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class Server:
    """Runs the host's commands one after the other. A thread takes replies to tools' calls, so that any may wait."""

    def __init__(self, connection: socket.socket, setup: dict):
        self._connection, self._setup, self._design = connection, setup, None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future] = {}  # calls that are not yet answered

    def start(self) -> None:
        """Begin to talk; once more in a fork, whose connection has the same number."""
        self._writing, self._commands = threading.Lock(), queue.SimpleQueue()
        threading.Thread(target=self._read, name="replies", daemon=True).start()

    def send(self, message: dict) -> None:
        try:
            body = json.dumps(message, allow_nan=False, default=_plain).encode()
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise Invalid(f"not JSON: {error}") from error
        if len(body) > (most := self._setup["limits"]["frame_bytes"]):
            raise Invalid(f"{len(body)} bytes of JSON, at most {most} are allowed")
        with self._writing:
            self._connection.sendall(LENGTH.pack(len(body)) + body)

    async def call(self, tool: str, *arguments) -> object:
        """What the host answers to a call of a tool."""
        number, future = next(self._numbers), concurrent.futures.Future()
        self._waiting[number] = future
        try:
            self.send({"op": "call", "id": number, "tool": tool, "arguments": arguments})
        except Invalid as error:
            del self._waiting[number]
            raise ValueError(str(error)) from None
        return await asyncio.wrap_future(future)

    def _read(self) -> None:
        with self._connection.makefile("rb") as stream:
            while header := stream.read(LENGTH.size):
                message = json.loads(stream.read(LENGTH.unpack(header)[0]))
                if message["op"] not in ("answer", "refuse"):
                    self._commands.put(message)
                elif (future := self._waiting.pop(message["id"], None)) and future.set_running_or_notify_cancel():
                    if message["op"] == "answer":  # for which the design still waits
                        future.set_result(message["value"])
                    else:
                        future.set_exception(ValueError(message["error"]))
        os._exit(0)  # the host hung up

    def serve(self) -> None:
        while True:
            command = self._commands.get()
            op, number = command.pop("op"), command.pop("id")
            try:
                self.send({"op": "done", "id": number, "value": getattr(self, f"_{op}")(**command)})
            except Invalid as error:
                self.send({"op": "fail", "id": number, "status": "invalid", "error": str(error)})
            except BaseException as error:  # SystemExit and KeyboardInterrupt are the design's too
                self.send({"op": "fail", "id": number, "status": "error", "error": _explain(error)})

    def _load(self, source: str) -> None:
        # A poll selector: an epoll descriptor would be shared with forks.
        self._loop = asyncio.SelectorEventLoop(selectors.PollSelector())
        self._descriptors = self._open_descriptors()  # fixed numbers, and the loop's pair of sockets
        asyncio.set_event_loop(self._loop)
        memory_base.connect(Tools(self.call, self._setup["tools"]))
        random.seed(0)  # after the fork, for Python seeds this one anew in each child
        sys.modules["numpy"].random.seed(0)
        linecache.cache[DESIGN] = len(source), None, source.splitlines(keepends=True), DESIGN  # for tracebacks
        module = sys.modules["design"] = types.ModuleType("design")
        module.__file__ = os.path.join(os.getcwd(), DESIGN)
        exec(compile(source, DESIGN, "exec"), vars(module))
        self._design = memory_base.find_design(module)()

    def _update(self, trajectory: int | dict) -> None:
        given = json.loads(self._setup["trajectories"][trajectory]) if isinstance(trajectory, int) else trajectory
        self._loop.run_until_complete(_finish(self._design.general_update, memory_base.Trajectory(**given)))

    def _retrieve(self, init: dict) -> object:
        return self._loop.run_until_complete(_finish(self._design.general_retrieve, memory_base.Trajectory(init)))

    def _fork(self) -> str:
        """Fork, and serve the host in both processes; returns why not if it would lose or share something."""
        if len(sys._current_frames()) > 2:  # the main one, and the one that reads replies
            return "the design holds threads"  # which are lost in a fork
        if self._waiting:
            return "the design has not waited for an answer"
        if self._open_descriptors() != self._descriptors:
            return "the design holds open files"  # which would be shared
        seeds = random.getstate()  # which Python would change in the fork
        pid = layers.fork_worker()
        if pid == 0:
            try:
                random.setstate(seeds)
                self._loop._close_self_pipe()  # else threads of all forks would wake one another's loops
                self._loop._make_self_pipe()
                asyncio.set_event_loop(self._loop)
                self.start()  # the template has put a connection and an output of its own in the place of the worker's
                self.send({"op": "done", "id": 0})
                self.serve()
            finally:
                os._exit(1)  # never return into what the worker was doing
        return "" if pid > 0 else "the design has created files, or signals interrupt it"

    def _open_descriptors(self) -> set[int]:
        found = set()
        for number in range(self._setup["limits"]["open_files"]):
            with contextlib.suppress(OSError):
                os.fstat(number)
                found.add(number)
        return found


class Tools:
    """The design's side of the tools: calls of what `memory_base.Tools` declares go to the host."""

    def __init__(self, call, names: list[str]):
        self._call, self._names = call, names

    def __getattr__(self, name: str):
        if name not in self._names:
            raise AttributeError(f"there is no tool {name}")
        return functools.partial(self._call, name)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Split many texts into several requests, so that each answer stays small."""
        parts = [texts[i : i + 64] for i in range(0, len(texts), 64)]
        answers = await asyncio.gather(*(self._call("embed", part) for part in parts))
        return [vector for answer in answers for vector in answer]


async def _finish(method, trajectory) -> object:
    """Call a design's method, which should be async and need not be."""
    value = method(trajectory)
    return await value if inspect.isawaitable(value) else value


def _plain(value):
    """The JSON form of what a design may return besides JSON's own types: numpy's, sets, dataclasses."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _explain(error: BaseException) -> str:
    """The error and its traceback from the design's first line on, short enough for a message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != DESIGN:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace, limit=-12)).strip()[: 1 << 17]


# What follows are the authors' names for our own types.


@dataclasses.dataclass
class Sub_memo_layer(memory_base.MemoryLayer):
    layer_intro: str = dataclasses.field(default="", kw_only=True)
    database: object = dataclasses.field(default=None, kw_only=True)


class MemoStructure(memory_base.MemoryDesign):
    database = None

    def __init__(self, *args, **kwargs):
        super().__init__()


class Chroma(memory_base.VectorStore):
    """Takes the arguments of langchain's class; ignores settings of the database."""

    def __init__(self, collection_name=None, embedding_function=None, **settings):
        super().__init__(embedding_function)

    def get(self, ids=None, where=None, limit=None, **settings):
        found = super().get(ids)
        chosen = [i for i, held in enumerate(found["metadatas"]) if (where or {}).items() <= held.items()]
        return {name: [values[i] for i in chosen[:limit]] for name, values in found.items()}

    def similarity_search(self, query, k=4, filter=None, **settings):
        return super().similarity_search(query, k, filter)


OTHER_NAMES = {
    "agents.memo_structure": {"Sub_memo_layer": Sub_memo_layer, "MemoStructure": MemoStructure},
    "eval_envs.base_envs": {"Basic_Recorder": memory_base.Trajectory},
    "utils.hire_agent": {"Agent": memory_base.Agent, "Embedding": memory_base.Embedding},
    "langchain_chroma": {"Chroma": Chroma},
}
