"""What the stand-in agent knows of its episode: the map of places, the inventory, and directions to carry out.

All follows from observations and commands, and no word of a domain is built in. Where observations do not begin with
the name of a place there is no map.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from standins.prompt import Observation, command, is_command, tokens, words

UNKNOWN = 0.8  # what a way promises that nobody has taken
Thing = frozenset[str]  # the words of its name


class Map:
    """The places of an episode and the ways between them."""

    def __init__(self, turns: tuple[Observation, ...], taken: tuple[str, ...]):
        self.places: list[str] = []  # of each turn
        self.looks: dict[str, Observation] = {}  # the last description of each place
        for turn in turns:
            # A title is a place's name if it has the marks around it that the first one has.
            if not self.places or (turn.title and turn.marks == turns[0].marks):
                self.here = turn.title
                self.looks[self.here] = turn
            self.places.append(self.here)
        steps = zip(taken, pairwise(self.places), strict=False)
        moves = [(before, action, after) for action, (before, after) in steps if before != after]
        self.visits = Counter([self.places[0], *(after for *_, after in moves)])
        # Where a command leads from a place. One that alone has led back from where another led does so everywhere.
        self.leads = {(before, action): after for before, action, after in moves}
        between = {(start, there): action for (start, action), there in self.leads.items()}
        led_back = {(one, between[there, here]) for (here, there), one in between.items() if (there, here) in between}
        count = Counter(action for action, _ in led_back)
        only = {action: back for action, back in led_back if count[action] == 1}
        for (start, action), there in list(self.leads.items()):
            if action in only:
                self.leads.setdefault((there, only[action]), start)
        self.moving = {command(action).verb for _, action in self.leads}  # verbs that lead elsewhere


def ways(game) -> dict[str, float]:
    """Commands that lead to places with unknown ways out, and to where something that directions need was seen."""
    atlas = game.map
    if not game.listed or len(atlas.looks) < 2:
        return {}
    moves = {one for one in (*game.taken, *game.actions, *game.quoted) if command(one).verb in atlas.moving}
    gone = atlas.leads.keys() | zip(atlas.places, game.taken, strict=False)  # it is known where they lead
    worth = {}
    for place, look in atlas.looks.items():
        named = (command(action).rest for action in moves if (place, action) not in gone)
        is_open = any(rest and rest <= look.words for rest in named)
        worth[place] = UNKNOWN * 0.8 ** atlas.visits[place] if is_open else 0.0
    since = 1 + max((number for number, new in enumerate(game.news, 1) if new), default=0)  # there was no more news
    for thing in (*game.told.things, *(Thing([word]) for word in sorted(game.progress.tools))) if game.told else ():
        if not any(thing <= one.words for one in game.commands.values()):
            turns = zip(reversed(atlas.places), reversed(game.turns), strict=True)
            told = ((place, turn.clauses) for place, turn in turns if turn.lines != game.told.lines)
            if place := next((place for place, clauses in told if any(thing <= clause for clause, _ in clauses)), ""):
                worth[place] = max(worth[place], 0.5 ** atlas.places[since:].count(place))
    # Each first command is worth the best place that it leads to, less with each further step.
    best, reached, queue = {}, {atlas.here}, [(atlas.here, "", 0)]
    for place, first, steps in queue:
        if first:
            best[first] = max(best.get(first, 0.0), worth[place] * 0.93 ** (steps - 1))
        for (start, action), there in atlas.leads.items():
            if start == place and there not in reached and (first or action in game.actions):
                reached.add(there)
                queue.append((there, first or action, steps + 1))
    return best | {one: UNKNOWN for one in game.actions if one in moves and (atlas.here, one) not in gone}


@dataclass(frozen=True, eq=False)
class Directions:
    """A list in an observation that tells what to do, as a recipe does."""

    lines: tuple[str, ...]  # of that observation
    steps: tuple[tuple[str, ...], ...]  # the words of each step in order, its verb first
    listed: tuple[Thing, ...]  # things that other lists beside it name
    things: tuple[Thing, ...]  # what is listed, and what the steps name

    def next_of(self, left: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        """The steps that may come next: on listed things in any order, others after all before them."""
        free = next((number for number, step in enumerate(left) if Thing(step[1:]) not in self.listed), len(left))
        return left[: max(1, free)]


@lru_cache(maxsize=4096)
def read_directions(turn: Observation, verbs: frozenset[str]) -> Directions | None:
    """Lists are short lines after a colon; of steps if a third are like commands or deal with listed things."""
    short = [len(tokens(line)) <= 6 and line[-1] not in ".!?" for line in turn.lines]
    bounds = [number for number, line in enumerate(turn.lines) if line[-1] == ":" or not short[number]]
    lists = [turn.lines[at + 1 : end] for at, end in pairwise([*bounds, len(turn.lines)]) if short[at]]
    entries = {words(line) for found in lists for line in found}
    steps, listed = [], []
    for found in lists:
        told = [tokens(line) for line in found if tokens(line)]
        likely = sum(is_command(line, verbs) or Thing(tokens(line)[1:]) in entries for line in found)
        if len(told) > 1 and 3 * likely >= len(found):
            steps += told
        else:
            listed += map(Thing, told)
    things = dict.fromkeys((*listed, *(Thing(step[1:]) for step in steps if step[1:])))
    return Directions(turn.lines, tuple(steps), tuple(dict.fromkeys(listed)), tuple(things)) if steps else None


@lru_cache(maxsize=4096)
def left_after(told: Directions, left: tuple, action: str, answer: Observation) -> tuple:
    """The steps that are left after a command and its answer: it did one itself, or the answer tells of one."""
    one, still = command(action), list(left)
    for step in told.next_of(left) if answer.lines != told.lines else ():
        itself = one.verb == step[0] and one.words.issuperset(step) and answer.words & set(step)
        if itself or any(set(step) <= clause <= one.words.union(step) for clause, _ in answer.clauses):
            still.remove(step)
    return tuple(still)


class Progress:
    """What is done of the directions of a game, what the memory tells of their steps, and the inventory."""

    def __init__(self, game):
        self.left, self.done = game.told.steps, set()
        for action, answer in zip(game.taken, game.turns[1:], strict=True):
            still = left_after(game.told, self.left, action, answer)
            self.done |= {action} if still != self.left else set()
            self.left = still
        self.ready = game.told.next_of(self.left)
        # Short notes of the memory tell what the steps mean, and what they take.
        self.short, self.explained = {}, {}
        for verb, *_ in game.told.steps:
            self.short[verb] = [note for note in game.memory.having.get(verb, ()) if len(note.words) <= 12]
            self.explained[verb] = Thing().union(*(note.words for note in self.short[verb] if note.sign > 0))
        self.tools = Thing().union(*(self.explained[step[0]] for step in self.ready)) & game.seen - game.verbs

        # What one has, and by which verbs things are got and let go of, is read off what was done so far;
        # `work` are verbs that are done to things for another end.
        work = {command(action).verb for action in self.done}.union(self.explained, *self.explained.values())
        self.work = work = work & game.verbs
        done: dict[Thing, list[str]] = {}  # to each thing: the verbs
        for one in map(command, game.taken):
            if one.thing:
                done.setdefault(one.thing, []).append(one.verb)
        dealt = {t: found for t, verbs in done.items() if (found := [one for one in verbs if one not in work])}
        offered = {(one.thing, one.verb) for one in game.commands.values()}
        at_hand = {thing for thing, _ in offered}
        # Got by what was done before work on it, or before any work last, where it cannot be done again.
        pairs = ((thing, *pair) for thing, verbs in done.items() for pair in pairwise(verbs))
        got = {verb for t, verb, then in pairs if then in work and verb not in work and (t, verb) not in offered}
        last = {verbs[-1] for thing, verbs in dealt.items() if thing in at_hand and (thing, verbs[0]) not in offered}
        self.getting = got or last
        changed = {t: verb for t, verbs in dealt.items() for verb in verbs if (t, verb) not in offered}  # the last
        self.held = {thing for thing in at_hand if changed.get(thing) in self.getting}
        # They are let go of by what was done right after they were got.
        self.letting = {then for one in dealt.values() for verb, then in pairwise(one) if verb in self.getting}
        self.out_of_reach = at_hand - {thing for thing, verb in offered if verb in self.getting}
