"""Houses for ALFWorld without its data: one room and one task each, as PDDL generated from a seed.

A house is a pure function of its split and number. Domain, goal, wording and rules of what fits where are the
`alfworld` package's. Every game is won by a recorded plan before it is handed out. What is in a room, and where, is
in `alfworld_houses.toml`: common sense, not ALFRED's, so results say `generated`."""

import functools
import random
import runpy
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from domains.alfworld_engine import Engine, entity_names
from envs import derive_seed

VERSION = 1  # of the houses; raise it with every change to what they contain
SIZES = {"learning": 48, "test": 48, "shift": 48}  # houses of each split
HELD_OUT_LAYOUTS = 3  # of each room, for the distribution shift
START = "loc_bar_0"  # where the agent begins, away from everything
LAMP = "DeskLamp_bar_01"
# The `alfworld` package's folder. It is not imported: that makes folders in the home and sets a variable.
PACKAGE = Path(find_spec("alfworld").submodule_search_locations[0])


@functools.cache
def tables() -> dict[str, Any]:
    """The `families` of tasks, the `lamp_places`, and each room by its name."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@functools.cache
def package_text(name: str) -> str:
    """A data file of the `alfworld` package: "alfred.pddl" or "alfred.twl2"."""
    return (PACKAGE / "data" / name).read_text(encoding="utf-8")


def with_package_rules(game: dict, task: str) -> dict[str, Any]:
    """A game with the package's domain and grammar, which says the task in the words of `task`."""
    grammar = package_text("alfred.twl2").replace("UNKNOWN GOAL", task)
    return {**game, "pddl_domain": package_text("alfred.pddl"), "grammar": grammar}


@functools.cache
def package_tables(name: str) -> dict[str, Any]:
    """The tables of a module of the `alfworld` package, by name."""
    return runpy.run_path(str(PACKAGE / "gen" / f"{name}.py"))


def fits(place: str, thing: str) -> bool:
    """Whether a kind of thing may lie in or on a kind of place, by the package's table."""
    return thing in package_tables("constants")["VAL_RECEPTACLE_OBJECTS"].get(place, ())


def _kind(entity: str) -> str:
    """Kind of a place or thing from its id."""
    first, *_, last = entity.split("_bar_")
    return last if last.endswith("Basin") else first


@functools.cache
def layouts(room: str) -> tuple[dict[str, int], ...]:
    """Furniture of a room's layouts: those of learning and test first, then those of the shift split."""
    rng = random.Random(derive_seed("layouts", VERSION, room))
    table, found = tables()[room], []
    while len(found) < table["layouts"] + HELD_OUT_LAYOUTS:
        drawn = {kind: rng.randint(least, most) for kind, (least, most) in table["furniture"].items()}
        if drawn not in found:
            found.append(drawn)
    return tuple(found)


