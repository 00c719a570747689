"""What runs inside the sandbox: the template process, and the worker that it forks for each design.

The template gets this source and the collected trajectories from the host (`jail/template.py`). It imports
what designs use and forks workers, and never sees a design. A worker locks itself down (`jail/layers.py`)
before it reads the first byte of one, then serves `load`, `update`, `retrieve` and `fork`. The host trusts
nothing that it answers.

Every design starts in the same state: same modules, same seeds, same trajectories. A fork of a worker has
all that the design has learned, wherever it keeps it; otherwise there is no fork.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import gc
import importlib
import importlib.util
import inspect
import itertools
import json
import linecache
import os
import queue
import random
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types

RECORD = struct.Struct("!cQq")  # control socket: kind, worker's number, value
WROTE = 256  # in place of a fork's exit code: it, or another process of its family, wanted to create a file
LENGTH = struct.Struct("!I")  # a frame: length in bytes, then JSON
TEXTS_A_REQUEST = 64  # texts of one embedding request, so that its answer stays small
ERROR_CHARS = 6_000  # of a traceback
PRELOADED = ("networkx", "numpy", "numpy.random", "collections", "copy", "datetime", "difflib", "hashlib",
             "heapq", "langchain_chroma", "logging", "math", "re", "sqlite3", "statistics", "string",
             "textwrap", "typing", "uuid")
DESIGN = "design.py"  # what a design's file is called in tracebacks
PLACE = "/alma"  # where our own modules say that they are; there is no such folder
SEED = 0  # of `random` and numpy's global generator in every worker


class Invalid(Exception):
    """What the design returned is not JSON, or is too large."""


def load_module(name: str, source: str) -> types.ModuleType:
    """A module from its text: the repository is out of reach, and no path of the host is known."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = f"{PLACE}/{name}.py"
    remember_source(module.__file__, source)
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def remember_source(name: str, source: str) -> None:
    """Let tracebacks and `inspect` find the lines of what is in no file."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


@dataclasses.dataclass
class Family:
    """A worker and its forks: one process group, which a worker cannot leave."""

    number: int  # the host's for the worker
    pid: int  # the worker's
    group: int  # the process group's
    supervisor: object
    forks: dict[int, int] = dataclasses.field(default_factory=dict)  # number: process id, 0 before its report
    exit_code: int = -signal.SIGKILL  # of the worker
    wrote: bool = False  # after it was forked
    ended: bool = False  # killed as a whole, not all reaped yet

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)

    def process(self, number: int) -> int:
        return self.pid if number == self.number else self.forks[number]


class Template:
    """At the host's request: forks workers, permits their forks, kills them. Reports how they end."""

    def __init__(self, control: socket.socket, setup: dict, layers: types.ModuleType):
        self._control, self._setup, self._layers = control, setup, layers
        self._families: dict[int, Family] = {}  # by process group
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
        self._send(b"r", 0, 0)
        try:
            while self._serve_once():
                pass
        finally:
            for family in self._families.values():
                family.end()
            with contextlib.suppress(ChildProcessError):
                while os.wait():
                    pass
            for family in self._families.values():
                self._close(family)

    def _serve_once(self) -> bool:
        ready = dict(self._poll.poll())
        while select.select([self._control], [], [], 0)[0]:  # first: it may permit what a worker has called
            if not self._answer():
                return False
        for family in [one for one in self._families.values() if one.supervisor.descriptor() in ready]:
            self._supervise(family, ready[family.supervisor.descriptor()])
        if self._signals in ready:
            numbers = os.read(self._signals, 4096)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                    family = self._families[os.getpgid(ended.si_pid)]
                    pid, status, usage = os.wait4(ended.si_pid, 0)
                    self._ended(family, pid, os.waitstatus_to_exitcode(status), usage)
            if signal.SIGTERM in numbers:
                return False
        return True

    def _supervise(self, family: Family, events: int) -> None:
        """Decide on a system call of the family, and note what it was."""
        self._poll.unregister(family.supervisor.descriptor())
        what, pid = family.supervisor.serve() if events & select.POLLIN else ("end", 0)
        if what != "end":
            self._poll.register(family.supervisor.descriptor(), select.POLLIN)
        if what == "created":
            family.wrote = True
        elif what == "report":
            waiting = [number for number, process in family.forks.items() if not process]
            ours = bool(waiting) and pid not in (family.pid, *family.forks.values())
            with contextlib.suppress(ChildProcessError):  # a thread, or nobody's child
                if ours and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    family.forks[waiting[0]] = pid
                    return
            family.end()  # another process than the one that was let through

    def _answer(self) -> bool:
        """Do what the host asks; False when it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(self._control, RECORD.size, 2)
        if len(data) < RECORD.size:
            return False
        kind, number, value = RECORD.unpack(data)
        family = next((one for one in self._families.values() if number in (one.number, *one.forks)), None)
        if kind == b"f":
            pid, group, supervisor = self._layers.fork(self._setup, bool(value))
            if pid == 0:
                run_worker(descriptors, self._setup, self._layers, supervisor)
            self._families[group] = Family(number, pid, group, supervisor)
            self._poll.register(supervisor.descriptor(), select.POLLIN)
            for descriptor in descriptors:
                os.close(descriptor)
        elif kind == b"p":
            if family is None or family.ended:
                self._send(b"e", value, -signal.SIGKILL)
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                family.forks[value] = 0
                given = zip(descriptors, self._setup["fork_descriptors"], strict=True)
                family.supervisor.permit(value, list(given))
        elif kind == b"c":
            milliseconds = -1
            if family and (pid := family.process(number)):
                with contextlib.suppress(OSError):  # the clock id of another process is -8 pid - 6
                    milliseconds = int(1000 * time.clock_gettime(-8 * pid - 6))
            self._send(b"c", number, milliseconds)
        elif kind == b"t" and family and family.process(number):
            os.kill(family.process(number), signal.SIGUSR1)
        elif kind == b"k" and family:
            self._kill(family, number)
        return True

    def _kill(self, family: Family, number: int) -> None:
        """End a fork; the whole family if it is the worker, or a fork whose process is not known yet."""
        if family.process(number) == 0 and family.supervisor.withdraw(number):
            del family.forks[number]
            self._send(b"e", number, -signal.SIGKILL)
        elif number == family.number or family.forks[number] == 0:
            family.end()
        else:
            os.kill(family.forks[number], signal.SIGKILL)

    def _ended(self, family: Family, pid: int, exit_code: int, usage) -> None:
        fork = next((number for number, process in family.forks.items() if process == pid), None)
        if usage.ru_utime + usage.ru_stime >= self._setup["limits"]["life_cpu_seconds"] - 1 and exit_code == -signal.SIGKILL:
            exit_code = -signal.SIGXCPU  # the kernel has killed it
        if fork is not None:
            del family.forks[fork]
            self._send(b"e", fork, WROTE if family.wrote else exit_code)
        else:  # the worker, the first process of its namespace, or a fork that never reported
            family.end()
            family.ended = True
        if pid == family.pid:
            family.exit_code = exit_code
        try:
            os.killpg(family.group, 0)
        except ProcessLookupError:  # the last one of the family
            for fork in family.forks:
                self._send(b"e", fork, -signal.SIGKILL)
            self._send(b"e", family.number, family.exit_code)
            del self._families[family.group]
            self._close(family)

    def _close(self, family: Family) -> None:
        with contextlib.suppress(KeyError):  # served to its end before
            self._poll.unregister(family.supervisor.descriptor())
        try:
            family.supervisor.close()
        except OSError as error:
            print(f"a scratch folder is left: {error}", file=sys.stderr)

    def _send(self, kind: bytes, number: int, value: int) -> None:
        self._control.sendall(RECORD.pack(kind, number, value))


def main(setup: dict, control: int) -> None:
    """Become the template, with the `setup` that the host sent."""
    setup["control"] = control
    package = sys.modules["jail"] = types.ModuleType("jail")
    package.layers = layers = load_module("jail.layers", setup["sources"]["jail.layers"])
    layers.enter_template(setup)
    most = setup["limits"]["open_files"]
    setup["fork_descriptors"] = most - 2, most - 1  # numbers of a fork's connection and output in its worker
    for name in filter(importlib.util.find_spec, PRELOADED):  # once here, so that no worker has to
        importlib.import_module(name)
    base = load_module("memory_base", setup["sources"]["memory_base"])
    install_other_names()
    parsed = (base.Trajectory(**json.loads(text)) for text in setup["trajectories"])
    setup["parsed"] = dict(enumerate(parsed))
    gc.collect()
    gc.freeze()  # the collector would write to pages that all workers share
    Template(socket.socket(fileno=control), setup, layers).serve()


def run_worker(descriptors: list[int], setup: dict, layers: types.ModuleType, supervisor: object) -> None:
    """Lock down, then serve one design until the host hangs up. Never returns to the template's code."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        connection, output = descriptors
        empty = os.open("/dev/null", os.O_RDONLY)
        for number, source in enumerate((empty, output, output, connection)):
            os.dup2(source, number)  # the sources are above 2, and only the last one can be 3
        channel = Channel(socket.socket(fileno=3), setup["limits"]["frame_bytes"])
        try:
            held, forks = layers.lock_down(setup, supervisor)
            hello = {"op": "done", "id": 0, "value": {"layers": held, "forks": forks}}
        except OSError as error:
            hello = {"op": "fail", "id": 0, "error": f"it could not lock itself down: {error}"}
        channel.start()
        channel.send(hello)
        sys.stdout = sys.__stdout__ = _line_by_line(1)
        sys.stderr = sys.__stderr__ = _line_by_line(2)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)  # the host asks where a worker hangs before it kills it
        Server(channel, setup, layers).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class Channel:
    """Frames to and from the host. Replies arrive on a thread, so that any thread may wait for one."""

    def __init__(self, connection: socket.socket, frame_bytes: int):
        self._connection, self._frame_bytes = connection, frame_bytes
        self._numbers = itertools.count(1)
        self.waiting: dict[int, concurrent.futures.Future] = {}  # requests that are not yet answered

    def start(self) -> None:
        """Begin to talk; once more in a fork, whose connection has the same number."""
        self._writing, self.commands = threading.Lock(), queue.SimpleQueue()
        threading.Thread(target=self._read, name="replies", daemon=True).start()

    def send(self, message: dict) -> None:
        try:
            body = json.dumps(message, allow_nan=False, default=_plain).encode()
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise Invalid(f"not JSON: {error}") from error
        if len(body) > self._frame_bytes:
            raise Invalid(f"{len(body)} bytes of JSON, at most {self._frame_bytes} are allowed")
        with self._writing:
            self._connection.sendall(LENGTH.pack(len(body)) + body)

    def request(self, op: str, **fields) -> concurrent.futures.Future:
        number, future = next(self._numbers), concurrent.futures.Future()
        self.waiting[number] = future
        try:
            self.send({"op": op, "id": number, **fields})
        except Invalid as error:
            raise ValueError(str(error)) from None
        return future

    def _read(self) -> None:
        with self._connection.makefile("rb") as stream:
            while header := stream.read(LENGTH.size):
                message = json.loads(stream.read(LENGTH.unpack(header)[0]))
                if message["op"] not in ("answer", "refuse"):
                    self.commands.put(message)
                    continue
                future = self.waiting.pop(message["id"], None)
                if future is None or not future.set_running_or_notify_cancel():
                    continue  # the design no longer waits for it
                if message["op"] == "answer":
                    future.set_result(message["value"])
                else:
                    future.set_exception(ValueError(message["error"]))
        os._exit(0)  # the host hung up


