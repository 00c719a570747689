"""Learns from all episodes where each sort of thing lies (by task, this very room first), which sorts of things lie alike
and where two of one lie together, which places are closed, which appliance does a treatment and which commands change or
show nothing; from won ones the order of the commands that mattered. Returns, for the new goal, a plan for searching that
goes on where alike things lay, a plan for doing, and a few notes.

Memory design 6d83ae225eed, learned by ALMA on alfworld, candidate 4.2 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (9ed5bda68f4c, 87.5 %) > 2.1 (5b3af2dc78be, 89.6 %) > 3.2 (589ce4e4c7d9, 94.8 %) > 4.2 (6d83ae225eed, 95.8 %)
learning set, static: 95.8 % ± 2.1 (standard error), +72.9 [+61.5, +84.4] points to no memory [95 %]
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign, Trajectory

# Words of a goal that are neither the thing nor the target, and those that tell its kind.
SMALL = set("""your task is to put a an some the in on into onto and it them find two of at under with look examine
clean cleaned wash washed cool cooled cold chill chilled hot heat heated warm light by using then one""".split())
KINDS = {"clean": "clean", "cleaned": "clean", "wash": "clean", "washed": "clean",
         "cool": "cool", "cooled": "cool", "cold": "cool", "chill": "cool", "chilled": "cool",
         "hot": "heat", "heat": "heat", "heated": "heat", "warm": "heat",
         "two": "two", "look": "look", "examine": "look"}
TREATMENTS = ("clean", "cool", "heat")
MAX_PLACES = 40  # in the plan for searching
MAX_OF_A_SORT = 4  # places of one sort, not shown to hold the thing in this room, before other sorts get their turn
LEAST_RATE = 0.005  # a place where a thing is expected less often is not named
MAX_ALIKE = 5  # sorts of things that tell where to look further
LEAST_VIEWS = 3  # views in which such a sort of thing must have been seen


def names_seen(obs):
    """Numbered names in the last list "you see ..." of an observation; None where it has no such list."""
    lists = re.findall(r"you see ([^.]*)", obs)
    return re.findall(r"[a-z]+ \d+", lists[-1]) if lists else None


def sort_of(name):
    return name.rsplit(" ", 1)[0]


def number_of(name):
    return int(name.rsplit(" ", 1)[1])


def parse_goal(init):
    """(goal text, kind, thing, target): target is the place or the lamp; empty texts for what is not found."""
    text = str(init.get("goal") or "")
    if not text and "Your task is to:" in str(init.get("obs") or ""):
        text = str(init["obs"]).rsplit("Your task is to:", 1)[1]
    text = text.rsplit("task is to:", 1)[-1].strip().rstrip(".").lower()
    words = re.findall(r"[a-z]+", text)
    kind = next((KINDS[word] for word in words if word in KINDS), "simple")
    rest = [word for word in words if word not in SMALL]
    thing = rest[0] if rest else ""
    target = rest[-1] if len(rest) > 1 else ""
    return text, kind, thing, target


def first_places(init):
    """Places that the first observation names."""
    found = re.search(r"you see ([^.]*)", str(init.get("obs") or "").lower())
    return re.findall(r"[a-z]+ \d+", found.group(1)) if found else []


def room_of(places):
    """What tells a room from others: all its places."""
    return tuple(sorted(set(places)))


def cosine(one, other):
    """Cosine of two profiles, dicts of numbers."""
    size = (sum(value * value for value in one.values()) * sum(value * value for value in other.values())) ** 0.5
    return sum(value * other.get(name, 0.0) for name, value in one.items()) / size if size else 0.0


class PlacesAndOrder(MemoryDesign):

    def __init__(self):
        self.episodes = 0
        self.seen = {}                      # (room, goal text): place: sorts of things at the first look into it
        self.many = {}                      # the same, but only sorts of which two or more were there
        self.goal_things = {}               # (room, goal text): sort of thing that was wanted
        self.goals_of_two = set()           # (room, goal text) of the tasks that want two things
        self.arrived = Counter()            # sort of place: first arrivals
        self.closed = Counter()             # sort of place: how many of them found it closed
        self.tools = defaultdict(Counter)   # verb: sort of place with which it was valid
        self.used = Counter()               # verb: how often used
        self.idle = Counter()               # verb: how often the valid actions stayed the same
        self.news = Counter()               # verb: how often what followed named something not met before
        self.orders = defaultdict(Counter)  # kind of task: order of the verbs that mattered in won episodes
        self.look_won = 0                   # won episodes of kind look
        self.look_held = 0                  # those of them that ended with the thing in the hand

    async def general_update(self, trajectory: Trajectory) -> None:
        init, steps = trajectory.init or {}, trajectory.steps or []
        text, kind, thing, target = parse_goal(init)
        places = set(first_places(init))
        if not thing or not places:
            print(f"goal or places not understood: {str(init.get('goal'))[:80]!r}, {len(places)} places")
        self.episodes += 1
        won = trajectory.reward >= 0.99
        key = (room_of(places), text)
        store = self.seen.setdefault(key, {})
        many = self.many.setdefault(key, {})
        self.goal_things[key] = thing
        if kind == "two":
            self.goals_of_two.add(key)
        viewed, arrived, tools, core = set(), set(), set(), []
        hand, lamp_used = set(), False
        met = set(re.findall(r"[a-z]+ \d+", str(init.get("obs") or "").lower()))
        before = set(init.get("actions_list") or [])
        for index, step in enumerate(steps):
            action = str(step.get("action_took") or "").strip().lower()
            obs = str(step.get("obs") or "").lower()
            now = set(step.get("actions_list") or [])
            words = action.split()
            if not words:
                continue
            verb = words[0]
            last = index == len(steps) - 1
            named = set(re.findall(r"[a-z]+ \d+", obs))
            if not last:
                self.used[verb] += 1
                self.idle[verb] += now == before
                self.news[verb] += bool(named - met)
            met |= named
            before = now
            for valid in now:
                if " with " in valid:
                    match = re.match(r"([a-z]+) .+ with ([a-z]+) \d+$", valid)
                    if match:
                        tools.add(match.groups())
            ending = re.search(r"[a-z]+ \d+$", action)
            name = ending.group(0) if ending else ""
            if verb in ("go", "open", "examine") and name in places:
                if verb == "go" and name not in arrived:
                    arrived.add(name)
                    self.arrived[sort_of(name)] += 1
                    self.closed[sort_of(name)] += f"{name} is closed" in obs
                seen = names_seen(obs)
                if seen is not None and name not in viewed:
                    viewed.add(name)
                    if name not in store:
                        counts = Counter(sort_of(one) for one in set(seen))
                        store[name] = frozenset(counts)
                        many[name] = frozenset(sort for sort, count in counts.items() if count > 1)
            if thing and len(words) > 2 and words[1] == thing:
                one = " ".join(words[1:3])
                if verb == "take":
                    hand.add(one)
                elif verb == "move":
                    hand.discard(one)
            if verb == "use" and target and target in words:
                lamp_used = True
            if last or (thing in words and verb in ("take", "move", kind)):
                core.append(verb)
        for verb, tool in tools:
            self.tools[verb][tool] += 1
        if won and kind == "look":
            # What held at the end: the thing in the hand, the lamp switched on.
            self.look_won += 1
            self.look_held += bool(hand)
            order = (["take"] if hand else []) + (["use"] if lamp_used else [])
            if order:
                self.orders[kind][tuple(order)] += 1
            print(f"won {kind} with {thing}: {order}, commands that mattered {core[-6:]}")
        elif won and core:
            order = [verb for verb in dict.fromkeys(core) if verb != core[-1]] + [core[-1]]
            self.orders[kind][tuple(order)] += 1
            print(f"won {kind} with {thing}: {order}")
        if self.episodes % 24 == 0:
            rooms = {room for room, _ in self.seen}
            sorts = {sort for views in self.seen.values() for sorts in views.values() for sort in sorts}
            single = sum(self.goal_things[one] in sorts for one in self.goals_of_two for sorts in self.seen[one].values())
            pairs = sum(self.goal_things[one] in sorts for one in self.goals_of_two for sorts in self.many[one].values())
            profiles, views_with, _ = self.profiles()
            kin = [(other, round(likeness, 2)) for likeness, other in self.alike(thing, profiles, views_with)]
            print(f"{self.episodes} episodes, {len(self.seen)} tasks in {len(rooms)} rooms, {len(sorts)} sorts of things; "
                  f"things that lie like {thing}: {kin}; "
                  f"always in one place of a room: {[sort for sort in sorted(sorts) if self.is_fixed(sort)][:12]}; "
                  f"look {self.look_held} of {self.look_won} won with the thing in hand; "
                  f"kind two: {single} views with the wanted thing, {pairs} of them with two or more; "
                  f"orders {({kind: dict(orders) for kind, orders in self.orders.items()})}; "
                  f"tools {({verb: tool.most_common(2) for verb, tool in self.tools.items()})}; "
                  f"idle {({verb: (self.idle[verb], count) for verb, count in self.used.items()})}; "
                  f"news {({verb: (self.news[verb], count) for verb, count in self.used.items()})}")

    def order_for(self, kind):
        """Verbs in order, from won tasks of this kind, or else from won tasks of the kinds that also bring a thing."""
        order = []
        if self.orders.get(kind):
            order = list(self.orders[kind].most_common(1)[0][0])
        elif kind != "look":
            others = Counter()
            for other, orders in self.orders.items():
                if other != "look":
                    for verbs, count in orders.items():
                        others[tuple(verb for verb in verbs if verb not in TREATMENTS)] += count
            if others:
                order = list(others.most_common(1)[0][0])
                if kind in TREATMENTS and order:
                    order.insert(len(order) - 1, kind)
        return order

    def shown(self, thing, room):
        """Place of this very room: in how many of its learned tasks such a thing lay there."""
        counts = Counter()
        for (other, _), views in self.seen.items():
            if other == room:
                for place, sorts in views.items():
                    if thing in sorts:
                        counts[place] += 1
        return counts

    def is_fixed(self, thing):
        """Whether it was always in the same one place, in all rooms that showed it in two or more tasks."""
        tasks, spots = Counter(), defaultdict(set)
        for (room, _), views in self.seen.items():
            where = [place for place, sorts in views.items() if thing in sorts]
            if where:
                tasks[room] += 1
                spots[room].update(where)
        often = [room for room, count in tasks.items() if count > 1]
        return bool(often) and all(len(spots[room]) == 1 for room in often)

    def likely(self, thing, places, pooled=True):
        """Those of the places that held such a thing, here or in other rooms, the likeliest first. A thing that was
        never seen is looked for where wanted things lay, if `pooled`."""
        room = room_of(places)
        viewed, held, wanted = Counter(), Counter(), Counter()
        views_here, held_here = Counter(), Counter()
        for key, views in self.seen.items():
            goal_thing = self.goal_things.get(key)
            for place, sorts in views.items():
                sort = sort_of(place)
                viewed[sort] += 1
                held[sort] += thing in sorts
                wanted[sort] += goal_thing in sorts
                if key[0] == room:
                    views_here[place] += 1
                    held_here[place] += thing in sorts
        known = sum(held.values()) > 0
        if not known and not pooled:
            return []
        weight = 0.2 if known and self.is_fixed(thing) else 2.0
        rated = []
        for place in dict.fromkeys(places):
            sort = sort_of(place)
            if known:
                rate = held[sort] / (viewed[sort] + 2)
                rate = (held_here[place] + weight * rate) / (views_here[place] + weight)
            else:
                rate = wanted[sort] / (viewed[sort] + 2)
            if rate > LEAST_RATE:
                rated.append((-rate, sort, number_of(place), place))
        return [place for *_, place in sorted(rated)]

    def profiles(self):
        """(sort of thing: {sort of place: how often it held it}; sort of thing: views with it; sort of place: how often
        it held the wanted thing), over all learned views."""
        viewed, wanted, views_with, held = Counter(), Counter(), Counter(), defaultdict(Counter)
        for key, views in self.seen.items():
            goal_thing = self.goal_things.get(key)
            for place, sorts in views.items():
                sort = sort_of(place)
                viewed[sort] += 1
                wanted[sort] += goal_thing in sorts
                for thing in sorts:
                    held[thing][sort] += 1
                    views_with[thing] += 1
        profiles = {thing: {sort: count / (viewed[sort] + 2) for sort, count in counts.items()}
                    for thing, counts in held.items()}
        return profiles, views_with, {sort: count / (viewed[sort] + 2) for sort, count in wanted.items()}

    def alike(self, thing, profiles, views_with):
        """[(likeness, sort of thing)] of those that lie most like this one, the most alike first."""
        own = profiles.get(thing)
        if not own:
            return []
        rated = [(cosine(own, profile), other) for other, profile in profiles.items()
                 if other != thing and views_with[other] >= LEAST_VIEWS]
        return sorted((one for one in rated if one[0] > 0), key=lambda one: (-one[0], one[1]))[:MAX_ALIKE]

    def further(self, thing, places):
        """These places, none of which is known to hold the thing, as far as alike things lay in such ones, the likeliest
        first. For a thing that was never seen all of them, by how often wanted things lay there."""
        profiles, views_with, wanted = self.profiles()
        known = thing in profiles
        if known:
            kin = self.alike(thing, profiles, views_with)
            total = sum(likeness for likeness, _ in kin)
            rates = Counter()
            for likeness, other in kin:
                for sort, rate in profiles[other].items():
                    rates[sort] += likeness * rate / total
        else:
            rates = Counter(wanted)
        if not any(rate > 0 for rate in rates.values()):
            return []
        rated = [(-rates[sort_of(place)], sort_of(place), number_of(place), place) for place in dict.fromkeys(places)
                 if not known or rates[sort_of(place)] > LEAST_RATE]
        return [place for *_, place in sorted(rated)]

    def spread(self, where, thing, room):
        """The same places, with only a few of a sort up front, unless this room has shown the thing there."""
        shown = self.shown(thing, room)
        front, back, taken = [], [], Counter()
        for place in where:
            sort = sort_of(place)
            if shown[place]:
                front.append(place)
            elif taken[sort] < MAX_OF_A_SORT:
                taken[sort] += 1
                front.append(place)
            else:
                back.append(place)
        return front + back

    def pair_place(self, where, thing, room):
        """The one of these places where two such things lay together most often, here, or else in places of its sort;
        the first of them where none is known. As a list of one, or empty."""
        pairs_here, pairs, views = Counter(), Counter(), Counter()
        for key, stored in self.many.items():
            for place, sorts in stored.items():
                sort = sort_of(place)
                views[sort] += 1
                pairs[sort] += thing in sorts
                if key[0] == room:
                    pairs_here[place] += thing in sorts
        rated = [(-pairs_here[place], -pairs[sort_of(place)] / (views[sort_of(place)] + 2), index)
                 for index, place in enumerate(where)]
        return [where[min(rated)[2]]] if rated else []

    def is_closed(self, sort):
        return self.arrived[sort] > 0 and self.closed[sort] >= 0.8 * self.arrived[sort]

    async def general_retrieve(self, trajectory: Trajectory):
        if not self.episodes:
            return {}
        init = trajectory.init or {}
        text, kind, thing, target = parse_goal(init)
        places = first_places(init)
        room = room_of(places)
        result, notes = {}, []

        def first_of(sort):
            numbers = [number_of(place) for place in places if sort_of(place) == sort]
            return f"{sort} {min(numbers)}" if numbers else f"{sort} 1"

        def visits(some):
            commands = []
            for place in some:
                commands.append(f"go to {place}")
                if self.is_closed(sort_of(place)):
                    commands.append(f"open {place}")
            return commands

        tool = ""
        if kind in TREATMENTS and self.tools.get(kind):
            here = {sort_of(place) for place in places}
            known = [one for one, _ in self.tools[kind].most_common()]
            tool = next((one for one in known if one in here), "")

        if thing and places:
            order, plan = self.order_for(kind), []

            # Where the lamp stands: where this room has shown it, or else where other rooms had it.
            lamps = []
            if kind == "look" and "use" in order and target:
                lamps = self.likely(target, places, pooled=False)
                lamps = lamps[:1] if lamps and self.shown(target, room)[lamps[0]] else lamps[:3]

            # Where to look: not at the target and the appliance, which are needed later; at the lamp last.
            where = [place for place in self.likely(thing, places) if sort_of(place) not in (target, tool)]
            where = self.spread(where, thing, room)
            # And where to go on: where alike things lay.
            left = [place for place in places if place not in where and sort_of(place) not in (target, tool)]
            tail = self.spread(self.further(thing, left), thing, room)
            late = [place for place in where + tail if place in lamps]
            early = [place for place in where + tail if place not in lamps]
            search = visits(early[:MAX_PLACES - len(late)] + late)
            if search:
                search.append(f"take {thing} 1")
                result[f"find {thing}"] = search

            # What to do, in the order of won tasks; twice for two things.
            if kind == "look":
                for verb in order:
                    if verb == "take":
                        plan.append(f"take {thing} 1")
                    elif verb == "use" and target:
                        plan += [f"go to {place}" for place in lamps]
                        plan.append(f"use {target} 1")
            else:
                for number in ([1, 2] if kind == "two" else [1]):
                    for verb in order:
                        if verb == "take":
                            if number == 2:
                                plan += visits(self.pair_place(where, thing, room))
                            plan.append(f"take {thing} {number}")
                        elif verb == kind and tool:
                            plan.append(f"go to {first_of(tool)}")
                            plan.append(f"{kind} {thing} {number} with {first_of(tool)}")
                        elif verb == "move" and target:
                            plan.append(f"go to {first_of(target)}")
                            if number == 1 and self.is_closed(target):
                                plan.append(f"open {first_of(target)}")
                            plan.append(f"move {thing} {number} to {first_of(target)}")
            if len(plan) > 1:
                result[text] = plan

            if tool and kind in order:
                notes.append(f"you pick up the {thing} and {kind} it with {tool}")
            if kind == "look":
                if lamps:
                    notes.append(f"you pick up the {thing} and go to {sort_of(lamps[0])}")
                if target and "use" in order:
                    notes.append(f"you pick up the {thing} and use {target}")
                if self.look_won and self.look_held == self.look_won:
                    notes.append(f"avoid move {thing}")
            elif target and "move" in order:
                if kind in TREATMENTS:
                    # "using" stands in what the game says right after a treatment.
                    notes.append(f"you {kind} the {thing} using it and go to {target}")
                else:
                    notes.append(f"you pick up the {thing} and go to {target}")

            # Places of the search that are found closed; not if that would open all places of the target's sort.
            opens = self.used["open"]
            if search and opens >= 20 and self.news["open"] >= 0.1 * opens and not self.is_closed(target):
                shut = [sort for sort in dict.fromkeys(sort_of(place) for place in where) if self.is_closed(sort)]
                notes += [f"you arrive at {sort} and open it" for sort in shut[:2]]

        # Commands that nearly always left everything as it was or never showed anything new, and that no won task needed.
        needed = {verb for orders in self.orders.values() for order in orders for verb in order}
        for verb in sorted(self.used):
            count = self.used[verb]
            if count < 20 or verb in needed or verb in self.tools or verb == "use":
                continue
            blind = self.news[verb] <= 0.01 * count and verb not in ("go", "open", "take", "move")
            if self.idle[verb] >= 0.9 * count or blind:
                notes.append(f"avoid {verb}")
        if notes:
            result["notes"] = notes
        return result
