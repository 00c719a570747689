"""The texts of a run: strangers' text made safe to show, verdicts, and the tables that commands print.

Promises: a difference counts as shown only if its 95 % interval excludes 0, and is called noise where it is
smaller than what chance alone makes; a learned design's score on the learning set, where it was chosen, is
followed by its score on the test set where there is one; each table carries the run's labels. The intervals
resample tasks and do not cover the agent's luck within a pass. Importing this module is cheap: the command
line and the progress display use it.
"""

import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from errors import clean

SETS = ("learning", "test", "shift")
SAYS_LINES = 12  # shown of what the learned memory says
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


def points(value: float | None, noise: float = 0.0) -> str:
    """A difference of rates in points, with its sign; marked where it is noise."""
    shown = "–" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"
    return f"{shown} (noise)" if is_noise(value, noise) else shown


def is_noise(difference: float | None, noise: float) -> bool:
    """Whether a difference is smaller than what chance alone makes (`score.luck`); none at all is not noise."""
    return difference is not None and 1e-9 < abs(difference) < noise


def verdict(interval: Sequence[float], difference: float | None = None, noise: float = 0.0) -> str:
    """Better, worse, or no difference shown, by the 95 % interval of a paired difference; or noise."""
    low, high = interval
    if is_noise(difference, noise):
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
    return (
        f"chance alone: no memory against itself with other seeds, {shown} points; "
        f"a difference of less than {100 * luck['noise']:.1f} points is called noise"
    )


def experience_words(found: dict, noise: float = 0.0) -> str:
    """Whether a design is a memory or a solver, by `score.experience`."""
    (gives, *given), (brought, *own), (wakes, *woken) = (found[key] for key in ("gives", "brought", "wakes"))
    experience, code = verdict(given, gives, noise), verdict(own, brought, noise)
    total = round(100 * (gives + brought))

    def share(part: float, source: str) -> str:
        part = round(100 * part)
        if part > total:
            return f"{part} points come from {source} ({total:+} in all)"
        return f"{part} of {total} points come from {source}"

    if experience == code == "better":
        rest = total - round(100 * gives)
        return f"{share(gives, 'experience')}, {rest} from the code: this is a memory that also brings something along"
    if experience == "better":
        return f"{share(gives, 'experience')}: this is a memory"
    if code == "better":
        waits = verdict(woken, wakes, noise) == "better"
        return f"{share(brought, 'the code')}: this is a solver{' behind a check for an empty memory' * waits}"
    both = f"{points(gives, noise)} points from experience, {points(brought, noise)} from the code"
    return f"neither a memory nor a solver is shown: {both}"


def interval_words(interval: Sequence[float]) -> str:
    return f"95 % interval {points(interval[0])} to {points(interval[1])} points"


def difference_words(difference: float, interval: Sequence[float], noise: float = 0.0) -> str:
    """A difference with its 95 % interval, for a cell of a table."""
    return f"{points(difference, noise)} [{points(interval[0])}, {points(interval[1])}]"


def less_or_more(change: float) -> str:
    """A change of a difference in words."""
    shown = points(change)
    return f"{shown[1:]} points {'less' if shown[0] == '-' else 'more'}" if float(shown) else "as much"


def shrinkage_words(learning: float, test: float, interval: Sequence[float] | None, noise: float = 0.0) -> str:
    """How much of the lead over no memory on the learning set is left on the test set."""
    words = (
        f"Compared with no memory it gains {points(test)} points on the test set and {points(learning)} "
        f"on the learning set, where it was chosen: {less_or_more(test - learning)}."
    )
    if not interval:
        return words
    shown = verdict_words(interval, difference=test, noise=noise).capitalize()
    return f"{words} {shown} ({interval_words(interval)})."


def experience_rows(found: dict, noise: float = 0.0) -> list[tuple[str, float, str]]:
    """The three rows below a design: how much was learned, the score, and the difference that this makes."""
    brought, gives = (difference_words(found[key][0], found[key][1:], noise) for key in ("brought", "gives"))
    return [
        ("after no episode", found["none"], ""),
        ("after one episode", found["one"], f"{brought} to no memory: the code"),
        ("after all episodes", found["all"], f"{gives} to one episode: experience"),
    ]


