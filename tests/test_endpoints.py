"""Every fault that an endpoint can have, really played by a server, and what comes of it."""

import asyncio
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import standins
from errors import BudgetError, DesignError, InfrastructureError, UserError
from llm import BARREN, Keys, Models, ModelSpec
from models.credentials import Key, is_this_machine
from models.endpoint import RULES, ContextOverflow, Endpoint, Patience
from models.fair_queue import FairQueue
from models.prices import Price
from models.replies import _described
from models.store import Store
from tests.endpoint import ANSWERS, BROKEN, BROKEN_ANSWERS, FAULTS, FLOOD, FRAMES, STATUS, STOPS, ModelServer

QUICK = Patience(outage=60.0, pause=0.002, longest_pause=0.01, deadlines=(), deadline=2.0)
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


@pytest.mark.parametrize("fault", [*STATUS, *BROKEN, *BROKEN_ANSWERS, FLOOD, *ANSWERS])
def test_a_fault_is_met_logged_or_stored_and_does_not_change_the_answer(tmp_path, fault):
    lines: list[str] = []
    with ModelServer(answer) as server:
        server.script = [fault, fault]
        deadline = {"endless": 0.1, "silent": 0.1, FLOOD: 30.0}.get(fault, QUICK.deadline)
        options = {"patience": replace(QUICK, deadline=deadline)}
        said = asked(tmp_path, server, lambda models: models.chat("agent", user("north")), lines, **options)
    assert said == "I say north"
    assert server.requests == 3
    with sqlite3.connect(tmp_path / "store.sqlite") as store:
        stored = [fault for (fault,) in store.execute("select fault from calls order by created, key")]
    if fault in ANSWERS:
        kind = {"no choices": "empty", "no message": "empty", "stream that ends": "broken off"}.get(fault, fault.removesuffix(" 400"))
        assert stored == [kind] * 2 + [""]  # each was paid for
    else:
        assert stored == [""] and len(lines) == 1 and "asking again" in lines[0]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_right_answer_in_another_frame_is_read_at_once_and_its_tokens_are_counted(tmp_path, frame):
    async def ask(models):
        return await models.chat("agent", user("north")), models.totals()["prompt_tokens"]

    with ModelServer(answer) as server:
        server.script = [frame]
        assert asked(tmp_path, server, ask) == ("I say north", server.tokens["prompt"])
    assert server.requests == 1


@pytest.mark.parametrize("body", ['{"choices": [null]}', '{"choices": [{"message": null}]}', '{"choices": null}', "[]", '"x"'])
def test_json_without_an_answer_is_no_answer_and_after_some_tries_counts_as_one(tmp_path, body):
    with ModelServer(answer) as server:
        server.script = [body] * 20
        patience = Patience(3600.0, 0.002, 0.01, (), 5.0)
        assert asked(tmp_path, server, lambda models: models.chat("agent", user("x")), patience=patience) == ""
    assert server.requests == 1 + RULES["empty"][1]


BAD_NUMBERS = [None, "12", [12], -12, float("nan"), float("inf"), True, 10**12, 10**400, {}]


@pytest.mark.parametrize(
    "usage",
    [None, "many", [1], *({"prompt_tokens": bad, "completion_tokens": bad, "prompt_tokens_details": bad} for bad in BAD_NUMBERS)],
    ids=lambda usage: str(usage)[:60],
)
def test_tokens_that_are_not_counted_are_estimated_which_is_said_once_and_budgets_hold(tmp_path, usage):
    async def ask(models):
        with pytest.raises(BudgetError):
            for number in range(100):
                await models.chat("agent", user(f"{number} " + "x" * 400))
        return models.totals()

    lines: list[str] = []
    with ModelServer(answer, usage=usage or False) as server:
        totals = asked(tmp_path, server, ask, lines, budget_tokens=5_000)
    assert sum("they are estimated" in line for line in lines) == 1
    assert 100 * totals["calls"] < totals["prompt_tokens"] < 110 * totals["calls"]
    assert 5_000 <= totals["prompt_tokens"] + totals["completion_tokens"] < 5_200


