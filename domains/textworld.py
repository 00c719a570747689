"""TextWorld: treasure hunter, cooking and coin collector games, played through text.

Promises: a task is one generated game (see `textworld_games`), which starts and answers alike in
every process; one command is one step, where the interpreter would take several in one line, and
commands that save, restore or restart; the task score is points over maximum points. It does not
promise that a game can be won within the step limit.

Try it: `python alma.py play --env textworld --task cooking-00`.
"""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

import envs
from domains import textworld_games as games

# The words that begin a command, besides the verbs of the game.
MORE_VERBS = frozenset((
    "n", "s", "e", "w", "north", "south", "east", "west", "walk", "run", "l", "x", "read", "i", "inv",
    "z", "wait", "get", "pick", "put", "discard", "help", "goal",
))
# What the interpreter says of a command that it did not understand. Nothing has happened then.
NOT_UNDERSTOOD = ("That's not a verb I recognise", "You can't see any such thing", "What do you want to",
                  "I didn't understand", "I only understood you", "I beg your pardon", "You must name",
                  "You excepted something", "You seem to want to talk", "That noun did not make sense",
                  "Which do you mean", "I didn't catch", "You can't use multiple objects")
SEVERAL = re.compile(r"[.,;\n]|\b(?:then|and)\b")


class TextWorld(envs.Domain):
    """Houses in text: find and take a thing, cook a meal after a recipe, collect a coin in a maze.

    ## Action space
    Text: one command, such as "open fridge" or "take red apple from counter". `info["actions"]`
    has the engine's list of admissible commands; by default the agent is not shown it.

    ## Observation space
    Text: what the game answers; after `reset` the description of the first room, without the
    banner and without the objective, which is `info["goal"]`.

    ## Rewards
    Points won by the command, divided by the points of the game: an episode's rewards add up to
    its score, 1.0 when the game is won.

    ## Starting state
    A task is one generated game; it starts the same way with every seed.

    ## Episode end
    Terminated when the game is won or lost, truncated after 80 steps.

    ## Arguments
    `task`: an id that `TextWorld.tasks()` lists.
    """

    name: ClassVar[str] = "textworld"
    max_steps: ClassVar[int] = 80
    lists_actions: ClassVar[bool] = False  # the paper's agent does not see the admissible commands

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        super().__init__(task, render_mode)
        self.engine = None
        self.state = None
        self.observation = ""
        self.steps = 0

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        """Half of each family is for learning and half for test; all of coin collector is shift."""
        tasks = []
        for split in ("learning", "test", "shift"):
            for family, halves in games.SPLITS.items():
                numbers = [n for n in range(games.GAMES) if halves[2 * n // games.GAMES] == split]
                tasks += [cls.task(f"{family}-{n:02}", split) for n in numbers]
        return tasks

    @staticmethod
    def task(name: str, split: str) -> envs.Task:
        which = games.recipe(name)
        return envs.Task(name, split, which.family, "generated", envs.derive_seed("textworld", name))

    @classmethod
    def prepare(cls, tasks: Iterable[str]) -> None:
        """Make the games of these task ids unless they are in the cache already.

        Several at once are cheaper: one process reads the package's grammars for all of them.
        """
        games.ensure_all(tasks)

    @classmethod
    def load(cls) -> None:
        """Import the package and have it parse the logic of each family whose games are there (0.3 s)."""
        from domains import textworld_engine

        for family in games.SPLITS:
            folders = (games.cached(f"{family}-{number:02}") for number in range(games.GAMES))
            if folder := next(filter(games.is_whole, folders), None):
                textworld_engine.parsed(folder / f"{games.GAME}.json")  # the package keeps each logic

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.close()
        task = (options or {}).get("task") or self.task_id or self.tasks()[0].id
        self.engine = start(games.ensure(task))
        self.state = self.engine.reset()
        self.steps = 0
        self.goal = " ".join(self.state.objective.split())
        self.observation = first_room(self.state.feedback, self.state.objective)
        record = {"obs": self.observation, "goal": self.goal,
                  "admissible_commands": list(self.state.admissible_commands)}
        return self.observation, self.info(record, valid=True)

    def step(self, action: str):
        if self.engine is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self.steps += 1
        before, done = self.score(), False
        command = " ".join(action.split())
        refusal = self.refusal(action.strip())
        if refusal is None:
            self.state, _, done = self.engine.step(command)
            self.observation = spaced(self.state.feedback)
            if self.observation.startswith(NOT_UNDERSTOOD):
                refusal = self.observation
        if refusal is not None:
            self.observation = f"{refusal}\nValid verbs: {', '.join(self.state.verbs)}."
        record = {"obs": self.observation, "admissible_commands": list(self.state.admissible_commands)}
        truncated = not done and self.steps >= self.max_steps
        info = self.info(record, valid=refusal is None)
        return self.observation, self.score() - before, done, truncated, info

    def refusal(self, command: str) -> str | None:
        """Why a command does not go to the interpreter, which knows words like "restore"; else None."""
        if SEVERAL.search(command):
            return "One command at a time."
        verb = command.lower().partition(" ")[0]
        known = verb in MORE_VERBS or verb in self.state.verbs
        return None if known and command.isascii() else NOT_UNDERSTOOD[0] + "."

    def score(self) -> float:
        if self.state.won:
            return 1.0
        return (self.state.score or 0) / self.state.max_score

    def info(self, record: dict[str, Any], valid: bool) -> dict[str, Any]:
        return {
            "record": record,
            "now": "",
            "actions": record["admissible_commands"],
            "goal": self.goal,
            "score": self.score(),
            "success": bool(self.state.won),
            "valid": valid,
        }

    def render(self) -> str:
        return self.observation

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None


def start(folder: Path, untouched: bool = False):
    """The environment of a game, asked for what we show and no more; `untouched`: the package's own."""
    import textworld

    from domains import textworld_engine

    # jericho looks for valid actions too and warns that it finds none; TextWorld's own list is used.
    warnings.filterwarnings("ignore", message="Unable to find valid actions")
    wanted = textworld.EnvInfos(objective=True, score=True, max_score=True, won=True, lost=True,
                                admissible_commands=True, verbs=True, feedback=True)
    story = folder / f"{games.GAME}.z8"
    return textworld.start(str(story), wanted) if untouched else textworld_engine.start(story, wanted)


def first_room(feedback: str, objective: str) -> str:
    """The first reply without the banner and the objective."""
    _, found, rest = feedback.partition(objective)
    text = rest if found else feedback
    return spaced(text[max(0, text.find("-=")):])


def spaced(text: str) -> str:
    """The text with at most one empty line at a time."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()
