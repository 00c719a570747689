"""TextWorld: games made alike in two processes, a cache that survives faults, commands and points.

Games are made once for all tests, by fresh processes that need them at the same time.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from domains import textworld_games as games
from domains.textworld import TextWorld
from domains.textworld import start as start_engine
from errors import InfrastructureError

ROOT = Path(__file__).resolve().parents[1]
FOUR = ["cooking-00", "cooking-11", "coin_collector-13", "treasure_hunter-11"]
THREE = ["cooking-11", "coin_collector-13", "treasure_hunter-11"]
TRAJECTORIES = """
import hashlib, json, random, sys
from domains.textworld import TextWorld
from domains.textworld import start as start_engine
from domains.textworld_games import ensure
TextWorld.prepare(sys.argv[1:])
env, hashes = TextWorld(), {}
for name in sys.argv[1:]:
    text, info = env.reset(seed=7, options={"task": name})
    seen, rng = [text, info["goal"], *info["actions"]], random.Random(name)
    for _ in range(25):
        text, reward, over, _, info = env.step(rng.choice(info["actions"]))
        seen += [text, str(reward), *info["actions"]]
        if over:
            break
    game = (ensure(name) / "tw-game.json").read_bytes()
    hashes[name] = [hashlib.sha256(part).hexdigest() for part in (game, "".join(seen).encode())]
print(json.dumps(hashes))
"""


def start(cache: Path, hash_seed: str, *arguments: str) -> subprocess.Popen:
    environment = dict(os.environ, ALMA_CACHE=str(cache), PYTHONHASHSEED=hash_seed, PYTHONPATH=str(ROOT))
    return subprocess.Popen([sys.executable, "-W", "ignore", *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What three fresh processes say of their tasks: two that share a cache, one with its own."""
    folder = tmp_path_factory.mktemp("textworld")
    shared, alone = folder / "shared", folder / "alone"
    processes = [start(shared, "1", "-c", TRAJECTORIES, *FOUR),
                 start(shared, "2", "-c", TRAJECTORIES, *FOUR[::-1])]
    outputs = [finished(process) for process in processes]
    outputs.append(finished(start(alone, "3", "-c", TRAJECTORIES, *THREE)))
    return [json.loads(output) for output in outputs], shared


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


@pytest.fixture
def env(made, monkeypatch):
    monkeypatch.setenv("ALMA_CACHE", str(made[1]))
    env = TextWorld()
    yield env
    env.close()


def game_of(task: str) -> dict:
    return json.loads((games.ensure(task) / "tw-game.json").read_text())


def solution(task: str) -> list[str]:
    """The package's own solution of a game."""
    import textworld

    return textworld.Game.load(str(games.ensure(task) / "tw-game.json")).walkthrough


# Making games


def test_two_processes_at_once_make_each_game_once_and_play_it_alike(made, env):
    (first, second, _), cache = made
    assert set(first) == set(FOUR) and first == second
    assert len({hashes[0] for hashes in first.values()}) == len(FOUR)
    names = {games.ensure(task).name for task in FOUR}
    locks = {f"{name}.lock" for name in names}
    assert {path.name for path in (cache / "textworld").iterdir()} == names | locks


def test_a_process_with_a_cache_of_its_own_makes_the_same_games(made):
    (first, _, alone), _ = made
    assert alone == {task: first[task] for task in THREE}


def test_splits_halve_each_family_and_are_disjoint(env):
    tasks = TextWorld.tasks()
    count = {}
    for task in tasks:
        count[task.split, task.family] = count.get((task.split, task.family), 0) + 1
    assert count == {("learning", "treasure_hunter"): 13, ("test", "treasure_hunter"): 13,
                     ("learning", "cooking"): 13, ("test", "cooking"): 13, ("shift", "coin_collector"): 26}
    assert len({task.id for task in tasks}) == len(tasks)
    assert len({games.cached(task.id) for task in tasks}) == len(tasks)
    assert {task.source for task in tasks} == {"generated"}


def test_difficulty_is_the_benchmark_s(env):
    treasure, coin = game_of("treasure_hunter-11"), game_of("coin_collector-13")
    assert treasure["metadata"]["mode"] == "hard" and treasure["metadata"]["world_size"] == 20
    assert coin["metadata"]["world_size"] == 40 and coin["metadata"]["quest_length"] == 20
    settings = games.recipe("cooking-11")[2]
    assert settings["recipe"] == settings["take"] == 2 and settings["go"] == 12
    assert all(settings[skill] for skill in ("open", "cook", "cut", "drop"))
    assert {games.recipe(f"cooking-{n:02}")[2]["recipe"] for n in range(26)} == {1, 2, 3, 4, 5}


