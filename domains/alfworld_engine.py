"""The text engine of ALFWorld's games, fast: the `textworld` package's `PddlEnv` without its repeated work.

Words, admissible commands and wins are those of `PddlEnv` under `alfworld`'s `AlfredDemangler`, on every game.
Cached are translated problems (on disk, by a hash of their text), parsed grammars, and the commands of operators;
the rules stay in the package's `libdownward`. Nothing of the package is patched. Types are not looked at:
ALFWorld's have no subtypes, and a predicate's arguments and a grammar's slots have the same types everywhere."""

import bisect
import contextlib
import ctypes
import functools
import gzip
import hashlib
import json
import os
import re
import secrets
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import fast_downward
from fast_downward.interface import DOWNWARD_LIB_PATH, Operator
from textworld.envs.pddl import logic, textgen
from textworld.generator.game import EntityInfo
from textworld.logic import Rule

from errors import InfrastructureError

FORMAT = 3  # of the files in the cache; raise it when `translation` changes
NOTHING = "Nothing happens."  # the answer to an invalid command

# libdownward keeps its game in globals, so each engine needs a library of its own: the first of a process has the
# installed file, others at the same time a copy (33 MB, 0.2 s). Engines return their library for reuse: unloading one
# while another is loaded crashes the process when it exits.
_FREE_LIBRARIES: list[ctypes.CDLL | None] = [None]  # the installed file, which is not loaded yet


class GameError(ValueError):
    """The engine cannot play a game; the message says why."""


def translation(domain: str, problem: str, folder: Path) -> dict:
    """A PDDL problem in the form that libdownward takes, and what the text needs of it. Raises GameError.
    The translator takes half a second: what it makes is kept in `folder`. A damaged file is made again."""
    text = json.dumps([FORMAT, version("textworld"), version("fast-downward-textworld"), domain, problem])
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.gz"
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error):
        return json.loads(gzip.decompress(path.read_bytes()))
    arguments = sys.argv
    try:
        task, sas = fast_downward.pddl2sas(domain, problem)
    except (Exception, SystemExit) as error:
        # The translator has no error type of its own: any exception means that the text is wrong.
        raise GameError(f"the engine rejects the PDDL text: {error!r:.200}") from error
    finally:
        sys.argv = arguments  # the translator changes them
    # As in the package: equality and the costs of actions are no facts, other functions are.
    facts = []
    for atom in task.init:
        if hasattr(atom, "predicate"):
            if atom.predicate != "=":
                facts.append([atom.predicate, *atom.args])
        elif atom.fluent.symbol != "total-cost" and not str(atom.expression.value).isdigit():
            facts.append([str(atom.expression.value), *atom.fluent.args])
    made = {
        "sas": sas,  # the planning task, in Fast Downward's SAS format
        "slots": {action.name: [one.name.strip("?") for one in action.parameters] for action in task.actions},
        "types": {thing.name: thing.type_name for thing in task.objects},
        "facts": facts,  # what is true at the start: a predicate and its arguments
    }
    # Renamed when it is whole: another process never sees half a file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(json.dumps(made).encode(), 4, mtime=0))
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InfrastructureError(f"cannot write {path}: {error}; ALMA_CACHE sets the folder") from error
    return made


def parse_grammar(text: str) -> tuple[dict, dict]:
    """A game's actions, each with the symbols of its command and answer, and the grammar's rules. Raises GameError."""
    # Official games differ only in the sentence of the task, so the rest is parsed once, in a fifth of a second.
    task = re.search(r'"(Your task is to: [^"\\]*)"', text)
    try:
        actions, rules = _parse_grammar(text.replace(task[0], '""', 1) if task else text)
    except Exception as error:
        # The parser is generated and so are its errors: any exception means that the text is wrong.
        raise GameError(f"the engine rejects the grammar: {error!r:.200}") from error
    if task:
        rules = rules | {"task": [textgen.ProductionRule("task", [textgen.TerminalSymbol(task[1])])]}
    return actions, rules


