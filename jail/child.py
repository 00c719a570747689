"""What runs inside the sandbox: the template process, and the worker that it forks for each design.

The host (`sandbox.py`) starts a template in a clean environment, with a control socket, and with
this source and the collected trajectories as standard input. The template imports what designs
use, parses the trajectories, and forks a worker whenever it is told to. It never sees a design. The
worker locks itself down (`jail/layers.py`) before it reads the first byte of one, then serves
`load`, `update`, `retrieve` and `save`. Nothing of a worker's answers is trusted by the host.

It promises that a worker meets every design in the same state: same modules, same seeds, same
trajectories. Try it: `python alma.py check baselines/no_memory.py`.
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
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types

RECORD = struct.Struct("!cQq")  # control socket: kind, worker's number, value
LENGTH = struct.Struct("!I")  # frames: length in bytes, then JSON
SIGNALS = {b"k": signal.SIGKILL, b"t": signal.SIGUSR1}  # kill; print a traceback
TEXTS_A_REQUEST = 64  # texts of one embedding request, so that its answer stays small
ERROR_CHARS = 6_000  # of a traceback
ENVELOPE = 100  # bytes of a message around its value
PRELOADED = ("networkx", "numpy", "numpy.random", "collections", "copy", "datetime", "difflib", "hashlib", "heapq",
             "langchain_chroma", "logging", "math", "re", "sqlite3", "statistics", "string", "textwrap", "typing",
             "uuid")
DESIGN = "design.py"  # what a design's file is called in tracebacks
PLACE = "/alma"  # where our own modules say that they are; there is no such folder
SEED = 0  # of `random` and numpy's global generator in every worker


class Invalid(Exception):
    """The design returned what is no JSON or too much of it."""


# ---------------------------------------------------------------------------------- template


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


class Template:
    """Forks workers on request, kills them on request, reports their ends."""

    def __init__(self, control: socket.socket, setup: dict, layers: types.ModuleType):
        self._control, self._setup, self._layers = control, setup, layers
        self._workers: dict[int, int] = {}  # process id: the host's number for it
        self._creations: dict[int, object] = {}  # process id: what counts the files that it creates
        self._signals, signals = os.pipe()  # readable after a signal
        os.set_blocking(signals, False)
        signal.set_wakeup_fd(signals)
        for number in (signal.SIGCHLD, signal.SIGTERM):  # no exception: it could come while folders are removed
            signal.signal(number, lambda *_: None)
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
            for pid in self._workers:
                os.kill(pid, signal.SIGKILL)
            while self._workers:
                self._forget(os.wait()[0])

    def _serve_once(self) -> bool:
        ready = dict(self._poll.poll())
        for counted in [one for one in self._creations.values() if one.descriptor() in ready]:
            readable = ready[counted.descriptor()] & select.POLLIN
            self._poll.unregister(counted.descriptor())
            if readable and counted.serve():  # else the worker has ended
                self._poll.register(counted.descriptor(), select.POLLIN)
        if self._signals in ready:
            numbers = os.read(self._signals, 4096)
            self._reap()
            if signal.SIGTERM in numbers:
                return False
        return self._control.fileno() not in ready or self._answer()

    def _answer(self) -> bool:
        """Do what the host asks for; False when it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(self._control, RECORD.size, 2)
        if len(data) < RECORD.size:
            return False
        kind, number, _ = RECORD.unpack(data)
        pid = next((pid for pid, one in self._workers.items() if one == number), 0)
        if kind == b"q":
            return False
        if kind == b"f":
            self._fork(number, descriptors)
        elif kind in SIGNALS and pid:
            os.kill(pid, SIGNALS[kind])
        elif kind == b"c":
            self._send(b"c", number, _cpu_milliseconds(pid) if pid else -1)
        return True

    def _fork(self, number: int, descriptors: list[int]) -> None:
        pid, creations = self._layers.fork(self._setup)
        if pid == 0:
            Worker(descriptors, self._setup, self._layers, creations).run()
        self._workers[pid] = number
        if creations is not None:
            self._creations[pid] = creations
            self._poll.register(creations.descriptor(), select.POLLIN)
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self) -> None:
        while self._workers:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._forget(pid)
            self._send(b"c", number, int(1000 * (usage.ru_utime + usage.ru_stime)))
            self._send(b"e", number, os.waitstatus_to_exitcode(status))

    def _forget(self, pid: int) -> int:
        if (creations := self._creations.pop(pid, None)) is not None:
            with contextlib.suppress(KeyError):  # served to its end before
                self._poll.unregister(creations.descriptor())
            try:
                creations.close()
            except OSError as error:
                print(f"a scratch folder is left: {error}", file=sys.stderr)
        return self._workers.pop(pid)

    def _send(self, kind: bytes, number: int, value: int) -> None:
        self._control.sendall(RECORD.pack(kind, number, value))


