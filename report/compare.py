"""Runs side by side: models, seeds and ablations in one table and one figure.

Promises: settings that all runs share are said once, those that differ name the runs; runs that
differ in nothing but the seed are one group, with the spread over its seeds (sample standard
deviation). It does not promise that runs are comparable: other tasks or models are other numbers.

Try it: `python alma.py compare runs/ONE runs/TWO`
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.data import LEARNED, RunData, read_run
from report.figures import ACCENT, STYLE, WARM, Plot, curves, spread
from report.safe_text import ascii_line, line
from report.words import interval_words, percent, points, verdict_words

OF_NO_INTEREST = ("seed", "workers", "in_flight", "budget_usd", "budget_tokens", "price", "outage_seconds")
COLOURS = (ACCENT, WARM, "#6b5ca5", "#4f7d3a", "#a3386c", "#7a6a3f")
STYLES = ("-", "--", ":", "-.")
NUMBERS = ("f0", "learning", "gain", "test", "test_gain")


@dataclass(frozen=True)
class Line:
    """One run in the table."""

    run: str  # name of the folder
    group: str  # its settings where they differ between the runs, but for the seed
    seed: str
    state: str
    labels: tuple[str, ...]
    steps: int  # learning steps in the archive
    designs: int  # evaluated
    f0: float | None  # no memory on the learning set
    learning: float | None  # learned design on the learning set
    gain: float | None  # paired difference to no memory there
    test: float | None  # learned design on the test set
    test_gain: float | None
    interval: tuple[float, float] | None  # of the difference on the test set
    tokens: float | None  # retrieved for a task on the test set, else on the learning set
    usd: float | None  # None where a price is unknown
    best: dict[int, float]  # best score so far by learning step


def compare(folders: Sequence[str | Path], plot: Path | None = None) -> str:
    """The table of some runs as text; with `plot`, a figure (.svg or .png) of their best scores. Raises UserError."""
    runs = [read_run(folder) for folder in folders]
    shared, lines = compare_runs(runs)
    if plot and any(one.best for one in lines):
        figure(lines).write(plot)
    return "\n".join([*_head(shared, lines), "", *_table(lines), *_groups(lines)])


def compare_runs(runs: Sequence[RunData]) -> tuple[dict[str, str], list[Line]]:
    """Settings that all runs share, and each run's line."""
    settings = [{key: _word(value) for key, value in run.config.items()} for run in runs]
    keys = [key for key in dict.fromkeys(key for one in settings for key in one) if key not in OF_NO_INTEREST]
    different = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    shared = {key: settings[0][key] for key in keys if key not in different}
    return shared, [_line(run, one, different) for run, one in zip(runs, settings, strict=True)]


def _line(run: RunData, settings: dict[str, str], different: list[str]) -> Line:
    best, tested = run.learned, run.results.get("test-static", {}).get(LEARNED)
    unpriced = any(row["unpriced"] for row in run.usage)
    return Line(
        run=line(run.path.resolve().name, 60),
        group=", ".join(f"{key}={settings.get(key, '')}" for key in different) or "all",
        seed=settings.get("seed", ""),
        state=run.state.kind,
        labels=run.labels,
        steps=max((node.step for node in run.nodes), default=0),
        designs=len(run.evaluated),
        f0=run.f0,
        learning=best and best.score,
        gain=best and best.difference,
        test=tested and tested.mean,
        test_gain=tested and tested.difference,
        interval=tested and tested.interval,
        tokens=tested.tokens if tested else best and best.tokens,
        usd=None if unpriced else sum(row["usd"] or 0 for row in run.usage),
        best=curves(run.evaluated)[0] if best else {},
    )


def _word(value) -> str:
    return line(str(value), 60)


# ------------------------------------------------------------------------------------------- table


def _head(shared: dict[str, str], lines: Sequence[Line]) -> list[str]:
    known = {key: value for key, value in shared.items() if value not in ("", "0", "0.0", "False", "[]")}
    labels = dict.fromkeys(label for one in lines for label in one.labels)
    head = ["the same in all: " + ", ".join(f"{key}={value}" for key, value in known.items())]
    return head + ([f"labels: {', '.join(labels)}"] if labels else [])


