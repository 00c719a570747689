"""The command line as a user meets it: real processes, one line and exit code 2 for a mistake."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def alma(*arguments, program=(sys.executable, str(ROOT / "alma.py")), **options):
    command = [*program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=options.pop("cwd", ROOT), **options)


def test_help_imports_no_engine_and_no_client():
    code = "import sys\nfrom harness import cli\ntry: cli.parse(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for heavy in ("openai", "numpy", "gymnasium", "minihack", "textworld", "jinja2", "matplotlib", "rich"):
        assert f"'{heavy}'" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tasks", "--env", "chess"], "unknown environment 'chess'"),
        (["ablation", "--env", "tests.toy:Doors", "--seeds", "0"], "--seeds must be at least 1"),
        (["learn", "--env", "tests.toy:Doors", "--test-passes", "1000000000"], "--test-passes must be at most 10,000"),
        (["reproduce", "--env", "chess"], "unknown environment 'chess'"),
        (["reproduce", "--resume", "nowhere"], "no run in nowhere"),
        (["reproduce", "--env", "tests.toy:Doors", "--runs", "/proc/no"], "cannot make a run folder /proc/no"),
        (["reproduce", "--env", "tests.toy:Doors", "--in-flight", "0"], "--in-flight must be at least 1"),
        (["learn", "--env", "tests.toy:Doors", "--temperature", "0"], "--temperature"),
        (["evaluate", "--env", "tests.toy:Doors", "--design", "nope"], "no baseline 'nope'"),
        (["evaluate", "--env", "babaisai", "--split", "shift", "--design", "no_memory"], "babaisai has no shift set"),
        (["evaluate", "--env", "tests.toy:Doors", "--design", "no_memory", "--collection-size", "0,999"], "999: 36 epi"),
        (["evaluate", "--env", "tests.toy:Doors", "--design", "no_memory", "--collection-size", "few"], "'few' is not"),
        (["learn", "--env", "tests.toy:Doors", "--race", "--objective", "experience"], "--race compares scores: it cannot"),
        (["learn", "--env", "tests.toy:Doors", "--finalists", "-1"], "argument --finalists: -1 is not a number from 0"),
        (["evaluate", "--env", "tests.toy:Doors", "--design", "no_memory", "--experience", "some"], "invalid choice: 'some'"),
        (["learn", "--speed", "9"], "unrecognized arguments: --speed"),
        (["dance"], "invalid choice: 'dance'"),
        (["check", "nowhere.py"], "cannot read nowhere.py"),
        (["play", "--env", "tests.toy:Doors", "--task", "x"], "unknown task 'x'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(arguments, said, tmp_path):
    if "--runs" not in arguments and arguments[0] in ("reproduce", "learn", "evaluate"):
        arguments = [*arguments, "--runs", tmp_path]
    done = alma(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_unknown_flags_and_choices_fail():
    assert alma("reproduce", "--environment", "x").returncode == 2
    assert "invalid choice" in alma("learn", "--sampling", "best").stderr


def test_before_a_paid_run_it_is_said_what_one_pass_and_a_race_would_need(tmp_path):
    def said(*flags) -> list[str]:
        """What stands on standard error; nobody is there to say yes."""
        paid = ["--agent-model", "gpt-5-nano", "--memory-model", "offline", "--runs", tmp_path, "--steps", 4, "--passes", 4]
        environment = {**os.environ, "OPENAI_API_KEY": "none"}
        done = alma("reproduce", "--env", "tests.toy:Doors", *paid, *flags, env=environment, stdin=subprocess.DEVNULL)
        assert done.returncode == 2 and not list(tmp_path.iterdir())
        return done.stderr.splitlines()

    whole, once, race, _ = said()
    flags, needed = re.fullmatch(r"with ((?:--[a-z-]+ \d+ ?)+) it would need (.*)", once).groups()
    assert said(*flags.split())[0] == f"this run will need {needed} at most, by estimate"
    dollars = [float(re.search(r"\$(\d+\.\d\d)", line)[1]) for line in (whole, once, race)]
    assert dollars[1] < dollars[0] and dollars[2] < dollars[0]
    assert not any("--race" in line for line in said("--race"))


def test_a_run_is_resumed_by_the_command_that_began_it_or_a_search_by_reproduce(tmp_path):
    def resumed(began, command, *more):
        (tmp_path / "config.json").write_text(json.dumps({"env": "tests.toy:Doors", "about": {"command": began}}))
        return alma(command, "--resume", tmp_path, *more).stderr

    refused = f"alma: {tmp_path} was begun by `reproduce`: resume it with that command\n"
    assert resumed("python alma.py reproduce --steps 2", "evaluate", "--design", "no_memory") == refused
    for began, command in (("reproduce", "reproduce"), ("learn", "reproduce")):
        assert "--anyway" in resumed(f"python alma.py {began}", command)  # the next thing that is looked at
    assert not [path for path in tmp_path.iterdir() if path.name != "config.json"]


def test_a_design_of_a_run_with_damaged_settings_is_not_exported(tmp_path):
    (tmp_path / "config.json").write_text('{"env"')
    design = {"candidate": "1.1", "id": "0123456789ab", "step": 1, "state": "evaluated", "score": 0.5}
    (tmp_path / "archive.jsonl").write_text(json.dumps(design) + "\n")
    done = alma("export", tmp_path, "1.1", tmp_path / "out.py")
    assert done.returncode == 2 and done.stderr.startswith(f"alma: cannot read {tmp_path / 'config.json'}: ")


def test_tasks_as_json_is_json_alone():
    done = alma("tasks", "--env", "tests.toy:Doors", "--json")
    tasks = json.loads(done.stdout)
    assert len(tasks) == 42 and set(tasks[0]) == {"id", "split", "family", "source"}


def test_a_person_can_play():
    done = alma("play", "--env", "tests.toy:Doors", "--task", "ruby-0", input="dance\nOpen RED door\n")
    assert "Nothing happens. Valid actions:" in done.stdout
    assert done.stdout.rstrip().endswith("score 1.00, won")


def test_help_answers_quickly_compared_with_python_itself():
    # A ratio, not a time: machines differ. Importing an engine would cost tens of interpreter starts.
    def seconds(command):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
        return time.perf_counter() - start

    bare = min(seconds([sys.executable, "-c", "pass"]) for _ in range(3))
    assert min(seconds([sys.executable, "alma.py", "--help"]) for _ in range(3)) < 20 * bare + 0.2
