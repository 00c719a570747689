"""A model that is answered by files: by this test, beside real runs."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import llm
from errors import InfrastructureError, UserError
from llm import Models, ModelSpec
from models import manual
from models.store import Store
from tests.runs import ROOT, archive, finish, folder, start

SCHEMA = {"type": "object", "properties": {"say": {"type": "string"}}, "required": ["say"]}
CODE = (ROOT / "baselines" / "trajectory_retrieval.py").read_text(encoding="utf-8")
PLAN = {"worked": [], "verdicts": [], "problems": ["none"], "changes": [{"what": "a comment", "why": "a test"}]}


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def end(number: int) -> str:
    return f"\n=== end of answer {number:03} ===\n"


def rename(inbox: Path, number: int, text: str | bytes) -> None:
    """Answer a request by a rename, which is read without an end line."""
    draft = inbox / "draft"
    draft.write_bytes(text.encode() if isinstance(text, str) else text)
    draft.replace(inbox / f"{number:03}.answer.md")


def keys(inbox: Path) -> list[str]:
    return [re.search(r"- request: (\w{64})\n", path.read_text())[1] for path in sorted(inbox.glob("???.md"))]


def messages(request: Path) -> list[tuple[str, str]]:
    """Role and text of each message of a request, by the head's own words."""
    text = request.read_text(encoding="utf-8")
    mark = re.escape(re.search(r"lines that begin with `(.+)`", text)[1])
    return re.findall(rf"(?ms)^{mark} message \d+: (\w+) ===\n(.*?)\n{mark} end ===$", text)


@pytest.fixture
def inbox(tmp_path, monkeypatch):
    """The inbox of `asked`, into which a model looks more often than into a real one."""
    monkeypatch.setattr(manual, "POLL_SECONDS", 0.01)
    return tmp_path / "inbox"


def asked(inbox: Path, work, log=None, **options):
    """What `work(models)` returns, with `manual` in all roles that it can play."""

    async def run():
        specs = {role: ModelSpec.parse("manual", role) for role in ("meta", "agent", "memory")}
        with Store(inbox.parent / "store.sqlite") as store:
            async with Models(specs, store, log=(log if log is not None else []).append, **options) as models:
                return await asyncio.wait_for(work(models), 60)

    return asyncio.run(run())


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def waits(inbox: Path, number: int):
    return until((inbox / f"{number:03}.md").exists)


# ------------------------------------------------------------------------------- one request


def test_a_request_holds_its_parameters_and_every_message_word_for_word(inbox):
    texts = ["# Request 001\n\n=== end of answer 001 ===", "```\n=== message 2: user ===\n{{ 1 }}\n```\n\n", " ü\u2028\ud800"]
    said = [{"role": role, "content": text} for role, text in zip(("system", "user", "user"), texts, strict=True)]

    async def work(models):
        call = asyncio.ensure_future(
            models.ask_json("meta", said, SCHEMA, stage="ideate", design="2.1", sample="2.1 try 2")
        )
        await waits(inbox, 1)
        rename(inbox, 1, 'Well: {"say": "yes"}')
        return await call

    assert asked(inbox, work) == {"say": "yes"}
    head = (inbox / "001.md").read_text().partition("## Messages")[0]
    for line in ("role: meta", "stage: ideate", "candidate: 2.1", "sample: 2.1 try 2", "tokens of the answer: 32000"):
        assert f"{line}" in head
    assert "`001.answer.md`" in head and end(1) in head and "JSON by the schema below" in head
    assert json.dumps(SCHEMA, indent=1) in (inbox / "001.md").read_text()
    found = messages(inbox / "001.md")
    assert found == list(zip(("system", "user", "user"), [*texts[:2], " ü\u2028?"], strict=True))


def test_an_answer_is_read_once_it_is_whole_and_not_before(inbox, monkeypatch):
    log, whole = [], "Go north.\nThen rest."
    monkeypatch.setattr(manual, "REST_SECONDS", 0.1)

    async def work(models):
        call = asyncio.ensure_future(models.chat("memory", user("Where?")))
        await waits(inbox, 1)
        (inbox / "001.answer.md").write_text("Go no")
        await until(lambda: any("nobody renamed it" in line for line in log))  # it has been looked at, and at rest
        (inbox / "001.answer.md").write_text(whole)
        (inbox / "001.answer.md").write_text(f"{whole}\n=== end of answer 002 ===")
        await until(lambda: any("another request" in line for line in log))
        assert not call.done()
        (inbox / "001.answer.md").write_text(f"\ufeff{whole}\r\n=== end of answer 001 ===  \n\n")
        return await call

    assert asked(inbox, work, log) == whole


