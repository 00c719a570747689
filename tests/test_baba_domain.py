"""Baba Is AI as a text domain: splits, what an episode shows, resets, the same in every process."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

from domains.babaisai import BROKEN, BabaIsAI
from domains.babaisai_world import ACTIONS
from errors import UserError

ROOT = Path(__file__).resolve().parents[1]

LEARNING = """make_win-distr_obj, two_room-goto_win, two_room-goto_win-distr_rule, goto_win-distr_obj_rule,
make_win-distr_obj_rule#no_ball_win, two_room-maybe_break_stop-goto_win-distr_obj-irrelevant_rule,
make_win-distr_obj#only_ball_win, two_room-make_win-distr_obj_rule,
make_win-distr_obj-irrelevant_rule#no_ball_win, make_win, two_room-break_stop-make_win-distr_obj,
two_room-goto_win-distr_obj_rule, two_room-break_stop-goto_win, two_room-break_stop-goto_win-distr_obj_rule,
two_room-break_stop-goto_win-distr_rule, two_room-make_win-distr_win_rule, goto_win,
two_room-goto_win-distr_win_rule, make_win-distr_rule, two_room-goto_win-distr_obj,
two_room-maybe_break_stop-goto_win-distr_obj, you_win, two_room-break_stop-make_win-distr_obj_rule,
make_win-distr_rule#only_ball_win, two_room-make_win-distr_obj-irrelevant_rule, two_room-make_you-make_win"""
TEST = """two_room-maybe_break_stop-goto_win, two_room-break_stop-make_win-distr_obj-irrelevant_rule,
two_room-break_stop-goto_win-distr_obj, make_win-distr_obj-irrelevant_rule#only_ball_win,
make_win-distr_obj_rule#only_ball_win, make_win-distr_obj-irrelevant_rule, two_room-make_wall_win,
two_room-break_stop-goto_win-distr_obj-irrelevant_rule, two_room-break_stop-make_win-distr_rule,
make_win#no_ball_win, two_room-make_win, two_room-make_you, make_win-distr_obj_rule,
two_room-goto_win-distr_obj-irrelevant_rule, two_room-maybe_break_stop-goto_win-distr_rule,
goto_win-distr_obj, two_room-maybe_break_stop-goto_win-distr_obj_rule, two_room-make_win-distr_obj,
goto_win-distr_rule, goto_win-distr_win_rule, make_win#only_ball_win, make_win-distr_obj#no_ball_win,
make_win-distr_rule#no_ball_win, two_room-break_stop-make_win, you_win-fixed_you,
goto_win-distr_obj-irrelevant_rule, two_room-make_win-distr_rule"""


def names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split(",")]


def test_tasks_are_split_as_in_the_authors_runs():
    tasks = BabaIsAI.tasks()
    assert [task.id for task in tasks if task.split == "learning"] == names(LEARNING)
    assert [task.id for task in tasks if task.split == "test"] == names(TEST)
    assert len({task.seed for task in tasks}) == len(tasks) == 53
    assert {task.source for task in tasks} == {"engine"}
    assert len({task.family for task in tasks}) == 11
    families = {task.id: task.family for task in tasks}
    stopped = "two_room-break_stop-make_win"
    assert families[f"{stopped}-distr_obj-irrelevant_rule"] == stopped
    assert families["make_win#no_ball_win"] == "make_win" and families["you_win-fixed_you"] == "you_win"


PLAY = """
import hashlib, random
from domains.babaisai import ACTIONS, BabaIsAI
env, digest = BabaIsAI(), hashlib.sha256()
tasks = [t for t in BabaIsAI.tasks() if any(part in t.id for part in ("make_you", "win_rule", "you_win"))]
tasks += BabaIsAI.tasks()[:3]
order = list(enumerate(tasks))
random.Random({order}).shuffle(order)
said = {{}}
for place, task in order:
    rng = random.Random(place)
    text, _ = env.reset(seed=task.seed + 1, options={{"task": task.id}})
    seen = [text]
    for _ in range(20):
        seen.append(env.step(rng.choice(ACTIONS))[0])
    said[task.id] = hashlib.sha256("|".join(seen).encode()).hexdigest()
print(len(said), sorted(said.items()))
"""


