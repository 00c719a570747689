"""Prices, budgets and estimates."""

import asyncio
import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from errors import BudgetError, UserError
from llm import Keys, Models, ModelSpec
from models.credentials import PROVIDERS
from models.endpoint import Patience
from models.prices import SOURCE, Budget, PlannedCalls, Price, estimate, parse_price, price
from models.store import Store
from tests.endpoint import ModelServer

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = Patience(20.0, 0.002, 0.01, (), 30.0)


def test_a_call_costs_cached_tokens_less_and_reasoning_as_output():
    assert price("gpt-5", {}).usd(prompt=1_000_000, cached=400_000, completion=100_000) == pytest.approx(
        0.6 * 1.25 + 0.4 * 0.125 + 0.1 * 10
    )


def test_own_prices_come_first_snapshots_cost_as_their_model_and_unknown_ones_are_unknown():
    own = {"gpt-5": Price(1, 1, 1)}
    assert price("gpt-5", own) == price("gpt-5-2025-08-07", own) == own["gpt-5"]
    assert price("gpt-5-mini-2025-08-07", own) == price("gpt-5-mini", {}) == Price(0.25, 0.025, 2.0)
    assert price("qwen3:8b", own) is None
    assert parse_price("qwen3:8b=0.1,0.05,0.2") == ("qwen3:8b", Price(0.1, 0.05, 0.2))


@pytest.mark.parametrize(
    ("name", "provider", "listed"),
    [
        ("gpt-5", "openai", True),
        ("gpt-5-nano-2025-08-07", "openai", True),
        ("gpt-5-nano-of-mine", "openai", False),  # genai-prices matches it by its beginning
        ("ft:gpt-4o-mini-2024-07-18:me", "openai", False),
        ("claude-haiku-4-5-20251001", "anthropic", True),
        ("claude-haiku-4-5-of-mine", "anthropic", False),
        ("gpt-5", "anthropic", False),
        ("gpt-5", "vllm", False),
        ("openai/gpt-5-nano", "openrouter", True),
        ("gemini-2.5-flash", "gemini", True),
        ("deepseek-chat", "deepseek", True),
        ("mistral-small-latest", "mistral", True),
        ("llama-3.3-70b-versatile", "groq", True),
    ],
)
def test_a_list_price_is_that_of_the_very_model_at_the_provider_asked(name, provider, listed):
    assert (price(name, {}, PROVIDERS[provider][0]) is not None) == listed


def test_an_address_that_only_begins_like_a_providers_has_no_list_price():
    assert price("gpt-5", {}, "https://api.openai.com.example.org/v1") is None
    assert price("gpt-5", {}, "http://gateway.example.org/v1") is None


def test_a_long_prompt_costs_what_its_tier_says():
    listed = price("gemini-2.5-pro", {}, PROVIDERS["gemini"][0])
    assert listed.usd(200_000, 0, 0) == pytest.approx(0.2 * listed.input)
    assert listed.usd(200_001, 0, 0) > 0.3 * listed.input


def test_prices_need_no_network(python):
    code = "import socket; from models.prices import price; socket.socket = None; assert price('gpt-5', {})"
    assert subprocess.run([python, "-c", code], cwd=ROOT).returncode == 0


def test_the_list_prices_are_of_the_release_that_is_named():
    assert f"genai-prices {importlib.metadata.version('genai-prices')}," in SOURCE


def test_an_estimate_says_where_its_prices_come_from():
    listed, mine = PlannedCalls("meta", "gpt-5", 1, 1, 1), PlannedCalls("agent", "mine", 1, 1, 1)
    assert "genai-prices" in str(estimate([listed], {})) and "2026-" in str(estimate([listed], {}))
    assert str(estimate([mine], {"mine": Price(1, 1, 1)})).endswith("(--price)")


