"""The sandbox holds: random bytes, limits, dying hosts, missing layers; and honest designs do not notice."""

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import BudgetError, DesignError, InfrastructureError, UserError
from jail import frames, layers
from jail.frames import LENGTH, Limits
from memory_base import Trajectory
from sandbox import Sandbox, check

ROOT = Path(__file__).resolve().parents[1]
SHORT = Limits(cpu_seconds=0.8, wall_seconds=2.5, io_seconds=2.0)
LONG = Limits(cpu_seconds=15, wall_seconds=60, io_seconds=20)
LINUX = sys.platform == "linux" and os.uname().machine == "x86_64"
pytestmark = pytest.mark.skipif(not LINUX, reason="the sandbox's layers are those of Linux on x86-64")


class Tools:
    """The host's models, small and deterministic."""

    def __init__(self):
        self.asked = []

    async def ask(self, system, user, schema, model):
        self.asked.append(user)
        await asyncio.sleep(0)
        return json.dumps({"echo": user[:40]}) if schema else f"answer to {user[:40]}"

    async def embed(self, texts):
        await asyncio.sleep(0)
        return [[float(len(text)), float(sum(map(ord, text[:50])) % 97), 1.0] for text in texts]


def trajectories(count: int) -> list[Trajectory]:
    steps = [{"action_took": "go north", "obs": "A hall.", "scores": 0.5, "dones": False}] * 3
    return [Trajectory({"obs": f"You are in room {i}.", "goal": "leave"}, steps, i % 2) for i in range(count)]


def left_behind(sessions: list[int]) -> list[str]:
    """Processes of these sessions that still live."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) in sessions and fields[0] != "Z":
                found.append(f"process {entry}")
    return found


# -------------------------------------------------------------------- the host's side of the wire


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def box(runner):
    """A sandbox for many tests, with short limits."""
    box = Sandbox(trajectories(3), limits=SHORT)
    runner.run(box.__aenter__())
    yield box
    runner.run(box.__aexit__())


def design(update: str = "pass", retrieve: str = "return {}", top: str = "") -> str:
    """The source of a design with these bodies, one line each."""
    return f"""
import asyncio, gc, json, os, struct, sys, time
from memory_base import *
{top}
class Design(MemoryDesign):
    async def general_update(self, trajectory):
        {update}
    async def general_retrieve(self, trajectory):
        {retrieve}
