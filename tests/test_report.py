"""The report: what it says of a run at any stage, and that nothing in a run can change the page."""

import dataclasses
import fcntl
import gzip
import html.parser
import itertools
import json
import random
import re
import shutil
import subprocess
import sys

import pytest
from markupsafe import escape

from alma import Archive, Design
from errors import UserError, clean
from harness.run_folder import write_atomic, write_report
from prompts.evidence import EPISODES, read_episodes
from report import compare
from report import figures as plots
from report import page as report_page
from report import words as report
from report.data import Node, read_run
from report.figures import tree
from report.page import difference, highlight, lines_of
from report.words import ascii_line, block, line
from tests.synthetic_run import HOSTILE, NOISE, Runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Runs(tmp_path_factory)


class Tags(html.parser.HTMLParser):
    """The elements of a piece of HTML with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def names(self):
        return {tag for tag, _ in self.elements}


def pieces_of(page):
    """Each candidate's piece of a page, as the script will read it."""
    found = re.findall(r'<script type="application/json" class="piece" data-name="([\d.]+)">(.*?)</script>', page)
    return {name: json.loads(text) for name, text in found}


def page_of(folder):
    """A run's page, without the figures, which take the most time."""
    return report_page.page(read_run(folder), [])


# ----------------------------------------------------------------------------------- what it says


def test_a_finished_run_shows_its_labels_its_verdict_and_every_candidate(made):
    folder = made(steps=4)
    page, run = page_of(folder), read_run(folder)
    shown = [attributes["data-name"] for tag, attributes in Tags(page).elements if "node" in attributes.get("class", "")]
    assert sorted(shown) == sorted(node.name for node in run.nodes) == sorted(pieces_of(page))
    assert {"dropped", "duplicate", "evaluated"} == {node.state for node in run.nodes}
    words = " ".join(Tags(page).words)
    for text in ("offline", "generated", "Baba" if run.config["env"] == "babaisai" else "MiniHack", "95 % interval"):
        assert text in words
    assert "finished" in words and "unsafe sandbox" not in words
    assert f"learned design, {run.learned.name}," in words
    assert f"{100 * run.results['test-static']['learned design'].mean:.1f} %" in words


def test_the_report_writes_the_same_bytes_again(made):
    folder = made(copy=True, steps=3)
    first = {path: path.read_bytes() for path in write_report(folder)}
    assert {path.name for path in first} >= {"report.html", "report.md", "archive.svg", "progress.svg", "families.svg"}
    assert all((folder / "plots" / f"{name}.png").stat().st_size > 5000 for name in ("progress", "cost", "cost-test"))
    assert {path: path.read_bytes() for path in write_report(folder)} == first


def test_report_md_has_the_results_the_archive_and_links_to_its_figures(made):
    folder = made(steps=4)
    write_report(folder)
    text = (folder / "report.md").read_text()
    run = read_run(folder)
    assert all(f"| {node.name} |" in text.replace(" (learned)", "") for node in run.nodes)
    assert f"| {run.learned.name} (learned) |" in text
    assert f"| learned design | {100 * run.results['test-static']['learned design'].mean:.1f} |" in text
    retrieved = text.partition("## What it retrieves")[2].partition("\n## ")[0]
    shown = [line for line in retrieved.splitlines() if line and " of the learning set, " not in line]
    assert shown and all(line.startswith("    ") for line in shown)
    linked = re.findall(r"\]\((plots/[\w.-]+)\)", text)
    assert len(linked) >= 5 and all((folder / name).exists() for name in linked)


def test_the_page_says_how_to_run_it_again_as_it_was_typed(made):
    path = made(copy=True, steps=1)
    known = json.loads((path / "config.json").read_text())
    typed = "python alma.py learn --env minihack --runs 'my runs'"
    (path / "config.json").write_text(json.dumps({**known, "about": {**known.get("about", {}), "command": typed}}))
    assert f"\n    {typed}\n" in report_page.markdown(read_run(path), [])
    assert typed in "".join(Tags(page_of(path)).words)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.2), "better than no memory"),
        ((-0.2, -0.01), "worse than no memory"),
        ((-0.1, 0.2), "no difference to no memory shown"),
        ((0.0, 0.2), "no difference to no memory shown"),
        ((0.0, 0.0), "no difference to no memory shown"),
    ],
)
def test_a_difference_is_called_one_only_where_the_interval_leaves_zero_out(interval, words):
    assert report.verdict_words(interval) == words


