"""The stand-in for the agent: one policy for every domain.

Promises: the action follows from the text of the prompt and the seed alone. Each valid action is
weighed by what was tried in this or a like observation, by the words that it shares with the goal
and with lines that mention what is wanted, and by what the retrieved memory says for and against it.
It knows no domain, no task, no object; good memory helps it and bad memory misleads it.

Try it: `python alma.py play --env minihack --agent-model offline`
"""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from standins.game import LIKE, PREPOSITION, Game, object_of, put_somewhere, things_of, verb_of
from standins.prompt import Seen, like
from standins.text import noise, tokens, words
from standins.told import next_of
from standins.ways import UNKNOWN, directions, ways

ANSWERING = frozenset(["answer", "question"])  # what a description calls an action that is one


# ------------------------------------------------------------------------------------ the policy


@dataclass(frozen=True)
class Weights:
    """How much each kind of evidence counts. One setting for all domains."""

    goal: float = 2.0  # words that the action shares with the goal
    lines: float = 0.8  # words that it shares with what was seen of wanted things
    advised: float = 1.0  # the same of things that the memory advises
    answers: float = 0.8  # answers that a question offers
    facts: float = 1.6  # statements of the memory
    stories: float = 4.0  # action sequences of the memory
    tried: float = 0.9  # each time that it was tried in a like situation
    idle: float = 0.9  # each time that it changed nothing there
    vain: float = 0.15  # each time that it changed nothing elsewhere
    used: float = 0.15  # how often it was used at all (a fixed list of actions)
    used_listed: float = 0.3  # the same, where each step has its own list
    known: float = 1.0  # what leads where one has been
    again: float = 0.2  # what evidence for it is still worth each time that it was used (own lists)
    undo: float = 1.5  # the same two things again, at once
    aside: float = 0.5  # what is done to a thing that nobody wants
    curious: float = 1.6  # commands that bring new words
    onward: float = 0.3  # going on with what leads to new sights
    directed: float = 3.0  # commands that do what an observation tells
    walk: float = 1.2  # ways to where something is to be found
    open_minded: float = 0.5  # trials that an unknown command is thought to have had, half of them good
    spoilt: float = 1.0  # another command on a thing with which something was done
    chance: float = 0.2  # the hash of seed and prompt


W = Weights()
UNCONDITIONAL = 0.6  # how far a statement applies that names nothing but the action
PRIOR = 0.3  # weight of this beside the words that do name a condition
ADVISED = 2.0  # how much a word is wanted that an applicable statement names
TIRING = 0.9  # what is left of a wish after each step that was spent on it
USED_UP = 0.3  # how fast a word of the goal loses interest when much is done with it
ASIDE = 0.5  # what a word counts in a line that begins with another one
ALL_OF_IT = 0.8  # how well a statement fits that names no other action, but not all of this one
STRANGE = 0.3  # what a condition counts whose word was never seen in this episode
FEW = 2  # changes that a thing of the goal may need


def act(messages: list[dict], seed: int) -> str:
    """Choose an action: the valid one with the most evidence for it and the least against it."""
    game = Game(messages)
    advised = _advised(game)
    evidence = (
        (W.goal, _shared(game)),
        (W.lines, _pointed(game, _wanted(game, advised))),
        (W.advised, _pointed(game, advised)),
        (W.facts, _stated(game)),
        (W.answers, _answering(game)),
    )
    directed, walk = directions(game), ways(game)
    told = next_of(game.stories, game.goal, game.turns[0], game.effective, game.now, game.actions)
    against = _against(game, walk)
    place = " ".join(sorted(game.now.words))

    def score(action: str) -> float:
        total = sum(weight * part.get(action, 0.0) for weight, part in evidence)
        worth = W.again ** game.counts.get(action, 0.0) if game.listed and total > 0 else 1.0
        total = total * worth + W.stories * told.get(action, 0.0) - against[action]
        total += W.directed * directed.get(action, 0.0) + W.walk * walk.get(action, 0.0)
        return total + W.chance * noise(seed, len(game.taken), action, place)

    return max(game.actions, key=score)


