"""TextWorld: treasure hunter, cooking and coin collector games, played through text.

A task is one generated game (see `textworld_games`) that starts and answers alike in every process, with every seed.
The score is points over maximum points. Games need not be winnable within the step limit.
"""

import re
from collections.abc import Iterable
from typing import Any

import gymnasium

import envs
from domains import textworld_games as games
from domains.textworld_engine import parsed, start

# Words that may begin a command, besides the verbs of the game.
MORE_VERBS = frozenset(("n", "s", "e", "w", "north", "south", "east", "west", "walk", "run", "l", "x", "read", "i", "inv",
                        "z", "wait", "get", "pick", "put", "discard", "help", "goal"))
# Beginnings of the interpreter's answers to a command that it did not understand and that changed nothing.
NOT_UNDERSTOOD = (
    "That's not a verb I recognise", "You can't see any such thing", "What do you want to", "I didn't understand",
    "I only understood you", "I beg your pardon", "You must name", "You excepted something", "Which do you mean",
    "You seem to want to talk", "That noun did not make sense", "I didn't catch", "You can't use multiple objects")


class TextWorld(envs.Domain):
    """Houses in text: find and take a thing, cook a meal after a recipe, collect a coin in a maze.

    ## Action space
    Text: one command, such as "open fridge" or "take red apple from counter". `info["actions"]`
    has the engine's list of admissible commands; by default the agent is not shown it.

    ## Observation space
    Text: what the game answers. After `reset` it is the description of the first room, without the
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

    name = "textworld"
    max_steps = 80
    lists_actions = False  # the paper's agent does not see the admissible commands

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        """Half of each family is for learning and half for test; all of coin collector is shift."""
        tasks = []
        for split in ("learning", "test", "shift"):
            for family, halves in games.SPLITS.items():
                numbers = [n for n in range(games.GAMES) if halves[2 * n // games.GAMES] == split]
                for name in (f"{family}-{n:02}" for n in numbers):
                    tasks.append(envs.Task(name, split, family, "generated", envs.derive_seed("textworld", name)))
        return tasks

    @classmethod
    def prepare(cls, tasks: Iterable[str]) -> None:
        """Make the games of these task ids unless they are in the cache; 2 to 4 s for each."""
        for task in tasks:
            games.ensure(task)

    @classmethod
    def load(cls) -> None:
        """Have the package parse the logic of each family whose games are there (0.3 s); it keeps each."""
        for family in games.SPLITS:
            folders = (games.cached(f"{family}-{number:02}") for number in range(games.GAMES))
            if folder := next(filter(games.is_whole, folders), None):
                parsed(folder / f"{games.GAME}.json")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed, options=options)
        self.close()
        self.engine = start(games.ensure(self.task))
        self.state = self.engine.reset()
        self.goal = " ".join(self.state.objective.split())
        # Without the banner and the objective, which come first.
        text = self.state.feedback.split(self.state.objective, 1)[-1]
        self.text = spaced(text[max(0, text.find("-=")):])
        return self.text, self._info(valid=True, goal=self.goal)

    def step(self, action: str):
        """One command: the interpreter itself would take several, and commands that save, restore or restart."""
        if self.engine is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self.steps += 1
        before, done, valid = self.score(), False, False
        command = action.strip()
        verb = command.lower().partition(" ")[0]
        if re.search(r"[.,;\n]|\b(?:then|and)\b", command):
            self.text = "One command at a time."
        elif not command.isascii() or (verb not in MORE_VERBS and verb not in self.state.verbs):
            self.text = f"{NOT_UNDERSTOOD[0]}."
        else:
            self.state, _, done = self.engine.step(" ".join(command.split()))
            self.text = spaced(self.state.feedback)
            valid = not self.text.startswith(NOT_UNDERSTOOD)
        if not valid:
            self.text += f"\nValid verbs: {', '.join(self.state.verbs)}."
        truncated = not done and self.steps >= self.max_steps
        return self.text, self.score() - before, done, truncated, self._info(valid)

    def score(self) -> float:
        return 1.0 if self.state.won else (self.state.score or 0) / self.state.max_score

    def _info(self, valid: bool, **init: str) -> dict[str, Any]:
        actions = list(self.state.admissible_commands)
        record = {"obs": self.text, **init, "admissible_commands": actions}
        return self.info(record, actions, self.goal, bool(self.state.won), valid, self.score())


def spaced(text: str) -> str:
    """The text with at most one empty line at a time."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()
