"""The interface that all domains share, and the ids that gymnasium knows."""

import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import agent
import envs
from errors import UserError
from harness import run_folder

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    "alma/BabaIsAI-v0": {"level": "goto_win"},
    "alma/MiniHack-v0": {"task": "MiniHack-Room-5x5-v0"},
    "alma/TextWorld-v0": {"task": "cooking-00"},
    "alma/ALFWorld-v0": {},
}


@pytest.mark.parametrize("name", TASKS)
def test_every_registered_id_passes_gymnasiums_checker(name):
    env = gymnasium.make(name, **TASKS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of text spaces and of what is no fault
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", envs.DOMAINS)
def test_splits_have_tasks_are_disjoint_and_say_where_they_come_from(name):
    tasks = envs.domain_class(name).tasks()
    assert len({task.id for task in tasks}) == len(tasks)
    assert {"learning", "test"} <= {task.split for task in tasks} <= {"learning", "test", "shift"}
    assert {task.source for task in tasks} <= {"official", "generated", "engine"}
    assert envs.domain_class(name).tasks() == tasks


def test_an_unknown_domain_names_those_that_exist():
    with pytest.raises(UserError, match="alfworld, textworld, babaisai, minihack"):
        envs.domain_class("chess")


def test_a_domain_without_a_description_says_where_to_write_one(tmp_path, monkeypatch):
    (tmp_path / "bare.py").write_text("from envs import Domain\nclass Bare(Domain):\n    name = 'bare'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="has no description: write"):
        envs.domain_class("bare:Bare").description()


def test_seeds_depend_on_their_parts_alone():
    assert envs.derive_seed("a", 1) == envs.derive_seed("a", "1") == 1104087250
    assert envs.derive_seed("a", 1) != envs.derive_seed("a1")


def test_a_change_to_a_domain_s_data_makes_old_results_stale():
    data = {path for folder in ("domains", "prompts/domains") for path in ROOT.glob(f"{folder}/*.toml")}
    assert len(data) > 1
    for shaping in (agent.SHAPING, run_folder.SHAPING):
        assert data <= {path for pattern in shaping for path in ROOT.glob(pattern)}


def test_the_door_for_nethack_observations_is_open(shared):
    import json

    import numpy as np

    observations = np.load(shared / "minihack_language" / "observations.npz")
    expected = json.loads((shared / "minihack_language" / "expected.json").read_text())
    first = {name: observations[name][0] for name in observations.files if name != "names"}
    found = envs.describe_nethack(first)
    assert {"name": expected[0]["name"], **found} == expected[0]
