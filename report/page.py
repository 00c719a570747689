"""The report of a run: report.html, one file that needs no network, report.md, and the figures.

Promises: each text of a model, a design or a game is cleaned, cut and escaped; the page lets no script run but its own.
The whole code of a design is shown, all else is cut until the design fits its share of `PAGE_BYTES`. A design is a JSON
string that is parsed when somebody opens it. jinja2, pygments and matplotlib are slow, so functions import them.
"""

import base64
import difflib
import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from errors import clean
from report import figures, words
from report.data import LEARNED, RunData, read_result, read_run, text, texts
from report.figures import Plot, by_family, learned_tasks, tree
from report.words import FOLDER, block, line, templates, text_of

PAGE_BYTES = 12_000_000  # shared by the designs of a page
DESIGN_BYTES = 150_000  # the most that one design gets, unless its code alone is longer
LINES, COLUMNS = 10_000, 2_000  # of code: more than any design has that somebody reads
DIFF_LINES = 2_500  # of each of two codes that are compared: the time grows with their product
TITLES = {"alfworld": "ALFWorld", "textworld": "TextWorld", "babaisai": "Baba Is AI", "minihack": "MiniHack"}


def render(path: str | Path, plots: bool = True) -> dict[str, str | bytes]:
    """The files of a run's report by name, without `plots` report.html alone. Raises UserError without a run."""
    run = read_run(path)
    drawn = figures.plots(run)
    files = {"report.html": page(run, drawn)}
    if plots:
        files |= {"report.md": markdown(run, drawn), "plots/archive.svg": picture(run)}
        files |= {f"plots/{one.name}.{kind}": getattr(one, kind) for kind in ("svg", "png") for one in drawn}
    return files


