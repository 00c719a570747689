"""Prices of models, and the budget and the estimate of a run.

Promises: a price is what the user says, or the list price of that very model (or its snapshot or alias) at the
provider asked, else it is unknown; a budget counts calls in flight, so one call at most goes over it. What a
provider charges for a request that timed out is not known here.
"""

import asyncio
import contextlib
import functools
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from errors import BudgetError, UserError
from models.credentials import OPENAI_URL


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens."""

    input: float
    cached: float  # prompt tokens that the provider had in its cache
    output: float  # reasoning tokens are output
    tiers: tuple[tuple[int, "Price"], ...] = ()  # for prompts of more than so many tokens, ascending

    def usd(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars for a call; `cached` is part of `prompt`."""
        price = next((price for start, price in reversed(self.tiers) if prompt > start), self)
        return ((prompt - cached) * price.input + cached * price.cached + completion * price.output) / 1e6


SOURCE = "list prices of genai-prices 0.2.3, 2026-11"  # the pinned release, which itself names no date
SNAPSHOT = re.compile(r"-20\d\d-?[01]\d-?[0-3]\d$")  # "gpt-5-2025-08-07" costs what "gpt-5" does


def price(name: str, own: Mapping[str, Price], base_url: str = OPENAI_URL) -> Price | None:
    """The price of a model at an address, `own` prices first; None where it is unknown."""
    return own.get(name) or own.get(SNAPSHOT.sub("", name)) or _list_price(name, base_url)


@functools.cache
def _list_price(name: str, base_url: str) -> Price | None:
    """The price of calls in text, with its tiers; None where other things than tokens cost."""
    from genai_prices.data_snapshot import get_snapshot  # 0.8 s; its data is in the package, no network

    # The pattern of an address must not end within the name of another host.
    providers = [one for one in get_snapshot().providers if re.match(rf"(?:{one.api_pattern})(?=[:/]|$)", base_url)]
    models = [(model, {model.id.lower(), *_names(model.match)}) for one in providers for model in one.models]
    wanted = (name.lower(), SNAPSHOT.sub("", name).lower())
    found = next((model for name in wanted for model, names in models if name in names), None)
    listed = found and found.get_prices(datetime.now(UTC))
    if not listed or listed.input_mtok is None or listed.requests_kcount or listed.output_reasoning_mtok:
        return None
    parts = (listed.input_mtok, listed.cache_read_mtok or listed.input_mtok, listed.output_mtok or 0)
    tiers = [{one.start: one.price for one in getattr(part, "tiers", ())} for part in parts]
    prices, now = {}, [getattr(part, "base", part) for part in parts]
    for start in sorted({0}.union(*tiers)):  # a part that has no tier of its own there costs what it did before
        now = [part.get(start, before) for part, before in zip(tiers, now, strict=True)]
        prices[start] = Price(*map(float, now))
    return replace(prices.pop(0), tiers=tuple(prices.items()))


def _names(clause) -> list[str]:
    """The whole names in a rule of genai-prices; the rule itself also matches names that only look alike."""
    name = getattr(clause, "equals", None) or getattr(clause, "starts_with", None)
    return [name.lower()] if name else [name for part in getattr(clause, "or_", []) for name in _names(part)]


def parse_price(text: str) -> tuple[str, Price]:
    """`--price model=in,cached,out` in dollars for a million tokens; raises UserError."""
    name, _, numbers = text.rpartition("=")
    values = []
    with contextlib.suppress(ValueError):
        values = [float(number) for number in numbers.split(",")]
    if not name or len(values) != 3 or not all(0 <= value < 1e6 for value in values):
        raise UserError(f"--price {text!r} is not model=in,cached,out, as in gpt-5=1.25,0.125,10")
    return name, Price(*values)