def test_two_fresh_processes_play_the_same_episodes_in_any_order():
    answers = [
        subprocess.run(
            [sys.executable, "-c", PLAY.format(order=order)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for order in (1, 2)
    ]  # fmt: skip
    assert answers[0] == answers[1] and int(answers[0].split()[0]) >= 10


def test_an_episode_shows_what_a_memory_design_and_an_agent_need():
    env = BabaIsAI()
    text, info = env.reset(seed=0, options={"task": "env/goto_win"})
    assert text.startswith("Active rules:\n") and set(info["record"]) == {"obs", "goal"}
    assert info["record"]["obs"] == text and info["goal"] == info["record"]["goal"]
    assert info["actions"] == list(ACTIONS) == list(env.action_descriptions) and info["now"] == ""
    text, _, _, _, info = env.step("up")
    assert info["record"] == {"obs": text} and info["valid"]
    json.dumps(info)


def test_an_invalid_action_costs_a_step_changes_nothing_and_is_told_what_is_valid():
    env = BabaIsAI(task="goto_win")
    before, _ = env.reset(seed=0)
    for number in range(1, 21):
        text, reward, terminated, truncated, info = env.step("fly 🚀\n" * 50)
        assert text.split("\n", 1) == [text.split("\n")[0], before]
        assert text.split("\n")[0].endswith("Valid actions: idle, up, right, down, left.")
        assert text in env.observation_space
        assert (reward, terminated, info["valid"], info["score"]) == (0.0, False, False, 0.0)
        assert truncated == (number == 20)


def test_winning_gives_the_score_and_ends_the_episode():
    env = BabaIsAI(task="you_win-fixed_you")
    _, info = env.reset(seed=0)
    target = env.engine.rows()[3][3] == f"o:{env.engine.rows()[2][2][2:]}:{env.engine.rows()[2][1][2:]}"
    _, reward, terminated, truncated, info = env.step("right" if target else "down")
    assert (reward, terminated, truncated, info["score"], info["success"]) == (1.0, True, False, 1.0, True)


def broken_episode(env: BabaIsAI, seed: int) -> list[str]:
    """Texts of an episode of random actions, up to the first reset in it."""
    rng, texts = random.Random(seed), [env.reset(seed=seed)[0]]
    while len(texts) <= 20 and BROKEN not in texts[-1]:
        texts.append(env.step(rng.choice(ACTIONS))[0])
    return texts


def test_a_broken_you_rule_draws_a_new_layout_from_the_episode_s_own_seed_and_steps_go_on():
    env = BabaIsAI(task="two_room-make_you")
    seed = next(s for s in range(50) if BROKEN in broken_episode(env, s)[-1])
    texts = broken_episode(env, seed)
    assert texts == broken_episode(BabaIsAI(task="two_room-make_you"), seed)
    first, rest = texts[-1].split("\n", 1)
    assert first == BROKEN and rest == env.engine.text() and rest.startswith("Active rules:\n")
    assert "baba is you" in rest and env.engine.step_count == 0
    steps = len(texts) - 1
    while not env.step("idle")[3]:
        steps += 1
    assert steps + 1 == 20


def test_a_layout_that_hides_the_player_is_drawn_again_before_the_first_step():
    env = BabaIsAI(task="goto_win-distr_win_rule")
    texts = [env.reset(seed=seed)[0] for seed in range(200)]
    assert sum(text.startswith(BROKEN + "\nActive rules:\n") for text in texts) == pytest.approx(22, abs=13)
    assert all("step" in text for text in texts)


def test_an_unknown_task_is_the_user_s_mistake():
    with pytest.raises(UserError, match="goto_win"):
        BabaIsAI(task="chess")
    with pytest.raises(UserError, match="goto_win"):
        BabaIsAI().reset(seed=0, options={"task": "chess"})


@pytest.mark.filterwarnings("ignore:.*alternative render modes.*")
@pytest.mark.filterwarnings("error")
def test_gymnasium_s_checker_accepts_the_text_domain():
    check_env(BabaIsAI(task="make_win", render_mode="ansi"))
