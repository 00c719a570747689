"""Commands on machines that refuse something: it works, or one line says what is wrong and ends with code 2 or 3.

Real processes under real limits. Where this machine does not let a test set one, the test skips.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ALMA, ROOT, TOY, finish, folder, start

FEW = ["--passes", "1", "--collection-passes", "1", "--folds", "1", "--test-tasks", "4", "--workers", "2", "--plain"]
EVALUATE = ["evaluate", "--env", "tests.toy:Doors", "--design", "no_memory", *FEW]
TASKS = ["tasks", "--env", "tests.toy:Doors"]


def shell(line: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """`alma.py` with these arguments, in the place of `$ALMA` in a line for bash."""
    command = shlex.join([*ALMA, *map(str, arguments)])
    return subprocess.run(
        ["bash", "-c", line.replace("$ALMA", command)],
        cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=200, env={**os.environ, **environment},
    )  # fmt: skip


def in_own_mounts(line: str, *arguments) -> subprocess.CompletedProcess:
    """The same with mounts of its own, which a line can change."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("may not make a mount namespace")
    return shell(f"{shlex.join(unshare)} bash -c {shlex.quote(line)}".replace("'$ALMA'", "$ALMA"), *arguments)


def one_line(done: subprocess.CompletedProcess, *codes: int) -> str:
    """The one line in which a command says why it stopped."""
    assert done.returncode in codes, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and "Error:" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("alma: ")]
    return line


# ------------------------------------------------------------------------------ what works anyway