"""


async def update_once(box: Sandbox, source: str, tools=None) -> str:
    """Status of loading, learning one trajectory, and retrieving once."""
    try:
        async with box.worker(source, tools or Tools()) as worker:
            await worker.update(0)
            await worker.retrieve({"obs": ""})
    except DesignError as error:
        return error.status
    return "ok"


WRITER = design('os.write(3, bytes.fromhex(trajectory.init["bytes"]))')


async def send(box: Sandbox, data: bytes) -> str:
    """Status after a worker has written these bytes to the host during an update."""
    try:
        async with box.worker(WRITER, Tools()) as worker:
            await worker.update(Trajectory({"bytes": data.hex()}))
            await worker.retrieve({})
    except DesignError as error:
        return error.status
    return "ok"


def frame(body: bytes, claimed: int | None = None) -> bytes:
    return LENGTH.pack(len(body) if claimed is None else claimed) + body


BAD_FRAMES = {
    "too long": frame(b"{}", 1 << 31),
    "longer than allowed": frame(b"{}", SHORT.frame_bytes + 1),
    "never ending": frame(b"{", 1000),
    "half a length": b"\0\0",
    "empty": frame(b""),
    "not JSON": frame(b"hello"),
    "not UTF-8": frame(b'{"op": "\xff"}'),
    "UTF-16": frame('{"op":"done"}'.encode("utf-16")),
    "no object": frame(b"[1, 2]"),
    "no operation": frame(b"{}"),
    "unknown operation": frame(b'{"op": "quit"}'),
    "deep": frame(b"[" * 50_000),
    "deep in a field": frame(b'{"op":"done","id":2,"value":' + b"[" * 900 + b"]" * 900 + b"}"),
    "wide": frame(b'{"op":"done","id":2,"value":[' + b"0," * 1_000_000 + b"0]}"),
    "NaN": frame(b'{"op":"done","id":2,"value":NaN}'),
    "1e999": frame(b'{"op":"done","id":2,"value":1e999}'),
    "a long number": frame(b'{"op":"done","id":2,"value":' + b"9" * 100_000 + b"}"),
    "a number for an id": frame(b'{"op":"done","id":1e999,"value":1}'),
    "true for an id": frame(b'{"op":"done","id":true,"value":1}'),
    "a call never made": frame(b'{"op":"done","id":77,"value":1}'),
    "no id": frame(b'{"op":"call","tool":"ask","arguments":["", ""]}'),
    "two answers": frame(b'{"op":"done","id":2}') * 2,
    "10,000 requests": frame(b'{"op":"call","id":7,"tool":"ask","arguments":["","x",null,null]}') * 1_000,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_ends_the_worker_and_nothing_else(runner, box, name):
    status = runner.run(asyncio.wait_for(send(box, BAD_FRAMES[name]), 30))
    assert status in {"protocol", "invalid", "budget", "timeout"}
    assert runner.run(update_once(box, design())) == "ok"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(
    st.binary(max_size=200),
    st.builds(frame, st.binary(max_size=200)),
    st.builds(frame, st.builds(lambda value: json.dumps(value).encode(), st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["op", "id", "value", "x"]), inner)))),
    st.builds(lambda op, number, rest: frame(json.dumps({"op": op, "id": number, **rest}).encode()),
              st.sampled_from(["done", "fail", "call", "hello", "x"]), st.integers(-1, 5) | st.text(),
              st.dictionaries(st.sampled_from(["value", "error", "tool", "arguments"]), st.text() | st.none())),
), max_size=4))
def test_random_frames_end_in_a_judgement(runner, box, pieces):
    status = runner.run(asyncio.wait_for(send(box, b"".join(pieces)), 30))
    assert status in {"ok", "protocol", "invalid", "error", "timeout", "budget"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="[]{}\":,0123456789eEnNaulsI.-", max_size=200).map(str.encode))
def test_whatever_is_parsed_is_bounded_finite_whole_text(body):
    try:
        value = frames.judge(frames.parse(body, SHORT), SHORT)
    except DesignError:
        return
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()  # no lone surrogates
    assert json.loads(text) == value


BIG_QUESTIONS = """
        question = {'op': 'call', 'id': 1, 'tool': 'ask', 'arguments': ['', 'x' * 300_000, None, None]}
        body = json.dumps(question).encode()
        for _ in range(2000):
            os.write(3, struct.pack('!I', len(body)) + body)
