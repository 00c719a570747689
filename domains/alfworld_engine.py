"""The text engine of ALFWorld's games, fast: a `PddlEnv` without its repeated work.

The words, the admissible commands and the rewards are those of the `textworld` package's own `PddlEnv`
under `alfworld`'s `AlfredDemangler`, on every game; `tests/test_alfworld.py` plays both side by side.
Cached are translated problems (on disk, by a hash of their text), parsed grammars, and the commands of
operators; the rules of the game stay in the package's `libdownward`. Nothing of the package is patched.
An environment plays one game at a time.
"""

import bisect
import contextlib
import ctypes
import functools
import gzip
import hashlib
import importlib.metadata
import json
import os
import queue
import re
import secrets
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import fast_downward
from fast_downward.interface import DOWNWARD_LIB_PATH, Operator
from textworld.core import GameState
from textworld.envs.pddl import logic, textgen
from textworld.envs.pddl.pddl import PddlEnv
from textworld.generator.game import EntityInfo
from textworld.logic import Rule, Type, TypeHierarchy

from errors import InfrastructureError

FORMAT = 2  # of the files in the cache; raise it when `Translation` changes
GAMES_KEPT = 8  # prepared games in memory, about 3 MB each
NOTHING = "Nothing happens."  # the answer to an invalid command

Signature = tuple[str, tuple[str, ...]]  # a predicate's name and the types of its arguments
Slot = tuple[str, str]  # a placeholder's name and type
# libdownward keeps its game in globals, so each engine needs a library of its own: the first of a
# process has the installed file, others at the same time a copy (33 MB, 0.2 s). Engines return their
# library for reuse: unloading one while another is loaded crashes the process when it exits.
_FREE_LIBRARIES: queue.SimpleQueue[ctypes.CDLL] = queue.SimpleQueue()
_INSTALLED_LIBRARY = threading.Lock()  # acquired for good by the engine that loads the installed file


class GameError(ValueError):
    """The engine cannot play a game; the message says why."""


@dataclass(frozen=True)
class Translation:
    """A PDDL problem in the form that libdownward takes; depends on domain and problem alone."""

    sas: str  # the planning task, in Fast Downward's SAS format
    parameters: dict[str, list[list[str]]]  # of each action: names and types, in order
    supertypes: dict[str, list[str]]  # of each type
    objects: dict[str, str]  # type of each object
    facts: list[list[str]]  # what is true at the start: a predicate and its arguments


def translate(domain: str, problem: str) -> Translation:
    """Run the package's translator, about half a second. Raises GameError."""
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
    return Translation(
        sas,
        {
            action.name: [[p.name.strip("?"), p.type_name] for p in action.parameters]
            for action in task.actions
        },
        # As in the package, the first of two types of one name counts: `object` is built in.
        {kind.name: list(kind.supertype_names) for kind in reversed(task.types)},
        {thing.name: thing.type_name for thing in task.objects},
        facts,
    )


def translation(domain: str, problem: str, folder: Path) -> Translation:
    """The translation of a problem, cached in `folder`. A damaged file is made again."""
    versions = [importlib.metadata.version(name) for name in ("textworld", "fast-downward-textworld")]
    text = json.dumps([FORMAT, *versions, domain, problem])
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.gz"
    try:
        return Translation(**json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, ValueError, TypeError, zlib.error):
        made = translate(domain, problem)
    write_whole(path, gzip.compress(json.dumps(vars(made)).encode(), 4, mtime=0))
    return made


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename: another process never sees half a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InfrastructureError(f"cannot write {path}: {error}; ALMA_CACHE sets the folder") from error


