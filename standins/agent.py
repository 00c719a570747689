"""The stand-in for the agent: one policy for every domain.

Promises: the action follows from the text of the prompt and the seed alone, in every process. Each valid action
is weighed by what was tried, by words that it shares with the goal and with lines about what is wanted, by the
map of the places seen so far, and by what the retrieved memory says for and against it. It knows no domain, no
task and no thing; good memory helps it and bad memory misleads it. It is no language model.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from standins.prompt import (
    OUTCOME,
    Command,
    Directions,
    Observation,
    Plan,
    command,
    noise,
    read_brief,
    read_directions,
    read_memory,
    read_observation,
    words,
)


@dataclass(frozen=True)
class Weights:
    """How much each kind of evidence counts. One setting for all domains."""

    plan: float = 4.0  # the next command of a plan of the memory: somebody has thought about the order
    directed: float = 3.0  # what directions in an observation tell: they are true, but terse
    goal: float = 2.0  # words shared with the goal
    notes: float = 1.6  # sentences and pairs of the memory: what they mean is guessed
    pointed: float = 1.0  # words shared with lines about what is wanted
    walk: float = 1.2  # ways to places that are unknown, or where something wanted was seen
    news: float = 1.6  # commands whose verb has brought something new
    tried: float = 0.9  # against: each time that it was done in this situation
    idle: float = 0.9  # against: each time that it changed nothing there
    used: float = 0.2  # against: how often it was done anywhere
    undo: float = 1.5  # against: the very same things that were dealt with a moment ago
    leave: float = 1.0  # against: another command on a thing that a command has changed
    aside: float = 0.5  # against: what is done to a thing that nobody wants
    chance: float = 0.2  # to break ties


W = Weights()
SAME = 0.8  # share of common lines from which two observations count as one situation
SOON = (1.0, 0.4, 0.2, 0.1)  # trust in the first steps of a plan that are not done
FOLLOWED = 6  # plans that are followed at once, those of tasks most like this one
FARTHER = 0.93  # what is left of a place's worth for each step to it
UNKNOWN = 0.8  # what a way promises that nobody has taken


def act(messages: list[dict], seed: int) -> str:
    """Choose the valid action with the most evidence for it and the least against it."""
    game = Game(messages)
    for_it = (
        (W.goal, shared_with_goal(game)),
        (W.pointed, pointed_at(game)),
        (W.notes, noted(game)),
    )
    planned, directed, walk, against = next_of_plans(game), directions(game), ways(game), exploration(game)
    place = " ".join(sorted(game.now.words))

    def score(action: str) -> float:
        total = sum(weight * evidence.get(action, 0.0) for weight, evidence in for_it)
        if game.listed and total > 0:  # done often without any news: worth less
            total *= 0.2 ** game.counts.get(action, 0.0)
        total += W.plan * planned.get(action, 0.0) + W.directed * directed.get(action, 0.0)
        total += W.walk * walk.get(action, 0.0) - against.get(action, 0.0)
        return total + W.chance * noise(seed, len(game.taken), action, place)

    return max(game.actions, key=score)


# -------------------------------------------------------------------------------- what the prompt says


class Game:
    """What the prompt of one turn says, made ready for weighing the actions."""

    def __init__(self, messages: list[dict]):
        self.brief = read_brief(messages[0]["content"])
        self.turns = tuple(read_observation(m["content"]) for m in messages if m["role"] == "user")
        self.taken = tuple(m["content"].strip() for m in messages if m["role"] == "assistant")
        self.now, self.goal = self.turns[-1], self.brief.goal
        static = tuple(self.brief.actions)
        self.actions = self.now.actions or static or ("look",)
        self.listed = bool(self.now.actions) and set(self.now.actions) != set(static)  # each turn has a list of its own
        self.commands = {action: command(action) for action in self.actions}
        self.verbs = frozenset(
            command(one).verb for one in (*(static or self.brief.quoted), *self.now.actions, *self.taken)
        )
        self.memory = read_memory(self.brief.memory, self.verbs)
        self.rare = rarity(self.actions)
        self.changed = [a.like(b) < SAME for a, b in zip(self.turns, self.turns[1:], strict=False)]
        told = (read_directions(turn, self.verbs) for turn in reversed(self.turns))
        self.told = next((found for found in told if found), None)
        self.map = Map(self.turns, self.taken)
        self.seen = frozenset().union(*(turn.words for turn in self.turns))

    @cached_property
    def news(self) -> list[bool]:
        """For each step: did it bring a new place, a word that speaks of a score, or words not seen before?

        Where each turn has its own actions, a word is news if a command, the goal or directions have it.
        """
        useful = self.goal.union(*(one.words for one in (*map(command, self.taken), *self.commands.values())))
        useful = useful.union(*(self.told.things if self.told else ())) - self.verbs
        known, places, found = set(self.turns[0].words), {self.map.scenes[0]}, []
        for turn, scene in zip(self.turns[1:], self.map.scenes[1:], strict=True):
            fresh = turn.words - known
            score = any(OUTCOME.fullmatch(word) for word in fresh)
            found.append(score or scene not in places or bool(fresh & useful if self.listed else fresh))
            known |= fresh
            places.add(scene)
        return found

    @cached_property
    def counts(self) -> dict[str, float]:
        """How often each action was done lately, less where it brought news, and before something new was done to a
        thing of the goal: what was in vain then may work now."""
        counts: dict[str, float] = {}
        left = 1.0
        for number, action in reversed(list(enumerate(self.taken))):
            counts[action] = counts.get(action, 0.0) + left * (0.3 if self.news[number] else 1.0)
            one = command(action)
            new_state = one.others and one.thing & self.goal and action not in self.taken[:number]
            left *= 0.3 if new_state else 0.97
        return counts


@lru_cache(maxsize=512)
def rarity(actions: tuple[str, ...]) -> dict[str, float]:
    """How much each word tells about which of the actions is meant."""
    count = Counter(word for action in actions for word in words(action))
    return {word: 0.1 + math.log(len(actions) / n) for word, n in count.items()}


def scaled(scores: dict[str, float]) -> dict[str, float]:
    """The same proportions, none beyond 1 or -1."""
    top = max(1.0, *map(abs, scores.values())) if scores else 1.0
    return {action: score / top for action, score in scores.items()}


# --------------------------------------------------------------------------------------- the goal


def shared_with_goal(game: Game) -> dict[str, float]:
    """Words that an action, or what is said of it, shares with the goal; less for words that much was done with."""
    known = game.seen.union(game.rare)
    worth = {word: game.rare.get(word, 2.0) for word in game.goal & known}
    aims = sum(worth.values())
    for action, count in game.counts.items() if game.listed else ():
        for word in command(action).words & worth.keys():
            worth[word] /= 1 + 0.3 * count
    scores = {}
    for action, one in game.commands.items():
        common = sum(worth[word] for word in one.words & worth.keys())
        mass = sum(game.rare[word] for word in one.words) * aims
        described = (words(game.brief.actions.get(action, "")) - one.words) & game.goal
        scores[action] = common / math.sqrt(mass or 1.0) + 0.1 * len(described)
    return scaled(scores)


def pointed_at(game: Game) -> dict[str, float]:
    """Words that an action shares with lines about what the goal, or advice that applies, names.

    A wanted word counts less for each step that went after it in vain.
    """
    clauses = dict(game.now.clauses)
    missing = game.goal - game.now.words
    for turn in reversed(game.turns[:-1]):  # where it was seen last
        if found := missing & turn.words:
            clauses |= {clause: head for clause, head in turn.clauses if clause & found}
            missing -= found
    in_sight = frozenset().union(*clauses) - {min(one.words) for one in game.commands.values() if len(one.words) == 1}
    named = game.goal & in_sight
    wanted = {word: 1 / math.sqrt(len(named)) for word in named}
    for clause in clauses:
        mass = sum(wanted[word] for word in clause & named)
        for word in clause & in_sight - named if mass else ():
            wanted[word] = max(wanted.get(word, 0.0), 0.5 * mass / math.sqrt(len(clause)))
    for word, share in advised(game).items():
        if word in in_sight and word not in game.verbs:
            wanted[word] = max(wanted.get(word, 0.0), 2 * share)
    for turn, action in zip(game.turns, game.taken, strict=False):
        for word in pursued(turn, action) & wanted.keys():
            wanted[word] *= 0.9

    count = Counter(word for clause in clauses for word in clause)
    worth = {word: value * math.log(1 + len(clauses) / count[word]) for word, value in wanted.items()}
    masses = []
    for clause, head in clauses.items():
        shares = [worth[word] * (1.0 if word == head else 0.5) for word in clause & worth.keys()]
        best = max(shares, default=0.0)
        masses.append(((best + 0.1 * (sum(shares) - best)) / math.sqrt(len(clause) or 1), clause))
    top = max([0.3, *(mass for mass, _ in masses)])
    scores = dict.fromkeys((one.words for one in game.commands.values()), 0.0)
    for mass, clause in masses:
        for mine in scores if mass > 0.15 * top else ():
            scores[mine] = max(scores[mine], mass / top * covered(mine, game.rare, clause))
    return {action: scores[one.words] for action, one in game.commands.items()}


@lru_cache(maxsize=4096)
def pursued(turn: Observation, action: str) -> frozenset[str]:
    """Words of the lines that spoke for an action when it was done."""
    mine = words(action)
    return frozenset().union(*(clause for clause, _ in turn.clauses if mine and mine <= clause)) - mine


def covered(mine: frozenset[str], weight: dict[str, float], clause: frozenset[str]) -> float:
    """Share of an action's words that a line has; half for a word inside a longer one."""
    got = 0.0
    for word in mine:
        if word in clause:
            got += weight[word]
        elif len(word) > 3 and any(word in other for other in clause):
            got += 0.5 * weight[word]
    return got / (sum(weight[word] for word in mine) or 1.0)