def test_a_detail_of_usage_is_never_more_than_the_whole(tmp_path):
    usage = {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10**6},
             "completion_tokens_details": {"reasoning_tokens": "all"}}  # fmt: skip

    async def ask(models):
        await models.chat("agent", user("x"))
        return models.totals()

    with ModelServer(answer, usage=usage) as server:
        totals = asked(tmp_path, server, ask)
    assert [totals[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion", "reasoning")] == [8, 8, 3, 0]


def test_thoughts_that_are_in_the_total_alone_are_counted(tmp_path):
    usage = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 8 + 3 + 40,
             "completion_tokens_details": {"reasoning_tokens": 40}}  # fmt: skip

    async def ask(models):
        await models.chat("agent", user("x"))
        return models.totals()

    with ModelServer(answer, usage=usage) as server:
        totals = asked(tmp_path, server, ask)
    assert [totals[f"{kind}_tokens"] for kind in ("prompt", "completion", "reasoning")] == [8, 43, 40]
    with ModelServer(answer, usage={"total_tokens": 4000}) as server:  # no count of either part
        totals = asked(tmp_path, server, ask, name="total")
    assert totals["completion_tokens"] < 100


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


@pytest.mark.parametrize("seconds", ["nan", "inf", "soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_is_no_time_to_come_is_passed_over(tmp_path, seconds):
    with ModelServer(answer, retry_after=seconds) as server:
        server.script = ["429 retry-after"] * 3
        assert asked(tmp_path, server, lambda models: models.chat("agent", user("x"))) == "I say x"


# ----------------------------------------------------------------- errors that come with status 200


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "No auth credentials found", "code": 401}},
        {"error": "Unauthorized"},
        {"error": {"error": {"code": "401", "message": "denied"}}},
        {"error": {"message": '{"error": {"status": 403, "message": "denied"}}'}},
        [{"error": {"code": 401, "message": "denied", "status": "UNAUTHENTICATED"}}],
        {"error": {"message": "Insufficient credits. Add more", "code": 402}},
        {"error": "insufficient balance"},
        {"error": {"message": "denied", "code": 404}},
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError"},
        {"detail": "Invalid API key"},
        {"error_code": 401, "error_msg": "Access token invalid"},
        "Unauthorized",
        {"choices": [{"message": {"content": "right"}, "error": {"code": 401, "message": "denied"}}]},
    ],
    ids=str,
)
def test_an_error_with_status_200_that_no_waiting_helps_stops_at_once(tmp_path, error):
    with ModelServer(answer) as server:
        server.script = [json.dumps(error)]
        with pytest.raises(InfrastructureError, match=r"agent at http://127.*: 40[1-4] "):
            asked(tmp_path, server, lambda models: models.chat("agent", user("x")))
    assert server.requests == 1


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Rate limit exceeded", "code": 429}},
        {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "overloaded"}}},
        {"error": "overloaded"},
        {"error": True},
        {"choices": [{"finish_reason": "network_error", "message": {"content": "I go ri"}}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": "I go ri"}}], "error": {"code": 500}},
    ],
    ids=str,
)
def test_an_error_with_status_200_that_may_pass_is_asked_again_and_never_an_answer(tmp_path, error):
    with ModelServer(answer) as server:
        server.script = [json.dumps(error)] * 2
        assert asked(tmp_path, server, lambda models: models.chat("agent", user("x"))) == "I say x"
    assert server.requests == 3


@pytest.mark.parametrize(
    ("reason", "faults"),
    [("max_output_tokens", ["length", ""]), ("SAFETY", ["content filter", ""]), ("refusal", ["refusal", ""]),
     ("internal_server_error", [""]), ("end_turn", [""]), ("eos", [""]), (None, [""]), ("stop_sequence", [""])],
)  # fmt: skip
def test_a_reason_to_finish_is_known_by_its_words(tmp_path, reason, faults):
    with ModelServer(answer) as server:
        server.script = [json.dumps({"choices": [{"message": {"content": "I say x"}, "finish_reason": reason}]})]
        assert asked(tmp_path, server, lambda models: models.chat("agent", user("x"))) == "I say x"
    with sqlite3.connect(tmp_path / "store.sqlite") as store:
        assert [fault for (fault,) in store.execute("select fault from calls order by created")] == faults