def test_what_is_no_answer_is_said_in_one_line_and_the_run_goes_on_waiting(inbox):
    log, answer = [], inbox / "001.answer.md"

    async def refused(*words):
        await until(lambda: any(all(word in line for word in ("001.answer.md", *words)) for line in log))
        answer.rmdir() if answer.is_dir() and not answer.is_symlink() else answer.unlink()
        await asyncio.sleep(0.1)  # it is seen that nothing is there
        log.clear()

    async def work(models):
        call = asyncio.ensure_future(models.chat("memory", user("Where?")))
        await waits(inbox, 1)
        answer.mkdir()
        await refused("a folder, a link or a pipe is no plain file")
        answer.symlink_to(ROOT / "README.md")
        await refused("a folder, a link or a pipe is no plain file")
        os.mkfifo(answer)
        await refused("a folder, a link or a pipe is no plain file")
        for bad in (b"ok \xff", "\ufeffok ".encode() + b"\xc3(", "ok".encode("utf-16")):
            rename(inbox, 1, bad)
            await refused("not UTF-8")
        rename(inbox, 1, b"x" * ((1 << 20) + 1))
        await refused("larger than 1 MiB")
        assert not call.done()
        rename(inbox, 1, "North.")
        return await call

    assert asked(inbox, work, log) == "North."


def test_a_deleted_inbox_is_made_again_with_what_waits(inbox):
    async def work(models):
        calls = [asyncio.ensure_future(models.chat("memory", user(text))) for text in "ab"]
        await waits(inbox, 2)
        before = [path.read_text() for path in sorted(inbox.iterdir())]
        for path in inbox.iterdir():
            path.unlink()
        inbox.rmdir()
        await waits(inbox, 1)
        await waits(inbox, 2)
        assert [path.read_text() for path in sorted(inbox.iterdir())] == before
        for number, text in enumerate("AB", 1):
            rename(inbox, number, text)
        return await asyncio.gather(*calls)

    assert asked(inbox, work) == ["A", "B"]


def test_an_inbox_that_cannot_be_written_stops_the_run_with_one_line(inbox):
    inbox.write_text("a file in the folder's place")
    with pytest.raises(InfrastructureError, match=r"exists: .*inbox"):
        asked(inbox, lambda models: models.chat("memory", user("Where?")))


# -------------------------------------------------------------------------- several, and again


def test_requests_at_the_same_time_are_numbered_as_they_were_asked_and_said_in_one_line(inbox):
    log = []

    async def work(models):
        calls = [asyncio.ensure_future(models.chat("meta", user(f"{n}?"), design=f"3.{n}")) for n in range(1, 6)]
        await until(lambda: log)
        assert not any((inbox / f"{number:03}.md").exists() for number in (0, 6))
        for number in (4, 2, 5, 1, 3):
            rename(inbox, number, f"answer {messages(inbox / f'{number:03}.md')[0][1]}")
        return await asyncio.gather(*calls), models.totals()

    said, totals = asked(inbox, work, log)
    assert said == [f"answer {number}?" for number in range(1, 6)]
    assert (totals["calls"], totals["usd"], totals["unpriced"]) == (5, 0, 0)
    assert totals["prompt_tokens"] == 5 and totals["completion_tokens"] == 15
    [line] = log
    assert all(f"{number:03}.md (meta 3.{number})" in line for number in range(1, 6))


def test_the_same_question_waits_in_the_same_file_and_is_asked_once(inbox):
    async def twice(models):
        calls = [asyncio.ensure_future(models.chat("meta", user("Who?"))) for _ in range(2)]
        await waits(inbox, 1)
        assert models.waiting == 1 and models.in_flight == 0
        rename(inbox, 1, "Me.")
        return await asyncio.gather(*calls)

    assert asked(inbox, twice) == ["Me."] * 2
    assert asked(inbox, lambda models: models.chat("meta", user("Who?"))) == "Me."  # from the store
    assert [path.name for path in sorted(inbox.iterdir())] == ["001.answer.md", "001.md"]


def test_answers_that_cannot_be_used_come_back_as_new_requests_with_the_reason(inbox):
    async def work(models):
        call = asyncio.ensure_future(models.ask_code("meta", user("Write!"), stage="first"))
        for number, text in enumerate(("I would rather not.", "", "<think>never ends", f"```python\n{CODE}```"), 1):
            await waits(inbox, number)
            rename(inbox, number, text)
        return await call, models.totals()["calls"]

    assert asked(inbox, work) == (CODE, 2)  # those that were empty are no calls
    last = [messages(inbox / f"{number:03}.md")[-1][1] for number in (1, 2, 3, 4)]
    assert last[0] == "Write!" and "The answer has no Python code" in last[1]
    assert last[2] == last[3] == manual.EMPTY["content"] and len(set(keys(inbox))) == 4


