"""Makes the games of the TextWorld domain and keeps them under `cache_dir()`.

The package's own generators make a game from its recipe alone, with a fixed hash seed, order of files
and generator, so two machines make the same game. A game appears in the cache whole or not at all, a
damaged one is made again, and processes that need the same game at once do not disturb each other.
Making a game takes 2 to 5 s. The generators are slow to import and run in a process of their own, so they
are imported in functions.
"""

import contextlib
import dataclasses
import fcntl
import glob
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import envs
from errors import InfrastructureError

GAMES = 26  # of each family; the first half of each is learned from, the second half is tested on
SPLITS = {"treasure_hunter": ("learning", "test"), "cooking": ("learning", "test"),
          "coin_collector": ("shift", "shift")}
TOO_EASY = 20  # a treasure hunter game whose solution has at most this many commands is not used
# The attempt that gives each treasure hunter game; all earlier attempts fail or are too easy.
FIRST_ATTEMPT = (1, 25, 7, 11, 1, 9, 0, 12, 6, 8, 13, 0, 39, 34, 5, 2, 3, 3, 3, 1, 1, 11, 3, 1, 7, 3)
GAME = "tw-game"  # jericho recognises TextWorld's games by "tw-" and drops the status line of their answers
MAKING_TIMEOUT = 900  # seconds, for one game on a busy machine


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a game: the same recipe gives the same game."""

    task: str  # "cooking-03"
    family: str  # a key of SPLITS
    seed: int  # of the package's generators
    settings: tuple[tuple[str, Any], ...]  # of the family's generator

    @property
    def folder(self) -> str:
        """Name of the game's folder in the cache; it changes with the recipe and with the package."""
        digest = hashlib.sha256(json.dumps([self.family, self.seed, self.settings]).encode()).hexdigest()
        return f"{self.task}-textworld{version('textworld')}-{digest[:12]}"


def recipe(task: str) -> Recipe:
    """The recipe of a task id, at the difficulty of BALROG. Raises ValueError for an unknown id."""
    family, _, number = task.rpartition("-")
    if family not in SPLITS or not number.isdecimal() or int(number) >= GAMES:
        raise ValueError(f"task={task!r} is unknown; `alma.py tasks --env textworld` lists the tasks")
    if family == "treasure_hunter":
        settings = {"mode": "hard", "rooms": 20, "quest": TOO_EASY + 1, "attempt": FIRST_ATTEMPT[int(number)]}
    elif family == "cooking":  # 1, 2, 3, 4, 5, 1, ... ingredients
        ingredients = int(number) % 5 + 1
        settings = {"recipe": ingredients, "take": ingredients, "open": True, "cook": True, "cut": True,
                    "drop": True, "go": 12, "recipe_seed": 0, "split": ""}
    else:  # level 101 to 200: twice as many rooms as the path is long, one side room at each
        settings = {"level": 120}
    return Recipe(task, family, envs.derive_seed("textworld", task), tuple(settings.items()))


def limited_options(effort: int):
    """The package's options with a search for a quest that gives up after `effort` choices.

    The search is depth-first and unbounded: most seeds find a quest at once or not within minutes.
    Choices are counted, and not seconds, so that every machine gives up at the same point.
    """
    from textworld import GameOptions
    from textworld.generator import QuestGenerationError

    class Limited:
        def __init__(self, generator):
            self.generator, self.left = generator, effort

        def __getattr__(self, name: str):
            return getattr(self.generator, name)

        def shuffle(self, choices) -> None:
            self.left -= 1
            if self.left < 0:
                raise QuestGenerationError(f"no quest after {effort} choices")
            self.generator.shuffle(choices)

    class LimitedOptions(GameOptions):
        @property
        def rngs(self):
            generators = super().rngs
            return generators | {"quest": Limited(generators["quest"])}

    return LimitedOptions()


