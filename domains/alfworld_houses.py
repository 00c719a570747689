"""Houses for ALFWorld without its data: one room and one task each, as PDDL generated from a seed.

A house is a pure function of its split and number. Its problem is in the `alfworld` package's own
domain; its goal, wording and rules of what fits where are the package's own tables. Every game is
played to its end by a recorded plan before it is handed out. What is in a room, and where, is in
`alfworld_houses.toml`: common sense, not ALFRED's, so results say `generated`.
"""

import functools
import importlib.util
import json
import random
import runpy
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.alfworld_engine import Engine, entity_names, write_whole
from envs import derive_seed

VERSION = 1  # of the houses; raise it with every change to what they contain
SIZES = {"learning": 48, "test": 48, "shift": 48}  # houses of each split
LAYOUTS = {"kitchen": 6, "living": 4, "bedroom": 4, "bathroom": 4}  # of learning and test, by room
HELD_OUT_LAYOUTS = 3  # of each room, for the distribution shift
INSTANCES = (0.1, 0.4, 0.3, 0.2)  # probability of 0, 1, 2, 3 things of a kind

START = "loc_bar_0"  # where the agent begins, away from everything
ABILITIES = ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable")  # the package's words

# Where tasks of a family take place, with weights.
ROOMS = {
    "pick_and_place_simple": {"kitchen": 2, "living": 3, "bedroom": 3, "bathroom": 3},
    "look_at_obj_in_light": {"living": 1, "bedroom": 4},
    "pick_clean_then_place_in_recep": {"kitchen": 4, "bathroom": 1},
    "pick_heat_then_place_in_recep": {"kitchen": 1},
    "pick_cool_then_place_in_recep": {"kitchen": 1},
    "pick_two_obj_and_place": {"kitchen": 2, "living": 2, "bedroom": 3, "bathroom": 2},
}
# How a thing is treated: the property that it must have, place, verb.
TREATMENTS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin", "clean"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave", "heat"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge", "cool"),
}
LAMP = "DeskLamp_bar_01"
LAMP_PLACES = {"Desk": 4, "Dresser": 1, "Shelf": 3, "SideTable": 3}  # kinds, with weights
TOGETHER = 0.5  # where two things are wanted: probability that one lies with the one before


@dataclass(frozen=True)
class House:
    """A room, what is in it, and a task."""

    id: str  # "houses/<family>-<thing>-<place>-<room><layout>/<split>_<number>"
    room: str
    layout: int  # number of the room's layout, from 0
    problem: str  # PDDL text
    sentence: str  # the task in words
    plan: tuple[str, ...]  # commands that win


@functools.cache
def package_text(name: str) -> str:
    """A data file of the `alfworld` package: "alfred.pddl" or "alfred.twl2"."""
    return Path(_package_folder(), "data", name).read_text(encoding="utf-8")


def grammar_of(task: str) -> str:
    """The package's grammar for a game whose task is, in words, `task`."""
    return package_text("alfred.twl2").replace("UNKNOWN GOAL", task)


@functools.cache
def package_tables(name: str) -> dict[str, Any]:
    """The tables of a module of the `alfworld` package, by name.

    The package itself is not imported, because that creates folders in the user's home and sets an
    environment variable.
    """
    return runpy.run_path(str(Path(_package_folder(), "gen", f"{name}.py")))


def _package_folder() -> str:
    return importlib.util.find_spec("alfworld").submodule_search_locations[0]


@functools.cache
def room_tables() -> dict[str, dict[str, Any]]:
    """The `furniture`, `habits` and `fixtures` of each room."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@functools.cache
def layouts(room: str) -> tuple[dict[str, int], ...]:
    """Furniture of a room's layouts: those of learning and test first, then those of the shift split."""
    rng = random.Random(derive_seed("layouts", VERSION, room))
    furniture = room_tables()[room]["furniture"]
    found: list[dict[str, int]] = []
    while len(found) < LAYOUTS[room] + HELD_OUT_LAYOUTS:
        drawn = {kind: rng.randint(least, most) for kind, (least, most) in furniture.items()}
        if drawn not in found:
            found.append(drawn)
    return tuple(found)


@functools.cache
def house(split: str, number: int) -> House:
    """House `number` of a split. Families take turns, so every split has all of them."""
    rng = random.Random(derive_seed("house", VERSION, split, number))
    family = list(ROOMS)[number % len(ROOMS)]
    while True:
        room = _weighted(rng, ROOMS[family])
        first = LAYOUTS[room] if split == "shift" else 0
        layout = first + rng.randrange(HELD_OUT_LAYOUTS if split == "shift" else LAYOUTS[room])
        draft = _Draft(rng, family, room, layout)
        if draft.choose_task():
            draft.furnish()
            return draft.house(split, number)


def houses() -> Iterator[tuple[str, House]]:
    """All houses with their splits, in a fixed order."""
    for split, size in SIZES.items():
        for number in range(size):
            yield split, house(split, number)


