"""What episodes come to, against numbers worked out by hand."""

import pytest

from score import Outcome, against, paired_interval, score_of


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
