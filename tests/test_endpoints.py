"""Every fault that an endpoint can have, really played by a server, and what comes of it."""

import asyncio
import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import standins
from errors import InfrastructureError
from llm import Keys, Models, ModelSpec
from models.endpoint import BARREN, RULES, ContextOverflow, Patience, _status_fault
from models.fair_queue import FairSlots
from models.prices import Price
from models.store import Store
from tests.endpoint import ANSWERS, BROKEN, FAULTS, FLOOD, STATUS, STOPS, ModelServer

QUICK = Patience(outage=20.0, pause=0.002, longest_pause=0.01, deadlines=(), deadline=0.5)
SCHEMA = {"type": "object", "required": ["say"], "properties": {"say": {"type": "string"}}}


def answer(role: str, body: dict) -> str:
    """What the server says: the user's first message again, as JSON where that is asked for."""
    first = next(message["content"] for message in body["messages"] if message["role"] == "user")
    wants_json = "response_format" in body or "JSON schema" in json.dumps(body["messages"])
    text = first.splitlines()[-1][-40:]  # older servers get the system's words in front
    return json.dumps({"say": text}) if wants_json else f"I say {text}"


def user(text: str) -> list[dict]:
    return [{"role": "system", "content": "You are an agent."}, {"role": "user", "content": text}]


def asked(
    tmp_path, server: ModelServer, ask, log=None, spec: str = "agent:low", name: str = "store", **options
):
    """What `await ask(models)` gives, with every role at the server."""
    prices = {name: Price(1.0, 1.0, 1.0) for name in ("agent", "embedding")}
    options = {"patience": QUICK, "keys": Keys(), "prices": prices, **options}

    async def run():
        specs = {role: ModelSpec.parse(f"{spec}@{server.url}") for role in ("meta", "agent", "memory")}
        specs["embedding"] = ModelSpec.parse(f"embedding@{server.url}")
        with Store(tmp_path / f"{name}.sqlite") as store:
            async with Models(specs, store, log=(log if log is not None else []).append, **options) as models:
                return await ask(models)

    return asyncio.run(run())


# ----------------------------------------------------------------------- what is tried again


@pytest.mark.parametrize("fault", [*STATUS, *BROKEN, FLOOD, *ANSWERS])
def test_a_fault_is_met_logged_or_stored_and_does_not_change_the_answer(tmp_path, fault):
    lines: list[str] = []
    with ModelServer(answer) as server:
        server.script = [fault, fault]
        deadline = {"endless": 0.1, "silent": 0.1, FLOOD: 30.0}.get(fault, QUICK.deadline)
        options = {"patience": replace(QUICK, deadline=deadline)}
        said = asked(tmp_path, server, lambda models: models.chat("agent", user("north")), lines, **options)
    assert said == "I say north"
    assert server.requests == 3
    stored = [call.fault for call in Store(tmp_path / "store.sqlite", readonly=True).calls()]
    if fault in ANSWERS:
        assert stored == [fault.removesuffix(" 400")] * 2 + [""]  # each was paid for
    else:
        assert stored == [""] and len(lines) == 1 and "asking again" in lines[0]


@pytest.mark.parametrize("fault", [*STATUS, *BROKEN])
def test_embeddings_outlive_the_same_faults(tmp_path, fault):
    with ModelServer(answer) as server:
        server.script = [fault]
        patience = Patience(20.0, 0.002, 0.01, (), 0.15 if fault in ("endless", "silent") else 5.0)
        [vector] = asked(tmp_path, server, lambda models: models.embed(["a mug"]), patience=patience)
    assert len(vector) == 256 and server.requests == 2


def test_a_server_that_comes_up_late_is_waited_for(tmp_path):
    with ModelServer(answer) as first:
        port = first.port
    late = ModelServer(answer, port=port)
    started: list[threading.Thread] = []

    class Log(list):
        def append(self, line: str) -> None:
            super().append(line)
            if "Connect" in line and not started:  # refused: now start it
                started.append(threading.Thread(target=late.__enter__))
                started[0].start()

    log = Log()
    assert asked(tmp_path, late, lambda models: models.chat("agent", user("x")), log) == "I say x"
    late.__exit__()
    assert started and len(log) == 1