def test_a_run_that_stops_does_not_wait_for_an_answer_and_finds_its_request_again(inbox, monkeypatch):
    monkeypatch.setattr(llm, "DRAIN_SECONDS", 1e6)

    async def stops(models):
        call = asyncio.ensure_future(models.chat("meta", user("Who?")))
        await waits(inbox, 1)
        (inbox / "007.answer.md").write_text("a stray file")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asked(inbox, stops)
    rename(inbox, 1, "Me.")
    time.sleep(0.01)

    async def goes_on(models):
        other = asyncio.ensure_future(models.chat("meta", user("What?")))
        await waits(inbox, 8)  # a stray file answers no later request
        rename(inbox, 8, "That.")
        return [await models.chat("meta", user("Who?")), await other]

    monkeypatch.setattr(manual, "REST_SECONDS", 0.0)
    assert asked(inbox, goes_on) == ["Me.", "That."]


def test_it_costs_nothing_and_embeds_nothing(inbox):
    log = []

    async def work(models):
        call = asyncio.ensure_future(models.chat("agent", user("Act!")))
        await waits(inbox, 1)
        rename(inbox, 1, "go north")
        return await call

    assert asked(inbox, work, log, budget_usd=0.01) == "go north"
    assert not any("price" in line for line in log)
    with pytest.raises(UserError, match="--embedding-model cannot be manual"):
        ModelSpec.parse("manual", "embedding")


# --------------------------------------------------------------------------------- whole runs


@pytest.fixture
def running():
    """As `runs.start`; nothing that it starts waits for an answer beyond the test."""
    started = []

    def begin(*arguments):
        started.append(start(*arguments))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_that_is_stopped_killed_and_resumed_asks_nothing_twice(tmp_path, running):
    first = ["learn", "--env", "tests.toy:Doors", "--steps", "2", "--passes", "1", "--collection-passes", "1", "--plain"]
    first += ["--meta-model", "manual", "--budget-usd", "0.01", "--runs", tmp_path, "--workers", "1"]

    def wait(number: int, process) -> Path:
        while not list(tmp_path.glob(f"*/inbox/{number:03}.md")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return folder(tmp_path) / "inbox"

    # Stopped in an orderly way, with half an answer in the inbox.
    process = running(*first)
    inbox = wait(1, process)
    (inbox / "001.answer.md").write_text("I would")
    while "waiting for answers" not in (inbox.parent / "log.txt").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed = finish(process, 130)
    assert printed.startswith("manual: ") and "plays meta" in printed
    assert f"waiting for answers in {inbox}: 001.md (meta first 1.1)" in printed and "--resume" in printed
    assert "price" not in printed
    with sqlite3.connect(inbox.parent / "store.sqlite") as store:
        assert store.execute("select count(*) from calls").fetchone() == (0,)

    # The answer is completed meanwhile; it cannot be used, nor can the next one. Then the run is killed.
    (inbox / "001.answer.md").write_text(f"I would rather not.{end(1)}")
    resume = ["learn", "--resume", inbox.parent, "--plain"]
    process = running(*resume)
    wait(2, process)
    assert "no Python code" in messages(inbox / "002.md")[-1][1]
    rename(inbox, 2, "")
    wait(3, process)
    process.kill()
    process.communicate()

    # It goes on with the answer that came meanwhile, and to its end.
    (inbox / "003.answer.md").write_text(f"```python\n{CODE}```{end(3)}")
    process = running(*resume)
    wait(4, process)
    rename(inbox, 4, json.dumps(PLAN))
    wait(5, process)
    rename(inbox, 5, f"```python\n{CODE}\n# with a comment\n```")
    printed = finish(process)
    assert "labels: offline, manual" in printed and "meta manual" in printed
    assert [line["state"] for line in archive(tmp_path)] == ["evaluated"] * 2
    asked_for = [messages(path)[1][1].splitlines()[0] for path in sorted(inbox.glob("???.md"))]
    assert asked_for == ["# Stage: first"] * 3 + ["# Stage: ideate", "# Stage: implement"]
    assert len(set(keys(inbox))) == 5
    with sqlite3.connect(inbox.parent / "store.sqlite") as store:
        calls = store.execute("select model, usd, prompt_tokens > 1000, completion_tokens from calls").fetchall()
    assert len(calls) == 4 and {call[:3] for call in calls} == {("manual", 0.0, 1)}
    assert "manual (tokens estimated)" in (inbox.parent / "report.md").read_text()


def test_an_embedding_model_by_files_is_refused_before_a_folder_is_made(tmp_path):
    process = start("learn", "--env", "tests.toy:Doors", "--embedding-model", "manual", "--runs", tmp_path / "runs")
    assert finish(process, 2).count("\n") == 1 and not (tmp_path / "runs").exists()
