"""TextWorld: treasure hunter, cooking and coin collector games, played through text.

A task is one generated game (see `textworld_games`) that starts and answers alike in every process, with every seed.
The score is points over maximum points. Games need not be winnable within the step limit. The engine below is the
package's own environment without its repeated work: words, admissible commands in their order and points are those of
`textworld.start` on every game. Cached are parsed games and the actions that apply in a state; nothing is patched."""

import functools
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import jericho
import textworld
from textworld.envs import JerichoEnv, TWInform7
from textworld.generator.game import Game
from textworld.logic import Action, Proposition, Rule, State

import envs
from domains import textworld_games as games

# Words that may begin a command, besides the verbs of the game.
MORE_VERBS = frozenset(("n", "s", "e", "w", "north", "south", "east", "west", "walk", "run", "l", "x", "read", "i",
                        "inv", "z", "wait", "get", "pick", "put", "discard", "help", "goal"))
# Beginnings of the interpreter's answers to a command that it did not understand and that changed nothing.
NOT_UNDERSTOOD = (
    "That's not a verb I recognise", "You can't see any such thing", "What do you want to", "I didn't understand",
    "I only understood you", "I beg your pardon", "You must name", "You excepted something", "Which do you mean",
    "You seem to want to talk", "That noun did not make sense", "I didn't catch", "You can't use multiple objects")


class TextWorld(envs.Domain):
    """Houses in text: find and take a thing, cook a meal after a recipe, collect a coin in a maze.

    ## Action space
    Text: one command, such as "open fridge" or "take red apple from counter". `info["actions"]` has the engine's list
    of admissible commands; by default the agent is not shown it.

    ## Observation space
    Text: what the game answers. After `reset` it is the description of the first room, without the banner and without
    the objective, which is `info["goal"]`.

    ## Rewards
    Points won by the command, divided by the points of the game: an episode's rewards add up to its score, 1.0 when
    the game is won.

    ## Starting state
    A task is one generated game; it starts the same way with every seed.

    ## Episode end
    Terminated when the game is won or lost, truncated after 80 steps.

    ## Arguments
    `task`: an id that `TextWorld.tasks()` lists."""

    name = "textworld"
    max_steps = 80
    lists_actions = False  # the paper's agent does not see the admissible commands

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        """Half of each family is for learning and half for test; all of coin collector is shift."""
        tasks = []
        for family, halves in games.SPLITS.items():
            for number in range(games.GAMES):
                name, split = f"{family}-{number:02}", halves[2 * number // games.GAMES]
                tasks.append(envs.Task(name, split, family, "generated", envs.derive_seed("textworld", name)))
        return sorted(tasks, key=lambda task: ("learning", "test", "shift").index(task.split))

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
        # Without the banner and the objective, which come first; at most one empty line at a time.
        text = self.state.feedback.split(self.state.objective, 1)[-1]
        self.text = re.sub(r"\n{3,}", "\n\n", text[max(0, text.find("-=")):]).strip()
        return self.text, self._info(valid=True, goal=self.goal)

    def step(self, action: str):
        """One command: the interpreter itself would take several, and commands that save, restore or restart."""
        if self.engine is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self.steps += 1
        before, done, valid, command = self.score(), False, False, action.strip()
        verb = command.lower().partition(" ")[0]
        if re.search(r"[.,;\n]|\b(?:then|and)\b", command):
            self.text = "One command at a time."
        elif not command.isascii() or (verb not in MORE_VERBS and verb not in self.state.verbs):
            self.text = f"{NOT_UNDERSTOOD[0]}."
        else:
            self.state, _, done = self.engine.step(" ".join(command.split()))
            self.text = re.sub(r"\n{3,}", "\n\n", self.state.feedback).strip()
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


def start(folder: Path, untouched: bool = False) -> textworld.Environment:
    """The environment of a game that is kept in `folder`; `untouched`: the package's own, for comparison.
    Each episode has an interpreter of its own, so nothing of one reaches another."""
    # jericho looks for valid actions too and warns that it finds none; TextWorld's own list is used.
    warnings.filterwarnings("ignore", message="Unable to find valid actions")
    wanted = textworld.EnvInfos(objective=True, score=True, max_score=True, won=True, lost=True,
                                admissible_commands=True, verbs=True, feedback=True)
    story = folder / f"{games.GAME}.z8"
    if untouched:
        return textworld.start(str(story), wanted)
    env = JerichoEnv(wanted)
    # The package's wrappers use these two instead of reading the game and starting another interpreter.
    env._game, env._jericho = parsed(story.with_suffix(".json")), Interpreter(str(story))
    env = TWInform7(env)
    env.load(str(story))
    return env


@functools.lru_cache(maxsize=8)  # games in memory, about 2 MB each
def parsed(path: Path) -> Game:
    """A game as the package reads it, with `Facts` as its start; playing does not change it."""
    game = Game.load(str(path))
    game.world._state = Facts.copy(game.world.state)
    return game


class Interpreter(jericho.FrotzEnv):
    """The package's interpreter, which starts a game at `reset` only and not at `load` too."""

    def load(self, story_file: str, seed: int | None = None) -> None:
        self.story_file = story_file.encode()
        self.is_fully_supported = bool(self.frotz_lib.is_supported(self.story_file))
        self._bindings, self.act_gen = {}, None  # the package has them for published games only
        self._cache = {story_file: (Path(story_file).read_bytes(), self._bindings, self.act_gen)}
        self.seed(seed)

    def reset(self) -> tuple[str, dict]:
        first = super().reset()
        self.player_obj_num = self.frotz_lib.get_self_object_num()
        return first


class Facts(State):
    """The package's state, which looks up applicable actions in tables that all rules of a state share.
    Copies share the actions found: players return to states, and episodes of a game begin alike."""

    _applicable: dict[frozenset[Proposition], tuple[Action, ...]]  # by all facts, oldest first
    _tables: dict | None = None  # see `games.instantiations`: for all rules of one state

    def copy(self: State) -> "Facts":
        """A copy, also of a state of the package."""
        made = Facts(self._logic)
        vars(made).update(vars(State.copy(self)), _applicable=vars(self).get("_applicable", {}))
        return made

    def all_applicable_actions(self, rules: Iterable[Rule], mapping=None) -> Iterable[Action]:
        """As in the package; `rules` are always those of the one game that the facts belong to."""
        facts = frozenset(self.facts)
        if facts not in self._applicable:
            if len(self._applicable) == 300:  # states of a game, each with its actions, about 20 kB
                del self._applicable[next(iter(self._applicable))]
            self._tables = {}
            self._applicable[facts] = tuple(super().all_applicable_actions(rules, mapping))
            self._tables = None
        return self._applicable[facts]

    def all_instantiations(self, rule: Rule, mapping=None) -> Iterable[Action]:
        return games.instantiations(self, rule, mapping, self._tables)