# -------------------------------------------------------------------------------------- the memory


def next_of_plans(game: Game) -> dict[str, float]:
    """For each action how far the memory's plans would do it next; plans of tasks like this one count most."""
    done = tuple(action for action, changed in zip(game.taken, game.changed, strict=True) if changed)
    fits = [(fitting(plan, game.goal, game.turns[0]), plan) for plan in game.memory.plans]
    best = sorted(fits, key=lambda one: -one[0])[:FOLLOWED]
    total = sum(0.02 + fit**2 for fit, _ in best)
    scores: dict[str, float] = {}
    for fit, plan in best:
        trust = 0.6 + 0.4 * min(1.0, 2 * best[0][0])  # of another task's is hearsay
        share = trust * (0.02 + fit**2) / total * plan.sign
        behind = carried_out(plan, done)
        coming = [step for number, step in enumerate(plan.steps) if number not in behind]
        for action in game.actions:
            sure = max((trust * alike(action, step) for trust, step in zip(SOON, coming, strict=False)), default=0.0)
            scores[action] = scores.get(action, 0.0) + share * sure
    return scores


@lru_cache(maxsize=4096)
def fitting(plan: Plan, goal: frozenset[str], first: Observation) -> float:
    """How like this task a plan's is: by what stands around it, or by what it does."""

    def likeness(a: frozenset[str], b: frozenset[str]) -> float:
        return len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 0.0

    return max(likeness(plan.about, goal | first.words), likeness(plan.words, goal))


