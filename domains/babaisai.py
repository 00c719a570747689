"""Baba Is AI: a gymnasium environment (`BabaIsAIEnv`), and the text domain on top of it (`BabaIsAI`).

The 53 levels of the public benchmark (nacloos/baba-is-ai, commit ad466e0) with its rules, rewards, text observation
and quirks. The same level and seed give the same layout in every process, but not the one that the original draws
from that seed. `babaisai_world.py` has the rules and moves, `babaisai_levels.py` draws the layouts."""

import random
import re
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from domains.babaisai_levels import LEVELS, Rows, draw_level, level_id, level_size
from domains.babaisai_world import ACTIONS, ARRAY_CODES, World, picture
from envs import Domain, Task, derive_seed
from errors import UserError


class BabaIsAIEnv(gymnasium.Env):
    """A level of Baba Is AI, the puzzle whose rules are words that can be pushed around.

    ## Description
    Words on the grid form rules: BABA IS YOU lets the player move baba, DOOR IS WIN makes doors the goal, WALL IS STOP
    lets nothing through. Pushing a word makes and breaks rules. After Cloos et al., "Baba Is AI: Break the Rules to
    Beat the Benchmark" (2024), whose package nacloos/baba-is-ai this follows in all rules and quirks.

    ## Action Space
    `Discrete(5)`: 0 idle, 1 up, 2 right, 3 down, 4 left. All but idle read the rules again at the end, for later steps.

    ## Observation Space
    `Box(0, 255, (width, height, 3), uint8)`, indexed `[x, y]`, x to the right, y downwards. For the top thing of each
    cell: a code for its type, a code for its colour or word, and 0, as the tables in `babaisai_world.py` list them.
    `info` has `text` (the observation in words), `rules` (list of str) and `step_count` (int). The text gives
    positions relative to the first object that the last YOU rule names. Where nobody visible is YOU it has no
    positions, and the episode goes on with nothing to move.

    ## Rewards
    1 - 0.9 * steps / max_steps on the step that wins, -1 on one that loses (no level has LOSE), otherwise 0.

    ## Starting State
    The seed of `reset` decides the layout; without a seed it is a new one. In the three levels with `distr_win_rule`
    words may cover things: in about 11 % of the layouts of `goto_win-distr_win_rule` baba, which cannot be played.

    ## Episode End
    Terminated when a player walks onto something that is WIN (or LOSE); the last player to move decides. Truncated
    after `max_steps` steps. Stepping on after the end is allowed.

    ## Arguments
    * `level`: one of the 53 names in `babaisai_levels.LEVELS`, with or without the prefix `env/`
    * `render_mode`: `"ansi"` (the text) or `"rgb_array"` (24 pixels a cell, height x width x 3)
    * `max_steps`: steps of an episode

    Try it: `env = gymnasium.make("alma/BabaIsAI-v0", level="goto_win")`"""

    metadata: ClassVar = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(self, level: str = "goto_win", render_mode: str | None = None, max_steps: int = 100, **unknown: Any):
        if unknown:
            raise TypeError(f"unknown argument {min(unknown)!r}; choose from level, render_mode, max_steps")
        if render_mode not in (None, *(modes := self.metadata["render_modes"])):
            raise ValueError(f"render_mode={render_mode!r} is unknown; choose from {', '.join(modes)}")
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps!r} must be at least 1")
        self.level, self.render_mode, self.max_steps = level_id(level), render_mode, max_steps
        self.world: World | None = None
        self.step_count = 0
        self._rows: Rows | None = None  # start of a level made by `from_rows`
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Box(0, 255, (*level_size(self.level), 3), np.uint8)

    @classmethod
    def from_rows(cls, rows: Rows, render_mode: str | None = None, max_steps: int = 100) -> "BabaIsAIEnv":
        """A level of one's own, ready to step; `reset` starts it again. Raises ValueError for an unknown thing.
        `rows` is a list of rows of cells. A cell is its stack, bottom to top, joined by ">": "#" border, "t:baba" noun,
        "t:is", "p:you" property, "c:red" colour text, "o:key:blue" object, "" nothing. The outermost ring is border."""
        env, world = cls(render_mode=render_mode, max_steps=max_steps), World(rows)
        env.level, env.world, env._rows = None, world, world.rows()
        env.observation_space = spaces.Box(0, 255, (world.width, world.height, 3), np.uint8)
        return env

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.world = World(self._rows or draw_level(self.level, self.np_random))
        self.step_count = 0
        return self._observe()

    def step(self, action: int):
        if self.world is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if not 0 <= action < len(ACTIONS):
            raise ValueError(f"action={action!r} is unknown; choose from 0 to 4: {', '.join(ACTIONS)}")
        self.step_count += 1
        won, lost = self.world.move(action) if action else (False, False)
        reward = 1 - 0.9 * (self.step_count / self.max_steps) if won else -1.0 if lost else 0.0
        array, info = self._observe()
        return array, reward, won or lost, self.step_count >= self.max_steps, info

    def rows(self) -> list[list[str]]:
        """The grid now, in the form that `from_rows` takes."""
        return self.world.rows()

    def rules(self) -> list[str]:
        """The active rules in the original's order: "baba is you", "red door is win"."""
        return list(self.world.law.rules)

    def text(self) -> str:
        """The observation in words."""
        return self.world.text()

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        codes = ARRAY_CODES.take(np.frombuffer(self.world.tops, np.uint8), axis=0)
        array = codes.reshape(self.world.height, self.world.width, 3).transpose(1, 0, 2)
        return array, {"text": self.text(), "rules": self.rules(), "step_count": self.step_count}

    def render(self) -> str | np.ndarray | None:
        if self.render_mode is None:
            return super().render()
        return self.text() if self.render_mode == "ansi" else picture(self.world)


