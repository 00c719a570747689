"""What the stand-in agent has, how it got that, and how it can let go of it again.

Promises: all of it follows from the commands of the episode and those that are offered now, by the same rules in
every domain. A thing is had where a command names it and the first command that dealt with it is offered no
longer; which commands get things and which let go of them is read off what was done so far. It knows no verb.

Try it: `python -m pytest tests/test_offline_agent.py -k "lets_go or spoils"`
"""

import itertools
from dataclasses import dataclass

from standins.game import PREPOSITION, Game, verb_of
from standins.text import tokens
from standins.told import ready, tie, tied

Thing = frozenset[str]

IDLE = 1.0  # how readily one lets go of what no directions name and no step needs
SPARE = 0.8  # the same of what steps need, but not those on what one has
FINISHED = 0.6  # of a thing of which all steps are done
UNFINISHED = 0.3  # of a thing of which some are left
UNSURE = 0.5  # trust in a command that was never seen to be undone


@dataclass(frozen=True)
class Hands:
    """What one has, and the first words of commands that deal with it."""

    had: frozenset[Thing]
    getting: frozenset[str]  # such things were got by these
    undone: frozenset[str]  # after these they were still there, to be got again
    work: frozenset[str]  # steps of directions are carried out by these

    def gets(self, action: str) -> bool:
        """Whether a command may get what it names: any may, before one was seen to."""
        return not self.getting or verb_of(action) in self.getting


def hands(game: Game) -> Hands:
    """Look at what was done to each thing that is at hand."""
    work = _work(game)
    done: dict[Thing, list[str]] = {}
    for action in game.taken:
        if thing_of(action):
            done.setdefault(thing_of(action), []).append(verb_of(action))
    offered = {(thing_of(action), verb_of(action)) for action in game.actions}
    at_hand = {thing: verbs for thing, verbs in done.items() if any(thing == other for other, _ in offered)}
    other = {thing: [verb for verb in verbs if verb not in work] for thing, verbs in at_hand.items()}
    had = {thing: verbs[-1] for thing, verbs in other.items() if verbs and (thing, verbs[0]) not in offered}
    getting = _before_work(done, work) or frozenset(verb for thing, verb in had.items() if thing in game.told.things)
    if getting:
        had = {thing: verbs[-1] for thing, verbs in other.items() if verbs and verbs[-1] in getting}
        had = {thing: verb for thing, verb in had.items() if (thing, verb) not in offered}
    gone = {verb for verbs in done.values() for at, verb in enumerate(verbs) if getting & set(verbs[:at]) & set(verbs[at:])}
    gone |= {verbs[-1] for verbs in other.values() if getting & set(verbs[:-1])}  # what it was done to is still there
    return Hands(frozenset(had), getting, frozenset(gone) - getting - work, work)


def _before_work(done: dict[Thing, list[str]], work: frozenset[str]) -> frozenset[str]:
    """What was done to things right before steps were carried out on them: that got them."""
    pairs = (pair for verbs in done.values() for pair in itertools.pairwise(verbs))
    return frozenset(before for before, after in pairs if after in work and before not in work)


def thing_of(action: str) -> Thing:
    """The words of what a command is done to, as directions would name it."""
    return Thing(tokens(PREPOSITION.split(action, maxsplit=1)[0])[1:])


def _work(game: Game) -> frozenset[str]:
    """First words of the commands that steps are carried out by: their own, and those that the memory ties to them."""
    ties = [statement for step in game.told.steps for statement in tied(step[0], game.memory)]
    tied_to = frozenset().union(*(statement for statement, sign in ties if sign > 0))
    own = {step[0] for step in game.told.steps}.union(map(verb_of, game.did))
    return tied_to & game.commands | own


def is_full(game: Game, held: Hands) -> bool:
    """Whether something wanted is at hand that cannot be got, while one has something."""
    wanted = set(game.open)
    for step in ready(game.told, game.left):
        if Thing(step[1:]) in held.had and not any(does(action, step, game) > 0 for action in game.actions):
            wanted |= {Thing([word]) for word in needed_for(step, game)}
    for thing in wanted - held.had if held.had else ():
        near = [action for action in game.actions if thing <= thing_of(action) and verb_of(action) not in held.work]
        useless = (action in game.taken for action in near) if not held.getting else (not held.gets(action) for action in near)
        if (near or last_seen(thing, game) == game.atlas.here) and all(useless):
            return True
    return False


def last_seen(phrase: Thing, game: Game) -> int | None:
    """The scene where a thing was seen last, but for the directions that name it."""
    for scene, turn in zip(reversed(game.atlas.scenes), reversed(game.turns), strict=True):
        if turn.names(phrase) and not (game.told and game.told.are_in(turn)):
            return scene
    return None


def does(action: str, step: tuple[str, ...], game: Game) -> float:
    """How far a command does a step: by its words, or as the memory ties it."""
    mine = tokens(action)
    if not mine or not set(step[1:]) <= set(mine):
        return 0.0
    if mine[0] != step[0] and any(mine[0] == other[0] for other in game.told.steps):
        return 0.0  # a step of its own
    return 1.0 if mine[0] == step[0] else tie(action, step, tied(step[0], game.memory), game.memory)


def needed_for(step: tuple[str, ...], game: Game) -> Thing:
    """Words that the memory ties to a step."""
    return Thing().union(*(found for found, sign in tied(step[0], game.memory) if sign > 0)) - game.commands


def letting_go(game: Game, held: Hands) -> dict[str, float]:
    """Commands that may let go of what one has, best of what is needed least."""
    busy = {Thing(step[1:]) for step in ready(game.told, game.left)}
    steps = [step for step in ready(game.told, game.left) if Thing(step[1:]) in held.had]
    in_use = Thing().union(*(needed_for(step, game) for step in steps))
    scores = {}
    for action in game.actions:
        thing, verb = thing_of(action), verb_of(action)
        if thing not in held.had or verb in held.work or verb in held.getting:
            continue
        worth = FINISHED if thing in game.told.things else SPARE if thing & game.needs else IDLE
        worth = UNFINISHED if thing in busy or thing & in_use else worth
        if verb in held.undone or not (held.undone and thing in game.told.things):
            scores[action] = worth * (1.0 if verb in held.undone else UNSURE)
    return scores