@lru_cache(maxsize=4096)  # the next turn asks for one action more
def carried_out(plan: Plan, taken: tuple[str, ...]) -> frozenset[int]:
    """The steps of a plan that are done; what comes after a step that was done again is to be done again."""
    if not taken:
        return frozenset()
    done = carried_out(plan, taken[:-1])
    likes = [alike(taken[-1], step) - 0.01 * (number in done) for number, step in enumerate(plan.steps)]
    best = max(likes)
    at = likes.index(best)
    return frozenset(number for number in done if number < at) | {at} if best > 0.5 else done


@lru_cache(maxsize=100_000)
def alike(action: str, told: str) -> float:
    """How far an action is the told command, which may be told in short: 1 exactly, less in kind."""
    if action.lower() == told:
        return 1.0
    mine, theirs = command(action), command(told)
    things, wanted = mine.words - {mine.verb}, theirs.words - {theirs.verb}
    common = len(things & wanted)
    if mine.verb != theirs.verb:
        return 0.15 * common / len(wanted | things) if common else 0.0
    if not wanted:
        return 0.3 if things else 0.9
    if (things and not common) or (mine.thing and theirs.thing and not mine.thing & theirs.thing):
        return 0.0  # the same done to something else
    return 0.15 + 0.55 * common / len(wanted) + 0.25 * common / len(wanted | things)