def make_treasure_hunter(which: Recipe):
    """A game of the package's hardest mode whose own solution is long enough: the first of several attempts.

    Level 30 asks for a quest of 20 commands, which is never long enough, so this is level 30 with a
    quest one command longer.
    """
    from textworld.challenges.tw_treasure_hunter import treasure_hunter
    from textworld.generator import QuestGenerationError
    from textworld.generator.data import KnowledgeBase

    settings = dict(which.settings)
    knowledge = KnowledgeBase.load(treasure_hunter.KB_PATH)
    for attempt in itertools.count(settings["attempt"]):
        options = limited_options(settings["quest"] + 5)
        options.seeds = envs.derive_seed(which.seed, attempt)
        options.kb, options.nb_rooms, options.quest_length = knowledge, settings["rooms"], settings["quest"]
        options.grammar.only_last_action = True  # else the objective lists the whole solution
        with contextlib.suppress(QuestGenerationError):
            game = treasure_hunter.make_game(settings["mode"], options)
            if len(game.walkthrough) > TOO_EASY:
                game.metadata["attempt"] = attempt
                return game


def instantiations(state, rule, mapping=None, facts=None):
    """All actions that a rule allows in a state: what textworld's State.all_instantiations yields.

    The package compares every fact with every other and sorts them each time, which takes most of the
    time of making a treasure hunter game. Looking facts up by a variable that is already bound gives the
    same actions in the same order in an eighth of the time. `facts` keeps these tables for a state:
    (signature, position) -> variable there -> facts in order.
    """
    facts = {} if facts is None else facts
    found = [dict(mapping or {})]
    for predicate in rule.preconditions:
        found = [more for known in found for more in matches(state, facts, predicate, known)]
    assert all(placeholder in known for known in found for placeholder in rule.placeholders), rule
    return (rule.instantiate(known) for known in found)


def matches(state, facts: dict, predicate, known: dict):
    """The ways to extend the assignment `known` by one fact of `predicate`."""
    signature = predicate.signature
    bound = next((i for i, placeholder in enumerate(predicate.parameters) if placeholder in known), None)
    if (signature, bound) not in facts:
        # Facts of the signature and its subtypes in the package's order, by their variable at `bound`.
        table = facts[signature, bound] = defaultdict(list)
        types = state._logic.types
        for subtypes in types.multi_subtypes([types.get(name) for name in signature.types]):
            exact = type(signature)(signature.name, [subtype.name for subtype in subtypes])
            for fact in sorted(state.facts_with_signature(exact)):
                table[None if bound is None else fact.arguments[bound]].append(fact)
    variable = None if bound is None else known[predicate.parameters[bound]]
    for fact in facts[signature, bound].get(variable, ()):
        more = dict(known)
        for placeholder, argument in zip(predicate.parameters, fact.arguments, strict=True):
            taken = placeholder not in more and argument in more.values()  # no variable stands twice
            if taken or more.get(placeholder, argument) != argument:
                break
            more[placeholder] = argument
        else:
            yield more


