"""What episodes come to, against numbers worked out by hand."""

import numpy as np
import pytest

from report.words import verdict
from score import Outcome, against, experience, hopeless, luck, paired_interval, score_of


def outcomes(scores: dict[str, list[float]], without: float = 0.0) -> list[Outcome]:
    """Episodes by task: a score for each pass."""
    return [
        Outcome(task, "family", number, score, without, 10, {}, 5, None)
        for task, passes in scores.items()
        for number, score in enumerate(passes)
    ]


def test_the_interval_is_that_of_resampled_tasks():
    # Ten tasks, half of them +1 and half 0: a deviation of 0.527, a standard error of 0.167, and t = 2.262 with nine
    # degrees of freedom: ±0.377.
    mean, low, high = paired_interval({str(number): [number % 2] * 3 for number in range(10)})
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.123, 0.877), abs=0.051)
    assert paired_interval({"a": [0.25], "b": [0.25]}) == (0.25, 0.25, 0.25)
    assert paired_interval({"a": [0.25, 0.75]}) == (0.5, -1.0, 1.0)  # one task says nothing of others


def test_mean_and_standard_error_are_over_passes():
    score = score_of(outcomes({"a": [1, 0, 1], "b": [1, 0, 0]}))
    assert score.passes == (1.0, 0.0, 0.5)
    assert score.mean == 0.5 and score.stderr == pytest.approx(0.5 / 3**0.5)  # deviation of 1, 0, 1/2 is 1/2


def test_the_difference_to_another_design_is_paired_by_task_and_pass():
    better, worse = score_of(outcomes({"a": [1, 1], "b": [0, 1]})), score_of(outcomes({"a": [1, 0], "b": [0, 1]}))
    assert against(better, worse) == (0.25, 0.0, 0.5)  # task a +1/2, task b 0, by two tasks resampled
    assert against(better, better) == (0.0, 0.0, 0.0)


def test_a_failed_episode_counts_in_the_score_and_not_in_the_steps():
    failed = Outcome("a", "family", 1, 0.0, 0.0, 0, None, 0, None, "error: it raised")
    score = score_of([*outcomes({"a": [1]}), failed])
    assert score.mean == 0.5 and score.steps == 10


def test_a_difference_to_no_memory_within_what_chance_alone_makes_is_called_noise():
    # No memory against no memory: +1/2 in half of 16 tasks, -1/2 in the others.
    found = luck([{str(task): 0.5 for task in range(16)}, {str(task): float(task % 2) for task in range(16)}])
    low, high = found["interval"]
    assert found["difference"] == 0.0 and found["noise"] == (high - low) / 2 == pytest.approx(0.275, abs=0.03)
    assert verdict((0.05, 0.4), 0.2, found["noise"]) == "noise" and verdict((0.05, 0.6), 0.3, found["noise"]) == "better"
    none = luck([{"a": 0.0, "b": 0.0}] * 4)
    assert none == {"difference": 0.0, "interval": (0.0, 0.0), "noise": 0.0}
    assert verdict((0.0, 0.0), 0.0, none["noise"]) == "no difference shown"


def told_apart(better: float, seeds: range) -> float:
    """The share of comparisons that call two designs better or worse, of which one is better by so much.

    Each has its own luck, and no memory has its own: 27 tasks in six passes, as in the test set of Baba Is AI. Success
    rates differ from task to task: many are near 0, few are won as a rule.
    """
    found = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rate = rng.beta(0.5, 1.5, 27)
        rates = (rate, rate, rate, np.clip(rate + better, 0, 1))
        one, other, design, rival = (rng.random((6, 27)) < one for one in rates)
        noise = luck([dict(enumerate(map(float, tasks))) for tasks in (*one, *other)])["noise"]
        difference, *interval = paired_interval({task: rival[:, task] * 1.0 - design[:, task] for task in range(27)})
        found += verdict(interval, difference, noise) in ("better", "worse")
    return found / len(seeds)


def test_two_copies_of_one_design_are_seldom_told_apart():
    assert told_apart(0.0, range(200)) <= 0.05


def test_a_design_that_is_fifteen_points_better_is_mostly_found():
    assert told_apart(0.15, range(200, 300)) >= 0.8


def test_what_a_design_has_from_experience_and_what_its_code_brought_along():
    none, first, second, full = (
        score_of(outcomes({task: [score] for task, score in zip("abcd", scores, strict=True)}, without=0.2))
        for scores in ((0.2, 0.2, 0.2, 0.2), (0.4, 0.4, 0.4, 0.4), (0.8, 0.8, 0.4, 0.4), (1.0, 1.0, 1.0, 1.0))
    )
    found = experience(none, [first, second], full)
    assert [found[key] for key in ("none", "one", "all")] == pytest.approx([0.2, 0.5, 1.0])
    # After one episode 0.6, 0.6, 0.4 and 0.4: 0.5 less than after all, and 0.3 more than no memory and than nothing learned.
    assert found["gives"] == pytest.approx((0.5, 0.4, 0.6)) and found["brought"] == found["wakes"] == pytest.approx((0.3, 0.2, 0.4))


def test_a_race_is_over_where_the_rival_is_out_of_reach():
    played = outcomes({str(task): [0] for task in range(5)} | {"won": [1]})  # of ten: 5 at most in all
    assert hopeless(played, 10, 0.51, {}) and not hopeless(played, 10, 0.5, {}) and not hopeless([], 10, 1.0, {})


def test_a_race_is_over_for_a_design_that_is_worse_than_its_parent_in_enough_tasks():
    def stops(tasks: int, lost: int) -> bool:
        parent = {(str(task), 0): 1.0 for task in range(tasks)}
        return hopeless(outcomes({str(task): [float(task >= lost)] for task in range(tasks)}), 1000, 0.0, parent)

    assert stops(8, 6) and not stops(7, 6)  # seven tasks do not tell
    assert not stops(8, 1)  # one lost of eight is chance
    assert not hopeless(outcomes({str(task): [0] for task in range(8)}), 1000, 0.0, {("7", 0): 1.0})  # a raced parent