def test_an_error_field_that_says_there_is_none_is_passed_over(tmp_path):
    for number, error in enumerate([None, "", {}, {"code": 0, "message": ""}]):
        with ModelServer(answer) as server:
            server.script = [json.dumps({"choices": [{"message": {"content": "right"}}], "error": error})]
            assert asked(tmp_path, server, lambda models: models.chat("agent", user("x")), name=str(number)) == "right"


def test_a_full_context_with_status_200_is_a_full_context(tmp_path):
    async def ask(models):
        with pytest.raises(ContextOverflow):
            await models.chat("agent", user("x"))

    with ModelServer(answer) as server:
        message = "This endpoint's maximum context length is 4096 tokens."
        for error in ({"message": message, "code": 400}, message):
            server.script = [json.dumps({"error": error})]
            asked(tmp_path, server, ask)


# ------------------------------------------------------------------------- what stops the run


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_not_active", "insufficient_balance"])
def test_a_429_that_no_waiting_helps_is_known_by_its_code(tmp_path, code):
    error = {"message": "You exceeded your current quota", "status": 429, "code": code}
    with ModelServer(answer) as server:
        server.script = [json.dumps({"error": error})]
        with pytest.raises(InfrastructureError, match="429 You exceeded your current quota: the account has no credit left"):
            asked(tmp_path, server, lambda models: models.chat("agent", user("x")))
    assert server.requests == 1


def test_a_refused_parameter_is_found_in_whichever_form_it_is_named():
    for error in (
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "reasoning_effort"], "msg": "Extra inputs"}]},
        {"message": {"detail": [{"loc": ["body", "reasoning_effort"], "msg": "Extra inputs"}]}},
        {"message": "Unsupported value", "param": "reasoning_effort", "code": "unsupported_value"},
        "unknown field reasoning_effort",
    ):
        assert "reasoning_effort" in _described(error)[2]


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
        with pytest.raises(InfrastructureError, match="questions in a row without an answer: there is not a word"):
            await models.chat("agent", user("last"))
        return said

    with ModelServer(lambda role, body: "") as server:
        assert asked(tmp_path, server, ask) == [""] * (BARREN - 1)
        assert server.requests == BARREN * (1 + RULES["empty"][1])
        server.answer = answer  # mended: the run goes on as if nothing had been
        again = asked(tmp_path, server, lambda models: models.chat("agent", user("3")))
    assert again == "I say 3"


@pytest.mark.parametrize(
    ("fault", "words"), [("content filter", "content filter"), ("content filter 400", "content filter"), ("only thoughts", "reasoning_content")]
)
def test_an_endpoint_that_filters_or_only_thinks_stops_in_one_line_that_names_it(tmp_path, fault, words):
    async def ask(models):
        for number in range(BARREN - 1):
            await models.chat("agent", user(str(number)))
        await models.chat("agent", user("last"))

    line = rf"agent at .* questions in a row .*{words}"
    with ModelServer(answer, faults=[fault], fault_rate=1.0) as server, pytest.raises(InfrastructureError, match=line) as caught:
        asked(tmp_path, server, ask)
    assert "\n" not in str(caught.value)


def test_a_redirect_is_not_followed_and_its_address_is_named(tmp_path):
    with ModelServer(answer) as other, ModelServer(answer, redirect=other.url) as server:
        line = rf"307 it redirects to {other.url}.*give the address"
        with pytest.raises(InfrastructureError, match=line):
            asked(tmp_path, server, lambda models: models.chat("agent", user("x")))
    assert (server.requests, other.requests) == (1, 0)


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


def test_a_schema_of_a_design_with_true_in_the_place_of_a_schema_is_sent(tmp_path):
    odd = {"type": "object", "properties": {"say": True, "more": {"type": "array", "items": False}}}
    with ModelServer(answer) as server:
        said = asked(tmp_path, server, lambda models: models.chat("memory", user("1"), schema=odd))
    assert json.loads(said) == {"say": "1"}
    assert server.bodies[0]["response_format"]["json_schema"]["strict"] is False


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


