"""ALFWorld: official games where the recorded data is there, generated houses everywhere."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

from domains import alfworld as envs_alfworld
from domains import alfworld_engine as alfred_engine
from domains import alfworld_houses as houses
from domains.alfworld import ALFWorld
from errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("kitchen", "living", "bedroom", "bathroom")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def generated(monkeypatch, tmp_path, cache) -> None:
    """No official data; one cache for all tests of this file."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("ALMA_CACHE", str(cache))


@pytest.fixture
def official(monkeypatch, shared, cache) -> Path:
    """The folder of the recorded official games."""
    if not (shared / "alfworld").is_dir():
        pytest.skip("needs the recorded official games")
    monkeypatch.setenv("ALFWORLD_DATA", str(shared / "alfworld"))
    monkeypatch.setenv("ALMA_CACHE", str(cache))
    return shared / "alfworld" / envs_alfworld.LAYOUT


@pytest.fixture
def env():
    made = ALFWorld()
    yield made
    made.close()


def untouched_engine(game: dict | str):
    """The package's engine under the package's names, with a game loaded."""
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl.pddl import PddlEnv

    raw = AlfredDemangler(PddlEnv())
    raw.load(game)
    return raw


def play_side_by_side(env: ALFWorld, raw, commands: list[str], steps: int) -> None:
    """Play `commands`, then random ones, and compare everything that a player meets."""
    rng = random.Random(0)
    theirs = raw.reset()
    ours, info = env.reset(options={"task": env.task_id})
    assert ours == theirs.feedback.removeprefix(envs_alfworld.BANNER).strip()
    for step in range(steps):
        assert info["actions"] == theirs["admissible_commands"]
        actions = [
            action for action in info["actions"] if rng.random() < 0.3 or not action.startswith("go to")
        ]
        command = commands[step] if step < len(commands) else rng.choice(actions)
        theirs, score, done = raw.step(command)
        ours, reward, terminated, _, info = env.step(command)
        assert (ours, reward, terminated) == (theirs.feedback.strip(), score, done)


@pytest.mark.parametrize("family", ["look_at_obj_in_light", "pick_clean_then_place_in_recep"])
def test_official_games_play_as_in_the_untouched_engine(official, family):
    tasks = [task for task in ALFWorld.tasks() if task.family == family]
    task = min(tasks, key=lambda task: (official / task.id / "game.tw-pddl").stat().st_size)
    env = ALFWorld(task=task.id)
    play_side_by_side(env, untouched_engine(str(official / task.id / "game.tw-pddl")), [], 20)
    env.close()


@pytest.mark.parametrize("number", [1, 5])
def test_houses_play_as_in_the_untouched_engine_until_they_are_won(generated, number):
    house = houses.house("test", number)
    env = ALFWorld(task=house.id)
    env.reset()
    play_side_by_side(env, untouched_engine(dict(env.engine.data)), list(house.plan), len(house.plan))
    assert env.step("look")[4]["success"]
    env.close()


@pytest.mark.parametrize("number", range(6))
def test_a_house_of_each_family_is_won_by_its_plan_and_not_before(generated, env, number):
    house = houses.house("learning", number)
    env.reset(options={"task": house.id})
    results = [env.step(command) for command in house.plan]
    assert [result[1] for result in results] == [0.0] * (len(results) - 1) + [1.0]
    assert results[-1][2] and results[-1][4]["score"] == 1.0


def test_a_plan_that_does_not_win_is_refused(generated, env):
    house = houses.house("learning", 0)
    env.reset(options={"task": house.id})
    with pytest.raises(RuntimeError, match="cannot be won"):
        houses.prove({**env.engine.data, "walkthrough": list(house.plan[:-1])}, env.engine)


def test_generated_splits_have_all_families_and_share_no_task(generated):
    tasks = ALFWorld.tasks()
    assert len({task.id for task in tasks}) == len(tasks) == sum(houses.SIZES.values())
    for split in envs_alfworld.FOLDERS:
        assert {task.family for task in tasks if task.split == split} == set(houses.tables()["families"])
    assert {task.source for task in tasks} == {"generated"}
    assert ALFWorld.notes()[0].endswith("(`make data-alfworld` downloads the official games)")


