"""The score of a memory design: success rate, standard error, paired differences and their intervals.

The standard error is that over passes. A difference is paired, episode by episode, and its interval resamples
tasks, for these are what one generalizes over. Significance depends on the number of tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from memory_base import Trajectory

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True)
class Outcome:
    """One deployed episode: a task in one pass."""

    task: str
    family: str
    number: int  # of the pass, from 0
    score: float  # of the task, in [0, 1]; 0 where the design failed, see `error`
    without: float  # score of the same episode without memory
    steps: int
    retrieved: Any  # what the design returned, JSON; None where it failed
    tokens: int  # of what was retrieved
    trajectory: Trajectory | None  # None where the design failed: the episode was not played
    error: str = ""  # the design's fault
    invalid: int = 0  # actions that were not valid
    example: str = ""  # the first answer of the agent that was no valid action, cut


@dataclass(frozen=True)
class Score:
    """The score of a design on a task set."""

    mean: float  # over passes of the mean task score, in [0, 1]
    stderr: float  # standard error over the passes
    passes: tuple[float, ...]  # mean task score of each pass
    difference: float  # paired, to no memory on the same tasks, passes and seeds
    interval: tuple[float, float]  # bootstrap 95 % interval of the difference, over tasks
    retrieved_tokens: float  # mean for a task
    steps: float  # mean for an episode
    outcomes: tuple[Outcome, ...] = field(repr=False)
    errors: tuple[str, ...] = ()  # each of the design's errors once, with how often it came
    invalid: float = 0.0  # share of the agent's actions that were not valid, in [0, 1]
    example: str = ""  # an answer of the agent that was no valid action
    output: str = ""  # what the design printed, cut
    update_seconds: float = 0.0  # of the sandbox, for one memory

    def summary(self) -> dict:
        """All but the single outcomes."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "outcomes"}

    def tasks(self) -> list[dict]:
        """The single outcomes without what was retrieved and played."""
        names = ("task", "family", "number", "score", "without", "tokens")
        return [{name: getattr(one, name) for name in names} for one in self.outcomes]


def paired_interval(differences: dict[str, list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean paired difference and its bootstrap 95 % interval, tasks resampled (passes stay together).

    Tasks are what one generalises over, and the passes of one task are not independent.
    """
    means = np.array([np.mean(values) for values in differences.values()])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(means), size=(BOOTSTRAP_SAMPLES, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
    return float(means.mean()), float(low), float(high)


def score_of(outcomes: Sequence[Outcome]) -> Score:
    """The score of a design that was deployed in these episodes, all tasks in each pass."""
    numbers = sorted({one.number for one in outcomes})
    passes = [float(np.mean([one.score for one in outcomes if one.number == number])) for number in numbers]
    difference, low, high = paired_interval(_differences(outcomes, {_episode(one): one.without for one in outcomes}))
    spread = float(np.std(passes, ddof=1) / np.sqrt(len(passes))) if len(passes) > 1 else 0.0
    played = [one for one in outcomes if not one.error]
    steps = sum(one.steps for one in played)
    return Score(
        mean=float(np.mean(passes)),
        stderr=spread,
        passes=tuple(passes),
        difference=difference,
        interval=(low, high),
        retrieved_tokens=float(np.mean([one.tokens for one in outcomes])),
        steps=float(np.mean([one.steps for one in played])) if played else 0.0,
        outcomes=tuple(outcomes),
        invalid=sum(one.invalid for one in played) / steps if steps else 0.0,
        example=next((one.example for one in played if one.example), ""),
    )


def against(score: Score, other: Score) -> tuple[float, float, float]:
    """Paired difference to another design on the same episodes, and its 95 % interval."""
    return paired_interval(_differences(score.outcomes, {_episode(one): one.score for one in other.outcomes}))


def _episode(outcome: Outcome) -> tuple[str, int]:
    return outcome.task, outcome.number


def _differences(outcomes: Sequence[Outcome], others: dict[tuple[str, int], float]) -> dict[str, list[float]]:
    """By task, the difference in score of each pass to the same episode of another design."""
    differences: dict[str, list[float]] = {}
    for one in outcomes:
        differences.setdefault(one.task, []).append(one.score - others[_episode(one)])
    return differences