def test_retry_after_is_honoured(tmp_path):
    with ModelServer(answer, retry_after="0.4") as server:
        server.script = ["429 retry-after"]

        async def ask(models):
            before = asyncio.get_running_loop().time()
            await models.chat("agent", user("x"))
            return asyncio.get_running_loop().time() - before

        assert asked(tmp_path, server, ask) >= 0.4  # without it: 0.01


@pytest.mark.parametrize("script", [["429 retry-after"], ["503"] * 1000], ids=["a day", "an outage"])
def test_an_outage_that_is_too_long_stops_with_one_line(tmp_path, script):
    with ModelServer(answer, retry_after="86400") as server:
        server.script = script
        with pytest.raises(
            InfrastructureError, match=r"agent at http://127.*played.*gave up.*resume"
        ) as caught:
            patience = Patience(0.1, 0.002, 0.01, (), 5.0)
            asked(tmp_path, server, lambda models: models.chat("agent", user("x")), patience=patience)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------- what stops the run


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_not_active", "insufficient_balance"])
def test_a_429_that_no_waiting_helps_is_known_by_its_code(code):
    class Error:
        status_code, code, type = 429, "", ""

    error = Error()
    error.code = code
    assert _status_fault(error, "You exceeded your current quota", {}).kind == "quota"


@pytest.mark.parametrize("fault", STOPS)
def test_a_fault_that_no_waiting_helps_stops_at_once(tmp_path, fault):
    async def ask(models):
        for _ in range(3):
            with pytest.raises(InfrastructureError) as caught:
                await models.chat("agent", user("x"))
        return str(caught.value)

    with ModelServer(answer) as server:
        server.script = [fault]
        line = asked(tmp_path, server, ask)
    assert server.requests == 1  # later calls are not sent
    assert line.startswith(f"agent at {server.url}: {STOPS[fault]} played") and "\n" not in line


def test_an_endpoint_that_never_says_a_word_is_no_agent_without_luck(tmp_path):
    async def ask(models):
        said = [await models.chat("agent", user(str(number))) for number in range(BARREN - 1)]
        with pytest.raises(InfrastructureError, match="questions in a row without a word"):
            await models.chat("agent", user("last"))
        return said

    with ModelServer(lambda role, body: "") as server:
        assert asked(tmp_path, server, ask) == [""] * (BARREN - 1)
        assert server.requests == BARREN * (1 + RULES["empty"][1])
        server.answer = answer  # mended: the run goes on as if nothing had been
        again = asked(tmp_path, server, lambda models: models.chat("agent", user("3")))
    assert again == "I say 3"


def test_a_passing_refusal_of_a_request_costs_the_run_no_ability(tmp_path):
    async def ask(models):
        said = [await models.chat("agent", user("1"))]
        server.script = ["400"]
        return [*said, await models.chat("agent", user("2"))]

    lines: list[str] = []
    with ModelServer(answer) as server:
        assert asked(tmp_path, server, ask, lines) == ["I say 1", "I say 2"]
    assert not lines and "reasoning_effort" in server.bodies[-1]


def test_a_prompt_that_is_refused_where_others_are_answered_stops_nothing(tmp_path):
    async def ask(models):
        good = await models.chat("agent", user("good"))
        return [
            good,
            await models.chat("memory", user("x" * 10)),
            await models.chat("agent", user("good again")),
        ]

    with ModelServer(answer) as server:
        server.reject = "xxxxxxxxxx"
        said = asked(tmp_path, server, ask)
    assert said == ["I say good", "", "I say good again"]


def test_a_server_that_refuses_everything_stops_with_its_words(tmp_path):
    with ModelServer(answer) as server:
        server.reject = "x"
        with pytest.raises(InfrastructureError, match=r"agent at .*: 400 .*may not"):
            asked(tmp_path, server, lambda models: models.chat("agent", user("x")))


def test_a_server_that_refuses_everything_from_now_on_costs_no_prompt_its_answer(tmp_path):
    async def ask(models):
        await models.chat("agent", user("good"))
        server.reject = "e"  # in the simplest question too
        with pytest.raises(InfrastructureError, match="refuses every request"):
            await models.chat("agent", user("better"))

    with ModelServer(answer) as server:
        asked(tmp_path, server, ask)
        server.reject = ""
        assert asked(tmp_path, server, lambda models: models.chat("agent", user("better"))) == "I say better"


