"""The protocol: halves, intervals, static and dynamic mode, whose fault a failure is. Real everything."""

import asyncio
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import envs
from agent import Episode, play
from errors import InfrastructureError, UserError
from evaluate import ALL, Evaluator, halve
from harness import commands
from harness.commands import baseline
from harness.config import Config
from harness.estimate import compared, episodes_of
from harness.run import Run
from harness.run_folder import RunFolder
from tests.toy import BEHIND, Doors

TOY = "tests.toy:Doors"


def settings(**changes) -> dict:
    roles = dict.fromkeys(("agent_model", "meta_model", "memory_model", "embedding_model"), "offline")
    defaults = {"steps": 2, "passes": 3, "collection_passes": 1, "folds": 1}
    return asdict(Config(env=TOY, workers=2, **{**defaults, **roles, **changes}))


def scores_of(tmp_path, designs: dict[str, str], mode: str = "static", **changes) -> dict:
    """Scores of designs (name: code) on the toy domain's learning set, in a real run."""

    async def go():
        async with Run(RunFolder.create(tmp_path, "toy", "offline", settings(**changes)), plain=True) as run:
            scores = [await run.score("learning", name, code, mode) for name, code in designs.items()]
            return dict(zip(designs, scores, strict=True)), await (await run.evaluator("learning", mode)).f0()

    return asyncio.run(go())


KNOWS = """
from memory_base import MemoryDesign
class Knows(MemoryDesign):
    def __init__(self):
        self.facts = {}
    async def general_update(self, trajectory):
        if trajectory.reward > 0.5:
            self.facts[trajectory.init["goal"]] = trajectory.steps[-1]["action_took"]
    async def general_retrieve(self, trajectory):
        action = self.facts.get(trajectory.init["goal"])
        return {trajectory.init["goal"]: action} if action else {}
"""


def test_halves_are_disjoint_whole_and_spread_over_families():
    tasks = [task for task in Doors.tasks() if task.split == "learning"]
    collection, deployment = halve(tasks, 42)
    assert {task.id for task in collection} | {task.id for task in deployment} == {task.id for task in tasks}
    assert not {task.id for task in collection} & {task.id for task in deployment}
    assert {task.family for task in collection} == {task.family for task in deployment} == set(BEHIND)
    assert halve(tasks, 42) == (collection, deployment)
    assert halve(tasks, 43) != (collection, deployment)


def test_with_two_folds_each_half_is_deployed_with_what_was_collected_from_the_other(tmp_path):
    code = COUNTS.replace('trajectory.init["goal"]', 'trajectory.init["actions_list"]')  # differs from task to task
    score = scores_of(tmp_path, {"counts": code}, folds=2)[0]["counts"]
    deployed: dict[str, set[str]] = {}
    for one in score.outcomes:
        deployed.setdefault(json.dumps(one.retrieved["updates"]), set()).add(one.task)
    tasks = [task for task in Doors.tasks() if task.split == "learning"]
    assert list(deployed.values()) == [{task.id for task in half} for half in reversed(halve(tasks, 42))]
    alone = scores_of(tmp_path, {"counts": code}, folds=1)[0]["counts"]
    assert {json.dumps(one.retrieved["updates"]) for one in alone.outcomes} == set(list(deployed)[:1])
    assert len(score.outcomes) == 3 * len(tasks) == 2 * len(alone.outcomes)


def test_no_memory_through_the_door_is_f0_to_the_last_bit(tmp_path):
    scores, f0 = scores_of(tmp_path, {"no_memory": baseline("no_memory")})
    assert scores["no_memory"].mean == pytest.approx(f0, abs=1e-12)
    assert scores["no_memory"].difference == 0.0 and scores["no_memory"].retrieved_tokens == 0


def test_a_memory_that_knows_wins_more_and_the_interval_says_so(tmp_path):
    scores, _ = scores_of(tmp_path, {"knows": KNOWS})
    score = scores["knows"]
    assert score.difference > 0 and score.interval[0] > 0
    assert score.mean == pytest.approx(np.mean([one.score for one in score.outcomes]))
    assert score.stderr == pytest.approx(np.std(score.passes, ddof=1) / np.sqrt(3))


COUNTS = """
from memory_base import MemoryDesign
class Counts(MemoryDesign):
    def __init__(self):
        self.updates, self.retrievals = [], 0
    async def general_update(self, trajectory):
        self.updates.append(trajectory.init["goal"])
    async def general_retrieve(self, trajectory):
        self.retrievals += 1
        return {"updates": list(self.updates), "retrievals": self.retrievals}
"""


def test_static_mode_meets_the_same_memory_at_every_task(tmp_path):
    score = scores_of(tmp_path, {"counts": COUNTS})[0]["counts"]
    seen = {json.dumps(one.retrieved) for one in score.outcomes}
    assert len(seen) == 1
    assert score.outcomes[0].retrieved["retrievals"] == 1 and len(score.outcomes[0].retrieved["updates"]) == 12