@pytest.mark.parametrize(
    "text", ["gpt-5", "gpt-5=1", "gpt-5=1,2", "=1,2,3", "gpt-5=a,b,c", "gpt-5=1,2,-3", "m=nan,1,1"]
)
def test_a_price_in_another_form_is_one_line_for_the_user(text):
    with pytest.raises(UserError, match="--price"):
        parse_price(text)


def test_an_estimate_adds_up_and_says_which_price_is_unknown():
    planned = [
        PlannedCalls("meta", "gpt-5", 10, 20_000, 5_000),
        PlannedCalls("agent", "gpt-5-nano", 1000, 4_000, 500, cached_share=0.5),
        PlannedCalls("memory", "offline", 50, 1000, 100, base_url=""),
    ]
    known = estimate(planned, {})
    assert (known.calls, known.tokens, known.unpriced) == (1010, 250_000 + 4_500_000, ())
    assert known.usd == pytest.approx(10 * (0.02 * 1.25 + 0.005 * 10) + 2 * 0.05 + 2 * 0.005 + 0.5 * 0.4)
    unknown = estimate([*planned, PlannedCalls("memory", "qwen3:8b", 1, 1, 1)], {})
    assert unknown.usd is None and unknown.unpriced == ("qwen3:8b",) and "qwen3:8b unknown" in str(unknown)


# -------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("unit", ["usd", "tokens"])
def test_a_budget_is_passed_by_one_call_at_most_and_says_how_far_it_is(unit):
    limit, costs, lines = 1000, [7, 90, 41, 5, 200, 63], []
    budget = Budget(limit if unit == "usd" else None, limit if unit == "tokens" else None, lines.append)
    spent = most = 0

    async def call(number: int):
        nonlocal spent, most
        cost = costs[number % len(costs)]
        async with budget.reserved(*((300, 0) if unit == "usd" else (0, 300))):  # never less than the cost
            most = max(most, spent)
            await asyncio.sleep(0)
            spent += cost
            budget.spend(*((cost, 0) if unit == "usd" else (None, cost)))

    async def run():
        return await asyncio.gather(*(call(number) for number in range(100)), return_exceptions=True)

    results = asyncio.run(run())
    refused = [result for result in results if result is not None]
    assert refused and all(isinstance(error, BudgetError) for error in refused)
    assert f"--budget-{unit}" in str(refused[0])
    assert most < limit <= spent < limit + max(costs)
    assert [line.split(" of the budget")[0] for line in lines] == ["50 %", "80 %", "100 %"]


def test_no_budget_is_no_limit_and_a_cancelled_call_gives_its_reservation_back():
    async def run():
        free, gate = Budget(None, None, print), asyncio.Barrier(100)

        async def call(budget: Budget, usd: float, until) -> None:
            async with budget.reserved(usd, 10**9):
                await until()

        async with asyncio.timeout(5):
            await asyncio.gather(*(call(free, 1e9, gate.wait) for _ in range(100)))  # all at the same time
        tight, done = Budget(1.0, None, print), asyncio.Event()
        first = asyncio.create_task(call(tight, 0.9, done.wait))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(call(tight, 0.9, done.wait))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        done.set()
        async with asyncio.timeout(5):
            await first
            await call(tight, 0.9, done.wait)

    asyncio.run(run())


def spend(tmp_path, server: ModelServer, calls: int, **budget) -> tuple[list, dict, list[str]]:
    """Results, totals and log of `calls` calls, 30 in flight, at 1 dollar for a million tokens."""
    lines: list[str] = []

    async def run():
        specs = {"agent": ModelSpec.parse(f"agent@{server.url}")}
        options = {"prices": {"agent": Price(1.0, 1.0, 1.0)}, "keys": Keys(), "patience": PATIENCE}
        with Store(tmp_path / "store.sqlite") as store:
            async with Models(specs, store, in_flight=30, log=lines.append, **options, **budget) as models:
                messages = [
                    [{"role": "user", "content": f"{number} " + "word " * 4000}] for number in range(calls)
                ]
                asked = (models.chat("agent", one) for one in messages)
                return await asyncio.gather(*asked, return_exceptions=True), models.totals()

    results, totals = asyncio.run(run())
    return results, totals, lines