"""


class SlowTools(Tools):
    """Answers nothing before it is told to."""

    def __init__(self):
        super().__init__()
        self.end = asyncio.Event()

    async def ask(self, system, user, schema, model):
        self.asked.append(len(user))
        await self.end.wait()
        return "late"


def test_requests_that_are_not_yet_answered_wait_in_the_worker_not_in_the_host(runner, box):
    async def flood():
        tools, before = SlowTools(), resident_bytes()
        running = asyncio.ensure_future(update_once(box, design(BIG_QUESTIONS), tools))
        await asyncio.wait({running}, timeout=1.5)
        asked, grown = len(tools.asked), resident_bytes() - before
        tools.end.set()
        return asked, grown, await running

    asked, grown, status = runner.run(flood())
    assert asked == SHORT.parallel and grown < 100 << 20
    assert status in {"budget", "timeout", "protocol"}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_worker_that_stops_reading_is_ended(runner):
    # A thread that holds the interpreter's lock for good: nothing reads any more.
    stop_reading = design("__import__('ctypes').PyDLL(None).sleep(60)")

    async def run():
        limits = Limits(wall_seconds=60, cpu_seconds=60, io_seconds=0.5)
        async with Sandbox([], limits=limits) as box, box.worker(stop_reading, Tools()) as worker:
            learning = asyncio.ensure_future(worker.update(Trajectory({})))
            await asyncio.wait({learning}, timeout=0.3)
            await worker._write(frames.pack({"op": "answer", "id": 9, "value": "x" * 3_000_000}))
            await learning

    with pytest.raises(DesignError, match="did not read"):
        runner.run(asyncio.wait_for(run(), 30))


# ---------------------------------------------------------------------------------------- limits

TOO_MUCH = {
    "cpu": ("timeout", design("while True: pass")),
    "wall": ("timeout", design("time.sleep(60)")),
    "memory": ("error", design("self.x = bytearray(900 << 20)")),
    "threads": ("error", design("import threading; e = threading.Event(); "
                                "[threading.Thread(target=e.wait, daemon=True).start() for _ in range(100)]")),
    "descriptors": ("error", design("[os.dup(1) for _ in range(300)]")),
    "scratch": ("error", design("open('a', 'wb').write(b'x' * (65 << 20))")),
    "scratch in pieces": ("error", design("[open(str(i), 'wb').write(b'x' * (1 << 20)) for i in range(70)]")),
    "scratch names": ("error", design("[os.mkdir(str(i)) for i in range(3000)]")),
    "calls": ("budget", design("[await llm('x') for _ in range(600)]")),
    "calls at once": ("budget", design("await asyncio.gather(*(llm('x') for _ in range(600)))")),
    "prompt": ("error", design("await llm('x' * 500_000)")),
    "retrieved": ("invalid", design(retrieve="return 'x' * 1_100_000")),
    "depth": ("invalid", design(retrieve="return __import__('functools').reduce(lambda x, _: [x], range(80))")),
    "output": ("flood", design("while True: print('x' * 10000)")),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_goes_past_a_limit_is_the_designs_fault(runner, box, name):
    status, source = TOO_MUCH[name]
    assert runner.run(update_once(box, source)) == status


def test_a_flood_stops_its_worker_once_however_long_it_goes_on(runner):
    async def run():
        stops = []
        output = frames.Output(Limits(flood_bytes=100), stops.append)
        writing = output.open()
        for _ in range(5):
            os.write(writing, b"x" * 60)
            output.text()
        os.close(writing)
        output.close()
        return [stop.status for stop in stops]

    assert runner.run(run()) == ["flood"]


def test_what_a_design_prints_like_a_trace_takes_no_more_time_to_clean_than_other_text(runner):
    head, line = b"Thread 0x... (most recent call first):\n  File x\n  File ", b'  File "design.py"'

    async def seconds(text: bytes) -> float:
        output = frames.Output(Limits(), lambda error: None)
        with open(output.open(), "wb") as writing:
            writing.write(text)
        started = time.process_time()
        output.text()
        output.close()
        return time.process_time() - started

    like_a_trace = head + line * 1700 + b"\x7f" * 30_000  # one line without an end
    other = b"x" * (len(like_a_trace) - 30_000) + b"\x7f" * 30_000
    assert runner.run(seconds(like_a_trace)) < 5 * runner.run(seconds(other)) + 0.1


@pytest.mark.parametrize("disable", [(), ("namespaces",)])
def test_the_kernel_ends_a_worker_that_has_used_up_the_cpu_time_of_its_life(runner, disable):
    async def run():
        limits = Limits(cpu_seconds=60, life_cpu_seconds=1)
        async with Sandbox(trajectories(1), limits=limits, disable=disable) as box:
            return await update_once(box, design("while True: pass"))

    assert runner.run(run()) == "timeout"


@pytest.mark.parametrize(("status", "body"), [
    ("ok", "[open('a', 'w').close() for _ in range(200)]; open('a', 'w').write('x' * 1_000_000)"),
    ("error", "[open(str(i), 'w').close() for i in range(300)]"),
    ("error", "[os.mkdir(str(i)) for i in range(300)]"),
    ("error", "open('a', 'wb').write(b'x' * (3 << 20))"),
    ("error", "os.posix_fallocate(os.open('a', os.O_RDWR | os.O_CREAT), 0, 1 << 20)"),
    ("error", "[os.open('.', os.O_TMPFILE | os.O_RDWR) for _ in range(300)]"),
    ("error", "os.chmod('/', 0o777)"),
    ("error", "os.utime('/')"),
    ("error", "os.truncate(json.__file__, 0)"),
    ("error", "os.open(json.__file__, os.O_TRUNC)"),
])
def test_without_a_mount_namespace_files_are_counted_and_others_cannot_be_changed(runner, bare_box, status, body):
    assert runner.run(update_once(bare_box, design(body))) == status


@pytest.fixture(scope="module")
def bare_box(runner):
    """A sandbox without namespaces."""
    box = Sandbox(trajectories(3), limits=SHORT, disable=("namespaces",))
    runner.run(box.__aenter__())
    yield box
    runner.run(box.__aexit__())


def test_waiting_for_a_model_is_not_the_designs_time(runner):
    limits = Limits(wall_seconds=1.0)

    class Patient(Tools):
        async def ask(self, *_):
            await asyncio.sleep(2 * limits.wall_seconds)
            return "at last"

    async def run():
        async with Sandbox(trajectories(1), limits=limits) as box:
            return await update_once(box, design("assert await llm('x') == 'at last'"), Patient())

    assert runner.run(run()) == "ok"


# ------------------------------------------------------------------------------ whose fault it is


@pytest.mark.parametrize("error", [InfrastructureError("down"), BudgetError("spent"), KeyError("a bug")])
def test_what_the_models_raise_comes_out_and_is_not_the_designs_fault(runner, box, error):
    class Failing(Tools):
        async def ask(self, *_):
            raise error

    source = design("await asyncio.gather(llm('x'), llm('y'), return_exceptions=True)")

    async def run():
        async with box.worker(source, Failing()) as worker:
            await worker.update(0)

    with pytest.raises(type(error)) as raised:
        runner.run(run())
    assert raised.value is error


def test_a_template_that_dies_is_no_fault_of_the_design_and_is_started_again(runner):
    async def run():
        async with Sandbox(trajectories(1), limits=SHORT) as box:
            with pytest.raises(InfrastructureError):
                async with box.worker(design("await llm('x')"), SlowTools()) as worker:
                    learning = asyncio.ensure_future(worker.update(0))
                    os.kill(box._template._process.pid, signal.SIGKILL)
                    await learning
            return await update_once(box, design())

    assert runner.run(run()) == "ok"


def test_a_killed_probe_is_no_sign_that_the_kernel_refuses_something():
    with pytest.raises(SystemExit, match="something killed"):  # the template ends, and a new one is started
        layers._works(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert not layers._works(lambda: os.kill(os.getpid(), signal.SIGSYS))  # so some kernels refuse a call
    assert layers._works(lambda: None) and not layers._works(lambda: os.stat("/nowhere"))


LOUD = r"""
        print('\x1b[31mred\x1b[0m\x00 text' + 'y' * 200_000)
        raise ValueError('\x1b]0;title\x07wrong')
