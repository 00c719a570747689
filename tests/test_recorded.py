"""Searches that are recorded and replayed: real runs on the toy domain, whose meta agent is a thread of this test."""

import asyncio
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from errors import AnswerError, UserError
from harness import commands
from harness.cli import parse
from harness.recording import with_docstring
from harness.run_folder import write_atomic
from memory_base import load_design
from models import recorded
from models.endpoint import Question
from models.recorded import Recorded, Recording
from tests.runs import ROOT, archive, finish, folder, start

DOORS = ["--env", "tests.toy:Doors", "--passes", "1", "--collection-passes", "1", "--plain", "--workers", "1"]
PLAN = {"worked": [], "verdicts": [], "problems": ["none"], "changes": [{"what": "say more", "why": "a test"}]}
MODULE = '''"""Which door led to which gem: \\\\ "{number}"."""

from memory_base import MemoryDesign


class Doors(MemoryDesign):
    def __init__(self):
        self.seen = {{}}

    async def general_update(self, trajectory):
        if trajectory.reward:
            self.seen[trajectory.init["goal"]] = trajectory.steps[-1]["action_took"]

    async def general_retrieve(self, trajectory):
        {body}
'''
BROKEN = MODULE.format(number=0, body="return self.nothing")


def module(number: int) -> str:
    return MODULE.format(number=number, body=f'return {{"plan": self.seen.get(trajectory.init["goal"]), "n": {number}}}')


def answers(candidate: str, stage: str, sample: str) -> str:
    """What the meta agent of this test says. 2.1 is mended, 3.1 is dropped, 3.2 is what 1.1 is."""
    if stage == "ideate":
        return json.dumps(PLAN)
    if (candidate, sample) == ("1.1", "1.1"):
        return "I would rather not."
    broken = candidate == "3.1" or (candidate, stage) == ("2.1", "implement")
    number = {"3.2": 11}.get(candidate, int(candidate.replace(".", "")))
    return f"```python\n{BROKEN if broken else module(number)}```"


