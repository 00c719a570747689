"""The score of a memory design: success rate, standard error, paired differences and their intervals.

The standard error is that over passes. A difference is paired, episode by episode. Two questions that a score alone
does not answer are answered here too: how much of it comes from experience, and how far chance alone moves it.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from memory_base import Trajectory

BOOTSTRAP_SAMPLES = 10_000
LEAST_RACED = 8  # tasks that tell whether a design is worse than its parent


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

    mean: float  # of all episodes, in [0, 1]: each pass has all tasks, so it is the mean over the passes too
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
    raced: int = 0  # episodes after which `--race` stopped it; 0: all were played

    def summary(self) -> dict:
        """All but the single outcomes."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "outcomes"}

    def tasks(self) -> list[dict]:
        """The single outcomes without what was retrieved and played."""
        names = ("task", "family", "number", "score", "without", "tokens")
        return [{name: getattr(one, name) for name in names} for one in self.outcomes]


def paired_interval(differences: Mapping[str, Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean paired difference and its bootstrap 95 % interval. Tasks are resampled, for they are what one generalises
    over, and the passes of one task are not independent. The percentiles of a bootstrap are too narrow for few tasks;
    they are widened as Student's t is wider than the normal distribution (Hesterberg, "What Teachers Should Know About
    the Bootstrap", 2015, section 4.1.3)."""
    means = np.array([np.mean(values) for values in differences.values()])
    if len(means) < 2:  # one task says nothing of others: all that scores from 0 to 1 can differ by
        return float(means[0]), -1.0, 1.0
    drawn = np.random.default_rng(seed).integers(len(means), size=(BOOTSTRAP_SAMPLES, len(means)))
    # How many standard errors the 95 % interval reaches to each side.
    z, v = 1.96, len(means) - 1
    student = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)  # Abramowitz, Stegun 26.7.5
    tail = 100 * statistics.NormalDist().cdf(-student * (len(means) / v) ** 0.5)
    low, high = np.percentile(means[drawn].mean(axis=1), [tail, 100 - tail])
    return float(means.mean()), float(low), float(high)


def score_of(outcomes: Sequence[Outcome]) -> Score:
    """The score of a design that was deployed in these episodes, all tasks in each pass."""
    numbers = sorted({one.number for one in outcomes})
    passes = [float(np.mean([one.score for one in outcomes if one.number == number])) for number in numbers]
    stderr = float(np.std(passes, ddof=1) / np.sqrt(len(passes))) if len(passes) > 1 else 0.0
    mean, tokens = float(np.mean([one.score for one in outcomes])), float(np.mean([one.tokens for one in outcomes]))
    difference, *interval = paired(by_episode(outcomes), by_episode(outcomes, "without"))
    played = [one for one in outcomes if not one.error]
    steps = float(np.mean([one.steps for one in played])) if played else 0.0
    taken = sum(one.steps for one in played)
    invalid = sum(one.invalid for one in played) / taken if taken else 0.0
    example = next((one.example for one in played if one.example), "")
    return Score(mean, stderr, tuple(passes), difference, tuple(interval), tokens, steps, tuple(outcomes),
                 invalid=invalid, example=example)


def against(score: Score, other: Score) -> tuple[float, float, float]:
    """Paired difference to another design on the same episodes, and its 95 % interval."""
    return paired(by_episode(score.outcomes), by_episode(other.outcomes))


def experience(none: Score, ones: Sequence[Score], full: Score) -> dict:
    """What a design has from experience, and what its code brought along: its score after no collected episode, after a
    single one (the mean over several different ones) and after all, on the same deployed episodes. `gives`: score(all) -
    score(one). `brought`: score(one) - no memory. `wakes`: score(one) - score(none), which shows a solver that waits for
    a memory that is not empty. Each of the three is (difference, low, high), with the ends of its 95 % interval."""
    singles = [by_episode(one.outcomes) for one in ones]
    after_one = {key: statistics.fmean(scores[key] for scores in singles) for key in singles[0]}
    return {"none": none.mean, "one": statistics.fmean(one.mean for one in ones), "all": full.mean,
            "gives": paired(by_episode(full.outcomes), after_one),
            "brought": paired(after_one, by_episode(full.outcomes, "without")),
            "wakes": paired(after_one, by_episode(none.outcomes))}  # fmt: skip


def luck(scores: Sequence[Mapping[str, float]]) -> dict:
    """What chance alone does: no memory against no memory with other seeds on the same tasks. `scores`: by task, of an
    even number of passes; the second half of them is compared with the first. `noise` is half the width of the 95 %
    interval: the true difference is 0, so this is how far chance reaches to each side."""
    half = len(scores) // 2
    first, second = ({(task, number): score for number, one in enumerate(part) for task, score in one.items()}
                     for part in (scores[:half], scores[half:]))
    difference, low, high = paired(second, first)
    return {"difference": difference, "interval": (low, high), "noise": (high - low) / 2}


def hopeless(outcomes: Sequence[Outcome], planned: int, rival: float, parent: Mapping[tuple[str, int], float]) -> bool:
    """Whether a race is over for a design of whose `planned` episodes these were played: what is left cannot bring its
    score to that of a rival, or its paired difference to its parent (scores by task and pass) is below 0 with its whole
    95 % interval."""
    if (sum(one.score for one in outcomes) + planned - len(outcomes)) / planned < rival:
        return True
    shared = {key: score for key, score in by_episode(outcomes).items() if key in parent}
    return len({task for task, _ in shared}) >= LEAST_RACED and paired(shared, parent)[2] < 0


def by_episode(outcomes: Iterable[Outcome], which: str = "score") -> dict[tuple[str, int], float]:
    """Scores by task and pass; with `which="without"` those of the same episodes without memory."""
    return {(one.task, one.number): getattr(one, which) for one in outcomes}


def paired(scores: Mapping[tuple[str, int], float], others: Mapping[tuple[str, int], float]) -> tuple[float, float, float]:
    """Mean difference of scores by task and pass, with the ends of its 95 % interval."""
    differences: dict[str, list[float]] = {}
    for (task, number), score in scores.items():
        differences.setdefault(task, []).append(score - others[task, number])
    return paired_interval(differences)
