"""How the stand-in agent carries out directions that it reads, and where it goes to find what is wanted.

Promises: each function gives commands and how much speaks for them, at most 1; directions and scenes are read by
the same rules in every domain, and where a game has none, nothing is said.

Try it: `python -m pytest tests/test_offline_agent.py -k "walks_back or directions"`
"""

import math
from collections import Counter

from offline_game import Game, object_of, verb_of
from offline_text import tokens, words
from offline_told import ready, tie, tied

LATER = 0.9  # trust in a step of directions for each one that is left before it
OTHERWISE = 0.8  # the case against what comes too early, or was done
MISUSED = 0.2  # the case against other commands on things of directions
LISTED = 0.5  # how much a thing is wanted that directions list
LET_GO = 0.4  # for other commands on things that were changed, where what is needed cannot be had
NEEDED = 0.6  # how much a thing is wanted that the memory ties to a step
NEAR = 0.9  # the same for going to where it is
UNKNOWN = 0.8  # what a way promises that nobody has taken
TIRED = 0.5  # what is left of an attraction each time that one went there for nothing


def directions(game: Game) -> dict[str, float]:
    """Commands that do what an observation tells to do, by their words or as the memory ties them."""
    scores: dict[str, float] = {}
    if not game.listed or not game.told:
        return scores
    next_steps = ready(game.told, game.left)
    for rank, step in enumerate(next_steps):
        ties = tied(step[0], game.memory)
        for action in game.actions:
            mine = tokens(action)
            if mine and set(step[1:]) <= set(mine):
                does = 1.0 if mine[0] == step[0] else tie(action, step, ties, game.memory)
                _raise(scores, action, LATER**rank * does / (1 + game.counts.get(action, 0.0)))
    worn = _worn(game)
    for action in game.actions:
        mine = tokens(action)
        for phrase in game.told.things:
            if not phrase.issubset(mine):
                continue
            if phrase in game.open and not worn[phrase]:
                _raise(scores, action, LISTED)
            elif game.left:
                scores.setdefault(action, -MISUSED)
        early = [step for step in game.left if mine[:1] == step[:1] and set(step) <= set(mine)]
        if action in game.did or (early and early[0] not in next_steps):
            scores[action] = -OTHERWISE
    if _lacking(game, scores):
        _get(game, scores, worn)
    return scores


def _get(game: Game, scores: dict[str, float], worn: Counter) -> None:
    """For commands on what a step needs; where they are used up, for letting go of other things."""
    free = [action for action in game.actions if not any(phrase <= words(action) for phrase in game.open)]
    near = [action for action in free if game.needs & words(action)]
    for action in near:
        for word in game.needs & words(action):
            _raise(scores, action, NEEDED / (1 + 3 * worn[frozenset([word])]))
    held = {object_of(action) for action in game.changing}
    for action in free if near and all(action in game.taken for action in near) else ():
        if object_of(action) in held and action not in near:
            _raise(scores, action, LET_GO)


def _raise(scores: dict[str, float], action: str, score: float) -> None:
    """Keep the better of two scores, but any that speaks of the action."""
    if score and score > scores.get(action, -math.inf):
        scores[action] = score


def _lacking(game: Game, scores: dict[str, float]) -> bool:
    """Whether the things of a step are at hand, and no command does any step."""
    if max(scores.values(), default=0.0) > LISTED:
        return False
    at_hand = [words(action) for action in game.actions]
    return any(mine.issuperset(step[1:]) for step in ready(game.told, game.left) for mine in at_hand)


def _worn(game: Game) -> Counter:
    """How often something was changed about each thing that directions name or steps need."""
    count: Counter = Counter()
    again = {(verb_of(action), object_of(action)) for action in game.actions}
    for action in game.changing:
        mine = words(action)
        if (verb_of(action), object_of(action)) not in again:  # else it was undone
            count.update(phrase for phrase in game.told.things if phrase <= mine)
            count.update(frozenset([word]) for word in game.needs & mine)
    return count


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
        scene = None if any(phrase <= mine for mine in here) else _last_seen(phrase, game)
        if scene is not None and scene != game.atlas.here:
            worth[scene] = max(worth.get(scene, 0.0), value * TIRED ** entered.get(scene, 0))
    return worth


def _last_seen(phrase: frozenset[str], game: Game) -> int | None:
    """The scene where a thing was seen last, but for the directions that name it."""
    for scene, turn in zip(reversed(game.atlas.scenes), reversed(game.turns), strict=True):
        if phrase <= turn.words and not (game.told and turn is game.told.turn):
            return scene
    return None


def _entered(game: Game) -> dict[int, int]:
    """How often each scene was entered since something new was found."""
    entered: dict[int, int] = {}
    scenes = game.atlas.scenes
    for number in range(len(game.taken), 0, -1):
        if game.fruitful[number - 1]:
            break
        entered[scenes[number]] = entered.get(scenes[number], 0) + (scenes[number - 1] != scenes[number])
    return entered