def _scaled(scores: dict[str, float]) -> dict[str, float]:
    """The same proportions, none beyond 1 or -1."""
    top = max(1.0, *(abs(score) for score in scores.values())) if scores else 1.0
    return {action: score / top for action, score in scores.items()}


def _shared(game: Game) -> dict[str, float]:
    """Words that an action, or what is said of it, shares with the goal: 1 if it is all of both.

    A word counts less for each time that something was done with it lately.
    """
    known = frozenset(game.rare).union(*map(words, game.counts))
    worth = {word: game.rare.get(word, 2.0) for word in game.goal & known}
    aims, named = sum(worth.values()), frozenset(worth)
    for action, count in game.counts.items() if game.listed else ():
        for word in words(action) & named:
            worth[word] /= 1 + USED_UP * count
    scores = {}
    for action in game.actions:
        mine = words(action)
        common = sum(worth[word] for word in mine & named)
        told = len((words(game.brief.actions.get(action, "")) - mine) & game.goal)
        scores[action] = common / math.sqrt(sum(game.rare[word] for word in mine) * aims or 1.0) + 0.1 * told
    return _scaled(scores)


def _stated(game: Game) -> dict[str, float]:
    """What the statements of the memory say for and against each action, where they apply."""
    memory = game.memory
    if not memory.statements:
        return {}
    named: dict[int, float] = {}  # how much each statement names of all the actions
    for word in game.rare.keys() & memory.having.keys():
        for number in memory.having[word]:
            named[number] = named.get(number, 0.0) + game.rare[word]
    kinds = {action: (words(action), _phrases(action)) for action in game.actions}  # some differ by a number alone
    on = {kind: _statements_on(*kind, game, named) for kind in set(kinds.values())}
    return _scaled({action: on[kind] for action, kind in kinds.items()})


def _statements_on(mine: frozenset[str], phrases, game: Game, named: dict[int, float]) -> float:
    """The sum of the statements that name an action, each as far as it names it and applies to it."""
    memory = game.memory
    mass = sum(game.rare[word] for word in mine) or 1.0
    # What was said of the things that the action names: words that stood in one line with them.
    bound = frozenset().union(*(game.past.beside(phrase) for phrase in phrases))
    total = 0.0
    for number in {n for word in mine for n in memory.having.get(word, ())}:
        statement = memory.statements[number]
        if statement.verb in mine and statement.things and not statement.things & mine:
            continue  # the same done to something else
        common = mine & statement.words
        shared = sum(game.rare[word] for word in common)
        covered = max(shared / mass, ALL_OF_IT * shared / named[number])
        met = missed = 0.0
        for word in statement.words - mine:
            share = 1.0 if word in game.goal or word in bound else game.context.get(word, 0.0)
            met += memory.weight[word] * share
            missed += memory.weight[word] * (1 - share) * (1.0 if word in game.known else STRANGE)
        total += statement.sign * covered**2 * (met + PRIOR * UNCONDITIONAL) / (met + missed + PRIOR)
    return total


@lru_cache(maxsize=20_000)
def _phrases(action: str) -> tuple[frozenset[str], ...]:
    """The things that a command names, without the command itself."""
    thing, *rest = PREPOSITION.split(action)
    parts = [frozenset(tokens(thing)[1:]), *(words(part) for part in rest)]
    return tuple(part for part in parts if part)


