"""What a search climbs and how it chooses: finalists, races, the objective. Real runs on a small domain; the meta agent's
designs are given."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from alma import Archive, learn, weights
from harness.config import from_json
from harness.estimate import episodes_of, searched
from harness.run import Run
from harness.run_folder import RunFolder
from prompts.evidence import Evidence, read_episodes
from tests.endpoint import ModelServer
from tests.runs import rows
from tests.test_evaluate import KNOWS, SOLVES, settings

NOTHING = KNOWS.replace("if trajectory.reward > 0.5:", "if False:")
FEW = KNOWS.replace("> 0.5:", "> 0.5 and len(self.facts) < 3:")
MISLEADS = SOLVES.replace("BEHIND[goal[9:-1]]", "BEHIND['pearl' if goal[9:-1] != 'pearl' else 'ruby']")


class Writer:
    """A meta agent that writes one design, when `ready` is set."""

    transcript = ()

    def __init__(self, code: str, ready: asyncio.Event):
        self.code, self.ready = code, ready

    async def first(self) -> str:
        await self.ready.wait()
        return self.code

    async def ideate_and_plan(self, evidence: Evidence) -> dict:
        return {"changes": []}

    async def implement(self, evidence: Evidence, plan: dict) -> str:
        return await self.first()


def search(folder: RunFolder, codes: dict[str, str], late: tuple[str, str] = ("", ""), look=None) -> tuple[Archive, dict]:
    """The archive of a search in which candidates have these codes, and what `look(run, archive)` finds at its end.

    `late`: a candidate that is written when another one has been evaluated.
    """

    class Given(Run):
        async def meta_agent(self, learning, archive, candidate):
            if candidate != late[0]:
                ready[candidate].set()
            return Writer(codes[candidate], ready[candidate])

        async def evaluate(self, candidate, *arguments):
            found = await super().evaluate(candidate, *arguments)
            if candidate == late[1]:
                ready[late[0]].set()
            return found

    async def go():
        async with Given(folder, plain=True) as run:
            archive = await learn(run)
            return archive, await look(run, archive) if look else {}

    ready = {candidate: asyncio.Event() for candidate in codes}
    return asyncio.run(go())


# ------------------------------------------------------------------------------------------- races

RACE = {"steps": 3, "passes": 2, "final_passes": 2, "folds": 1, "race": True}
RACERS = {"1.1": SOLVES, "2.1": MISLEADS, "3.1": NOTHING, "3.2": NOTHING}  # 3.1 and 3.2 have other parents


async def measured_anew(run: Run, archive: Archive) -> dict:
    """The leads of the learned design on fresh seeds and over all passes, and the episodes of both kinds of passes."""
    best = archive.best()
    code = (run.folder.design(best.id) / "design.py").read_text()
    fresh, final = [await run.score("learning", "again", code, passes=passes) for passes in (range(2, 4), range(4))]
    (fold,) = (await run.evaluator("learning")).folds
    keys = [{fold.episode(*place).key() for place in fold.places(passes)} for passes in (range(2), range(2, 4))]
    return {"fresh": fresh.difference, "final": final.difference, "keys": keys, "f0": archive.f0}


@pytest.fixture(scope="module")
def raced(tmp_path_factory) -> tuple[Archive, RunFolder, dict]:
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "toy", "offline", settings(**RACE))
    archive, anew = search(folder, RACERS, late=("3.1", "3.2"), look=measured_anew)
    return archive, folder, anew


def test_a_race_stops_a_child_that_is_worse_than_its_parent_and_says_so(raced):
    archive, folder, _ = raced
    best, bad = archive.designs[:2]
    assert (best.raced, best.score) == (0, 1.0)
    assert 0 < bad.raced < 24 and bad.state == "evaluated"
    rows = read_episodes(folder.design(bad.id))
    assert len(rows) == bad.raced and bad.score == pytest.approx(sum(one["score"] for one in rows) / len(rows))
    assert len({one["task"] for one in rows}) >= 8
    assert bad.lead(archive.f0) == bad.difference < 0  # to no memory in the same episodes
    assert folder.archive()[1]["raced"] == json.loads((folder.design(bad.id) / "score.json").read_text())["raced"] == bad.raced


def test_a_raced_design_stays_a_parent_but_is_no_finalist(raced):
    archive, folder, _ = raced
    best, bad, *children = archive.designs
    assert {child.parents for child in children} == {(best.id,), (bad.id,)}
    assert [one.candidate for one in archive.finalists(5)] == [one.candidate for one in archive.designs if one.final is not None]
    assert archive.best() == best and bad not in archive.finalists(5)
    child = next(child for child in children if child.state == "evaluated")
    change = Evidence.read(folder, archive, child).change()  # on the episodes that both have played
    assert change["low"] <= change["difference"] <= change["high"]


def test_of_two_with_the_same_code_the_first_is_raced_whichever_is_ready_first(raced, tmp_path):
    archive, folder, _ = raced
    other = RunFolder.create(tmp_path, "toy", "offline", settings(**RACE))
    assert search(other, RACERS, late=("3.2", "3.1"))[0].lines() == archive.lines()
    assert [one.state for one in archive.designs[2:]] == ["evaluated", "duplicate"]
    kept = [json.loads((one.design(archive.designs[2].id) / "score.json").read_text()) for one in (folder, other)]
    assert kept[0] | {"update_seconds": 0} == kept[1] | {"update_seconds": 0} and kept[0]["candidate"] == "3.1"


def test_a_search_that_was_killed_in_the_middle_of_a_race_and_before_the_finalists_ends_the_same(raced, tmp_path):
    archive, folder, _ = raced
    copy = Path(shutil.copytree(folder.path, tmp_path / "copy"))
    (copy / "designs" / archive.designs[1].id / "score.json").unlink()
    (copy / "archive.jsonl").unlink()
    assert search(RunFolder.open(copy), RACERS)[0].lines() == archive.lines()


def test_finalists_are_measured_on_other_episodes_than_the_search_and_chosen_over_all(raced):
    archive, _, anew = raced
    search_keys, fresh_keys = anew["keys"]
    assert search_keys and fresh_keys and not search_keys & fresh_keys
    best = archive.best()
    assert best.fresh == anew["fresh"] != best.lead(anew["f0"])
    assert best.final == pytest.approx(anew["final"])


# --------------------------------------------------------------------------------------- objective


@pytest.mark.parametrize(("objective", "winner"), [("score", "1.1"), ("experience", "2.1")])
def test_a_solver_wins_by_score_and_not_by_what_experience_gives(tmp_path, objective, winner):
    given = settings(steps=2, passes=1, final_passes=1, finalists=2, folds=1, objective=objective)
    archive, _ = search(RunFolder.create(tmp_path, "toy", "offline", given), {"1.1": SOLVES, "2.1": FEW})
    assert archive.best().candidate == winner
    solver, memory = weights(archive.designs, archive.f0, 1.0, 0.0, 0.5)  # visits aside
    if objective == "experience":
        assert memory > solver and archive.designs[0].experience == archive.designs[0].final == 0.0
        assert archive.finalists(1) == [archive.best()] and archive.best().experience > 0
    else:
        assert solver > memory and archive.designs[0].experience is None


# Says something else in each version and after each episode: no two deployments share an episode.
OWN = """
import zlib
from memory_base import MemoryDesign
class Own(MemoryDesign):
    def __init__(self):
        self.seen = 0
    async def general_update(self, trajectory):
        self.seen = zlib.crc32(f"{self.seen} {trajectory.init} {trajectory.steps}".encode())
    async def general_retrieve(self, trajectory):
        return {"version": "VERSION", "seen": self.seen}