def test_a_learned_design_is_shown_with_what_is_left_of_its_lead_on_the_test_set():
    score = {"mean": 0.4, "stderr": 0.02, "difference": 0.05, "interval": [-0.02, 0.12], "retrieved_tokens": 9, "steps": 3,
             "memory_calls": 12, "usd": 0.25}
    result = {"labels": ["offline"], "models": {"agent": "offline"}, "learned": "abc", "designs": 7, "score": 0.5, "no_memory": 0.3, "folder": "runs/x",
              "env": "minihack", "test": {"no_memory": {**score, "difference": 0.0}, "learned design": score}}
    text = report.summary(result)
    assert text.splitlines()[:2] == ["labels: offline", "models: agent offline"]
    assert re.search(r"^learned design .* 12 +0\.250$", text, re.M)
    assert "it gains +5.0 points on the test set and +20.0 on the learning set, where it was chosen: 15.0 points less" in text
    assert "No difference to no memory shown" in text and "no_memory: " not in text
    assert "gpt-5-nano: no memory 6.7, ReasoningBank 9.8, ALMA 11.7 (2.2)" in text


SCORE = {"mean": 0.4, "stderr": 0.02, "difference": 0.05, "interval": [-0.02, 0.12], "retrieved_tokens": 9, "steps": 3,
         "memory_calls": 12, "usd": 0.0}


def test_a_printed_table_has_one_line_a_memory_with_short_names_and_verdicts_as_columns():
    def against(name, low, high):
        return {"name": name, "difference": (low + high) / 2, "interval": [low, high]}

    learned, mine = "runs/20260101T000000-minihack-offline/0123456789ab", "designs/mine.py"
    scores = {"no_memory": {**SCORE, "difference": 0.0}, learned: {**SCORE, "interval": [0.01, 0.3], "mean": 0.6},
              mine: {**SCORE, "interval": [-0.3, -0.01], "invalid": 0.63, "example": "I think\n\x1b[1m I go"}}
    scores[learned]["against_best"], scores[mine]["against_best"] = against(mine, 0.1, 0.2), against(learned, -0.2, -0.1)
    head, none, first, second, best, warning = report.table(scores).splitlines()
    assert [part.strip() for part in re.split("  +", head)][:4] == ["memory", "success %", "to no memory", "to the best other"]
    assert none.split() == ["no_memory", "40.0", "±", "2.0", "9", "3.0", "–", "12"]
    assert re.match(r"0123456789ab  60\.0 ±  2\.0  better +\+5\.0 \[\+1\.0, \+30\.0\] +better +9 ", first)
    assert re.match(r"mine .* worse +\+5\.0 .* worse +9 +3\.0 +63\.0 +12$", second)
    assert best == "best memory: 0123456789ab, +15.0 [+10.0, +20.0] points ahead of the second best, mine"
    assert warning == 'mine: 63.0 % of the agent\'s answers were no valid actions, for example "I think ␛[1m I go"'
    assert len(head) < 130 and "shown" not in first + second
    assert report.short_names(["a/my.py", "b/my.py", "g_memory"]) == {"a/my.py": "a/my.py", "b/my.py": "b/my.py", "g_memory": "g_memory"}


def test_a_run_ends_with_what_the_memory_says_for_one_task_and_with_the_address_of_its_report():
    result = {"labels": [], "models": {"agent": "offline"}, "folder": "runs/x", "test": {"no_memory": SCORE},
              "says": {"task": "Room\n5", "text": "\n".join(f" line {number}" for number in range(40)) + "\x1b[2J"}}
    lines = report.summary(result).splitlines()
    start = lines.index("what its memory says for the task Room 5:")
    assert lines[start + 1] == "     line 0" and lines[start + report.SAYS_LINES + 1] == "    …"
    assert lines[-2:] == ["run folder: runs/x", "report: runs/x/report.html"] and "line 12" not in "\n".join(lines)


