"""Hostile programs do not get out: as root and as an ordinary user, with and without namespaces.

The programs of `shared/hostile` and `tests/attacks` are never run outside the sandbox, but for a few
harmless ones that show, in a process that is thrown away, that the canaries work.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]  # this file is run as a program too

from errors import DesignError  # noqa: E402
from memory_base import Trajectory  # noqa: E402
from sandbox import CannotFork, Sandbox  # noqa: E402
from tests.test_sandbox import LINUX, LONG, SHORT, Tools, left_behind, trajectories  # noqa: E402

SECRET = "sk-hostile-canary-" + "real-tail"  # in two parts, so that this file does not hold it
NOBODY = 65534
pytestmark = pytest.mark.skipif(not LINUX, reason="the sandbox's layers are those of Linux on x86-64")


# ------------------------------------------------------------------- the hostile programs' canaries


class Canaries:
    """What a program must not touch: files, sockets, signals, memory, a descriptor, a key."""

    def __init__(self, folder: Path):
        self.folder, self.touched = folder, []
        self.keys = {"OPENAI_API_KEY": SECRET, "memory": bytearray(SECRET.encode())}
        self._plant_files()
        os.environ.update(OPENAI_API_KEY=SECRET, HOME=str(folder / "home"))
        self.descriptor = os.open(folder / "repo" / ".env", os.O_RDONLY)
        os.set_inheritable(self.descriptor, True)
        signal.signal(signal.SIGTERM, lambda *_: self.touched.append("SIGTERM"))
        self._sockets = [
            self._listen(socket.AF_INET, ("127.0.0.1", 47651)), self._listen(socket.AF_UNIX, str(folder / "sock")),
            self._listen(socket.AF_UNIX, "\0hostile_canary_abstract"), socket.socket(type=socket.SOCK_DGRAM)]
        self._sockets[-1].bind(("127.0.0.1", 47652))
        self._before = self._snapshot()

    def _plant_files(self) -> None:
        names = ("home/.ssh/id_rsa", "home/.netrc", "home/.aws/credentials", "home/.bash_history",
                 "repo/.env", "repo/.git/config", "repo/pkg/__init__.py")
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"KEY={SECRET}\n")
        (self.folder / "drop").mkdir()

    @staticmethod
    def _listen(family: int, address) -> socket.socket:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return listener

    def _snapshot(self) -> list:
        paths = sorted(path for path in self.folder.rglob("*") if not path.is_socket())
        return [(str(path), path.lstat().st_mode, path.is_file() and path.read_bytes()) for path in paths]

    def look(self) -> list[str]:
        """What has been touched since the last look."""
        for listener in self._sockets:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                listener.recvfrom(1) if listener.type == socket.SOCK_DGRAM else listener.accept()[0].close()
                self.touched.append(f"socket {listener.getsockname()!r}")
        if self._snapshot() != self._before:
            self.touched.append("files")
            self._before = self._snapshot()
        shared = Path("/dev/shm/hostile_canary_shm")
        if shared.exists():
            self.touched.append(str(shared))
            shared.unlink()
        touched, self.touched = self.touched, []
        return touched

    def source(self, path: Path) -> str:
        return path.read_text(errors="surrogateescape").replace("@CANARY@", str(self.folder))


def programs(shared: Path) -> dict[str, tuple[Path, set[str]]]:
    """Name: (file, statuses that its first line allows)."""
    found = {}
    for path in sorted([*(shared / "hostile").glob("*.py"), *(ROOT / "tests" / "attacks").glob("*.py")]):
        expected = re.search(r"EXPECT: (\S+)", path.open(errors="replace").readline())[1]
        found[path.stem] = (path, set(expected.split(",")))
    return found


def judge(expected: set[str], status: str) -> bool:
    return status in expected or ("contained" in expected and status != "raised")


async def run_hostile(shared: Path, folder: Path, disable: list[str]) -> dict:
    """Every program through the sandbox, side by side: {name: what came of it}."""
    canaries, given = Canaries(folder), trajectories(2)
    before, found, results = json.dumps([vars(one) for one in given]), programs(shared), {}

    async def run(box: Sandbox, name: str) -> None:
        path, expected = found[name]
        status, text = await one_program(box, canaries.source(path), given)
        escaped = "ESCAPED" in text or SECRET in text
        results[name] = {"status": status, "text": text[-300:], "escaped": escaped, "as said": judge(expected, status)}

    hanging, growing = replace(SHORT, cpu_seconds=0.3), replace(LONG, memory_bytes=400 << 20)
    async with (Sandbox(given, limits=hanging, disable=disable, max_workers=5) as short,
                Sandbox(given, limits=growing, disable=disable, max_workers=2) as long):
        sessions = [box._template._process.pid for box in (short, long)]
        boxes = {name: short if "timeout" in expected else long for name, (_, expected) in found.items()}
        async with asyncio.timeout(150):
            await asyncio.gather(*(run(box, name) for name, box in boxes.items()))
    return {"results": results, "layers": short.layers, "touched": canaries.look(),
            "trajectories": before == json.dumps([vars(one) for one in given]),
            "left": left_behind(sessions) + os.listdir(tempfile.gettempdir())}


async def one_program(box: Sandbox, source: str, given: list[Trajectory]) -> tuple[str, str]:
    """Status, and all text that came out, of learning and of retrievals as in a deployment in static mode."""
    text = ""
    try:
        async with box.worker(source, Tools(), forks=True) as worker:
            try:
                await worker.learn()
                for one in given:
                    async with worker.fork(Tools()) as fork:
                        try:
                            text += json.dumps(await fork.retrieve(one.init))
                        finally:
                            text += fork.output
                return "ok", text
            except CannotFork:
                pass
            finally:
                text += worker.output
        async with box.worker(source, Tools()) as worker:
            try:
                await worker.learn()
                text += json.dumps([await worker.retrieve(one.init) for one in given])
            finally:
                text += worker.output
    except DesignError as error:
        return error.status, text + str(error)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    return "ok", text


def run_in_plain_fork(shared: Path, folder: Path) -> list[str]:
    """Names of the programs that trip a canary where there is no sandbox; in a disposable process."""
    canaries, tripped = Canaries(folder), []
    for name in TRIP:
        source, (reading, writing) = canaries.source(shared / "hostile" / f"{name}.py"), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, plain_text(source).encode(errors="replace")[:60_000])
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as stream:
            text = stream.read().decode(errors="replace")
        os.waitpid(pid, 0)
        if "ESCAPED[" in text or canaries.look():
            tripped.append(name)
    return tripped


def plain_text(source: str) -> str:
    space = {"__name__": "hostile", "__file__": "hostile.py"}
    try:
        exec(compile(source, "hostile.py", "exec"), space)
        design = space["MemoryDesign"]()
        asyncio.run(design.general_update(trajectories(1)[0]))
        return str(asyncio.run(design.general_retrieve({})))
    except BaseException as error:
        return repr(error)


# Programs that are harmless enough to run without a sandbox, in a process that is thrown away.
TRIP = ("clear_pdeathsig", "disk_devshm", "fd_bomb", "heap_scan", "kill_probe_all", "net_listen", "net_tcp",
        "net_unix", "proc_ppid_mem", "read_dotenv", "read_home", "shell", "stop_parent_pidfd", "write_package")

# Starts a command as another user, in mount and network namespaces of its own: so that several runs
# can bind the same ports, and so that an interpreter in a closed home folder can be read.
LAUNCH = """
import ctypes, fcntl, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
user, cut = int(sys.argv[1]), sys.argv.index("--")
paths, command = sys.argv[2:cut], sys.argv[cut + 1:]
def closed(path):
    tops = ["/".join(path.split("/")[:n]) for n in range(2, path.count("/") + 1)]
    return next((top for top in tops if not os.stat(top).st_mode & 1), None)