def advised(game: Game) -> dict[str, float]:
    """Words that advice names which applies now: how far it does, by the share of its words in goal and observation."""
    memory, found = game.memory, {}
    context = dict.fromkeys(game.now.words, 0.6) | dict.fromkeys(game.goal, 1.0)
    for note in {note: None for word in memory.having.keys() & context.keys() for note in memory.having[word]}:
        hit = sum(memory.weight[word] * context.get(word, 0.0) for word in note.words)
        share = hit / sum(memory.weight[word] for word in note.words)
        for word in note.words if note.sign > 0 else ():
            found[word] = max(found.get(word, 0.0), math.sqrt(share))
    return found


def noted(game: Game) -> dict[str, float]:
    """What the notes of the memory say for and against each action, where they apply."""
    memory = game.memory
    if not memory.notes:
        return {}
    named: dict[int, float] = {}  # how much a note names of all the actions
    known = game.seen.union(game.rare, game.goal)
    scores: dict[Command, float] = {}
    for one in dict.fromkeys(game.commands.values()):
        mass = sum(game.rare[word] for word in one.words) or 1.0
        beside = things_beside(game, one)
        total = 0.0
        for note in {note: None for word in sorted(one.words) for note in memory.having.get(word, ())}:
            told = note.command
            if told and told.verb == one.verb and told.words - {told.verb} and not told.words - {told.verb} & one.words:
                continue  # the same done to something else
            shared = sum(game.rare[word] for word in one.words & note.words)
            if id(note) not in named:
                named[id(note)] = sum(game.rare.get(word, 0.0) for word in note.words)
            cover = max(shared / mass, 0.8 * shared / named[id(note)])
            met = missed = 0.0
            for word in note.words - one.words:
                share = 1.0 if word in game.goal or word in beside else 0.6 if word in game.now.words else 0.0
                met += memory.weight[word] * share
                missed += memory.weight[word] * (1 - share) * (1.0 if word in known else 0.3)
            total += note.sign * cover**2 * (met + 0.18) / (met + missed + 0.3)  # 0.6 where there is no condition
        scores[one] = total
    return scaled({action: scores[one] for action, one in game.commands.items()})


def things_beside(game: Game, one: Command) -> frozenset[str]:
    """Words that stood in one line with the things that a command names."""
    found = frozenset()
    for thing in (one.thing, *one.others) if one.others or one.thing else ():
        found = found.union(*(beside(turn, thing) for turn in game.turns)) if thing else found
    return found


@lru_cache(maxsize=100_000)
def beside(turn: Observation, thing: frozenset[str]) -> frozenset[str]:
    if not thing <= turn.words:
        return frozenset()
    return frozenset().union(*(clause for clause, _ in turn.clauses if thing <= clause))


# ------------------------------------------------------------------------- directions and inventory


