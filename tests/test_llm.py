"""Models by role: what is asked, kept, coalesced, hidden; a run that is killed and goes on."""

import asyncio
import contextlib
import os
import pickle
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest

import llm
from errors import InfrastructureError, UserError
from llm import EFFORTS, Model, Models, ModelSpec
from models import credentials as keys
from models.answers import AnswerError
from models.credentials import OPENAI_URL, PROVIDERS, Keys, child_environment, is_local
from models.endpoint import Patience
from models.flights import Flights
from models.replies import Reply
from models.store import Store
from tests.endpoint import ModelServer

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's here")
PATIENCE = Patience(20.0, 0.002, 0.01, (), 30.0)
SECRET = "sk-proj-do-not-show-this-0123456789"
SCHEMA = {"type": "object", "required": ["say"], "properties": {"say": {"type": "string"}}}


def echo(role: str, body: dict) -> str:
    return f"{role}: {body['messages'][-1]['content']}"


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def asked(tmp_path, server: ModelServer, ask, **options):
    """What `await ask(models)` gives, with every role at the server."""
    options = {"keys": Keys(), "patience": PATIENCE, "log": lambda line: None, **options}

    async def run():
        specs = {
            role: ModelSpec.parse(f"{role}@{server.url}") for role in ("meta", "agent", "memory", "embedding")
        }
        with Store(tmp_path / "store.sqlite") as store:
            async with Models(specs, store, **options) as models:
                return await ask(models)

    return asyncio.run(run())


# ---------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gpt-5", ("gpt-5", "", "")),
        ("gpt-5:medium", ("gpt-5", "medium", "")),
        ("qwen3:8b", ("qwen3:8b", "", "")),
        ("qwen3:8b:low", ("qwen3:8b", "low", "")),
        ("qwen3-8b@http://localhost:8000/v1", ("qwen3-8b", "", "http://localhost:8000/v1")),
        ("a/b:c:high@https://x.org/v1/", ("a/b:c", "high", "https://x.org/v1")),
        ("x@http://[::1]:80/v1", ("x", "", "http://[::1]:80/v1")),
        ("claude-sonnet-4-5@anthropic", ("claude-sonnet-4-5", "", "https://api.anthropic.com/v1")),
        ("openai/gpt-5:low@openrouter", ("openai/gpt-5", "low", "https://openrouter.ai/api/v1")),
        ("qwen3:8b@ollama", ("qwen3:8b", "", "http://localhost:11434/v1")),
        ("x@llama.cpp", ("x", "", "http://localhost:8080/v1")),
        ("offline", ("offline", "", "")),
    ],
)
def test_a_model_is_written_as_name_effort_and_address(text, parts):
    spec = ModelSpec.parse(text)
    assert (spec.name, spec.effort, spec.base_url) == parts
    assert ModelSpec.parse(str(spec)) == spec
    assert spec.at_endpoint == (text != "offline")


@pytest.mark.parametrize(
    "text",
    ["", ":low", "@http://x/v1", "a b", "x@ftp://y", "x@", "x@nobody", "x@ollama@openai", "offline@openai", "x@http://", "x@http://h:99999/v1", "x@http://h h/v1",
     "offline:low", "offline@http://x/v1", f"x@http://me:{SECRET}@h/v1", "x@http://h/v1?key=1"],
)  # fmt: skip
def test_what_is_no_model_is_one_line_for_the_user(text):
    with pytest.raises(UserError) as caught:
        ModelSpec.parse(text)
    assert "\n" not in str(caught.value)


def test_addresses_of_this_machine_and_of_private_networks_are_local():
    hosts = [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "0.0.0.0",
        "10.1.2.3",
        "192.168.0.7",
        "node17",
        "gpu.lan",
        "host.docker.internal",
    ]
    assert all(is_local(f"http://{host}:8000/v1") for host in hosts)
    assert not any(
        is_local(f"https://{host}/v1") for host in ("api.openai.com", "8.8.8.8", "localhost.evil.com")
    )


