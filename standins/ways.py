"""How the stand-in agent carries out directions that it reads, and where it goes to find what is wanted.

Promises: each function gives commands and how much speaks for them, at most 1; directions and scenes are read by
the same rules in every domain, and where a game has none, nothing is said.

Try it: `python -m pytest tests/test_offline_agent.py -k "walks_back or directions"`
"""

import itertools
import math

from standins.game import Game, verb_of
from standins.hands import Hands, does, hands, is_full, last_seen, letting_go, thing_of
from standins.text import tokens, words
from standins.told import ready, tied

LATER = 0.97  # trust in a step of directions for each one that is left before it
OTHERWISE = 0.8  # the case against what comes too early, or was done
MISUSED = 0.2  # the case against other commands on things of directions
SPOILING = 0.7  # the same for things that one has
OVERDONE = 0.9  # the case against doing to a thing what is told of others, or what was told and is done
TRIED = 0.2  # for trying what a step means that no command does and no memory ties to one
FETCHED = 0.45  # for getting what such a step may take
LISTED = 0.5  # how much a thing is wanted that directions list
LET_GO = 1.0  # for letting go of what one has, where what is needed cannot be had
NEEDED = 0.6  # how much a thing is wanted that the memory ties to a step
NEAR = 0.9  # the same for going to where it is
UNKNOWN = 0.8  # what a way promises that nobody has taken
TIRED = 0.5  # what is left of an attraction each time that one went there for nothing


def directions(game: Game) -> dict[str, float]:
    """Commands that do what an observation tells to do, by their words or as the memory ties them."""
    scores: dict[str, float] = {}
    if not game.listed or not game.told:
        return scores
    held, riddles, next_steps = hands(game), _riddles(game), ready(game.told, game.left)
    for action in game.actions:
        for rank, step in enumerate(next_steps):
            _raise(scores, action, LATER**rank * does(action, step, game) / (1 + game.counts.get(action, 0.0)))
    _deal_with_things(game, scores, held, riddles)
    known = set(map(thing_of, game.taken))
    for action in game.actions:
        if riddles & held.had and verb_of(action) in held.getting and thing_of(action) not in known:
            _raise(scores, action, FETCHED)
        if action in game.did or _is_early(action, game):
            scores[action] = -OTHERWISE
    if max(scores.values(), default=0.0) <= LISTED:
        _get(game, scores, held)
    return scores


def _deal_with_things(game: Game, scores: dict[str, float], held: Hands, riddles: set[frozenset[str]]) -> None:
    """For getting the things of directions, against doing to them what was not told."""
    careful = not held.had.issuperset(game.told.listed)  # what is spoilt now ends it before all is found
    things = sorted(game.told.things, key=sorted)  # in one order in every process
    for action, thing in itertools.product(game.actions, things):
        verb = verb_of(action)
        if not thing.issubset(tokens(action)):
            continue
        if verb in held.work and scores.get(action, 0.0) <= 0:
            scores[action] = -OVERDONE
        elif thing in held.had:
            trial = thing in riddles and not careful and action not in game.taken and verb not in held.undone
            scores.setdefault(action, TRIED if trial else -SPOILING)
        elif thing in game.open and held.gets(action):
            _raise(scores, action, LISTED)
        elif game.left:
            scores.setdefault(action, -MISUSED)


def _is_early(action: str, game: Game) -> bool:
    """Whether a command carries out a step that is not next."""
    mine = tokens(action)
    steps = [step for step in game.left if mine[:1] == step[:1] and set(step) <= set(mine)]
    return bool(steps) and steps[0] not in ready(game.told, game.left)


def _riddles(game: Game) -> set[frozenset[str]]:
    """The things of steps that may come next, where neither a command nor the memory tells how."""
    steps = [step for step in ready(game.told, game.left) if not any(sign > 0 for _, sign in tied(step[0], game.memory))]
    return {frozenset(step[1:]) for step in steps if not any(does(action, step, game) > 0 for action in game.actions)}


def _get(game: Game, scores: dict[str, float], held: Hands) -> None:
    """For commands that get what a step needs; where nothing more can be got, for letting go of other things."""
    for action in game.actions if _lacking(game) else ():
        thing = thing_of(action)
        if thing & game.needs and held.gets(action) and thing not in held.had:
            _raise(scores, action, NEEDED)
    if is_full(game, held):
        for action, worth in letting_go(game, held).items():
            scores[action] = max(scores.get(action, 0.0), LET_GO * worth)


def _raise(scores: dict[str, float], action: str, score: float) -> None:
    """Keep the better of two scores, but any that speaks of the action."""
    if score and score > scores.get(action, -math.inf):
        scores[action] = score


def _lacking(game: Game) -> bool:
    """Whether the things of a step that is next are at hand."""
    at_hand = [words(action) for action in game.actions]
    return any(mine.issuperset(step[1:]) for step in ready(game.told, game.left) for mine in at_hand)


def ways(game: Game) -> dict[str, float]:
    """Ways: to scenes with ways out that are unknown, and to where something wanted was seen last."""
    if not game.wandering:
        return {}
    atlas = game.atlas
    known = {action for action in (*game.taken, *game.actions, *game.brief.quoted) if atlas.leaves(action)}
    worth = {scene: UNKNOWN * atlas.unknown(scene, known) for scene in atlas.looks if scene != atlas.here}
    for scene, value in _attractions(game).items():
        worth[scene] = max(worth.get(scene, 0.0), value)
    scores = atlas.pull(worth)
    for action in game.actions:
        way = (atlas.here, action)
        if atlas.leaves(action) and way not in atlas.leads and way not in atlas.tried:
            scores[action] = UNKNOWN
    return scores


def _attractions(game: Game) -> dict[int, float]:
    """Scenes where something was seen last that is wanted now and not at hand."""
    worth: dict[int, float] = {}
    wanted = {frozenset([word]): NEAR for word in game.needs} | dict.fromkeys(game.open, 1.0)
    here = [words(action) for action in game.actions]
    entered = _entered(game)
    for phrase, value in wanted.items():
        scene = None if any(phrase <= mine for mine in here) else last_seen(phrase, game)
        if scene is not None and scene != game.atlas.here:
            worth[scene] = max(worth.get(scene, 0.0), value * TIRED ** entered.get(scene, 0))
    return worth


def _entered(game: Game) -> dict[int, int]:
    """How often each scene was entered since something new was found."""
    entered: dict[int, int] = {}
    scenes = game.atlas.scenes
    for number in range(len(game.taken), 0, -1):
        if game.fruitful[number - 1]:
            break
        entered[scenes[number]] = entered.get(scenes[number], 0) + (scenes[number - 1] != scenes[number])
    return entered
