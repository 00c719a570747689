"""A worker that has learned is forked for each retrieval: nothing is lost, and no retrieval sees another's writes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import standins
from errors import BudgetError, DesignError
from evaluate import MOST_LEARNED, halve
from harness.commands import baseline
from jail.frames import Limits
from memory_base import Trajectory
from sandbox import CannotFork, Sandbox, Worker, WorkerKilled
from tests.test_evaluate import scores_of
from tests.test_sandbox import LINUX, SHORT, left_behind
from tests.toy import Doors

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not LINUX, reason="workers are forked on Linux on x86-64 alone")
BOTH = pytest.mark.parametrize("disable", [(), ("namespaces",)], ids=["all layers", "no namespaces"])


def design(update: str = "pass", retrieve: str = "return None", top: str = "", rest: str = "") -> str:
    return f"""
import asyncio, ctypes, functools, mmap, os, random, socket, sqlite3, sys, threading, time
import numpy as np
from memory_base import *
{top}
class D(MemoryDesign):
    async def general_update(self, trajectory):
        {update}
    async def general_retrieve(self, trajectory):
        {retrieve}
{rest}
"""


CLOSURE = """
def counter():
    seen = []
    def note(n):
        seen.extend([1] * n)
        return len(seen)
    return note
note = counter()
"""
GENERATOR = """
def count():
    n = 0
    while True:
        n += (yield n) or 0
