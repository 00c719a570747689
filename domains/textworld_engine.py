"""The engine of TextWorld's games, fast: the package's own environment that does nothing twice.

Promises: the words, the admissible commands, in their order, and the points of `textworld.start` on every
game; `tests/test_textworld.py` plays both side by side. Kept are parsed games, the actions that apply in
a state and, while it holds, the facts that rules look up. Each episode has an interpreter of its own, so
nothing of one reaches another. Nothing of the package is patched.

Try it: `python -c "import envs_textworld; print(envs_textworld.bench_steps(4))"`
"""

import functools
from collections.abc import Iterable
from pathlib import Path

import jericho
import textworld
from textworld.envs import JerichoEnv, TWInform7
from textworld.generator.game import Game
from textworld.logic import Action, Proposition, Rule, State

from domains.textworld_games import instantiations

GAMES_KEPT = 8  # parsed games in memory, about 2 MB each
STATES_KEPT = 300  # of a game, each with its actions, about 20 kB


def start(story: Path, wanted: textworld.EnvInfos) -> textworld.Environment:
    """As `textworld.start`, of a game that the package has made."""
    env = TWInform7(KeptGame(wanted, parsed(story.with_suffix(".json"))))
    env.load(str(story))
    return env


class KeptGame(JerichoEnv):
    """The package's link to the interpreter. Its wrappers take `_game` where there is one."""

    def __init__(self, infos: textworld.EnvInfos, game: Game):
        super().__init__(infos)
        self._game = game

    def load(self, z_file: str) -> None:
        self.gamefile = z_file
        self._jericho = Interpreter(z_file, self._seed)


@functools.lru_cache(maxsize=GAMES_KEPT)
def parsed(path: Path) -> Game:
    """A game as the package reads it; playing does not change it. Its start knows its facts by heart."""
    game = Game.load(str(path))
    game.world._state = Facts.of(game.world.state)
    return game


class Interpreter(jericho.FrotzEnv):
    """The package's interpreter, which starts a game once: at `reset`, and not at `load` already."""

    def load(self, story_file: str, seed: int | None = None) -> None:
        self.story_file = story_file.encode()
        self.is_fully_supported = bool(self.frotz_lib.is_supported(self.story_file))
        self._bindings, self.act_gen = {}, None  # it has some of published games alone
        self._cache = {story_file: (Path(story_file).read_bytes(), self._bindings, self.act_gen)}
        self.seed(seed)

    def reset(self) -> tuple[str, dict]:
        first = super().reset()
        self.player_obj_num = self.frotz_lib.get_self_object_num()
        return first


class Facts(State):
    """The package's facts; what applies in them is looked up in tables that are kept while they hold.

    Copies share what was found to apply: players walk to and fro, and begin where others began.
    """

    def __init__(self, logic, facts=None):
        self._applicable: dict[frozenset[Proposition], tuple[Action, ...]] = {}  # by all facts, the oldest first
        self._tables: dict[tuple, dict] = {}  # (signature, position) -> variable there -> facts in order
        super().__init__(logic, facts)

    @classmethod
    def of(cls, state: State) -> "Facts":
        """A copy of a state of the package."""
        made = cls(state._logic)
        vars(made).update(vars(State.copy(state)))
        return made

    def copy(self) -> "Facts":
        made = Facts.of(self)
        made._applicable = self._applicable
        return made

    def all_applicable_actions(self, rules: Iterable[Rule], mapping=None) -> Iterable[Action]:
        """As in the package, for the rules of the one game that these are the facts of."""
        facts = frozenset(self.facts)
        if facts not in self._applicable:
            if len(self._applicable) == STATES_KEPT:
                del self._applicable[next(iter(self._applicable))]
            self._applicable[facts] = tuple(super().all_applicable_actions(rules, mapping))
        return self._applicable[facts]

    def add_fact(self, prop: Proposition) -> None:
        self._forget(prop)
        super().add_fact(prop)

    def remove_fact(self, prop: Proposition) -> None:
        self._forget(prop)
        super().remove_fact(prop)

    def _forget(self, prop: Proposition) -> None:
        """A table has the facts of all subtypes, so what has the name of a fact is made again."""
        for key in [key for key in self._tables if key[0].name == prop.name]:
            del self._tables[key]

    def all_instantiations(self, rule: Rule, mapping=None) -> Iterable[Action]:
        if _is_bound(rule):
            return instantiations(self, rule, mapping, self._tables)
        return super().all_instantiations(rule, mapping)


@functools.cache
def _is_bound(rule: Rule) -> bool:
    """Whether what a rule needs names all that it is about; few rules of cooking games make things up."""
    return set(rule.placeholders) <= {one for predicate in rule.preconditions for one in predicate.parameters}