class Grammar(textgen.ContextSensitiveGrammar):
    """The package's grammar, which parses phrases, conditions and expressions once.

    A context is the pair of a `State` and a mapping of slots to entities.
    """

    def derive(self, start: str, context: tuple["State", dict[Slot, str]]) -> str:
        return "".join(self._expand_all(_phrase(start), *context))

    def _expand_all(self, symbols, state: "State", mapping: dict[Slot, str]) -> Iterator[str]:
        for symbol in symbols:
            yield from self._expand(symbol, state, mapping)

    def _expand(self, symbol, state: "State", mapping: dict[Slot, str]) -> list[str]:
        """Texts of a symbol, one for each way to fulfil its condition."""
        if isinstance(symbol, textgen.TerminalSymbol):
            return [symbol.symbol]
        if isinstance(symbol, textgen.NonterminalSymbol):
            for rule in self._rules[symbol.symbol]:
                if not rule.condition or any(True for _ in state.find(rule.condition, mapping)):
                    return ["".join(self._expand_all(rule.rhs, state, mapping))]
            raise GameError(f"the grammar has no rule for {symbol.symbol!r} that applies")
        if isinstance(symbol, textgen.EvalSymbol):
            variables = {name: state.game.entities[entity] for (name, _), entity in mapping.items()}
            return [str(eval(_expression(symbol.expression), {}, variables))]
        if isinstance(symbol, textgen.ListSymbol):  # as the grammar separates items: "a, b, and c"
            items = self._expand(symbol.symbol, state, mapping)
            if not items:
                return self._expand(textgen.NonterminalSymbol("list_empty"), state, mapping)
            if len(items) == 1:
                return items
            [comma] = self._expand(textgen.NonterminalSymbol("list_separator"), state, mapping)
            [last] = self._expand(textgen.NonterminalSymbol("list_last_separator"), state, mapping)
            return [comma.join(items[:-1]) + last + items[-1]]
        mappings = state.find(symbol.given, mapping) if symbol.given else [mapping]
        return ["".join(self._expand(symbol.expression, state, filled)) for filled in mappings]


@functools.cache
def _phrase(text: str) -> tuple:
    """The symbols of a template or feedback rule; a grammar has a few dozen."""
    grammar = textgen.ContextSensitiveGrammar.parse(json.dumps({"phrase": [{"rhs": text}]}))
    return tuple(grammar._rules["phrase"][0].rhs)


@functools.cache
def _expression(text: str):
    return compile(text, "<grammar>", "eval")


@functools.cache
def _condition(text: str) -> tuple[tuple[str, tuple[Slot, ...]], ...]:
    """The predicates of a condition in a grammar, each with its slots."""
    rule = Rule.parse_conjunctive_query(text)
    return tuple((item.name, tuple((p.name, p.type) for p in item.parameters)) for item in rule.preconditions)


@functools.lru_cache(maxsize=4)
def _parse_logic(text: str) -> tuple[dict, dict]:
    """Actions and rules of a grammar file, a tenth of a second."""
    parsed = logic.GameLogic(domain="", grammar=text)
    return parsed.actions, dict(parsed.grammar._rules)


def parse_grammar(text: str) -> tuple[dict, Grammar]:
    """Actions and grammar of a game. Raises GameError.

    Official games differ only in the sentence of the task, so the rest is parsed once.
    """
    task = re.search(r'"Your task is to: [^"\\]*"', text)
    try:
        actions, rules = _parse_logic(text.replace(task[0], '""', 1) if task else text)
        grammar = Grammar()
        grammar._rules = dict(rules)
        if task:
            grammar._rules["task"] = textgen.ContextSensitiveGrammar.parse(
                f'{{"task": [{{"rhs": {task[0]}}}]}}'
            )._rules["task"]
    except Exception as error:
        # The parser is generated and so are its errors: any exception means that the text is wrong.
        raise GameError(f"the engine rejects the grammar: {error!r:.200}") from error
    return actions, grammar


def entity_names(entities) -> dict[str, str]:
    """Name of each entity as players see it: "cabinet 3".

    Numbered as by `alfworld`'s Demangler: by kind, from the last in alphabetical order to the first.
    """
    names, counts = {}, {}
    for entity in sorted(entities, reverse=True):
        kind, _, place = entity.partition("_bar_")
        if not place:
            names[entity] = f"{entity} "
            continue
        kind += "basin" if "basin" in entity else ""
        counts[kind] = counts.get(kind, 0) + 1
        names[entity] = f"{kind} {counts[kind]}"
    return names