counting = count()
next(counting)
"""
KEPT = {  # wherever it is kept, 3 has been learned from 5 episodes: (source, what a retrieval says)
    "self": (design("self.__dict__.setdefault('seen', []).append(1)", "return len(self.seen)"), 5),
    "a global": (design("seen.append(1)", "return len(seen)", "seen = []"), 5),
    "a class": (design("self.seen.append(1)", "return len(self.seen)", rest="    seen = []"), 5),
    "a default": (design("self.note()", "return self.note(0)",
                         rest="    def note(self, n=1, seen=[]):\n        seen.extend([1] * n)\n        return len(seen)"), 5),
    "a closure": (design("note(1)", "return note(0)", CLOSURE), 5),
    "a cached function": (design("table().append(1)", "return len(table())", "@functools.cache\ndef table(): return []"), 5),
    "a generator": (design("counting.send(1)", "return counting.send(0)", GENERATOR), 5),
    "a lambda": (design("self.f = lambda: 3", "return self.f()"), 3),
    "a database": (design("self.db = sqlite3.connect(':memory:'); self.db.execute('create table t (x)')",
                          "return self.db.execute('select count(*) from t').fetchone()[0]"), 0),
    "an address": (design("self.x = object(); self.at = id(self.x)", "return self.at == id(self.x)"), True),
    "a contended lock": (design(
        "self.lock = getattr(self, 'lock', None) or asyncio.Lock(); await asyncio.gather(self.hold(), self.hold())",
        "await asyncio.gather(self.hold(), self.hold()); return 1",
        rest="    async def hold(self):\n        async with self.lock:\n            await asyncio.sleep(0)"), 1),
    "the standard library": (design("os.environ['SEEN'] = os.environ.get('SEEN', '') + '1'", "return os.environ['SEEN']"), "11111"),
}
NOT_FORKED = {  # what a fork would not have, or would share: the memory is built again
    "a file": design("open('seen', 'a').write('1')", "return len(open('seen').read())"),
    "a file that is gone": design("open('seen', 'a').close(); os.unlink('seen')"),
    "a folder": design("os.makedirs('seen', exist_ok=True)"),
    "a link": design("try: os.symlink('/dev/null', 'seen')\n        except OSError: open('seen', 'a').close()"),  # or refused
    "a pipe": design("self.pipe = os.pipe()"),
    "a socket": design("self.pair = socket.socketpair()"),
    "an open file": design("self.file = open(np.__file__)"),
    "a thread": design("threading.Thread(target=threading.Event().wait, daemon=True).start()"),
    "a thread pool": design("await asyncio.to_thread(len, '')"),
    "an unanswered request": design("self.late = asyncio.ensure_future(llm('x')); await asyncio.sleep(0)"),
}


class StandIns:
    async def ask(self, system, user, schema, model):
        return standins.chat("memory", [{"role": "user", "content": user}], schema)

    async def embed(self, texts):
        return standins.embed(texts)


class NeverAnswers(StandIns):
    async def ask(self, *_):
        await asyncio.sleep(1000)


def episodes() -> list[Trajectory]:
    def step(number):
        return {"action_took": f"open door {number}", "obs": f"Door {number} is open.", "scores": 1.0, "dones": True}

    return [Trajectory({"obs": f"Room {n}. A red door.", "goal": f"open door {n}"}, [step(n)] * 3, n % 2) for n in range(5)]


@pytest.fixture(scope="module")
def run_with_forks():
    """A function: what `work(retrieve, worker, box)` returns for a worker with this design that has learned.

    `retrieve(init)` is a retrieval in a fork of the worker.
    """
    boxes: dict[tuple, Sandbox] = {}

    async def go(source, work, tools, limits, disable):
        if (limits, disable) not in boxes:
            boxes[limits, disable] = await Sandbox(episodes(), limits=limits, disable=disable).__aenter__()
        box = boxes[limits, disable]
        async with box.worker(source, tools, forks=True) as worker:
            async def retrieve(init=None):
                async with worker.fork(StandIns()) as fork:
                    return await fork.retrieve(episodes()[2].init if init is None else init)

            await worker.learn()
            return await work(retrieve, worker, box)

    def run(source, work, tools=None, limits=SHORT, disable=()):
        return runner.run(asyncio.wait_for(go(source, work, tools or StandIns(), limits, disable), 100))

    with asyncio.Runner() as runner:
        yield run
        for box in boxes.values():
            runner.run(box.__aexit__())


async def forked_and_learned(retrieve, worker, _):
    """What two forks say, then what the worker itself says."""
    return [await retrieve(), await retrieve(), await worker.retrieve(episodes()[2].init)]


@pytest.mark.parametrize("name", ["trajectory_retrieval", "reasoning_bank", "dynamic_cheatsheet", "g_memory"])
def test_a_fork_of_a_baseline_says_what_the_one_that_learned_says(run_with_forks, name):
    first, second, learned = run_with_forks(baseline(name), forked_and_learned)
    assert first == second == learned and learned


def test_a_fork_of_a_design_of_the_authors_form_says_the_same(run_with_forks):
    source = (
        "from agents.memo_structure import Sub_memo_layer, MemoStructure\n"
        "from utils.hire_agent import Embedding\nfrom langchain_chroma import Chroma\n"
        "class Goals(Sub_memo_layer):\n"
        " def __init__(self): super().__init__(database=Chroma(embedding_function=Embedding()))\n"
        " async def update(self, text): self.database.add_texts([text])\n"
        " async def retrieve(self, text): return [d.page_content for d in self.database.similarity_search(text, k=2)]\n"
        "class M(MemoStructure):\n"
        " def __init__(self):\n  super().__init__()\n  self.goals = Goals()\n"
        " async def general_update(self, r): await self.goals.update(r.init['goal'])\n"
        " async def general_retrieve(self, r): return {'like': await self.goals.retrieve(r.init['goal'])}\n"
    )
    first, second, learned = run_with_forks(source, forked_and_learned)
    assert first == second == learned and len(learned["like"]) == 2


@BOTH
@pytest.mark.parametrize("where", KEPT)
def test_a_fork_has_what_was_learned_wherever_it_is_kept(run_with_forks, where, disable):
    source, says = KEPT[where]
    assert run_with_forks(source, forked_and_learned, disable=disable) == [says, says, says]


@BOTH
@pytest.mark.parametrize("what", NOT_FORKED)
def test_a_worker_is_not_forked_where_its_forks_would_lose_or_share_something(run_with_forks, what, disable):
    with pytest.raises(CannotFork):
        run_with_forks(NOT_FORKED[what], forked_and_learned, NeverAnswers(), disable=disable)


SHARED_MEMORY = {
    "anonymous": "mmap.mmap(-1, 4096)",
    "of a device": "mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096)",
    "by its call": "ctypes.CDLL(None).syscall(9, 0, 4096, 3, 0x21, -1, 0) + 1 or open('/')",
    "of a kind": "ctypes.CDLL(None).syscall(9, 0, 4096, 3, 0x23, -1, 0) + 1 or open('/')",
    "in a file": "os.memfd_create('x')",
    "of System V": "ctypes.CDLL(None).shmget(0, 4096, 0o1600) + 1 or open('/')",
}


@BOTH
@pytest.mark.parametrize("kind", SHARED_MEMORY)
def test_no_memory_can_be_shared_by_forks(run_with_forks, kind, disable):
    async def work(retrieve, worker, _):
        with pytest.raises(DesignError) as raised:
            await worker.update(0)
        return raised.value.status

    source = design(f"getattr(self, 'n', 0) > 4 and ({SHARED_MEMORY[kind]}); self.n = getattr(self, 'n', 0) + 1")
    assert run_with_forks(source, work, disable=disable) == "error"


@BOTH
@pytest.mark.parametrize("body", [
    "open('note', 'a').write('x')", "os.mkdir('note')", "__import__('tempfile').mkstemp()",
    "try: open('note', 'a')\n        except OSError: return 'hidden'"])
def test_a_retrieval_that_writes_a_file_does_not_count_and_nothing_is_forked_after_it(run_with_forks, body, disable):
    async def work(retrieve, worker, _):
        for _ in range(2):
            with pytest.raises(CannotFork):
                await retrieve()
        return await worker.retrieve({})

    source = design("pass", f"if not trajectory.init: return os.listdir('.')\n        {body}")
    assert run_with_forks(source, work, disable=disable) == []


def test_what_the_models_raise_in_a_fork_comes_out_whatever_else_the_design_did(run_with_forks):
    class Broke(StandIns):
        async def ask(self, *_):
            raise BudgetError("spent")

    async def work(retrieve, worker, _):
        async with worker.fork(Broke()) as fork:
            await fork.retrieve({})

    source = design("pass", "try: open('x', 'a')\n        except OSError: await llm('x')")
    with pytest.raises(BudgetError):
        run_with_forks(source, work)


@BOTH
def test_forty_forks_side_by_side_begin_in_the_same_state_and_each_has_its_own_output_and_calls(run_with_forks, disable):
    source = design("self.n = random.random()", """
        said = await asyncio.gather(*(llm(f'{trajectory.init} {i}') for i in range(3)))
        store = VectorStore()
        store.add_texts(['a red door'])
        print('room', trajectory.init['room'])
        self.seen = getattr(self, 'seen', 0) + 1
        return [self.n, random.random(), np.random.rand(), self.seen, len(said), store.get()['documents']]""")

    async def work(retrieve, worker, _):
        async def one(number):
            async with worker.fork(StandIns()) as fork:
                return await fork.retrieve({"room": number}), fork.output

        return await asyncio.gather(*map(one, range(40)))

    found = run_with_forks(source, work, limits=Limits(), disable=disable)
    assert len({str(said) for said, _ in found}) == 1 and found[0][0][3] == 1
    assert [output for _, output in found] == [f"room {number}\n" for number in range(40)]


FAULTS = {
    "cpu": ("timeout", "while True: pass"), "wall": ("timeout", "time.sleep(60)"),
    "memory": ("error", "bytearray(900 << 20)"), "output": ("flood", "while True: print('x' * 10000)"),
    "exit": ("died", "os._exit(3)"), "crash": ("died", "ctypes.string_at(0)"),
    "calls": ("budget", "await asyncio.gather(*(llm('x') for _ in range(600)))"), "an error": ("error", "raise ValueError(1)"),
    "descriptors": ("error", "[os.dup(1) for _ in range(300)]"), "an answer": ("invalid", "return print"),
    "words": ("protocol", "os.write(3, b'\\0\\0\\0\\1{')"), "a fork": ("error", "os.fork()"),
}


@BOTH
def test_a_fault_of_one_fork_is_its_own(run_with_forks, disable):
    lines = "\n        ".join(
        f"if trajectory.init.get('do') == {name!r}:\n            {body}" for name, (_, body) in FAULTS.items())

    async def work(retrieve, worker, _):
        async def status(name):
            try:
                return name, await retrieve({"do": name})
            except DesignError as error:
                return name, error.status

        found = dict(await asyncio.gather(*map(status, FAULTS)))
        return found, await retrieve({})

    expected = {name: status for name, (status, _) in FAULTS.items()}
    source = design("self.n = 3", f"{lines}\n        return self.n")
    limits = Limits(cpu_seconds=1.0, wall_seconds=10.0)
    assert run_with_forks(source, work, limits=limits, disable=disable) == (expected, 3)


@BOTH
def test_the_line_where_a_fork_hangs_is_told(run_with_forks, disable):
    async def work(retrieve, *_):
        with pytest.raises(DesignError) as raised:
            await retrieve()
        return str(raised.value)

    source = design("pass", "while True: pass")
    line = source.splitlines().index("        while True: pass") + 1
    assert f'File "design.py", line {line} in general_retrieve' in run_with_forks(source, work, disable=disable)


@BOTH
def test_a_fork_that_is_killed_from_outside_is_nobodys_fault(run_with_forks, disable):
    async def work(retrieve, worker, box):
        before = {one for one in left_behind([box._template._process.pid])}
        async with worker.fork(NeverAnswers()) as fork:
            retrieving = asyncio.ensure_future(fork.retrieve({}))
            await asyncio.wait({retrieving}, timeout=0.3)
            (pid,) = {one for one in left_behind([box._template._process.pid])} - before
            os.kill(int(pid.split()[1]), signal.SIGKILL)
            with pytest.raises(WorkerKilled):
                await retrieving
        return await retrieve({"n": 1})

    source = design("pass", "return trajectory.init or await llm('x')")
    assert run_with_forks(source, work, disable=disable) == {"n": 1}


@BOTH
def test_a_killed_template_leaves_no_fork_and_a_closed_sandbox_nothing(disable):
    async def go():
        async with Sandbox(episodes(), limits=SHORT, disable=disable) as box:
            session = box._template._process.pid
            async with box.worker(design("pass", "time.sleep(60)"), StandIns(), forks=True) as worker:
                with pytest.raises(Exception):  # noqa: B017 - whichever end is noticed first
                    async with worker.fork(StandIns()) as fork:
                        retrieving = asyncio.ensure_future(fork.retrieve({}))
                        await asyncio.wait({retrieving}, timeout=0.5)
                        os.kill(session, signal.SIGKILL)
                        await retrieving
        deadline = time.monotonic() + 20  # they are killed, and end when the machine comes to it
        while (left := left_behind([session])) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return left

    assert asyncio.run(go()) == []


# ------------------------------------------------------------------------- programs that abuse forks

FORK = "ctypes.PyDLL(None, use_errno=True).syscall(56, 0x8000 | 17, 0, 0, 0, 0)"
THREAD = "threading.Thread(target=fork_all_the_time, daemon=True).start()"
BOMB = f"""
forked = []
def fork_all_the_time():
    while True:
        pid = {FORK}
        if pid == 0:
            while True: time.sleep(1)
        if pid > 0:
            forked.append(pid)