def test_an_answer_that_a_full_context_cuts_is_no_answer_and_one_at_the_own_limit_is(tmp_path):
    async def ask(models):
        with pytest.raises(ContextOverflow, match="cut after 7 tokens of 16: the context is full"):
            await models.chat("agent", user("a long dialogue"), limit=16)
        return await models.chat("agent", user("a short one"), limit=7), models.totals()

    with ModelServer(answer, usage={"prompt_tokens": 993, "completion_tokens": 7}) as server:
        server.script = ["length", "length"]
        said, totals = asked(tmp_path, server, ask)
        assert "I say a short one".startswith(said)
        assert [totals[name] for name in ("calls", "prompt_tokens", "completion_tokens")] == [2, 2 * 993, 14]
        # In a run that goes on with a larger context; what was paid stays counted.
        again = asked(tmp_path, server, lambda models: models.chat("agent", user("a long dialogue"), limit=16))
        assert "I say a long dialogue".startswith(again)
    with sqlite3.connect(tmp_path / "store.sqlite") as store:
        assert store.execute("select count(*), sum(completion_tokens) from calls").fetchone() == (3, 21)
    assert server.requests == 3


def test_a_text_that_is_too_long_to_embed_is_cut_and_said(tmp_path):
    lines: list[str] = []
    with ModelServer(answer, context=500) as server:
        long, short = asked(tmp_path, server, lambda models: models.embed(["mug " * 2000, "mug"]), lines)
    assert len(long) == len(short) == 256
    assert any("too long to embed" in line for line in lines)


# ------------------------------------------------------------------ embeddings that are refused

TEXTS = [f"text {number} " + "x" * 800 for number in range(40)]


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("good_before", [False, True])
def test_too_many_texts_in_a_call_are_sent_in_smaller_ones_which_is_remembered(tmp_path, status, good_before):
    async def ask(models):
        if good_before:
            await models.embed(["one"])
        return await models.embed(TEXTS), await models.embed([text + "!" for text in TEXTS])

    lines: list[str] = []
    with ModelServer(answer, most_texts=10, embedding_status=status) as server:
        first, second = asked(tmp_path, server, ask, lines)
        assert np.allclose(first, standins.embed(TEXTS)) and len(second) == 40
        sizes = [len(body["input"]) for body in server.bodies]
        assert sizes == [1] * good_before + [40, 20] + [10] * 8
        asked(tmp_path, server, lambda models: models.embed([text + "?" for text in TEXTS]))  # a resumed run
        assert [len(body["input"]) for body in server.bodies[len(sizes):]] == [10] * 4
    assert "at most 10 texts in a call" in lines[-1] and not any("are cut" in line for line in lines)


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_text_that_is_too_long_is_cut_and_does_not_make_the_calls_smaller(tmp_path, status):
    async def ask(models):
        await models.embed(["one"])
        return await models.embed([*(f"short {number}" for number in range(30)), "x" * 900])

    lines: list[str] = []
    with ModelServer(answer, longest_text=300, embedding_status=status) as server:
        assert len(asked(tmp_path, server, ask, lines)) == 31
        before = len(server.bodies)
        asked(tmp_path, server, lambda models: models.embed([f"{number}" + "y" * 900 for number in range(40)]))
        assert [len(body["input"]) for body in server.bodies[before:]] == [40]
    assert max(len(text) for text in server.bodies[-1]["input"]) == 225
    assert "texts over 225 characters are cut" in lines[-1]


def test_a_plain_500_over_many_texts_is_tried_with_fewer(tmp_path):
    with ModelServer(answer) as server:
        server.script = ["500"] * 4
        assert len(asked(tmp_path, server, lambda models: models.embed(TEXTS))) == 40
    assert [len(body["input"]) for body in server.bodies] == [40] * 4 + [20] * 2


