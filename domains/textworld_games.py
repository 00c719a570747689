"""Makes the games of the TextWorld domain and keeps them under `cache_dir()`.

The package's own generators make a game from its recipe alone, with a fixed hash seed, order of files and generator,
so two machines make the same game; it takes 2 to 4 s. A game appears in the cache whole or not at all. The generators
are slow to import and run in a process of their own, so they are imported in functions."""

import fcntl
import glob
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import envs
from errors import InfrastructureError

GAMES = 26  # of each family; the first half of each is learned from, the second half is tested on
SPLITS = {"treasure_hunter": ("learning", "test"), "cooking": ("learning", "test"), "coin_collector": ("shift",) * 2}
TOO_EASY = 20  # a treasure hunter game whose solution has at most this many commands is not used
# The first attempt that gives each treasure hunter game. The attempts before it give a game that is too easy,
# or none, because their search for a quest does not end within minutes.
ATTEMPTS = (1, 25, 7, 11, 1, 9, 0, 12, 6, 8, 13, 0, 39, 34, 5, 2, 3, 3, 3, 1, 1, 11, 3, 1, 7, 3)
GAME = "tw-game"  # jericho recognises TextWorld's games by "tw-" and drops the status line of their answers
MAKING_TIMEOUT = 900  # seconds, for making one game on a busy machine


def recipe(task: str) -> tuple[str, int, dict[str, Any]]:
    """A game's family, seed and generator settings, at the difficulty of BALROG. ValueError for an unknown task id."""
    family, _, number = task.rpartition("-")
    if family not in SPLITS or not number.isdecimal() or int(number) >= GAMES:
        raise ValueError(f"task={task!r} is unknown; `alma.py tasks --env textworld` lists the tasks")
    settings: dict[str, Any] = {"level": 120}  # 20 over 100: a path of 20 rooms, with a side room at each
    if family == "treasure_hunter":
        # Level 30 asks for a quest of 20 commands, which is never long enough: this is one more.
        settings = {"mode": "hard", "rooms": 20, "quest": TOO_EASY + 1, "attempt": ATTEMPTS[int(number)]}
    elif family == "cooking":  # 1, 2, 3, 4, 5, 1, ... ingredients
        ingredients = int(number) % 5 + 1
        settings = {"recipe": ingredients, "take": ingredients, "open": True, "cook": True, "cut": True,
                    "drop": True, "go": 12, "recipe_seed": 0, "split": ""}
    return family, envs.derive_seed("textworld", task), settings


def cached(task: str) -> Path:
    """Where the game of a task is kept, whether it is there or not; depends on its recipe and the package."""
    family, seed, settings = recipe(task)
    digest = hashlib.sha256(json.dumps([family, seed, list(settings.items())]).encode()).hexdigest()
    return envs.cache_dir() / "textworld" / f"{task}-textworld{version('textworld')}-{digest[:12]}"


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def is_whole(folder: Path) -> bool:
    """Whether a game is there and unchanged since it was written."""
    try:
        sums = json.loads((folder / "complete.json").read_text())
        return bool(sums) and checksums(folder, sums) == sums
    except (OSError, ValueError, TypeError):  # missing, half-written or of another kind
        return False


def ensure(task: str) -> Path:
    """The folder of a task's game, made first if it is missing or damaged. InfrastructureError if it cannot be made."""
    folder = cached(task)
    if not is_whole(folder):
        environment = dict(os.environ, ALMA_CACHE=str(envs.cache_dir().absolute()), PYTHONHASHSEED="0",
                           PYTHONWARNINGS="ignore", OPENBLAS_NUM_THREADS="1")
        maker = subprocess.run([sys.executable, "-m", "domains.textworld_games", task], cwd=Path(__file__).parents[1],
                               env=environment, capture_output=True, text=True, errors="replace", check=False)
        if not is_whole(folder):
            raise InfrastructureError(f"could not make the TextWorld game {task}: {maker.stderr.strip()[-500:]}")
    return folder


def make(task: str) -> None:
    """Make a game in this process, whose hash seed the generators need to be fixed. Of several processes one makes it
    and the others wait: the lock only saves work, for a game is renamed when it is whole."""
    os.dup2(2, 1)  # the package prints to standard output
    # The package reads its grammars in the order of the disk; here in the order of their names.
    unsorted = glob.glob
    glob.glob = lambda *arguments, **options: sorted(unsorted(*arguments, **options))
    from textworld.logic import State
    from textworld.textgen import TextGrammar

    State.all_instantiations, TextGrammar.parse = instantiations, parse_text_grammar
    folder = cached(task)
    folder.parent.mkdir(exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_whole(folder):
            return
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"it took more than {MAKING_TIMEOUT} seconds"))
        signal.alarm(MAKING_TIMEOUT)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as making:
            game = Path(making) / "game"
            game.mkdir()
            write_game(task, game)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            os.rename(game, folder)


