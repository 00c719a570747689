"""The run folder: whole files, one process at a time, one clear line where something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from harness.run_folder import RunFolder, read_json, write_atomic


def test_a_new_run_has_its_settings_and_versions(tmp_path):
    folder = RunFolder.create(tmp_path, "minihack", "gpt-5-nano:low@http://h/v1", {"seed": 1})
    assert folder.path.name.endswith("-minihack-gpt-5-nano_low")
    config = RunFolder.open(folder.path).config()
    assert config["seed"] == 1 and config["about"]["packages"]["numpy"] != "not installed"


def test_two_runs_in_one_second_get_two_folders(tmp_path):
    paths = {RunFolder.create(tmp_path, "e", "m", {}).path for _ in range(3)}
    assert len(paths) == 3


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, None)
    assert path.read_text() == "old"


def test_an_archive_that_catches_up_is_not_shortened_and_broken_lines_are_left_out(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_archive([{"id": "a"}, {"id": "b"}])
    folder.write_archive([{"id": "a"}])
    assert [line["id"] for line in folder.archive()] == ["a", "b"]
    with open(tmp_path / "archive.jsonl", "a") as file:
        file.write('{"id": "c", "sco')
    assert [line["id"] for line in folder.archive()] == ["a", "b"]


def test_missing_and_damaged_files_are_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no run in"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{half")
    with pytest.raises(UserError, match="cannot read"):
        RunFolder.open(tmp_path).config()
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "none.json")


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path):
    code = "import sys; from harness.run_folder import RunFolder; RunFolder(sys.argv[1]).claim()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[1]
    first = RunFolder(tmp_path)
    first.claim()
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert "another process is at work" in done.stderr
    del first
    assert subprocess.run(command, cwd=root).returncode == 0


def test_files_are_json_with_text_kept(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_archive([{"id": "ä", "error": "‘x’\nnew"}])
    lines = (tmp_path / "archive.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["ä"]