def write_game(task: str, folder: Path) -> None:
    """Make the game of a task in an empty folder: its two files and, last, their checksums."""
    import textworld
    from textworld.challenges.tw_coin_collector import coin_collector
    from textworld.challenges.tw_cooking import cooking
    from textworld.generator import compile_game

    which = recipe(task)
    textworld.g_rng.set_seed(which.seed)  # the package's global generator, which it uses in some places
    if which.family == "treasure_hunter":
        game = make_treasure_hunter(which)
    else:
        options = textworld.GameOptions()
        options.seeds = which.seed
        options.grammar.only_last_action = True  # else the objective lists the whole way to the coin
        generator = {"cooking": cooking, "coin_collector": coin_collector}[which.family]
        game = generator.make(dict(which.settings), options)
    options = textworld.GameOptions()
    options.path = str(folder / f"{GAME}.z8")
    options.force_recompile = True
    compile_game(game, options)
    (folder / f"{GAME}.ni").unlink(missing_ok=True)  # the source, as large as the game itself
    sums = {name: checksum(folder / name) for name in (f"{GAME}.z8", f"{GAME}.json")}
    (folder / "complete.json").write_text(json.dumps(sums))


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_whole(folder: Path) -> bool:
    """Whether a game is there and unchanged since it was written."""
    try:
        sums = json.loads((folder / "complete.json").read_text())
        return bool(sums) and all(checksum(folder / name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError):  # missing, half-written or of another kind
        return False


def cached(task: str) -> Path:
    """Where the game of a task is kept, whether it is there or not."""
    return envs.cache_dir() / "textworld" / recipe(task).folder


def ensure(task: str) -> Path:
    """The folder of a task's game, which is made first if it is missing or damaged."""
    ensure_all([task])
    return cached(task)


def ensure_all(tasks: Iterable[str]) -> None:
    """Make the missing games of several tasks, in one process of its own that imports the generators.

    Raises InfrastructureError with what the process printed.
    """
    missing = [task for task in tasks if not is_whole(cached(task))]
    if missing:
        environment = dict(os.environ, ALMA_CACHE=str(envs.cache_dir().absolute()), PYTHONHASHSEED="0",
                           PYTHONWARNINGS="ignore", OPENBLAS_NUM_THREADS="1")
        maker = subprocess.run(
            [sys.executable, "-m", "domains.textworld_games", *missing], cwd=Path(__file__).parents[1],
            env=environment, capture_output=True, text=True, errors="replace", check=False)
        for task in missing:
            if not is_whole(cached(task)):
                said = maker.stderr.strip()[-500:]
                raise InfrastructureError(f"could not make the TextWorld game {task}: {said}")


def make(tasks: Iterable[str]) -> None:
    """Make games one after the other, up to the first that fails. The generators fix the process's hash seed.

    Several processes may need a game at once: one makes it under a lock, the others wait for it. The lock
    only saves work, because a game gets its name when it is whole. The package's grammars are read once
    (2 s), and each game is made in a fork, so no game depends on those made before it.
    """
    os.dup2(2, 1)  # the package prints to standard output
    # The package reads its grammars in the order of the disk; here in the order of their names.
    unsorted = glob.glob
    glob.glob = lambda *arguments, **options: sorted(unsorted(*arguments, **options))
    parent = os.getppid()
    for task in tasks:
        folder = cached(task)
        folder.parent.mkdir(exist_ok=True)
        with open(folder.parent / f"{folder.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_whole(folder):
                continue
            read_grammars(recipe(task).family)
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as making:
                game = Path(making) / "game"
                game.mkdir()
                child = os.fork()
                if not child:
                    signal.alarm(MAKING_TIMEOUT)
                    try:
                        write_game(task, game)
                    except Exception:
                        traceback.print_exc()  # for whoever asked, who sees that there is no game
                    finally:
                        sys.stderr.flush()
                        os._exit(0)
                os.waitpid(child, 0)
                if not is_whole(game) or os.getppid() != parent:  # else nobody waits for the games any more
                    return
                shutil.rmtree(folder, ignore_errors=True)  # a damaged one
                os.rename(game, folder)


def read_grammars(family: str) -> None:
    """Fill the package's cache of text grammars, which the children inherit."""
    from textworld.challenges.tw_coin_collector import coin_collector
    from textworld.challenges.tw_cooking import cooking
    from textworld.challenges.tw_treasure_hunter import treasure_hunter
    from textworld.generator.data import KnowledgeBase
    from textworld.generator.text_grammar import Grammar
    from textworld.logic import State

    State.all_instantiations = instantiations
    paths = {"cooking": cooking.KB_PATH, "coin_collector": coin_collector.KB_PATH}
    knowledge = KnowledgeBase.load(paths.get(family, treasure_hunter.KB_PATH))
    Grammar(kb=knowledge if family in paths else None)


if __name__ == "__main__":  # started by ensure_all
    make(sys.argv[1:])