def _cpu_milliseconds(pid: int) -> int:
    """CPU time of all threads of another process (clock ids of other processes are -8 pid - 6)."""
    try:
        return int(1000 * time.clock_gettime(-8 * pid - 6))
    except OSError:
        return -1


def main(setup: dict, control: int) -> None:
    """Become the template; the caller has read `setup` from the host."""
    setup["control"] = control
    layers = load_module("jail.layers", setup["sources"]["jail.layers"])
    layers.enter_template(setup)
    for name in filter(importlib.util.find_spec, PRELOADED):  # once here, so that no worker has to
        importlib.import_module(name)
    base = load_module("memory_base", setup["sources"]["memory_base"])
    load_module("jail.state", setup["sources"]["jail.state"])
    install_other_names()
    parsed = (base.Trajectory(**json.loads(text)) for text in setup["trajectories"])
    setup["parsed"] = dict(enumerate(parsed))
    gc.collect()
    gc.freeze()  # the collector would write to pages that all workers share
    Template(socket.socket(fileno=control), setup, layers).serve()


# ------------------------------------------------------------------------------------ worker


class Worker:
    """One design in its jail: reads commands, runs them one after the other, answers each."""

    def __init__(self, descriptors: list[int], setup: dict, layers: types.ModuleType, creations: object):
        self._descriptors, self._setup, self._layers = descriptors, setup, layers
        self._creations = creations

    def run(self) -> None:
        """Lock down, then serve until the host hangs up. Never returns to the template's code."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            kept = self._layers.standard_descriptors(*self._descriptors)
            channel = Channel(socket.socket(fileno=kept), self._setup["limits"]["frame_bytes"])
            try:
                hello = {"op": "hello", "layers": self._layers.lock_down(self._setup, self._creations)}
            except OSError as error:
                hello = {"op": "broken", "error": str(error)}
            channel.send(hello)
            channel.start()
            sys.stdout = sys.__stdout__ = _line_by_line(1)
            sys.stderr = sys.__stderr__ = _line_by_line(2)
            faulthandler.enable()
            faulthandler.register(signal.SIGUSR1)  # the host asks where a worker hangs before it kills it
            Server(channel, self._setup).serve()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)


class Channel:
    """Frames to and from the host. Replies arrive on a thread, so that any thread may wait for one."""

    def __init__(self, connection: socket.socket, frame_bytes: int):
        self._connection, self._frame_bytes = connection, frame_bytes
        self._writing, self._numbers = threading.Lock(), itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future] = {}
        self.commands: queue.SimpleQueue = queue.SimpleQueue()

    def start(self) -> None:
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
        self._waiting[number] = future
        try:
            self.send({"op": op, "id": number, **fields})
        except Invalid as error:
            raise ValueError(str(error)) from None
        return future

    def _read(self) -> None:
        with self._connection.makefile("rb") as stream:
            while header := stream.read(LENGTH.size):
                message = json.loads(stream.read(LENGTH.unpack(header)[0]))
                if message["op"] in ("answer", "refuse"):
                    self._resolve(message)
                else:
                    self.commands.put(message)
        os._exit(0)  # the host hung up

    def _resolve(self, message: dict) -> None:
        future = self._waiting.pop(message["id"], None)
        if future is None or not future.set_running_or_notify_cancel():
            return  # the design no longer waits for it
        if message["op"] == "answer":
            future.set_result(message["value"])
        else:
            future.set_exception(ValueError(message["error"]))


class Tools:
    """The design's side of the models: every call goes to the host."""

    def __init__(self, channel: Channel):
        self._channel = channel

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        request = self._channel.request("ask", system=system, user=user, schema=schema, model=model)
        return await asyncio.wrap_future(request)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        starts = range(0, len(texts), TEXTS_A_REQUEST)
        requests = [self._channel.request("embed", texts=texts[i : i + TEXTS_A_REQUEST]) for i in starts]
        parts = await asyncio.gather(*(asyncio.wrap_future(request) for request in requests))
        return [vector for part in parts for vector in part]


