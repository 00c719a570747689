"""How the stand-in agent follows sequences of commands that a memory tells, and directions that it reads.

Promises: any told sequence is followed by the same rules: the first steps that are not done come next, a step
may be told in short, and what comes after a step that is done again is to be done again. Directions are lists
of short lines in an observation, some of which read like commands or deal with what is listed; steps about
different things are free in order.

Try it: `python -c "import offline_told; print(offline_told.alike('take cup 2 from shelf 1', 'take cup'))"`
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from standins.prompt import Seen
from standins.text import Memory, Story, is_action, tokens, words

SITUATIONS = 60  # situations of one told sequence that a reader compares with the present one
SOON = (1.0, 0.4, 0.2, 0.1)  # trust in the first steps of a told sequence that are not done
FOLLOWED = 6  # told sequences that a reader follows at most: those of tasks most like this one
HEARSAY = 0.6  # trust in told sequences where none is of a task like this
SAME_THINGS = 0.15  # what another command with the same things counts
READABLE = 1 / 3  # share of a list's lines that read like known commands, from which all of them are steps
FITTING = 0.6  # share of a statement that a command must have to be what it tells
OTHERWISE = 0.8  # the case against a command where the memory tells another
PITHY = 12  # words of a statement that ties a word to others; a longer one is about too much


def next_of(stories: list[Story], goal: frozenset[str], first: Seen, taken: list[str], now: Seen, actions) -> dict:
    """For each action how far told sequences would do it next; those of tasks like this one count most.

    `taken` are the actions so far that had an effect, `first` and `now` the first and the present observation.
    """
    scores: dict[str, float] = {}
    if not stories:
        return scores
    fits = [_fitting(story, goal, first) for story in stories]
    best = sorted(range(len(fits)), key=lambda n: -fits[n])[:FOLLOWED]
    total = sum(0.02 + fits[n] ** 2 for n in best)
    trust = HEARSAY + (1 - HEARSAY) * min(1.0, 2 * max(fits))
    for story, fit in ((stories[n], fits[n]) for n in best):
        share = trust * (0.02 + fit**2) / total * story.sign
        expected = _expected(story, taken, now)
        for action in actions:
            like = max((sure * _same(action, story.actions[at]) for at, sure in expected.items()), default=0.0)
            scores[action] = scores.get(action, 0.0) + share * like
    return scores


@lru_cache(maxsize=4096)
def _fitting(story: Story, goal: frozenset[str], first: Seen) -> float:
    """How like this task a story's is: by what stands around it, or by what is done in it."""
    return max(_likeness(story.about, goal | first.words), _likeness(frozenset().union(*story.kinds), goal))