class House:
    """A room, what is in it, and a task. Families of tasks take turns, so every split has all of them.
    `id`: "houses/<family>-<thing>-<place>-<room><layout>/<split>_<number>". `sentence`: the task in words.
    `problem`: PDDL text. `plan`: commands that win. `layout`: number of the room's layout, from 0."""

    def __init__(self, split: str, number: int):
        self.rng = random.Random(derive_seed("house", VERSION, split, number))
        families = tables()["families"]
        self.family = list(families)[number % len(families)]
        self.wanted = 2 if self.family == "pick_two_obj_and_place" else 1  # things of the target's kind
        self.treatment = families[self.family].get("treatment")  # property that the thing must have, place, verb

        # Draw a room, and the kinds of thing and place that the task is about, until there are some.
        self.goal, found = "", False
        while not found:
            self.room = self._weighted(families[self.family]["rooms"])
            room = tables()[self.room]
            first, count = (room["layouts"], HELD_OUT_LAYOUTS) if split == "shift" else (0, room["layouts"])
            self.layout = first + self.rng.randrange(count)
            furniture = {kind: count for kind, count in layouts(self.room)[self.layout].items() if count}
            self.places = []
            for kind, count in furniture.items():  # basins are parts of a sink or bathtub, as in the official games
                whole = kind.removesuffix("Basin")
                part = "" if whole == kind else f"_bar_{kind}"
                self.places += [f"{whole}_bar_{n:02d}{part}" for n in range(1, count + 1)]
            # Kinds of place in this room where each kind of thing is kept, with weights.
            self.homes = {
                thing: {kind: weight for kind, weight in kinds.items() if kind in furniture and fits(kind, thing)}
                for thing, kinds in room["habits"].items()
            }
            lit = self.room in families["look_at_obj_in_light"]["rooms"]
            kinds = {kind: weight for kind, weight in tables()["lamp_places"].items() if lit and kind in furniture}
            self.lamp_place = self._spot(kinds) if kinds else None

            ability, treated_at, _ = self.treatment or ("", "", "")
            able = package_tables("constants")["VAL_ACTION_OBJECTS"][ability] if ability else self.homes
            self.target = self.rng.choice([thing for thing, homes in self.homes.items() if homes and thing in able])
            # Likelier where the target is usually kept. Some other place must be left where it can be found.
            homes = self.homes[self.target]
            goals = {kind: homes.get(kind, 0.5) for kind in furniture
                     if kind != treated_at and fits(kind, self.target) and homes.keys() - {kind}}
            if self.family == "look_at_obj_in_light":
                found = self.lamp_place is not None
            elif found := bool(goals):
                self.goal = self._weighted(goals)

        # Put every thing somewhere; none of the target's kind where that would be half the task.
        self.things: dict[str, str] = {}  # place of each thing that lies somewhere
        if not self.treatment:
            self.homes[self.target].pop(self.goal, None)
        for thing, homes in self.homes.items():
            least = self.wanted if thing == self.target else 0
            count = max(least, self.rng.choices(range(4), weights=(0.1, 0.4, 0.3, 0.2))[0])  # 0 to 3 of a kind
            spot = ""
            for n in range(count if homes else 0):
                if not (least == 2 and self.rng.random() < 0.5 and spot):  # else it lies with the one before
                    spot = self._spot(homes)
                self.things[f"{thing}_bar_{n + 1:02d}"] = spot
        if self.lamp_place:
            self.things[LAMP] = self.lamp_place

        entry = package_tables("goal_library")["gdict"][self.family]
        name = f"{split}_{number:03d}"
        self.id = f"houses/{self.family}-{self.target}-{self.goal or _kind(LAMP)}-{self.room}{self.layout}/{name}"
        sentence = self.rng.choice(entry["templates"])
        self.sentence = sentence.format(obj=self.target.lower(), recep=self.goal.lower(), toggle="desklamp")
        self.problem = self._problem(f"house_{name}", entry["pddl"])
        self.plan = self._plan()
        self.proved = False  # whether the engine has won by the plan, in this process

    def _weighted(self, weights: dict[str, float]) -> str:
        return self.rng.choices(list(weights), weights=list(weights.values()))[0]

    def _spot(self, homes: dict[str, float]) -> str:
        kind = self._weighted(homes)
        return self.rng.choice([place for place in self.places if _kind(place) == kind])

    def _plan(self) -> tuple[str, ...]:
        """Commands that do the task, for a player who knows where everything is."""
        names = entity_names(map(str.lower, (*self.places, *self.things)))
        first = {_kind(place): place for place in reversed(self.places)}
        openable = package_tables("constants")["OPENABLE_CLASS_SET"]
        here, opened, commands = "", set(), []
        targets = [thing for thing in self.things if _kind(thing) == self.target]
        for thing in targets[: self.wanted]:
            stops = [("take {} from {}", self.things[thing])]
            if self.treatment:
                stops.append((f"{self.treatment[2]} {{}} with {{}}", first[self.treatment[1]]))
            lamp = f"use {names.get(LAMP.lower())}", self.lamp_place
            stops.append(("move {} to {}", first[self.goal]) if self.goal else lamp)
            for command, place in stops:
                at = names[place.lower()]
                if place != here:
                    commands.append(f"go to {at}")
                if _kind(place) in openable and place not in opened and " with " not in command:
                    commands.append(f"open {at}")
                    opened.add(place)
                commands.append(command.format(names[thing.lower()], at))
                here = place
        return tuple(commands)

    def _problem(self, name: str, goal: str) -> str:
        """The PDDL text; `goal` is the package's form for it, which also closes the definition."""
        constants = package_tables("constants")
        fixtures = [f"{kind}_bar_9{n}" for n, kind in enumerate(tables()[self.room]["fixtures"])]

        # Each place and fixture has a location of its own, but the burners of a stove share one.
        spots = {entity: f"loc_bar_{n}" for n, entity in enumerate((*self.places, *fixtures), start=1)}
        burners = [place for place in self.places if _kind(place) == "StoveBurner"]
        spots |= {burner: spots[burners[0]] for burner in burners}

        # All objects. Types that do not occur in the house are declared too, because actions name some.
        movable, receptacles = set(constants["MOVABLE_RECEPTACLES"]), constants["RECEPTACLES"]
        objects = [f"{kind}Type - otype" for kind in sorted(set(constants["OBJECTS"]) - receptacles | movable)]
        objects += [f"{kind}Type - rtype" for kind in sorted(receptacles - movable)]
        objects += [f"{one} - object" for one in (*self.things, *fixtures)]
        objects += [f"{place} - receptacle" for place in self.places]
        objects += [f"{spot} - location" for spot in (START, *sorted(set(spots.values())))]

        # Facts about places: their kinds, where they are, and what they can contain.
        facts = [f"atLocation agent1 {START}"]
        for place in self.places:
            kind = _kind(place)
            facts += [f"receptacleType {place} {kind}Type", f"receptacleAtLocation {place} {spots[place]}"]
            facts += [f"openable {place}"] if kind in constants["OPENABLE_CLASS_SET"] else []
        kinds = sorted({_kind(thing) for thing in self.things})
        for place in sorted({_kind(place) for place in self.places}):
            facts += [f"canContain {place}Type {kind}Type" for kind in kinds if fits(place, kind)]

        # Facts about things: their kinds, where they are, and what can be done with them.
        abilities = ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable")  # the package's words
        for thing, place in self.things.items():
            kind = _kind(thing)
            facts += [f"objectType {thing} {kind}Type", f"inReceptacle {thing} {place}"]
            facts += [f"objectAtLocation {thing} {spots[place]}"]
            facts += [f"{one.lower()} {thing}" for one in abilities if kind in constants["VAL_ACTION_OBJECTS"][one]]
            facts += [f"pickupable {thing}"] if thing != LAMP else []
            facts += [f"isReceptacleObject {thing}"] if kind in movable else []
        for one in fixtures:
            facts += [f"objectType {one} {_kind(one)}Type", f"objectAtLocation {one} {spots[one]}"]

        goal = goal.format(obj=self.target, recep=self.goal, toggle=_kind(LAMP)).replace("#", "-")
        parts = [f"(define (problem {name})", "(:domain alfred)", "(:objects", "agent1 - agent", *objects, ")"]
        return "\n".join([*parts, "(:init", *(f"({fact})" for fact in facts), ")", goal])


house = functools.cache(House)


def houses() -> Iterator[tuple[str, House]]:
    """All houses with their splits, in a fixed order."""
    return ((split, house(split, number)) for split, size in SIZES.items() for number in range(size))


def game(house: House, engine: Engine) -> dict[str, Any]:
    """The house's game in the form of an official file, once the engine has played its plan to the end."""
    task = {"pddl_problem": house.problem, "solvable": True, "walkthrough": list(house.plan)}
    data = with_package_rules(task, house.sentence)
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