class Tools:
    """The design's side of the tools: calls of what `memory_base.Tools` declares go to the host."""

    def __init__(self, channel: Channel, names: list[str]):
        self._channel, self._names = channel, names

    def __getattr__(self, name: str):
        if name not in self._names:
            raise AttributeError(f"there is no tool {name}")

        async def call(*arguments):
            return await asyncio.wrap_future(self._channel.request("call", tool=name, arguments=arguments))

        return call

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Split many texts into several requests, so that each answer stays small."""
        ask = self.__getattr__("embed")
        starts = range(0, len(texts), TEXTS_A_REQUEST)
        parts = await asyncio.gather(*(ask(texts[i : i + TEXTS_A_REQUEST]) for i in starts))
        return [vector for part in parts for vector in part]


class Server:
    """Runs the host's commands on the design, one after the other, in one event loop."""

    def __init__(self, channel: Channel, setup: dict, layers: types.ModuleType):
        self._channel, self._setup, self._layers, self._design = channel, setup, layers, None
        # A poll selector: an epoll descriptor would be shared with forks.
        self._loop = asyncio.SelectorEventLoop(selectors.PollSelector())
        self._descriptors = self._open_descriptors()  # fixed numbers, and the loop's pair of sockets
        asyncio.set_event_loop(self._loop)
        sys.modules["memory_base"].connect(Tools(channel, setup["tools"]))
        random.seed(SEED)  # after the fork, for Python seeds this one anew in each child
        sys.modules["numpy"].random.seed(SEED)

    def serve(self) -> None:
        while True:
            command = self._channel.commands.get()
            number = command["id"]
            try:
                answer = {"op": "done", "id": number, "value": getattr(self, "_" + command["op"])(command)}
                _flush()
                self._channel.send(answer)
            except Invalid as error:
                self._channel.send({"op": "fail", "id": number, "status": "invalid", "error": str(error)})
            except BaseException as error:  # SystemExit and KeyboardInterrupt are the design's too
                _flush()
                self._channel.send({"op": "fail", "id": number, "status": "error", "error": _explain(error)})

    def _load(self, command: dict) -> None:
        remember_source(DESIGN, command["source"])
        module = sys.modules["design"] = types.ModuleType("design")
        module.__file__ = os.path.join(os.getcwd(), DESIGN)
        exec(compile(command["source"], DESIGN, "exec"), vars(module))
        self._design = sys.modules["memory_base"].find_design(module)()

    def _fork(self, command: dict) -> str:
        """Fork, and serve the host in both processes; returns why not if it would lose or share something.

        Threads are lost in a fork; open files and files in the scratch folder would be shared. The template
        gives the fork a connection and an output of its own.
        """
        if len(sys._current_frames()) > 2:  # the main one, and the one that reads replies
            return "the design holds threads"
        if self._channel.waiting:
            return "the design has not waited for an answer"
        if self._open_descriptors() != self._descriptors:
            return "the design holds open files"
        seeds = random.getstate()  # which Python would change in the fork
        pid = self._layers.fork_worker()
        connection, output = self._setup["fork_descriptors"]
        if pid == 0:
            random.setstate(seeds)
            pair = socket.socketpair()
            moves = [(output, 1), (output, 2), (connection, 3)]
            moves += zip((one.fileno() for one in pair), sorted(self._descriptors)[-2:], strict=True)
            for one in pair:
                one.setblocking(False)
            for source, number in moves:
                os.dup2(source, number)
        for descriptor in (connection, output):
            with contextlib.suppress(OSError):  # no fork was let through
                os.close(descriptor)
        if pid == 0:
            asyncio.set_event_loop(self._loop)
            self._channel.start()
            self._channel.send({"op": "done", "id": 0})
            try:
                self.serve()
            finally:
                os._exit(1)  # never return into what the worker was doing
        return "" if pid > 0 else "the design has created files"

    def _open_descriptors(self) -> set[int]:
        found = set()
        for number in range(self._setup["limits"]["open_files"]):
            with contextlib.suppress(OSError):
                os.fstat(number)
                found.add(number)
        return found

    def _update(self, command: dict) -> None:
        given = command["trajectory"]
        # A parsed trajectory is this process's own copy, which nobody has changed yet.
        trajectory = self._setup["parsed"].pop(given, None) if isinstance(given, int) else None
        if trajectory is None:
            given = json.loads(self._setup["trajectories"][given]) if isinstance(given, int) else given
            trajectory = sys.modules["memory_base"].Trajectory(**given)
        self._run(self._design.general_update, trajectory)

    def _retrieve(self, command: dict) -> object:
        trajectory = sys.modules["memory_base"].Trajectory(command["init"])
        return self._run(self._design.general_retrieve, trajectory)

    def _run(self, method, trajectory) -> object:
        """Call a design's method, which should be async and need not be."""

        async def finish():
            value = method(trajectory)
            return await value if inspect.isawaitable(value) else value

        return self._loop.run_until_complete(finish())


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
    """The traceback from the design's first line on, its middle cut if it is long."""
    trace = first = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != DESIGN:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace or first, limit=-12)).strip()
    if len(text) > ERROR_CHARS:
        text = f"{text[: ERROR_CHARS // 2]}\n[...]\n{text[-ERROR_CHARS // 2 :]}"
    return text


def _line_by_line(descriptor: int):
    """A stream that takes any text and is written line by line: a design may end at any moment."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if not stream.closed:
            stream.flush()


def install_other_names() -> None:
    """Let the imports at the top of the authors' published designs resolve to our own types."""
    memory_base = sys.modules["memory_base"]

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

    names = {
        "agents.memo_structure": {"Sub_memo_layer": Sub_memo_layer, "MemoStructure": MemoStructure},
        "eval_envs.base_envs": {"Basic_Recorder": memory_base.Trajectory},
        "utils.hire_agent": {"Agent": memory_base.Agent, "Embedding": memory_base.Embedding},
    }
    if "langchain_chroma" not in sys.modules:  # the real one is not installed
        names["langchain_chroma"] = {"Chroma": Chroma}
    for name, members in names.items():
        for own in (one for one in members.values() if one.__qualname__.startswith("install_other_names")):
            own.__module__, own.__qualname__ = name, own.__name__  # where `pickle` finds them again
        package, _, _ = name.partition(".")
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(members)

