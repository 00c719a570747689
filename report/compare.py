"""Runs side by side: models, seeds and ablations in one table and one plot.

Promises: settings that all runs share are printed once, and those that differ name the runs; runs that
differ only in the seed are one group, with the spread over its seeds (sample standard deviation). Runs
with other tasks or models are listed together, but their numbers are not comparable.

Try it: `python alma.py compare runs/ONE runs/TWO`
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from report.data import LEARNED, RunData
from report.figures import ACCENT, STYLE, WARM, Plot, curves, label_right
from report.words import ascii_line, difference_words, line, percent, points, verdict

NOT_COMPARED = ("seed", "workers", "in_flight", "budget_usd", "budget_tokens", "price", "outage_seconds")
COLOURS = (ACCENT, WARM, "#6b5ca5", "#4f7d3a", "#a3386c", "#7a6a3f")
STYLES = ("-", "--", ":", "-.")
SPREADS = {  # field of Line: its name in the table of groups
    "f0": "no memory, learning set",
    "learning": "learned design, learning set",
    "gain": "its difference to no memory",
    "test": "learned design, test set",
    "test_gain": "its difference to no memory, test",
}


@dataclass(frozen=True)
class Line:
    """One run in the table."""

    run: str  # name of the folder
    group: str  # its settings where they differ between the runs, except the seed
    seed: str
    state: str
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


def table(runs: Sequence[RunData]) -> str:
    """The table of some runs as text, with the spread over the seeds of each group."""
    shared, lines = side_by_side(runs)
    known = {key: value for key, value in shared.items() if value not in ("", "0", "0.0", "False", "[]")}
    labels = dict.fromkeys(label for run in runs for label in run.labels)
    rows = ["the same in all: " + ", ".join(f"{key}={value}" for key, value in known.items())]
    rows += [f"labels: {', '.join(labels)}"] if labels else []
    wide = max(len(one.run) for one in lines)
    rows += ["", f"{'run':{wide}}  seed steps designs no memory learning   gain   test  {'to no memory':41} "
             " tokens  dollars  state, settings"]
    for one in lines:
        gain = difference_words(one.test_gain, one.interval) if one.interval else ""
        tested = f"{verdict(one.interval):19}  {gain}" if gain else ""
        usd = "unknown" if one.usd is None else f"{one.usd:.2f}"
        rows.append(
            f"{one.run:{wide}} {one.seed:>5} {one.steps:5} {one.designs:7} {percent(one.f0):>9} "
            f"{percent(one.learning):>8} {points(one.gain):>6} {percent(one.test):>6}  {tested:41} "
            f"{'–' if one.tokens is None else f'{one.tokens:,.0f}':>7} {usd:>8}  {one.state}, {one.group}"
        )

    groups = {group: members for group, members in _groups(lines).items() if len(members) > 1}
    rows += ["", "mean ± standard deviation over runs (lowest to highest), %:"] if groups else []
    for group, members in groups.items():
        rows.append(f"{group}: {len(members)} runs")
        for name, title in SPREADS.items():
            values = [100 * getattr(one, name) for one in members if getattr(one, name) is not None]
            if len(values) > 1:
                mean, deviation = statistics.mean(values), statistics.stdev(values)
                ends = f"{min(values):.1f} to {max(values):.1f}"
                rows.append(f"  {title:34} {mean:6.1f} ± {deviation:4.1f}  ({ends})")
    return "\n".join(rows)


def side_by_side(runs: Sequence[RunData]) -> tuple[dict[str, str], list[Line]]:
    """The settings that all runs share, and each run's line."""
    settings = [{key: line(str(value), 60) for key, value in run.config.items()} for run in runs]
    keys = [key for key in dict.fromkeys(key for one in settings for key in one) if key not in NOT_COMPARED]
    different = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    lines = []
    for run, own in zip(runs, settings, strict=True):
        best, tested = run.learned, run.results.get("test-static", {}).get(LEARNED)
        unpriced = any(row["unpriced"] for row in run.usage)
        lines.append(Line(
            run=line(run.path.resolve().name, 60),
            group=", ".join(f"{key}={own.get(key, '')}" for key in different) or "all",
            seed=own.get("seed", ""),
            state=run.state.kind,
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
        ))  # fmt: skip
    return {key: settings[0][key] for key in keys if key not in different}, lines


def _groups(lines: Sequence[Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for one in lines:
        groups.setdefault(one.group, []).append(one)
    return groups


def plot(runs: Sequence[RunData]) -> Plot | None:
    """Best score so far by learning step, thin for runs, thick for means of groups; None without scores."""
    import matplotlib  # slow
    from matplotlib.figure import Figure

    lines = [one for one in side_by_side(runs)[1] if one.best]
    if not lines:
        return None

    def draw(axes, curve: dict[int, float], **style) -> float:
        """Draw a curve in percent, half a step longer so that its last step shows; returns its end."""
        values = [100 * value for value in curve.values()]
        axes.plot([*curve, max(curve) + 0.5], [*values, values[-1]], drawstyle="steps-post", **style)
        return values[-1]

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8))
        axes = figure.subplots()
        ends = []
        for place, (group, members) in enumerate(_groups(lines).items()):
            round_, colour = divmod(place, len(COLOURS))
            style = {"color": COLOURS[colour], "linestyle": STYLES[round_ % len(STYLES)]}
            for one in members:
                draw(axes, one.best, linewidth=0.9, alpha=0.6, **style)
            mean = {}  # a run without a design of a step keeps its last best score
            for step in sorted({step for one in members for step in one.best}):
                values = [[score for at, score in one.best.items() if at <= step][-1:] for one in members]
                if all(values):
                    mean[step] = statistics.mean(value[0] for value in values)
            end = draw(axes, mean, linewidth=2.4, **style)
            ends.append((ascii_line(f"{group} ({len(members)})", 60), end, style["color"]))
        last = max(max(one.best) for one in lines)
        axes.set(xlabel="learning step", ylabel="best so far, % of the learning set", xlim=(0.8, last + 0.5),
                 xticks=range(1, last + 1, 1 + last // 13))
        label_right(axes, ends)
    caption = "A thin line for each run, a thick one for the mean."
    return Plot("compare", "Best score by learning step", caption, figure)