def test_a_run_works_whatever_the_umask(tmp_path):
    done = shell("umask 077; $ALMA", *EVALUATE, "--runs", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_long_folder_for_temporary_files_works(tmp_path):
    long = tmp_path / ("long-" * 20)
    long.mkdir()
    done = shell("$ALMA", *EVALUATE, "--runs", tmp_path / "runs", TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert not list(long.iterdir())


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_with_closed_standard_streams_ends_as_usual(closed, tmp_path):
    done = shell(f"$ALMA {closed}", *EVALUATE, "--runs", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert "test" in json.loads((folder(tmp_path) / "score.json").read_text())
    if ">&-" not in closed.replace("2>&-", ""):
        assert "test" in json.loads(done.stdout)


@pytest.mark.parametrize(
    "encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_table_is_printed_where_there_is_only_ascii(encoding, tmp_path):
    done = shell("$ALMA", *EVALUATE, "--runs", tmp_path, **encoding)
    assert done.returncode == 0, done.stderr
    assert "no_memory" in done.stdout and done.stdout.isascii()


def test_a_run_learns_without_docstrings_and_assertions(tmp_path):
    """The meta agent is shown docstrings: they come from the source, not from what Python keeps of it."""
    few = [*TOY, "--steps", "2", "--tasks", "6"]
    learned = []
    for level in ("0", "2"):
        done = shell("$ALMA", "learn", *few, "--runs", tmp_path / level, PYTHONOPTIMIZE=level)
        assert done.returncode == 0, done.stderr
        learned.append((folder(tmp_path / level) / "archive.jsonl").read_text())
    assert learned[0] == learned[1]


def test_workers_whose_temporary_folder_is_removed_go_on():
    code = """
import asyncio, shutil, tempfile
from harness.pool import Pool
from tests.test_machines import write_a_file

async def main():
    pool = Pool("tests.toy:Doors", 1)
    folder = await pool.run(write_a_file)
    shutil.rmtree(folder)
    assert await pool.run(write_a_file) == folder
    pool.close()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def write_a_file() -> str:
    """Writes a temporary file in a worker; returns its folder."""
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        return os.path.dirname(file.name)


# --------------------------------------------------------------------------------- what does not


def test_a_run_whose_temporary_folder_is_removed_before_its_workers_start_says_so_in_one_line():
    code = """
import asyncio, multiprocessing.util, shutil
from errors import InfrastructureError
from harness.pool import Pool

async def main():
    pool = Pool("tests.toy:Doors", 1)
    shutil.rmtree(multiprocessing.util.get_temp_dir())
    try:
        await pool.run(print)
    except InfrastructureError as error:
        print(error)
    pool.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "somebody has removed this run's temporary folder\n", done.stderr


@pytest.mark.parametrize("mount", ["-t tmpfs -o ro x /dev/shm", "--bind /proc/fs /dev/shm"])
def test_workers_without_shared_memory_say_what_is_missing(mount, tmp_path):
    line = one_line(in_own_mounts(f"mount {mount} && $ALMA", *EVALUATE, "--runs", tmp_path), 2, 3)
    assert "/dev/shm" in line


@pytest.mark.parametrize("limit", [20, 32, 48, 64])
def test_few_descriptors_are_enough_or_are_named_in_one_line(limit, tmp_path):
    done = shell(f"ulimit -n {limit}; $ALMA", *EVALUATE, "--runs", tmp_path)
    if limit < 48 or (limit == 48 and done.returncode):  # 48 are just enough, or just too few
        assert "ulimit -n" in one_line(done, 3)
    else:
        assert done.returncode == 0, done.stderr


def test_more_workers_than_there_are_descriptors_for_are_refused_in_one_line(tmp_path):
    line = one_line(shell("ulimit -n 256; $ALMA", *EVALUATE, "--workers", 60, "--runs", tmp_path), 3)
    assert "ulimit -n" in line and "--workers" in line


@pytest.mark.parametrize("env", ["textworld", "alfworld"])
def test_no_place_for_generated_games_is_said_in_one_line(env, tmp_path):
    arguments = ["evaluate", "--env", env, "--design", "no_memory", *FEW, "--runs", tmp_path]
    assert "ALMA_CACHE" in one_line(shell("unset ALMA_CACHE; $ALMA", *arguments, HOME="/proc/nowhere"), 2)


def test_games_are_listed_without_a_home_folder():
    unshare = ["unshare", "--user", "--map-user=12345"]  # a user whom no file of users names
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("may not make a user namespace")
    line = f"unset HOME ALMA_CACHE ALFWORLD_DATA; {shlex.join(unshare)}"
    done = shell(f"{line} $ALMA", "tasks", "--env", "alfworld", "--json")
    assert done.returncode == 0, done.stderr
    assert {task["source"] for task in json.loads(done.stdout)} == {"generated"}


@pytest.mark.parametrize("arguments", [TASKS, [*TASKS, "--json"], ["check", "baselines/no_memory.py"]])
def test_a_full_standard_output_is_said_in_one_line(arguments):
    assert "standard output" in one_line(shell("$ALMA >/dev/full", *arguments), 3)


def test_a_run_whose_result_cannot_be_printed_says_where_it_is_kept(tmp_path):
    line = one_line(shell("$ALMA >/dev/full", *EVALUATE, "--runs", tmp_path, "--json"), 3)
    assert str(folder(tmp_path)) in line
    assert "test" in json.loads((folder(tmp_path) / "score.json").read_text())


def test_messages_that_cannot_be_printed_stop_nothing(tmp_path):
    done = shell("$ALMA 2>/dev/full", *EVALUATE, "--runs", tmp_path, "--json")
    assert done.returncode == 0 and "test" in json.loads(done.stdout)
    assert shell("$ALMA 2>/dev/full", "tasks", "--env", "chess").returncode == 2


def test_a_person_who_has_no_standard_input_cannot_play():
    done = shell("$ALMA <&-", "play", "--env", "tests.toy:Doors")
    assert done.returncode == 0 and "score 0.00" in done.stdout and not done.stderr


# ----------------------------------------------------------------------------- the line that resumes


def test_the_line_that_resumes_a_run_can_be_pasted(tmp_path):
    runs, design = tmp_path / "my runs; here", "-it's my $HOME design.py"
    runs.mkdir()
    shutil.copy(ROOT / "baselines" / "no_memory.py", tmp_path / design)
    many = ["--passes", "3", "--collection-passes", "1", "--folds", "1", "--workers", "1", "--plain"]
    arguments = ["evaluate", "--env", "tests.toy:Doors", f"--design={design}", *many, f"--runs={runs}"]
    process = start(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for line in process.stderr:
        if line.startswith("run folder"):
            break
    process.send_signal(signal.SIGINT)
    said = finish(process, 130)
    [line] = [line.removeprefix("resume with: ") for line in said.splitlines() if line.startswith("resume with: ")]
    done = subprocess.run(
        ["bash", "-c", f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; {line}'],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads((folder(runs) / "score.json").read_text())["test"]) == [design]


def test_a_dotenv_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfOPENAI_API_KEY=sk-never-used\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    command = [sys.executable, ROOT / "alma.py", "evaluate", "--env", "babaisai", "--design", "no_memory"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, timeout=100
    )
    assert done.returncode == 2 and "this run will need" in done.stderr
    assert not (tmp_path / "runs").exists() and not list(Path(tmp_path).glob("runs*"))