"""
HIDDEN = "sys._current_frames = lambda: [1, 2]"  # the design hides its thread
ABUSES = {
    "a thread forks all the time": design(THREAD, "return 1", BOMB + HIDDEN),
    "a stolen fork never reports": design("pass", "return 1", f"""
from jail import layers
def steal():
    if {FORK} == 0:
        while True: time.sleep(1)
    return -1
layers.fork_worker = steal"""),
    "a stolen fork ends": design("pass", "return 1", f"""
from jail import layers
def steal():
    if {FORK} == 0: os._exit(0)
    return 7
layers.fork_worker = steal"""),
    "the worker says that it was forked": design("pass", "return 1", "from jail import layers\nlayers.fork_worker = lambda: 7"),
    "the worker reports itself": design("pass", "return 1", f"""
from jail import layers
def steal():
    pid = {FORK}
    if pid: ctypes.CDLL(None).syscall(112)
    while True: time.sleep(1)
layers.fork_worker = steal"""),
    "the worker plays the fork": design("pass", "return 1", f"""
from jail import layers
def steal():
    {FORK} or time.sleep(100)
    return 0
layers.fork_worker = steal"""),
    "a fork forks": design("pass", f"return [{FORK} for _ in range(50)]"),
    "a fork forks while others are allowed": design(
        "pass", THREAD + "\n        time.sleep(0.5)\n        return len(forked)", BOMB),
    "a fork will not end": design("pass", "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15, 17)]; "
                                          "asyncio.get_running_loop().run_in_executor(None, time.sleep, 100); return 1"),
    "a fork plays the worker": design("pass", "[os.write(n, b'\\0\\0\\0\\2{}') for n in range(4, 256) if held(n)]; return 1",
                                      "def held(n):\n    try: return os.fstat(n)\n    except OSError: return None"),
}


@BOTH
@pytest.mark.parametrize("name", ABUSES)
def test_only_the_forks_that_the_host_asked_for_come_about_and_none_lives_on(
        run_with_forks, name, disable, monkeypatch):
    monkeypatch.setattr("sandbox.START_SECONDS", 3.0)
    most = 0

    async def work(retrieve, worker, box):
        nonlocal most
        outcomes, session = Counter(), box._template._process.pid
        for _ in range(2):
            retrieving = [asyncio.ensure_future(retrieve()) for _ in range(3)]
            await asyncio.wait(retrieving, timeout=1)
            most = max(most, len(left_behind([session])))
            for outcome in await asyncio.gather(*retrieving, return_exceptions=True):
                assert isinstance(outcome, (int, list, DesignError, CannotFork, WorkerKilled)), outcome
                outcomes[str(outcome)[:40]] += 1
        async with box.worker(design("pass", "return 4"), StandIns()) as other:
            assert await other.retrieve({}) == 4
        left = left_behind([session])
        return outcomes, [one for one in left if len(left) > 3 + 1]  # template, its stub, the worker and its first process

    outcomes, left = run_with_forks(ABUSES[name], work, disable=disable)
    assert most <= 4 + 3 and not left
    if name.startswith("a fork forks"):
        assert outcomes == {"a fork forks": {str([-1] * 50)[:40]: 6}}.get(name, {"0": 6})


# --------------------------------------------------------------------------------- whole evaluations


def collection_tasks() -> int:
    """Tasks of the toy domain's collection half."""
    learning = [task for task in Doors.tasks() if task.split == "learning"]
    return len(halve(learning, 42)[0])