def test_shift_houses_have_room_layouts_that_no_other_house_has(generated):
    layouts = {split: set() for split in houses.SIZES}
    for split, house in houses.houses():
        layouts[split].add(json.dumps([house.room, houses.layouts(house.room)[house.layout]]))
    assert not layouts["shift"] & (layouts["learning"] | layouts["test"])
    assert layouts["learning"] & layouts["test"]


def test_things_lie_where_the_package_allows_them():
    for room in ROOMS:
        tables = houses.tables()[room]
        for thing, homes in tables["habits"].items():
            assert all(houses.fits(kind, thing) and kind in tables["furniture"] for kind in homes), thing


def test_official_splits_follow_the_folders_and_the_learning_set_has_all_families(official):
    tasks = ALFWorld.tasks()
    learning = [task for task in tasks if task.split == "learning"]
    assert len(learning) == envs_alfworld.LEARNING_TASKS
    assert {task.family for task in learning} == set(houses.tables()["families"])
    for task in tasks:
        assert task.id.startswith(envs_alfworld.FOLDERS[task.split] + "/") and task.source == "official"
    assert {task.id for task in tasks if task.split == "test"} == {
        path.parent.relative_to(official).as_posix() for path in official.glob("valid_seen/*/*/game.tw-pddl")
    }


def test_an_invalid_action_costs_a_step_changes_nothing_and_is_told_what_is_valid(generated, env):
    _, first = env.reset(options={"task": houses.house("test", 1).id})
    text, reward, terminated, truncated, info = env.step("dance on the table")
    assert not info["valid"] and (reward, terminated, truncated) == (0.0, False, False)
    assert text.startswith("Nothing happens.") and "go to (" in text and "inventory (1)" in text
    assert info["actions"] == first["actions"]
    for _ in range(98):
        assert not env.step("look")[3]
    assert env.step("look")[3]


def test_records_have_the_keys_that_designs_see(generated, env):
    text, info = env.reset(options={"task": houses.house("test", 1).id})
    assert info["record"] == {"obs": text, "actions_list": info["actions"], "goal": info["goal"]}
    assert info["goal"].startswith("Your task is to:") and text.endswith(info["goal"])
    assert "Welcome" not in text
    text, *_, info = env.step(info["actions"][0])
    assert info["record"] == {"obs": text, "actions_list": info["actions"]} and info["valid"]


PLAY = """
import hashlib, sys
from domains.alfworld import ALFWorld
env, seen = ALFWorld(), hashlib.sha256()
for task in sys.argv[1:]:
    text, info = env.reset(seed=7, options={"task": task})
    for step in range(15):
        seen.update(repr((text, info)).encode())
        text, *_, info = env.step(info["actions"][step * 7 % len(info["actions"])])
print(seen.hexdigest())
"""


def test_two_fresh_processes_play_ten_tasks_alike(generated, python):
    tasks = [house.id for _, house in houses.houses() if house.room in ("bedroom", "bathroom")][:10]
    runs = [
        subprocess.run(
            [python, "-c", PLAY, *order], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for order in (tasks, tasks)
    ]
    assert runs[0] == runs[1] and len(runs[0]) == 65


def test_an_episode_does_not_depend_on_what_was_played_before(generated, env):
    task, other = houses.house("test", 1).id, houses.house("test", 2)
    first = env.reset(options={"task": task})
    env.reset(options={"task": other.id})
    for command in other.plan[:-1]:
        env.step(command)
    assert env.reset(options={"task": task}) == first


def test_two_environments_at_a_time_do_not_disturb_each_other(generated, env):
    house = houses.house("test", 1)
    second = ALFWorld(task=house.id)
    env.reset(options={"task": house.id})
    env.step(house.plan[0])
    _, start = second.reset()
    for command in house.plan[1:]:
        *_, info = env.step(command)
    assert info["success"]
    assert second.step("dance")[4]["actions"] == start["actions"]
    second.close()


def test_a_broken_cache_file_is_made_again(generated, cache, tmp_path, monkeypatch):
    house = houses.house("test", 1)
    monkeypatch.setenv("ALMA_CACHE", str(tmp_path))
    first = ALFWorld(task=house.id).reset()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".gz"}
    whole = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    alfred_engine.prepare.cache_clear()
    assert ALFWorld(task=house.id).reset() == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == whole