def test_treasure_hunter_games_of_twenty_commands_or_fewer_are_left_out(env):
    assert len(solution("treasure_hunter-11")) > 20
    assert game_of("treasure_hunter-11")["metadata"]["attempt"] == games.ATTEMPTS[11]


def test_a_game_that_is_too_easy_is_refused(tmp_path, monkeypatch):
    family, _, settings = games.recipe("treasure_hunter-11")
    easy = settings | {"rooms": 6, "quest": 9, "attempt": 2}
    monkeypatch.setattr(games, "recipe", lambda task: (family, 0, easy))
    with pytest.raises(RuntimeError, match="won by 2 commands"):
        games.write_game("treasure_hunter-11", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def options():
    """What a small treasure hunter game is made of."""
    import textworld
    from textworld.challenges.tw_treasure_hunter import treasure_hunter
    from textworld.generator.data import KnowledgeBase

    options = textworld.GameOptions()
    options.seeds, options.nb_rooms, options.quest_length = 4, 6, 6
    options.kb = KnowledgeBase.load(treasure_hunter.KB_PATH)
    return options


def test_the_quick_look_up_of_actions_makes_the_package_s_own_game(options, monkeypatch):
    from textworld.challenges.tw_treasure_hunter import treasure_hunter
    from textworld.logic import State

    results = []
    for _ in range(2):
        results.append(treasure_hunter.make_game("hard", options.copy()).serialize())
        monkeypatch.setattr(State, "all_instantiations", games.instantiations)
    assert results[0] == results[1]


@pytest.mark.parametrize("challenge", ["cooking", "coin_collector", "treasure_hunter", None])
def test_the_quick_reading_of_a_text_grammar_gives_what_the_package_s_parser_gives(challenge):
    import textworld
    from textworld.textgen import TextGrammar

    folder = Path(textworld.__file__).parent
    folder /= f"challenges/tw_{challenge}/textworld_data" if challenge else "generator/data"
    files = sorted((folder / "text_grammars").glob("*.twg"))
    assert len(files) >= 3

    def plain(rules) -> list:
        """Nested lists of everything that a grammar's objects hold."""
        if isinstance(rules, (tuple, list)):
            return [plain(one) for one in rules]
        return [type(rules).__name__, *map(plain, vars(rules).values())] if hasattr(rules, "__dict__") else rules

    for path in files:
        text = path.read_text()
        theirs, ours = TextGrammar.parse(text), games.parse_text_grammar(text)
        assert list(ours.rules) == list(theirs.rules)
        assert plain(list(ours.rules.values())) == plain(list(theirs.rules.values()))


# The cache


def test_a_damaged_game_is_seen_and_made_again(made, tmp_path, monkeypatch):
    task = "coin_collector-13"
    monkeypatch.setenv("ALMA_CACHE", str(tmp_path))
    folder = games.cached(task)
    shutil.copytree(made[1] / "textworld" / folder.name, folder)
    assert games.ensure(task) == folder
    whole = (folder / "tw-game.json").read_bytes()
    for damage in (lambda: (folder / "complete.json").write_text("{"),
                   lambda: (folder / "complete.json").write_text("[1]"),
                   lambda: (folder / "complete.json").unlink(),
                   lambda: (folder / "tw-game.z8").write_bytes(b"half")):
        damage()
        assert not games.is_whole(folder)
    assert games.ensure(task) == folder
    assert games.is_whole(folder) and (folder / "tw-game.json").read_bytes() == whole
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}