@pytest.mark.parametrize("top", [CLOSURE, CLOSURE + "\nopen('file', 'w').close()\n"], ids=["forked", "built again"])
def test_hidden_state_reaches_every_task_and_no_retrieval_reaches_another(tmp_path, top):
    source = design("note(1)", "return {'seen': note(1)}", top)
    scores, _ = scores_of(tmp_path, {"hidden": source}, passes=1, collection_passes=2)
    assert {one.retrieved["seen"] for one in scores["hidden"].outcomes} == {1 + 2 * collection_tasks()}


def test_a_retrieval_that_writes_a_file_gets_a_memory_of_its_own(tmp_path):
    source = design("self.n = 1", "open('x', 'a').write('x'); return {'x': open('x').read(), 'n': self.n}")
    scores, _ = scores_of(tmp_path, {"writes": source}, passes=1)
    assert not scores["writes"].errors
    assert {str(one.retrieved) for one in scores["writes"].outcomes} == {str({"x": "x", "n": 1})}


def test_without_forks_memories_are_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ALMA_SANDBOX_DISABLE", "seccomp")
    source = design("note(1)", "return {'seen': note(1)}", CLOSURE)
    scores, _ = scores_of(tmp_path, {"hidden": source}, passes=1, unsafe_sandbox=True)
    assert {one.retrieved["seen"] for one in scores["hidden"].outcomes} == {1 + collection_tasks()}


