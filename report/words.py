"""What a run's results are in words, tables and files.

Promises: a difference is called one only where its 95 % interval leaves 0 out; a learned design's
score on the learning set, where it was chosen, never stands without its score on the test set where
there is one; every table carries the run's labels. It does not promise that an interval over few
tasks is wide enough: tasks are resampled, the agent's luck within a pass is not.

Try it: `python alma.py report RUN`, then open RUN/report.html
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from report.safe_text import line

SETS = ("learning", "test", "shift")
# 97.5 % points of Student's t distribution by degrees of freedom: few seeds need wide intervals.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
# Success rate in percent on the test set, static mode, mean of three passes (standard error):
# arXiv 2602.07755. By environment, agent model and kind of memory.
PAPER = {
    "alfworld": {
        "gpt-5-nano": {"no memory": "2.9", "G-Memory": "7.6", "ALMA": "12.4 (0.5)"},
        "gpt-5-mini": {"no memory": "67.6", "ALMA": "87.1 (1.4)"},
    },
    "textworld": {
        "gpt-5-nano": {
            "no memory": "5.4",
            "Trajectory Retrieval": "2.7",
            "Dynamic Cheatsheet": "4.3",
            "G-Memory": "2.1",
            "ALMA": "6.2 (1.7)",
        },
        "gpt-5-mini": {"no memory": "60.5", "ALMA": "75.0 (2.3)"},
    },
    "babaisai": {
        "gpt-5-nano": {"no memory": "9.5", "Trajectory Retrieval": "19.0 (6.3)", "ALMA": "19.0 (2.4)"},
        "gpt-5-mini": {"no memory": "21.4", "ALMA": "33.3 (2.4)"},
    },
    "minihack": {
        "gpt-5-nano": {"no memory": "6.7", "ReasoningBank": "9.8", "ALMA": "11.7 (2.2)"},
        "gpt-5-mini": {"no memory": "15.0", "ALMA": "20.0 (2.9)"},
    },
}

# The same for the shift set in dynamic mode: collected on valid_seen, deployed on valid_unseen.
PAPER_SHIFT = {"alfworld": {"gpt-5-mini": {"ALMA": "84.1"}}}


def write(path: Path, plots: bool = True) -> list[Path]:
    """Write report.html of a run's folder, and with `plots` report.md and the figures too.

    Works on a folder at any stage; raises UserError where it holds no run.
    """
    from harness.run_folder import write_atomic
    from report import page as report_page
    from report.data import read_run
    from report.figures import plots as draw

    run = read_run(path)
    drawn = draw(run)
    files = {"report.html": report_page.page(run, drawn)}
    if plots:
        files["report.md"] = report_page.markdown(run, drawn)
        files["plots/archive.svg"] = report_page.tree_svg(run)
    for name, content in files.items():
        write_atomic(run.path / name, content)
    paths = [run.path / name for name in files]
    for figure in drawn if plots else ():
        for kind in ("svg", "png"):
            paths.append(run.path / "plots" / f"{figure.name}.{kind}")
            figure.write(paths[-1])
    return paths


# ------------------------------------------------------------------------------------------- tables


def summary(result: dict) -> str:
    """What a command prints at the end: the table of each task set, and where the run is."""
    lines = [f"labels: {', '.join(result['labels'])}"] if result["labels"] else []
    lines.append("models: " + ", ".join(f"{role} {line(name, 60)}" for role, name in result["models"].items()))
    for split in SETS:
        if split in result:
            lines += ["", f"{split} set:", table(result[split])]
    if "collection sizes" in result:
        lines += ["", f"{result['split']} set, {result['mode']} mode:", curve(result["collection sizes"])]
    lines += _paper(result)
    if "learned" in result:
        lines += ["", learned_words(result)]
    return "\n".join([*lines, f"run folder: {result['folder']}"])


def table(scores: dict[str, dict]) -> str:
    """One line a design: success rate in percent, paired difference to no memory, tokens, its own calls."""
    wide = _width(scores)
    rows = [
        f"{'':{wide}} {'success %':>15} {'against no memory':>26} {'tokens':>8} {'steps':>6} {'own calls':>10} {'$':>7}"
    ]
    for name, score in scores.items():
        low, high = (100 * value for value in score["interval"])
        rows.append(
            f"{line(name, 48):{wide}} {100 * score['mean']:7.1f} ± {100 * score['stderr']:4.1f}  "
            f"{100 * score['difference']:+7.1f} [{low:+6.1f}, {high:+6.1f}] "
            f"{score['retrieved_tokens']:9.0f} {score['steps']:6.1f} {score['memory_calls']:10} {_dollars(score['usd'])}"
        )
    rows += [verdict(name, score) for name, score in scores.items() if name != "no_memory"]
    return "\n".join(rows)


def _width(names) -> int:
    return max([22, *(len(line(name, 48)) for name in names)])


def _dollars(usd: float | None) -> str:
    return f"{'–' if usd is None else f'{usd:.3f}':>7}"


def curve(results: dict[int, dict[str, dict]]) -> str:
    """Success in percent by the number of collected episodes that were learned from: a design a line."""
    names = list(next(iter(results.values())))
    rows = [f"{'collected episodes':{_width(names)}}" + "".join(f"{size:>15}" for size in results)]
    for name in names:
        cells = [f"{100 * one[name]['mean']:.1f} ± {100 * one[name]['stderr']:.1f}" for one in results.values()]
        rows.append(f"{line(name, 48):{_width(names)}}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(rows)


def verdict(name: str, score: dict) -> str:
    """In words whether a design is better than no memory."""
    words = f"{line(name, 48)}: {verdict_words(score['interval'])} ({interval_words(score['interval'])})"
    best = score.get("against_best")
    if best:
        other = line(best["name"], 48)
        words += f"; {verdict_words(best['interval'], other)} ({interval_words(best['interval'])})"
    return words


def verdict_words(interval: Sequence[float], other: str = "no memory") -> str:
    """Better, worse, or no difference shown, by the 95 % interval of a paired difference."""
    low, high = interval
    if low > 0:
        return f"better than {other}"
    return f"worse than {other}" if high < 0 else f"no difference to {other} shown"


def interval_words(interval: Sequence[float]) -> str:
    return f"95 % interval {points(interval[0])} to {points(interval[1])} points"


def percent(value: float | None) -> str:
    """A rate in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of rates in points, with its sign."""
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def learned_words(result: dict) -> str:
    """The learned design in a sentence or two, and what is left of its lead on the test set."""
    lead = result["score"] - result["no_memory"]
    words = (
        f"learned design: {result['learned']}, best of {result['designs']} on the learning set with "
        f"{result['score']:.3f} (no memory {result['no_memory']:.3f}, {points(lead)} points)"
    )
    tested = result.get("test", {}).get("learned design")
    return f"{words}\n{shrinkage_words(lead, tested['difference'], tested['interval'])}" if tested else words


def shrinkage_words(learning: float, test: float, interval: Sequence[float] | None) -> str:
    """What is left on the test set of a lead over no memory on the learning set."""
    change = points(test - learning)
    shrunk = "as much" if float(change) == 0 else f"{change[1:]} points {'less' if change[0] == '-' else 'more'}"
    words = (
        f"On the test set {points(test)} points to no memory, after {points(learning)} on the learning set, "
        f"where it was chosen: {shrunk}"
    )
    return f"{words}. {verdict_words(interval).capitalize()} ({interval_words(interval)})." if interval else f"{words}."


def ablation_table(results: dict[str, list[dict]]) -> str:
    """Ways of sampling parents at equal budget, with the spread over seeds that the paper does not report.

    `results`: by way of sampling, for each seed in the same order what a run returned.
    """
    labels = dict.fromkeys(label for runs in results.values() for one in runs for label in one["labels"])
    rows = [f"labels: {', '.join(labels)}"] if labels else []
    rows.append(f"{'sampling':10} {'seeds':>5} {'learning set %':>16} {'test set %':>16} {'to no memory':>16}")
    for sampling, runs in results.items():
        tests = [one["test"]["learned design"] for one in runs]
        columns = [[one["score"] for one in runs], [one["mean"] for one in tests], [one["difference"] for one in tests]]
        rows.append(f"{sampling:10} {len(runs):5} " + " ".join(f"{_over_seeds(values):>16}" for values in columns))
    rows.append("mean ± standard deviation over seeds; the learned design is chosen on the learning set")
    (first, runs), *others = results.items()
    return "\n".join([*rows, *(_against(first, runs, other, theirs) for other, theirs in others)])


def _over_seeds(values: Sequence[float]) -> str:
    spread = f"{100 * statistics.stdev(values):4.1f}" if len(values) > 1 else "  – "
    return f"{100 * statistics.mean(values):.1f} ± {spread}"


def _against(name: str, runs: Sequence[dict], other: str, theirs: Sequence[dict]) -> str:
    """The paired difference on the test set between two ways of sampling, seed by seed."""
    pairs = zip(runs, theirs, strict=False)  # an ablation that was stopped may lack a run
    gaps = [one["test"]["learned design"]["mean"] - two["test"]["learned design"]["mean"] for one, two in pairs]
    if len(gaps) < 2:
        return f"{name} against {other}: one seed shows nothing"
    half = STUDENT.get(len(gaps) - 1, 2.2) * statistics.stdev(gaps) / len(gaps) ** 0.5
    interval = statistics.mean(gaps) - half, statistics.mean(gaps) + half
    words = f"{name} against {other}, test set, {len(gaps)} seeds: {points(statistics.mean(gaps))} points"
    return f"{words}: {verdict_words(interval, other)} ({interval_words(interval)})"


def _paper(result: dict) -> list[str]:
    """The paper's numbers of the environment beside the task sets that were played."""
    lines = []
    sets = (("test", "its test set", PAPER), ("shift", "its shift set, dynamic mode", PAPER_SHIFT))
    for split, where, numbers in sets:
        known = numbers.get(result.get("env", ""), {}) if split in result else {}
        if known:
            lines += ["", f"the paper's success % on {where}, by agent model (standard error):"]
        for model, row in known.items():
            lines.append(f"  {model}: " + ", ".join(f"{name} {value}" for name, value in row.items()))
    return lines