def test_dynamic_mode_learns_from_each_task_in_order_with_a_memory_for_each_pass(tmp_path):
    score = scores_of(tmp_path, {"counts": COUNTS}, mode="dynamic")[0]["counts"]
    for number in range(3):
        outcomes = [one for one in score.outcomes if one.number == number]
        assert [one.retrieved["retrievals"] for one in outcomes] == list(range(1, 13))
        assert [len(one.retrieved["updates"]) for one in outcomes] == list(range(12, 24))
        goals = [one.trajectory.init["goal"] for one in outcomes]
        assert outcomes[-1].retrieved["updates"][12:] == goals[:-1]


def test_a_design_of_an_archive_is_found_by_its_id_and_by_its_name(tmp_path):
    (tmp_path / "designs" / "0123456789ab").mkdir(parents=True)
    (tmp_path / "designs" / "0123456789ab" / "design.py").write_text(COUNTS)
    (tmp_path / "archive.jsonl").write_text('{"candidate": "7.1", "id": "0123456789ab"}\n')
    for name in ("0123456789ab", "7.1"):
        assert commands.find_design(f"{tmp_path}/{name}", "tests.toy:Doors") == COUNTS
    with pytest.raises(UserError, match="no RUN/ID"):
        commands.find_design(f"{tmp_path}/7.2", "tests.toy:Doors")


DIES = "self.updates.append(1)\n        if len(self.updates) > {}: __import__('os')._exit(3)"


@pytest.mark.parametrize(("dies", "survived"), [(DIES.format(15), 4), (DIES.format(5), 0), (None, 0)])
def test_in_dynamic_mode_a_design_that_dies_while_it_learns_fails_the_tasks_after_that(tmp_path, dies, survived):
    source = COUNTS.replace('self.updates.append(trajectory.init["goal"])', dies) if dies else "1 / 0"  # as it is loaded
    score = scores_of(tmp_path, {"dies": source}, mode="dynamic")[0]["dies"]
    for number in range(3):
        errors = [one.error for one in score.outcomes if one.number == number]
        assert len(errors) == 12 and not any(errors[:survived]) and all(errors[survived:])


# What lies behind which door is written into the code: the new task is read, and nothing is remembered.
SOLVES = f"""
from memory_base import MemoryDesign
BEHIND = {BEHIND}
class Solves(MemoryDesign):
    def __init__(self):
        self.learned = 0
    async def general_update(self, trajectory):
        self.learned += 1
    async def general_retrieve(self, trajectory):
        goal = trajectory.init["goal"]
        return {{goal: f"open {{BEHIND[goal[9:-1]]}} door"}}
"""
WAITS = SOLVES.replace("        goal =", "        if not self.learned:\n            return {}\n        goal =")
FAILS_EMPTY = KNOWS.replace("        action = self", "        assert self.facts\n        action = self")


