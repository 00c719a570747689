"""Houses for ALFWorld without its data: one room and one task each, as PDDL generated from a seed.

A house is a pure function of its split and number. Its problem is in the `alfworld` package's own
domain; its goal, wording and rules of what fits where are the package's own tables. Every game is
played to its end by a recorded plan before it is handed out. What is in a room, and where, is in
`alfworld_houses.toml`: common sense, not ALFRED's, so results say `generated`.
"""

import functools
import importlib.util
import random
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domains.alfworld_engine import Engine, entity_names
from envs import derive_seed

VERSION = 1  # of the houses; raise it with every change to what they contain
SIZES = {"learning": 48, "test": 48, "shift": 48}  # houses of each split
HELD_OUT_LAYOUTS = 3  # of each room, for the distribution shift
INSTANCES = (0.1, 0.4, 0.3, 0.2)  # probability of 0, 1, 2, 3 things of a kind
TOGETHER = 0.5  # where two things are wanted: probability that one lies with the one before

START = "loc_bar_0"  # where the agent begins, away from everything
ABILITIES = ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable")  # the package's words
LAMP = "DeskLamp_bar_01"


@functools.cache
def tables() -> dict[str, Any]:
    """The `families` of tasks, the `lamp_places`, and each room by its name."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


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


def fits(place: str, thing: str) -> bool:
    """Whether a kind of thing may lie in or on a kind of place, by the package's table."""
    return thing in package_tables("constants")["VAL_RECEPTACLE_OBJECTS"].get(place, ())


def has(thing: str, ability: str) -> bool:
    """Whether a kind of thing is "Cleanable", "Heatable", ..., by the package's table."""
    return thing in package_tables("constants")["VAL_ACTION_OBJECTS"][ability]


@functools.cache
def layouts(room: str) -> tuple[dict[str, int], ...]:
    """Furniture of a room's layouts: those of learning and test first, then those of the shift split."""
    rng = random.Random(derive_seed("layouts", VERSION, room))
    found: list[dict[str, int]] = []
    while len(found) < tables()[room]["layouts"] + HELD_OUT_LAYOUTS:
        furniture = tables()[room]["furniture"]
        drawn = {kind: rng.randint(least, most) for kind, (least, most) in furniture.items()}
        if drawn not in found:
            found.append(drawn)
    return tuple(found)


def houses() -> Iterator[tuple[str, "House"]]:
    """All houses with their splits, in a fixed order."""
    for split, size in SIZES.items():
        for number in range(size):
            yield split, house(split, number)


