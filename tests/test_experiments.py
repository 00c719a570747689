"""The whole protocol and comparisons of designs, as commands, on a small domain with a shift set."""

import functools
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from harness.commands import reproduced as planned
from harness.config import from_json
from harness.estimate import compared, episodes_of
from tests.endpoint import ModelServer
from tests.runs import ALMA
from tests.test_commands import alma
from tests.test_evaluate import KNOWS
from tests.test_search import OWN

TOY = ["--env", "tests.toy:Doors", "--plain"]
quick = functools.partial(alma, program=ALMA)  # without plots
ALL = {"no_memory", "trajectory_retrieval", "reasoning_bank", "dynamic_cheatsheet", "g_memory", "learned design"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> dict:
    runs, flags = tmp_path_factory.mktemp("runs"), ["--steps", 2, "--passes", 1, "--test-passes", 2, "--collection-passes", 1]
    flags += ["--finalists", 1, "--final-passes", 1]
    witness = {**os.environ, "ALMA_WITNESS": str(runs / "witness")}
    done = alma("reproduce", "--env", "tests.toy:Witnessed", "--plain", *flags, "--runs", runs, "--json", env=witness)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_reproduce_plays_no_more_episodes_than_estimated_and_most_of_them(reproduced):
    folder = Path(reproduced["folder"])
    config = from_json(json.loads((folder / "config.json").read_text()))
    played, estimated = len((folder.parent / "witness").read_text().splitlines()), episodes_of(config, planned(config))
    assert 0.7 * estimated < played <= estimated  # baselines share what they say nothing to


def test_reproduce_tests_the_learned_design_and_all_baselines_on_the_test_set_and_the_shift_set(reproduced):
    assert set(reproduced["test"]) == set(reproduced["shift"]) == ALL
    for name, score in reproduced["test"].items():
        assert (score["against_best"] is None) == (name == "no_memory")
        assert len(score["passes"]) == len(reproduced["shift"][name]["passes"]) == 2
        assert {"memory_calls", "memory_tokens", "usd", "interval", "retrieved_tokens", "steps"} <= set(score)
    assert reproduced["test"]["reasoning_bank"]["memory_calls"] > 0
    assert {task["task"].split("-")[1] for task in reproduced["shift"]["no_memory"]["tasks"]} == {"6"}


def test_reproduce_shows_what_the_learned_memory_says_for_one_task(reproduced):
    says = reproduced["says"]
    assert says["task"] in {task["task"] for task in reproduced["test"]["learned design"]["tasks"]}
    assert 2 < len(says["text"]) <= 4000


def test_a_run_keeps_the_command_line_that_started_it(reproduced):
    about = json.loads((Path(reproduced["folder"]) / "config.json").read_text())["about"]
    assert about["command"].startswith("python alma.py reproduce --env tests.toy:Witnessed --plain --steps 2 ")


def test_what_reproduce_prints_as_json_is_kept_in_the_run_folder(reproduced):
    folder = Path(reproduced["folder"])
    assert json.loads((folder / "score.json").read_text()) == reproduced
    assert (folder / "results-test-static.json").exists() and (folder / "results-shift-dynamic.json").exists()


def test_the_best_other_design_is_named_with_a_paired_interval(reproduced):
    scores = reproduced["test"]
    learned = scores["learned design"]["against_best"]
    others = {name: one["mean"] for name, one in scores.items() if name not in ("no_memory", "learned design")}
    assert others[learned["name"]] == max(others.values())
    low, high = learned["interval"]
    assert learned["difference"] == pytest.approx(scores["learned design"]["mean"] - max(others.values()))
    assert low <= learned["difference"] <= high


def test_a_memory_is_better_the_more_episodes_it_may_learn_from(tmp_path):
    (tmp_path / "knows.py").write_text(KNOWS)
    design = ["--design", "no_memory", "--design", tmp_path / "knows.py"]
    arguments = [*TOY, *design, "--split", "learning", "--collection-size", "0,8,60", "--passes", "1", "--folds", "1", "--runs", tmp_path / "runs"]
    done = quick("evaluate", *arguments)
    (run,) = (tmp_path / "runs").iterdir()
    sizes = json.loads((run / "score.json").read_text())["collection sizes"]
    means = [one[str(tmp_path / "knows.py")]["mean"] for one in sizes.values()]
    assert list(sizes) == ["0", "8", "60"]
    assert means[0] == sizes["0"]["no_memory"]["mean"] < means[1] < means[2]
    assert any(line.split()[:2] == ["collected", "episodes"] for line in done.stdout.splitlines())


def test_evaluate_shows_what_designs_have_from_experience_and_plays_as_many_episodes_as_estimated(tmp_path, monkeypatch):
    monkeypatch.setenv("ALMA_WITNESS", str(tmp_path / "witness"))
    (tmp_path / "own.py").write_text(OWN)
    flags = ["--design", tmp_path / "own.py", "--design", "no_memory", "--split", "shift", "--experience", "--passes", 1]
    done = quick("evaluate", "--env", "tests.toy:Witnessed", "--plain", *flags, "--runs", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    own, none = result["shift"][str(tmp_path / "own.py")], result["shift"]["no_memory"]
    assert own["experience"]["all"] == own["mean"] and own["experience"]["gives"][0] == pytest.approx(own["mean"] - own["experience"]["one"])
    assert "experience" not in none and len(result["noise"]["shift"]["interval"]) == 2
    config = from_json(json.loads((Path(result["folder"]) / "config.json").read_text()))
    estimated = episodes_of(config, {"shift": compared(config, "shift", designs=1, explained=1)})
    assert config.experience == "all" and len((tmp_path / "witness").read_text().splitlines()) == estimated


@pytest.mark.parametrize("flags", [[], ["--keep-models"]])
def test_a_file_in_the_authors_form_is_evaluated_as_it_is(tmp_path, flags):
    design = Path(__file__).parent / "designs" / "house_authors.py"
    few = ["--tasks", 2, "--folds", 1, "--passes", 1, "--collection-passes", 1, "--split", "learning", "--plain"]
    with ModelServer() as server:
        arguments = ["--design", design, "--memory-model", f"mine@{server.url}", *few, *flags, "--runs", tmp_path]
        done = quick("evaluate", "--env", "alfworld", *arguments, "--json")
        asked = {body["model"] for body in server.bodies}
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)["learning"][str(design)]
    assert not score["errors"] and score["memory_calls"] > 0
    assert asked == ({"gpt-4o-mini", "mine"} if flags else {"mine"})  # one of its two agents names a model


def test_an_ablation_plays_no_episode_again_for_another_way_of_sampling(tmp_path, monkeypatch):
    """One step makes one design, the same for all three: each task is met without memory and with its memory."""
    monkeypatch.setenv("ALMA_WITNESS", str(tmp_path / "witness"))
    small = ["--env", "tests.toy:Witnessed", "--steps", 1, "--passes", 1, "--collection-passes", 1, "--folds", 1, "--finalists", 0, "--seeds", 1, "--seed", 2]
    done = quick("ablation", *small, "--plain", "--runs", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    [learned] = {results[0]["learned"] for results in json.loads(done.stdout).values()}
    assert len(learned) == 12
    played = Counter((tmp_path / "witness").read_text().splitlines())
    assert len(played) > 20 and max(played.values()) == 2