@dataclass(frozen=True)
class Game:
    """What does not change while a game is played."""

    translation: Translation
    actions: dict  # the grammar's part of each action: the template of its command, the rule for its answer
    grammar: Grammar
    entities: dict[str, EntityInfo]  # all that facts speak of
    start: dict[Signature, list[tuple[str, ...]]]  # facts at the start, sorted
    types: TypeHierarchy
    commands: dict[int, tuple[str, str, dict]] = field(default_factory=dict)  # see `AlfredEnv._command`
    signatures: dict[tuple, list[Signature]] = field(default_factory=dict)  # see `State._signatures_of`


@functools.lru_cache(maxsize=GAMES_KEPT)
def prepare(domain: str, problem: str, grammar: str, folder: Path) -> Game:
    """Everything that is the same in all episodes of a game. Raises GameError."""
    actions, rules = parse_grammar(grammar)
    made = translation(domain, problem, folder)
    missing = sorted(set(made.parameters) - set(actions))
    if missing:
        raise GameError(f"the grammar has no template for the action {missing[0]!r}")
    types = TypeHierarchy()
    for name, parents in made.supertypes.items():
        types.add(Type(name, parents))
    start: dict[Signature, set] = {}
    for name, *arguments in made.facts:
        start.setdefault((name, tuple(made.objects[a] for a in arguments)), set()).add(tuple(arguments))
    entities = {}
    for entity, name in entity_names({argument for fact in made.facts for argument in fact[1:]}).items():
        info = entities[entity] = EntityInfo(entity, made.objects[entity])
        info.name, info.definite, info.indefinite = name, "the", "a"
    return Game(
        made,
        actions,
        rules,
        entities,
        {signature: sorted(arguments) for signature, arguments in start.items()},
        types,
    )


class State:
    """The facts of a running game, as the grammar asks for them."""

    def __init__(self, game: Game):
        self.game = game
        self._facts = {signature: list(facts) for signature, facts in game.start.items()}

    def apply(self, effects: list[str]) -> None:
        """Apply effects in libdownward's words: "Atom p(a, b)" or "NegatedAtom p(a, b)".

        As in the package, a fact that ends is replaced by its negation ("not_p").
        """
        for effect in effects:
            sign, _, rest = effect.partition(" ")
            name, _, arguments = rest[:-1].partition("(")
            arguments = tuple(arguments.split(", ")) if arguments else ()
            begins, ends = (name, f"not_{name}") if sign == "Atom" else (f"not_{name}", name)
            types = tuple(self.game.translation.objects[argument] for argument in arguments)
            facts = self._facts.setdefault((begins, types), [])
            place = bisect.bisect_left(facts, arguments)
            if place == len(facts) or facts[place] != arguments:
                facts.insert(place, arguments)
            facts = self._facts.get((ends, types), [])
            place = bisect.bisect_left(facts, arguments)
            if place < len(facts) and facts[place] == arguments:
                del facts[place]

    def find(self, condition: str, mapping: Mapping[Slot, str]) -> Iterator[dict[Slot, str]]:
        """All ways to fill the condition's free slots, in the package's order: by sorted facts.

        No entity fills two slots.
        """
        return self._match(_condition(condition), dict(mapping))

    def _match(self, predicates: tuple, mapping: dict[Slot, str]) -> Iterator[dict[Slot, str]]:
        if not predicates:
            yield mapping
            return
        (name, slots), rest = predicates[0], predicates[1:]
        bound = ((n, mapping[slot]) for n, slot in enumerate(slots) if slot in mapping)
        place, known = next(bound, (0, None))
        for signature in self._signatures_of(name, slots):
            for fact in tuple(self._facts.get(signature, ())):
                if known is not None and fact[place] != known:
                    continue  # most facts are about other entities
                filled = mapping
                for slot, entity in zip(slots, fact, strict=True):
                    if slot in filled:
                        if filled[slot] != entity:
                            break
                    elif entity in filled.values():
                        break
                    else:
                        filled = {**filled, slot: entity}
                else:
                    yield from self._match(rest, filled)

    def _signatures_of(self, name: str, slots: tuple[Slot, ...]) -> list[Signature]:
        """Signatures of the facts that match a predicate, subtypes last."""
        key, known, types = (name, *(kind for _, kind in slots)), self.game.signatures, self.game.types
        if key not in known:
            subtypes = types.multi_subtypes([types.get(kind) for _, kind in slots])
            known[key] = [(name, tuple(kind.name for kind in kinds)) for kinds in subtypes]
        return known[key]