def answer(inbox: Path, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        for request in sorted(inbox.glob("[0-9][0-9][0-9].md")):
            path = request.with_name(f"{request.stem}.answer.md")
            if not path.exists():
                about = [re.search(rf"^- {key}: (.*)$", request.read_text(), re.M)[1] for key in ("candidate", "stage", "sample")]
                (inbox / "draft").write_text(answers(*about))
                (inbox / "draft").rename(path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """The folder of runs with one finished search."""
    runs, stop = tmp_path_factory.mktemp("searched"), threading.Event()
    process = start("learn", *DOORS, "--steps", "4", "--meta-model", "manual", "--runs", runs)
    while not list(runs.glob("*/config.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    thread = threading.Thread(target=answer, args=(folder(runs) / "inbox", stop))
    thread.start()
    try:
        finish(process)
    finally:
        stop.set()
        thread.join()
    return runs


@pytest.fixture(scope="module")
def recording(searched, tmp_path_factory) -> Path:
    """The recording of that search."""
    to = tmp_path_factory.mktemp("designs") / "doors"
    printed = finish(start("record", folder(searched), to, "--by", "a thread of a test"))
    assert printed.splitlines() == [str(to / name) for name in ("archive.jsonl", "archive.svg", "learned.py", "README.md", "search.jsonl")]
    return to


def replay(recording: Path, runs: Path, *flags) -> str:
    return finish(start("learn", "--env", "tests.toy:Doors", "--plain", "--recording", recording, "--runs", runs, *flags))


def log(runs: Path) -> list[str]:
    """What the one run in a folder said, without the times."""
    return [line.split(" ", 1)[1] for line in (folder(runs) / "log.txt").read_text().splitlines()]


def lines_of(recording: Path) -> list[dict]:
    return [json.loads(line) for line in (recording / "search.jsonl").read_text().splitlines()]


def changed(recording: Path, to: Path, change) -> Path:
    """A copy of a recording with other lines."""
    shutil.copytree(recording, to)
    head, *lines = change(lines_of(recording))
    head["answers"] = len(lines)
    (to / "search.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (head, *lines)))
    return to


# ------------------------------------------------------------------------------- what is recorded


def test_a_recording_holds_every_answer_as_it_came_and_what_shaped_the_search(searched, recording):
    head, *lines = lines_of(recording)
    assert (head["domain"], head["seed"], head["by"], head["meta_model"]) == ("tests.toy:Doors", 42, "a thread of a test", "manual")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", head["date"]) and head["versions"]["packages"]["numpy"]
    assert (head["settings"]["steps"], head["settings"]["collection_passes"]) == (4, 1)
    assert not {"workers", "budget_usd", "price", "meta_model"} & set(head["settings"])
    asked = [(line["candidate"], line["stage"], line["try"]) for line in lines]
    assert asked[:6] == [
        ("1.1", "first", ""), ("1.1", "first", "try 2"),
        ("2.1", "ideate", ""), ("2.1", "implement", ""), ("2.1", "repair", "try 1"), ("3.1", "ideate", ""),
    ]  # fmt: skip
    assert ("3.1", "repair", "try 2") in asked and ("3.2", "implement", "unchanged") in asked and len(set(asked)) == len(asked)
    for line in lines:
        assert line["answer"] == answers(line["candidate"], line["stage"], f"{line['candidate']} {line['try']}".rstrip())
        assert re.fullmatch(r"[0-9a-f]{64}", line["prompt"])
    made = {line["candidate"]: line for line in archive(searched)}
    assert [made[name]["state"] for name in ("1.1", "2.1", "3.1", "3.2")] == ["evaluated", "evaluated", "dropped", "duplicate"]
    assert {(line["candidate"], line["id"], *line["parents"]) for line in lines} == {(name, one["id"], *one["parents"]) for name, one in made.items()}
    assert (recording / "archive.jsonl").read_bytes() == (folder(searched) / "archive.jsonl").read_bytes()


def test_the_learned_design_says_where_it_comes_from_and_works(recording, searched):
    text = (recording / "learned.py").read_text()
    learned = json.loads((folder(searched) / "score.json").read_text())["learned"]
    doc = text.split('"""')[1]
    assert doc.startswith("Which door led to which gem: \\\\ ") and f"Memory design {learned}, learned by ALMA on tests.toy:Doors" in doc
    assert "Lineage, first design first" in doc and "1.1 (" in doc and "learning set, static: " in doc and "a thread of a test" in doc
    assert load_design(recording / "learned.py").__name__ == "Doors"
    assert finish(start("check", recording / "learned.py", "--env", "tests.toy:Doors")).startswith('status: "ok"')


def test_its_page_has_the_archive_and_the_command_that_replays_it(recording):
    page = (recording / "README.md").read_text()
    assert "a thread of a test" in page and "| 3.1 |" in page and "dropped" in page and "(archive.svg)" in page
    [command] = [line.strip() for line in page.splitlines() if line.startswith("    python ")]
    assert command.endswith(f"reproduce --env tests.toy:Doors --seed 42 --recording {recording}")


@pytest.mark.parametrize("doc", ['"""One."""\n', "'''\\0 \\\\ \\r \\x41 \"\"\" {x}\"'''; import os\n", "# -*- coding: utf-8 -*-\nr'\\w'\n", "import os\n", "@print\nclass A: pass\n"])
def test_facts_are_added_to_any_docstring(doc):
    code = f"{doc}x = '🜁'\n"
    made, before, after = with_docstring(code, 'a \\ """ b\n'), {}, {}
    exec(compile(code, "code", "exec"), before)
    exec(compile(made, "made", "exec"), after)
    own = (before.get("__doc__") or "").rstrip()
    assert after["__doc__"] == (f"{own}\n\n" if own else "") + 'a \\ """ b\n' and after["x"] == "🜁"


# ---------------------------------------------------------------------------------- what is refused


def refused(words: str, *arguments, **options) -> None:
    printed = finish(start("record", *arguments, **options), 2)
    assert words in printed and printed.count("\n") == 1


def test_a_recording_is_not_replaced_without_force(searched, recording, tmp_path):
    before = (recording / "search.jsonl").read_bytes()
    refused("--force replaces it", folder(searched), recording)
    shutil.copytree(recording, tmp_path / "copy")
    (tmp_path / "copy" / "search.jsonl").write_text("old")
    finish(start("record", folder(searched), tmp_path / "copy", "--by", "a thread of a test", "--force"))
    assert (tmp_path / "copy" / "search.jsonl").read_bytes() == before  # the same again


def test_what_is_no_finished_search_of_a_model_is_refused(searched, tmp_path):
    refused("no run in", tmp_path, tmp_path / "to")
    for name, broken in {
        "stopped": lambda run: (run / "history.jsonl").open("a").write('{"event": "stopped", "why": "Ctrl-C"}\n'),
        "resumed": lambda run: (run / "history.jsonl").open("a").write('{"event": "resumed"}\n'),
        "shorter": lambda run: (run / "archive.jsonl").write_text((run / "archive.jsonl").read_text().splitlines()[0]),
    }.items():
        run = shutil.copytree(folder(searched), tmp_path / name)
        broken(run)
        refused("holds no finished search", run, tmp_path / "to")
    for model in ("offline", "recorded"):
        settings = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps({**settings, "meta_model": model}))
        refused(f"no model wrote its designs, but {model}", run, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_answers_that_do_not_give_the_archives_designs_are_refused(searched, tmp_path):
    run = shutil.copytree(folder(searched), tmp_path / "run")
    text, learned = (run / "archive.jsonl").read_text(), json.loads((run / "score.json").read_text())["learned"]
    other = next(line for line in map(json.loads, text.splitlines()) if line["state"] == "evaluated" and line["id"] != learned)
    (run / "archive.jsonl").write_text(text.replace(other["id"], "0123456789ab"))
    refused(f"the stored answers of candidate {other['candidate']} do not give its design", run, tmp_path / "to")


@pytest.mark.parametrize("place", ["log.txt", "designs/x/log.txt.gz"])
def test_a_run_with_a_secret_in_it_is_refused_and_the_secret_is_not_said(searched, tmp_path, place):
    run = shutil.copytree(folder(searched), tmp_path / "run")
    (run / place).parent.mkdir(exist_ok=True)
    for secret, words, environment in (
        ("zq7zq7zq7zq7zq7", "the value of MY_SECRET_TOKEN", {"MY_SECRET_TOKEN": "zq7zq7zq7zq7zq7"}),
        ("sk-proj-" + "Zq7" * 12, "what looks like a key (sk-pro…)", {}),
        ("ghp_" + "Zq7" * 12, "what looks like a key (ghp_Zq…)", {}),
    ):
        write_atomic(run / place, f"it said {secret}.")
        arguments = (run, tmp_path / "to")
        printed = finish(start("record", *arguments, env={**os.environ, **environment}), 2)
        assert f"{run / place} holds {words}" in printed and secret not in printed and not (tmp_path / "to").exists()
    write_atomic(run / place, "task-with-a-long-name-of-1 sk-learn-is-no-key-at-all-and-long")
    finish(start("record", *arguments, "--by", "me"))


# --------------------------------------------------------------------------------------- replays


def test_a_replay_ends_in_the_same_archive_byte_for_byte_and_says_what_it_is(recording, tmp_path):
    printed = replay(recording, tmp_path, "--workers", "2")
    assert (folder(tmp_path) / "archive.jsonl").read_bytes() == (recording / "archive.jsonl").read_bytes()
    first = log(tmp_path)[0]
    assert first.startswith("recorded: the meta agent's answers are those of an earlier search (seed 42, 6 candidates, 2")
    assert "who answered: a thread of a test)" in first and "sketch, a small stand-in, writes the design, which is marked" in first
    assert "offline: stand-ins play agent, memory, embedding" in first and "This run has seed" not in first
    assert "labels: recorded meta agent, offline agent\n" in printed and "meta recorded, agent offline" in printed
    assert "other prompts" not in printed and "by sketch" not in printed and not (folder(tmp_path) / "inbox").exists()
    page = (folder(tmp_path) / "report.html").read_text()
    assert "recorded meta agent" in page and "an earlier, recorded search" in page and "by sketch" not in page


def test_a_replay_that_is_killed_and_resumed_ends_in_the_same_archive_without_the_recording(recording, tmp_path):
    shutil.copytree(recording, tmp_path / "designs")
    arguments = ["learn", "--env", "tests.toy:Doors", "--plain", "--recording", tmp_path / "designs", "--runs", tmp_path / "runs"]
    for reached in ("store.sqlite", "designs/*/score.json", "dropped/3.1/error.json"):
        process = start(*arguments)
        while not list((tmp_path / "runs").glob(f"*/{reached}")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        process.communicate()
        arguments = ["learn", "--resume", folder(tmp_path / "runs"), "--plain"]
        if reached != "store.sqlite":
            shutil.rmtree(tmp_path / "designs", ignore_errors=True)  # the run has its own copy
    finish(start(*arguments))
    assert (folder(tmp_path / "runs") / "archive.jsonl").read_bytes() == (recording / "archive.jsonl").read_bytes()


def test_where_nothing_is_recorded_sketch_writes_the_whole_candidate_and_it_is_marked(recording, tmp_path):
    printed = replay(recording, tmp_path, "--steps", "5", "--seed", "5")
    known = {line["id"]: line for line in map(json.loads, (recording / "archive.jsonl").read_text().splitlines())}
    designs = archive(tmp_path)
    assert {line["by"] for line in designs} == {"", "sketch"}
    for line in designs:
        assert (line["by"] == "sketch") == (line["id"] not in known)
        assert (line["by"] == "sketch") == (f"candidate {line['candidate']} is by sketch" in printed)
    assert "Nothing is recorded for seed 5, with which other parents are drawn" in log(tmp_path)[0]
    assert printed.count("recorded with other prompts: that of candidate 1.1, first, ") == 1
    assert "labels: recorded meta agent, offline agent, partly by sketch\n" in printed
    [name, *_] = [line["candidate"] for line in designs if line["by"]]
    page, text = ((folder(tmp_path) / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert f'aria-label="{name}: by sketch, ' in page and f">{name} sketch</text>" in page  # in the tree
    assert f'{name}</a> <small class="muted">by sketch</small>' in page and r"<b>by sketch<" in page.replace("\\u003c", "<")
    assert f"| {name} (by sketch) |" in text and "partly by sketch" in text


def test_without_a_recording_all_designs_are_by_sketch_and_the_first_line_says_so(tmp_path):
    printed = finish(start("learn", *DOORS, "--steps", "2", "--meta-model", "recorded", "--runs", tmp_path))
    first = "recorded: there is no recording for this run, so sketch, a small stand-in, writes all designs. offline: stand-ins"
    assert log(tmp_path)[0].startswith(first) and first in printed
    assert [line["by"] for line in archive(tmp_path)] == ["sketch"] * 2


def test_children_of_one_parent_are_given_in_their_order_though_it_is_drawn_twice_in_a_step(recording, tmp_path):
    replay(recording, tmp_path, "--sampling", "greedy", "--steps", "3")
    made, known = ([json.loads(line) for line in text.splitlines()] for text in
                   ((folder(tmp_path) / "archive.jsonl").read_text(), (recording / "archive.jsonl").read_text()))  # fmt: skip
    assert made[2]["parents"] == made[3]["parents"]
    for parents in {tuple(line["parents"]) for line in made}:
        children, expected = ([line["id"] for line in lines if tuple(line["parents"]) == parents] for lines in (made, known))
        assert children[: len(expected)] == expected[: len(children)] and children


def test_changed_prompts_are_said_once_and_the_search_is_the_same(recording, tmp_path):
    other = changed(recording, tmp_path / "other", lambda lines: [{**line, **({"prompt": "0" * 64} if "prompt" in line else {})} for line in lines])
    printed = replay(other, tmp_path / "runs")
    assert printed.count("recorded with other prompts") == 1
    assert (folder(tmp_path / "runs") / "archive.jsonl").read_bytes() == (recording / "archive.jsonl").read_bytes()


def test_a_candidate_that_lacks_an_answer_is_dropped_and_not_made_up(recording, tmp_path):
    less = changed(recording, tmp_path / "less", lambda lines: [line for line in lines if (line.get("candidate"), line.get("stage")) != ("2.1", "repair")])
    printed = replay(less, tmp_path / "runs", "--steps", "2")
    assert "2.1 dropped no usable answer of the meta agent: the recording has none to repair try 1" in printed
    assert [(line["state"], line["by"]) for line in archive(tmp_path / "runs")] == [("evaluated", ""), ("dropped", "")]


def asked(recorded_model, name: str, origin: tuple, stage: str, sample: str = ""):
    question = Question("meta", "recorded", ({"role": "user", "content": "# Stage: first"},), stage=stage, design=name, sample=sample or name, origin=origin)
    return asyncio.run(recorded_model.ask(question))


def test_answers_are_found_by_parents_and_place_whatever_the_candidates_are_called(recording, tmp_path):
    shutil.copy(recording / "search.jsonl", tmp_path)
    said = []
    model, lines = Recorded(tmp_path, said.append), lines_of(recording)[1:]
    by_name = {line["candidate"]: tuple(line["parents"]) for line in lines}
    for line in reversed(lines):
        place = [name for name, parents in by_name.items() if parents == by_name[line["candidate"]]].index(line["candidate"]) + 1
        sample = f"9.9 {line['try']}".strip()
        assert asked(model, "9.9", (by_name[line["candidate"]], place), line["stage"], sample).text == line["answer"]
    assert len(said) == 1
    with pytest.raises(AnswerError, match="has none to repair try 7"):
        asked(model, "1.1", ((), 1), "repair", "1.1 try 7")
    assert "class Memory" in asked(model, "1.1", ((), 2), "first").text  # of sketch


def test_an_answer_that_was_of_no_use_is_of_no_use_again(recording, tmp_path):
    (tmp_path / "search.jsonl").write_text("\n".join(json.dumps({**line, "fault": "refusal", "answers": 1}) for line in lines_of(recording)[:2]))
    assert asked(Recorded(tmp_path, print), "1.1", ((), 1), "first").fault == "refusal"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines[:3], '{"candidate": "2.1", "stage'], "line 4 is not an answer of a recording"),
        (lambda lines: [*lines, ""], "is not an answer of a recording"),
        (lambda lines: [*lines, "[" * 100_000], "is not an answer of a recording"),
        (lambda lines: [*lines, json.dumps({**json.loads(lines[-1]), "answer": 1})], "is not an answer of a recording"),
        (lambda lines: lines[1:], "line 1 is not the head of a recording"),
        (lambda lines: [], "line 1 is not the head of a recording"),
        (lambda lines: [*lines, lines[2]], "a second answer to first try 2 of candidate 1.1"),
        (lambda lines: [*lines, json.dumps({**json.loads(lines[-1]), "try": "x", "parents": ["a"]})], "other parents of candidate 4"),
        (lambda lines: [lines[0].replace("tests.toy:Doors", "chess"), *lines[1:]], "is of the domain chess, not of tests.toy:Doors"),
        (lambda lines: [lines[0].replace('"steps": 4', '"steps": "4"'), *lines[1:]], "line 1: the setting steps is not of its type"),
        (lambda lines: [lines[0].replace('"objective": "score"', '"objective": "nope"'), *lines[1:]], "line 1: argument --objective: invalid choice"),
        (lambda lines: [lines[0].replace('"passes": 1', '"passes": -3'), *lines[1:]], "line 1: argument --passes: -3 is not a number from 0"),
        (lambda lines: lines[:5], "holds 4 answers, and its head says"),
        (lambda lines: ["\udcff"], "it is not UTF-8"),
    ],
)  # fmt: skip
def test_a_damaged_recording_is_one_clear_line(recording, tmp_path, change, said):
    lines = (recording / "search.jsonl").read_text().splitlines()
    (tmp_path / "search.jsonl").write_text("\n".join(change(lines)) + "\n", errors="surrogateescape")
    with pytest.raises(UserError) as error:
        commands._with_recording(parse(["learn", "--env", "tests.toy:Doors", "--recording", str(tmp_path)]))
    assert said in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_recording_that_is_not_there_ends_in_one_line_before_a_folder_is_made(tmp_path):
    printed = finish(start("learn", *DOORS, "--recording", tmp_path / "no", "--runs", tmp_path / "runs"), 2)
    assert "cannot read" in printed and printed.count("\n") == 1 and not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------ which one, and when


@pytest.fixture
def settled(monkeypatch, tmp_path, recording):
    """The settings of a command line where the toy domain has recordings of the seeds 42 and 43."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recorded, "DESIGNS", tmp_path)
    for place in ("tests.toy:Doors", "tests.toy:Doors/seed-43"):
        shutil.copytree(recording, tmp_path / place, dirs_exist_ok=True)

    def settings(*flags, searches: int = 1):
        return commands.complete(commands._with_recording(parse(["learn", "--env", "tests.toy:Doors", *flags]), searches))

    return settings


def test_without_a_key_a_recording_is_the_default_with_the_settings_of_its_search(settled, tmp_path, monkeypatch):
    found = settled()
    assert (found.meta_model, found.agent_model, found.recording) == ("recorded", "offline", str(tmp_path / "tests.toy:Doors"))
    assert (found.steps, found.passes, found.collection_passes) == (4, 1, 1)
    assert settled("--seed", "43").recording == str(tmp_path / "tests.toy:Doors" / "seed-43")
    assert (settled("--seed", "5", "--steps", "2").seed, settled("--steps", "2").steps) == (5, 2)
    other = settled("--agent-model", "qwen@http://localhost:1/v1")
    assert (other.meta_model, other.steps, other.passes, other.agent_model) == ("recorded", 4, 3, "qwen@http://localhost:1/v1")
    for model in ("offline", "manual"):
        assert (settled("--meta-model", model).meta_model, settled("--meta-model", model).recording) == (model, "")
    assert settled(searches=0).meta_model == settled(searches=9).meta_model == "offline"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-" + "x" * 20)
    assert settled().meta_model == "gpt-5:medium" and settled("--meta-model", "recorded").recording
    assert settled("--recording", str(tmp_path / "tests.toy:Doors")).meta_model == "recorded"


def test_a_recording_is_for_the_meta_agent_of_one_search(settled):
    with pytest.raises(UserError, match="replayed by --meta-model recorded, not by manual"):
        settled("--recording", "x", "--meta-model", "manual")
    with pytest.raises(UserError, match="a recording is one search"):
        settled("--meta-model", "recorded", searches=6)


def test_the_learned_design_of_a_recording_is_evaluated_by_its_name(settled, recording):
    assert commands.find_design("learned", "tests.toy:Doors") == (recording / "learned.py").read_text()
    assert commands.find_design("g_memory", "tests.toy:Doors") == (ROOT / "baselines" / "g_memory.py").read_text()
    with pytest.raises(UserError, match="no baseline 'learned'"):
        commands.find_design("learned", "babaisai")


def test_a_recorded_agent_is_refused():
    printed = finish(start("learn", *DOORS, "--agent-model", "recorded"), 2)
    assert "--agent-model cannot be recorded: it plays meta" in printed


def test_an_empty_recording_has_no_candidates(tmp_path):
    assert Recording.of_run(tmp_path).candidates == {}