@pytest.fixture(scope="module")
def experiences(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """The folder of a run, and what five designs have from experience, by two folds."""
    designs = {"solves": SOLVES, "waits": WAITS, "knows": KNOWS, "fails empty": FAILS_EMPTY, "fails": KNOWS.replace("self.facts.get", "fail")}
    given = settings(passes=1, folds=2, collection_passes=3)

    async def go():
        async with Run(RunFolder.create(tmp_path_factory.mktemp("runs"), "toy", "offline", given), plain=True) as run:
            return run.folder.path, {name: await run.experience("learning", name, code) for name, code in designs.items()}

    return asyncio.run(go())


def test_a_solver_has_nothing_from_experience_and_all_from_its_code(experiences):
    for name in ("solves", "waits"):
        found = experiences[1][name]
        assert found["gives"] == (0.0, 0.0, 0.0) and found["one"] == found["all"] == 1.0
        assert found["brought"][1] > 0
    assert experiences[1]["solves"]["wakes"] == (0.0, 0.0, 0.0)


def test_a_solver_behind_a_check_for_an_empty_memory_wakes_after_one_episode(experiences):
    found = experiences[1]["waits"]
    assert found["none"] == pytest.approx(found["all"] - found["brought"][0])  # as no memory
    assert found["wakes"] == pytest.approx(found["brought"])


def test_a_memory_has_much_from_experience_and_nothing_from_its_code(experiences):
    found = experiences[1]["knows"]
    assert found["gives"][1] > 0
    assert found["all"] - found["one"] == pytest.approx(found["gives"][0])
    low, high = found["brought"][1:]
    assert low <= 0.15 and found["brought"][0] < found["gives"][0] / 2 and high < 0.5


def test_as_many_episodes_are_counted_as_were_planned(tmp_path):
    config = Config(**settings(passes=2, test_passes=2, experience="all"))
    designs = {"no_memory": baseline("no_memory"), "knows": KNOWS}
    planned = {"test": compared(config, "test", 1, explained=1), "shift": compared(config, "shift", 1)}

    async def go():
        async with Run(RunFolder.create(tmp_path, "toy", "offline", asdict(config)), plain=True) as run:
            await commands._compare(run, designs, "test", "static")
            await commands._compare(run, designs, "shift", "dynamic")
            return run.display._done

    assert asyncio.run(go()) == episodes_of(config, planned)


def test_a_design_that_fails_scores_nothing_with_or_without_experience(experiences):
    failed = experiences[1]["fails"]
    assert failed["none"] == failed["one"] == failed["all"] == 0.0
    assert failed["gives"][0] == 0.0 and failed["brought"][2] < 0
    empty = experiences[1]["fails empty"]
    assert empty["none"] == 0.0 < empty["all"] == experiences[1]["knows"]["all"]


def test_the_single_episodes_are_three_different_ones_and_the_same_when_a_run_is_resumed(experiences, tmp_path, monkeypatch):
    copy = shutil.copytree(experiences[0], tmp_path / "run")  # the first process has claimed its folder
    learned, evaluate = [], Evaluator.evaluate

    async def noted(self, *arguments, **options):
        learned.append([index for fold in self.folds for index in range(len(fold.collected))[options.get("learned", ALL)]])
        return await evaluate(self, *arguments, **options)

    async def again():
        async with Run(RunFolder.open(copy), plain=True) as run:
            return await run.experience("learning", "knows", KNOWS), run.display._fresh

    monkeypatch.setattr(Evaluator, "evaluate", noted)
    assert asyncio.run(again()) == (experiences[1]["knows"], 0)  # no episode is played again
    every, none, *singles = learned
    assert len(every) == 2 * 3 * 12 and none == []
    assert len(singles) == len({one[0] for one in singles}) == 3 and all(one == [one[0]] * 2 for one in singles)


def test_what_chance_alone_does_is_told_from_twice_the_passes_without_memory(tmp_path):
    async def go():
        async with Run(RunFolder.create(tmp_path, "toy", "offline", settings(passes=2, folds=2)), plain=True) as run:
            learning = await run.evaluator("learning")
            rewards = [[one.trajectory.reward for one in await fold.without_memory(range(4))] for fold in learning.folds]
            return await run.luck("learning"), rewards

    found, rewards = asyncio.run(go())
    halves = [np.mean([one[: len(one) // 2] for one in rewards]), np.mean([one[len(one) // 2 :] for one in rewards])]
    assert found["difference"] == pytest.approx(halves[1] - halves[0])
    assert 0 < found["noise"] == (found["interval"][1] - found["interval"][0]) / 2


def test_a_designs_fault_is_its_own_and_is_told(tmp_path):
    code = COUNTS.replace('return {"updates"', 'raise ValueError("no idea")\n        return {"updates"')
    score = scores_of(tmp_path, {"raises": code})[0]["raises"]
    assert score.mean == 0.0 and all(one.trajectory is None for one in score.outcomes)
    assert "no idea" in score.errors[0] and score.errors[0].startswith("36 ×")


def test_an_update_that_raises_costs_one_trajectory_and_not_the_memory(tmp_path):
    code = COUNTS.replace("self.updates.append", "assert len(self.updates) != 3 or self.retrievals\n        self.updates.append")
    score = scores_of(tmp_path, {"raises": code})[0]["raises"]
    assert len(score.outcomes[0].retrieved["updates"]) == 3
    assert any("update: error" in error for error in score.errors)
    assert not any(one.error for one in score.outcomes)


def test_a_dead_endpoint_is_no_score(tmp_path):
    dead = "x@http://127.0.0.1:9/v1"
    with pytest.raises(InfrastructureError):
        scores_of(tmp_path, {"no_memory": baseline("no_memory")}, agent_model=dead, outage_seconds=0.1)


@pytest.mark.parametrize("domain", [TOY, "babaisai", "minihack", "textworld"])
def test_a_stored_trajectory_replays_in_a_fresh_environment(domain, tmp_path, monkeypatch):
    task = next(task for task in envs.domain_class(domain).tasks() if task.split == "test")
    played = play(Episode(domain, task.id, 5, "offline", show_admissible=True))
    env = envs.domain_class(domain)()
    _, info = env.reset(seed=5, options={"task": task.id})
    assert info["record"] == played.trajectory.init
    for step in played.trajectory.steps:
        _, _, _, _, info = env.step(step["action_took"])
        assert info["record"] == {key: step[key] for key in info["record"]}
        assert info["score"] == step["scores"]
    assert info["score"] == played.trajectory.reward