def page(run: RunData, drawn: Sequence[Plot]) -> str:
    """report.html of a run."""
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    facts, pieces = _facts(run), []
    scale = max([0.0001, *(one.score + (one.stderr or 0) for one in run.evaluated), run.f0 or 0])
    for node in run.nodes:
        shown, evaluated = run.design(node), node.state == "evaluated"
        ids = (node.name, node.id) if evaluated else (node.name,)  # of its model calls
        parent = run.design(run.lineage(node)[-2]) if node.parent else None
        own = facts | {
            "node": node, "shown": shown, "scale": scale,
            # The interval of the score is in the design's own file alone.
            "score": read_result(node.name, shown.score) if evaluated else None,
            "code": highlight(lines_of(shown.code)),
            "changed": difference(parent.code, shown.code) if parent and shown.code else None,
            "families": by_family(shown.tasks),
            "errors": texts(shown.score.get("errors")),
            "output": text(shown.score.get("output")),
            "calls": [row for row in run.usage_by_design if row["design"] in ids],
        }  # fmt: skip
        for less in range(7):  # fewer and shorter texts until it fits its share
            samples = [(one, one["steps"][: (40 >> less) + 1]) for one in shown.samples[: max(2, 6 - less)]]
            html = templates("html").get_template("design.html").render(own, samples=samples, text=30_000 // 3**less)
            # A JSON string that cannot end the script element around it. No tag of the page's own script ends or hides
            # in what it holds: texts are escaped, so these are our own tags.
            piece = json.dumps(html, ensure_ascii=False).replace("</", "<\\/").replace("<!", "\\u003c!")
            if len(piece.encode()) <= min(DESIGN_BYTES, PAGE_BYTES // len(run.nodes)):
                break
        pieces.append((node.name, Markup(piece)))
    return templates("html").get_template("report.html").render(
        facts, script=Markup(script), script_hash=Markup(digest), tree=tree(run), pieces=pieces,
        figures=[(one, Markup(one.themed)) for one in drawn],
    )  # fmt: skip


def markdown(run: RunData, drawn: Sequence[Plot]) -> str:
    """report.md of a run."""

    def indented(value: str) -> str:
        """A block of code in Markdown that nothing inside can end."""
        return Markup("\n".join(f"    {one}".rstrip() for one in clean(value).splitlines()))

    best = run.design(run.learned) if run.learned else None
    samples = {one["task"]: one for one in best.samples} if best else {}
    return templates("md").get_template("report.md").render(
        plots=drawn, **_facts(run),
        lineage=[(node, [line(what, 200) for _, what, _ in run.design(node).plan["changes"]])
                 for node in run.lineage(run.learned)],
        says=[(one, indented(block(one["retrieved"], 2000))) for one in list(samples.values())[:3]],
        code=indented("\n".join(lines_of(best.code))) if best else "",
    )  # fmt: skip


def recorded(run: RunData, head: dict, command: str) -> str:
    """README.md of a recording of a run; `head` is its first line, `command` replays it."""
    return templates("md").get_template("recording.md").render(_facts(run), head=head, command=line(command, 4000))


def picture(run: RunData) -> str:
    """The archive as a tree, an SVG file."""
    return templates("html").get_template("archive.svg").render(tree=tree(run), run=run)


def _facts(run: RunData) -> dict:
    """What both report.html and report.md show."""
    env = text(run.config.get("env"))
    finalists = [(one, {"search": run.lead(one), "fresh": one.fresh, "final": one.final}) for one in run.finalists]
    results = []
    for key, rows in run.results.items():
        split, mode, size = (*line(key, 60).split("-", 2), "", "")[:3]
        title = [f"{split.capitalize()} set", mode and f"{mode} mode", size and f"{size} episodes collected"]
        short = {name: one.replace("_", " ") for name, one in words.short_names(rows).items()}
        if rows:
            notes = words.notes({name: vars(one) for name, one in rows.items()}, short, run.noise(key))
            notes += filter(None, [words.noise_words(run.luck.get(key))])
            results.append((", ".join(filter(None, title)), rows, short, notes, run.noise(key)))
    return {
        "run": run, "env": env, "results": results, "learned": run.learned, "LEARNED": LEARNED, "noise": run.noise(),
        "title": f"ALMA on {TITLES.get(env, line(env, 60) or 'an unknown environment')}",
        "headline": text_of("headline.txt", run=run).splitlines(),
        "tiles": [row.split(" | ") for row in text_of("tiles.txt", run=run).splitlines()],
        "finalists": (finalists, words.fresh_words([leads for _, leads in finalists]) if finalists else ""),
        "chance": words.noise_words(run.luck.get("learning-static")),
        "tasks": [(title, by_family(rows), rows) for title, rows in learned_tasks(run).items()],
        "command": line(text(run.about.get("command")), 4000) or "not stored: see config.json",
    }  # fmt: skip


class Row(NamedTuple):
    """A line of a comparison."""

    kind: str  # "same", "old", "new" or "gap"
    old: int | None  # number of the line, from 1
    new: int | None
    html: str


def lines_of(code: str) -> tuple[str, ...]:
    """The lines of some code, cleaned; only absurdly long ones are cut."""
    lines = clean(code).splitlines()
    shown = [line if len(line) <= COLUMNS else f"{line[:COLUMNS]}…" for line in lines[:LINES]]
    return tuple(shown + [f"# … {len(lines) - LINES:,} more lines"] * (len(lines) > LINES))


@lru_cache(maxsize=256)  # a design's code is shown on its own and in comparisons with its children
def highlight(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Each line of Python as escaped HTML, with an element only where a colour changes."""
    from pygments.lexers import PythonLexer
    from pygments.token import Token

    classes = {  # token type: class in report.css
        Token.Keyword: "k", Token.Operator.Word: "k", Token.Literal.String: "s", Token.Literal.Number: "m",
        Token.Comment: "c", Token.Name.Function: "f", Token.Name.Class: "f", Token.Name.Decorator: "f",
        Token.Name.Builtin: "b",
    }  # fmt: skip

    def colour(token: tuple) -> str | None:
        return next((classes[kind] for kind in reversed(token[0].split()) if kind in classes), None)

    shown, tokens = "", PythonLexer(stripnl=False, ensurenl=False).get_tokens("\n".join(lines))
    for letter, same in itertools.groupby(tokens, colour):
        form = f"<i class={letter}>{{}}</i>" if letter else "{}"
        parts = str(escape("".join(value for _, value in same))).split("\n")
        shown += "\n".join(form.format(part) if part else "" for part in parts)
    return tuple(map(Markup, shown.split("\n")))


def difference(old: str, new: str) -> list[Row]:
    """What changed from one code to another, with three unchanged lines around."""
    before, after = lines_of(old), lines_of(new)
    shown_before, shown_after = highlight(before), highlight(after)
    rows: list[Row] = []
    matcher = difflib.SequenceMatcher(None, before[:DIFF_LINES], after[:DIFF_LINES])
    for group in matcher.get_grouped_opcodes():
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        rows.append(Row("gap", None, None, f"lines {i1 + 1} to {i2} → {j1 + 1} to {j2}"))
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                rows += [Row("same", i + 1, j1 + i - i1 + 1, shown_before[i]) for i in range(i1, i2)]
            else:
                rows += [Row("old", i + 1, None, shown_before[i]) for i in range(i1, i2)]
                rows += [Row("new", None, j + 1, shown_after[j]) for j in range(j1, j2)]
    return rows