class House:
    """A room, what is in it, and a task. Families of tasks take turns, so every split has all of them.

    `id`: "houses/<family>-<thing>-<place>-<room><layout>/<split>_<number>". `sentence`: the task in words.
    `problem`: PDDL text. `plan`: commands that win. `layout`: number of the room's layout, from 0.
    """

    def __init__(self, split: str, number: int):
        self.rng = random.Random(derive_seed("house", VERSION, split, number))
        families = tables()["families"]
        self.family = list(families)[number % len(families)]
        # How the thing is treated: the property that it must have, place, verb.
        self.treatment = families[self.family].get("treatment")
        while not self._choose_task(shift=split == "shift"):
            pass
        self.things: dict[str, str] = {}  # place of each thing that lies somewhere
        self._furnish()
        entry = package_tables("goal_library")["gdict"][self.family]
        task = f"{self.family}-{self.target}-{self.goal or _kind(LAMP)}-{self.room}{self.layout}"
        words = {"obj": self.target.lower(), "recep": self.goal.lower(), "toggle": "desklamp"}
        self.id = f"houses/{task}/{split}_{number:03d}"
        self.sentence = self.rng.choice(entry["templates"]).format(**words)
        self.problem = self._problem(f"house_{split}_{number:03d}", entry["pddl"])
        self.plan = self._plan()
        self.proved = False  # whether the engine has won by the plan, in this process

    def _choose_task(self, shift: bool) -> bool:
        """Draw a room, and the kinds of thing and place that the task is about; False if there are none."""
        families = tables()["families"]
        self.room = self._weighted(families[self.family]["rooms"])
        room = tables()[self.room]
        first, count = (room["layouts"], HELD_OUT_LAYOUTS) if shift else (0, room["layouts"])
        self.layout = first + self.rng.randrange(count)
        self.furniture, self.habits = layouts(self.room)[self.layout], room["habits"]
        self.places = [_place_id(kind, n) for kind, count in self.furniture.items() for n in range(count)]
        lit = self.room in families["look_at_obj_in_light"]["rooms"]
        kinds = {kind: w for kind, w in tables()["lamp_places"].items() if lit and self.furniture.get(kind)}
        self.lamp_place = self._spot(kinds) if kinds else None

        ability, treated_at, _ = self.treatment or ("", "", "")
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
            self.goal = self._weighted(goals)
        return bool(goals)

    def _weighted(self, weights: dict[str, float]) -> str:
        return self.rng.choices(list(weights), weights=list(weights.values()))[0]

    def _homes(self, thing: str) -> dict[str, float]:
        """Kinds of place in this room where a kind of thing is kept, with weights."""
        habits = self.habits[thing]
        return {kind: w for kind, w in habits.items() if self.furniture.get(kind) and fits(kind, thing)}

    def _spot(self, homes: dict[str, float]) -> str:
        """A place of one of these kinds."""
        kind = self._weighted(homes)
        return self.rng.choice([place for place in self.places if _kind(place) == kind])

    def _furnish(self) -> None:
        """Put every thing somewhere; none of the target's kind where that would be half the task."""
        two = self.family == "pick_two_obj_and_place"
        for thing in self.habits:
            count = self.rng.choices(range(4), weights=INSTANCES)[0]
            if thing == self.target:
                count = max(count, 2 if two else 1)
            homes = self._homes(thing)
            if thing == self.target and not self.treatment:
                homes.pop(self.goal, None)
            spot = ""
            for number in range(count if homes else 0):
                together = two and thing == self.target and self.rng.random() < TOGETHER
                if not spot or not together:
                    spot = self._spot(homes)
                self.things[f"{thing}_bar_{number + 1:02d}"] = spot
        if self.lamp_place:
            self.things[LAMP] = self.lamp_place

    def _plan(self) -> tuple[str, ...]:
        """Commands that do the task, for a player who knows where everything is."""
        entities = (*self.places, *self.things)
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
            return next(place for place in self.places if _kind(place) == kind)

        targets = [thing for thing in self.things if _kind(thing) == self.target]
        for thing in targets[: 2 if self.family == "pick_two_obj_and_place" else 1]:
            visit(self.things[thing])
            commands.append(f"take {names[thing]} from {names[here]}")
            if self.treatment:
                _, place, verb = self.treatment
                visit(first(place), reach=False)
                commands.append(f"{verb} {names[thing]} with {names[here]}")
            if self.goal:
                visit(first(self.goal))
                commands.append(f"move {names[thing]} to {names[here]}")
            else:
                visit(self.lamp_place)
                commands.append(f"use {names[LAMP]}")
        return tuple(commands)

    def _problem(self, name: str, goal: str) -> str:
        """The PDDL text; `goal` is the package's form for it, which also closes the definition."""
        constants = package_tables("constants")
        fixtures = [f"{kind}_bar_9{n}" for n, kind in enumerate(tables()[self.room]["fixtures"])]

        # Each place and fixture has a location of its own, but the burners of a stove share one.
        spots: dict[str, str] = {}
        for number, entity in enumerate((*self.places, *fixtures), start=1):
            shared = [spots[other] for other in spots if _kind(other) == _kind(entity) == "StoveBurner"]
            spots[entity] = shared[0] if shared else f"loc_bar_{number}"

        # All objects. Types that do not occur in the house are declared too, because actions name some.
        movable = set(constants["MOVABLE_RECEPTACLES"])
        kinds = sorted(set(constants["OBJECTS"]) - constants["RECEPTACLES"] | movable)
        rows = {
            "otype": [f"{kind}Type" for kind in kinds],
            "rtype": [f"{kind}Type" for kind in sorted(constants["RECEPTACLES"] - movable)],
            "object": [*self.things, *fixtures],
            "receptacle": self.places,
            "location": [START, *sorted(set(spots.values()))],
        }
        lines = [f"(define (problem {name})", "(:domain alfred)", "(:objects", "agent1 - agent"]
        lines += [f"{entity} - {kind}" for kind, entities in rows.items() for entity in entities]

        # Facts about places: their kinds, where they are, and what they can contain.
        lines += [")", "(:init", f"(atLocation agent1 {START})"]
        for place in self.places:
            lines += [f"(receptacleType {place} {_kind(place)}Type)"]
            lines += [f"(receptacleAtLocation {place} {spots[place]})"]
            lines += [f"(openable {place})"] if _openable(place) else []
        kinds = sorted({_kind(thing) for thing in self.things})
        for place in sorted({_kind(place) for place in self.places}):
            lines += [f"(canContain {place}Type {kind}Type)" for kind in kinds if fits(place, kind)]

        # Facts about things: their kinds, where they are, and what can be done with them.
        for thing, place in self.things.items():
            kind = _kind(thing)
            lines += [f"(objectType {thing} {kind}Type)", f"(inReceptacle {thing} {place})"]
            lines += [f"(objectAtLocation {thing} {spots[place]})"]
            lines += [f"({ability.lower()} {thing})" for ability in ABILITIES if has(kind, ability)]
            lines += [f"(pickupable {thing})"] if thing != LAMP else []
            lines += [f"(isReceptacleObject {thing})"] if kind in movable else []
        for fixture in fixtures:
            lines += [f"(objectType {fixture} {_kind(fixture)}Type)"]
            lines += [f"(objectAtLocation {fixture} {spots[fixture]})"]

        words = {"obj": self.target, "recep": self.goal, "toggle": _kind(LAMP)}
        return "\n".join([*lines, ")", goal.format(**words).replace("#", "-")])


house = functools.cache(House)


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


def game(house: House, engine: Engine) -> dict[str, Any]:
    """The house's game in the form of an official file, once the engine has played its plan to the end."""
    data = {
        "pddl_domain": package_text("alfred.pddl"),
        "grammar": grammar_of(house.sentence),
        "pddl_problem": house.problem,
        "solvable": True,
        "walkthrough": list(house.plan),
    }
    if not house.proved:
        prove(data, engine)
        house.proved = True
    return data


def prove(data: dict[str, Any], engine: Engine) -> None:
    """Play the walkthrough. Raises RuntimeError unless its last command wins and none before it."""
    engine.load(data)
    engine.reset()
    won = [engine.won]
    for command in data["walkthrough"]:
        engine.step(command)
        won.append(engine.won)
    if not won[-1] or any(won[:-1]):
        raise RuntimeError(f"generated house cannot be won by its plan {data['walkthrough']}")