def test_a_template_that_is_killed_during_a_deployment_costs_nothing(tmp_path):
    source = design("note(1)", "return {'seen': note(1)}", CLOSURE)
    assert Path("/proc").is_dir()
    real, killed = Sandbox.worker, []

    def worker(self, source, tools, forks=False):
        if forks and not killed:
            killed.append(asyncio.get_running_loop().call_later(0.3, os.kill, self._template._process.pid, signal.SIGKILL))
        return real(self, source, tools, forks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sandbox, "worker", worker)
        scores, _ = scores_of(tmp_path, {"hidden": source})
    assert killed and not scores["hidden"].errors
    assert {one.retrieved["seen"] for one in scores["hidden"].outcomes} == {1 + collection_tasks()}


FORKED_WHILE_A_THREAD_WAITS = """
import os, sys, threading, time
from jail import layers

forker = os.fork()
if forker == 0:
    sys.setswitchinterval(1e-6)  # the other thread demands the interpreter's lock all the time
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    for _ in range(200):
        if layers.fork_worker() == 0:
            os._exit(0)
    os._exit(0)
ended, end = 0, time.monotonic() + 60
while ended < 201 and time.monotonic() < end:  # the forks are this process's children
    ended += os.waitpid(-1, os.WNOHANG)[0] > 0
    time.sleep(0.001)
print(ended)
"""