def test_the_page_has_the_verdicts_the_share_of_invalid_actions_and_a_warning(made):
    folder = made(steps=4)
    for text in (page_of(folder), report_page.markdown(read_run(folder), [])):
        words = " ".join(" ".join(Tags(text).words).split())
        assert "invalid %" in words and "62.0" in words
        assert re.search("g memory: 62.0 % of the agent.s answers were no valid actions, for example .I think I should", words)


def test_the_report_stands_on_run_folders_alone_and_loads_nothing_slow_before_it_draws():
    code = "import sys, report.page, report.compare; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "report" in loaded
    assert not loaded & {"harness", "models", "llm", "envs", "alma", "evaluate", "sandbox", "matplotlib", "jinja2", "pygments"}


def test_runs_that_differ_in_the_seed_alone_are_one_group_with_its_spread(made, tmp_path):
    folders = [made(steps=3, seed=seed, sampling=sampling) for sampling in ("archive", "greedy") for seed in (1, 2)]
    runs = [read_run(folder) for folder in folders]
    table = compare.table(runs)
    assert "sampling=archive: 2 runs" in table and "sampling=greedy: 2 runs" in table
    assert table.count("finished, sampling=") == 4 and "steps=3" in table.splitlines()[0]
    scores = [100 * read_run(folder).learned.score for folder in folders[:2]]
    spread = f"{sum(scores) / 2:.1f} ± {abs(scores[0] - scores[1]) / 2**0.5:.1f}"
    assert f"learned design, learning set {spread}" in re.sub(" +", " ", table)
    assert "sampling=greedy (2)" in compare.plot(runs).svg and compare.plot(runs).png.startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no run in"):
        read_run(tmp_path)


def test_an_ablation_is_paired_by_task_and_told_with_its_spread_over_seeds():
    def runs(*seeds):
        """The results of a rule: for each seed the scores of four tasks in one pass."""
        tests = [{"mean": sum(one) / 4, "difference": sum(one) / 4 - 0.2, "tasks": [
            {"task": str(task), "number": 0, "score": score} for task, score in enumerate(one)]} for one in seeds]  # fmt: skip
        same = {"labels": ["offline"], "models": {"meta": "offline", "agent": "offline"}}
        return [{**same, "score": one["mean"] + 0.1, "test": {"learned design": one}} for one in tests]

    # The rules differ by 0.1 in each task of each seed, or by -0.4, 0, 0.2 and 0.2: by seed the means are alike in both.
    first = runs((0.1, 0.5, 0.3, 0.3), (0.2, 0.6, 0.4, 0.4), (0.3, 0.7, 0.5, 0.5))
    second = runs((0.0, 0.4, 0.2, 0.2), (0.1, 0.5, 0.3, 0.3), (0.2, 0.6, 0.4, 0.4))
    third = runs((0.5, 0.5, 0.1, 0.1), (0.6, 0.6, 0.2, 0.2), (0.7, 0.7, 0.3, 0.3))
    table = report.ablation_table({"archive": first, "greedy": second, "random": third})
    assert "labels: offline" in table
    assert re.search(r"archive +3 +50\.0 ± 10\.0 +40\.0 ± 10\.0 +20\.0 ± 10\.0", table)
    assert table.count("  meta sketch (stand-in), agent offline (stand-in)\n") == 3
    assert "archive against greedy, test set, 4 tasks, 3 seeds: +10.0 points: better than greedy (95 % interval +10.0" in table
    assert "random, test set, 4 tasks, 3 seeds: +0.0 points: no difference to random shown (95 % interval -40.0" in table
    assert table.count("; by seed ± 0.0\n") == 2
    wide = report.ablation_table({"archive": first, "greedy": second[::-1]})  # by seed -10, +10 and +30 points
    assert "+10.0 points: better than greedy" in wide and "by seed ± 20.0" in wide
    assert "one seed shows nothing" in report.ablation_table({"archive": first[:1], "greedy": second[:1]})


