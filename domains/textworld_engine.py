"""The engine of TextWorld's games, fast: the package's own environment without its repeated work.

Words, admissible commands in their order and points are those of `textworld.start` on every game. Cached are parsed
games and the actions that apply in a state. Each episode has an interpreter of its own, so nothing of one reaches
another. Nothing of the package is patched.
"""

import functools
import warnings
from collections.abc import Iterable
from pathlib import Path

import jericho
import textworld
from textworld.envs import JerichoEnv, TWInform7
from textworld.generator.game import Game
from textworld.logic import Action, Proposition, Rule, State

from domains.textworld_games import GAME, instantiations


def start(folder: Path, untouched: bool = False) -> textworld.Environment:
    """The environment of a game that is kept in `folder`; `untouched`: the package's own, for comparison."""
    # jericho looks for valid actions too and warns that it finds none; TextWorld's own list is used.
    warnings.filterwarnings("ignore", message="Unable to find valid actions")
    wanted = textworld.EnvInfos(objective=True, score=True, max_score=True, won=True, lost=True,
                                admissible_commands=True, verbs=True, feedback=True)
    story = folder / f"{GAME}.z8"
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

    Copies share the actions found: players return to states, and episodes of a game begin alike.
    """

    _applicable: dict[frozenset[Proposition], tuple[Action, ...]]  # by all facts, oldest first
    _tables: dict | None = None  # see `instantiations`: for all rules of one state

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
        return instantiations(self, rule, mapping, self._tables)