def chosen_words(designs: int, finalists: int, objective: str) -> str:
    """How the learned design was chosen."""
    by = " by what experience gives" if objective == "experience" else ""
    if not finalists:
        return f"the best of {designs}{by}"
    return f"chosen from {designs} designs as the best of {finalists} finalists over all passes{by}"


def climbed_words(objective: str) -> str:
    """What a search with this objective climbs."""
    return "what experience gives" if objective == "experience" else "lead over no memory"


def fresh_words(finalists: Sequence[dict]) -> str:
    """What fresh seeds left of the finalists' leads, and what came of the best of the search, which is the first."""
    changes = [one["fresh"] - one["search"] for one in finalists]
    place = 1 + sum(one["final"] > finalists[0]["final"] + 1e-9 for one in finalists)
    rank = "still the best" if place == 1 else f"number {place} of {len(finalists)}"
    return (
        f"on fresh seeds the finalists have {less_or_more(statistics.fmean(changes))} on average, "
        f"the best of the search {less_or_more(changes[0])}; over all passes it is {rank}"
    )


def finalist_words(result: dict) -> list[str]:
    """The finalists by what they led by in the search and on fresh seeds, and what came of the best of the search."""
    finalists, noise = result.get("finalists"), _noise(result, "learning")
    if not finalists:
        return []
    rows = [f"finalists, measured again on fresh seeds; {climbed_words(result['objective'])} in points, learning set:"]
    rows.append(f"  {'design':12}{'search':>15}{'fresh seeds':>15}{'all passes':>15}")
    for one in finalists:
        cells = "".join(f"{points(one[key], noise):>15}" for key in ("search", "fresh", "final"))
        rows.append(f"  {one['id']:12}{cells}{'  learned' * (one['id'] == result['learned'])}")
    return [*rows, fresh_words(finalists)]


def notes(scores: dict[str, dict], short: dict[str, str], noise: float = 0.0) -> list[str]:
    """What to say below a table: the best memory's lead, and where most answers of the agent were no actions."""
    found = []
    if compared := [name for name in scores if scores[name].get("against_best")]:
        name = max(compared, key=lambda name: scores[name]["mean"])
        other = scores[name]["against_best"]
        lead = difference_words(other["difference"], other["interval"], noise)
        second = short.get(other["name"], line(other["name"] or "another", 40))
        found.append(f"best memory: {short[name]}, {lead} points ahead of the second best, {second}")
    if lost := {name: score for name, score in scores.items() if (score.get("invalid") or 0) > 0.5}:
        example = next((line(score["example"], 100) for score in lost.values() if score["example"]), "")
        shares = ", ".join(f"{short[name]}: {percent(score['invalid'])} %" for name, score in lost.items())
        quoted = f', for example "{example}"' if example else ""
        found.append(f"{shares} of the agent's answers were no valid actions{quoted}")
    return found


def _noise(result: dict, split: str) -> float:
    """What chance alone makes on a task set, by a command's result; 0 where it was not measured."""
    return (result.get("noise", {}).get(split) or {"noise": 0.0})["noise"]


def model_labels(models: Mapping[str, str]) -> list[str]:
    """The labels of results by what plays each role, where that is no model at an endpoint."""
    names = [name for name in ("offline", "manual") if name in models.values()]
    if models.get("meta") == "recorded":
        return ["recorded meta agent", *(f"{one} agent" if one == models.get("agent") else one for one in names)]
    return names


