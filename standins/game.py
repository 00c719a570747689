"""What the prompt of one turn says, made ready for the stand-in agent to weigh its actions.

Promises: all of it follows from the messages; nothing is kept from turn to turn but what the same text was read as.

Try it: `python -m pytest tests/test_offline_agent.py`
"""

import itertools
import math
import re
from functools import cached_property, lru_cache

from standins.prompt import Seen, history, read_brief, read_observation
from standins.scenes import Atlas, survey
from standins.text import STOP, WORD, Memory, first_words, read_memory, tokens, words
from standins.told import Directions, progress, read_directions, ready, tied

PREPOSITION = re.compile(r"\b(?:from|to|with|in|on|into|onto|at)\b")
LIKE = 0.8  # share of common lines from which two observations count as one situation
FORGET = 0.3  # what earlier uses of an action still count after a step towards the goal
FADING = 0.97  # what they count after any step
FRUITFUL = 0.3  # what a use counts that brought something new


class Game:
    """What the prompt of one turn says, made ready for weighing the actions."""

    def __init__(self, messages: list[dict]):
        self.brief = read_brief(messages[0]["content"])
        self.turns = tuple(read_observation(m["content"]) for m in messages if m["role"] == "user")
        self.taken = tuple(m["content"].strip() for m in messages if m["role"] == "assistant")
        self.now, self.past = self.turns[-1], history(self.turns)
        # Does each turn have a list of its own?
        self.listed = bool(self.now.actions) and set(self.now.actions) != set(self.brief.actions)
        self.actions = self.now.actions or tuple(self.brief.actions) or ("look",)
        verbs = self.brief.verbs | self.now.verbs | first_words(self.taken)
        read = (read_directions(turn, verbs) for turn in reversed(self.turns))
        self.told = next((found for found in read if found), None)
        self.goal = self.brief.goal
        self.memory = read_memory(self.brief.memory, verbs)
        self.stories = self.memory.stories
        self.rare = _rarity(self.actions)
        self.context = {word: 0.6 for word in self.now.words} | {word: 1.0 for word in self.goal}
        self.relevant = _relevant(self.memory, self.context)
        self.known = self.past.words.union(self.rare, self.goal)
        self.seen = _remembered(self.turns, self.goal)
        self.moved = [like < LIKE for like in self.past.moved]
        self.effective = [action for action, moved in zip(self.taken, self.moved, strict=True) if moved]
        self.wandering = self.listed and self.atlas.wide
        self.commands = frozenset(verbs)
        self.left, self.did = progress(self.told, self.turns, self.taken) if self.told else ((), set())
        self.open = _open(self.told, self.left) if self.told else frozenset()
        self.needs = _needs(self) if self.listed and self.told else frozenset()
        self.fruitful = _fruitful(self)
        self.counts = _counts(self)
        # What was done and cannot be done now has changed something.
        possible = frozenset(self.actions)
        self.changing = [action for action in self.taken if action not in possible]

    @cached_property
    def atlas(self) -> Atlas:
        """The scenes so far and the ways between them."""
        return survey(self.turns, self.taken)


@lru_cache(maxsize=512)
def _rarity(actions: tuple[str, ...]) -> dict[str, float]:
    """How much each word tells about which of the actions is meant."""
    count: dict[str, int] = {}
    for action in actions:
        for word in words(action):
            count[word] = count.get(word, 0) + 1
    return {word: 0.1 + math.log(len(actions) / n) for word, n in count.items()}


def _relevant(memory: Memory, context: dict[str, float]) -> dict[int, float]:
    """For each statement the weight of its words that the goal or the observation has."""
    hits: dict[int, float] = {}
    for word, share in context.items():
        for number in memory.having.get(word, ()):
            hits[number] = hits.get(number, 0.0) + memory.weight[word] * share
    return hits


def _remembered(turns: tuple[Seen, ...], goal: frozenset[str]) -> dict[frozenset[str], str]:
    """The lines of the present observation, and for each word of the goal that is not in it those
    of the last one that had it, each with its first word."""
    pieces = dict(turns[-1].pieces)
    missing = goal - turns[-1].words
    for turn in reversed(turns[:-1]):
        if not missing:
            break
        if found := missing & turn.words:
            pieces |= {piece: head for piece, head in turn.pieces.items() if piece & found}
            missing -= found
    return pieces


def _fruitful(game: Game) -> list[bool]:
    """For each step so far: did it bring words that had not been seen, or that speak of a score?

    Where each turn has its own actions, a word counts if some command, the goal or directions have it.
    """
    past = game.past
    if not game.listed:
        return [bool(new) for new in past.news]
    useful = game.goal.union(*map(words, (*game.taken, *game.actions)), *(game.told.things if game.told else ()))
    useful -= game.commands
    elsewhere = [a < b for a, b in itertools.pairwise(itertools.accumulate(game.atlas.scenes, max))]
    steps = zip(past.news, past.scored, elsewhere, strict=True)
    return [scored or there or not useful.isdisjoint(new) for new, scored, there in steps]


def _counts(game: Game) -> dict[str, float]:
    """How often each action was used lately, where it brought nothing new; less so before something
    new was done to what is wanted."""
    counts: dict[str, float] = {}
    left = 1.0  # of what was done at this step
    for number, action in reversed(list(enumerate(game.taken))):
        counts[action] = counts.get(action, 0.0) + left * (FRUITFUL if game.fruitful[number] else 1.0)
        closer = game.goal & put_somewhere(action) and action not in game.taken[:number]
        left *= FORGET if closer else FADING
    return counts


def _open(told: Directions, left: tuple[tuple[str, ...], ...]) -> frozenset[frozenset[str]]:
    """The things that are listed with nothing to be done to them, or with something to be done next; before
    what is to be done at last all that are listed."""
    named = {frozenset(step[1:]) for step in told.steps}
    next_things = frozenset(frozenset(step[1:]) for step in ready(told, left))
    at_last = next_things and not next_things & frozenset(told.listed)
    idle = (one for one in told.listed if at_last or one not in named)
    return next_things.union(idle) - {frozenset()}


def _needs(game: Game) -> frozenset[str]:
    """Words that the memory ties to the steps that are next, and that were seen in this episode."""
    ties = [statement for step in ready(game.told, game.left) for statement in tied(step[0], game.memory)]
    tied_to = frozenset().union(*(statement for statement, sign in ties if sign > 0))
    return tied_to & game.known - game.commands


@lru_cache(maxsize=20_000)
def put_somewhere(action: str) -> frozenset[str]:
    """The words of what a command is done to, where it also says with what or where."""
    thing, *rest = PREPOSITION.split(action, maxsplit=1)
    return frozenset(tokens(thing)[1:]) if rest else frozenset()


@lru_cache(maxsize=20_000)
def object_of(action: str) -> frozenset[str]:
    """The words of what a command is done to."""
    return things_of(PREPOSITION.split(action, maxsplit=1)[0])


@lru_cache(maxsize=20_000)
def things_of(action: str) -> frozenset[str]:
    """The words of all that a command names, with their numbers."""
    return frozenset(WORD.findall(action.lower())[1:]) - STOP


@lru_cache(maxsize=20_000)
def verb_of(action: str) -> str:
    found = tokens(action)
    return found[0] if found else action