def test_a_dollar_budget_with_thirty_in_flight_is_passed_by_less_than_a_call_and_can_be_raised(tmp_path):
    with ModelServer(lambda role, body: "x" * 400, latency=0.005) as server:
        results, totals, lines = spend(tmp_path, server, 100, budget_usd=0.3)
        one_call = totals["usd"] / totals["calls"]
        assert 0.3 <= totals["usd"] < 0.3 + one_call
        assert server.requests == totals["calls"] == sum(isinstance(result, str) for result in results)
        assert any("80 %" in line for line in lines)
        assert server.most_in_flight > 3
        paid = server.requests
        again, _, _ = spend(tmp_path, server, 100, budget_usd=0.3)
        assert server.requests == paid  # what is stored is free, the rest is refused
        assert [isinstance(one, str) for one in again] == [isinstance(one, str) for one in results]
        more, totals, _ = spend(tmp_path, server, 100, budget_usd=10.0)
        assert all(isinstance(result, str) for result in more)
        assert server.requests == totals["calls"] == 100 and max(server.answered.values()) == 1


def test_a_token_budget_needs_no_price(tmp_path):
    with ModelServer(lambda role, body: "x" * 400) as server:
        _, totals, _ = spend(tmp_path, server, 60, budget_tokens=200_000)
    spent = totals["prompt_tokens"] + totals["completion_tokens"]
    assert 200_000 <= spent < 200_000 + spent / totals["calls"]


def test_a_dollar_budget_for_a_model_without_a_price_is_one_line_for_the_user(tmp_path):
    specs = {"agent": ModelSpec.parse("qwen3:8b@http://localhost:1/v1")}
    with (
        Store(tmp_path / "store.sqlite") as store,
        pytest.raises(UserError, match="--price qwen3:8b=in,cached,out"),
    ):
        Models(specs, store, budget_usd=1.0, keys=Keys())


def test_tokens_and_dollars_are_told_apart_by_role_model_design_and_stage(tmp_path):
    async def run(url: str):
        specs = {role: ModelSpec.parse(f"{role}:low@{url}") for role in ("meta", "agent")}
        specs["memory"] = ModelSpec.parse("offline")
        with Store(tmp_path / "store.sqlite") as store:
            prices = {"meta": Price(10, 1, 100)}
            async with Models(
                specs, store, prices=prices, keys=Keys(), patience=PATIENCE, log=print
            ) as models:
                for number in range(2):
                    await models.chat(
                        "meta", [{"role": "user", "content": "x" * 400}], sample=str(number), design="d"
                    )
                await models.chat("agent", [{"role": "user", "content": "x" * 40}], stage="agent", design="d")
                await models.chat("memory", [{"role": "user", "content": "A key opens a door."}], design="d")
                return models.usage(), models.totals()

    with ModelServer(lambda role, body: "y" * 36) as server:
        rows, totals = asyncio.run(run(server.url))
    by_role = {row["role"]: row for row in rows}
    meta = by_role["meta"]
    assert (meta["calls"], meta["prompt_tokens"], meta["cached_tokens"]) == (2, 200, 100)
    assert (meta["completion_tokens"], meta["reasoning_tokens"]) == (30, 10)
    assert meta["usd"] == pytest.approx((100 * 10 + 100 * 1 + 30 * 100) / 1e6)
    assert by_role["agent"]["usd"] is None and by_role["agent"]["stage"] == "agent"
    assert (by_role["memory"]["calls"], by_role["memory"]["model"], by_role["memory"]["usd"]) == (
        1,
        "offline",
        0,
    )
    assert totals["calls"] == 4 and totals["unpriced"] == 1 and totals["usd"] == pytest.approx(meta["usd"])
