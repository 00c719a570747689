"""The texts of a run: strangers' text made safe to show, verdicts, and the tables that commands print.

Promises: a difference counts as shown only if its 95 % interval excludes 0, and is noise where chance alone makes more;
each table has the run's labels; the score by which a learned design was chosen is followed by that on the test set.
Intervals resample tasks and do not cover the agent's luck within a pass. The module is cheap to import.
"""

import inspect
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any

from errors import clean

FOLDER = Path(__file__).parent / "templates"
SAYS_LINES = 12  # shown of what the learned memory says


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
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float | None, noise: float = 0.0) -> str:
    """A difference of rates in points, with its sign; marked where it is noise."""
    shown = "–" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"
    return f"{shown} (noise)" if is_noise(value, noise) else shown


def usd(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value == 0 or value >= 0.1 else f"${value:.4f}".rstrip("0")


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def escape_markdown(value: str) -> str:
    """A line of text in which nothing is Markdown or HTML."""
    marks = {"\n": " ", "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
    marks |= {char: f"\\{char}" for char in "\\`*_[]|~$"}
    return clean(value[:2_000]).translate(str.maketrans(marks))


def is_noise(difference: float | None, noise: float) -> bool:
    """Whether a difference is smaller than what chance alone makes (`score.luck`); none at all is not noise."""
    return difference is not None and 1e-9 < abs(difference) < noise


def verdict(interval: Sequence[float], difference: float | None = None, noise: float = 0.0) -> str:
    """Better, worse, or no difference shown, by the 95 % interval of a paired difference; or noise."""
    if is_noise(difference, noise):
        return "noise"
    low, high = interval
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def verdict_words(interval: Sequence[float], other: str = "no memory", difference: float | None = None,
                  noise: float = 0.0) -> str:  # fmt: skip
    words = {"noise": "no more than noise apart from {}", "no difference shown": "no difference to {} shown"}
    word = verdict(interval, difference, noise)
    return words.get(word, f"{word} than {{}}").format(other)


def noise_words(luck: dict | None) -> str:
    """What chance alone does on a task set; empty where it was not measured."""
    if not luck:
        return ""
    shown = difference_words(luck["difference"], luck["interval"])
    return (f"chance alone: no memory against itself with other seeds, {shown} points; "
            f"a difference of less than {100 * luck['noise']:.1f} points is called noise")  # fmt: skip


def experience_words(found: dict, noise: float = 0.0) -> str:
    """Whether a design is a memory or a solver, by `score.experience`."""
    parts = [found[key] for key in ("gives", "brought", "wakes")]
    learns, solves, waits = (verdict(interval, part, noise) == "better" for part, *interval in parts)
    gives, brought = parts[0][0], parts[1][0]
    if not learns and not solves:
        both = f"{points(gives, noise)} points from experience, {points(brought, noise)} from the code"
        return f"neither a memory nor a solver is shown: {both}"
    part, source = (gives, "experience") if learns else (brought, "the code")
    part, total = round(100 * part), round(100 * (gives + brought))
    of, in_all = (f" of {total}", "") if part <= total else ("", f" ({total:+} in all)")
    shown = f"{part}{of} points come from {source}{in_all}"
    if not learns:
        return f"{shown}: this is a solver{' behind a check for an empty memory' * waits}"
    also = f", {total - part} from the code: this is a memory that also brings something along"
    return shown + (also if solves else ": this is a memory")


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
    words = (f"Compared with no memory it gains {points(test)} points on the test set and {points(learning)} "
             f"on the learning set, where it was chosen: {less_or_more(test - learning)}.")  # fmt: skip
    if interval:
        words += f" {verdict_words(interval, difference=test, noise=noise).capitalize()} ({interval_words(interval)})."
    return words


def experience_rows(found: dict, noise: float = 0.0) -> list[tuple[str, float, str]]:
    """The three rows below a design: how much was learned, the score, and the difference that this makes."""
    brought, gives = (difference_words(found[key][0], found[key][1:], noise) for key in ("brought", "gives"))
    return [("after no episode", found["none"], ""),
            ("after one episode", found["one"], f"{brought} to no memory: the code"),
            ("after all episodes", found["all"], f"{gives} to one episode: experience")]  # fmt: skip


def fresh_words(finalists: Sequence[dict]) -> str:
    """What fresh seeds left of the finalists' leads, and what came of the best of the search, which is the first."""
    changes = [one["fresh"] - one["search"] for one in finalists]
    place = 1 + sum(one["final"] > finalists[0]["final"] + 1e-9 for one in finalists)
    rank = "still the best" if place == 1 else f"number {place} of {len(finalists)}"
    return (f"on fresh seeds the finalists have {less_or_more(statistics.fmean(changes))} on average, "
            f"the best of the search {less_or_more(changes[0])}; over all passes it is {rank}")  # fmt: skip


def notes(scores: dict[str, dict], short: dict[str, str], noise: float = 0.0) -> list[str]:
    """What to say below a table: what failed, the best memory's lead, and where most answers were no actions."""
    found = []
    for name, score in scores.items():
        if score.get("errors"):
            first, *rest = score["errors"][0].splitlines() or [""]
            said = f"{line(first, 80)} … {line(rest[-1], 100)}" if rest else line(first, 160)
            found.append(f"{short[name]} failed; a failed retrieval counts as 0, a failed update loses its episode: {said}")
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


def model_labels(models: Mapping[str, str]) -> list[str]:
    """The labels of results by what plays each role, where that is no model at an endpoint."""
    names = [name for name in ("offline", "manual") if name in models.values()]
    if models.get("meta") == "recorded":
        return ["recorded meta agent", *(f"{one} agent" if one == models.get("agent") else one for one in names)]
    return names


def summary(result: dict) -> str:
    """What a command prints at the end."""
    return text_of("summary.txt", result=result, most=SAYS_LINES)


def table(scores: dict[str, dict], luck: dict | None = None) -> str:
    """One row a memory: success, differences and verdicts, tokens, steps, invalid actions, its own calls."""
    return text_of("table.txt", scores=scores, luck=luck)


def mean_words(values: Iterable[float]) -> str:
    """Mean and sample standard deviation of some rates in percent."""
    values = list(values)
    deviation = percent(statistics.stdev(values)) if len(values) > 1 else "–"
    return f"{percent(statistics.mean(values))} ± {deviation:>4}"


def made_by(models: dict[str, str]) -> str:
    shown = f"meta {models['meta']}, agent {models['agent']}".replace("meta offline", "meta sketch (stand-in)")
    return shown.replace("agent offline", "agent offline (stand-in)")


def ablation_table(results: dict[str, list[dict]]) -> str:
    """Sampling rules, with the results of their runs in the order of the seeds: paired by task, with the spread."""
    from score import paired  # numpy is slow to import, and `--help` imports this module

    rows = []
    (first, runs), *others = results.items()  # the first against each other one: the same test episodes of each seed
    for other, theirs in others:
        pairs = [[one["test"]["learned design"] for one in two] for two in zip(runs, theirs, strict=False)]
        if len(pairs) < 2:  # a stopped ablation may lack a run
            rows.append(f"{first} against {other}: one seed shows nothing")
            continue
        mine, its = {}, {}  # scores by task, and by seed and pass
        for seed, pair in enumerate(pairs):
            for scores, one in zip((mine, its), pair, strict=True):
                scores |= {(row["task"], (seed, row["number"])): row["score"] for row in one["tasks"]}
        mean, *interval = paired(mine, its)
        head = f"{first} against {other}, test set, {len({task for task, _ in mine})} tasks, {len(pairs)} seeds"
        spread = statistics.stdev(one["mean"] - two["mean"] for one, two in pairs)
        rows.append(f"{head}: {points(mean)} points: {verdict_words(interval, other)} ({interval_words(interval)}); "
                    f"by seed ± {100 * spread:.1f}")  # fmt: skip
    return text_of("ablation.txt", results=results, compared=rows)


@cache
def templates(kind: str):
    """The jinja2 environment of templates/: what they print is cleaned, for "html" and "md" escaped."""
    import jinja2  # slow
    from markupsafe import Markup

    safe = {"html": partial(block, limit=60_000), "md": lambda text: Markup(escape_markdown(text)), "txt": clean}[kind]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: safe(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        autoescape=kind == "html",
    )  # fmt: skip
    # Every function of this module is a filter.
    environment.filters |= {name: one for name, one in globals().items() if inspect.isfunction(one)}
    environment.filters["times"] = lambda number: {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")
    return environment


def text_of(name: str, **facts: Any) -> str:
    """A text of templates/ that is neither HTML nor Markdown."""
    return templates("txt").get_template(name).render(facts).rstrip("\n")


def aligned(text: str, sides: str) -> str:
    """A table of rows with " | " between cells; `sides`: "l" or "r" a column. A short row may end in a long cell."""
    rows = [row.split(" | ", len(sides) - 1) for row in text.splitlines()]
    wide = [max([len(row[place]) for row in rows if place < len(row) - (len(row) < len(sides))], default=0)
            for place in range(len(sides))]  # fmt: skip
    shown = ""
    for row in rows:
        cells = [one.ljust(width) if side == "l" else one.rjust(width)
                 for one, side, width in zip(row, sides, wide, strict=False)]  # fmt: skip
        shown += "  ".join(cells).rstrip() + "\n"
    return shown