def test_a_candidate_has_parents_and_the_archive_of_an_older_run_has_one(made):
    folder = made(copy=True, steps=5)
    run = read_run(folder)
    node = next(one for one in run.nodes if len(one.parents) == 2)
    edges = [edge for edge in tree(run).edges if edge.child == node.name]
    assert [edge.first for edge in edges] == [False, True]
    assert run.lineage(node)[-2].name == node.parents[0]
    shown = " ".join(" ".join(Tags(pieces_of(page_of(folder))[node.name]).words).split())
    assert f"made from {node.parents[0]} and {node.parents[1]}" in shown
    assert all(f"{node.name}" in pieces_of(page_of(folder))[parent] for parent in node.parents)
    row = re.search(rf"^\| {re.escape(node.name)}(?: \(learned\))? \| ([\d., ]+) \|", report_page.markdown(run, []), re.M)
    assert row[1] == ", ".join(node.parents)

    rows = [json.loads(row) for row in (folder / "archive.jsonl").read_text().splitlines()]
    old = [{"parent": (row.pop("parents") or [None])[0], **row} for row in rows]
    (folder / "archive.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert [one.parents for one in read_run(folder).nodes] == [one.parents[:1] for one in run.nodes]


# ------------------------------------------------------- experience, chance, finalists and races


def words_of(html):
    return " ".join(" ".join(Tags(html).words).split())


def section(page, name):
    """The words of a section of a page."""
    return words_of(page.partition(f'<section id="{name}">')[2].partition("</section>")[0])


def random_archive(seed):
    """An archive with ties, races, duplicates, and designs of either objective, before or after the finalists."""
    rng, archive = random.Random(seed), Archive(0.3)
    experience, chosen = rng.random() < 0.5, rng.random() < 0.6
    for place in range(1, rng.randint(2, 20)):
        raced = rng.choice((0, 0, 0, 30)) if place > 1 and not experience else 0
        score = rng.choice((0.1, 0.3, 0.4, 0.45))
        given = {"experience": rng.choice((-0.1, 0.0, 0.2, 0.3))} if experience else {}
        archive.add(Design(f"{rng.randint(1, 40):04x}", f"{place}.1", (), place, "evaluated", score, 0.02, score - 0.3,
                           9.0, raced=raced, **given))
    for one in archive.finalists(5) if chosen else []:
        archive.update(one, fresh=rng.choice((0.1, 0.2)), final=rng.choice((0.1, 0.15, 0.2)))
    return archive, "experience" if experience else "score"


@pytest.mark.parametrize("seed", range(40))
def test_the_learned_design_and_the_finalists_are_those_of_the_archive(tmp_path, seed):
    archive, objective = random_archive(seed)
    (tmp_path / "config.json").write_text(json.dumps({"env": "minihack", "objective": objective}))
    (tmp_path / "archive.jsonl").write_text("".join(json.dumps(one) + "\n" for one in archive.lines()))
    run = read_run(tmp_path)
    assert run.learned.name == archive.best().candidate
    again = sorted((one for one in archive.evaluated() if one.final is not None), key=lambda one: -one.lead(archive.f0))
    assert [one.name for one in run.finalists] == [one.candidate for one in again]
    for node, design in zip(run.evaluated, archive.evaluated(), strict=True):
        assert run.lead(node) == pytest.approx(design.lead(archive.f0))


def test_the_report_shows_what_experience_gives_and_what_chance_does(made):
    folder = made(steps=4)
    run = read_run(folder)
    found, page, text = run.results["test-static"]["learned design"].experience, page_of(folder), report_page.markdown(run, [])
    results = section(page, "results")
    said = report.experience_words(found, NOISE["noise"])
    rows = report.experience_rows(found, NOISE["noise"])
    for shown in (results, text.replace("\\", "")):
        assert said in shown and re.search(r"difference of less than 3\.8 points is called noise", shown)
        for when, rate, change in rows:
            assert f"{when} {100 * rate:.1f} {change}".strip() in re.sub(r"[| –]+", " ", shown)
    assert "the code" in rows[1][2] and "(noise)" in rows[1][2]
    assert f"On the test set {said}." in words_of(page) and f"On the test set {said}." in text.replace("\\", "")
    small = [one for rows in run.results.values() for one in rows.values() if one.difference and abs(one.difference) < 0.038]
    assert small and len(re.findall(r'class="verdict ">noise<', page)) == len(small) == len(re.findall(r"\| noise \|", text))
    assert "+2.8 (noise)" in report.points(0.028, run.noise()) and run.noise() == 0.038


def test_a_difference_smaller_than_chance_makes_is_noise_in_the_headline_and_where_runs_are_compared(made):
    folder = made(copy=True, steps=4)
    for name in ("results-test-static.json", "score.json"):
        value = json.loads((folder / name).read_text())
        loud = {"difference": 0.1, "interval": [-0.5, 0.9], "noise": 0.9}
        value["noise"] = loud if "scores" in value else {"learning": loud}
        (folder / name).write_text(json.dumps(value))
    run = read_run(folder)
    (folder / "results-learning-static.json").unlink()
    run = read_run(folder)
    assert "No more than noise apart from no memory (95 % interval" in words_of(page_of(folder))
    assert "no more than noise apart from no memory" in words_of(pieces_of(page_of(folder))[run.learned.name])
    assert re.search(rf" {re.escape(report.points(run.learned.difference))} \(noise\) +[\d.]+  noise ", compare.table([run]))


def test_the_finalists_have_a_table_and_the_best_of_them_is_the_learned_design(made):
    folder = made(steps=5)
    run = read_run(folder)
    assert len(run.finalists) == 5 and run.learned is max(run.finalists, key=lambda one: one.final)
    page, text = page_of(folder), report_page.markdown(run, [])
    shown = section(page, "finalists")
    for node in run.finalists:
        leads = [report.points(one, run.noise()) for one in (run.lead(node), node.fresh, node.final)]
        assert f"{node.name} {node.id} {' '.join(leads)}{' learned' * (node is run.learned)}" in shown
        assert f"| {node.name}{' (learned)' * (node is run.learned)} | {' | '.join(leads)} |" in text
        mine = words_of(pieces_of(page)[node.name])
        assert f"{leads[0]} points in the search, {leads[1]} on fresh seeds, {leads[2]} over all passes" in mine
    assert "lead over no memory" in shown and "n fresh seeds the finalists have" in shown
    chosen = f"chosen from {len(run.evaluated)} designs as the best of 5 finalists over all passes"
    assert chosen in words_of(page) and chosen in text
    gained = f"{report.points(run.learned.final)} on the learning set, where it was chosen"
    assert gained in words_of(page)


def test_a_raced_design_is_marked_wherever_its_score_is_shown_and_is_no_finalist(made):
    folder = made(steps=5)
    run, page = read_run(folder), page_of(folder)
    [node] = [one for one in run.nodes if one.raced]
    assert run.played(node) == "14 of 36 episodes" and node not in run.finalists
    score = f"{100 * node.score:.1f}"
    assert f"{score} % (14 of 36 episodes)" in page.partition(f'data-name="{node.name}"')[2].partition("</title>")[0]
    assert f"{node.name} · 14 of 36" in section(page, "archive") and "stopped early by --race" in section(page, "archive")
    assert f"{node.name} {score} 14 of 36 episodes" in section(page, "designs")
    piece = words_of(pieces_of(page)[node.name])
    assert "stopped early by --race: 14 of 36 episodes" in piece and "over 14 of 36 episodes" in piece
    text = report_page.markdown(run, [])
    assert f"| {score} (14 of 36 episodes) |" in text
    assert "stopped early" not in page_of(made(steps=3))
    best = plots.best_by_step(dataclasses.replace(run, nodes=tuple(dataclasses.replace(one, score=1.0) if one is node else one for one in run.nodes)))
    assert node.name not in {one.name for one in best.values()}


def test_a_search_for_experience_shows_what_it_climbs_in_the_tree_and_the_tables(made):
    folder = made(steps=5, objective="experience")
    run, page = read_run(folder), page_of(folder)
    assert {spot.text for spot in tree(run).spots if spot.node.state == "evaluated"} == {
        f"{100 * one.experience:+.0f}" for one in run.evaluated
    }
    assert tree(run).span == pytest.approx(100 * max(abs(one.experience) for one in run.evaluated))
    assert "The number is what experience gives it in points" in section(page, "archive")
    assert "gives them" in section(page, "archive") and "better than no memory" not in section(page, "archive")
    assert "from experience" in section(page, "designs") and "| from experience |" in report_page.markdown(run, [])
    assert "what experience gives" in section(page, "finalists") and "by what experience gives." in words_of(page)
    for node in run.evaluated:
        assert f"{100 * node.experience:+.1f}" in section(page, "designs")
        found = run.design(node).score["experience"]
        assert report.experience_words(found, run.noise()).lower() in words_of(pieces_of(page)[node.name]).lower()
    assert {"progress", "experience"} <= {one.name for one in plots.plots(run)}
    assert "experience" not in {one.name for one in plots.plots(read_run(made(steps=3)))}


def test_a_run_of_an_older_version_has_none_of_it_and_opens(made):
    folder = made(steps=4, older=True)
    run, page = read_run(folder), page_of(folder)
    assert not run.finalists and not run.luck and run.noise() == 0.0 and run.objective == "score"
    assert run.learned is max(run.evaluated, key=lambda one: one.score)
    for shown in (words_of(page), report_page.markdown(run, []), compare.table([run])):
        assert not re.search("noise|inalists|after no episode|--race|chance alone", shown)
    assert f"the best of {len(run.evaluated)}." in words_of(page)


def test_a_run_at_work_calls_nothing_noise_yet_and_says_when_it_will(made):
    folder = made(copy=True, steps=4, planned=9)
    for name in ("score.json", "results-test-static.json", "results-learning-static.json"):
        (folder / name).unlink()
    rows = [json.loads(row) for row in (folder / "archive.jsonl").read_text().splitlines()]
    (folder / "archive.jsonl").write_text("".join(json.dumps({**row, "fresh": None, "final": None}) + "\n" for row in rows))
    history(folder, {"event": "started"})
    run, page = read_run(folder), page_of(folder)
    assert run.learned is max((one for one in run.evaluated if not one.raced), key=lambda one: one.score)
    assert "What chance alone does is measured at the end of the run" in section(page, "designs")
    assert "(noise)" not in page and not run.finalists and run.f0 == pytest.approx(run.learned.score - run.learned.difference)


# ------------------------------------------------------------------------- runs that are not whole


def history(folder, *events):
    lines = [{"time": f"2026-01-01T1{hour}:00:00Z", **event} for hour, event in enumerate(events)]
    (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_a_half_finished_run_says_how_far_it_is_and_whether_it_is_at_work(made):
    folder = made(copy=True, steps=2, planned=6)
    history(folder, {"event": "started"})
    page = page_of(folder)
    assert "interrupted" in page and "2 of 6 learning steps" in page and "--resume" in page
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).state.kind == "running"
        assert "at work when this page was written" in page_of(folder)


def test_a_resumed_run_says_so(made):
    folder = made(copy=True, steps=2)
    history(folder, {"event": "started"}, {"event": "resumed"}, {"event": "resumed"}, {"event": "finished"})
    page = page_of(folder)
    assert "resumed 2 times" in page and 'class="badge finished"' in page


def test_a_failed_run_says_why_it_stopped(made):
    folder = made(copy=True, steps=2, planned=6)
    history(folder, {"event": "started"}, {"event": "stopped", "why": f"the endpoint is down {HOSTILE[:40]}"})
    page = page_of(folder)
    assert "The run stopped: the endpoint is down" in page and 'class="badge stopped"' in page
    assert "<script>alert" not in page


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text('{"env": "textworld", "steps": 6}')
    page = page_of(tmp_path)
    assert "No design has been evaluated yet" in page and "ALMA on TextWorld" in page
    assert "No design has been evaluated yet" in (write_report(tmp_path)[1]).read_text()
    runs = [read_run(tmp_path)] * 2
    assert compare.table(runs) and compare.plot(runs) is None
    with pytest.raises(UserError):
        write_report(tmp_path / "nowhere")


DAMAGE = {
    "cut in half": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "no text": lambda text: bytes(range(256)) * 40,
    "null": lambda text: b"null\n" * 3,
    "other types": lambda text: re.sub(rb"[\d.]+", b'{"a": [1e999, NaN, null]}', text),
    "deep": lambda text: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_and_the_rest_is_shown(made, damage):
    whole = made(steps=3)
    nodes = read_run(whole).nodes
    names = ("archive.jsonl", "history.jsonl", "log.txt", "store.sqlite", "results-test-static.json", "score.json", "config.json")
    for name in names:
        folder = shutil.copytree(whole, whole.parent / f"{damage}-{name}".replace(" ", "-"))
        (folder / name).write_bytes(DAMAGE[damage]((folder / name).read_bytes()))
        run = read_run(folder)
        assert name == "archive.jsonl" or len(run.nodes) == len(nodes)
        assert run.notes or name in ("log.txt", "history.jsonl") or damage in ("empty", "null", "other types")
    for name in ("design.py", "plan.json", "score.json", "trajectories.jsonl.gz", "log.txt.gz"):
        path = folder / "designs" / nodes[0].id / name
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    shutil.rmtree(folder / "designs" / nodes[-1].id, ignore_errors=True)
    assert len(pieces_of(page_of(folder))) == len(nodes)


def test_an_archive_cannot_lead_out_of_its_folder(made):
    folder = made(copy=True, steps=2)
    row = json.loads((folder / "archive.jsonl").read_text().splitlines()[0])
    rows = [row, {**row, "candidate": "9.1", "id": "../../../../etc"}, {**row, "candidate": "../../x", "state": "dropped"}]
    (folder / "archive.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    run = read_run(folder)
    assert [node.name for node in run.nodes] == [row["candidate"]] and len(run.notes) == 2


# ------------------------------------------------------------------------------- hostile contents


def test_hostile_texts_add_no_element_and_no_hidden_character(made):
    tame, hostile = (page_of(made(steps=4, hostile=hostile)) for hostile in (False, True))
    assert Tags(hostile).names() <= Tags(tame).names()
    assert [tag for tag, _ in Tags(hostile).elements].count("script") == len(pieces_of(tame)) + 1
    for piece in pieces_of(hostile).values():
        tags = Tags(piece)
        assert not tags.names() & {"script", "img", "svg", "style", "iframe", "form", "input"}
        assert not any(name.startswith("on") for _, attributes in tags.elements for name in attributes)
        assert all(one["href"].startswith("#design-") for tag, one in tags.elements if tag == "a")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", hostile)
    assert "<script>alert(1)</script>" in "".join(Tags(pieces_of(hostile)["1.1"]).words) and "{{ 7*7 }}" in hostile
    assert "unsafe sandbox" in " ".join(Tags(hostile).words)


def test_hostile_texts_add_no_markdown(made):
    text = report.escape_markdown(f"{HOSTILE}\n# heading\n| cell | `code` @someone")
    assert "\n" not in text and "<" not in text and "@" not in text
    assert not re.search(r"(?<!\\)[\[\]|`*_]", text)
    lines = report_page.markdown(read_run(made(steps=4, hostile=True)), []).splitlines()
    assert all(line.startswith("    ") for line in lines if "<script" in line)  # a block of code


def test_a_megabyte_of_text_changes_nothing_but_its_own_cell(made):
    folder = made(copy=True, steps=2)
    before = pieces_of(page_of(folder))
    node, other = read_run(folder).nodes[0], read_run(folder).nodes[-1]
    million = "<b>&\"'" * 200_000
    where = folder / "designs" / node.id
    (where / "design.py").write_text(f'"""{million}"""\nx = "{million}"\n')
    (where / "plan.json").write_text(json.dumps({"worked": [million], "changes": [{"what": million, "why": [million]}]}))
    write_atomic(where / "log.txt.gz", million)
    packed, rows = where / EPISODES, read_episodes(where)
    rows[0] |= {"retrieved": {million: million}, "error": million, "task": million, "family": million}
    packed.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    page = page_of(folder)
    after = pieces_of(page)
    assert len(page) < 2_000_000 and len(after[node.name]) <= report_page.DESIGN_BYTES
    assert after[other.name] == before[other.name] or other.parent == node.name
    assert Tags(after[node.name]).names() <= Tags(before[node.name]).names()


@pytest.mark.parametrize("text", [HOSTILE.encode("utf-8", "replace").decode(), "a\tb\n", "\r\n\x85\u2028x", "é" + "\u0301" * 99])
def test_safe_text_keeps_no_control_or_direction_and_stays_within_its_limit(text):
    for shown in (clean(text), line(text), ascii_line(text)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028]", shown)
        assert clean(shown) == shown
    assert len(line(text * 100, 30)) <= 30 and "\n" not in line(text)
    assert len(ascii_line(text * 9, 20)) <= 24 and ascii_line(text).isascii()
    assert block("x" * 50, 10) == "x" * 10 + "\n[… cut: 50 characters in all]"
    assert "\x1b" not in clean("\x1b[31m") and "⟨U+202E⟩" in clean("\u202e")


# --------------------------------------------------------------------------------- code and figures


def test_highlighted_code_is_the_code(made):
    run = read_run(made(steps=3, hostile=True))
    for code in (run.design(run.nodes[0]).code, "", "\n\n", "def f(:\n  '''<b>\n", "x = '" + "\\" * 3000, "((((" * 3000):
        lines = lines_of(code)
        shown = [re.sub("<i class=[a-z]>|</i>", "", str(one)) for one in highlight(lines)]
        assert shown == [str(escape(one)) for one in lines] or (lines, shown) == ((), [""])


def test_a_difference_holds_exactly_the_lines_that_changed():
    old, new = "a\nb\nc\n" + "x\n" * 20 + "d\n", "a\nB\nc\n" + "x\n" * 20 + "d\ne\n"
    rows = difference(old, new)
    assert [(row.kind, str(row.html), row.old, row.new) for row in rows if row.kind in ("old", "new")] == [
        ("old", "b", 2, None), ("new", "B", None, 2), ("new", "e", None, 25),
    ]
    assert difference(old, old) == []


def random_nodes(seed):
    rng, nodes = random.Random(seed), []
    for step in range(1, rng.randint(2, 14)):
        for place in range(1, rng.randint(2, 6)):
            old = [one for one in nodes if one.step < step and one.state == "evaluated"]
            count = rng.choice((1, 1, 2)) if rng.random() < 0.95 else 0
            parents = tuple(one.name for one in rng.sample(old, min(count, len(old))))
            state = rng.choice(("evaluated", "evaluated", "evaluated", "dropped"))
            score = rng.random() if state == "evaluated" else None
            nodes.append(Node(f"{step}.{place}", f"{step}{place:05}", parents, step, state, score, 0.02, 0.0, 9.0,
                              rng.randint(0, 30), 1, 0.0, ""))
    return nodes


@pytest.mark.parametrize("seed", range(12))
def test_in_the_tree_nodes_do_not_touch_and_children_stand_right_of_their_parents(made, seed):
    run = dataclasses.replace(read_run(made(steps=2)), nodes=tuple(random_nodes(seed)))
    picture = tree(run)
    spots = {spot.node.name: spot for spot in picture.spots}
    assert len(spots) == len(run.nodes) and len(picture.edges) == sum(len(node.parents) for node in run.nodes)
    for spot in spots.values():
        assert 0 < spot.x < picture.width and 0 < spot.y < picture.height
        assert all(spots[parent].x < spot.x for parent in spot.node.parents)
    for one in spots.values():
        for other in spots.values():
            if one is not other and one.x == other.x:
                assert abs(one.y - other.y) > min(one.radius + other.radius, 29)


def test_labels_beside_lines_keep_their_order_and_their_distance():
    values = [5.0, 5.1, 4.9, 20.0, 5.05]
    spots = plots.spread(values, 1.0)
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert all(spots[b] - spots[a] > 0.999 for a, b in itertools.pairwise(order))
    assert spots[3] == 20.0 and abs(sum(spots) - sum(values)) < 1e-9


def test_names_in_figures_are_no_formulas_and_need_no_font(made, recwarn):
    folder = made(copy=True, steps=2)
    path = folder / "results-learning-static.json"
    value = json.loads(path.read_text())
    value["scores"]["$\\frac{</svg><script>$ 記憶"] = value["scores"]["g_memory"]
    path.write_text(json.dumps(value))
    for plot in plots.plots(read_run(folder)):
        assert "<script" not in plot.themed and plot.svg.startswith("<?xml")
    assert not [one for one in recwarn if "lyph" in str(one.message)]