class Budget:
    """Limits in dollars and tokens, `None` for none. A call reserves the most that it may cost before it is sent, and
    waits where that does not fit beside those in flight; with none in flight it may go if less than all is spent."""

    def __init__(self, usd: float | None, tokens: int | None, log: Callable[[str], None]):
        self._limits = {unit: most for unit, most in (("usd", usd), ("tokens", tokens)) if most is not None}
        self._log, self._said = log, Counter()  # the highest percentage that was said
        self._spent, self._reserved = Counter(), Counter()  # by unit; also the calls in flight
        self._freed = asyncio.Event()  # set when a call has ended

    def spend(self, usd: float | None, tokens: int) -> None:
        """Count what was spent; says so at 50, 80 and 100 %."""
        self._spent.update(usd=usd or 0.0, tokens=tokens)
        for unit, limit in self._limits.items():
            share = 100 * self._spent[unit] / limit if limit else 100
            reached = max((mark for mark in (50, 80, 100) if share >= mark), default=0)
            if reached > self._said[unit]:
                self._said[unit] = reached
                self._log(f"{reached} % of the budget is spent: {self._state(unit)}")

    @contextlib.asynccontextmanager
    async def reserved(self, usd: float | None, tokens: int) -> AsyncIterator[None]:
        """Wait until a call of at most `usd` and `tokens` may be sent, which then will `spend`; raises BudgetError."""
        most, limits = {"usd": usd or 0.0, "tokens": tokens, "calls": 1}, self._limits.items()
        while any(self._spent[unit] + self._reserved[unit] + most[unit] > limit for unit, limit in limits):
            if gone := next((unit for unit, limit in limits if self._spent[unit] >= limit), ""):
                raise BudgetError(f"the budget is spent: {self._state(gone)}; resume with a larger --budget-{gone}")
            if not self._reserved["calls"]:
                break  # the one call that may go over
            await self._freed.wait()
        self._reserved.update(most)
        try:
            yield
        finally:
            self._reserved.subtract(most)
            if not self._reserved["calls"]:
                self._reserved.clear()  # no drift of rounding is left
            self._freed.set()  # all that wait look again
            self._freed = asyncio.Event()

    def _state(self, unit: str) -> str:
        spent, limit = self._spent[unit], self._limits[unit]
        return f"${spent:.4f} of ${limit:.2f}" if unit == "usd" else f"{spent:,} of {limit:,} tokens"


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one kind that a run is going to make."""

    role: str
    model: str  # its name, without effort and address
    calls: int
    prompt_tokens: int  # of one call
    completion_tokens: int  # of one call, reasoning included
    cached_share: float = 0.0  # of the prompt tokens, in [0, 1]
    base_url: str = OPENAI_URL  # where it is asked; "" for what is no endpoint's model and costs nothing


@dataclass(frozen=True)
class Estimate:
    """What a run is going to need."""

    calls: int
    tokens: int
    usd: float | None  # None where a price is unknown
    unpriced: tuple[str, ...]  # models without a price
    source: str = ""  # of the prices, with their date

    def __str__(self) -> str:
        unknown = f"price of {', '.join(self.unpriced)} unknown"
        dollars = unknown if self.usd is None else f"${self.usd:.2f} ({self.source})"
        return f"about {self.calls:,} calls, {self.tokens / 1e6:.1f} million tokens, {dollars}"


def estimate(planned: Iterable[PlannedCalls], own: Mapping[str, Price]) -> Estimate:
    """Calls, tokens and dollars of all `planned` calls of endpoints."""
    paid, usd, unpriced, sources = [one for one in planned if one.calls and one.base_url], 0.0, set(), set()
    for one in paid:
        if known := price(one.model, own, one.base_url):
            cached = round(one.prompt_tokens * one.cached_share)
            usd += one.calls * known.usd(one.prompt_tokens, cached, one.completion_tokens)
            sources.add("--price" if known in own.values() else SOURCE)
        else:
            unpriced.add(one.model)
    calls = sum(one.calls for one in paid)
    tokens = sum(one.calls * (one.prompt_tokens + one.completion_tokens) for one in paid)
    return Estimate(calls, tokens, None if unpriced else usd, tuple(sorted(unpriced)), " and ".join(sorted(sources)))
