"""Budgets of whole runs, by the endpoint's own account, with thirty calls in flight."""

import asyncio

import pytest

from tests.endpoint import ModelServer
from tests.runs import ROLES, TOY, archive, finish, folder, models, played, rows, start, writes_notes

CROWD = 30
PRICE = (40.0, 4.0, 1.0)  # dollars for a million tokens: prompt, cached, completion
RUN = [*TOY, "--steps", "2", "--passes", "3", "--finalists", "0", "--in-flight", str(CROWD), "--workers", str(CROWD)]  # 36 tasks at a time
RUN += [part for role in ROLES for part in ("--price", f"{role}={','.join(map(str, PRICE))}")]


class Crowd(ModelServer):
    """Answers nobody until so many requests wait at the same time; then everybody."""

    waiting = CROWD

    async def _play(self, *arguments) -> None:
        while self.in_flight < self.waiting:
            await asyncio.sleep(0.001)
        self.waiting = 0
        await super()._play(*arguments)

    @property
    def usd(self) -> float:
        """What the answers cost so far."""
        uncached = self.tokens["prompt"] - self.tokens["cached"]
        return (uncached * PRICE[0] + self.tokens["cached"] * PRICE[1] + self.tokens["completion"] * PRICE[2]) / 1e6


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory):
    runs = tmp_path_factory.mktemp("unlimited")
    with Crowd(writes_notes) as server:
        finish(start("learn", *RUN, *models(server), "--runs", runs))
    return runs


def stopped(process) -> list[str]:
    """The lines of a run that stopped in order and says how it goes on."""
    said = finish(process, 3).strip().splitlines()
    assert said[-2].startswith("alma: stopped: the budget is spent: "), "\n".join(said[-60:])
    assert said[-1].startswith("resume with: python alma.py learn --resume ")
    assert "Traceback (most recent call last):" not in said
    return said


def test_a_budget_is_passed_by_one_call_at_most_and_the_run_goes_on_with_more(unlimited, tmp_path):
    with Crowd(writes_notes) as server:
        said = stopped(start("learn", *RUN, *models(server), "--budget-usd", "1", "--runs", tmp_path))
        assert 1 <= server.usd < 1 + max(usd for _, _, usd in calls(tmp_path))
        assert [line[:4] for line in said if "of the budget is spent: $" in line] == ["50 %", "80 %", "100 "]

        run, limit = folder(tmp_path), server.tokens["prompt"] + server.tokens["completion"] + 20_000
        stopped(start("learn", "--resume", run, "--plain", "--budget-usd", "99", "--budget-tokens", limit))
        largest = max(prompt + completion for prompt, completion, _ in calls(tmp_path))
        assert limit <= server.tokens["prompt"] + server.tokens["completion"] < limit + largest

        finish(start("learn", "--resume", run, "--plain", "--budget-usd", "99"))
        assert server.most_in_flight >= CROWD
        assert sum(usd for _, _, usd in calls(tmp_path)) == pytest.approx(server.usd)
    assert archive(tmp_path) == archive(unlimited) and played(tmp_path) == played(unlimited)


def calls(runs) -> list[tuple]:
    return rows(runs, "select prompt_tokens, completion_tokens, usd from calls")