# ----------------------------------------------------------------------------- what is left out


@pytest.mark.parametrize(
    ("unknown", "left_out"),
    [
        (["reasoning_effort"], "reasoning_effort"),
        (["json_schema"], "json_schema"),
        (["json_schema", "json_object"], "json_schema, json_object"),
        (["max_completion_tokens"], "max_completion_tokens"),
        (["max_completion_tokens", "max_tokens"], "max_completion_tokens, max_tokens"),
        (["system"], "messages of the system"),
        (
            [
                "reasoning_effort",
                "json_schema",
                "json_object",
                "max_completion_tokens",
                "max_tokens",
                "system",
            ],
            "system",
        ),
    ],
)
@pytest.mark.parametrize("vague", [False, True], ids=["says which", "vague"])
def test_what_an_endpoint_does_not_understand_is_found_out_once_and_said(tmp_path, unknown, left_out, vague):
    async def ask(models):
        first = await models.ask_json("meta", user("1"), SCHEMA)
        before = server.requests
        second = await models.ask_json("meta", user("2"), SCHEMA)
        return first, second, before, server.requests

    lines: list[str] = []
    with ModelServer(answer, unknown=unknown, vague=vague) as server:
        first, second, before, after = asked(tmp_path, server, ask, lines)
    assert (first, second) == ({"say": "1"}, {"say": "2"})
    assert after == before + 1  # remembered
    assert len(lines) == 1 and "left out from now on" in lines[0]
    assert all(part in lines[0] for part in left_out.split(", "))
    first_message = server.bodies[-1]["messages"][0]["content"]
    assert "You are an agent." in first_message
    if not vague:  # else what is not at fault may have been left out before what is
        assert before == 1 + len(unknown)
        assert ("JSON schema" in first_message) == ("json_schema" in unknown)


def test_thirty_first_calls_at_once_find_out_the_same_and_say_it_once(tmp_path):
    async def ask(models):
        return await asyncio.gather(*(models.chat("agent", user(str(number))) for number in range(30)))

    lines: list[str] = []
    with ModelServer(answer, unknown=["reasoning_effort", "max_completion_tokens"], latency=0.01) as server:
        said = asked(tmp_path, server, ask, lines, in_flight=30)
    assert said == [f"I say {number}" for number in range(30)]
    assert sum("left out" in line for line in lines) <= 2


def test_a_run_that_goes_on_knows_what_was_found_out(tmp_path):
    lines: list[str] = []
    with ModelServer(answer, unknown=["reasoning_effort", "max_completion_tokens"]) as server:
        asked(tmp_path, server, lambda models: models.chat("agent", user("1")))
        before = server.requests
        asked(tmp_path, server, lambda models: models.chat("agent", user("2")), lines)
    assert (before, server.requests, lines) == (3, 4, [])


def test_a_schema_of_a_design_that_is_refused_costs_others_nothing(tmp_path):
    async def ask(models):
        odd = {"type": "object", "properties": {"say": {"type": "string", "format": "whatever"}}}
        await models.chat("memory", user("1"), schema=odd)
        await models.ask_json("meta", user("2"), SCHEMA)
        return server.bodies[-1]["response_format"]["type"]

    with ModelServer(answer) as server:
        server.refused_schema = "whatever"
        assert asked(tmp_path, server, ask) == "json_schema"


# ------------------------------------------------------------------------- prompts that are long


def test_a_prompt_that_is_too_long_is_an_error_of_its_own(tmp_path):
    async def ask(models):
        with pytest.raises(ContextOverflow, match="maximum context length"):
            await models.chat("agent", user("x" * 4000))
        return await models.chat("agent", user("x"))

    with ModelServer(answer, context=500) as server:
        assert asked(tmp_path, server, ask) == "I say x"


def test_a_server_that_counts_the_answer_as_context_gets_no_limit_for_it(tmp_path):
    async def ask(models):
        said = await models.chat("agent", user("x" * 2000))
        with pytest.raises(ContextOverflow):
            await models.chat("agent", user("x" * 8000))
        return said

    with ModelServer(answer, context=1000) as server:
        server.counts_answer = True
        assert asked(tmp_path, server, ask).startswith("I say x")
    assert server.requests == 3 + 1