def test_one_text_that_is_refused_is_the_fault_of_its_design_and_of_no_other(tmp_path):
    async def ask(models):
        mine, yours = await asyncio.gather(
            models.embed([*TEXTS, "\x07 bad"], design="a"), models.embed(TEXTS[:5], design="b"), return_exceptions=True
        )
        return mine, yours, await models.embed(TEXTS, design="a")

    with ModelServer(answer, bad_text="bad") as server:
        mine, yours, again = asked(tmp_path, server, ask)
        texts = [text for body in server.bodies for text in body["input"] if text != "text"]
    assert isinstance(mine, DesignError) and "not allowed" in str(mine)
    assert yours == again[:5] and len(again) == 40
    assert sum(text.startswith("text 7 ") for text in texts) <= 7  # good texts beside it are not sent for ever


def test_a_long_text_that_is_refused_for_its_content_makes_no_others_shorter(tmp_path):
    async def ask(models):
        with pytest.raises(DesignError):
            await models.embed(["bad" + "x" * 9000])
        return await models.embed(["y" * 8000])

    with ModelServer(answer, bad_text="bad") as server:
        asked(tmp_path, server, ask)
        assert len(server.bodies[-1]["input"][0]) == 8000


def test_an_endpoint_that_embeds_nothing_stops_the_run_in_one_line(tmp_path):
    line = r"embedding at .*: 400 .*not allowed"
    with ModelServer(answer, bad_text="e") as server, pytest.raises(InfrastructureError, match=line):
        asked(tmp_path, server, lambda models: models.embed(["one", "text"]))


@pytest.mark.parametrize("body", ['{"data": []}', '{"data": [{"embedding": [null]}]}', '{"data": [{"embedding": [NaN]}]}', '{"data": [{"embedding": [1e39]}]}'])
def test_an_endpoint_without_vectors_stops_after_some_tries(tmp_path, body):
    with ModelServer(answer) as server:
        server.script = [body] * 20
        patience = Patience(3600.0, 0.002, 0.01, (), 5.0)
        with pytest.raises(InfrastructureError, match="no vector of numbers"):
            asked(tmp_path, server, lambda models: models.embed(["x"]), patience=patience)
    assert server.requests == 1 + RULES["no vectors"][1]


def test_vectors_without_an_index_and_in_base64_are_read(tmp_path):
    rows = [{"embedding": "AACAPwAAAEA="}, {"embedding": [3, 4.0]}]
    with ModelServer(answer) as server:
        server.script = [json.dumps({"data": rows})]
        assert sorted(asked(tmp_path, server, lambda models: models.embed(["a", "b"]))) == [[1.0, 2.0], [3.0, 4.0]]


# ------------------------------------------------------------- proxies and certificates of the user


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("https_proxy", "htp://me:secret@127.0.0.1:1"),
        ("HTTPS_PROXY", "http://[::1"),
        ("https_proxy", "http://127.0.0.1:99999"),
        ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
        ("SSL_CERT_FILE", __file__),
        ("SSL_CERT_DIR", "/nonexistent"),
    ],
)
def test_a_bad_proxy_or_certificate_is_one_line_that_names_the_variable(tmp_path, monkeypatch, variable, value):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=variable) as caught:
        Endpoint("https://example.org/v1", Key("X", "k"), QUICK, print, Store(tmp_path / "store.sqlite")).open()
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_dead_proxy_is_named_by_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InfrastructureError, match=r"through the proxy of http_proxy.*gave up"):
        patience = replace(QUICK, outage=0.1, deadline=5.0)
        asked(tmp_path, At("http://192.0.2.1:1/v1"), lambda models: models.chat("agent", user("x")), patience=patience)


class At:
    """An address where no test server is."""

    def __init__(self, url: str):
        self.url = url


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "htp://x"])
def test_an_address_on_this_machine_goes_through_no_proxy(tmp_path, monkeypatch, proxy):
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    with ModelServer(answer) as server:
        for number, host in enumerate(("127.0.0.1", "localhost", "127.1.2.3")):
            at = At(server.url.replace("127.0.0.1", host))
            if host != "127.1.2.3":
                said = asked(tmp_path, at, lambda models: models.chat("agent", user("x")), name=str(number))
                assert said == "I say x"
            assert is_this_machine(at.url)
    assert not is_this_machine("https://localhost.example.org/v1")