def summary(result: dict) -> str:
    """What a command prints at the end: tables by task set, the learned design, and where the report is."""
    lines = [f"labels: {', '.join(result['labels'])}"] if result["labels"] else []
    models = [f"{role} {line(name, 60)}" for role, name in result["models"].items()]
    lines.append(f"models: {', '.join(models)}")
    for split in SETS:
        if split in result:
            lines += ["", f"{split} set:", table(result[split], result.get("noise", {}).get(split))]
    if "collection sizes" in result:
        lines += ["", f"{result['split']} set, {result['mode']} mode:", curve(result["collection sizes"])]
        lines += filter(None, [noise_words(result.get("noise", {}).get(result["split"]))])
    known = PAPER.get(result.get("env", ""), {}) if "test" in result or "shift" in result else {}
    if known:
        lines += ["", "success % in the paper, test set, by agent model (standard error):"]
    for model, row in known.items():
        lines.append(f"  {model}: " + ", ".join(f"{name} {value}" for name, value in row.items()))
    if "learned" in result:
        lead, finalists = result["score"] - result["no_memory"], result.get("finalists", [])
        objective, noise = result.get("objective", "score"), _noise(result, "learning")
        gained, none = f"{points(lead, noise)} points", percent(result["no_memory"])
        if final := [one["final"] for one in finalists if one["id"] == result["learned"] and objective == "score"]:
            [lead] = final
            gained += f", over all passes {points(lead, noise)}"
        chosen = chosen_words(result["designs"], len(finalists), objective)
        lines += ["", f"learned design: {result['learned']}, {chosen}; learning set: "
                  f"{percent(result['score'])} %, no memory {none} % ({gained})"]
        if tested := result.get("test", {}).get("learned design"):
            lines.append(shrinkage_words(lead, tested["difference"], tested["interval"], _noise(result, "test")))
        lines += [""] * bool(finalists) + finalist_words(result)
        lines += filter(None, [noise_words(result.get("noise", {}).get("learning"))])
    if says := result.get("says"):
        told = block(says["text"], 4000).splitlines()
        told = [one if len(one) <= 160 else f"{one[:159]}…" for one in told]
        lines += ["", f"what its memory says for the task {line(says['task'], 80)}:"]
        lines += [f"    {one}" for one in told[:SAYS_LINES]] + ["    …"] * (len(told) > SAYS_LINES)
    lines += ["", f"run folder: {result['folder']}", f"report: {Path(result['folder']) / 'report.html'}"]
    return "\n".join(lines)


def table(scores: dict[str, dict], luck: dict | None = None) -> str:
    """One line a memory: success, differences and verdicts, tokens, steps, invalid actions, its own calls.

    Below a design whose experience was measured stand its scores after no, one and all collected episodes, and
    whether it is a memory or a solver.
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
            for when, rate, change in experience_rows(score["experience"], noise):
                rows.append(f"{f'  {when}':{wide}}  {percent(rate):>4}         {change}".rstrip())
            rows.append(f"  {experience_words(score['experience'], noise)}")
    return "\n".join(rows + notes(scores, names, noise) + [noise_words(luck)] * bool(luck))


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
    """Sampling rules at equal budget, paired by task, with the spread over seeds (the paper does not report one).

    `results`: for each rule the results of its runs, with the seeds in the same order.
    """
    from score import paired_interval  # numpy is slow to import, and `--help` imports this module

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

    # The first rule against each other one on the test set: the same episodes of each seed.
    (first, runs), *others = results.items()
    for other, theirs in others:
        pairs = [[one["test"]["learned design"] for one in two] for two in zip(runs, theirs, strict=False)]
        if len(pairs) < 2:  # a stopped ablation may lack a run
            rows.append(f"{first} against {other}: one seed shows nothing")
            continue
        differences: dict[str, list[float]] = {}
        for mine, its in pairs:
            known = {(one["task"], one["number"]): one["score"] for one in its["tasks"]}
            for one in mine["tasks"]:
                differences.setdefault(one["task"], []).append(one["score"] - known[one["task"], one["number"]])
        mean, *interval = paired_interval(differences)
        spread = statistics.stdev(mine["mean"] - its["mean"] for mine, its in pairs)
        rows.append(
            f"{first} against {other}, test set, {len(differences)} tasks, {len(pairs)} seeds: {points(mean)} points: "
            f"{verdict_words(interval, other)} ({interval_words(interval)}); by seed ± {100 * spread:.1f}"
        )
    rows.append("intervals resample tasks; how much of a difference is the luck of a search, its deviation by seed tells")
    return "\n".join(rows)