def _wanted(game: Game, advised: dict[str, float]) -> dict[str, float]:
    """Words to look out for: those of the goal, of its neighbours in a line, and those that are advised.

    What was gone after for long without an end to it is wanted less.
    """
    in_sight = _in_sight(game)
    named = game.goal & in_sight
    wanted = {word: 1.0 / math.sqrt(len(named)) for word in named}
    for piece in game.seen:
        mass = sum(wanted[word] for word in piece & named)
        for word in piece & in_sight - named if mass else ():
            wanted[word] = max(wanted.get(word, 0.0), 0.5 * mass / math.sqrt(len(piece)))
    wanted = _tired(wanted, game)
    return wanted | {word: max(wanted.get(word, 0.0), ADVISED * share) for word, share in advised.items()}


def _advised(game: Game) -> dict[str, float]:
    """Words to look out for that are named by statements of the memory which apply now, as far as these apply."""
    in_sight, advised = _in_sight(game) - game.commands, {}
    for number, hit in game.relevant.items():
        statement, share = game.memory.statements[number], hit / game.memory.mass[number]
        for word in statement.words & in_sight if statement.sign > 0 else ():
            advised[word] = max(advised.get(word, 0.0), math.sqrt(min(share, 1.0)))
    return _tired(advised, game)


def _in_sight(game: Game) -> frozenset[str]:
    """Words that were seen and are no commands themselves."""
    commands = {next(iter(words(action))) for action in game.actions if len(words(action)) == 1}
    return frozenset().union(*game.seen) - commands


def _tired(wanted: dict[str, float], game: Game) -> dict[str, float]:
    """The same wishes, each less for every step that was spent on it."""
    left, named = dict(wanted), frozenset(wanted)
    for turn, action in zip(game.turns, game.taken, strict=False):
        for word in _pursued(turn, action) & named:
            left[word] *= TIRING
    return left


@lru_cache(maxsize=4096)
def _pursued(turn: Seen, action: str) -> frozenset[str]:
    """Words of the lines that spoke for an action when it was taken."""
    mine = words(action)
    return frozenset().union(*(piece for piece in turn.pieces if mine and mine <= piece)) - mine


def _pointed(game: Game, wanted: dict[str, float]) -> dict[str, float]:
    """Words that an action shares with lines which mention what is wanted, best at their beginning."""
    if not wanted:
        return {}
    kinds = set(map(words, game.actions))  # some actions differ by a number alone
    scores = dict.fromkeys(kinds, 0.0)
    count = Counter(itertools.chain.from_iterable(game.seen))
    rare = {word: wanted[word] * math.log(1 + len(game.seen) / count[word]) for word in wanted.keys() & count.keys()}
    masses = [(_mass(piece, head, rare), piece) for piece, head in game.seen.items()]
    top = max([0.3, *(mass for mass, _ in masses)])
    for mass, piece in masses:
        for kind in kinds if mass > 0.15 * top else ():
            scores[kind] = max(scores[kind], mass / top * _covered(kind, game.rare, piece))
    return {action: scores[words(action)] for action in game.actions}


def _answering(game: Game) -> dict[str, float]:
    """Actions that are, or are said to be, an answer to a question: best what it offers itself."""
    if not game.now.question:
        return {}
    offered, about = game.now.answers, game.brief.actions
    told = {action: words(f"{action} {about.get(action, '')}") | {action.lower()} for action in game.actions}
    fitting = {action: told[action] & offered for action in game.actions}
    count = {word: sum(word in found for found in fitting.values()) for word in offered}
    scores = {action: max(1.0 / count[word] for word in found) for action, found in fitting.items() if found}
    return {action: 0.5 for action in game.actions if told[action] & ANSWERING} | scores


def _mass(piece: frozenset[str], head: str, worth: dict[str, float]) -> float:
    """How much a line is about what is wanted: its best word counts, among few words more."""
    shares = [worth[word] * (1.0 if word == head else ASIDE) for word in piece & worth.keys()]
    best = max(shares, default=0.0)
    return (best + 0.1 * (sum(shares) - best)) / math.sqrt(len(piece) or 1)