def test_a_certificate_that_nobody_knows_stops_at_once_and_names_the_variable(tmp_path, monkeypatch):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    pair = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", pair[0], "-out", pair[1]]
    subprocess.run(make, check=True, capture_output=True)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with ModelServer(answer, certificate=pair) as server:
        secure = At(server.url.replace("http://127.0.0.1", "https://localhost"))

        def ask():
            return asked(tmp_path, secure, lambda models: models.chat("agent", user("x")))

        with pytest.raises(InfrastructureError, match="SSL_CERT_FILE must name the certificate"):
            ask()
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[1]))
        assert ask() == "I say x"
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_refuse_tls, args=(plain,), daemon=True).start()
        secure.url = f"https://127.0.0.1:{plain.getsockname()[1]}/v1"
        with pytest.raises(InfrastructureError, match="http, not https"):
            ask()


def _refuse_tls(server: socket.socket) -> None:
    """What a server without encryption says to one who begins with it."""
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# ----------------------------------------------------------------------------------- whose turn


def test_a_design_with_many_calls_does_not_keep_the_others_waiting():
    async def run():
        queue, order, running = FairQueue(4), [], 0

        async def call(design: str):
            nonlocal running
            async with queue.turn(design):
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
        queue, gates, served = FairQueue(2), [], []

        async def call(design: str):
            async with queue.turn(design):
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
        queue, done = FairQueue(1), []

        async def call(name: str):
            async with queue.turn(name):
                done.append(name)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(call(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), queue.turn("e"):
            return done

    assert asyncio.run(run()) == ["a", "c", "d"]


def test_a_higher_priority_goes_first_and_equals_in_order():
    async def run():
        queue, order = FairQueue(1), []

        async def work(name: str, priority: float):
            async with queue.turn(priority=priority):
                order.append(name)
                await asyncio.sleep(0)

        works = [("first", 0), ("short", 1), ("long", 9), ("short too", 1), ("unknown", float("inf"))]
        await asyncio.gather(*(work(*one) for one in works))
        return order

    assert asyncio.run(run()) == ["first", "unknown", "long", "short", "short too"]


def test_calls_in_flight_never_pass_the_limit(tmp_path):
    async def ask(models):
        await asyncio.gather(*(models.chat("agent", user(str(n)), design=f"d{n % 3}") for n in range(60)))

    with ModelServer(answer, latency=0.01) as server:
        asked(tmp_path, server, ask, in_flight=7)
    assert server.requests == 60 and server.most_in_flight == 7


# -------------------------------------------------------------------------------------- all of it


def test_a_thousand_faults_at_half_of_the_calls_change_no_answer(tmp_path):
    """1,200 calls of all roles in their forms; faults of every kind, drawn by the seed."""

    async def ask(models):
        agents = [models.chat("agent", user(f"a{number}"), design=f"d{number % 5}") for number in range(720)]
        plans = [models.ask_json("meta", user(f"m{number}"), SCHEMA, tries=6) for number in range(360)]
        vectors = [models.embed([f"v{number}"]) for number in range(120)]
        return await asyncio.gather(*agents, *plans, *vectors)

    faults = [fault for fault in FAULTS if fault not in ("endless", "silent", "Action:", "quotes")]
    with ModelServer(answer, seed=3, fault_rate=0.5, faults=faults) as server:
        patience = Patience(60.0, 0.002, 0.01, (), 30.0)
        said = asked(tmp_path, server, ask, in_flight=30, patience=patience)
    assert said[:720] == [f"I say a{number}" for number in range(720)]
    assert said[720:1080] == [{"say": f"m{number}"} for number in range(360)]
    assert [vector for [vector] in said[1080:]] == np.float32(
        standins.embed([f"v{n}" for n in range(120)])
    ).tolist()
    assert sum(server.played.values()) > 950 and len(server.played) >= 20
    assert max(server.answered.values()) == 1


def test_the_package_of_the_client_is_imported_by_the_first_call_only(python):
    code = "import llm, sys; sys.exit('openai' in sys.modules)"
    assert subprocess.run([python, "-c", code], cwd=sys.path[0] or ".").returncode == 0
