"""Tokens, dollars and the budget of a run.

Promises: a price is the list price of its date or what the user says, else it is unknown and said to
be; a budget counts what is in flight, so it is passed by one call at most. It does not promise to
know what a provider charges for a request that timed out.

Try it: `python -c "import money; print(money.PRICES_DATE, money.price('gpt-5-mini', {}))"`
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from errors import BudgetError, UserError


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens."""

    input: float
    cached: float  # prompt tokens that the provider had in its cache
    output: float  # reasoning tokens are output

    def usd(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars for a call; `cached` is part of `prompt`."""
        return ((prompt - cached) * self.input + cached * self.cached + completion * self.output) / 1e6


# OpenAI's list prices (standard tier) of that month: https://openai.com/api/pricing
PRICES_DATE = "2025-09"
PRICES = {
    "gpt-5": Price(1.25, 0.125, 10.00),
    "gpt-5-mini": Price(0.25, 0.025, 2.00),
    "gpt-5-nano": Price(0.05, 0.005, 0.40),
    "gpt-4.1": Price(2.00, 0.50, 8.00),
    "gpt-4.1-mini": Price(0.40, 0.10, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.025, 0.40),
    "gpt-4o": Price(2.50, 1.25, 10.00),
    "gpt-4o-mini": Price(0.15, 0.075, 0.60),
    "text-embedding-3-small": Price(0.02, 0.02, 0.0),
    "text-embedding-3-large": Price(0.13, 0.13, 0.0),
}
SNAPSHOT = re.compile(r"-20\d\d-\d\d-\d\d$")  # "gpt-5-2025-08-07" costs what "gpt-5" does


def price(name: str, own: Mapping[str, Price]) -> Price | None:
    """The price of a model by its name, `own` prices first; None where it is unknown."""
    for table in (own, PRICES):
        found = table.get(name) or table.get(SNAPSHOT.sub("", name))
        if found:
            return found
    return None


def parse_price(text: str) -> tuple[str, Price]:
    """`--price model=in,cached,out` in dollars for a million tokens; raises UserError."""
    name, _, numbers = text.rpartition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
        if not name or len(values) != 3 or not all(0 <= value < 1e6 for value in values):
            raise ValueError
    except ValueError:
        raise UserError(f"--price {text!r} is not model=in,cached,out, as in gpt-5=1.25,0.125,10") from None
    return name, Price(*values)


class Budget:
    """Limits in dollars and tokens; `None` is no limit.

    A call reserves the most that it may cost before it is sent and settles what it did cost. Where a
    reservation does not fit beside those in flight, it waits for them; with none in flight, a call
    may go while the budget is not spent. So at most one call goes over.
    """

    def __init__(self, usd: float | None, tokens: int | None, log: Callable[[str], None]):
        self._limits = {"usd": usd, "tokens": tokens}
        self._log = log
        self._spent = {"usd": 0.0, "tokens": 0}
        self._reserved = {"usd": 0.0, "tokens": 0}
        self._in_flight = 0
        self._said = {"usd": 0, "tokens": 0}  # highest percentage that was said
        self._waiting: list[asyncio.Future] = []

    @property
    def in_dollars(self) -> bool:
        """Whether dollars are limited, so that each call needs a price."""
        return self._limits["usd"] is not None

    def spend(self, usd: float | None, tokens: int) -> None:
        """Count what was spent; says so at 50 and 80 %."""
        self._spent["usd"] += usd or 0.0
        self._spent["tokens"] += tokens
        for unit, limit in self._limits.items():
            share = 100 * self._spent[unit] / limit if limit else 0
            reached = max((mark for mark in (50, 80, 100) if share >= mark), default=0)
            if reached > self._said[unit]:
                self._said[unit] = reached
                self._log(f"{reached} % of the budget is spent: {self._state(unit)}")

    async def reserve(self, usd: float | None, tokens: int) -> dict[str, float]:
        """Wait until a call of at most `usd` and `tokens` may be sent; raises BudgetError."""
        most = {"usd": usd or 0.0, "tokens": tokens}
        while not self._fits(most):
            self._refuse_if_spent()
            if not self._in_flight:
                break  # the one call that may go over
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        for unit in most:
            self._reserved[unit] += most[unit]
        self._in_flight += 1
        return most

    def release(self, most: dict[str, float]) -> None:
        """Give back a reservation, after `spend` if the call was paid for."""
        for unit in most:
            self._reserved[unit] -= most[unit]
        self._in_flight -= 1
        if not self._in_flight:
            self._reserved = {"usd": 0.0, "tokens": 0}  # no drift of rounding
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _fits(self, most: dict[str, float]) -> bool:
        return all(
            limit is None or self._spent[unit] + self._reserved[unit] + most[unit] <= limit
            for unit, limit in self._limits.items()
        )

    def _refuse_if_spent(self) -> None:
        for unit, limit in self._limits.items():
            if limit is not None and self._spent[unit] >= limit:
                flag = "--budget-usd" if unit == "usd" else "--budget-tokens"
                raise BudgetError(f"the budget is spent: {self._state(unit)}; resume with a larger {flag}")

    def _state(self, unit: str) -> str:
        spent, limit = self._spent[unit], self._limits[unit]
        return f"${spent:.4f} of ${limit:.2f}" if unit == "usd" else f"{spent:,} of {limit:,} tokens"


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one kind that a run is going to make."""

    role: str
    model: str  # name of the model, without effort and address
    calls: int
    prompt_tokens: int  # of one call
    completion_tokens: int  # of one call, reasoning included
    cached_share: float = 0.0  # of the prompt tokens, in [0, 1]


@dataclass(frozen=True)
class Estimate:
    """What a run is going to need."""

    calls: int
    tokens: int
    usd: float | None  # None where a price is unknown
    unpriced: tuple[str, ...]  # models without a price

    def __str__(self) -> str:
        dollars = (
            f"${self.usd:.2f}" if self.usd is not None else f"price of {', '.join(self.unpriced)} unknown"
        )
        return f"about {self.calls:,} calls, {self.tokens / 1e6:.1f} million tokens, {dollars}"


def estimate(planned: Iterable[PlannedCalls], own: Mapping[str, Price]) -> Estimate:
    """Calls, tokens and dollars of all `planned` calls; stand-ins ("offline") cost nothing."""
    planned = [one for one in planned if one.calls and one.model != "offline"]
    unpriced = sorted({one.model for one in planned if price(one.model, own) is None})
    usd = None if unpriced else sum(_planned_usd(one, price(one.model, own)) for one in planned)
    tokens = sum(one.calls * (one.prompt_tokens + one.completion_tokens) for one in planned)
    return Estimate(sum(one.calls for one in planned), tokens, usd, tuple(unpriced))


def _planned_usd(one: PlannedCalls, known: Price) -> float:
    cached = round(one.prompt_tokens * one.cached_share)
    return one.calls * known.usd(one.prompt_tokens, cached, one.completion_tokens)