def _covered(mine: frozenset[str], weigh: dict[str, float], piece: frozenset[str]) -> float:
    """Share of an action's words that a line has; half for a word inside a longer one."""
    total = got = 0.0
    for word in mine:
        total += weigh[word]
        if word in piece:
            got += weigh[word]
        elif len(word) > 3 and word in _in_a_row(piece):
            got += 0.5 * weigh[word]
    return got / total if total else 0.0


@lru_cache(maxsize=20_000)
def _in_a_row(piece: frozenset[str]) -> str:
    return " ".join(piece)


def _against(game: Game, walk: dict[str, float]) -> dict[str, float]:
    """The case against an action: tried in a like situation, without effect, or often already."""
    scores = _against_known(game, walk) if game.listed else _againstlike(game)
    _against_undoing(game, scores)
    _for_curiosity(game, scores)
    return {action: scores.get(action, 0.0) for action in game.actions}


def _againstlike(game: Game) -> dict[str, float]:
    """The same actions at every turn: against what was done in an observation like this one."""
    scores = {action: W.used * math.log1p(n) for action, n in game.counts.items()}
    fresh = True
    for turn, action, moved in zip(game.turns, game.taken, game.moved, strict=False):
        if like(turn, game.now) >= LIKE:
            scores[action] += W.tried + W.idle * (not moved)
            fresh = False
        elif not moved:
            scores[action] += W.vain
    if fresh and game.taken:
        scores[game.taken[-1]] -= W.onward
    return scores


def _against_known(game: Game, walk: dict[str, float]) -> dict[str, float]:
    """Each turn has its own actions: against what was done in this scene, and against going where one
    has been often."""
    atlas = game.atlas
    scores = {action: W.used_listed * math.log1p(n) for action, n in game.counts.items()}
    if game.wandering:
        scores = {action: score for action, score in scores.items() if not atlas.leaves(action)}
    visits = [0] * len(atlas.looks)
    for before, scene in itertools.pairwise([-1, *atlas.scenes]):
        visits[scene] += scene != before
    tried: dict[str, int] = {}
    for scene, action in zip(atlas.scenes, game.taken, strict=False):
        if scene == atlas.here:
            tried[action] = tried.get(action, 0) + 1
    for action, n in tried.items():
        there = atlas.leads.get((atlas.here, action), atlas.here)
        been = visits[there] if there != atlas.here else n
        aimless = 1 - min(1.0, walk.get(action, 0.0) / UNKNOWN)
        scores[action] = scores.get(action, 0.0) + W.known * math.log1p(been) * aimless
    return scores


def _against_undoing(game: Game, scores: dict[str, float]) -> None:
    """Against what is done again with the very same things, and to things that nobody wants."""
    recent = {things_of(action) for action in game.taken[-3:]}
    wanted = game.goal.union(*(game.memory.statements[number].words for number in game.relevant))
    wanted = wanted.union(*(game.told.things if game.told else ()))
    for action in game.actions:
        things = things_of(action)
        if len(things) > 2 and things in recent:
            scores[action] = scores.get(action, 0.0) + W.undo
        thing = put_somewhere(action)
        if thing and wanted.isdisjoint(thing):
            scores[action] = scores.get(action, 0.0) + W.aside


def _for_curiosity(game: Game, scores: dict[str, float]) -> None:
    """For commands that have brought new words before; against others on things that were changed."""
    tries = Counter(map(verb_of, game.taken))
    news = Counter(map(verb_of, itertools.compress(game.taken, game.fruitful)))
    changed = Counter(map(object_of, game.changing))
    for action in game.actions:
        if game.wandering and game.atlas.leaves(action):
            continue
        verb = verb_of(action)
        share = (news[verb] + W.open_minded) / (tries[verb] + 2 * W.open_minded)
        scores[action] = scores.get(action, 0.0) - W.curious * share
        thing = object_of(action)
        if game.listed and thing and changed[thing] > (FEW if thing & game.goal else 0):
            scores[action] += W.spoilt * (1 - share)
