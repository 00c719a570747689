"""Memory design 061cd59c0e39, learned by ALMA on babaisai, candidate 4.1 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (0a4671e7060a, 19.2 %) > 2.1 (a7fce51fca53, 34.6 %) > 3.1 (8ad4895e662e, 63.1 %) > 4.1 (061cd59c0e39, 76.2 %)
learning set, static: 76.2 % ± 4.8 (standard error), +68.5 [+56.2, +80.0] points to no memory [95 %]; 68 of 68 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter

from memory_base import MemoryDesign, Trajectory

PLACE = re.compile(r"(\d+) steps?(?: to the)? (right|left|up|down)")
AXES = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}  # how the observation counts
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
WORK = 200000  # recorded walks that one retrieval may look at before it stops to try further hauls
THREES = 1500  # joins of three recorded walks that one look-up may try
MOST = 20      # moves that a whole plan may have


def parse(obs):
    """Rules {noun: {properties}}, things and words [(name, x, y)] of an observation; y grows downwards."""
    rules, things, words = {}, [], []
    section = ""
    for raw in str(obs or "").split("\n"):
        line = raw.strip()
        if not line:
            continue
        low = line.lower()
        if low.startswith("active rules"):
            section = "rules"
        elif low.startswith("objects on the map"):
            section = "map"
        elif section == "rules":
            parts = low.split(" is ")
            if len(parts) == 2:
                rules.setdefault(parts[0].strip(), set()).add(parts[1].strip())
        elif section == "map":
            found = list(PLACE.finditer(low))
            if not found:
                continue
            x = y = 0
            for match in found:
                ax, ay = AXES[match.group(2)]
                x += ax * int(match.group(1))
                y += ay * int(match.group(1))
            name = low[:found[0].start()].strip()
            if name.startswith("rule "):
                words.append((name[5:].strip(" `"), x, y))
            else:
                things.append((name, x, y))
    return {"rules": rules, "things": things, "words": words}


def items(view):
    return {("w " + n, x, y) for n, x, y in view["words"]} | {("t " + n, x, y) for n, x, y in view["things"]}


def moved(before, after):
    """How far the player moved between two views: the shift that explains most things; None where none does."""
    old, new = items(before), items(after)
    if not old or not new:
        return None
    best, best_count = None, -1
    for sx, sy in SHIFTS:
        count = len({(n, x - sx, y - sy) for n, x, y in old} & new)
        if count > best_count:
            best, best_count = (sx, sy), count
    return best if best_count >= 0.4 * len(old) else None


def pushed_words(before, after, shift):
    old = {(n, x - shift[0], y - shift[1]) for n, x, y in before["words"]}
    return len(old - set(after["words"]))


def marks(view, without=()):
    """{cell: {labels}}: where words lie, and things that a rule gives a property; rules in `without` left out."""
    found = {}
    for _, x, y in view["words"]:
        found.setdefault((x, y), set()).add("word")
    for name, x, y in view["things"]:
        for prop in view["rules"].get(name, ()):
            if (name, prop) not in without:
                found.setdefault((x, y), set()).add(prop)
    return found


def sentences(view):
    """Active rules as they lie on the map: [(noun, property, (three cells), axis)]."""
    at = {(x, y): name for name, x, y in view["words"]}
    found = []
    for (x, y), name in at.items():
        if name != "is":
            continue
        for ax, ay in ((1, 0), (0, 1)):
            noun, prop = at.get((x - ax, y - ay)), at.get((x + ax, y + ay))
            if noun and prop and prop in view["rules"].get(noun, ()):
                found.append((noun, prop, ((x - ax, y - ay), (x, y), (x + ax, y + ay)), (ax, ay)))
    return found


def size(d):
    return abs(d[0]) + abs(d[1])


def plus(a, b, times=1):
    return a[0] + b[0] * times, a[1] + b[1] * times


def bounds(view):
    """The box of all that is visible, with the player: (left, top, right, bottom)."""
    cells = [(0, 0)] + [(x, y) for _, x, y in view["words"]] + [(x, y) for _, x, y in view["things"]]
    xs, ys = [x for x, _ in cells], [y for _, y in cells]
    return min(xs), min(ys), max(xs), max(ys)


def inside(cell, box):
    return box[0] <= cell[0] <= box[2] and box[1] <= cell[1] <= box[3]


def ring(box):
    """The cells around a box."""
    left, top, right, bottom = box
    found = {(x, y) for x in range(left - 1, right + 2) for y in (top - 1, bottom + 1)}
    return found | {(x, y) for y in range(top - 1, bottom + 2) for x in (left - 1, right + 1)}


def signature(view):
    """What a kind of map is known by: the things of which there are many."""
    counts = Counter(name for name, _, _ in view["things"])
    return frozenset(name for name, n in counts.items() if n >= 4)


def after_push(view, cell, beyond, noun, prop):
    """The view as it is remembered to be after a push that broke a rule, seen from the cell of the pushed word."""
    rules = {name: set(props) for name, props in view["rules"].items()}
    rules.get(noun, set()).discard(prop)
    words = []
    for name, x, y in view["words"]:
        if (x, y) == cell:
            x, y = beyond
        words.append((name, x - cell[0], y - cell[1]))
    things = [(name, x - cell[0], y - cell[1]) for name, x, y in view["things"]]
    return {"rules": rules, "things": things, "words": words}


class WalkMemory(MemoryDesign):
    def __init__(self):
        self.episodes = 0
        self.wins = 0
        self.rules_made = 0
        self.no_move = 0           # won episodes whose last step showed no move
        self.tried = Counter()     # action -> times
        self.changed = Counter()   # action -> times that the observation changed
        self.effects = {}          # action -> Counter of shifts
        self.stepped = Counter()   # property -> times that a thing with it was stepped on
        self.blocked = Counter()   # property -> times that a thing with it lay where a step did not move
        self.winning = Counter()   # property -> times that this ended a won episode
        self.had = {}              # property in the first rules -> [episodes, wins]
        self.broke = {}            # (place in the sentence, pushed across it) -> [times broke, times pushed]
        self.cases = {}            # displacement -> {(actions, cells, what lay on them): [times, pushes]}
        self.joined = {}           # displacement -> pairs of recorded displacements that add up to it
        self.paths = {}            # displacement -> {cells: actions}
        self.ordered = None        # the same as lists, the shortest first; made when it is needed
        self.pushes = [0, 0]       # steps into a word: [times it moved on, times tried]
        self.lines = [0, 0]        # steps into a word with a word behind it: [times both moved on, times tried]
        self.hauls = {}            # action -> [words moved on by one cell, longest run of that]
        self.form = Counter()      # axis -> active sentences that lay along it at first
        self.together = [0, 0]     # first active rules: [those whose words lay in line, all]
        self.rooms = []            # (signature, box of all that was seen or visited, {rule: first cell})
        self.work = 0              # recorded walks that this retrieval has looked at

    # ---- learning

    async def general_update(self, trajectory: Trajectory) -> None:
        steps = trajectory.steps or []
        won = float(trajectory.reward or 0.0) >= 0.99
        self.episodes += 1
        self.wins += won
        texts = [str((trajectory.init or {}).get("obs", ""))] + [str(s.get("obs", "")) for s in steps]
        views = [parse(text) for text in texts]
        for prop in {p for props in views[0]["rules"].values() for p in props}:
            count = self.had.setdefault(prop, [0, 0])
            count[0] += 1
            count[1] += won
        self._note_form(views[0])
        moves = []
        run_action, run = None, 0
        for t, step in enumerate(steps):
            action = str(step.get("action_took", "")).strip().lower()
            before, after = views[t], views[t + 1]
            shift = moved(before, after)
            self.tried[action] += 1
            self.changed[action] += texts[t] != texts[t + 1]
            if shift is not None:
                self.effects.setdefault(action, Counter())[shift] += 1
            pushes = pushed_words(before, after, shift) if shift else 0
            moves.append((action, shift, pushes))
            old_rules = {(n, p) for n, props in before["rules"].items() for p in props}
            new_rules = {(n, p) for n, props in after["rules"].items() for p in props}
            self.rules_made += bool(new_rules - old_rules)
            last = t == len(steps) - 1
            self._note_step(before, action, shift, won and last)
            if not last:
                if shift == (0, 0):
                    self._note_block(before, action)
                elif shift is not None:
                    self._note_push(before, shift, views[t + 1:t + 3])
                self._note_line(before, after, action, shift)
                if self._note_haul(before, after, action, shift):
                    run = run + 1 if action == run_action else 1
                    run_action = action
                    count = self.hauls.setdefault(action, [0, 0])
                    count[0] += 1
                    count[1] = max(count[1], run)
                else:
                    run_action, run = None, 0
        self._note_walks(views, moves)
        self._note_room(views[0], moves)
        self.ordered = None
        if self.episodes in (1, 26, 52, 78):
            goals = [(p, round(self._contrast(p), 2)) for p in self._goals()]
            broke = {f"{role}{'x' if across else '-'}": f"{n}/{m}" for (role, across), (n, m) in self.broke.items()}
            print(f"ep {self.episodes}: wins {self.wins} (no move {self.no_move}), goals {goals}, "
                  f"stepped {dict(self.stepped)}, winning {dict(self.winning)}, blocked {dict(self.blocked)}, "
                  f"broke {broke}, pushes {self.pushes}, lines {self.lines}, form {dict(self.form)}, "
                  f"together {self.together}, hauls {self.hauls}, rules made {self.rules_made}, "
                  f"walks {len(self.cases)} displacements, {sum(len(c) for c in self.cases.values())} cases, "
                  f"{sum(len(p) for p in self.paths.values())} paths, rooms {self._rooms_text()}")

    def _usual(self, action):
        """The shift that an action has where it moves; None where it hardly ever moves."""
        counts = self.effects.get(action, Counter())
        usual = [(n, s) for s, n in counts.items() if size(s)]
        if not usual:
            return None
        count, shift = max(usual)
        return shift if count * 4 >= sum(counts.values()) else None

    def _note_form(self, view):
        """Count how the active rules lie on the map."""
        rules = {(n, p) for n, props in view["rules"].items() for p in props}
        lying = set()
        for noun, prop, _, axis in sentences(view):
            lying.add((noun, prop))
            self.form[axis] += 1
        self.together[0] += len(lying & rules)
        self.together[1] += len(rules)

    def _note_room(self, view, moves):
        """Keep the box of all that was seen at first or visited, and where the active sentences lay in it."""
        if not view["words"] and not view["things"]:
            return
        left, top, right, bottom = bounds(view)
        x = y = 0
        for action, shift, _ in moves:
            if shift is None:
                break
            usual = self._usual(action)
            if size(shift) and usual is not None and shift != usual:
                break  # no step of this action: the position is not known any more
            x, y = x + shift[0], y + shift[1]
            left, top, right, bottom = min(left, x), min(top, y), max(right, x), max(bottom, y)
        first = {(noun, prop): places[0] for noun, prop, places, _ in sentences(view)}
        self.rooms.append((signature(view), (left, top, right, bottom), first))

    def _note_haul(self, before, after, action, shift):
        """Count a step into a word, and say whether the word went on by one cell."""
        usual = self._usual(action)
        if usual is None:
            return False
        names = {name for name, x, y in before["words"] if (x, y) == usual}
        if not names:
            return False
        self.pushes[1] += 1
        if shift == usual and any(name in names and (x, y) == usual for name, x, y in after["words"]):
            self.pushes[0] += 1
            return True
        return False

    def _note_line(self, before, after, action, shift):
        """Count a step into a word with another word behind it, and whether both went on by one cell."""
        usual = self._usual(action)
        if usual is None:
            return
        twice = plus(usual, usual)
        near = {name for name, x, y in before["words"] if (x, y) == usual}
        far = {name for name, x, y in before["words"] if (x, y) == twice}
        if not near or not far:
            return
        self.lines[1] += 1
        if shift == usual:
            near_then = {name for name, x, y in after["words"] if (x, y) == usual}
            far_then = {name for name, x, y in after["words"] if (x, y) == twice}
            self.lines[0] += bool(near & near_then) and bool(far & far_then)

    def _note_step(self, before, action, shift, final):
        """Count the properties of what was stepped on, and whether that won."""
        if final and not (shift and size(shift)):
            usual = [(n, s) for s, n in self.effects.get(action, Counter()).items() if size(s)]
            shift = max(usual)[1] if usual else None
            self.no_move += 1
        if not shift or not size(shift):
            return
        props = set()
        for name, x, y in before["things"]:
            if (x, y) == shift:
                props |= before["rules"].get(name, set())
        for prop in props:
            self.stepped[prop] += 1
            self.winning[prop] += final

    def _note_block(self, before, action):
        """Count the properties of what lay where the action would have led."""
        usual = self._usual(action)
        if usual is None:
            return
        props = set()
        for name, x, y in before["things"]:
            if (x, y) == usual:
                props |= before["rules"].get(name, set())
        for prop in props:
            self.blocked[prop] += 1

    def _note_push(self, before, shift, later):
        """Count whether pushing a word of an active sentence broke its rule."""
        for noun, prop, places, axis in sentences(before):
            if shift not in places:
                continue
            across = (shift[0] != 0) != (axis[0] != 0)
            count = self.broke.setdefault((places.index(shift), across), [0, 0])
            count[1] += 1
            count[0] += any(prop not in view["rules"].get(noun, ()) for view in later)

    def _note_walks(self, views, moves):
        """Every part of the episode is a walk to where it ended; loops are cut out."""
        for start in range(len(moves)):
            there = marks(views[start])
            cells, actions, pushes = [(0, 0)], [], []
            for action, shift, pushed in moves[start:]:
                if shift is None:
                    break
                if shift == (0, 0):
                    continue
                at = (cells[-1][0] + shift[0], cells[-1][1] + shift[1])
                if at in cells:
                    k = cells.index(at)
                    cells, actions, pushes = cells[:k + 1], actions[:k], pushes[:k]
                    continue
                cells.append(at)
                actions.append(action)
                pushes.append(pushed)
                if len(actions) <= size(at) + 4:
                    self._keep(at, tuple(actions), tuple(cells[1:]), there, sum(pushes))

    def _keep(self, displacement, actions, cells, there, pushes):
        if displacement not in self.cases:
            self.cases[displacement] = {}
            for other in list(self.cases):
                total = (displacement[0] + other[0], displacement[1] + other[1])
                if size(total) == size(displacement) + size(other) and size(total) <= 18:
                    pairs = self.joined.setdefault(total, [])
                    for pair in ((displacement, other), (other, displacement)):
                        if len(pairs) < 12 and pair not in pairs:
                            pairs.append(pair)
        self.paths.setdefault(displacement, {}).setdefault(cells, actions)
        lay = frozenset((cell, label) for cell in cells for label in there.get(cell, ()))
        case = self.cases[displacement].setdefault((actions, cells, lay), [0, pushes])
        case[0] += 1
        case[1] = min(case[1], pushes)

    # ---- what was learned

    def _hard(self):
        """Properties of things that held up steps and were hardly ever stepped on."""
        return {p for p, n in self.blocked.items() if n >= 2 and self.stepped[p] <= 0.1 * n}

    def _contrast(self, prop):
        """How much more often episodes were won that had the property in their first rules."""
        episodes, wins = self.had.get(prop, (0, 0))
        rest = self.episodes - episodes
        if not episodes or not rest:
            return 0.0
        return wins / episodes - (self.wins - wins) / rest

    def _goals(self):
        """Properties of things that are worth being stepped on, the best first."""
        hard = self._hard()
        found = {p for p, n in self.winning.items() if n > 0}
        for prop, (episodes, wins) in self.had.items():
            if episodes >= 3 and wins >= 2 and self._contrast(prop) > 0:
                found.add(prop)
        return sorted(found - hard, key=lambda p: (-self._contrast(p), -self.winning[p], p))

    def _always(self):
        """Properties that every episode had in its first rules."""
        return {p for p, (episodes, _) in self.had.items() if episodes >= self.episodes}

    def _pushing_known(self):
        """Whether it was seen that pushed words go on, and that rules hold while their words lie together."""
        went, tried = self.pushes
        return went >= 3 and went * 2 >= tried and self.together[1] > 0 and self.together[0] * 2 >= self.together[1]

    def _units(self):
        """{shift: action} of the actions that were seen to move a word on."""
        by_unit = {}
        for action, (count, _) in sorted(self.hauls.items(), key=lambda one: (one[1][0], one[0])):
            unit = self._usual(action)
            if count and unit is not None:
                by_unit[unit] = action
        return by_unit

    def _sized(self, sign):
        """Records of rooms of this signature, with the largest width and height: (records, (width, height))."""
        known = [(box, first) for one, box, first in self.rooms if one == sign]
        if len(known) < 3:
            return known, None
        return known, (max(b[2] - b[0] + 1 for b, _ in known), max(b[3] - b[1] + 1 for b, _ in known))

    def _offset(self, known, rule, axis, most):
        """How far from the left (axis 0) or lower (axis 1) edge the sentence of a rule lies; None if not known."""
        values = Counter()
        for box, first in known:
            if rule not in first:
                continue
            if axis == 0 and box[2] - box[0] + 1 == most[0]:
                values[first[rule][0] - box[0]] += 1
            elif axis == 1 and box[3] - box[1] + 1 == most[1]:
                values[box[3] - first[rule][1]] += 1
        total = sum(values.values())
        if total < 2:
            return None
        value, count = values.most_common(1)[0]
        return value if count >= 0.8 * total else None

    def _rooms_text(self):
        """What is printed of the rooms."""
        parts = []
        for sign in sorted({one for one, _, _ in self.rooms}, key=sorted):
            known, most = self._sized(sign)
            if most is None:
                parts.append(f"{sorted(sign)}: {len(known)} records")
                continue
            rules = sorted({rule for _, first in known for rule in first})
            offsets = {" is ".join(rule): (self._offset(known, rule, 0, most), self._offset(known, rule, 1, most))
                       for rule in rules}
            offsets = {name: pair for name, pair in offsets.items() if pair != (None, None)}
            parts.append(f"{sorted(sign)}: {len(known)} records, size {most}, offsets {offsets}")
        return "; ".join(parts)

    def _room(self, view):
        """The room around a view: (box, whether it is sure, largest width and height of such rooms or None)."""
        box = bounds(view)
        known, most = self._sized(signature(view))
        if most is None:
            return box, False, None
        width, height = most
        left, top, right, bottom = box
        know_x, know_y = right - left + 1 >= width, bottom - top + 1 >= height
        for noun, prop, places, _ in sentences(view):
            if not know_x:
                offset = self._offset(known, (noun, prop), 0, most)
                if offset is not None:
                    start = places[0][0] - offset
                    if start <= box[0] and start + width - 1 >= box[2]:
                        left, right, know_x = start, start + width - 1, True
            if not know_y:
                offset = self._offset(known, (noun, prop), 1, most)
                if offset is not None:
                    end = places[0][1] + offset
                    if end >= box[3] and end - height + 1 <= box[1]:
                        top, bottom, know_y = end - height + 1, end, True
        if know_x and know_y:
            return (left, top, right, bottom), True, most
        return box, False, most

    # ---- looking up

    def _recall(self, displacement, now, offset, goal, hard, horizontal=None, closed=frozenset()):
        """The recorded walk of this displacement whose cells looked most like those of now: (cost, actions, cells).

        `horizontal` says, where it is not None, whether its last step must be a horizontal one. Walks through
        a cell in `closed` are left out.
        """
        best = None
        ox, oy = offset
        for (actions, cells, lay), (times, pushes) in self.cases.get(displacement, {}).items():
            if horizontal is not None:
                previous = cells[-2] if len(cells) > 1 else (0, 0)
                if (cells[-1][0] != previous[0]) != horizontal:
                    continue
            base = 0.3 * len(actions) + 0.5 * pushes
            if best is not None and base - 0.1 >= best[0]:
                continue
            self.work += 1
            if closed and any((x + ox, y + oy) in closed for x, y in cells):
                continue
            then = {one for one in lay if one[1] != goal}
            here = {(cell, label) for cell in cells
                    for label in now.get((cell[0] + ox, cell[1] + oy), ()) if label != goal}
            cost = (sum(8.0 if label in hard else 2.0 for _, label in here - then) + 0.5 * len(then - here)
                    + base - 0.02 * min(times, 5))
            if best is None or cost < best[0]:
                best = (cost, actions, cells)
        if best is None:
            return None
        return best[0], list(best[1]), [(x + ox, y + oy) for x, y in best[2]]

    def _walk(self, target, now, goal, hard, offset=(0, 0), horizontal=None, near_too=True, closed=frozenset()):
        """The best recorded or joined walk to a displacement from `offset`: (cost, actions, cells)."""
        best = self._recall(target, now, offset, goal, hard, horizontal, closed)
        for first, second in self.joined.get(target, []):
            one = self._recall(first, now, offset, goal, hard, None, closed)
            if not one:
                continue
            two = self._recall(second, now, plus(offset, first), goal, hard, horizontal, closed)
            if two and (best is None or one[0] + two[0] < best[0]):
                best = (one[0] + two[0], one[1] + two[1], one[2] + two[2])
        if best is None:
            best = self._walk_of_three(target, now, goal, hard, offset, horizontal, closed)
        if best is None and near_too and self.cases:
            near = min(self.cases, key=lambda d: (abs(d[0] - target[0]) + abs(d[1] - target[1]), size(d)))
            away = abs(near[0] - target[0]) + abs(near[1] - target[1])
            found = self._recall(near, now, offset, goal, hard, horizontal, closed)
            if found and away < size(target):
                best = (found[0] + 3.0 * away, found[1], found[2])
        return best

    def _walk_of_three(self, target, now, goal, hard, offset, horizontal, closed):
        """Three recorded walks that add up to a displacement, for what neither one nor two reach."""
        firsts = []
        for first in self.cases:
            rest = plus(target, first, -1)
            if size(first) + size(rest) == size(target) and rest in self.joined:
                firsts.append(first)
        firsts.sort(key=lambda d: (-size(d), d))
        best = None
        for first in firsts[:12]:
            one = self._recall(first, now, offset, goal, hard, None, closed)
            if not one:
                continue
            middle = plus(offset, first)
            for second, third in self.joined[plus(target, first, -1)]:
                two = self._recall(second, now, middle, goal, hard, None, closed)
                if not two:
                    continue
                three = self._recall(third, now, plus(middle, second), goal, hard, horizontal, closed)
                if not three or len(one[1]) + len(two[1]) + len(three[1]) > 18:
                    continue
                cost = one[0] + two[0] + three[0]
                if best is None or cost < best[0]:
                    best = (cost, one[1] + two[1] + three[1], one[2] + two[2] + three[2])
        return best

    def _by_length(self):
        """The distinct recorded walks of each displacement, the shortest first."""
        if self.ordered is None:
            self.ordered = {d: sorted(paths.items(), key=lambda one: len(one[0])) for d, paths in self.paths.items()}
        return self.ordered

    def _piece(self, start, displacement, closed, memo):
        """The actions of the shortest recorded walk from `start` that avoids the closed cells, or None."""
        key = (start, displacement)
        if key not in memo:
            self.work += 1
            x0, y0 = start
            memo[key] = None
            for cells, actions in self._by_length().get(displacement, ()):
                if not any((x + x0, y + y0) in closed for x, y in cells):
                    memo[key] = actions
                    break
        return memo[key]

    def _clear(self, start, end, closed):
        """The actions of the shortest recorded or joined walk that avoids the closed cells, or None."""
        if start == end:
            return []
        if end in closed:
            return None
        ordered = self._by_length()
        target = plus(end, start, -1)
        longest = size(target) + 6
        memo = {}
        direct = self._piece(start, target, closed, memo)
        best = None if direct is None else list(direct)
        for first in ordered:
            second = plus(target, first, -1)
            if second not in ordered or size(first) + size(second) > longest:
                continue
            if best is not None and size(first) + size(second) >= len(best):
                continue
            one = self._piece(start, first, closed, memo)
            if one is None:
                continue
            two = self._piece(plus(start, first), second, closed, memo)
            if two is None or len(one) + len(two) > longest:
                continue
            if best is None or len(one) + len(two) < len(best):
                best = list(one) + list(two)
        if best is not None or self.work > WORK:
            return best
        self.work += len(ordered) * len(ordered) // 20
        looked = 0
        for first in sorted(ordered, key=lambda d: (-size(d), d)):
            if size(first) > size(target) + 2:
                continue
            one = self._piece(start, first, closed, memo)
            if one is None:
                continue
            middle, rest = plus(start, first), plus(target, first, -1)
            for second in ordered:
                third = plus(rest, second, -1)
                total = size(first) + size(second) + size(third)
                if third not in ordered or total > size(target) + 2 or (best is not None and total >= len(best)):
                    continue
                looked += 1
                if looked > THREES:
                    return best
                two = self._piece(middle, second, closed, memo)
                if two is None:
                    continue
                three = self._piece(plus(middle, second), third, closed, memo)
                if three is None:
                    continue
                length = len(one) + len(two) + len(three)
                if length <= longest and (best is None or length < len(best)):
                    best = list(one) + list(two) + list(three)
        return best

    def _break_rate(self, role, across):
        """[times broke, times pushed] for such a push; from pushes of any word where none was seen."""
        if (role, across) in self.broke:
            return self.broke[(role, across)]
        if across and self._pushing_known():
            return self.pushes
        return (0, 0)

    def _break_first(self, view, now, place, goal, hard, cells, room, outer):
        """A recalled push that breaks such rules, and the walk after it: (cost, actions, noun, property)."""
        on = set(cells)
        wanted = {(name, prop) for name, x, y in view["things"] if (x, y) in on
                  for prop in view["rules"].get(name, ()) if prop in hard}
        if not wanted:
            return None
        always = self._always()
        words = {(x, y) for _, x, y in view["words"]}
        hard_cells = {cell for cell, labels in now.items() if labels & hard}
        active = sentences(view)
        best = None
        for noun, prop, places, axis in active:
            if (noun, prop) not in wanted or prop in always:
                continue
            after = marks(view, {(noun, prop)})
            others = {cell for n, p, lie, _ in active if (n, p) != (noun, prop) for cell in lie}
            for role, cell in enumerate(places):
                rest = (place[0] - cell[0], place[1] - cell[1])
                if not size(rest):
                    continue
                for across in (True, False):
                    broke, pushed = self._break_rate(role, across)
                    if not broke or broke * 3 < pushed:
                        continue
                    closed = ((words | hard_cells) - {cell}) | outer
                    one = beyond = None
                    for _ in range(2):  # from one side, and where the word has no room there from another
                        one = self._walk(cell, now, goal, hard, (0, 0), across != (axis[0] != 0), False, closed)
                        if one is None:
                            break
                        previous = one[2][-2] if len(one[2]) > 1 else (0, 0)
                        beyond = (2 * cell[0] - previous[0], 2 * cell[1] - previous[1])
                        if inside(beyond, room) and beyond not in hard_cells:
                            break
                        closed = closed | {previous}
                        one = None
                    if one is None:
                        continue
                    two = (self._walk(rest, after, goal, hard, cell, None, False, others | {beyond} | outer)
                           or self._walk(rest, after, goal, hard, cell, None, False, outer))
                    if two is None or len(one[1]) + len(two[1]) > 18:
                        continue
                    cost = one[0] + two[0] + 1.0 * (1 - broke / pushed)
                    if best is None or cost < best[0]:
                        best = (cost, one[1] + two[1], noun, prop)
        return best

    def _free_words(self, view, hard):
        """Words that are in no active sentence {cell: name}, and names of visible things that can be gone onto."""
        nouns = {name for name, _, _ in view["things"] if name and not (view["rules"].get(name, set()) & hard)}
        used = {cell for _, _, places, _ in sentences(view) for cell in places}
        return {(x, y): name for name, x, y in view["words"] if (x, y) not in used}, nouns

    def _gaps(self, view, goal, hard):
        """Sentences with the goal property that lack one word: [(gap, cell of a word for it, word, noun, None)]."""
        at = {(x, y): name for name, x, y in view["words"]}
        free, nouns = self._free_words(view, hard)
        found = []
        for axis in self.form:
            for cell, name in free.items():
                if name == "is":
                    before, after = plus(cell, axis, -1), plus(cell, axis)
                    if at.get(after) == goal and before not in at:
                        found += [(before, other, word, word) for other, word in free.items() if word in nouns]
                    if at.get(before) in nouns and after not in at:
                        found += [(after, other, word, at[before]) for other, word in free.items() if word == goal]
            for cell, name in at.items():
                middle = plus(cell, axis)
                if name in nouns and middle not in at and at.get(plus(cell, axis, 2)) == goal:
                    found += [(middle, other, word, name) for other, word in free.items() if word == "is"]
        found.sort(key=lambda one: (size(plus(one[0], one[1], -1)) + size(one[1]), one))
        return [one + (None,) for one in found]

    def _replaced(self, view, goal, hard):
        """Active goal sentences of nouns that are not there: [(its first cell, cell of a word, word, noun, axis)]."""
        if not self.lines[0]:
            return []
        there = {name for name, _, _ in view["things"]}
        always = self._always()
        free, nouns = self._free_words(view, hard)
        found = []
        for noun, prop, places, axis in sentences(view):
            if prop != goal or noun in there or view["rules"].get(noun, set()) & always:
                continue
            found += [(places[0], other, word, word, axis) for other, word in free.items() if word in nouns]
        found.sort(key=lambda one: (size(plus(one[0], one[1], -1)) + size(one[1]), one))
        return found

    def _haul(self, view, hard_cells, one, by_unit, space, outer, limit):
        """Recorded walks and pushes that bring the word into the gap and you onto the noun; None or actions.

        `one` is an item of _gaps or _replaced; `space` is (box for the way or None, box for where one stands).
        """
        gap, cell, _, noun, axis = one
        room, stand = space
        words = {(x, y) for _, x, y in view["words"]} - {cell}
        if room is not None and not inside(gap, room):
            return None
        dx, dy = plus(gap, cell, -1)
        legs = []
        if dx:
            legs.append(((1 if dx > 0 else -1, 0), abs(dx)))
        if dy:
            legs.append(((0, 1 if dy > 0 else -1), abs(dy)))
        if not legs:
            return None
        best = None
        for order in ([legs, legs[::-1]] if len(legs) > 1 else [legs]):
            pushed = None
            if axis is not None:  # the word that lies in the gap goes on by one cell
                unit = order[-1][0]
                pushed = plus(gap, unit)
                if ((unit[0] != 0) == (axis[0] != 0) or not inside(pushed, stand) or pushed in words
                        or pushed in hard_cells):
                    continue
            at, word, actions = (0, 0), cell, []
            possible = True
            for number, (unit, count) in enumerate(order):
                behind = plus(word, unit, -1)
                way = [plus(word, unit, k) for k in range(1, count + 1)]
                last = number == len(order) - 1
                held = any(c in hard_cells or (c in words and not (pushed is not None and last and c == gap))
                           or (room is not None and not inside(c, room)) for c in way)
                if (held or unit not in by_unit or not inside(behind, stand) or behind in words
                        or behind in hard_cells):
                    possible = False
                    break
                steps = self._clear(at, behind, words | hard_cells | {word} | outer)
                if steps is None or len(actions) + len(steps) + count > limit - 1:
                    possible = False
                    break
                actions = actions + steps + [by_unit[unit]] * count
                word = way[-1]
                at = plus(word, unit, -1)
            if not possible:
                continue
            lying = words if pushed is None else (words - {gap}) | {pushed}
            places = sorted(((x, y) for name, x, y in view["things"] if name == noun and (x, y) != at),
                            key=lambda c: (size(plus(c, at, -1)), c))
            for place in places[:3]:
                steps = self._clear(at, place, lying | hard_cells | {word} | outer)
                if steps and len(actions) + len(steps) <= limit:
                    if best is None or len(actions) + len(steps) < len(best):
                        best = actions + steps
        return best

    def _fill(self, view, goal, hard, limit, frame):
        """The shortest recorded haul that completes a sentence with the goal property: (actions, word, noun)."""
        by_unit = self._units()
        if not by_unit or not self._pushing_known():
            return None
        room, sure, most = frame
        hard_cells = {cell for cell, labels in marks(view).items() if labels & hard}
        if sure:
            rounds = [((room, room), ring(room))]
        else:  # first within what is visible
            left, top, right, bottom = room
            mx = my = 0
            if most is not None:
                mx, my = int(right - left + 1 < most[0]), int(bottom - top + 1 < most[1])
            rounds = [((None, room), ring(room)),
                      ((None, (left - mx, top - my, right + mx, bottom + my)), set())]
        for source in (self._gaps, self._replaced):
            wanted = source(view, goal, hard)
            for space, outer in rounds:
                best = None
                for one in wanted:
                    if self.work > WORK:
                        break
                    actions = self._haul(view, hard_cells, one, by_unit, space, outer, limit)
                    if actions and (best is None or len(actions) < len(best[0])):
                        best = (actions, one[2], one[3])
                if best:
                    return best
        return None

    def _break_then_fill(self, view, goal, hard, frame):
        """A recalled break and the shortest recorded haul after it: (actions, word, noun, broken noun, property)."""
        by_unit = self._units()
        if not by_unit or not self._pushing_known():
            return None
        room, sure, most = frame
        there = {name for name, _, _ in view["things"]}
        always = self._always()
        words = {(x, y) for _, x, y in view["words"]}
        hard_cells = {cell for cell, labels in marks(view).items() if labels & hard}
        closed = words | hard_cells | ring(room)
        found = []
        for noun, prop, places, axis in sentences(view):
            if prop not in hard or prop in always or noun not in there:
                continue
            for role, cell in enumerate(places):
                broke, pushed = self._break_rate(role, True)
                if not broke or broke * 3 < pushed:
                    continue
                for unit, action in by_unit.items():
                    if (unit[0] != 0) == (axis[0] != 0):
                        continue
                    behind, beyond = plus(cell, unit, -1), plus(cell, unit)
                    if any(not inside(c, room) or c in words or c in hard_cells for c in (behind, beyond)):
                        continue
                    way = self._clear((0, 0), behind, closed)
                    if way is None or len(way) + 1 > MOST - 3:
                        continue
                    found.append((len(way) + 1, cell, beyond, way + [action], noun, prop))
        found.sort(key=lambda one: one[:3])
        best = None
        for _, cell, beyond, actions, noun, prop in found[:4]:
            if self.work > WORK:
                break
            later = after_push(view, cell, beyond, noun, prop)
            moved_room = (room[0] - cell[0], room[1] - cell[1], room[2] - cell[0], room[3] - cell[1])
            filled = self._fill(later, goal, hard, MOST - len(actions), (moved_room, sure, most))
            if filled and (best is None or len(actions) + len(filled[0]) < len(best[0])):
                best = (actions + filled[0], filled[1], filled[2], noun, prop)
        return best

    async def general_retrieve(self, trajectory: Trajectory):
        if not self.episodes:
            return {}
        answer = {}
        self.work = 0
        view = parse((trajectory.init or {}).get("obs", ""))
        now = marks(view)
        hard = self._hard()
        goals = self._goals()
        frame = self._room(view)
        room, sure, _ = frame
        outer = ring(room) if sure else set()
        words = {(x, y) for _, x, y in view["words"]}
        hard_cells = {cell for cell, labels in now.items() if labels & hard}
        seen = False  # whether a visible thing has one of the goal properties
        for goal in goals:
            targets = [(name, (x, y)) for name, x, y in view["things"] if goal in view["rules"].get(name, ())]
            targets.sort(key=lambda one: size(one[1]))
            seen = seen or bool(targets)
            free = None
            for name, place in targets[:6]:
                steps = self._clear((0, 0), place, (words | hard_cells | outer) - {place})
                if steps and len(steps) <= MOST and (free is None or len(steps) < len(free[0])):
                    free = (steps, name)
            if free:
                actions, name = free
                named = list(dict.fromkeys(actions))
                answer[f"bring you onto {name} that is {goal}"] = actions if len(actions) > 1 else actions * 2
                if len(named) <= 2:
                    answer["direction"] = f"{name} is {goal} by moving " + " and ".join(named)
                break
            best = None
            for closed in ([outer, set()] if outer else [set()]):  # first within the room
                for name, place in targets[:6]:
                    found = self._walk(place, now, goal, hard, closed=closed)
                    if found and (best is None or found[0] < best[0]):
                        best = (found[0], found[1], found[2], name, place)
                if best:
                    break
            if not best:
                continue
            _, actions, cells, name, place = best
            broken = self._break_first(view, now, place, goal, hard, cells, room, outer)
            if broken:
                _, both, noun, prop = broken
                answer[f"break {noun} is {prop} and bring you onto {name} that is {goal}"] = both
            else:
                named = list(dict.fromkeys(actions))
                answer[f"bring you onto {name} that is {goal}"] = actions if len(actions) > 1 else actions * 2
                held_up = any(now.get(cell, set()) & hard for cell in cells)
                if len(named) <= 2 and not held_up:
                    answer["direction"] = f"{name} is {goal} by moving " + " and ".join(named)
            break
        if not seen:
            always = self._always()
            for goal in goals:
                if goal in always:
                    continue
                filled = self._fill(view, goal, hard, MOST, frame)
                if filled:
                    actions, word, noun = filled
                    answer[f"push {word} to make {noun} is {goal} and bring you onto {noun}"] = actions
                    break
                both = self._break_then_fill(view, goal, hard, frame)
                if both:
                    actions, word, noun, name, prop = both
                    answer[f"break {name} is {prop}, push {word} to make {noun} is {goal} "
                           f"and bring you onto {noun}"] = actions
                    break
        idle = sorted(a for a, n in self.tried.items() if a and n >= 5 and self.changed[a] == 0)
        if idle:
            answer["useless"] = "avoid " + " and ".join(idle)
        return answer