# ----------------------------------------------------------------------------------- the keys


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """An environment without keys, in an empty current folder."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    keys._taken.cache_clear()
    yield monkeypatch
    keys._taken.cache_clear()


def test_keys_come_from_the_environment_before_the_file(clean, tmp_path):
    assert not Keys.read() and Keys.read().base_url == OPENAI_URL
    (tmp_path / ".env").write_text(
        "# keys\nexport OPENAI_API_KEY='one' # mine\nOTHER=x\nOPENAI_BASE_URL=http://h:1/v1/\n"
    )
    found = Keys.read()
    assert found and found.of(OPENAI_URL) == "one" and found.base_url == "http://h:1/v1"
    assert found.of("http://h:1/v1") == "one"  # the user's own address
    clean.setenv("OPENAI_API_KEY", "two")
    clean.setenv("OPENAI_API_KEY_OPENROUTER_AI", "three")
    found = Keys.read()
    assert found.of(OPENAI_URL) == "two" and found.of("https://openrouter.ai/api/v1") == "three"


def test_a_file_of_keys_is_read_as_it_is_from_the_current_folder_alone(clean, tmp_path):
    clean.setenv("HOME_KEY", "no")
    text = 'OPENAI_API_KEY="a$HOME_KEY${HOME_KEY}#b"\r\nMISTRAL_API_KEY=m # mine\r\n'
    (tmp_path / ".env").write_text(text, encoding="utf-8-sig", newline="")  # as Windows editors save it
    found = Keys.read()
    assert found.of(OPENAI_URL) == "a$HOME_KEY${HOME_KEY}#b" and found.of(PROVIDERS["mistral"][0]) == "m"
    (tmp_path / "below").mkdir()
    clean.chdir(tmp_path / "below")
    assert not Keys.read()


def test_each_key_goes_to_its_own_providers_address_and_to_no_other(clean):
    for _, variable in PROVIDERS.values():
        if variable:
            clean.setenv(variable, f"key of {variable}".replace(" ", "-"))
    found = Keys.read()
    for url, variable in PROVIDERS.values():
        assert found.of(url) == (f"key-of-{variable}" if variable else "")
    strangers = ["https://example.org/v1", "http://api.openai.com/v1", "https://api.openai.com:8443/v1",
                 "https://api.openai.com.example.org/v1", "https://openrouter.ai.example.org/v1"]  # fmt: skip
    for url in strangers:
        with pytest.raises(UserError, match=r"set OPENAI_API_KEY_\w+ in") as caught:
            found.of(url)
        assert "\n" not in str(caught.value)
    assert found.of("http://192.168.0.7/v1") == found.of("http://127.0.0.1:1/v1") == ""
    clean.setenv("OPENAI_BASE_URL", "https://example.org/v1/")
    found = Keys.read()
    assert found.of("https://example.org/v1") == "key-of-OPENAI_API_KEY"
    with pytest.raises(UserError):
        found.of("https://example.org/v2")
    clean.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UserError, match="set ANTHROPIC_API_KEY in"):
        Keys.read().of(PROVIDERS["anthropic"][0])


def test_a_foreign_server_sees_no_key_and_no_header_of_the_environment_even_behind_a_redirect(clean, tmp_path):
    clean.setenv("OPENAI_API_KEY", SECRET)
    clean.setenv("GROQ_API_KEY", SECRET)
    clean.setenv("OPENAI_ORG_ID", SECRET)
    clean.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {SECRET}\nX-Gateway: {SECRET}")
    with ModelServer(echo) as foreign, ModelServer(echo, redirect=foreign.url) as own:
        asked(tmp_path, foreign, lambda models: models.chat("meta", user("x")), keys=Keys.read())
        clean.setenv("OPENAI_BASE_URL", own.url)
        with pytest.raises(InfrastructureError, match="redirects"):
            asked(tmp_path, own, lambda models: models.chat("meta", user("y")), keys=Keys.read())
    assert foreign.requests == own.requests == 1
    assert foreign.headers[0]["authorization"] == "Bearer none" and SECRET not in str(foreign.headers)
    assert own.headers[0]["x-gateway"] == SECRET  # the user's own address


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"\xff\xfeOPENAI_API_KEY=x", "is not UTF-8 text"),
        (b"A=1\nOPENAI_API_KEY sk-x", "line 2, is not NAME=value"),
        (b"OPENAI_API_KEY='sk-x\n", "line 1, is not"),
        (b"\n\n  GROQ_API_KEY\n", "line 3, is not"),
    ],
)
def test_a_broken_file_of_keys_is_one_line_that_shows_none(clean, tmp_path, text, line):
    (tmp_path / ".env").write_bytes(text)
    with pytest.raises(UserError, match=line) as caught:
        Keys.read()
    assert "sk-x" not in str(caught.value)


def test_a_missing_key_is_one_line_unless_the_endpoint_is_local(clean, tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        for spec in ("gpt-5", "gpt-5@https://example.org/v1"):
            with pytest.raises(UserError, match=r"set OPENAI_API_KEY.*offline"):
                Models({"agent": ModelSpec.parse(spec)}, store)
        Models({"agent": ModelSpec.parse("x@http://127.0.0.1:1/v1")}, store)
        clean.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
        Models({"agent": ModelSpec.parse("x")}, store)
    clean.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(UserError, match="no key has"):
        Keys.read().of(OPENAI_URL)


def test_children_get_no_key(clean):
    clean.setenv("OPENAI_API_KEY", SECRET)
    clean.setenv("HF_TOKEN", SECRET)
    clean.setenv("TOKENIZERS_PARALLELISM", "false")
    environment = child_environment()
    assert {"PATH", "TOKENIZERS_PARALLELISM"} <= environment.keys() and SECRET not in environment.values()
    for _ in range(2):  # a process may start several runs
        assert Keys.read(take=True).of(OPENAI_URL) == SECRET and SECRET not in os.environ.values()
    assert SECRET.encode() not in subprocess.run(["env"], capture_output=True, check=True).stdout


def test_the_key_appears_nowhere(clean, tmp_path):
    """A server that says the key it was sent; every fault with a text; log, store, errors, reprs."""
    clean.setenv("OPENAI_API_KEY_127_0_0_1", SECRET)
    seen: list[str] = []

    async def ask(models):
        for number in range(3):
            server.script = [["503"], ["content filter"], ["not json"]][number]
            await models.chat("meta", user(str(number)))
        seen.extend([repr(models.__dict__), repr(vars(models._models[server.url])), repr(Keys.read())])
        await models.embed(["x"])
        server.key = "another"  # 401 with the key in its text
        try:
            await models.chat("meta", user("refused"))
        except InfrastructureError:
            seen.append(traceback.format_exc())

    server = ModelServer(echo, key=SECRET)
    with server:
        asked(tmp_path, server, ask, keys=Keys.read(), log=seen.append)
    assert "provided: Bearer ***" in seen[-1] and "check OPENAI_API_KEY_127_0_0_1" in seen[-1]
    files = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert len(seen) >= 6 and len(files) >= 2
    assert not any(SECRET in text for text in seen)
    assert not any(SECRET.encode() in content for content in files)
    with pytest.raises(TypeError, match="does not leave"):
        pickle.dumps(Keys.read().of("http://127.0.0.1/v1"))


def test_a_process_with_a_key_leaves_no_core_dump(clean, tmp_path, python):
    code = "import os; from models.credentials import Keys; found = Keys.read(); assert found; os.abort()"

    def allow_core_dumps():
        limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))

    environment = {**os.environ, "OPENAI_API_KEY": SECRET, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=environment, preexec_fn=allow_core_dumps)
    assert done.returncode == -signal.SIGABRT
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


# ------------------------------------------------------------------------------- one call each


def test_the_same_question_is_asked_once_and_another_sample_again(tmp_path):
    async def ask(models):
        said = await asyncio.gather(*(models.chat("agent", user("x"), sample="1") for _ in range(20)))
        said.append(await models.chat("agent", user("x"), sample="1", design="another"))
        requests = [server.requests]
        different = [
            models.chat("agent", user("x"), sample="2"),
            models.chat("agent", user("y"), sample="1"),
            models.chat("agent", user("x"), sample="1", seed=1),
            models.chat("agent", user("x"), sample="1", schema={"say": "an example of the answer"}),
            models.chat("meta", user("x"), sample="1"),
        ]
        said += await asyncio.gather(*different)
        return said, [*requests, server.requests]

    with ModelServer(echo, latency=0.01) as server:
        said, requests = asked(tmp_path, server, ask)
        assert requests == [1, 6]
        assert asked(tmp_path, server, ask) == (said, [6, 6])  # all of it stored


@pytest.mark.parametrize("change", [*EFFORTS[1:3], "address", "name"])
def test_the_model_its_effort_and_its_address_shape_the_answer(tmp_path, change):
    with ModelServer(echo) as server, ModelServer(echo) as other, Store(tmp_path / "store.sqlite") as store:
        specs = [f"agent@{server.url}", f"agent:{change}@{server.url}"]
        specs[1] = {"address": f"agent@{other.url}", "name": f"agent-2@{server.url}"}.get(change, specs[1])

        async def run():
            for spec in specs:
                options = {"keys": Keys(), "patience": PATIENCE, "log": print}
                async with Models({"agent": ModelSpec.parse(spec)}, store, **options) as models:
                    await models.chat("agent", user("x"))

        asyncio.run(run())
        assert server.requests + other.requests == 2


def test_no_text_is_embedded_twice(tmp_path):
    async def ask(models):
        vectors = await asyncio.gather(*(models.embed(["a mug", "a key", "a mug"]) for _ in range(10)))
        again = await models.embed(["a door", "a key"])
        many = await models.embed([f"text {number}" for number in range(300)])
        return vectors, again, many

    with ModelServer(echo, latency=0.005) as server:
        vectors, again, many = asked(tmp_path, server, ask)
        texts = [text for body in server.bodies for text in body["input"]]
        assert len(texts) == len(set(texts)) == 303
        assert len(many) == 300 and all(vector == vectors[0] for vector in vectors)
        assert vectors[0][0] == vectors[0][2] != vectors[0][1] == again[1]
        requests = server.requests
        assert asked(tmp_path, server, ask) == (vectors, again, many)  # equal to the last bit
        assert server.requests == requests


def test_a_call_that_nobody_waits_for_is_not_sent_but_one_that_was_sent_is_kept(tmp_path):
    async def ask(models):
        tasks = [asyncio.create_task(models.chat("agent", user(str(number)))) for number in range(6)]
        while server.in_flight < 2:
            await asyncio.sleep(0.001)
        for task in tasks[:5]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), await models.chat("agent", user("0"))

    with ModelServer(echo, latency=0.1) as server:
        results, first = asked(tmp_path, server, ask, in_flight=2)
    assert results[5] == "agent: 5" and first == "agent: 0"
    sent = [body["messages"][0]["content"] for body in server.bodies]
    assert {*sent[:2]} == {"0", "1"} and sent[2:] == ["5"]


def test_who_asks_just_as_the_last_one_gives_up_asks_anew():
    async def run():
        flights = Flights()

        async def make(flight):
            await asyncio.sleep(0.01)
            return "answer"

        first = asyncio.create_task(flights.start(["key"], make).join())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)  # the call is being given up
        flight = flights.get("key") or flights.start(["key"], make)
        return await flight.join(), dict(flights)

    assert asyncio.run(run()) == ("answer", {})


def test_stand_ins_are_asked_like_models_and_need_nothing(tmp_path):
    async def run():
        specs = {role: ModelSpec.parse("offline") for role in ("agent", "memory", "embedding")}
        with Store(tmp_path / "store.sqlite") as store:
            async with Models(specs, store) as models:
                said = await models.chat("memory", user("A key opens a door."))
                vectors = await models.embed(["a", "b"])
                return said, vectors, models.totals(), store.usage()

    said, vectors, totals, stored = asyncio.run(run())
    assert "key" in said and len(vectors) == 2 and len(vectors[0]) == 256
    assert (totals["calls"], totals["usd"], stored) == (2, 0, [])


def test_another_kind_of_model_is_one_class_and_one_line(tmp_path, monkeypatch):
    class Person(Model):
        def __init__(self, folder, log):
            self.folder, self.asked = folder, 0

        async def ask(self, question):
            self.asked += 1
            return Reply(f"{question.stage}: {question.messages[-1]['content']}", prompt_tokens=3)

    monkeypatch.setitem(llm.NAMED, "person", Person)

    async def run():
        specs = {"meta": ModelSpec.parse("person")}
        with Store(tmp_path / "store.sqlite") as store:
            async with Models(specs, store, budget_usd=1.0) as models:  # it costs nothing, so no price is missed
                await models.load()
                said = [await models.chat("meta", user("x"), stage="ideate") for _ in range(2)]
                person = models._models["person"]
                return said, person.asked, person.folder, models.totals()["prompt_tokens"]

    assert asyncio.run(run()) == (["ideate: x"] * 2, 1, tmp_path, 3)


# ------------------------------------------------------------------------- answers in a form


def test_an_answer_that_cannot_be_read_is_sent_back_with_the_error(tmp_path):
    said = iter(["No.", '{"say": 1}', 'Well: {"say": "yes"}'])
    with ModelServer(lambda role, body: next(said)) as server:
        result = asked(tmp_path, server, lambda models: models.ask_json("meta", user("Plan!"), SCHEMA))
    assert result == {"say": "yes"}
    roles = [[message["role"] for message in body["messages"]] for body in server.bodies]
    assert roles == [["user"], ["user", "assistant", "user"], ["user", "assistant", "user"]]
    assert "no JSON object" in server.bodies[1]["messages"][2]["content"]
    assert server.bodies[2]["messages"][1]["content"] == '{"say": 1}'
    assert "$.say: 1 is not of type 'string'" in server.bodies[2]["messages"][2]["content"]


def test_the_same_bad_answer_twice_is_asked_for_a_third_time(tmp_path):
    said = iter(["No.", "No.", "```python\nclass A: pass\n```"])
    with ModelServer(lambda role, body: next(said)) as server:
        code = asked(tmp_path, server, lambda models: models.ask_code("meta", user("Write!")))
    assert code == "class A: pass\n" and server.requests == 3


@pytest.mark.parametrize(("fault", "requests"), [("", 3), ("refusal", 5), ("content filter", 5)])
def test_a_model_that_gives_no_code_costs_its_candidate_and_not_the_run(tmp_path, fault, requests):
    async def ask(models):
        with pytest.raises(AnswerError, match=fault or "3 answers of meta could not be used"):
            await models.ask_code("meta", user("Write!"))

    with ModelServer(lambda role, body: "I would rather not.", faults=[fault], fault_rate=1.0) as server:
        asked(tmp_path, server, ask)
    assert server.requests == requests


def test_a_design_that_asks_by_a_schema_gets_bare_json_or_what_the_model_said(tmp_path):
    said = iter(['Sure: {"say": "yes"}.', *["No."] * 3])

    async def ask(models):
        return [await models.chat("memory", user(str(number)), schema=SCHEMA) for number in range(2)]

    with ModelServer(lambda role, body: next(said)) as server:
        assert asked(tmp_path, server, ask) == ['{"say": "yes"}', "No."]


# ---------------------------------------------------------------------------- killed and resumed

RUN = """
    import asyncio, sys
    from llm import Keys, Models, ModelSpec
    from models.store import Store

    async def main(url, path):
        specs = {"agent": ModelSpec.parse("agent@" + url), "embedding": ModelSpec.parse("embedding@" + url)}
        with Store(path) as store:
            async with Models(specs, store, in_flight=10, keys=Keys()) as models:
                texts = [[{"role": "user", "content": str(number)}] for number in range(200)]
                calls = [models.chat("agent", text) for text in texts]
                vectors = [models.embed([str(number)]) for number in range(50)]
                print(hash(str(await asyncio.gather(*calls, *vectors))))

    asyncio.run(main(*sys.argv[1:]))
