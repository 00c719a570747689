"""The texts of a run: strangers' text made safe to show, verdicts, and the tables that commands print.

Promises: a difference counts as shown only if its 95 % interval excludes 0; a learned design's score on
the learning set, where it was chosen, is followed by its score on the test set where there is one; each
table carries the run's labels. The intervals resample tasks and do not cover the agent's luck within a
pass. Importing this module is cheap: the command line and the progress display use it.
"""

import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from errors import clean

SETS = ("learning", "test", "shift")
SAYS_LINES = 12  # shown of what the learned memory says
# 97.5 % points of Student's t distribution by degrees of freedom: few seeds need wide intervals.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
           10: 2.228}
# Success rate in percent on the test set, static mode, mean of three passes (standard error):
# arXiv 2602.07755. By environment, agent model and kind of memory.
PAPER = {
    "alfworld": {
        "gpt-5-nano": {"no memory": "2.9", "G-Memory": "7.6", "ALMA": "12.4 (0.5)"},
        "gpt-5-mini": {"no memory": "67.6", "ALMA": "87.1 (1.4)", "ALMA, shift set, dynamic mode": "84.1"},
    },
    "textworld": {
        "gpt-5-nano": {"no memory": "5.4", "Trajectory Retrieval": "2.7", "Dynamic Cheatsheet": "4.3",
                       "G-Memory": "2.1", "ALMA": "6.2 (1.7)"},
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

def block(text: str, limit: int) -> str:
    """At most about `limit` characters of a text, cleaned, lines kept, with a mark where it was cut."""
    shown = clean(text[: 4 * limit])
    if len(shown) <= limit and len(text) <= 4 * limit:
        return shown
    return f"{shown[:limit]}\n[… cut: {len(text):,} characters in all]"


def line(text: str, limit: int = 160) -> str:
    """The text, cleaned, in one line of at most `limit` characters."""
    shown = " ".join(clean(text[: 4 * limit]).split())
    return shown if len(shown) <= limit else f"{shown[: max(0, limit - 1)]}…"


def ascii_line(text: str, limit: int = 40) -> str:
    """The same in ASCII, for plots: no font has every letter."""
    plain = unicodedata.normalize("NFKD", line(text, limit)).replace("…", "...")
    return plain.encode("ascii", "replace").decode("ascii")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """A short name for each design: RUN/ID becomes ID, a file its stem; names that would clash stay whole."""
    short = {name: line(PurePath(name).name.removesuffix(".py") or name, 40) for name in names}
    uses = Counter(short.values())
    return {name: one if uses[one] == 1 else line(name, 80) for name, one in short.items()}


def percent(value: float | None) -> str:
    """A rate in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of rates in points, with its sign."""
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def verdict(interval: Sequence[float], difference: float | None = None, noise: float = 0.0) -> str:
    """Better, worse, or no difference shown, by the 95 % interval of a paired difference; noise where it is smaller
    than what chance alone makes."""
    low, high = interval
    if difference and abs(difference) < noise:
        return "noise"
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def verdict_words(
    interval: Sequence[float], other: str = "no memory", difference: float | None = None, noise: float = 0.0
) -> str:
    """The verdict with the name of what was compared with."""
    word = verdict(interval, difference, noise)
    if word == "noise":
        return f"no more than noise apart from {other}"
    return f"no difference to {other} shown" if word == "no difference shown" else f"{word} than {other}"


def noise_words(luck: dict | None) -> str:
    """What chance alone does on a task set; empty where it was not measured."""
    if not luck:
        return ""
    shown = difference_words(luck["difference"], luck["interval"])
    less = f"a difference of less than {100 * luck['noise']:.1f} points is called noise"
    return f"chance alone: no memory against no memory with other seeds, {shown} points; {less}"


def experience_words(found: dict, noise: float = 0.0) -> str:
    """Whether a design is a memory or a solver, by `score.experience`."""
    (gives, *given), (brought, *own), (wakes, *woken) = (found[key] for key in ("gives", "brought", "wakes"))
    total = 100 * (gives + brought)
    experience, code = verdict(given, gives, noise), verdict(own, brought, noise)

    def share(part: float) -> str:
        whole = 0 <= 100 * part <= total + 0.5
        return f"{100 * part:.0f} of {total:.0f} points" if whole else f"{points(part)} points (in all {total:+.0f})"

    if experience == "better" and code == "better":
        return f"a memory that brings something along: {share(gives)} come from experience, {100 * brought:.0f} from the code"
    if experience == "better":
        return f"{share(min(gives, max(total / 100, 0)))} come from experience: this is a memory"
    if code == "better":
        kind = "a solver behind a check for an empty memory" if verdict(woken, wakes, noise) == "better" else "a solver"
        worse = f", and experience takes {-100 * gives:.0f} away" if experience == "worse" else ""
        return f"{share(min(brought, total / 100) if not worse else brought)} come from the code: this is {kind}{worse}"
    return f"neither a memory nor a solver is shown: experience {points(gives)}, the code {points(brought)} points"


def interval_words(interval: Sequence[float]) -> str:
    return f"95 % interval {points(interval[0])} to {points(interval[1])} points"


def difference_words(difference: float, interval: Sequence[float]) -> str:
    """A difference with its 95 % interval, for a cell of a table."""
    return f"{points(difference)} [{points(interval[0])}, {points(interval[1])}]"


def shrinkage_words(learning: float, test: float, interval: Sequence[float] | None) -> str:
    """How much of the lead over no memory on the learning set is left on the test set."""
    change = points(test - learning)
    shrunk = f"{change[1:]} points {'less' if change[0] == '-' else 'more'}" if float(change) else "as much"
    words = (
        f"Compared with no memory it gains {points(test)} points on the test set and {points(learning)} "
        f"on the learning set, where it was chosen: {shrunk}."
    )
    shown = f" {verdict_words(interval).capitalize()} ({interval_words(interval)})." if interval else ""
    return words + shown


def experience_rows(found: dict) -> list[tuple[str, float, str]]:
    """The three rows below a design: how much was learned, the score, and the difference that this makes."""
    brought, gives = (difference_words(found[key][0], found[key][1:]) for key in ("brought", "gives"))
    return [
        ("after no episode", found["none"], ""),
        ("after one episode", found["one"], f"{brought} to no memory: the code"),
        ("after all episodes", found["all"], f"{gives} to one episode: experience"),
    ]


def finalist_words(result: dict) -> list[str]:
    """The finalists by what they led by in the search and on fresh seeds, and what came of the best of the search."""
    finalists = result.get("finalists")
    if not finalists:
        return []
    what = "lead over no memory" if result["objective"] == "score" else "what experience gives"
    rows = [f"finalists, measured again on fresh seeds; {what} in points, learning set:"]
    rows.append(f"  {'design':14}{'search':>8}{'fresh seeds':>14}{'all passes':>13}")
    for one in finalists:
        learned = "  learned" if one["id"] == result["learned"] else ""
        rows.append(
            f"  {one['id']:14}{points(one['search']):>8}{points(one['fresh']):>14}{points(one['final']):>13}{learned}"
        )
    first, order = finalists[0], sorted(finalists, key=lambda one: -one["final"])
    place, change = order.index(first) + 1, first["fresh"] - first["search"]
    less = f"{abs(100 * change):.1f} points {'less' if change < 0 else 'more'} on fresh seeds"
    rows.append(f"the best of the search has {less}, and is number {place} of {len(order)} over all passes")
    return rows


def notes(scores: dict[str, dict], short: dict[str, str], noise: float = 0.0) -> list[str]:
    """What to say below a table: memory or solver, the best memory's lead, and where most answers were no actions."""
    found = [
        f"{short[name]}: {experience_words(score['experience'], noise)}"
        for name, score in scores.items()
        if score.get("experience")
    ]
    if compared := [name for name in scores if scores[name].get("against_best")]:
        name = max(compared, key=lambda name: scores[name]["mean"])
        other = scores[name]["against_best"]
        lead = difference_words(other["difference"], other["interval"])
        second = short.get(other["name"], line(other["name"] or "another", 40))
        found.append(f"best memory: {short[name]}, {lead} points ahead of the second best, {second}")
    for name, score in scores.items():
        if (score.get("invalid") or 0) > 0.5:
            quoted = f', for example "{line(score["example"], 100)}"' if score["example"] else ""
            share = percent(score["invalid"])
            found.append(f"{short[name]}: {share} % of the agent's answers were no valid actions{quoted}")
    return found


def summary(result: dict) -> str:
    """What a command prints at the end: tables by task set, the learned design, and where the report is."""
    lines = [f"labels: {', '.join(result['labels'])}"] if result["labels"] else []
    models = [f"{role} {line(name, 60)}" for role, name in result["models"].items()]
    lines.append(f"models: {', '.join(models)}")
    for split in SETS:
        if split in result:
            luck = result["noise"].get(split)
            lines += ["", f"{split} set:", table(result[split], luck)]
    if "collection sizes" in result:
        lines += ["", f"{result['split']} set, {result['mode']} mode:", curve(result["collection sizes"])]
    known = PAPER.get(result.get("env", ""), {}) if "test" in result or "shift" in result else {}
    if known:
        lines += ["", "success % in the paper, test set, by agent model (standard error):"]
    for model, row in known.items():
        lines.append(f"  {model}: " + ", ".join(f"{name} {value}" for name, value in row.items()))
    if "learned" in result:
        lead, none = result["score"] - result["no_memory"], percent(result["no_memory"])
        lines += ["", f"learned design: {result['learned']}, the best of {result['designs']}; learning set: "
                  f"{percent(result['score'])} %, no memory {none} % ({points(lead)} points)"]
        tested = result.get("test", {}).get("learned design")
        lines += [shrinkage_words(lead, tested["difference"], tested["interval"])] if tested else []
        lines += ["" if tested else noise_words(result["noise"].get("learning")), *finalist_words(result)]
    if says := result.get("says"):
        told = block(says["text"], 4000).splitlines()
        told = [one if len(one) <= 160 else f"{one[:159]}…" for one in told]
        lines += ["", f"what its memory says for the task {line(says['task'], 80)}:"]
        lines += [f"    {one}" for one in told[:SAYS_LINES]] + ["    …"] * (len(told) > SAYS_LINES)
    lines += ["", f"run folder: {result['folder']}", f"report: {Path(result['folder']) / 'report.html'}"]
    return "\n".join(lines)


def table(scores: dict[str, dict], luck: dict | None = None) -> str:
    """One line a memory: success, differences and verdicts, tokens, steps, invalid actions, its own calls.

    Below a design whose experience was measured stand its scores after no, one and all collected episodes.
    """
    names, noise = short_names(scores), luck["noise"] if luck else 0.0
    shown = any(score.get("experience") for score in scores.values())
    wide = max(len(name) for name in ("memory", *names.values(), *(["  after all episodes"] if shown else [])))
    costs = any(score["usd"] != 0 for score in scores.values())
    head = f"{'memory':{wide}}  {'success %':>11}  {'to no memory':43}{'to the best other':21}"
    rows = [f"{head}{'tokens':>6}  {'steps':>5}  {'invalid %':>9}  {'own calls':>9}{'        $' * costs}"]
    for name, score in scores.items():
        none = best = difference = ""
        if name != "no_memory":
            none = verdict(score["interval"], score["difference"], noise)
            difference = difference_words(score["difference"], score["interval"])
        if score.get("against_best"):
            best = verdict(score["against_best"]["interval"], score["against_best"]["difference"], noise)
        success = f"{percent(score['mean'])} ± {percent(score['stderr']):>4}"
        usd = "–" if score["usd"] is None else f"{score['usd']:.3f}"
        rows.append(
            f"{names[name]:{wide}}  {success:>11}  {none:19}  {difference:20}  {best:19}  "
            f"{score['retrieved_tokens']:6.0f}  {score['steps']:5.1f}  {percent(score.get('invalid')):>9}  "
            f"{score['memory_calls']:9}{f'  {usd:>7}' * costs}"
        )
        if score.get("experience"):
            for when, rate, change in experience_rows(score["experience"]):
                rows.append(f"{f'  {when}':{wide}}  {percent(rate):>4}         {change}".rstrip())
    said = [noise_words(luck)] if luck else []
    return "\n".join(rows + notes(scores, names, noise) + said)


def curve(results: dict[int, dict[str, dict]]) -> str:
    """Success in percent by the number of collected episodes that were learned from: one line a design."""
    names = short_names(next(iter(results.values())))
    wide = max(len(name) for name in ("collected episodes", *names.values()))
    rows = [f"{'collected episodes':{wide}}" + "".join(f"{size:>15}" for size in results)]
    for name, short in names.items():
        cells = [f"{percent(one[name]['mean'])} ± {percent(one[name]['stderr'])}" for one in results.values()]
        rows.append(f"{short:{wide}}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(rows)


def ablation_table(results: dict[str, list[dict]]) -> str:
    """Sampling rules at equal budget, with the spread over seeds (the paper does not report one).

    `results`: for each rule the results of its runs, with the seeds in the same order.
    """
    labels = dict.fromkeys(label for runs in results.values() for one in runs for label in one["labels"])
    rows = [f"labels: {', '.join(labels)}"] if labels else []
    rows.append(f"{'sampling':10} seeds {'learning set %':>16} {'test set %':>16} {'to no memory':>16}  made by")
    for sampling, runs in results.items():
        tests = [one["test"]["learned design"] for one in runs]
        cells = []
        for key, found in (("score", runs), ("mean", tests), ("difference", tests)):
            values = [one[key] for one in found]
            spread = f"{100 * statistics.stdev(values):4.1f}" if len(values) > 1 else "  – "
            cells.append(f"{f'{100 * statistics.mean(values):.1f} ± {spread}':>16}")
        models = {f"meta {one['models']['meta']}, agent {one['models']['agent']}" for one in runs}
        made = "; ".join(sorted(models)).replace("meta offline", "meta sketch (stand-in)")
        made = made.replace("agent offline", "agent offline (stand-in)")
        rows.append(f"{sampling:10} {len(runs):5} {' '.join(cells)}  {made}")
    rows.append("mean ± standard deviation over seeds; the learned design is chosen on the learning set")

    # The first rule against each other one on the test set, paired by seed.
    (first, runs), *others = results.items()
    for other, theirs in others:
        scores = [[one["test"]["learned design"]["mean"] for one in each] for each in (runs, theirs)]
        gaps = [one - two for one, two in zip(*scores, strict=False)]  # a stopped ablation may lack a run
        if len(gaps) < 2:
            rows.append(f"{first} against {other}: one seed shows nothing")
            continue
        mean = statistics.mean(gaps)
        half = STUDENT.get(len(gaps) - 1, 2.2) * statistics.stdev(gaps) / len(gaps) ** 0.5
        interval = mean - half, mean + half
        rows.append(
            f"{first} against {other}, test set, {len(gaps)} seeds: {points(mean)} points: "
            f"{verdict_words(interval, other)} ({interval_words(interval)})"
        )
    return "\n".join(rows)