class Server:
    """Runs the host's commands on the design, one after the other, in one event loop."""

    def __init__(self, channel: Channel, setup: dict):
        self._channel, self._setup, self._design = channel, setup, None
        self._code: types.CodeType | None = None  # the module's
        self._loaded: bytes | None = None  # what the module held outside of the design when it was loaded
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def serve(self) -> None:
        memory_base, numpy = sys.modules["memory_base"], sys.modules["numpy"]
        memory_base.connect(Tools(self._channel))
        random.seed(SEED)  # after the fork, for Python seeds this one anew in each child
        numpy.random.seed(SEED)
        while True:
            self._answer(self._channel.commands.get())

    def _answer(self, command: dict) -> None:
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
        import memory_base
        source, saved, state = command["source"], command["state"], None
        remember_source(DESIGN, source)
        module = sys.modules["design"] = types.ModuleType("design")
        module.__file__ = os.path.join(os.getcwd(), DESIGN)
        if saved is None:
            self._code = compile(source, DESIGN, "exec")
        else:
            self._code, state = sys.modules["jail.state"].opened(saved)
        exec(self._code, vars(module))
        self._design = memory_base.find_design(module)()
        self._loaded = sys.modules["jail.state"].surroundings(module)
        if state is not None:
            self._design = sys.modules["jail.state"].restore(state)

    def _save(self, command: dict) -> str | None:
        most = self._setup["limits"]["frame_bytes"] - ENVELOPE
        return sys.modules["jail.state"].save(self._design, self._code, self._loaded, self._setup["scratch"], most)

    def _update(self, command: dict) -> None:
        trajectory = self._trajectory(command["trajectory"])
        self._loop.run_until_complete(_finish(self._design.general_update, trajectory))

    def _retrieve(self, command: dict) -> object:
        trajectory = self._trajectory({"init": command["init"]})
        return self._loop.run_until_complete(_finish(self._design.general_retrieve, trajectory))

    def _trajectory(self, given: int | dict):
        import memory_base

        if isinstance(given, int):
            if (parsed := self._setup["parsed"].pop(given, None)) is not None:
                return parsed  # this process's own copy, and nobody has changed it yet
            given = json.loads(self._setup["trajectories"][given])
        return memory_base.Trajectory(**given)


async def _finish(method, trajectory):
    """Call a design's method, which should be async and need not be."""
    value = method(trajectory)
    return await value if inspect.isawaitable(value) else value


def _plain(value):
    """What a design may return beyond JSON's own types: numpy's, sets and dataclasses."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _explain(error: BaseException) -> str:
    """The traceback from the design's first line on, its middle cut where it is long."""
    trace = first = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != DESIGN:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace or first, limit=-12)).strip()
    if len(text) > ERROR_CHARS:
        text = f"{text[: ERROR_CHARS // 2]}\n[...]\n{text[-ERROR_CHARS // 2 :]}"
    return text


def _line_by_line(descriptor: int):
    """A stream that holds nothing back, for a design may end at any moment, and that takes any text."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if not stream.closed:
            stream.flush()


# ------------------------------------------------------------------ names of the authors' designs


def install_other_names() -> None:
    """Let the imports at the top of the authors' published designs resolve to our own types."""
    import memory_base

    @dataclasses.dataclass
    class Sub_memo_layer(memory_base.MemoryLayer):
        layer_intro: str = dataclasses.field(default="", kw_only=True)
        database: object = dataclasses.field(default=None, kw_only=True)

    class MemoStructure(memory_base.MemoryDesign):
        database = None

        def __init__(self, *args, **kwargs):
            super().__init__()

    class Chroma(memory_base.VectorStore):
        """Takes the arguments of langchain's class; settings of a database that is not there are ignored."""

        def __init__(self, collection_name=None, embedding_function=None, **settings):
            super().__init__(embedding_function)

        def get(self, ids=None, where=None, limit=None, **settings):
            found = super().get(ids)
            chosen = [i for i, metadata in enumerate(found["metadatas"]) if (where or {}).items() <= metadata.items()]
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

