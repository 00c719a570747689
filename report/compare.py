"""Runs side by side: models, seeds and ablations in one table and one plot.

Promises: settings that all runs share are printed once, those that differ name the runs; runs that differ only in the
seed are one group, with their sample standard deviation. Numbers of runs with other tasks or models are not comparable.
"""

import itertools
import statistics
from collections.abc import Sequence

from report.data import RunData
from report.figures import ACCENT, WARM, Plot, best_by_step, by_steps, drawn
from report.words import ascii_line, line, text_of

NOT_COMPARED = ("seed", "workers", "in_flight", "budget_usd", "budget_tokens", "price", "outage_seconds")
COLOURS = (ACCENT, WARM, "#6b5ca5", "#4f7d3a", "#a3386c", "#7a6a3f")


def table(runs: Sequence[RunData]) -> str:
    """The table of some runs as text, with the spread over the seeds of each group."""
    shared, settings = by_settings(runs)
    rows = list(zip(runs, settings, strict=True))
    groups = {one: [run for run, group in rows if group == one] for one in dict.fromkeys(settings)}
    return text_of("compare.txt", shared=shared, rows=rows, groups=groups)


def by_settings(runs: Sequence[RunData]) -> tuple[dict[str, str], list[str]]:
    """The settings that all runs share, and each run's group: its other settings, except the seed."""
    settings = [{key: line(str(value), 60) for key, value in run.config.items()} for run in runs]
    keys = [key for key in dict.fromkeys(key for one in settings for key in one) if key not in NOT_COMPARED]
    different = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    groups = [", ".join(f"{key}={own.get(key, '')}" for key in different) or "all" for own in settings]
    return {key: settings[0][key] for key in keys if key not in different}, groups


def plot(runs: Sequence[RunData]) -> Plot | None:
    """Best score so far by learning step, thin for runs, thick for means of groups; None without scores."""
    groups: dict[str, list[dict[float, float]]] = {}
    for run, group in zip(runs, by_settings(runs)[1], strict=True):
        if best := {step: 100 * node.score for step, node in best_by_step(run).items()}:
            last = max(best)  # a curve ends half a step later, so that its last step shows
            groups.setdefault(group, []).append(best | {last + 0.5: best[last]})

    def draw(figure) -> None:
        axes, labels = figure.subplots(), []
        looks = itertools.cycle(itertools.product(("-", "--", ":", "-."), COLOURS))
        for (group, members), (linestyle, colour) in zip(groups.items(), looks, strict=False):
            style = {"color": colour, "linestyle": linestyle, "drawstyle": "steps-post"}
            for one in members:
                axes.plot(*zip(*one.items(), strict=True), linewidth=0.9, alpha=0.6, **style)
            start = max(map(min, members))  # from here on each run has a best score, which it keeps
            mean = {at: statistics.mean(max(one[step] for step in one if step <= at) for one in members)
                    for at in sorted(set().union(*members)) if at >= start}  # fmt: skip
            axes.plot(*zip(*mean.items(), strict=True), linewidth=2.4, **style)
            labels.append((ascii_line(f"{group} ({len(members)})", 60), None, mean[max(mean)], colour))
        last = int(max(max(one) for members in groups.values() for one in members))
        by_steps(axes, last, "best so far, % of the learning set", labels)

    caption = "A thin line for each run, a thick one for the mean."
    return drawn("compare", draw, "Best score by learning step", caption, (6.4, 3.8)) if groups else None