def write_game(task: str, folder: Path) -> None:
    """Make the game of a task in an empty folder: its two files and, last, their checksums."""
    import textworld.generator.data

    family, seed, settings = recipe(task)
    challenge = importlib.import_module(f"textworld.challenges.tw_{family}.{family}")
    textworld.g_rng.set_seed(seed)  # the package's global generator, which it uses in some places
    options = textworld.GameOptions()
    options.grammar.only_last_action = True  # else the objective lists the whole solution
    if family == "treasure_hunter":
        options.seeds = envs.derive_seed(seed, settings["attempt"])
        options.kb = textworld.generator.data.KnowledgeBase.load(challenge.KB_PATH)
        options.nb_rooms, options.quest_length = settings["rooms"], settings["quest"]
        game = challenge.make_game(settings["mode"], options)
        game.metadata["attempt"] = settings["attempt"]
        if len(game.walkthrough) <= TOO_EASY:
            raise RuntimeError(f"the game is won by {len(game.walkthrough)} commands")
    else:
        options.seeds = seed
        game = challenge.make(settings, options)
    options.path = str(folder / f"{GAME}.z8")
    textworld.generator.compile_game(game, options)
    (folder / f"{GAME}.ni").unlink(missing_ok=True)  # the source, as large as the game itself
    (folder / "complete.json").write_text(json.dumps(checksums(folder, (f"{GAME}.z8", f"{GAME}.json"))))


def parse_text_grammar(text: str, filename: str | None = None):
    """What textworld's TextGrammar.parse returns for the package's own files, in 1 % of the time: its generated parser
    takes most of the time of making a game. A rule is a line: "symbol: noun; adjective | noun; noun <-> noun". In
    brackets, separators are part of a text."""
    from textworld import textgen

    def split(separator: str, text: str) -> list[str]:
        return [part.strip() for part in re.split(separator + r"(?![^\[\]]*\])(?![^()]*\))", text)]

    def alternative(text: str):
        if len(pair := split("<->", text)) == 2:
            return textgen.MatchAlternative(*map(alternative, pair))
        words = [part.replace("\\n", "\n") for part in split(r"\|", text)]
        kind = textgen.AdjectiveNounAlternative if len(words) == 2 else textgen.LiteralAlternative
        return kind(*words)

    rules = []
    for line in text.splitlines():
        symbol, colon, right = line.partition(":")
        if colon and not line.startswith("#"):
            alternatives = [alternative(one) for one in split(";", right) if one]
            rules.append(textgen.ProductionRule(symbol.strip(), alternatives))
    return textgen.TextGrammar(rules)


def instantiations(state, rule, mapping=None, facts=None):
    """All actions that a rule allows in a state: what textworld's State.all_instantiations yields, 8 times as fast.
    The package compares every fact with every other and sorts them each time; here a variable that is already bound
    finds them in order. `facts` keeps a state's tables: (signature, position) -> variable there -> facts in order."""
    named = {one for predicate in rule.preconditions for one in predicate.parameters}
    if not named.issuperset(rule.placeholders):  # a few rules of cooking games create new entities
        return map(rule.instantiate, state.all_assignments(rule, mapping))
    facts = {} if facts is None else facts
    found = [dict(mapping or {})]  # the assignments that the preconditions so far allow: all of the same placeholders
    for predicate in rule.preconditions:
        signature, parameters = predicate.signature, predicate.parameters
        bound = next((i for i, placeholder in enumerate(parameters) if placeholder in found[0]), None)
        if (signature, bound) not in facts:
            # Facts of the signature and its subtypes in the package's order, by their variable at `bound`.
            table = facts[signature, bound] = defaultdict(list)
            types = state._logic.types
            for subtypes in types.multi_subtypes([types.get(name) for name in signature.types]):
                exact = type(signature)(signature.name, [subtype.name for subtype in subtypes])
                for fact in sorted(state.facts_with_signature(exact), key=lambda fact: fact.names):
                    table[None if bound is None else fact.arguments[bound]].append(fact)
        known, found = found, []
        for one in known:
            for fact in facts[signature, bound].get(None if bound is None else one[parameters[bound]], ()):
                more = dict(one)
                for placeholder, argument in zip(parameters, fact.arguments, strict=True):
                    taken = placeholder not in more and argument in more.values()  # no variable stands twice
                    if taken or more.setdefault(placeholder, argument) != argument:
                        break
                else:
                    found.append(more)
        if not found:
            break
    return map(rule.instantiate, found)


if __name__ == "__main__":  # started by `ensure`
    make(sys.argv[1])