def directions(game: Game) -> dict[str, float]:
    """For commands that do the next steps of directions, and for getting what these take; against what spoils it:
    a step too early or twice, and other things done to what the directions name."""
    told, scores = game.told, {}
    if not told or not game.listed:
        return scores
    left, done = told.steps, set()
    for action, answer in zip(game.taken, game.turns[1:], strict=True):
        still = left_after(told, left, action, answer)
        if still != left:
            done.add(action)
        left = still
    ready = first_of(told, left)
    unfinished = {frozenset(step[1:]) for step in left}
    explained = [note.words for step in told.steps for note in explaining(game, step[0]) if note.sign > 0]
    needed = frozenset().union(*(note.words for step in left for note in explaining(game, step[0]) if note.sign > 0))
    tools = needed & game.seen - game.verbs
    work = {step[0] for step in told.steps}.union((command(action).verb for action in done), *explained) & game.verbs
    if not left:
        return {action: -0.8 for action, one in game.commands.items() if action in done or one.verb in work}
    held = Inventory(game, work)
    missing = unfinished.union(told.listed) - held.things
    full = held.things and any(held.out_of_reach(thing) for thing in missing.intersection(told.listed))
    for action, one in game.commands.items():
        does = max((0.97**rank * does_step(game, action, step) for rank, step in enumerate(ready)), default=0.0)
        thing = max((thing for thing in told.things if thing <= one.words), key=len, default=frozenset())
        if action in done or (not does and any(one.verb == step[0] and one.words.issuperset(step) for step in left)):
            scores[action] = -0.8
        elif does:
            scores[action] = does
        elif thing and one.verb in work:
            scores[action] = -0.9  # told of others, or too much
        elif one.thing in held.things:
            named = one.thing in told.things
            if full and (one.verb in held.undone or not named) and one.verb not in held.getting | work:
                spare = 0.3 if one.thing in unfinished else 0.6 if named else 0.8 if one.thing & tools else 1.0
                scores[action] = spare * (1.0 if one.verb in held.undone else 0.5)
            elif named or one.thing & tools:
                scores[action] = -0.7
        elif one.thing in missing or one.thing & tools:
            scores[action] = 0.5 if one.verb in held.getting or not held.getting else 0.0
        elif thing:
            scores[action] = -0.2
    return scores


class Inventory:
    """The things that one has, and by which verbs things are got and let go of, read off what was done so far."""

    def __init__(self, game: Game, work: Iterable[str]):
        """`work`: verbs that are done to things for another end."""
        dealt: dict[frozenset[str], list[str]] = {}
        for one in map(command, game.taken):
            if one.thing and one.verb not in work:
                dealt.setdefault(one.thing, []).append(one.verb)
        self.offered = {(one.thing, one.verb) for one in game.commands.values()}
        self.at_hand = {thing for thing, _ in self.offered}
        # Had is what is at hand while the command that dealt with it first is offered no longer.
        had = {thing: verbs for thing, verbs in dealt.items() if thing in self.at_hand and (thing, verbs[0]) not in self.offered}
        self.things = set(had)
        self.getting = {verbs[-1] for verbs in had.values()}
        # After these, things were still there to be got again.
        again = [verbs if thing in had else [*verbs, verb] for thing, verbs in dealt.items() for at, verb in self.offered if at == thing]
        self.undone = {verb for verbs in again for at, verb in enumerate(verbs) if self.getting.intersection(verbs[at + 1 :])} - self.getting

    def out_of_reach(self, thing: frozenset[str]) -> bool:
        """Whether a thing is at hand that cannot be got."""
        return thing in self.at_hand and not any((thing, verb) in self.offered for verb in self.getting)