"""


def test_the_traceback_and_the_output_of_a_design_come_back_cut_and_clean(runner, box):
    async def run():
        async with box.worker(design(LOUD), Tools()) as worker:
            with pytest.raises(DesignError) as raised:
                await worker.update(0)
            return str(raised.value), worker.output

    error, output = runner.run(run())
    assert 'File "design.py"' in error and "raise ValueError" in error and error.endswith("ValueError: ␛]0;title␇wrong")
    assert str(ROOT) not in error and sys.base_prefix not in error
    assert output.startswith("␛[31mred␛[0m␀ text") and "bytes ...]" in output
    assert len(output) < SHORT.output_bytes + 100
    assert not set(error + output) & {"\x1b", "\x00", "\x07"}


@pytest.mark.parametrize("body", ["while True: pass", "__import__('ctypes').string_at(0)"])
def test_a_design_that_hangs_or_crashes_is_told_at_which_line(runner, box, body):
    async def run():
        async with box.worker(design(body), Tools()) as worker:
            await worker.update(0)

    with pytest.raises(DesignError) as raised:
        runner.run(run())
    line = design(body).splitlines().index(f"        {body}") + 1
    assert f'File "design.py", line {line} in general_update' in str(raised.value)
    assert "sandbox_child" not in str(raised.value)


# --------------------------------------------------------------------- copies, seeds, same state

FORGER = design("""
        import builtins, memory_base
        for one in gc.get_objects():
            if isinstance(one, Trajectory):
                one.reward, one.init, one.steps = 1.0, {"obs": "forged"}, []
            elif isinstance(one, dict) and "reward" in one:
                one["reward"] = 1.0
        frame = sys._getframe()
        while frame is not None:
            for value in list(frame.f_locals.values()):
                if isinstance(value, dict):
                    value.update(score=1.0, reward=1.0)
            frame = frame.f_back
        memory_base.Trajectory = json.dumps = json.loads = lambda *a, **k: {"reward": 1.0, "score": 1.0}
        builtins.sum = builtins.max = lambda *a, **k: 1.0
        trajectory.reward = 1.0