BROKEN = "[...] IS YOU rule was broken, environment reset"  # the benchmark's own words
GOAL = ("Win the level: bring something that IS YOU onto something that IS WIN. Only the active rules count. "
        "Where no rule makes anything WIN, or the way is blocked, push words to make or break rules first.")  # fmt: skip


class BabaIsAI(Domain):
    """Baba Is AI in words, as ALMA's agent plays it: 53 levels, 20 steps an episode.

    ## Action Space
    One of the words idle, up, right, down, left.

    ## Observation Space
    The text of `BabaIsAIEnv`. Where nobody visible is YOU, after a step or a reset, the level starts again with a new
    layout from the episode's own generator, as a line before the text says. The steps are not counted anew.

    ## Rewards
    1 for the step that wins the level, else 0.

    ## Starting State
    The layout that the seed decides.

    ## Episode End
    Terminated when the level is won, truncated after 20 steps.

    ## Arguments
    `task`: one of the 53 names in `babaisai_levels.LEVELS`, with or without the prefix `env/`."""

    name = "babaisai"
    max_steps = 20
    offline_passes = (5, 6)  # few of its tasks tell designs apart, and its episodes are the shortest
    action_descriptions: ClassVar[dict[str, str]] = {
        "idle": "wait for one step",
        "up": "move what is YOU one cell up", "right": "move what is YOU one cell to the right",
        "down": "move what is YOU one cell down", "left": "move what is YOU one cell to the left",
    }  # fmt: skip

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        super().__init__(task if task is None else level_id(task, UserError), render_mode)

    @classmethod
    def tasks(cls) -> list[Task]:
        """26 learning and 27 test tasks, in the order of the authors' shuffle."""
        levels, tasks = list(LEVELS), []
        random.Random(42).shuffle(levels)
        for place, level in enumerate(levels):
            family = re.sub("(-distr|-irrelevant|-fixed|#).*", "", level)  # "make_win", "two_room-break_stop-goto_win"
            split = "learning" if place < len(levels) // 2 else "test"
            tasks.append(Task(level, split, family, "engine", derive_seed("babaisai", level)))
        return tasks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed, options=options)
        level = level_id(self.task, UserError)
        if self.engine is None or self.engine.level != level:
            self.engine = BabaIsAIEnv(level)
        self.engine.np_random = self.np_random  # so new layouts within the episode follow from its seed
        self._success = False
        self.text = self._playable(self.engine.reset()[1]["text"])
        return self.text, self.info({"obs": self.text, "goal": GOAL}, list(ACTIONS), GOAL, False, True)

    def step(self, action: str):
        self.steps += 1
        reward, valid = 0.0, action in ACTIONS
        if valid:
            _, points, _, _, engine_info = self.engine.step(ACTIONS.index(action))
            reward, self._success = float(points > 0 and not self._success), self._success or points > 0
            observation = self.text = self._playable(engine_info["text"])
        else:
            observation = f"{action[:60]!a} is not valid. Valid actions: {', '.join(ACTIONS)}.\n{self.text}"
        info = self.info({"obs": observation}, list(ACTIONS), GOAL, self._success, valid)
        return observation, reward, self._success, self.steps >= self.max_steps, info

    def _playable(self, text: str) -> str:
        """The text, or that of a new layout where nobody is YOU. Differs from the benchmark, which appends the old
        rules without a newline and quotes the new text inside the representation of a Python dictionary."""
        while self.engine.world.player() is None:
            text = f"{BROKEN}\n{self.engine.reset()[1]['text']}"
        return text
