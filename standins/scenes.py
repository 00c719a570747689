"""How the stand-in agent finds its way: a graph of the scenes that it has seen, out of its own history.

Promises: the same turns give the same graph; a scene is what a long observation described, a way is a command
that was seen to lead from one scene to another, or that undoes one that did. It knows no names of places, no
directions and no doors; where observations describe no scenes, there is one scene and nothing to walk.

Try it: `python -m pytest tests/test_offline_agent.py -k walks_back`
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

from standins.prompt import Seen, like
from standins.text import tokens

LONG = 3  # an observation this many times shorter than the first one describes no scene
SAME_SCENE = 0.5  # share of common lines from which two long observations are of one scene
FARTHER = 0.93  # what is left of an attraction for each step to it
PASSED_BY = 0.5  # what is left of an unknown way each time that its scene was left by a known one


@dataclass(frozen=True)
class Atlas:
    """The scenes of an episode and the ways between them."""

    scenes: tuple[int, ...]  # the scene of each turn
    leads: dict[tuple[int, str], int]  # where a command leads from a scene
    tried: frozenset[tuple[int, str]]  # commands that were given in a scene
    looks: dict[int, Seen]  # the last long observation of each scene
    passed: dict[int, int]  # how often a scene was left by a known way
    going: frozenset[str]  # first words of commands that have led to another scene
    wide: bool  # the same command leads elsewhere from elsewhere: what is far must be walked to

    @property
    def here(self) -> int:
        return self.scenes[-1]

    def leaves(self, action: str) -> bool:
        """Whether a command is of the kind that leads elsewhere."""
        found = tokens(action)
        return bool(found) and found[0] in self.going

    def unknown(self, scene: int, commands) -> float:
        """How much a scene promises by ways out that it names and that nobody has taken."""
        text = self.looks[scene].words
        for command in commands:
            if (scene, command) not in self.leads and (scene, command) not in self.tried:
                where = tokens(command)[1:]
                if where and text.issuperset(where):
                    return PASSED_BY ** self.passed.get(scene, 0)
        return 0.0

    def pull(self, worth: dict[int, float]) -> dict[str, float]:
        """For each command that leads on from here: the best scene by that way, the nearer the better.

        `worth` holds what a scene promises, by its number.
        """
        best: dict[str, float] = {}
        distant = {self.here}
        queue = deque([(self.here, "", 0)])
        while queue:
            scene, first, steps = queue.popleft()
            if first:
                best[first] = max(best.get(first, 0.0), worth.get(scene, 0.0) * FARTHER ** (steps - 1))
            for command, there in self._ways.get(scene, ()):
                if there not in distant:
                    distant.add(there)
                    queue.append((there, first or command, steps + 1))
        return best

    @property
    def _ways(self) -> dict[int, list[tuple[str, int]]]:
        ways: dict[int, list[tuple[str, int]]] = {}
        for (scene, command), there in self.leads.items():
            ways.setdefault(scene, []).append((command, there))
        return ways


def survey(turns: tuple[Seen, ...], taken: tuple[str, ...]) -> Atlas:
    """The graph that the observations and the commands between them show."""
    scenes, found = scenes_of(turns)
    looks = dict(enumerate(found))
    leads, passed, _ = _ways(scenes, taken)
    going = frozenset(tokens(command)[0] for _, command in leads if tokens(command))
    tried = frozenset(zip(scenes, taken, strict=False))
    wide = _is_wide(list(zip(taken, scenes, scenes[1:], strict=False)))
    return Atlas(scenes, leads, tried, looks, passed, going, wide)


@lru_cache(maxsize=64)  # the next turn asks for one command more
def _ways(scenes: tuple[int, ...], taken: tuple[str, ...]) -> tuple[dict, dict, dict[str, frozenset[str]]]:
    """Where commands lead, how often scenes were left by a known way, and what led back from where each led."""
    if not taken:
        return {}, {}, {}
    known = _ways(scenes[:-1], taken[:-1])
    before, after, action = *scenes[-2:], taken[-1]
    if before == after:
        return known
    leads, passed, back = map(dict, known)
    if (before, action) in leads:
        passed[before] = passed.get(before, 0) + 1
    leads[before, action] = after
    for (scene, command), there in leads.items():
        if scene == after and there == before:
            back[command] = back.get(command, frozenset()) | {action}
            back[action] = back.get(action, frozenset()) | {command}
    for (scene, command), there in list(leads.items()):
        if len(back.get(command, ())) == 1:
            leads.setdefault((there, *back[command]), scene)
    return leads, passed, back


def _is_wide(moves: list[tuple[str, int, int]]) -> bool:
    """Whether most commands that were given in several scenes have led to several."""
    ways: dict[str, set[tuple[int, int]]] = {}
    for command, before, after in moves:
        if before != after:
            ways.setdefault(command, set()).add((before, after))
    several = [found for found in ways.values() if len({before for before, _ in found}) > 1]
    differ = sum(len({after for _, after in found}) > 1 for found in several)
    return 2 * differ >= len(several)


@lru_cache(maxsize=64)  # as above
def scenes_of(turns: tuple[Seen, ...]) -> tuple[tuple[int, ...], tuple[Seen, ...]]:
    """The number of the scene of each turn, and what each scene looked like last.

    A description is long, and begins and ends its first line with the marks that the first one has there;
    other observations tell of an effect and leave the scene as it is.
    """
    first, turn = turns[0], turns[-1]
    if len(turns) == 1:
        return (0,), turns
    scenes, found = scenes_of(turns[:-1])
    if len(turn.words) < len(first.words) / LONG or _form(turn) != _form(first):
        return (*scenes, scenes[-1]), found
    number = next((n for n, one in enumerate(found) if like(one, turn) >= SAME_SCENE), len(found))
    return (*scenes, number), (*found[:number], turn, *found[number + 1 :])


def _form(turn: Seen) -> str:
    """The marks at the beginning and the end of the first line."""
    line = turn.listing[0] if turn.listing else ""
    return "".join(mark for mark in line[:1] + line[-1:] if not mark.isalnum())