""", "return {'score': 1.0, 'reward': 1.0}")


def test_a_design_cannot_change_what_the_host_or_another_worker_holds(runner):
    given = trajectories(3)
    before = json.dumps([vars(one) for one in given])

    async def run():
        async with Sandbox(given, limits=SHORT) as box:
            for _ in range(2):
                await update_once(box, FORGER)
            async with box.worker(design("self.seen = vars(trajectory)", "return self.seen"), Tools()) as worker:
                await worker.update(1)
                return await worker.retrieve({})

    assert runner.run(run()) == vars(given[1])
    assert json.dumps([vars(one) for one in given]) == before


def test_every_worker_begins_in_the_same_state_in_every_run(runner, box):
    source = design("self.state = [random.random(), np.random.rand(), list({'a', 'b', 'c', 'd', 'e'})]",
                    "return self.state", top="import random, numpy as np")

    async def state(box):
        async with box.worker(source, Tools()) as worker:
            await worker.update(0)
            return await worker.retrieve({})

    async def elsewhere():
        async with Sandbox(trajectories(1)) as other:
            return await state(other)

    assert runner.run(state(box)) == runner.run(state(box)) == runner.run(elsewhere())


def test_a_trajectory_is_whole_again_each_time_it_is_learned_from(runner, box):
    count = "self.counts = [*getattr(self, 'counts', []), len(trajectory.steps)]; trajectory.steps.clear()"

    async def run():
        async with box.worker(design(count, "return self.counts"), Tools()) as worker:
            await worker.learn()
            await worker.update(0)
            await worker.update(Trajectory({}, [{}] * 7))
            return await worker.retrieve({})

    assert runner.run(run()) == [3, 3, 3, 3, 7]


def test_a_late_answer_of_a_model_does_not_reach_the_next_call(runner, box):
    source = design("self.late = asyncio.ensure_future(llm('late'))", "return [await llm('now'), await self.late]")

    async def run():
        async with box.worker(source, Tools()) as worker:
            await worker.update(0)
            return await worker.retrieve({})

    assert runner.run(run()) == ["answer to now", "answer to late"]


# ----------------------------------------------------------------------------- missing layers


@pytest.mark.parametrize(("disable", "missing"), [
    (("seccomp",), ["seccomp"]),
    (("landlock", "namespaces"), ["Landlock"]),
    (("landlock", "namespaces", "seccomp"), ["Landlock", "seccomp"]),
    (("linux",), ["Landlock", "seccomp"]),
])
def test_without_a_needed_layer_nothing_runs_unless_asked_for_and_then_it_is_said(runner, disable, missing):
    async def run(unsafe):
        async with Sandbox(trajectories(1), disable=disable, unsafe=unsafe, limits=SHORT) as box:
            return box.unsafe, await update_once(box, design())

    with pytest.raises(UserError) as raised:
        runner.run(run(False))
    assert "\n" not in str(raised.value) and "--unsafe-sandbox" in str(raised.value)
    assert all(name in str(raised.value) for name in missing)
    assert runner.run(run(True)) == (True, "ok")


@pytest.mark.parametrize("layer", ["landlock", "namespaces"])
def test_one_of_the_two_layers_that_guard_files_is_enough(runner, layer, monkeypatch):
    async def run():
        async with Sandbox(trajectories(1), limits=SHORT) as box:
            assert layer not in {name.split()[0] for name in box.layers} and not box.unsafe
            return await update_once(box, design("open('/etc/passwd')"))

    monkeypatch.setenv("ALMA_SANDBOX_DISABLE", layer)
    assert runner.run(run()) == "error"


# ------------------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("disable", [(), ("namespaces",)], ids=["all layers", "no namespaces"])
def test_sixty_workers_leave_nothing_behind(runner, tmp_path, monkeypatch, disable):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = design("open('left', 'w').write('x'); self.late = asyncio.ensure_future(llm('x'))")

    def held():
        return sorted(os.listdir("/proc/self/fd")), Path("/proc/self/mounts").read_text()

    async def run():
        gc.collect()  # what other tests have left
        before = held()
        async with Sandbox(trajectories(1), limits=LONG, disable=disable, max_workers=8) as box:
            session = box._template._process.pid
            ends = await asyncio.gather(*(update_once(box, source) for _ in range(60)))
            assert ends == ["ok"] * 60
            assert len(left_behind([session])) <= 2  # the template and its stub
        assert left_behind([session]) == [] and os.listdir(tmp_path) == []
        assert len(held()[0]) <= len(before[0]) and held()[1] == before[1]

    runner.run(run())


HOST = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from sandbox import Sandbox

class Tools:
    async def ask(self, *_):
        print(box._template._process.pid, flush=True)
        await asyncio.sleep(1000)

source = '''
from memory_base import *
class Design(MemoryDesign):
    async def general_update(self, trajectory): pass
    async def general_retrieve(self, trajectory):
        open("left", "w").close()
        await llm("x")
'''

async def main():
    global box
    async with Sandbox([], disable=sys.argv[2:]) as box, box.worker(source, Tools()) as worker:
        await worker.retrieve({})

asyncio.run(main())
"""


