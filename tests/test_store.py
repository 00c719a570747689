"""The store keeps what it was given, whatever happens to its process and its disk."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from errors import InfrastructureError, UserError
from models.store import Call, Store

ROOT = Path(__file__).resolve().parents[1]
CALL = Call(
    "key", "agent", "gpt-5-nano:low", "design", "agent", "pass 1", "hash", "", "go \ud7ff ☃ north", "",
    1000, 400, 50, 20, 0.00004, 1.5, 1e9,
)  # fmt: skip


def test_what_was_put_comes_back_equal_after_reopening(tmp_path):
    vectors = {"a": [0.1, 1e-8, 3.0], "b": [1.0, 0.0, -1.0]}
    with Store(tmp_path / "store.sqlite") as store:
        store.put_call(CALL)
        rounded = store.put_vectors(replace(CALL, key="vectors"), vectors)
        store.put_episode("episode", {"reward": 0.1, "steps": [{"obs": "x\u0000y"}]})
    with Store(tmp_path / "store.sqlite") as store:
        assert store.get_call("key") == CALL
        assert store.get_call("none") is None
        assert store.get_vectors(["b", "a", "c"]) == rounded
        assert rounded["a"] == pytest.approx(vectors["a"])
        assert store.get_episode("episode") == {"reward": 0.1, "steps": [{"obs": "x\u0000y"}]}
        assert store.get_call("vectors") == replace(CALL, key="vectors")


def test_a_call_is_counted_once_however_often_it_is_put(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        for _ in range(3):
            store.put_call(CALL)
        store.put_call(replace(CALL, key="2", usd=None))
        [row] = store.usage()
    assert (row["calls"], row["prompt_tokens"], row["usd"], row["unpriced"]) == (2, 2000, 0.00004, 1)


def test_dollars_of_a_model_without_a_price_are_unknown_and_not_zero(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.put_call(replace(CALL, usd=None))
        assert store.usage()[0]["usd"] is None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_one_line_for_the_user(tmp_path, content):
    (tmp_path / "store.sqlite").write_bytes(content)
    with pytest.raises(UserError, match=r"store\.sqlite is not a store that can be read") as caught:
        Store(tmp_path / "store.sqlite")
    assert "\n" not in str(caught.value)


def test_a_file_with_a_broken_page_is_noticed_when_it_is_opened(tmp_path):
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        for number in range(2000):
            store.put_call(replace(CALL, key=str(number), answer="x" * 200))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(8192))
    with pytest.raises(UserError, match="not a store that can be read"):
        Store(path)


def test_a_folder_that_cannot_be_written_is_one_line_for_the_user(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        Store(tmp_path / "no" / "such" / "store.sqlite")


def _run(python: str, code: str, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [python, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def test_one_process_writes_and_others_may_read(tmp_path, python):
    code = """
        import sqlite3, sys
        from errors import UserError
        from models.store import Store
        try:
            Store(sys.argv[1])
        except UserError as error:
            print(error)
        with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as beside:
            print(*beside.execute("select count(*) from calls").fetchone())
    """
    with Store(tmp_path / "store.sqlite") as store:
        store.put_call(CALL)
        refused, count = _run(python, code, tmp_path / "store.sqlite").communicate(timeout=30)[0].splitlines()
    assert "in use by another process" in refused
    assert count == "1"


def test_every_call_that_was_put_is_there_after_a_sigkill(tmp_path, python):
    code = """
        import sys
        from dataclasses import replace
        from models.store import Store
        from tests.test_store import CALL
        store, number = Store(sys.argv[1]), 0
        while True:
            store.put_call(replace(CALL, key=str(number)))
            print(number, flush=True)
            number += 1
    """
    path, said = tmp_path / "store.sqlite", -1
    for killed_after in (1, 37, 1500):  # the last is past the first checkpoint of the log
        process = _run(python, code, path)
        for line in process.stdout:
            said = int(line)
            if said >= killed_after:
                process.send_signal(signal.SIGKILL)
                break
        said = max([said, *(int(line) for line in process.communicate()[0].split())])
        with Store(path) as store:  # the lock ended with the process
            assert all(store.get_call(str(number)) for number in range(said + 1))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB of its own, if this machine lets us mount one."""
    if not shutil.which("mount"):
        pytest.skip("needs the mount command")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"may not mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_in_one_line_and_the_store_goes_on_when_there_is_room(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 150_000)
    store, kept = Store(small_disk / "store.sqlite"), []
    with pytest.raises(InfrastructureError, match=r"disk is full|is the disk full") as caught:
        for number in range(10_000):
            store.put_call(replace(CALL, key=str(number), answer="x" * 500))
            kept.append(str(number))
    assert "\n" not in str(caught.value)
    with pytest.raises(InfrastructureError):
        store.put_vectors(replace(CALL, key="vectors"), {"a": [0.0] * 10_000})
    assert kept and all(store.get_call(key) for key in kept)
    filler.unlink()
    store.put_call(replace(CALL, key="after"))
    store.close()
    with Store(small_disk / "store.sqlite") as store:
        assert all(store.get_call(key) for key in [*kept, "after"])
        assert store.get_call("vectors") is None


def test_a_disk_that_is_full_from_the_start_is_said_in_one_line(small_disk):
    (small_disk / "filler").write_bytes(b"x" * 400 * 1024)
    with pytest.raises(InfrastructureError, match="full"):
        Store(small_disk / "store.sqlite")


def test_a_store_in_the_middle_of_growing_is_whole_for_sqlite(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.put_call(CALL)
        beside = sqlite3.connect(tmp_path / "store.sqlite")
        assert beside.execute("pragma integrity_check").fetchone() == ("ok",)
        beside.close()


EPISODE = {"reward": 1.0, "steps": [{"obs": f"You see a door and a key. Turn {turn}. ☃"} for turn in range(100)]}


def test_episodes_and_long_texts_are_stored_compressed(tmp_path):
    long = replace(CALL, key="long", request="north " * 1000, answer="☃ " * 1000)
    with Store(tmp_path / "store.sqlite") as store:
        store.put_episode("long", EPISODE)
        store.put_call(long)
    with sqlite3.connect(tmp_path / "store.sqlite") as beside:
        [(size,)] = beside.execute("select length(episode) from episodes")
        [(request, answer)] = beside.execute("select length(request), length(answer) from calls")
    assert size < len(json.dumps(EPISODE)) / 10 and request < 100 and answer < 100
    with Store(tmp_path / "store.sqlite") as store:
        assert (store.get_episode("long"), store.get_call("long")) == (EPISODE, long)


def test_a_store_with_episodes_as_text_is_read_and_copied(tmp_path):
    with Store(tmp_path / "old.sqlite"):
        pass
    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.execute("insert into episodes values (?, ?)", ("old", json.dumps(EPISODE)))
    with Store(tmp_path / "old.sqlite") as store:
        store.put_episode("new", EPISODE)
        assert store.get_episode("old") == store.get_episode("new") == EPISODE
    with Store(tmp_path / "copy.sqlite") as store:
        store.copy_episodes(tmp_path / "old.sqlite")
        assert store.get_episode("old") == store.get_episode("new") == EPISODE
