"""Memory design 4d5e0b8ba147, learned by ALMA on babaisai, candidate 7.1 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (fa2eeba81c99, 29.2 %) > 2.1 (c9cf44458135, 34.6 %) > 6.1 (2bf496a8f686, 70.8 %) > 7.1 (4d5e0b8ba147, 80.8 %)
learning set, static: 80.8 % ± 1.2 (standard error), +69.2 [+55.4, +82.3] points to no memory [95 %]; 69 of 69 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter
from typing import Any

from memory_base import MemoryDesign, Trajectory

AXES = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}  # words of the observation's offsets
RULE = re.compile(r"^(\w+) is (\w+)$")
NAME = re.compile(r"^(?:rule `(\w+)`|(\w+))\s+(?=\d)")
OFFSET = re.compile(r"(\d+) steps? (?:to the )?(left|right|up|down)")
MAX_LEGS = 4  # most legs of a recorded shape
MAX_LEG = 10  # longest leg to which a shape is stretched
MAX_PLAN = 20  # longest joined plan that is returned
MAX_WORK = 400_000  # fitted legs in one retrieval, for the limit of CPU time


def parse(obs: Any) -> tuple[list, list]:
    """Active rules as (noun, property), and things as (name, is_word, (x, y), line)."""
    rules, things = [], []
    for line in str(obs or "").splitlines():
        line = line.strip()
        match = RULE.match(line)
        if match:
            rules.append((match.group(1), match.group(2)))
            continue
        match = NAME.match(line)
        if not match:
            continue
        x = y = 0
        for number, direction in OFFSET.findall(line):
            x += int(number) * AXES[direction][0]
            y += int(number) * AXES[direction][1]
        things.append((match.group(1) or match.group(2), bool(match.group(1)), (x, y), line))
    return rules, things


def measured_move(before: list, after: list) -> tuple[int, int] | None:
    """How far the steered thing moved, by how the map shifted; None where the two maps do not fit together."""
    if not before or not after:
        return None
    votes = Counter()
    for name, is_word, (x, y), _ in before:
        for other, other_is_word, (u, v), _ in after:
            if name == other and is_word == other_is_word:
                votes[(x - u, y - v)] += 1
    if not votes:
        return None
    move, count = min(votes.items(), key=lambda item: (-item[1], abs(item[0][0]) + abs(item[0][1])))
    if 2 * count < min(len(before), len(after)) or abs(move[0]) + abs(move[1]) > 1:
        return None  # a new layout, or something else is steered now
    return move


def add(a: tuple[int, int], b: tuple[int, int], times: int = 1) -> tuple[int, int]:
    return a[0] + times * b[0], a[1] + times * b[1]


def words_of(things: list) -> dict:
    """Place -> word."""
    return {place: name for name, is_word, place, _ in things if is_word}


def lying(rule: tuple[str, str], words: dict, directions: list) -> list:
    """Where the words of a rule lie, as (direction, [three places])."""
    found = []
    for place, name in words.items():
        if name != rule[0]:
            continue
        for v in directions:
            second, third = add(place, v), add(place, v, 2)
            if words.get(second) == "is" and words.get(third) == rule[1]:
                found.append((v, [place, second, third]))
    return found


def turned(vector: tuple[int, int], swap: bool, sx: int, sy: int) -> tuple[int, int]:
    x, y = (vector[1], vector[0]) if swap else vector
    return sx * x, sy * y


def crowd_of(things: list) -> str:
    """The name of the thing that is listed most often, at least three times; '' if there is none."""
    counts = Counter(name for name, is_word, _, _ in things if not is_word)
    if not counts:
        return ""
    name, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return name if count >= 3 else ""


class Layout:
    """A first observation, to which the recorded shapes and pushes of a memory are fitted."""

    def __init__(self, memory: "OffsetMemory", rules: list, things: list):
        self.memory = memory
        self.rules = list(dict.fromkeys(rules))
        self.things = things
        self.words = words_of(things)
        self.names = {name for name, is_word, _, _ in things if not is_word}
        self.directions = memory._directions()
        self.good = memory._good()
        self.steering = memory._steering()
        self.found_lying = {rule for rule in self.rules if lying(rule, self.words, self.directions)}
        self.bounds = memory._bounds(self.rules, things)
        self.shapes = [shape for shape, _ in sorted(memory.shapes.items(),
                                                    key=lambda item: (len(item[0]), -item[1], item[0]))]
        self.relaxed = False  # whether words that are in no important rule may be walked over
        self.cache = {}
        self.work = 0

    def inside(self, cell: tuple[int, int]) -> bool:
        if self.bounds is None:
            return True
        left, right, low, high = self.bounds
        return left <= cell[0] <= right and low <= cell[1] <= high

    def active(self, words: dict) -> list:
        """Rules of the observation that still lie after words were moved."""
        return [rule for rule in self.rules
                if rule not in self.found_lying or lying(rule, words, self.directions)]

    def stops(self, words: dict) -> set:
        """Places of things that stood in the way in learned episodes."""
        nouns = {noun for noun, prop in self.active(words) if self.memory._blocks(prop)}
        return {place for name, is_word, place, _ in self.things if not is_word and name in nouns}

    def protected(self, words: dict, props: set) -> set:
        """Places of words in rules with one of these properties."""
        cells = set()
        for place in words:
            for v in self.directions:
                second, third = add(place, v), add(place, v, 2)
                if words.get(second) == "is" and words.get(third) in props:
                    cells.update((place, second, third))
        return cells

    def solid(self, words: dict, keep: set) -> frozenset:
        """Places that are not walked onto."""
        cells = set(self.stops(words))
        if self.relaxed:
            cells |= self.protected(words, self.steering | self.good)
            cells |= keep
        else:
            cells.update(words)
        return frozenset(cells)

    def stretch(self, shape: tuple, here: tuple, goal: tuple, solid: frozenset, limit: int) -> tuple | None:
        """The moves of a recorded shape whose legs are stretched so that it ends at the goal."""
        self.work += 1
        dx, dy = goal[0] - here[0], goal[1] - here[1]
        if abs(dx) + abs(dy) > limit:
            return None
        if len(shape) <= 2:
            moves = ()
            for d in shape:
                count = dx * d[0] + dy * d[1]
                if count < 1:
                    return None
                for _ in range(count):
                    here = add(here, d)
                    if here in solid or not self.inside(here):
                        return None
                moves += (d,) * count
            return moves if here == goal else None
        best = None
        first = shape[0]
        for count in range(1, MAX_LEG + 1):
            here = add(here, first)
            if count >= limit or here in solid or not self.inside(here):
                break
            found = self.stretch(shape[1:], here, goal, solid, limit - count)
            if found is not None:
                best = (first,) * count + found
                limit = len(best) - 1
        return best

    def way(self, start: tuple, goal: tuple, solid: frozenset, limit: int) -> tuple | None:
        """The shortest fitted shape from start to goal; None if none has at most `limit` moves."""
        distance = abs(goal[0] - start[0]) + abs(goal[1] - start[1])
        if distance > limit:
            return None
        if distance == 0:
            return ()
        if goal in solid or not self.inside(goal):
            return None
        key = (start, goal, solid)
        if key not in self.cache:
            if self.work > MAX_WORK:
                return None
            best, longest = None, MAX_PLAN
            for shape in self.shapes:
                found = self.stretch(shape, start, goal, solid, longest)
                if found is not None:
                    best, longest = found, len(found) - 1
                    if len(found) == distance:
                        break
            self.cache[key] = best
        found = self.cache[key]
        return None if found is None or len(found) > limit else found

    def push(self, here: tuple, words: dict, place: tuple, d: tuple, count: int, limit: int,
             keep: set) -> tuple | None:
        """Way behind a word and `count` pushes, as (moves, where they end, words then)."""
        if limit < count:
            return None
        stops = self.stops(words)
        for k in range(1, count + 1):
            cell = add(place, d, k)
            if cell in words or cell in stops or not self.inside(cell):
                return None
        path = self.way(here, add(place, d, -1), self.solid(words, keep | {place}), limit - count)
        if path is None:
            return None
        moved = dict(words)
        name = moved.pop(place)
        moved[add(place, d, count)] = name
        return path + (d,) * count, add(place, d, count - 1), moved

    def goto(self, here: tuple, words: dict, nouns: set, limit: int) -> tuple | None:
        """The shortest way to a thing of these names, as (moves, name)."""
        solid = self.solid(words, set())
        best = None
        for name, is_word, place, _ in self.things:
            if is_word or name not in nouns or place == here or place in words:
                continue
            path = self.way(here, place, solid, limit if best is None else len(best[0]) - 1)
            if path:
                best = (path, name)
        return best

    def breaks(self, here: tuple, words: dict, limit: int) -> list:
        """Pushes that take a word out of a rule that blocks, the shortest first, as (moves, end, words, rule)."""
        if not self.memory.lost["across"]:
            return []
        barred = self.protected(words, self.steering | self.good)
        found = []
        for rule in self.active(words):
            if not self.memory._blocks(rule[1]) or rule[0] not in self.names:
                continue
            for v, three in lying(rule, words, self.directions):
                for place in three:
                    if place in barred:
                        continue
                    for d in ((v[1], v[0]), (-v[1], -v[0])):
                        one = self.push(here, words, place, d, 1, limit, set())
                        if one is not None:
                            found.append((one[0], one[1], one[2], rule))
        return sorted(found, key=lambda one: len(one[0]))

    def targets(self, words: dict) -> list:
        """Words that are missing in a rule that pays, as (noun never paid, distance, place, gap, triple, rule)."""
        memory = self.memory
        if memory.pushed < 2 or not self.good:
            return []
        nouns = {name for name in self.names if name in memory.nouns}
        barred = self.protected(words, self.steering)
        starts = {(add(place, v, -k), v) for place in words for v in self.directions for k in range(3)}
        found = []
        for first, v in sorted(starts):
            cells = [add(first, v, k) for k in range(3)]
            row = [words.get(cell) for cell in cells]
            if row.count(None) != 1:
                continue
            gap = row.index(None)
            if gap != 0 and row[0] not in nouns:
                continue
            if gap != 1 and row[1] != "is":
                continue
            if gap != 2 and row[2] not in self.good:
                continue
            wanted = (nouns, {"is"}, self.good)[gap]
            triple = set(cells)
            for place, name in words.items():
                if name not in wanted or place in triple or place in barred:
                    continue
                noun = name if gap == 0 else row[0]
                prop = name if gap == 2 else row[2]
                distance = abs(place[0] - cells[gap][0]) + abs(place[1] - cells[gap][1])
                found.append(((noun, prop) not in memory.paired, distance, place, cells[gap], triple, (noun, prop)))
        return sorted(found, key=lambda one: one[:4])

    @staticmethod
    def legs(place: tuple, gap: tuple) -> list:
        """Straight pushes that together bring a word from a place to a gap, as lists of (direction, count)."""
        apart = (gap[0] - place[0], gap[1] - place[1])
        units = []
        for axis in (0, 1):
            sign = 1 if apart[axis] > 0 else -1
            units.append((sign, 0) if axis == 0 else (0, sign))
        found = []
        for axis in (0, 1):
            total, other = abs(apart[axis]), abs(apart[1 - axis])
            for k in range(total + 1):
                parts = []
                for d, count in ((units[axis], k), (units[1 - axis], other), (units[axis], total - k)):
                    if not count:
                        continue
                    if parts and parts[-1][0] == d:
                        parts[-1] = (d, parts[-1][1] + count)
                    else:
                        parts.append((d, count))
                if parts and parts not in found:
                    found.append(parts)
        return sorted(found, key=len)

    def carry(self, here: tuple, words: dict, place: tuple, parts: list, limit: int, keep: set) -> tuple | None:
        """Straight pushes of one word, one after the other, as (moves, end, words then)."""
        moves = ()
        for d, count in parts:
            one = self.push(here, words, place, d, count, limit - len(moves), keep)
            if one is None:
                return None
            moves += one[0]
            here, words = one[1], one[2]
            place = add(place, d, count)
        return moves, here, words

    def make(self, here: tuple, words: dict, limit: int, breaking: bool = False) -> tuple | None:
        """Push the missing word into a rule that pays, break a rule then if asked, and walk to its thing:
        (noun never paid, moves, rule, name of the thing)."""
        best = None
        for strange, _, place, gap, triple, rule in self.targets(words):
            if best is not None and strange > best[0]:
                break
            for parts in self.legs(place, gap):
                cap = limit if best is None else len(best[1]) - 1
                carried = self.carry(here, words, place, parts, cap - 1, triple)
                if carried is None:
                    continue
                moves, end, now = carried
                if not breaking:
                    tails = [((), end, now)]
                else:
                    tails = [one[:3] for one in self.breaks(end, now, cap - len(moves) - 1)[:4]]
                for more, stop, then in tails:
                    cap = limit if best is None else len(best[1]) - 1
                    left = cap - len(moves) - len(more)
                    way = self.goto(stop, then, {rule[0]}, left) if left > 0 else None
                    if way is not None:
                        best = (strange, moves + more + way[0], rule, way[1])
        return best

    def plan(self) -> tuple | None:
        """What was learned to be needed, as (key, moves): a way, else with a break, a make, or both."""
        here, words = (0, 0), self.words
        nouns = {noun for noun, prop in self.rules if prop in self.good}
        first = self.breaks(here, words, MAX_PLAN - 1)
        if nouns:
            way = self.goto(here, words, nouns, MAX_PLAN)
            if way is not None:
                return f"way to {way[1]}", way[0]
            best = None
            for moves, end, now, rule in first:
                left = (MAX_PLAN if best is None else len(best[1]) - 1) - len(moves)
                way = self.goto(end, now, nouns, left) if left > 0 else None
                if way is not None:
                    best = (f"break {rule[0]} is {rule[1]} and way to {way[1]}", moves + way[0])
            if best is not None:
                return best
        made = self.make(here, words, MAX_PLAN)
        if made is not None:
            noun, prop = made[2]
            return f"make {noun} is {prop} and way to {made[3]}", made[1]
        best = None
        for moves, end, now, rule in first:
            left = (MAX_PLAN if best is None else len(best[1]) - 1) - len(moves)
            made = self.make(end, now, left) if left > 1 else None
            if made is not None:
                noun, prop = made[2]
                best = (f"break {rule[0]} is {rule[1]} and make {noun} is {prop}", moves + made[1])
        made = self.make(here, words, MAX_PLAN if best is None else len(best[1]) - 1, breaking=True)
        if made is not None:
            noun, prop = made[2]
            best = (f"make {noun} is {prop} and break what is in the way", made[1])
        return best


class OffsetMemory(MemoryDesign):
    """Recorded shapes of ways, recorded pushes of words, limits of the map as seen from the steering rule and its
    greatest extent, and the rules whose things were worth reaching or stood in the way."""

    def __init__(self):
        self.shapes = Counter()  # directions of successive straight runs -> how often, with mirrored and turned copies
        self.limits = {}  # (property, crowd) -> [least x, greatest x, least y, greatest y] seen from its rule
        self.extents = {}  # crowd -> (width, height): the greatest distances seen in one observation
        self.reached = Counter()  # property -> how often a thing with it was stepped onto
        self.paid = Counter()  # property -> how often that step won the episode
        self.effects = {}  # action -> Counter of the moves that it caused
        self.pushed = 0  # pushes of a single word
        self.met = Counter()  # property -> how often a step led to a thing with it
        self.blocked = Counter()  # property -> how often that step moved nothing
        self.lines = Counter()  # direction in which the words of active rules lay
        self.lost = Counter()  # across or along: rules that vanished when one of their words was pushed so
        self.appeared = Counter()  # property -> rules that newly appeared after a push
        self.nouns = set()  # first words of active rules
        self.paired = set()  # (noun, property) of active rules
        self.active = Counter()  # property -> in how many moving steps a rule with it was active
        self.steered = Counter()  # (property, noun) -> the same by noun
        self.episodes = 0

    async def general_update(self, trajectory: Trajectory) -> None:
        steps = trajectory.steps or []
        won = trajectory.reward >= 0.99
        rules, things = parse((trajectory.init or {}).get("obs"))
        if not things:
            print("no things parsed in the first observation")
        self._note_rules(rules, things)
        stretches = [[]]  # unbroken stretches of moves, without actions that moved nothing
        for number, step in enumerate(steps):
            action = str(step.get("action_took", "")).strip()
            last = number == len(steps) - 1
            new_rules, new_things = parse(step.get("obs"))
            move = measured_move(things, new_things)
            self._note_block(action, move, rules, things)
            if move is not None and move != (0, 0):
                self.effects.setdefault(action, Counter())[move] += 1
                for prop in {prop for _, prop in rules}:
                    self.active[prop] += 1
                for noun, prop in set(rules):
                    self.steered[(prop, noun)] += 1
            elif move is None and last and won and self.effects.get(action):
                move = self.effects[action].most_common(1)[0][0]
            if move is None:
                stretches.append([])
            elif move != (0, 0):
                if move == self.effects[action].most_common(1)[0][0]:
                    stretches[-1].append(move)
                    row = self._pushed_row(move, things, new_things)
                    if row:
                        self._note_changes(move, len(row), rules, new_rules, things)
                    if len(row) == 1:
                        self.pushed += 1
                else:
                    stretches.append([])  # measured wrongly, or something else happened
                nouns = {name for name, is_word, place, _ in things if not is_word and place == move}
                for prop in {prop for noun, prop in rules if noun in nouns}:
                    self.reached[prop] += 1
                    if last and won:
                        self.paid[prop] += 1
            rules, things = new_rules, new_things
            self._note_rules(rules, things)
        for stretch in stretches:
            self._keep_shapes(stretch)
        self.episodes += 1
        if self.episodes % 20 == 0:
            print(f"{self.episodes} episodes: {len(self.shapes)} shapes, {self.pushed} pushes of one word, "
                  f"limits {self.limits}, extents {self.extents}, "
                  f"paying {sorted(self._good())}, steering {sorted(self._steering())}, "
                  f"lost {dict(self.lost)}, met {dict(self.met)}, blocked {dict(self.blocked)}, "
                  f"appeared {dict(self.appeared)}, lines {dict(self.lines)}")

    def _note_rules(self, rules: list, things: list) -> None:
        """Count how the words of active rules lie, how far the map goes from them, and how large it is."""
        crowd = crowd_of(things)
        xs = [0] + [place[0] for _, _, place, _ in things]
        ys = [0] + [place[1] for _, _, place, _ in things]
        if things:
            width, height = self.extents.get(crowd, (0, 0))
            self.extents[crowd] = (max(width, max(xs) - min(xs)), max(height, max(ys) - min(ys)))
        words = words_of(things)
        places = {}  # property -> places of the first words of its rules
        for rule in set(rules):
            self.nouns.add(rule[0])
            self.paired.add(rule)
            for v, three in lying(rule, words, list(AXES.values())):
                self.lines[v] += 1
                places.setdefault(rule[1], []).append(three[0])
        if not places:
            return
        for prop, found in places.items():
            if len(found) != 1:
                continue
            x, y = found[0]
            now = (min(xs) - x, max(xs) - x, min(ys) - y, max(ys) - y)
            old = self.limits.get((prop, crowd), now)
            self.limits[(prop, crowd)] = (min(old[0], now[0]), max(old[1], now[1]),
                                          min(old[2], now[2]), max(old[3], now[3]))

    def _note_block(self, action: str, move: tuple[int, int] | None, rules: list, things: list) -> None:
        """Count whether things with a property let the steered thing onto them."""
        known = self.effects.get(action)
        if not known or move is None:
            return
        usual = known.most_common(1)[0][0]
        ahead = {name for name, is_word, place, _ in things if not is_word and place == usual}
        for prop in {prop for noun, prop in rules if noun in ahead}:
            self.met[prop] += 1
            if move == (0, 0):
                self.blocked[prop] += 1

    @staticmethod
    def _pushed_row(move: tuple[int, int], before: list, after: list) -> list[str]:
        """Words that were pushed together by a move, the nearest first."""
        old, new = words_of(before), words_of(after)
        row = []
        place = move
        while place in old and new.get(place) == old[place]:
            row.append(old[place])
            place = add(place, move)
        return row

    def _note_changes(self, move: tuple[int, int], length: int, rules: list, new_rules: list, things: list) -> None:
        """Count rules that a push made or broke."""
        for _, prop in set(new_rules) - set(rules):
            self.appeared[prop] += 1
        words = words_of(things)
        places = {add((0, 0), move, k) for k in range(1, length + 1)}
        for rule in set(rules) - set(new_rules):
            for v, three in lying(rule, words, list(AXES.values())):
                if places & set(three):
                    across = v[0] * move[0] + v[1] * move[1] == 0
                    self.lost["across" if across else "along"] += 1

    def _keep_shapes(self, stretch: list) -> None:
        """Keep the directions of successive straight runs that turn at right angles."""
        runs = []
        for move in stretch:
            if not runs or runs[-1] != move:
                runs.append(move)
        for start in range(len(runs)):
            shape = ()
            for d in runs[start:start + MAX_LEGS]:
                if shape and shape[-1][0] * d[0] + shape[-1][1] * d[1] != 0:
                    break  # turned back
                shape += (d,)
                copies = {tuple(turned(one, swap, sx, sy) for one in shape)
                          for swap in (False, True) for sx in (1, -1) for sy in (1, -1)}
                for copy in copies:
                    self.shapes[copy] += 1

    def _actions(self, moves: tuple) -> list[str] | None:
        """The actions that were seen to cause these moves; None where one is unknown."""
        actions = []
        for move in moves:
            count, action = max(((known[move], action) for action, known in self.effects.items()), default=(0, ""))
            if not count:
                return None
            actions.append(action)
        return actions

    def _steering(self) -> set:
        """Properties that were active in most moving steps."""
        if not self.active:
            return set()
        most = max(self.active.values())
        return {prop for prop, count in self.active.items() if count == most}

    def _good(self) -> set:
        """Properties whose things were worth reaching."""
        return {prop for prop, count in self.paid.items() if 2 * count >= self.reached[prop]} - self._steering()

    def _blocks(self, prop: str) -> bool:
        """Whether things with this property stood in the way."""
        count = self.blocked[prop]
        return count >= 2 and count >= 0.8 * self.met[prop]

    def _directions(self) -> list:
        return [v for v, _ in self.lines.most_common()]

    def _bounds(self, rules: list, things: list) -> tuple | None:
        """Least and greatest x and y of the map, by what was seen around the steering rule and by the greatest
        extent of such maps; None if both are unknown."""
        words = words_of(things)
        crowd = crowd_of(things)
        xs = [0] + [place[0] for _, _, place, _ in things]
        ys = [0] + [place[1] for _, _, place, _ in things]
        left, right, low, high = float("-inf"), float("inf"), float("-inf"), float("inf")
        known = False
        for prop in sorted(self._steering()):
            limits = self.limits.get((prop, crowd))
            if limits is None:
                continue
            places = [three[0] for rule in rules if rule[1] == prop
                      for _, three in lying(rule, words, self._directions())]
            if len(places) != 1:
                continue
            x, y = places[0]
            left, right, low, high = x + limits[0], x + limits[1], y + limits[2], y + limits[3]
            known = True
            break
        extent = self.extents.get(crowd)
        if extent is not None:
            width, height = extent
            left, right = max(left, max(xs) - width), min(right, min(xs) + width)
            low, high = max(low, max(ys) - height), min(high, min(ys) + height)
            known = True
        if not known:
            return None
        return min(left, min(xs)), max(right, max(xs)), min(low, min(ys)), max(high, max(ys))

    def _is_strange(self, rules: list) -> bool:
        """Whether the noun that is steered here was never steered in a learned episode."""
        if not self.active:
            return False
        most = max(self.active.values())
        now = [(prop, noun) for noun, prop in rules if self.active[prop] == most]
        return bool(now) and not any(self.steered[one] for one in now)

    async def general_retrieve(self, trajectory: Trajectory) -> dict[str, Any] | str:
        rules, things = parse((trajectory.init or {}).get("obs"))
        if not things or not self.shapes or not self._good() or self._is_strange(rules):
            return {}
        layout = Layout(self, rules, things)
        found = layout.plan()
        if found is None:
            layout.relaxed = True
            layout.work = 0
            found = layout.plan()
        if found is None:
            return {}
        key, moves = found
        actions = self._actions(moves)
        if not actions:
            return {}
        if len(actions) == 1:
            actions = actions * 2  # a list of one is no plan for the reader
        return {key: actions}
