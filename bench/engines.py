"""Steps a second of each domain beside its bare engine, both in this process with random actions.

The two take turns, so that a busy machine slows both alike: on another machine the ratios mean something.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

import numpy as np
from textworld.envs.pddl.pddl import PddlEnv

from bench import timed
from domains import textworld_games
from domains.alfworld import ALFWorld
from domains.babaisai import BabaIsAI, BabaIsAIEnv
from domains.babaisai_levels import draw_level
from domains.babaisai_world import ACTIONS, World
from domains.minihack import MiniHack, make_engine
from domains.textworld import TextWorld, start
from envs import Domain


def babaisai(seconds: float) -> dict[str, float]:
    """Steps a second on a 13x9 level, starting again at each end."""
    level, rng = "two_room-break_stop-make_win-distr_obj_rule", random.Random(0)
    world, environment, domain = World(draw_level(level, np.random.default_rng(0))), BabaIsAIEnv(level), BabaIsAI(level)
    environment.reset(seed=0)
    domain.reset(seed=0)
    contestants = {
        "nothing": lambda action: None,
        "world": lambda action: action and world.move(action),  # moves and rules
        # With the array and the text, and in episodes of 20 steps; both start again where one is over or cut.
        "environment": lambda action: any(environment.step(action)[2:4]) and environment.reset(),
        "domain": lambda action: any(domain.step(ACTIONS[action])[2:4]) and domain.reset(),
    }
    actions = [rng.randrange(len(ACTIONS)) for _ in range(1000)]
    spent = {name: [] for name in contestants}
    while not spent["domain"] or sum(map(sum, spent.values())) < seconds:
        for name, act in contestants.items():
            with timed(spent[name]):
                for action in actions:
                    act(action)
    return {name: len(times) * len(actions) / sum(times) for name, times in spent.items()}


def minihack(seconds: float) -> dict[str, float]:
    """The bare engine makes the observations that our text needs and no others, which is its fastest."""
    task = "MiniHack-Room-15x15-v0"
    with contextlib.ExitStack() as opened:

        def reset(seed: int) -> tuple[Sequence[int], Callable]:
            opened.close()
            engine = opened.enter_context(contextlib.closing(make_engine(task, seed)))
            engine.reset()
            actions = range(len(engine.actions))
            return actions, lambda action: (actions, engine.step(action)[2])

        return side_by_side(MiniHack(task), reset, seconds)


def textworld(seconds: float) -> dict[str, float]:
    return _beside_package(TextWorld("cooking-00"), start(textworld_games.ensure("cooking-00"), untouched=True), seconds)


def alfworld(seconds: float) -> dict[str, float]:
    env, engine = ALFWorld(ALFWorld.tasks()[0].id), PddlEnv()
    env.reset()
    engine.load(env.engine.data)
    return _beside_package(env, engine, seconds)


def _beside_package(env: Domain, engine, seconds: float) -> dict[str, float]:
    """The package's own environment plays the same game as ours, and is asked for the same things."""

    def step(command: str) -> tuple[Sequence[str], bool]:
        state, _, over = engine.step(command)
        return state["admissible_commands"], over

    with contextlib.closing(engine):
        return side_by_side(env, lambda seed: (engine.reset()["admissible_commands"], step), seconds)


def side_by_side(env: Domain, raw_reset: Callable, seconds: float) -> dict[str, float]:
    """Steps a second and milliseconds of a reset of `env` and of its bare engine, and how many times faster `env` is.

    Both play episodes of at most 50 random actions, for about `seconds`. `raw_reset(seed)` returns the valid actions and
    a function that takes one and returns the next valid ones and whether the game is over.
    """

    def our_step(action: str) -> tuple[Sequence[str], bool]:
        _, _, terminated, truncated, info = env.step(action)
        return info["actions"], terminated or truncated

    engines = {"ours": lambda seed: (env.reset(seed=seed)[1]["actions"], our_step), "raw": raw_reset}
    for reset in engines.values():
        reset(0)  # the first one loads packages and games
    rng, done = random.Random(0), Counter()
    resets, steps = ({name: [] for name in engines} for _ in range(2))
    while not done or sum(map(sum, (*resets.values(), *steps.values()))) < seconds:
        seed = len(resets["raw"])
        for name, reset in engines.items():
            with timed(resets[name]):
                actions, step = reset(seed)
            with timed(steps[name]):
                over, last = False, done[name] + 50
                while not over and done[name] < last:
                    actions, over = step(rng.choice(actions))
                    done[name] += 1
    env.close()
    ours, raw = (done[name] / sum(steps[name]) for name in engines)
    our_ms, raw_ms = (1000 * mean(resets[name]) for name in engines)
    return {"ours": ours, "raw": raw, "ratio": ours / raw,
            "ours_reset_ms": our_ms, "raw_reset_ms": raw_ms, "reset_ratio": raw_ms / our_ms}  # fmt: skip


ENGINES = {"babaisai": babaisai, "minihack": minihack, "textworld": textworld, "alfworld": alfworld}