class AlfredEnv(PddlEnv):
    """The package's environment, fast; entities have `AlfredDemangler`'s names from the start.

    `folder` is where translations are kept. States have feedback, admissible commands and
    whether the game is won; the package's other information is not provided.
    """

    def __init__(self, folder: Path):
        super(PddlEnv, self).__init__()  # PddlEnv's own would copy libdownward
        self.downward_lib = _borrow_library()
        self._folder = folder

    def load(self, data: Mapping) -> None:
        """Load a game by the content of its file. Raises GameError."""
        self._game = prepare(data["pddl_domain"], data["pddl_problem"], data["grammar"], self._folder)
        self.data = data

    def reset(self) -> GameState:
        self.downward_lib.load_sas(self._game.translation.sas.encode())
        self._facts = State(self._game)
        return self._observe(self._game.grammar.derive("#intro#", (self._facts, {})))

    def step(self, command: str) -> GameState:
        number = self._operators.get(command)
        if number is None:
            feedback = NOTHING
        else:
            operator = self._applicable[number]
            effects = (fast_downward.Atom * operator.nb_effect_atoms)()
            self.downward_lib.apply_operator(operator.id, effects)
            self._facts.apply([effect.name for effect in effects])
            _, action, mapping = self._game.commands[operator.id]
            rule = self._game.actions[action].feedback_rule
            feedback = self._game.grammar.derive(rule, (self._facts, mapping))
        return self._observe(feedback)

    def _observe(self, feedback: str) -> GameState:
        """The state after `feedback`: what can be done now, and whether the game is won."""
        count = self.downward_lib.get_applicable_operators_count()
        self._applicable = (Operator * count)()
        self.downward_lib.get_applicable_operators(self._applicable)
        self._operators: dict[str, int] = {}
        for number, operator in enumerate(self._applicable):
            self._operators.setdefault(self._command(operator), number)
        return GameState(
            feedback=feedback,
            won=bool(self.downward_lib.check_goal()),
            admissible_commands=sorted(self._operators),
        )

    def _command(self, operator: Operator) -> str:
        """Command of an operator. It depends on facts that never change, so it is derived once in a game.

        `Game.commands` keeps it by the operator's id, with its action and mapping.
        """
        known = self._game.commands.get(operator.id)
        if known is None:
            action, *entities = operator.name.split()  # "openobject agent1 loc_1 cabinet_2"
            slots = map(tuple, self._game.translation.parameters[action])
            mapping = dict(zip(slots, entities, strict=False))
            command = self._game.grammar.derive(self._game.actions[action].template, (self._facts, mapping))
            known = self._game.commands[operator.id] = (command, action, mapping)
        return known[0]

    def close(self) -> None:
        library, self.downward_lib = getattr(self, "downward_lib", None), None
        if library is not None:
            _FREE_LIBRARIES.put(library)


def _borrow_library() -> ctypes.CDLL:
    with contextlib.suppress(queue.Empty):
        return _FREE_LIBRARIES.get_nowait()
    if not _INSTALLED_LIBRARY.acquire(blocking=False):
        return fast_downward.load_lib()
    library = ctypes.CDLL(str(DOWNWARD_LIB_PATH))
    library.check_goal.restype = ctypes.c_bool  # the other functions used here return int or nothing
    return library