def first_of(told: Directions, left: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """The steps that may come next: on listed things in any order, others after all before them."""
    free = next((number for number, step in enumerate(left) if frozenset(step[1:]) not in told.listed), len(left))
    return left[: max(1, free)]


@lru_cache(maxsize=4096)
def left_after(told: Directions, left: tuple, action: str, answer: Observation) -> tuple:
    """The steps that are left after a command and its answer: it did one itself, or the answer tells of one."""
    if answer.lines == told.lines:
        return left
    one, still = command(action), list(left)
    for step in first_of(told, left):
        itself = one.verb == step[0] and one.words.issuperset(step) and answer.words & set(step)
        if itself or any(set(step) <= clause <= one.words.union(step) for clause, _ in answer.clauses):
            still.remove(step)
    return tuple(still)


def explaining(game: Game, verb: str) -> list:
    """Short notes of the memory that have a word."""
    return [note for note in game.memory.having.get(verb, ()) if len(note.words) <= 12]


def does_step(game: Game, action: str, step: tuple[str, ...]) -> float:
    """How far a command does a step of directions, in [0, 1]: by its own words, or by notes that have the step's verb."""
    one = game.commands[action]
    if not one.words.issuperset(step[1:]):
        return 0.0
    if one.verb == step[0]:
        return 1.0
    if any(one.verb == other[0] for other in game.told.steps):
        return 0.0  # a step of its own
    own, total = (one.words - set(step)) | {one.verb}, 0.0
    for note in explaining(game, step[0]):
        rest = note.words - {step[0]}
        common = own & rest
        if sum(game.memory.weight[word] for word in common) >= 0.6 * sum(game.memory.weight[word] for word in rest):
            total += note.sign * len(common) / len(own)
    return max(0.0, min(1.0, total))


# ------------------------------------------------------------------------------ map and exploration


class Map:
    """The places of an episode and the ways between them, where observations begin with the name of a place."""

    def __init__(self, turns: tuple[Observation, ...], taken: tuple[str, ...]):
        form = marks(turns[0].title)
        self.scenes = [turns[0].title]  # of each turn
        self.looks = {turns[0].title: turns[0]}  # the last description of each place
        for turn in turns[1:]:
            known = turn.title and marks(turn.title) == form
            self.scenes.append(turn.title if known else self.scenes[-1])
            if known:
                self.looks[turn.title] = turn
        self.here = self.scenes[-1]
        self.leads: dict[tuple[str, str], str] = {}  # where a command leads from a place
        self.visits = Counter(b for a, b in zip([None, *self.scenes], self.scenes, strict=False) if a != b)
        self.passed: Counter[str] = Counter()  # how often a place was left by a known way
        back: dict[str, set[str]] = {}  # what led back from where each command led
        for action, before, after in zip(taken, self.scenes, self.scenes[1:], strict=False):
            if before == after:
                continue
            self.passed[before] += (before, action) in self.leads
            self.leads[before, action] = after
            for (place, other), there in self.leads.items():
                if place == after and there == before:
                    back.setdefault(action, set()).add(other)
                    back.setdefault(other, set()).add(action)
        self.moving = {command(action).verb for _, action in self.leads}
        self.tried = set(zip(self.scenes, taken, strict=False))
        for (place, action), there in list(self.leads.items()):
            if len(back.get(action, ())) == 1:
                self.leads.setdefault((there, *back[action]), place)

    def leaves(self, action: str) -> bool:
        """Whether a command is of the kind that leads elsewhere."""
        return command(action).verb in self.moving

    def unknown(self, place: str, commands: Iterable[str]) -> bool:
        """Whether a place names a way out that nobody has taken."""
        text = self.looks[place].words
        return any(
            (place, one) not in self.leads and (place, one) not in self.tried and text >= (words(one) - self.moving or {one})
            for one in commands
        )

    def toward(self, worth: dict[str, float]) -> dict[str, float]:
        """For each known way out of here the best worth of a place that it leads to, less with each step."""
        best: dict[str, float] = {}
        ways: dict[str, list[tuple[str, str]]] = {}
        for (place, action), there in self.leads.items():
            ways.setdefault(place, []).append((action, there))
        reached, queue = {self.here}, deque([(self.here, "", 0)])
        while queue:
            place, first, steps = queue.popleft()
            if first:
                best[first] = max(best.get(first, 0.0), worth.get(place, 0.0) * FARTHER ** (steps - 1))
            for action, there in ways.get(place, ()):
                if there not in reached:
                    reached.add(there)
                    queue.append((there, first or action, steps + 1))
        return best


def marks(title: str) -> str:
    """The marks around a title."""
    return "".join(mark for mark in title[:1] + title[-1:] if not mark.isalnum())


def ways(game: Game) -> dict[str, float]:
    """Ways to places with unknown ways out, and to where something that directions need was seen last."""
    atlas = game.map
    if not game.listed or len(atlas.looks) < 2:
        return {}
    known = {one for one in (*game.taken, *game.actions, *game.brief.quoted) if atlas.leaves(one)}
    worth = {place: UNKNOWN * 0.5 ** atlas.passed[place] for place in atlas.looks if atlas.unknown(place, known)}
    entered = Counter()  # places entered since there was news
    for before, place, news in zip(atlas.scenes[-2::-1], atlas.scenes[:0:-1], reversed(game.news), strict=True):
        if news:
            break
        entered[place] += place != before
    for thing in game.told.things if game.told else ():
        if any(thing <= one.words for one in game.commands.values()):
            continue  # at hand
        for place, turn in zip(reversed(atlas.scenes), reversed(game.turns), strict=True):
            if beside(turn, thing) and turn.lines != game.told.lines:
                worth[place] = max(worth.get(place, 0.0), 0.5 ** entered[place])
                break
    scores = atlas.toward(worth)
    for action in game.actions:
        if atlas.leaves(action) and (atlas.here, action) not in atlas.leads and (atlas.here, action) not in atlas.tried:
            scores[action] = UNKNOWN
    return scores


def exploration(game: Game) -> dict[str, float]:
    """The case against each action: done before in this situation, without effect, or often; less where it is new."""
    atlas, scores = game.map, dict.fromkeys(game.actions, 0.0)
    wandering = game.listed and len(atlas.looks) > 1
    walk = ways(game)
    tries, news = Counter(), Counter()
    here: Counter[str] = Counter()
    for turn, scene, action, changed, new in zip(game.turns, atlas.scenes, game.taken, game.changed, game.news, strict=False):
        tries[command(action).verb] += 1
        news[command(action).verb] += new
        same = scene == atlas.here if game.listed else turn.like(game.now) >= SAME
        if same:
            here[action] += 1
        if not game.listed and action in scores:
            scores[action] += W.tried + W.idle * (not changed) if same else 0.15 * (not changed)
    recent = {command(action).exact for action in game.taken[-3:]}
    wanted = game.goal.union(*(game.told.things if game.told else ()), *(words_of for words_of in advice_words(game)))
    # What was done and cannot be done now has changed something.
    altered = Counter(command(action).thing for action in game.taken if action not in game.commands)
    for action, one in game.commands.items():
        if not (wandering and atlas.leaves(action)):
            share = (news[one.verb] + 0.5) / (tries[one.verb] + 1)
            scores[action] += W.used * math.log1p(game.counts.get(action, 0.0)) - W.news * share
            if game.listed and one.thing and altered[one.thing] > (2 if one.thing & game.goal else 0):
                scores[action] += W.leave * (1 - share)
        if game.listed and here[action]:
            there = atlas.leads.get((atlas.here, action))
            been = atlas.visits[there] if there else here[action]
            scores[action] += math.log1p(been) * (1 - min(1.0, walk.get(action, 0.0) / UNKNOWN))
        if len(one.exact) > 2 and one.exact in recent:
            scores[action] += W.undo
        if one.others and one.thing and not one.thing & wanted:
            scores[action] += W.aside
    return scores


def advice_words(game: Game) -> list[frozenset[str]]:
    context = game.now.words | game.goal
    return [note.words for note in game.memory.notes if note.words & context]