check(libc.unshare(0x20000 | 0x40000000))
check(libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None))
inside = {}
for path in paths:
    inside.setdefault(closed(path), []).append(path)
for top in filter(None, inside):
    opened = [os.open(path, os.O_PATH) for path in inside[top]]
    check(libc.mount(b"tmpfs", top.encode(), b"tmpfs", ctypes.c_ulong(0), b"mode=755"))
    for descriptor, path in zip(opened, inside[top]):
        os.makedirs(path, exist_ok=True)
        check(libc.mount(b"/proc/self/fd/%d" % descriptor, path.encode(), None, ctypes.c_ulong(0x5000), None))
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
os.execv(command[0], command)
"""


# ------------------------------------------------------------------------------ hostile programs


def start(what: str, folder: Path, shared: Path, user: int = 0, disable: tuple[str, ...] = ()) -> subprocess.Popen:
    """This file as a program that runs the hostile designs, as root or another user."""
    temporary, canaries = folder / "tmp", folder / "canaries"
    for path in (temporary, canaries):
        path.mkdir(parents=True)
        path.chmod(0o777)
    needed = {sys.base_prefix, sys.prefix, str(ROOT), str(shared), str(folder)}
    command = [sys.executable, __file__, what, str(shared), str(canaries), *disable]
    if os.geteuid() == 0:
        command = [sys.executable, "-c", LAUNCH, str(user), *sorted(needed), "--", *command]
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        return subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, "TMPDIR": str(temporary)})


CONFIGURATIONS = {"root": (0, ()), "root without namespaces": (0, ("namespaces",)),
                  "user": (NOBODY, ()), "user without namespaces": (NOBODY, ("namespaces",))}


@pytest.fixture(scope="module")
def hostile_runs(shared, tmp_path_factory):
    """The four runs, side by side; an ordinary user has two of them, one after the other."""
    running = {}
    for name, (user, disable) in CONFIGURATIONS.items():
        if os.geteuid() and not user:
            continue
        folder = Path(tempfile.mkdtemp(prefix="alma-test-"))  # pytest's own folders are closed to others
        folder.chmod(0o755)
        running[name] = (start("sandbox", folder, shared, user, disable), folder)
        if os.geteuid():
            running[name][0].wait()
    yield running
    for process, folder in running.values():
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_hostile_program_ends_as_its_first_line_says_and_none_escapes(hostile_runs, name):
    if name not in hostile_runs:
        pytest.skip("needs root")
    process, folder = hostile_runs[name]
    assert process.wait() == 0, (folder / "err").read_text()
    run = json.loads((folder / "out").read_text())
    wrong = {key: one for key, one in run["results"].items() if one["escaped"] or not one["as said"]}
    assert len(run["results"]) >= 98
    assert not wrong
    assert run["touched"] == [] and run["left"] == [] and run["trajectories"]
    assert {"seccomp", "limits", "no-capabilities"} <= set(run["layers"])
    assert ("namespaces" in run["layers"]) == (not CONFIGURATIONS[name][1])


def test_the_canaries_trip_where_the_programs_run_in_a_plain_fork(shared, tmp_path):
    process = start("fork", tmp_path, shared)
    assert process.wait() == 0, (tmp_path / "err").read_text()
    assert len(json.loads((tmp_path / "out").read_text())) >= 10


if __name__ == "__main__":
    what, shared_folder, canary_folder, *disabled = sys.argv[1:]
    if what == "sandbox":
        print(json.dumps(asyncio.run(run_hostile(Path(shared_folder), Path(canary_folder), disabled))))
    else:
        print(json.dumps(run_in_plain_fork(Path(shared_folder), Path(canary_folder))))