def test_a_text_that_is_too_long_to_embed_is_cut_and_said(tmp_path):
    lines: list[str] = []
    with ModelServer(answer, context=500) as server:
        long, short = asked(tmp_path, server, lambda models: models.embed(["mug " * 2000, "mug"]), lines)
    assert len(long) == len(short) == 256
    assert any("too long to embed" in line for line in lines)


# ----------------------------------------------------------------------------------- whose turn


def test_a_design_with_many_calls_does_not_keep_the_others_waiting():
    async def run():
        slots, order, running = FairSlots(4), [], 0

        async def call(design: str):
            nonlocal running
            async with slots.slot(design):
                running += 1
                assert running <= 4
                order.append(design)
                await asyncio.sleep(0)
                running -= 1

        calls = [asyncio.create_task(call("greedy")) for _ in range(200)]
        await asyncio.sleep(0)
        calls += [asyncio.create_task(call(design)) for design in ("b", "c") for _ in range(10)]
        await asyncio.gather(*calls)
        return order

    order = asyncio.run(run())
    assert len(order) == 220
    assert all(design in order[:20] for design in ("b", "c"))
    assert order[:60].count("b") == order[:60].count("c") == 10


def test_slots_of_slow_calls_go_to_the_design_that_has_the_fewest():
    async def run():
        slots, gates, served = FairSlots(2), [], []

        async def call(design: str):
            async with slots.slot(design):
                served.append(design)
                gate = asyncio.Event()
                gates.append(gate)
                await gate.wait()

        tasks = [asyncio.create_task(call("slow")) for _ in range(5)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(call("quick")) for _ in range(3)]
        for number in range(len(tasks)):
            while len(gates) <= number:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            gates[number].set()
        await asyncio.gather(*tasks)
        return served

    assert asyncio.run(run())[:5] == ["slow", "slow", "quick", "slow", "quick"]


def test_a_call_that_is_cancelled_while_it_waits_gives_its_turn_away():
    async def run():
        slots, done = FairSlots(1), []

        async def call(name: str):
            async with slots.slot(name):
                done.append(name)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(call(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), slots.slot("e"):
            return done

    assert asyncio.run(run()) == ["a", "c", "d"]


def test_calls_in_flight_never_pass_the_limit(tmp_path):
    async def ask(models):
        await asyncio.gather(*(models.chat("agent", user(str(n)), design=f"d{n % 3}") for n in range(60)))

    with ModelServer(answer, latency=0.01) as server:
        asked(tmp_path, server, ask, in_flight=7)
    assert server.requests == 60 and server.most_in_flight == 7


# -------------------------------------------------------------------------------------- all of it


def test_a_thousand_faults_at_a_fifth_of_the_calls_change_no_answer(tmp_path):
    """4,000 calls of all roles in their forms; faults of every kind, drawn by the seed."""

    async def ask(models):
        agents = [models.chat("agent", user(f"a{number}"), design=f"d{number % 5}") for number in range(2400)]
        plans = [models.ask_json("meta", user(f"m{number}"), SCHEMA, tries=6) for number in range(1200)]
        vectors = [models.embed([f"v{number}"]) for number in range(400)]
        return await asyncio.gather(*agents, *plans, *vectors)

    faults = [fault for fault in FAULTS if fault not in ("endless", "silent", "Action:", "quotes")]
    with ModelServer(answer, seed=3, fault_rate=0.2, faults=faults) as server:
        patience = Patience(60.0, 0.002, 0.01, (), 30.0)
        said = asked(tmp_path, server, ask, in_flight=30, patience=patience)
    assert said[:2400] == [f"I say a{number}" for number in range(2400)]
    assert said[2400:3600] == [{"say": f"m{number}"} for number in range(1200)]
    assert [vector for [vector] in said[3600:]] == np.float32(
        standins.embed([f"v{n}" for n in range(400)])
    ).tolist()
    assert sum(server.played.values()) > 950 and len(server.played) >= 20
    assert max(server.answered.values()) == 1


def test_the_package_of_the_client_is_imported_by_the_first_call_only(python):
    import subprocess

    code = "import llm, sys; sys.exit('openai' in sys.modules)"
    assert subprocess.run([python, "-c", code], cwd=sys.path[0] or ".").returncode == 0