@pytest.mark.parametrize("disable", [(), ("namespaces",)], ids=["all layers", "no namespaces"])
def test_a_host_that_is_killed_leaves_no_worker_no_template_and_no_file(tmp_path, disable):
    command = [sys.executable, "-c", HOST, str(ROOT), *disable]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as host:
        session = int(host.stdout.readline())
        alive = [int(one.split()[1]) for one in left_behind([session])]
        assert len(alive) >= 2
        watched = [os.pidfd_open(pid) for pid in alive]
        host.kill()
    for descriptor in watched:
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    assert left_behind([session]) == [] and os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------- honest designs

GOOD = {
    "arrays.py": {"mean": 3.375, "shape": [6_553_600]},
    "files.py": {"rows": [[3, 1.0], [3, 1.0]], "steps": 3},
    "concurrency.py": {"together": ["slept", 33], "said": "answer to Earlier in this conversation:\n\nUser: par"},
}


@pytest.mark.parametrize("disable", [(), ("namespaces",)], ids=["all layers", "no namespaces"])
@pytest.mark.parametrize("name", GOOD)
def test_an_honest_design_notices_nothing(runner, name, disable):
    source = (ROOT / "tests" / "good_designs" / name).read_text()
    report = runner.run(check(source, trajectories(3), Tools(), LONG, disable=disable))
    assert report["status"] == "ok", report["error"]
    assert report["retrieved"][0].items() >= GOOD[name].items()
    assert ("INFO:memory:learning from You are in room 0." in report["output"]) == (name == "files.py")


def test_thirty_retrievals_side_by_side_each_with_model_calls(runner):
    source = design("self.said = await llm(trajectory.init['obs'])",
                    "return [self.said, *await asyncio.gather(*(llm(f'{trajectory.init} {i}') for i in range(3)))]")

    async def fresh(box, number):
        async with box.worker(source, Tools()) as worker:
            await worker.update(0)
            return await worker.retrieve({"obs": number})

    async def run():
        async with Sandbox(trajectories(1), limits=LONG) as box:
            apart = await asyncio.gather(*(fresh(box, number) for number in range(30)))
            async with box.worker(source, Tools()) as worker:
                await worker.update(0)
                together = await asyncio.gather(*(worker.retrieve({"obs": number}) for number in range(30)))
            return apart, together

    apart, together = runner.run(run())
    assert apart == together
    assert apart[12] == ["answer to You are in room 0.", *(f"answer to {{'obs': 12}} {i}" for i in range(3))]


@pytest.mark.parametrize(("status", "source"), [
    ("error", "def"), ("error", "x = 1"), ("invalid", design(retrieve="return print")), ("died", design("os._exit(3)"))])
def test_check_reports_a_fault(runner, status, source):
    report = runner.run(check(source, trajectories(1), Tools()))
    assert report["status"] == status and report["error"] and report["retrieved"] is None


def test_check_reports_what_was_retrieved_and_the_layers(runner):
    report = runner.run(check(design(retrieve="return {'n': 1}"), trajectories(2), Tools()))
    assert report["status"] == "ok" and report["error"] is None and report["retrieved"] == [{"n": 1}] * 2
    assert report["seconds"] > 0 and "seccomp" in report["layers"] and not report["unsafe"]