def test_a_fork_never_waits_for_a_thread_that_it_does_not_have():
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED_WHILE_A_THREAD_WAITS], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.communicate(timeout=90)[0].strip() == "201"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("times", [1, 1000])
def test_a_worker_that_ends_before_it_is_forked_learns_anew_a_few_times(tmp_path, monkeypatch, capfd, times):
    source = design("note(1)", "return {'seen': note(1)}", CLOSURE)
    start_as_fork, of_sandbox, late, started = Worker._start_as_fork, Sandbox.worker, [], []

    async def too_late(copy, worker):
        if len(late) < times:
            late.append(worker)
            worker._stop(DesignError("timeout", "fork took more than 60 s"))
            raise CannotFork("no fork came in 60 s")
        await start_as_fork(copy, worker)

    def worker(self, source, tools, forks=False):
        if source is not None:  # the sandbox's own look at the layers
            started.append(forks)
        return of_sandbox(self, source, tools, forks)

    monkeypatch.setattr(Worker, "_start_as_fork", too_late)
    monkeypatch.setattr(Sandbox, "worker", worker)
    scores, _ = scores_of(tmp_path, {"hidden": source}, passes=1)
    log = capfd.readouterr().err
    assert {one.retrieved["seen"] for one in scores["hidden"].outcomes} == {1 + collection_tasks()}
    assert not scores["hidden"].errors
    if times == 1:
        assert started == [True, True] and "learns again: no fork came" in log and "for each task" not in log
    else:
        assert started.count(True) == MOST_LEARNED and "learns again for each task, which takes longer: " in log