"""


@pytest.mark.parametrize("changes", [{"passes": 2, "final_passes": 3}, {"objective": "experience"}, {"folds": 2, "finalists": 0}])
def test_from_scratch_no_candidate_has_parents_and_a_search_plays_as_many_episodes_as_estimated(tmp_path, changes):
    names = ("1.1", "2.1", "3.1", "3.2", "4.1", "4.2", "4.3", "4.4")
    given = {"steps": 4, "sampling": "scratch", "tasks": 6, "finalists": 2}
    given = settings(**{"passes": 1, "final_passes": 1, "folds": 1, **given, **changes})
    folder = RunFolder.create(tmp_path, "toy", "offline", given)
    archive, _ = search(folder, {name: OWN.replace("VERSION", name) for name in names}, look=lambda run, _: run.luck("learning"))
    assert [one.candidate for one in archive.designs] == list(names)  # as many as the paper's rule would draw
    assert all(one.parents == () for one in archive.designs)
    assert sum(one.final is not None for one in archive.designs) == given["finalists"]
    config = from_json(given)
    estimated = episodes_of(config, {"learning": searched(config)})
    assert rows(tmp_path, "select count(*) from episodes") == [(estimated,)]


def test_a_finished_run_of_an_older_version_keeps_its_learned_design_and_plays_nothing_more(tmp_path):
    codes = {name: OWN.replace("VERSION", name) for name in ("1.1", "2.1", "3.1", "3.2")}
    given = settings(steps=3, passes=1, finalists=0, tasks=6)
    folder = RunFolder.create(tmp_path, "toy", "offline", given)
    archive, _ = search(folder, codes)
    old = shutil.copytree(folder.path, tmp_path / "old")
    newer = ("finalists", "final_passes", "experience", "objective", "race", "raced", "fresh", "final", "candidate")
    for path in (old / "config.json", *old.glob("designs/*/score.json")):
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in newer}))

    async def look(run: Run, _) -> tuple[int, str]:
        return run.display._fresh, run.config.experience

    again, (fresh, experience) = search(RunFolder.open(old), codes, look=look)
    assert again.lines() == archive.lines() and again.best() == archive.best()
    assert (fresh, experience) == (0, "none")


def test_what_a_candidate_has_cost_does_not_grow_when_its_run_is_resumed_after_the_finalists(tmp_path):
    asks = OWN.replace("import MemoryDesign", "import Agent, MemoryDesign").replace(
        'return {"version"', 'await Agent("VERSION").ask(str(trajectory.init))\n        return {"version"'
    )
    codes = {name: asks.replace("VERSION", name) for name in ("1.1", "2.1")}
    with ModelServer() as server:
        priced = {"memory_model": f"memory@{server.url}", "price": ("memory=3,1,2",)}
        folder = RunFolder.create(tmp_path, "toy", "offline", settings(passes=1, final_passes=1, tasks=6, **priced))
        archive, _ = search(folder, codes)
        copy = RunFolder.open(shutil.copytree(folder.path, tmp_path / "copy"))
        asked = server.requests
        again, _ = search(copy, codes)
        assert server.requests == asked
    assert again.lines() == archive.lines() and all(one.cost > 0 and one.final is not None for one in archive.designs)
