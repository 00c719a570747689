"""Memory design ab090d11a5e8, learned by ALMA on babaisai, candidate 4.1 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (f2e5845418ae, 31.5 %) > 2.1 (c41862484f4f, 73.8 %) > 4.1 (ab090d11a5e8, 79.2 %)
learning set, static: 79.2 % ± 4.0 (standard error), +66.9 [+54.6, +77.7] points to no memory [95 %]; 64 of 67 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict
from itertools import zip_longest

from memory_base import MemoryDesign, Trajectory

PLACE = re.compile(r"(\d+) steps? (?:to the )?(right|left|up|down)")
AXES = {"right": (1, 0), "left": (-1, 0), "up": (0, 1), "down": (0, -1)}  # how the text of a place is read
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
LONGEST = 18        # moves in a joined list
ALTERNATIVES = 12   # shortest joined lists kept for one offset
LONGER = 10         # lists two moves longer kept beside them
CONFIRMED = 2       # episodes in which a step must have been seen before it is joined
LAW_EPISODES = 6    # episodes, offsets and share of hits that make the shift of a move a law
LAW_OFFSETS = 20
LAW_SHARE = 0.95
ROOM_EPISODES = 3   # episodes after which the extent of a room is believed
REPEATED = 3        # cells of one thing that tell the kind of a room


def parse(obs):
    """Text of an observation -> ({noun: set of properties}, {(x, y): name}), x to the right, y up."""
    rules, cells, on_map = defaultdict(set), {}, False
    for line in str(obs or "").splitlines():
        line = line.strip()
        if not line or line.startswith("Active rules"):
            continue
        if line.startswith("Objects on the map"):
            on_map = True
            continue
        if not on_map:
            parts = line.split(" is ")
            if len(parts) == 2:
                rules[parts[0].strip()].add(parts[1].strip())
            else:
                print("no rule:", line[:80])
            continue
        places = PLACE.findall(line)
        if not places:
            print("no place:", line[:80])
            continue
        x = sum(int(n) * AXES[word][0] for n, word in places)
        y = sum(int(n) * AXES[word][1] for n, word in places)
        cells[(x, y)] = re.split(r"\s+\d", line, maxsplit=1)[0].strip()
    return rules, cells


def is_word(name):
    return name.startswith("rule ")


def spelled(name):
    """The word in "rule `word`", or an empty text for what is no word."""
    return name[len("rule "):].strip().strip("`") if name and is_word(name) else ""


def plus(a, b, times=1):
    return (a[0] + times * b[0], a[1] + times * b[1])


def minus(a, b):
    return (a[0] - b[0], a[1] - b[1])


def path_cells(moves):
    """The cells that a list of moves enters, seen from its start."""
    here, out = (0, 0), []
    for move in moves:
        here = plus(here, move)
        out.append(here)
    return out


def shifted(cells, by):
    return {minus(cell, by): name for cell, name in cells.items()}


def shifted_bounds(bounds, by):
    if bounds is None:
        return None
    return (bounds[0] - by[0], bounds[1] - by[0], bounds[2] - by[1], bounds[3] - by[1])


def inside(bounds, cells):
    """Whether all cells lie in the room; where the room is not known, every cell does."""
    if bounds is None:
        return True
    x0, x1, y0, y1 = bounds
    return all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in cells)


def ground(state, cell):
    """What lies on a cell, told by kind: None, a word, or a thing with its active properties."""
    rules, cells = state
    name = cells.get(cell)
    if name is None:
        return None
    if is_word(name):
        return ("word",)
    return ("thing",) + tuple(sorted(rules.get(name, ())))


def sentences(state):
    """Where the words of active rules lie: (noun, property, direction, (noun cell, is cell, property cell))."""
    rules, cells = state
    out = []
    for cell, name in cells.items():
        if spelled(name) != "is":
            continue
        for way in SHIFTS[1:]:
            first, last = minus(cell, way), plus(cell, way)
            noun, prop = spelled(cells.get(first, "")), spelled(cells.get(last, ""))
            if noun and prop and prop in rules.get(noun, ()):
                out.append((noun, prop, way, (first, cell, last)))
    return out


def anchors(state):
    """{(noun, property): cell of the first word} for the active rules whose words are seen."""
    out = {}
    for noun, prop, _, places in sentences(state):
        rule = (noun, prop)
        if rule not in out or places[0] < out[rule]:
            out[rule] = places[0]
    return out


def signature(state, anchor):
    """Tells rooms apart: where the lowest cell of a much repeated thing lies, seen from the anchor."""
    places = defaultdict(list)
    for cell, name in state[1].items():
        if not is_word(name):
            places[name].append(cell)
    if places:
        name = max(places, key=lambda one: (len(places[one]), one))
        if len(places[name]) >= REPEATED:
            return minus(min(places[name], key=lambda cell: (cell[1], cell[0])), anchor)
    return "open"


def moved(before, after):
    """The way the steered thing went between two states, or None where they do not fit together."""
    one, two = before[1], after[1]
    if not one or not two:
        return None
    best, best_count = None, -1
    for dx, dy in SHIFTS:
        count = sum(1 for (x, y), name in one.items() if two.get((x - dx, y - dy)) == name)
        if count > best_count:
            best, best_count = (dx, dy), count
    return best if best_count >= 0.6 * min(len(one), len(two)) else None


def mixed(options, most):
    """Takes from several lists in turn."""
    return [one for row in zip_longest(*options) for one in row if one is not None][:most]


def simple(moves):
    """Whether a list of moves enters no cell twice and does not come back to its start."""
    way = path_cells(moves)
    return (0, 0) not in way and len(set(way)) == len(way)


def join(confirmed, goal):
    """Joins confirmed steps: {offset: lists of moves that bring what lies there to `goal`}.

    The shortest lists come first, then some that are two moves longer."""
    back, ahead = defaultdict(list), defaultdict(list)
    for offset, move in sorted(confirmed):
        there = minus(offset, move)
        back[there].append((offset, move))
        ahead[offset].append((there, move))
    lists, rank, layers = {goal: [()]}, {goal: 0}, [[goal]]
    for depth in range(1, LONGEST + 1):
        found = defaultdict(list)
        for there in layers[-1]:
            for offset, move in back.get(there, ()):
                if offset not in lists:
                    found[offset].append([(move,) + rest for rest in lists[there]])
        if not found:
            break
        for offset, options in found.items():
            lists[offset] = mixed(options, ALTERNATIVES)
            rank[offset] = depth
        layers.append(list(found))
    longer = {goal: []}
    for depth, layer in enumerate(layers):
        if depth == 0:
            continue
        for offset in layer:
            options = []
            for there, move in ahead.get(offset, ()):
                if there not in rank:
                    continue
                if rank[there] == depth - 1:
                    rests = longer.get(there, [])
                elif rank[there] == depth + 1:
                    rests = lists[there]
                else:
                    continue
                kept = [(move,) + rest for rest in rests if simple((move,) + rest)]
                if kept:
                    options.append(kept)
            longer[offset] = mixed(options, LONGER) if options else []
    return {offset: short + longer.get(offset, []) for offset, short in lists.items()}


class RecordedWays(MemoryDesign):
    """Files recorded pieces of walks by where they led, and joins confirmed steps to ways and pushes."""

    def __init__(self):
        self.ways = defaultdict(dict)       # (x, y) -> {actions: [cells, set of grounds]}
        self.effects = defaultdict(Counter)  # action -> moves that were seen
        self.walked = Counter()             # ground -> times it was entered
        self.blocked = Counter()            # ground -> times it could not be entered
        self.entered = Counter()            # property -> times a thing that had it was entered
        self.won = Counter()                # property -> times that this ended the episode as won
        self.episodes = 0
        self.longest = 0                    # steps of the longest episode
        self.beside_words = {}              # (offset of a word, move) -> episodes in which the word stayed
        self.beside_all = {}                # the same for all names, and for things that were entered
        self.checks = Counter()             # move -> names whose place after it was looked at
        self.held = Counter()               # move -> names that were found shifted against it
        self.law_episodes = defaultdict(set)  # move -> episodes in which such a shift was seen
        self.law_offsets = defaultdict(set)   # move -> offsets at which it was seen
        self.pushed = Counter()             # move -> times a word was pushed so
        self.stuck = Counter()              # move -> times a word could not be pushed so
        self.forms = Counter()              # direction from `is` to the property -> times seen
        self.tried = Counter()              # (role, direction of the sentence, move) -> times
        self.broke = Counter()              # the same -> times that the rule was gone then
        self.first_rules = Counter()        # (noun, property) -> episodes that began with this rule
        self.rooms = {}                     # (noun, property, signature) -> [min x, max x, min y, max y, episodes]
        self.approach = {}                  # offset wanted -> {offset: lists of moves}
        self.joined_from = None             # what the tables were made of

    # ---- learning

    async def general_update(self, trajectory: Trajectory) -> None:
        self.episodes += 1
        steps = trajectory.steps or []
        self.longest = max(self.longest, len(steps))
        states = [parse((trajectory.init or {}).get("obs"))]
        moves, actions = [], []
        for step in steps:
            states.append(parse(step.get("obs")))
            actions.append(str(step.get("action_took", "")).strip())
            moves.append(moved(states[-2], states[-1]))
            if moves[-1] not in (None, (0, 0)):
                self.effects[actions[-1]][moves[-1]] += 1
        for i, step in enumerate(steps):
            last_won = i == len(steps) - 1 and trajectory.reward >= 0.99
            self._learn_step(states[i], actions[i], moves[i], last_won)
            if not last_won:
                self._learn_breaks(states, i, actions[i], moves[i])
            sure = True
            if last_won and moves[i] in (None, (0, 0)):
                moves[i] = self._usual(actions[i])  # the last picture may lack things or be a new one
                sure = False
            self._learn_offsets(states[i], states[i + 1], actions[i], moves[i], sure)
        for state in states:
            for _, _, way, _ in sentences(state):
                self.forms[way] += 1
        self._learn_room(states)
        count = self._learn_ways(states, actions, moves)
        self._rebuild()
        print(f"reward {trajectory.reward}, steps {len(steps)}, unclear moves {moves.count(None)}, "
              f"new ways {count}, places {len(self.ways)}, winning {dict(self.won)} of {dict(self.entered)}, "
              f"joined {[len(table) for table in self.approach.values()]}, pushed {sum(self.pushed.values())}, "
              f"stuck {sum(self.stuck.values())}, rules broken {sum(self.broke.values())} of "
              f"{sum(self.tried.values())}, lawful {self._lawful()}, "
              f"held {sum(self.held.values())} of {sum(self.checks.values())}, anchor {self._anchor()}, "
              f"rooms {self._anchor_rooms()}")

    def _usual(self, action):
        seen = self.effects.get(action)
        return seen.most_common(1)[0][0] if seen else None

    def _learn_step(self, before, action, move, last_won):
        usual = self._usual(action)
        target = move if move not in (None, (0, 0)) else usual
        if target is None:
            return
        here = ground(before, target)
        if move == (0, 0) and not last_won:
            self.blocked[here] += 1
            return
        if move is None and not last_won:
            return
        self.walked[here] += 1
        if here and here[0] == "thing":
            for prop in here[1:]:
                self.entered[prop] += 1
                if last_won:
                    self.won[prop] += 1

    def _learn_breaks(self, states, i, action, move):
        """Whether walking against a word of an active rule ended the rule."""
        if move is None:
            return
        target = move if move != (0, 0) else self._usual(action)
        if target is None:
            return
        for noun, prop, way, cells in sentences(states[i]):
            for role, cell in zip(("noun", "is", "property"), cells):
                if cell == target:
                    key = (role, way, target)
                    self.tried[key] += 1
                    if any(prop not in later[0].get(noun, ()) for later in states[i + 1:i + 3]):
                        self.broke[key] += 1

    def _note(self, table, key):
        seen = table.setdefault(key, set())
        if len(seen) < 3:
            seen.add(self.episodes)

    def _learn_offsets(self, before, after, action, move, sure):
        """Where what lies around is found after a move, and which words a move pushed."""
        if move is None:
            return
        if move == (0, 0):
            target = self._usual(action)
            if target is not None and is_word(before[1].get(target, "")):
                self.stuck[target] += 1
            return
        for offset, name in before[1].items():
            if offset == move:
                if not is_word(name):
                    self._note(self.beside_all, (offset, move))
                elif after[1].get(move) == name:
                    self.pushed[move] += 1
                continue
            if sure:
                self.checks[move] += 1
            if after[1].get(minus(offset, move)) == name:
                self._note(self.beside_all, (offset, move))
                if is_word(name):
                    self._note(self.beside_words, (offset, move))
                if sure:
                    self.held[move] += 1
                    self.law_episodes[move].add(self.episodes)
                    self.law_offsets[move].add(offset)

    def _learn_room(self, states):
        """How far the named cells of an episode reach, seen from the first word of each rule it began with."""
        first = states[0]
        for noun, props in first[0].items():
            for prop in props:
                self.first_rules[(noun, prop)] += 1
        places = [anchors(state) for state in states]
        for rule, cell in places[0].items():
            box = self.rooms.setdefault(rule + (signature(first, cell),), [0, 0, 0, 0, 0])
            box[4] += 1
            for state, found in zip(states, places):
                here = found.get(rule)
                if here is None:
                    continue
                for other in [(0, 0)] + list(state[1]):
                    x, y = minus(other, here)
                    box[0], box[1] = min(box[0], x), max(box[1], x)
                    box[2], box[3] = min(box[2], y), max(box[3], y)

    def _lawful(self):
        """Moves that shift whatever lies around by the same amount, seen often enough."""
        return sorted(move for move, total in self.checks.items()
                      if self.held[move] >= LAW_SHARE * total
                      and len(self.law_episodes.get(move, ())) >= LAW_EPISODES
                      and len(self.law_offsets.get(move, ())) >= LAW_OFFSETS)

    def _confirmed(self, table, lawful, reach, words):
        pairs = {key for key, seen in table.items() if len(seen) >= CONFIRMED}
        for move in lawful:
            for x in range(-reach[0], reach[0] + 1):
                for y in range(-reach[1], reach[1] + 1):
                    if (x, y) != (0, 0) and not (words and (x, y) == move):
                        pairs.add(((x, y), move))
        return frozenset(pairs)

    def _rebuild(self):
        lawful = self._lawful()
        sure = [offset for (offset, _), seen in self.beside_all.items() if len(seen) >= CONFIRMED]
        reach = (max((abs(x) for x, _ in sure), default=0), max((abs(y) for _, y in sure), default=0))
        every = self._confirmed(self.beside_all, lawful, reach, False)
        words = self._confirmed(self.beside_words, lawful, reach, True)
        pushes = tuple(sorted(move for move, count in self.pushed.items() if count))
        made_of = (every, words, pushes)
        if made_of == self.joined_from:
            return
        self.joined_from = made_of
        table = {(0, 0): join(every, (0, 0))}
        for move in pushes:
            table[move] = join(words, move)
        self.approach = table

    def _learn_ways(self, states, actions, moves):
        new = 0
        for start in range(len(actions)):
            if moves[start] in (None, (0, 0)):
                continue
            position, path = (0, 0), []  # path: (cell, action, ground)
            for i in range(start, len(actions)):
                move = moves[i]
                if move is None:
                    break
                if move == (0, 0):
                    continue
                kind = ground(states[i], move)
                position = (position[0] + move[0], position[1] + move[1])
                if position == (0, 0):
                    path = []
                    continue
                known = [k for k, part in enumerate(path) if part[0] == position]
                if known:  # a loop: what lies between is of no use
                    path = path[:known[0] + 1]
                    continue
                path.append((position, actions[i], kind))
                key = tuple(part[1] for part in path)
                there = self.ways[position]
                if key not in there:
                    there[key] = [tuple(part[0] for part in path), set()]
                    new += 1
                if len(there[key][1]) < 50:
                    there[key][1].add(tuple(part[2] for part in path))
        return new

    # ---- looking up

    def _anchor(self):
        """The rule with which the episodes began most often, or None where there is no such rule."""
        if not self.first_rules:
            return None
        rule, count = max(self.first_rules.items(), key=lambda item: (item[1], item[0]))
        return rule if 2 * count >= self.episodes else None

    def _anchor_rooms(self):
        rule = self._anchor()
        return {str(key[2]): tuple(box) for key, box in self.rooms.items() if key[:2] == rule}

    def _room(self, state):
        """The extent of such a room in the episodes, as (min x, max x, min y, max y) of this picture, or None."""
        rule = self._anchor()
        if rule is None:
            return None
        cell = anchors(state).get(rule)
        if cell is None:
            return None
        box = self.rooms.get(rule + (signature(state, cell),))
        if box is None or box[4] < ROOM_EPISODES:
            return None
        seen = [(0, 0)] + list(state[1])  # what is in the picture is in the room
        return (min([box[0] + cell[0]] + [x for x, _ in seen]), max([box[1] + cell[0]] + [x for x, _ in seen]),
                min([box[2] + cell[1]] + [y for _, y in seen]), max([box[3] + cell[1]] + [y for _, y in seen]))

    def _difference(self, state, cells, grounds):
        """How much the ground of a recorded way differs from what lies there now, target left out.

        A difference weighs as much as such ground stood in the way in the episodes."""
        here = [ground(state, cell) for cell in cells[:-1]]
        weights = [(self.blocked[g] + 0.5) / (self.blocked[g] + self.walked[g] + 1.0) for g in here]
        return min((sum(w for w, g, old in zip(weights, here, kinds) if g != old) for kinds in grounds),
                   default=0.0)

    def _actions(self, moves):
        """Moves -> the actions that had this effect, or None where one is not known."""
        names = {}
        for action, seen in self.effects.items():
            move, count = seen.most_common(1)[0]
            if move not in names or count > names[move][0]:
                names[move] = (count, action)
        if any(move not in names for move in moves):
            return None
        return [names[move][1] for move in moves]

    def _blocks(self, kind):
        return bool(kind) and kind[0] == "thing" and len(kind) > 1 and self.blocked[kind] > self.walked[kind]

    def _blockers(self, state, cells):
        """Names of things on the cells that are of a kind which stood in the way in the episodes."""
        return {state[1][cell] for cell in cells if cell in state[1] and self._blocks(ground(state, cell))}

    def _words_on(self, state, cells):
        return sum(1 for cell in set(cells) if is_word(state[1].get(cell, "")))

    def _way(self, state, target, bounds, limit):
        """The known way to a cell: ((cost, actions) or None, names of blocking things on refused ways)."""
        best, refused = None, set()
        if not inside(bounds, [target]):
            return best, refused
        for actions, (way, grounds) in self.ways.get(target, {}).items():
            if not inside(bounds, way):
                continue
            names = self._blockers(state, way[:-1])
            if names:
                refused |= names
                continue
            if len(actions) > limit:
                continue
            difference = self._difference(state, way, grounds)
            cost = 2.0 * difference + 0.1 * len(actions)
            if difference < 1.0 and (best is None or cost < best[0]):
                best = (cost, list(actions))
        joined = self.approach.get((0, 0), {}).get(target, [])
        for moves in joined:
            way = path_cells(moves)[:-1]
            if not inside(bounds, way):
                continue
            names = self._blockers(state, way)
            if names:
                refused |= names
                continue
            if len(moves) > limit:
                continue
            cost = 2.0 * self._words_on(state, way) + 0.1 * len(moves)
            if best is None or cost < best[0]:
                actions = self._actions(moves)
                if actions:
                    best = (cost, actions)
        if best is None and not joined:
            distance = abs(target[0]) + abs(target[1])
            for (ex, ey), there in self.ways.items():
                missing = abs(target[0] - ex) + abs(target[1] - ey)
                if missing == 0 or missing > 0.5 * distance or missing >= distance:
                    continue
                for actions, (way, grounds) in there.items():
                    if not inside(bounds, way):
                        continue
                    names = self._blockers(state, way)
                    if names:
                        refused |= names
                        continue
                    if len(actions) + missing > limit:
                        continue
                    difference = self._difference(state, way, grounds)
                    cost = missing + 2.0 * difference + 0.1 * len(actions)
                    if difference < 1.0 and (best is None or cost < best[0]):
                        best = (cost, list(actions))
        return best, refused

    def _orders(self, offset, gap):
        """The straight pieces, one to three, in which a word may be brought from `offset` to `gap`."""
        dx, dy = minus(gap, offset)
        across = ((1 if dx > 0 else -1, 0), abs(dx))
        along = ((0, 1 if dy > 0 else -1), abs(dy))
        if not dx and not dy:
            return []
        if not dy:
            return [[across]]
        if not dx:
            return [[along]]
        orders = [[across, along], [along, across]]
        for (split, n), whole in ((along, across), (across, along)):
            for k in range(1, n):
                orders.append([(split, k), whole, (split, n - k)])
        return orders

    def _pushes(self, state, offset, gap, bounds, limit):
        """Known pieces that bring a word from `offset` to `gap`: ([(words, length, moves, end)], refused).

        `state` is the picture without this word."""
        out, refused = [], set()
        for order in self._orders(offset, gap):
            word, here = offset, (0, 0)
            partial = [(0, 0, ())]  # words on the path, length, moves
            for way, n in order:
                passed = [plus(word, way, k) for k in range(1, n + 1)]
                if not inside(bounds, passed) or self._words_on(state, passed):
                    partial = []
                    break
                names = self._blockers(state, passed)
                if names:
                    refused |= names
                    partial = []
                    break
                pieces = []
                for first in self.approach.get(way, {}).get(minus(word, here), ()):
                    on = [plus(here, cell) for cell in path_cells(first)]
                    if not inside(bounds, on):
                        continue
                    names = self._blockers(state, on)
                    if names:
                        refused |= names
                        continue
                    words = self._words_on(state, on)
                    if words <= 1:
                        pieces.append((words, len(first), first))
                pieces.sort()
                partial = sorted((words + more, length + extra + n, moves + first + (way,) * n)
                                 for words, length, moves in partial
                                 for more, extra, first in pieces[:3]
                                 if words + more <= 1 and length + extra + n <= limit)[:3]
                if not partial:
                    break
                word = passed[-1]
                here = minus(word, way)
            out.extend((words, length, moves, here) for words, length, moves in partial)
        return out, refused

    def _make(self, state, winning, bounds, limit):
        """Known pushes that complete a winning rule, and the way after: ((cost, actions, label), refused)."""
        rules, cells = state
        best, refused = None, set()
        in_use = {cell for _, _, _, places in sentences(state) for cell in places}
        gaps = []
        for cell, name in cells.items():
            if spelled(name) != "is":
                continue
            for form, _ in self.forms.most_common(2):
                prop = spelled(cells.get(plus(cell, form), ""))
                gap = minus(cell, form)
                if prop in winning and not is_word(cells.get(gap, "")) and inside(bounds, [gap]):
                    gaps.append((gap, prop))
        for offset, name in cells.items():
            noun = spelled(name)
            if not noun or offset in in_use:
                continue
            things = [cell for cell, other in cells.items() if other == noun]
            if not things:
                continue
            others = {cell: other for cell, other in cells.items() if cell != offset}
            for gap, prop in gaps:
                pushes, names = self._pushes((rules, others), offset, gap, bounds, limit)
                refused |= names
                found = sorted((words + 0.1 * length, moves, end) for words, length, moves, end in pushes)
                for cost, moves, end in found[:5]:
                    if best is not None and cost >= best[0]:
                        break
                    actions = self._actions(moves)
                    if not actions:
                        continue
                    later = dict(others)
                    later[gap] = name
                    seen = (rules, shifted(later, end))
                    edges = shifted_bounds(bounds, end)
                    for thing in things:
                        target = minus(thing, end)
                        if target == (0, 0) or thing == gap:
                            continue
                        way, names = self._way(seen, target, edges, limit - len(actions))
                        if way is None:
                            refused |= names
                            continue
                        if best is None or cost + way[0] < best[0]:
                            best = (cost + way[0], actions + way[1],
                                    f"make {noun} is {prop}, then way onto {noun}")
        return best, refused

    def _find(self, state, winning, bounds, limit):
        """What is known for a state: ((cost, actions, label) or None, names of blocking things)."""
        rules, cells = state
        best, refused, wins = None, set(), False
        for cell, name in cells.items():
            if is_word(name):
                continue
            props = sorted(rules.get(name, set()) & winning)
            if not props:
                continue
            wins = True
            way, names = self._way(state, cell, bounds, limit)
            refused |= names
            if way is not None and (best is None or way[0] < best[0]):
                best = (way[0], way[1], f"way onto {name}, {name} is {props[0]}")
        if wins:
            return best, refused
        return self._make(state, winning, bounds, limit)

    def _breaks(self, state, names, bounds):
        """Known pieces that end a rule of a blocking thing: (cost, moves, label, state seen from their end, end)."""
        rules, cells = state
        kept = []
        for noun, prop, way, places in sentences(state):
            if noun not in names or not self._blocks(("thing", prop)):
                continue
            for role, cell in zip(("noun", "is", "property"), places):
                for move in SHIFTS[1:]:
                    key = (role, way, move)
                    if self.broke[key] < 2 or self.broke[key] < 0.5 * self.tried[key]:
                        continue
                    if not inside(bounds, [plus(cell, move)]):
                        continue
                    found = []
                    for first in self.approach.get(move, {}).get(cell, ()):
                        on = path_cells(first)
                        if not inside(bounds, on) or self._words_on(state, on) or self._blockers(state, on):
                            continue
                        moves = first + (move,)
                        share = self.broke[key] / self.tried[key]
                        found.append((0.1 * len(moves) + 0.5 * (1.0 - share), moves))
                    if not found:
                        continue
                    found.sort()
                    left = defaultdict(set, {n: set(p) for n, p in rules.items()})
                    left[noun].discard(prop)
                    later = {c: n for c, n in cells.items() if c != cell}
                    later[plus(cell, move)] = cells[cell]
                    seen = (left, shifted(later, cell))
                    for cost, moves in found[:2]:
                        kept.append((cost, moves, f"break {noun} is {prop}", seen, cell))
        kept.sort(key=lambda one: one[0])
        return kept[:10]

    async def general_retrieve(self, trajectory: Trajectory):
        winning = {prop for prop, n in self.won.items() if n >= 0.5 * self.entered[prop]}
        if not winning or not self.ways:
            return {}
        state = parse((trajectory.init or {}).get("obs"))
        bounds = self._room(state)
        best, refused = self._find(state, winning, bounds, self.longest)
        if best is not None:
            return {best[2]: best[1]}
        if not refused:
            return {}
        chosen = None
        for cost, moves, label, later, end in self._breaks(state, refused, bounds):
            if chosen is not None and cost >= chosen[0]:
                break
            actions = self._actions(moves)
            if not actions:
                continue
            after, _ = self._find(later, winning, shifted_bounds(bounds, end), self.longest - len(actions))
            if after is not None and (chosen is None or cost + after[0] < chosen[0]):
                chosen = (cost + after[0], actions + after[1], f"{label}, then {after[2]}")
        if chosen is None:
            return {}
        return {chosen[2]: chosen[1]}
