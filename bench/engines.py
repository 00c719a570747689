"""Steps a second of each domain beside its bare engine, both in this process with random actions.

The two take turns, so that a busy machine slows both alike. Absolute numbers mean little on another machine; the
ratios do.
"""

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
from textworld.envs.pddl.pddl import PddlEnv

from domains import textworld_games
from domains.alfworld import ALFWorld
from domains.babaisai import BabaIsAI, BabaIsAIEnv
from domains.babaisai_levels import draw_level
from domains.babaisai_world import ACTIONS, World
from domains.minihack import MiniHack, make_engine
from domains.textworld import TextWorld, start
from envs import Domain


def babaisai(seconds: float) -> dict[str, float]:
    """Steps a second on a 13x9 level, starting again at each end.

    `nothing`: a loop over the same actions that does nothing. `world`: moves and rules. `environment`:
    BabaIsAIEnv.step, with the array and the text. `domain`: BabaIsAI.step, in episodes of 20 steps.
    """
    level, rng = "two_room-break_stop-make_win-distr_obj_rule", random.Random(0)
    world = World(draw_level(level, np.random.default_rng(0)))
    environment, domain = BabaIsAIEnv(level), BabaIsAI(level)
    environment.reset(seed=0)
    domain.reset(seed=0)

    def step(env, action: int | str) -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    contestants = {
        "nothing": lambda action: None,
        "world": lambda action: action and world.move(action),
        "environment": lambda action: step(environment, action),
        "domain": lambda action: step(domain, ACTIONS[action]),
    }
    actions = [rng.randrange(len(ACTIONS)) for _ in range(1000)]
    spent, turns = dict.fromkeys(contestants, 0.0), 0
    while sum(spent.values()) < seconds or not turns:
        turns += 1
        for name, act in contestants.items():
            started = time.perf_counter()
            for action in actions:
                act(action)
            spent[name] += time.perf_counter() - started
    return {name: turns * len(actions) / spent[name] for name in contestants}


def minihack(seconds: float) -> dict[str, float]:
    """The bare engine makes the observations that our text needs and no others, which is its fastest."""
    task, engine = "MiniHack-Room-15x15-v0", None

    def reset(seed: int) -> Sequence[int]:
        nonlocal engine
        if engine:
            engine.close()
        engine = make_engine(task, seed)
        engine.reset()
        return range(len(engine.actions))

    def step(action: int) -> tuple[Sequence[int], bool]:
        return range(len(engine.actions)), engine.step(action)[2]

    rates = side_by_side(MiniHack(task), reset, step, seconds)
    engine.close()
    return rates


def textworld(seconds: float) -> dict[str, float]:
    task = "cooking-00"
    return _beside_package(TextWorld(task), start(textworld_games.ensure(task), untouched=True), seconds)


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

    rates = side_by_side(env, lambda seed: engine.reset()["admissible_commands"], step, seconds)
    engine.close()
    return rates


def side_by_side(env: Domain, raw_reset: Callable, raw_step: Callable, seconds: float) -> dict[str, float]:
    """Play episodes of at most 50 random actions in `env` and in its bare engine, for about `seconds`.

    `raw_reset(seed)` returns the valid actions, `raw_step(action)` the valid actions and whether the game is over.
    Returns steps a second and milliseconds of a reset for both, and how many times faster `env` is.
    """

    def our_step(action: str) -> tuple[Sequence[str], bool]:
        _, _, terminated, truncated, info = env.step(action)
        return info["actions"], terminated or truncated

    engines = {"ours": (lambda seed: env.reset(seed=seed)[1]["actions"], our_step), "raw": (raw_reset, raw_step)}
    for reset, _ in engines.values():
        reset(0)  # the first one loads packages and games
    rng, episodes = random.Random(0), 0
    resetting, stepping, done = (dict.fromkeys(engines, 0.0) for _ in range(3))
    while not episodes or sum(resetting.values()) + sum(stepping.values()) < seconds:
        for name, (reset, step) in engines.items():
            started = time.perf_counter()
            actions, over = reset(episodes), False
            resetting[name] += time.perf_counter() - started
            started, first = time.perf_counter(), done[name]
            while not over and done[name] < first + 50:
                actions, over = step(rng.choice(actions))
                done[name] += 1
            stepping[name] += time.perf_counter() - started
        episodes += 1
    env.close()
    ours, raw = (done[name] / stepping[name] for name in engines)
    reset_ms = {f"{name}_reset_ms": 1000 * resetting[name] / episodes for name in engines}
    ratio = resetting["raw"] / resetting["ours"]
    return {"ours": ours, "raw": raw, "ratio": ours / raw, **reset_ms, "reset_ratio": ratio}


ENGINES = {"babaisai": babaisai, "minihack": minihack, "textworld": textworld, "alfworld": alfworld}