"""


def _start(python: str, server: ModelServer, path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [python, "-c", textwrap.dedent(RUN), server.url, str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip


def test_after_a_sigkill_no_finished_call_is_made_again(tmp_path, python):
    path = tmp_path / "store.sqlite"
    with ModelServer(echo) as calm:
        undisturbed = _start(python, calm, tmp_path / "calm.sqlite").communicate(timeout=60)[0]
    finished: set[str] = set()
    with ModelServer(echo, latency=0.002) as server:
        for killed_at in (1, 90, 180):
            process, before = _start(python, server, path), len(server.bodies)
            while server.requests < killed_at and process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not finished & {_asked(body) for body in server.bodies[before:]}
            finished = _finished(path)
        before = len(server.bodies)
        assert _start(python, server, path).communicate(timeout=60)[0] == undisturbed != ""
        assert not finished & {_asked(body) for body in server.bodies[before:]}
    assert len(finished) > 100 and len({_asked(body) for body in server.bodies}) == 250
    # Asked twice: only what was in flight at a kill, at most ten calls at each of three.
    assert len(server.bodies) <= 250 + 30


def _asked(body: dict) -> str:
    return body["messages"][0]["content"] if "messages" in body else f"embed {body['input'][0]}"


def _finished(path: Path) -> set[str]:
    """Questions to the agent that the store has an answer of."""
    if not path.exists():
        return set()
    with sqlite3.connect(path) as store:
        answers = store.execute("select answer from calls where role = 'agent'")
        return {answer.removeprefix("agent: ") for (answer,) in answers}