def _likeness(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 0.0


def _expected(story: Story, taken: list[str], now: Seen) -> dict[int, float]:
    """Places in a sequence that could come next: the first that are not done, or where it looked like this."""
    done = _done(story, tuple(taken))
    undone = (place for place in range(len(story.actions)) if place not in done)
    places = dict(zip(undone, SOON, strict=False))
    for place, before in enumerate(story.before[:SITUATIONS]):
        like = len(before & now.words) / len(before | now.words) if before else 0.0
        if like > 0.5:
            places[place] = max(places.get(place, 0.0), like**2)
    return places


@lru_cache(maxsize=4096)  # the next turn asks for one action more
def _done(story: Story, taken: tuple[str, ...]) -> frozenset[int]:
    """The places of a sequence that have been carried out."""
    if not taken:
        return frozenset()
    done = _done(story, taken[:-1])
    place = _place(taken[-1], story, done)
    # What comes after a place that is done (again) is to be done again.
    return done if place is None else frozenset(one for one in done if one < place) | {place}


def _place(action: str, story: Story, done: frozenset[int]) -> int | None:
    """The place in a sequence that an action carries out: where it fits best, an undone one by choice."""
    best, found = 0.5, None
    for place in range(min(len(story.actions), SITUATIONS)):
        like = _same(action, story.actions[place]) - 0.01 * (place in done)
        if like > best:
            best, found = like, place
    return found


@lru_cache(maxsize=100_000)
def _same(action: str, told: str) -> float:
    """How far an action is one that a sequence tells: 1 exactly, less in kind."""
    return 1.0 if action.lower() == told else alike(action, told)


def alike(action: str, told: str) -> float:
    """How like a told command an action is: the same verb and things, which may be told in short."""
    mine, theirs = tokens(action), tokens(told)
    if not mine or not theirs:
        return 0.0
    things, wanted = set(mine[1:]), set(theirs[1:])
    common = len(things & wanted)
    if mine[0] != theirs[0]:
        return SAME_THINGS * common / len(wanted | things) if common else 0.0
    if not wanted:
        return 0.9 if not things else 0.3
    if things and not common:
        return 0.0  # the same done to something else
    return 0.15 + 0.55 * common / len(wanted) + 0.25 * common / len(wanted | things)


# ------------------------------------------------------------------- directions in an observation


@dataclass(frozen=True, eq=False)
class Directions:
    """Lists in an observation that tell what to do."""

    turn: Seen
    steps: tuple[tuple[str, ...], ...]  # the words of each step in order, its verb first
    listed: tuple[frozenset[str], ...]  # what is listed beside them

    @cached_property
    def things(self) -> frozenset[frozenset[str]]:
        """What is listed, and what the steps name."""
        return frozenset(self.listed).union(frozenset(step[1:]) for step in self.steps) - {frozenset()}

    def are_in(self, turn: Seen) -> bool:
        """Whether an observation tells just these directions."""
        return turn.listing == self.turn.listing


@lru_cache(maxsize=4096)
def read_directions(turn: Seen, verbs: frozenset[str]) -> Directions | None:
    """What an observation tells to do, if it has a list of lines that read like commands or deal with listed things."""
    blocks = _lists(turn.listing)
    entries = {words(line) for block in blocks for line in block}
    steps: list[tuple[str, ...]] = []
    listed: list[frozenset[str]] = []
    for block in blocks:
        told = [tokens(line) for line in block if tokens(line)]
        commands = sum(is_action(line, verbs) or frozenset(tokens(line)[1:]) in entries for line in block)
        if len(told) > 1 and commands >= READABLE * len(block):
            steps += told
        else:
            listed += [frozenset(one) for one in told]
    return Directions(turn, tuple(steps), tuple(dict.fromkeys(listed))) if steps else None


@lru_cache(maxsize=4096)
def _lists(lines: tuple[str, ...]) -> list[list[str]]:
    """Runs of short lines after a short line that ends with a colon."""
    found: list[list[str]] = []
    inside = False
    for line in lines:
        short = len(tokens(line)) <= 6 and not line.endswith((".", "!", "?"))
        if line.endswith(":"):
            inside = short
            found.append([])
        elif inside and short:
            found[-1].append(line)
        else:
            inside = False
    return [block for block in found if block]


def progress(told: Directions, turns: tuple[Seen, ...], taken: tuple[str, ...]) -> tuple[tuple, set[str]]:
    """The steps that no command has carried out and no answer has told of; the commands that did others."""
    left, did = told.steps, set()
    for action, answer in zip(taken, turns[1:], strict=True):
        still = _still(told, left, action, answer)
        if still != left:
            did.add(action)
        left = still
    return left, did


@lru_cache(maxsize=4096)  # the next turn asks the same of all turns before
def _still(told: Directions, steps: tuple[tuple[str, ...], ...], action: str, answer: Seen) -> tuple:
    """What is left of some steps after a command and its answer."""
    left, mine = list(steps), tokens(action)
    for step in ready(told, left) if mine and not told.are_in(answer) else ():
        itself = mine[0] == step[0] and set(step) <= set(mine) and answer.words & set(step)
        if itself or any(set(step) <= piece <= words(action).union(step) for piece in answer.pieces):
            left.remove(step)
    return tuple(left)


def ready(told: Directions, left: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    """The steps that may come next: on things of a list in any order, others after all before them."""
    for number, step in enumerate(left):
        if frozenset(step[1:]) not in told.listed:
            return left[: max(1, number)]
    return left


def tied(verb: str, memory: Memory) -> tuple[tuple[frozenset[str], float], ...]:
    """Statements of a memory that have a word, as (their other words, how much they say of it)."""
    found = []
    for number in memory.having.get(verb, ()):
        statement = memory.statements[number]
        if len(statement.words) <= PITHY:
            found.append((statement.words - {verb}, statement.sign))
    return tuple(found)


def tie(action: str, step: tuple[str, ...], ties, memory: Memory) -> float:
    """How far a memory ties a step's verb to a command on the same things, in [-1, 1].

    Where it tells a way, another way is against it.
    """
    other = words(action) - set(step) | {tokens(action)[0]}  # a command is another one though a thing has its name
    total, told = 0.0, False
    for statement, sign in ties:
        common = other & statement
        mass = sum(memory.weight[word] for word in statement)
        told = told or sign > 0
        if common and sum(memory.weight[word] for word in common) >= FITTING * mass:
            total += sign * len(common) / len(other)
    if total == 0 and told and len(other) > 1:
        return -OTHERWISE
    return max(-1.0, min(1.0, total))