def _weighted(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def fits(place: str, thing: str) -> bool:
    """Whether a kind of thing may lie in or on a kind of place, by the package's table."""
    return thing in package_tables("constants")["VAL_RECEPTACLE_OBJECTS"].get(place, ())


def has(thing: str, ability: str) -> bool:
    """Whether a kind of thing is "Cleanable", "Heatable", ..., by the package's table."""
    return thing in package_tables("constants")["VAL_ACTION_OBJECTS"][ability]


class _Draft:
    """A house under construction: furniture first, then the task, then everything else."""

    def __init__(self, rng: random.Random, family: str, room: str, layout: int):
        self.rng, self.family, self.room, self.layout = rng, family, room, layout
        self.furniture, self.habits = layouts(room)[layout], room_tables()[room]["habits"]
        self.places = [_place_id(kind, n) for kind, count in self.furniture.items() for n in range(count)]
        self.things: dict[str, str] = {}  # place of each thing that lies somewhere
        lit = room in ROOMS["look_at_obj_in_light"]
        kinds = {kind: weight for kind, weight in LAMP_PLACES.items() if lit and self.furniture.get(kind)}
        self.lamp_place = self._spot(kinds) if kinds else None

    def choose_task(self) -> bool:
        """Draw the kind of thing and the kind of place that the task is about; False if there are none."""
        ability, treated_at, _ = TREATMENTS.get(self.family, ("", "", ""))
        things = [thing for thing in self.habits if self._homes(thing)]
        self.target = self.rng.choice([thing for thing in things if not ability or has(thing, ability)])
        self.goal = ""
        if self.family == "look_at_obj_in_light":
            return self.lamp_place is not None
        # Likelier where the target is usually kept. Some other place must be left where it can be found.
        homes = self._homes(self.target)
        goals = {
            kind: homes.get(kind, 0.5)
            for kind, count in self.furniture.items()
            if count and kind != treated_at and fits(kind, self.target) and set(homes) - {kind}
        }
        if goals:
            self.goal = _weighted(self.rng, goals)
        return bool(goals)

    def _homes(self, thing: str) -> dict[str, float]:
        """Kinds of place in this room where a kind of thing is kept, with weights."""
        habits = self.habits[thing]
        return {kind: w for kind, w in habits.items() if self.furniture.get(kind) and fits(kind, thing)}

    def furnish(self) -> None:
        """Put every thing somewhere; none of the target's kind where that would be half the task."""
        two = self.family == "pick_two_obj_and_place"
        for thing in self.habits:
            count = self.rng.choices(range(4), weights=INSTANCES)[0]
            if thing == self.target:
                count = max(count, 2 if two else 1)
            homes = self._homes(thing)
            if thing == self.target and self.family not in TREATMENTS:
                homes.pop(self.goal, None)
            spot = ""
            for number in range(count if homes else 0):
                together = two and thing == self.target and self.rng.random() < TOGETHER
                if not spot or not together:
                    spot = self._spot(homes)
                self.things[f"{thing}_bar_{number + 1:02d}"] = spot
        if self.lamp_place:
            self.things[LAMP] = self.lamp_place

    def _spot(self, homes: dict[str, float]) -> str:
        kind = _weighted(self.rng, homes)
        return self.rng.choice([place for place in self.places if _kind(place) == kind])

    def house(self, split: str, number: int) -> House:
        goal = self.goal or _kind(LAMP)
        task = f"{self.family}-{self.target}-{goal}-{self.room}{self.layout}"
        entry = package_tables("goal_library")["gdict"][self.family]
        words = {"obj": self.target.lower(), "recep": self.goal.lower(), "toggle": "desklamp"}
        return House(
            id=f"houses/{task}/{split}_{number:03d}",
            room=self.room,
            layout=self.layout,
            problem=_problem(self, f"house_{split}_{number:03d}", entry["pddl"]),
            sentence=self.rng.choice(entry["templates"]).format(**words),
            plan=_plan(self),
        )


def _place_id(kind: str, number: int) -> str:
    """Id of a place; basins are parts of a sink or bathtub, as in the official games."""
    if kind.endswith("Basin"):
        return f"{kind.removesuffix('Basin')}_bar_{number + 1:02d}_bar_{kind}"
    return f"{kind}_bar_{number + 1:02d}"


def _kind(entity: str) -> str:
    """Kind of a place or thing from its id."""
    last = entity.split("_bar_")[-1]
    return last if last.endswith("Basin") else entity.split("_bar_")[0]


def _openable(place: str) -> bool:
    return _kind(place) in package_tables("constants")["OPENABLE_CLASS_SET"]


def _plan(draft: _Draft) -> tuple[str, ...]:
    """Commands that do the task, for a player who knows where everything is."""
    entities = (*draft.places, *draft.things)
    named = entity_names(entity.lower() for entity in entities)
    names = {entity: named[entity.lower()] for entity in entities}
    commands: list[str] = []
    here, opened = "", set()

    def visit(place: str, reach: bool = True) -> None:
        nonlocal here
        if place != here:
            commands.append(f"go to {names[place]}")
            here = place
        if reach and _openable(place) and place not in opened:
            commands.append(f"open {names[place]}")
            opened.add(place)

    def first(kind: str) -> str:
        return next(place for place in draft.places if _kind(place) == kind)

    targets = [thing for thing in draft.things if _kind(thing) == draft.target]
    for thing in targets[: 2 if draft.family == "pick_two_obj_and_place" else 1]:
        visit(draft.things[thing])
        commands.append(f"take {names[thing]} from {names[here]}")
        if draft.family in TREATMENTS:
            _, place, verb = TREATMENTS[draft.family]
            visit(first(place), reach=False)
            commands.append(f"{verb} {names[thing]} with {names[here]}")
        if draft.goal:
            visit(first(draft.goal))
            commands.append(f"move {names[thing]} to {names[here]}")
        else:
            visit(draft.lamp_place)
            commands.append(f"use {names[LAMP]}")
    return tuple(commands)


def _problem(draft: _Draft, name: str, goal: str) -> str:
    """The PDDL text; `goal` is the package's form for it, which also closes the definition."""
    tables = package_tables("constants")
    fixtures = [f"{kind}_bar_9{n}" for n, kind in enumerate(room_tables()[draft.room]["fixtures"])]

    # Each place and fixture has a location of its own, but the burners of a stove share one.
    spots: dict[str, str] = {}
    for number, entity in enumerate((*draft.places, *fixtures), start=1):
        shared = [spots[other] for other in spots if _kind(other) == _kind(entity) == "StoveBurner"]
        spots[entity] = shared[0] if shared else f"loc_bar_{number}"

    # All objects. Types that do not occur in the house are declared too, because actions name some.
    movable = set(tables["MOVABLE_RECEPTACLES"])
    kinds = sorted(set(tables["OBJECTS"]) - tables["RECEPTACLES"] | movable)
    rows = {
        "otype": [f"{kind}Type" for kind in kinds],
        "rtype": [f"{kind}Type" for kind in sorted(tables["RECEPTACLES"] - movable)],
        "object": [*draft.things, *fixtures],
        "receptacle": draft.places,
        "location": [START, *sorted(set(spots.values()))],
    }
    lines = [f"(define (problem {name})", "(:domain alfred)", "(:objects", "agent1 - agent"]
    lines += [f"{entity} - {kind}" for kind, entities in rows.items() for entity in entities]

    # Facts about places: their kinds, where they are, and what they can contain.
    lines += [")", "(:init", f"(atLocation agent1 {START})"]
    for place in draft.places:
        lines += [f"(receptacleType {place} {_kind(place)}Type)"]
        lines += [f"(receptacleAtLocation {place} {spots[place]})"]
        lines += [f"(openable {place})"] if _openable(place) else []
    kinds = sorted({_kind(thing) for thing in draft.things})
    for place in sorted({_kind(place) for place in draft.places}):
        lines += [f"(canContain {place}Type {kind}Type)" for kind in kinds if fits(place, kind)]

    # Facts about things: their kinds, where they are, and what can be done with them.
    for thing, place in draft.things.items():
        kind = _kind(thing)
        lines += [f"(objectType {thing} {kind}Type)", f"(inReceptacle {thing} {place})"]
        lines += [f"(objectAtLocation {thing} {spots[place]})"]
        lines += [f"({ability.lower()} {thing})" for ability in ABILITIES if has(kind, ability)]
        lines += [f"(pickupable {thing})"] if thing != LAMP else []
        lines += [f"(isReceptacleObject {thing})"] if kind in movable else []
    for fixture in fixtures:
        lines += [f"(objectType {fixture} {_kind(fixture)}Type)"]
        lines += [f"(objectAtLocation {fixture} {spots[fixture]})"]

    words = {"obj": draft.target, "recep": draft.goal, "toggle": _kind(LAMP)}
    return "\n".join([*lines, ")", goal.format(**words).replace("#", "-")])


def game(made: House, folder: Path, engine: Engine) -> dict:
    """The house's game in the form of an official file, kept under `folder`.

    A missing or damaged file is written after the engine has played the plan to its end.
    """
    path = folder / made.id / "game.tw-pddl"
    data = {
        "pddl_domain": package_text("alfred.pddl"),
        "grammar": grammar_of(made.sentence),
        "pddl_problem": made.problem,
        "solvable": True,
        "walkthrough": list(made.plan),
    }
    text = json.dumps(data, indent=1).encode()
    if not path.is_file() or path.read_bytes() != text:
        prove(data, engine)
        write_whole(path, text)
    return data


def prove(data: dict, engine: Engine) -> None:
    """Play the walkthrough. Raises RuntimeError unless its last command wins and none before it."""
    engine.load(data)
    engine.reset()
    won = [engine.won]
    for command in data["walkthrough"]:
        engine.step(command)
        won.append(engine.won)
    if not won[-1] or any(won[:-1]):
        raise RuntimeError(f"generated house cannot be won by its plan {data['walkthrough']}")