@pytest.mark.parametrize(("script", "said"), [
    (f"exec {sys.executable} -c \"from domains import textworld_games as games; games.write_game = None; "
     "games.make('treasure_hunter-00')\"", r".*Error"),
    ("kill -9 $$", "$"),
], ids=["fails", "killed"])
def test_a_game_that_cannot_be_made_is_a_fault_of_the_infrastructure(tmp_path, monkeypatch, script, said):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("ALMA_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(InfrastructureError, match=rf"(?s)treasure_hunter-00: {said}"):
        games.ensure("treasure_hunter-00")
    assert not [path for path in (tmp_path / "textworld").glob("*") if path.suffix != ".lock"]


def test_an_unknown_task_is_named(env):
    with pytest.raises(ValueError, match="cooking-99"):
        env.reset(options={"task": "cooking-99"})


# Playing


@pytest.mark.parametrize("task", ["treasure_hunter-11", "coin_collector-13", "cooking-00"])
def test_the_package_s_solution_wins_all_points(env, task):
    env.reset(options={"task": task})
    rewards = []
    for command in solution(task):
        _, reward, over, _, info = env.step(command)
        rewards.append(reward)
        assert info["valid"] and 0 <= info["score"] <= 1
    assert over and info["success"] and info["score"] == 1.0
    assert sum(rewards) == pytest.approx(1.0)


@pytest.mark.parametrize("task", ["treasure_hunter-11", "coin_collector-13", "cooking-11"])
def test_the_quick_engine_says_what_the_untouched_one_says(env, task):
    shown = ("feedback", "admissible_commands", "score", "max_score", "won", "lost", "moves", "objective", "verbs")
    commands, rng = solution(task), random.Random(task)
    for played in (commands, commands[: len(commands) // 2], []):  # the solution, and random commands from its middle
        ours, untouched = (start_engine(games.ensure(task), untouched=raw) for raw in (False, True))
        states, over = (ours.reset(), untouched.reset()), False
        for step in range(60):
            assert [states[0][name] for name in shown] == [states[1][name] for name in shown]
            assert list(map(str, states[0]["_valid_actions"])) == list(map(str, states[1]["_valid_actions"]))
            if over:
                break
            choices = [*states[0].admissible_commands, "look", "take nothing", "examine me"]
            command = played[step] if step < len(played) else rng.choice(choices)
            (first, *results), (second, *same) = ours.step(command), untouched.step(command)
            assert results == same
            states, over = (first, second), results[1]
        assert over or played is not commands
        ours.close(), untouched.close()


def test_points_count_in_part_where_the_game_is_not_won(env):
    env.reset(options={"task": "cooking-11"})
    commands = solution("cooking-11")
    for command in commands[:-3]:
        _, _, over, _, info = env.step(command)
    assert not over and not info["success"] and 0 < info["score"] < 1


def test_first_observation_is_the_room_and_the_goal_does_not_tell_the_way(env):
    for task in FOUR:
        text, info = env.reset(options={"task": task})
        assert text.startswith("-= ") and "$$" not in text and "\n\n\n" not in text
        assert info["goal"] not in text and ">" not in text  # no banner, no objective, no status line
        assert set(info["record"]) == {"obs", "goal", "admissible_commands"} and info["now"] == ""
        assert len(info["goal"]) < 300 and info["goal"].count(". ") < 4


@pytest.mark.parametrize(("command", "reply"), [
    ("frobnicate the sky", "That's not a verb I recognise."),
    ("take", "What do you want to take?"),
    ("examine unicorn", "You can't see any such thing."),
    ("", "That's not a verb I recognise."),
    ("look. look", "One command at a time."),
    ("go north then go south", "One command at a time."),
    ("café au lait", "That's not a verb I recognise."),
])
def test_a_command_that_is_not_understood_costs_a_step_and_gets_the_verbs(env, command, reply):
    _, first = env.reset(options={"task": "cooking-00"})
    text, reward, over, cut, info = env.step(command)
    assert text.split("\n")[0] == reply
    assert text.split("\n")[-1].startswith("Valid verbs: chop, close, cook, ")
    assert (reward, over, cut, info["valid"]) == (0.0, False, False, False)
    assert env.steps == 1 and info["actions"] == first["actions"]


@pytest.mark.parametrize("command", ["save", "restore", "restart", "quit", "script", "tw-trace-actions"])
def test_the_interpreter_s_own_commands_do_not_reach_it(env, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = games.ensure("cooking-00")
    before = sorted(folder.iterdir())
    env.reset(options={"task": "cooking-00"})
    room = env.step("look")[0]
    assert not env.step(command)[4]["valid"]
    assert env.step("look")[0] == room
    assert sorted(folder.iterdir()) == before and not list(tmp_path.iterdir())


def test_short_forms_are_commands_too(env):
    env.reset(options={"task": "cooking-00"})
    assert env.step("l")[0] == env.step("look")[0]
    assert env.step("i")[4]["valid"] and env.step("  INVENTORY ")[4]["valid"]


def test_an_episode_is_cut_after_eighty_steps(env):
    env.reset(options={"task": "coin_collector-13"})
    for _ in range(79):
        assert env.step("dance")[2:4] == (False, False)
    assert env.step("dance")[2:4] == (False, True)


def test_the_global_generators_stay_as_they_were(env):
    random.seed(11)
    np.random.seed(11)
    before = random.getstate(), np.random.get_state()[1].tolist()
    env.reset(seed=3, options={"task": "cooking-00"})
    env.step("look")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_two_hundred_episodes_leave_no_memory_and_no_files_behind(env, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sizes = []
    for episode in range(200):
        env.reset(seed=episode, options={"task": FOUR[episode % 4]})
        env.step("look")
        if episode in (49, 199):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))))
    assert sizes[1][0] - sizes[0][0] < 8  # megabytes
    assert sizes[1][1] <= sizes[0][1]
    env.close()
    assert not list(tmp_path.iterdir())


def test_gymnasium_s_checker_accepts_the_environment(env):
    checked = gymnasium.make("alma/TextWorld-v0", task="cooking-00")
    check_env(checked.unwrapped, skip_render_check=True)
    checked.close()