@functools.lru_cache(maxsize=4)
def _parse_grammar(text: str) -> tuple[dict, dict]:
    def symbols(phrase: str) -> list:
        grammar = textgen.ContextSensitiveGrammar.parse(json.dumps({"phrase": [{"rhs": phrase}]}))
        return grammar._rules["phrase"][0].rhs

    parsed = logic.GameLogic(domain="", grammar=text)
    actions = {name: (symbols(one.template), symbols(one.feedback_rule)) for name, one in parsed.actions.items()}
    return actions, dict(parsed.grammar._rules)


@functools.cache
def _condition(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The predicates of a condition in a grammar, each with its slots."""
    rule = Rule.parse_conjunctive_query(text)
    return tuple((item.name, tuple(slot.name for slot in item.parameters)) for item in rule.preconditions)


_compile = functools.cache(compile)  # the few expressions of a grammar


def entity_names(entities: Iterable[str]) -> dict[str, str]:
    """What players read: "cabinet 3", numbered as by `alfworld`'s Demangler: by kind, from the alphabet's end."""
    names, counts = {}, Counter()
    for entity in sorted(entities, reverse=True):
        kind, _, place = entity.partition("_bar_")
        kind += "basin" if place and "basin" in entity else ""
        counts[kind] += 1
        names[entity] = f"{kind} {counts[kind]}" if place else f"{entity} "
    return names


class Game:
    """What does not change while a game is played. Raises GameError."""

    def __init__(self, domain: str, problem: str, grammar: str, folder: Path):
        self.actions, self.rules = parse_grammar(grammar)
        made = translation(domain, problem, folder)
        self.sas, self.slots = made["sas"].encode(), made["slots"]  # slots of each action
        if missing := sorted(set(self.slots) - set(self.actions)):
            raise GameError(f"the grammar has no template for the action {missing[0]!r}")
        self.start: dict[str, list[tuple[str, ...]]] = defaultdict(list)  # what is true at first, sorted
        for name, *arguments in sorted(set(map(tuple, made["facts"]))):
            self.start[name].append(tuple(arguments))
        self.entities: dict[str, EntityInfo] = {}  # all that facts speak of
        for entity, name in entity_names({one for fact in made["facts"] for one in fact[1:]}).items():
            info = self.entities[entity] = EntityInfo(entity, made["types"][entity])
            info.name, info.definite, info.indefinite = name, "the", "a"
        # Command, action and mapping of an operator, by its id: they depend on facts that never change.
        self.commands: dict[int, tuple[str, str, dict]] = {}


prepare = functools.lru_cache(maxsize=8)(Game)  # prepared games in memory, about 3 MB each


class Engine:
    """Plays one game at a time, and keeps translations in `folder`.
    After `reset` and each `step`, `commands` are the admissible ones, sorted, and `won` says if the game is won."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._library = _FREE_LIBRARIES.pop(0) if _FREE_LIBRARIES else fast_downward.load_lib()
        if self._library is None:
            self._library = ctypes.CDLL(str(DOWNWARD_LIB_PATH))
            self._library.check_goal.restype = ctypes.c_bool  # the others used here return int or nothing

    def load(self, data: Mapping) -> None:
        """Load a game by the content of its file. Raises GameError."""
        self._game = prepare(data["pddl_domain"], data["pddl_problem"], data["grammar"], self._folder)
        self.data = data

    def reset(self) -> str:
        """Start the game that is loaded; what the player reads first."""
        self._library.load_sas(self._game.sas)
        self._facts = defaultdict(list, {name: list(facts) for name, facts in self._game.start.items()})
        self._look()
        return self._write([textgen.NonterminalSymbol("intro")], {})

    def step(self, command: str) -> str:
        """Do what a command says; the answer to it."""
        operator = self._operators.get(command)
        if operator is None:
            return NOTHING
        effects = (fast_downward.Atom * operator.nb_effect_atoms)()
        self._library.apply_operator(operator.id, effects)
        for effect in effects:  # "Atom p(a, b)" or "NegatedAtom p(a, b)"
            sign, _, rest = effect.name.partition(" ")
            name, _, arguments = rest[:-1].partition("(")
            arguments = tuple(arguments.split(", ")) if arguments else ()
            # As in the package, a fact that ends is replaced by its negation ("not_p").
            begins, ends = (name, f"not_{name}") if sign == "Atom" else (f"not_{name}", name)
            if arguments not in self._facts[begins]:
                bisect.insort(self._facts[begins], arguments)
            with contextlib.suppress(ValueError):
                self._facts[ends].remove(arguments)
        _, action, mapping = self._game.commands[operator.id]
        self._look()
        return self._write(self._game.actions[action][1], mapping)

    def _look(self) -> None:
        applicable = (Operator * self._library.get_applicable_operators_count())()
        self._library.get_applicable_operators(applicable)
        self._operators: dict[str, Operator] = {}
        for operator in applicable:
            known = self._game.commands.get(operator.id)
            if known is None:
                action, *entities = operator.name.split()  # "openobject agent1 loc_1 cabinet_2"
                mapping = dict(zip(self._game.slots[action], entities, strict=False))
                known = (self._write(self._game.actions[action][0], mapping), action, mapping)
                self._game.commands[operator.id] = known
            self._operators.setdefault(known[0], operator)
        self.commands, self.won = sorted(self._operators), bool(self._library.check_goal())

    def _write(self, symbols: Iterable, mapping: dict[str, str]) -> str:
        """The text that the grammar derives from symbols, where `mapping` says which entity fills a slot."""
        return "".join(text for symbol in symbols for text in self._expand(symbol, mapping))

    def _expand(self, symbol: textgen.Symbol, mapping: dict[str, str]) -> list[str]:
        """Texts of a symbol, one for each way to fulfil its condition."""
        match symbol:
            case textgen.TerminalSymbol():
                return [symbol.symbol]
            case textgen.NonterminalSymbol():
                for rule in self._game.rules.get(symbol.symbol, ()):
                    if not rule.condition or any(True for _ in self._find(_condition(rule.condition), mapping)):
                        return [self._write(rule.rhs, mapping)]
                raise GameError(f"the grammar has no rule for {symbol.symbol!r} that applies")
            case textgen.EvalSymbol():
                variables = {slot: self._game.entities[entity] for slot, entity in mapping.items()}
                return [str(eval(_compile(symbol.expression, "<grammar>", "eval"), {}, variables))]
            case textgen.ListSymbol():  # as the grammar separates items: "a, b, and c"
                items = self._expand(symbol.symbol, mapping)
                if len(items) > 1:
                    names = map(textgen.NonterminalSymbol, ("list_separator", "list_last_separator"))
                    comma, last = (self._write([name], mapping) for name in names)
                    items = [comma.join(items[:-1]) + last + items[-1]]
                return items or self._expand(textgen.NonterminalSymbol("list_empty"), mapping)
        found = self._find(_condition(symbol.given), mapping) if symbol.given else [mapping]
        return [self._write([symbol.expression], filled) for filled in found]

    def _find(self, predicates: tuple, mapping: dict[str, str]) -> Iterator[dict[str, str]]:
        """All ways to fill the free slots of a condition, in the package's order: by sorted facts."""
        if not predicates:
            yield mapping
            return
        (name, slots), *rest = predicates
        place = next((n for n, slot in enumerate(slots) if slot in mapping), None)
        for fact in self._facts.get(name, ()):
            if place is not None and fact[place] != mapping[slots[place]]:
                continue  # most facts are about other entities
            filled = dict(mapping)
            for slot, entity in zip(slots, fact, strict=True):
                taken = slot not in filled and entity in filled.values()  # no entity fills two slots
                if taken or filled.setdefault(slot, entity) != entity:
                    break
            else:
                yield from self._find(rest, filled)

    def close(self) -> None:
        if self._library is not None:
            _FREE_LIBRARIES.append(self._library)
            self._library = None