def _table(lines: Sequence[Line]) -> list[str]:
    wide = max(len(one.run) for one in lines)
    head = f"{'run':{wide}} {'seed':>5} {'steps':>5} {'designs':>7} {'no memory':>9} {'learning':>8} {'gain':>6}"
    rows = [f"{head} {'test':>6} {'gain':>6} {'tokens':>7} {'dollars':>8}  state, settings"]
    for one in lines:
        usd = "unknown" if one.usd is None else f"{one.usd:.2f}"
        rows.append(
            f"{one.run:{wide}} {one.seed:>5} {one.steps:5} {one.designs:7} {percent(one.f0):>9} "
            f"{percent(one.learning):>8} {points(one.gain):>6} {percent(one.test):>6} {points(one.test_gain):>6} "
            f"{'–' if one.tokens is None else f'{one.tokens:,.0f}':>7} {usd:>8}  {one.state}, {one.group}"
        )
    tested = [one for one in lines if one.interval]
    rows += [f"{one.run}: {verdict_words(one.interval)} ({interval_words(one.interval)})" for one in tested]
    return rows


def _groups(lines: Sequence[Line]) -> list[str]:
    """Mean and spread over the seeds of each group that has several."""
    rows = []
    for group, members in by_group(lines).items():
        if len(members) < 2:
            continue
        rows.append(f"{group}: {len(members)} runs")
        for name in NUMBERS:
            values = [getattr(one, name) for one in members if getattr(one, name) is not None]
            if len(values) > 1:
                mean, deviation = 100 * statistics.mean(values), 100 * statistics.stdev(values)
                low, high = 100 * min(values), 100 * max(values)
                rows.append(f"  {TITLES[name]:34} {mean:6.1f} ± {deviation:4.1f}  ({low:.1f} to {high:.1f})")
    return ["", "mean ± standard deviation over runs (lowest to highest), %:", *rows] if rows else []


TITLES = {
    "f0": "no memory, learning set",
    "learning": "learned design, learning set",
    "gain": "its difference to no memory",
    "test": "learned design, test set",
    "test_gain": "its difference to no memory, test",
}


def by_group(lines: Sequence[Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for one in lines:
        groups.setdefault(one.group, []).append(one)
    return groups


# ------------------------------------------------------------------------------------------ figure


def figure(lines: Sequence[Line]) -> Plot:
    """Best score so far by learning step: a thin line for each run, a thick one for a group's mean."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(6.4, 3.8))
        axes = drawn.subplots()
        ends = []
        for place, (group, members) in enumerate(by_group([one for one in lines if one.best]).items()):
            colour, style = COLOURS[place % len(COLOURS)], STYLES[place // len(COLOURS) % len(STYLES)]
            for one in members:
                axes.plot(*_steps(one.best), color=colour, linestyle=style, linewidth=0.9, alpha=0.6,
                          drawstyle="steps-post")
            mean = mean_curve([one.best for one in members])
            axes.plot(*_steps(mean), color=colour, linestyle=style, linewidth=2.4, drawstyle="steps-post")
            ends.append((f"{group} ({len(members)})", _steps(mean)[1][-1], colour))
        _names(axes, ends, max(max(one.best) for one in lines if one.best))
    return Plot("compare", "Best score by learning step", "A thin line for each run, a thick one for the mean.", drawn)


def _steps(curve: dict[int, float]) -> tuple[list[float], list[float]]:
    """Where a curve's steps begin, in percent; the last one has half a step to be seen."""
    values = [100 * value for value in curve.values()]
    return [*curve, max(curve) + 0.5], [*values, values[-1]]


def _names(axes, ends: list[tuple[str, float, str]], last: int) -> None:
    axes.set_xlabel("learning step")
    axes.set_ylabel("best so far, % of the learning set")
    axes.set_xlim(0.8, last + 0.5)
    axes.set_xticks(range(1, last + 1, 1 + last // 13))
    low, high = axes.get_ylim()
    for (name, _, colour), spot in zip(ends, spread([value for _, value, _ in ends], (high - low) / 16), strict=True):
        axes.annotate(ascii_line(name, 60), (1, spot), xycoords=("axes fraction", "data"), xytext=(6, 0),
                      textcoords="offset points", color=colour, va="center", fontsize=8.5, annotation_clip=False)


def mean_curve(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    """Mean of best-so-far curves; a step that a run has no design of keeps its last best score."""
    steps = sorted({step for curve in curves for step in curve})
    mean = {}
    for step in steps:
        values = [[curve[one] for one in curve if one <= step][-1:] for curve in curves]
        if all(values):
            mean[step] = statistics.mean(value[0] for value in values)
    return mean