def test_playing_leaves_nothing_behind_in_the_packages_caches(generated, env):
    from mementos.core import _memento_cache

    task = houses.house("test", 1).id
    env.reset(options={"task": task})
    before, arguments = len(_memento_cache), list(sys.argv)
    for _ in range(20):
        _, info = env.reset(options={"task": task})
        for action in info["actions"]:
            env.step(action)
    assert len(_memento_cache) == before and sys.argv == arguments


def data_folder(tmp_path: Path, house: houses.House, **changes) -> Path:
    """A folder in the official layout with one game of `valid_seen`."""
    game = {
        "pddl_domain": houses.package_text("alfred.pddl"),
        "grammar": houses.package_text("alfred.twl2").replace("UNKNOWN GOAL", house.sentence),
        "pddl_problem": house.problem,
        "solvable": True,
    }
    path = tmp_path / envs_alfworld.LAYOUT / "valid_seen" / house.id.split("/")[1] / "trial" / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**game, **changes}))
    return path


@pytest.fixture
def small_house() -> houses.House:
    return next(house for _, house in houses.houses() if house.room == "bathroom")


def test_an_older_file_gets_todays_domain_and_grammar_and_stays_as_it_is(
    generated, monkeypatch, tmp_path, small_house, env
):
    start, end = "(:action help", "(:action look"
    domain = houses.package_text("alfred.pddl").replace(start, "(:action wait")
    assert end in domain
    grammar = houses.package_text("alfred.twl2").replace("UNKNOWN GOAL", small_house.sentence)
    grammar = grammar.replace("move {o} to {r}", "put {o} in/on {r}")
    path = data_folder(tmp_path, small_house, pddl_domain=domain, grammar=grammar)
    before = path.read_bytes()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    text, info = env.reset()
    assert "help" in info["actions"] and text.endswith(f"Your task is to: {small_house.sentence}.")
    for command in small_house.plan:
        *_, info = env.step(command)
    assert info["success"] and path.read_bytes() == before


def test_a_domain_that_the_engine_rejects_is_replaced(generated, monkeypatch, tmp_path, small_house, env):
    broken = houses.package_text("alfred.pddl").replace("(holds ?a ?o)", "(unheardOf ?a ?o)")
    data_folder(tmp_path, small_house, pddl_domain=broken)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert "help" in env.reset()[1]["actions"]


def test_a_file_that_does_not_read_is_left_out_and_named(generated, monkeypatch, tmp_path, small_house, env):
    path = data_folder(tmp_path, small_house)
    path.write_text(path.read_text()[:1000])
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert ALFWorld.tasks() == []
    assert len(ALFWorld.notes()) == 1 and str(path) in ALFWorld.notes()[0]
    with pytest.raises(UserError, match="cannot read the ALFWorld game"):
        env.reset(options={"task": path.parent.relative_to(tmp_path / envs_alfworld.LAYOUT).as_posix()})


def test_a_game_that_the_engine_cannot_play_is_named(generated, monkeypatch, tmp_path, small_house, env):
    path = data_folder(tmp_path, small_house, pddl_problem="(define (problem nothing")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(UserError, match="cannot play the ALFWorld game") as error:
        env.reset()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["houses/no/test_000", "houses/x", "train/../../etc", "nothing"])
def test_an_unknown_task_is_the_users_mistake(generated, env, task):
    with pytest.raises(UserError, match="unknown ALFWorld task"):
        env.reset(options={"task": task})


def test_gymnasiums_checker_passes(generated):
    env = ALFWorld(task=houses.house("test", 1).id, render_mode="ansi")
    check_env(env, skip_render_check=True)
    env.reset()
    assert env.render().startswith("You are in the middle of a room.")
    env.close()
