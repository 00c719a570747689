"""Memory design c08e30c49aef, learned by ALMA on minihack, candidate 7.4 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (49a4467ed4c8, 25.0 %) > 2.1 (6ea656e7717a, 20.6 %) > 5.1 (f7439f14dea4, 29.4 %) > 6.4 (4027eb1aecec, 35.3 %) > 7.4 (c08e30c49aef, 50.0 %)
learning set, static: 50.0 % ± 2.9 (standard error), +33.8 [+19.1, +48.5] points to no memory [95 %]; 33 of 34 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import math
import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign, Trajectory

HEADS = ("message", "language observation", "cursor", "map", "inventory")
POINTS = {"north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest"}
TERRAIN = set("|-#}+`")
PLAIN = set(".@#|-+<> ^`}")  # characters of the map that are no item
GROUND = PLAIN - {"#"}       # characters of the map that are never the sign of a named thing
ITEMS = set("%)[(=\"!?/*")   # characters of the map that are things to pick up
STOP = set("the and you your are was has have what with for this that from there uncursed cursed blessed being worn "
           "weapon hand hands alternate wielded not never avoid useless fails wrong wasted dead lost nothing don can "
           "ynq".split())
LINE = re.compile(r"^(.+?) ((?:very )?(?:far|near|adjacent)) ((?:north|south|east|west)+)\s*$")
NO_THING = re.compile(r"\b(?:stairs|staircase|dark area|walls?|corners?|doors?|doorways?)\b")
ITEM = re.compile(r"^([A-Za-z]): (.+)$")
QUESTION = re.compile(r"\[[^\]]*\]|In what direction")
LISTED = re.compile(r"\[([^\]]*?) or \?\*\]")
PROMPT = re.compile(r"What do you want to (.+?)\? \[")
REFUSED = re.compile(r"You don't have anything (?:else )?to (.+?)[.!]")
YES_NO = re.compile(r"\[(yn[a-z]*)\]")
SPAN = 20  # how far the table of straight walks goes
FEW = 25   # a list of commands that is no longer than this is a short one


def words_of(text):
    """Words of a text that say something, in order, each once."""
    found = re.findall(r"[a-z]+", str(text).lower())
    return list(dict.fromkeys(word for word in found if len(word) > 2 and word not in STOP))


def bare(text):
    """An item's text without what stands in parentheses."""
    return re.sub(r"\([^)]*\)", " ", str(text))


def name_of(text):
    """The name of an item without numbers, curses and remarks."""
    return " ".join(words_of(bare(text)))


def noun_of(text):
    """What sort of thing an item is: scroll, ring, boots."""
    name = re.sub(r"\bpairs? of\b", " ", bare(text))
    name = re.split(r" (?:of|labeled|called|named) ", name)[0]
    found = re.findall(r"[a-z]+", name.lower())
    return found[-1] if found else ""


def stem(word):
    """A word without a plural s."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def letters_of(message):
    """The item letters that a question offers."""
    match = LISTED.search(message)
    if not match:
        return []
    letters = []
    for low, high, single in re.findall(r"([A-Za-z])-([A-Za-z])|([A-Za-z])", match.group(1)):
        if single:
            letters.append(single)
        else:
            letters.extend(chr(code) for code in range(ord(low), ord(high) + 1))
    return letters


def reach(vector):
    return max(abs(vector[0]), abs(vector[1]))


def minus(a, b):
    return (a[0] - b[0], a[1] - b[1])


def sign(number):
    return (number > 0) - (number < 0)


def is_move(action):
    parts = action.split()
    return bool(parts) and parts[-1] in POINTS


class State:
    """One observation, parsed."""

    def __init__(self, source):
        self.text = "%s\n\n%s" % (source.get("long_term_context") or "", source.get("short_term_context") or "")
        parts, name = {}, None
        for line in self.text.split("\n"):
            head = line[:-1] if line.endswith(":") else None
            if head in HEADS and head not in parts:
                name = head
                parts[name] = []
            elif name is not None:
                parts[name].append(line)
        self.message = " ".join(parts.get("message", [])).strip()
        self.has_cursor = "cursor" in parts
        self.cursor = " ".join(parts.get("cursor", [])).strip()
        self.map = parts.get("map", [])
        self.items = {}
        for line in parts.get("inventory", []):
            match = ITEM.match(line)
            if match:
                self.items[match.group(1)] = match.group(2)
        self.around = "\n".join(parts.get("language observation", []))
        self.lines = []  # (what, distance, bearing) of all lines with one bearing
        for line in parts.get("language observation", []):
            match = LINE.match(line)
            if match:
                self.lines.append(match.groups())
        places = defaultdict(list)
        for y, row in enumerate(self.map):
            for x, char in enumerate(row):
                if char in "@><":
                    places[char].append((x, y))
        self.at = places["@"][0] if len(places["@"]) == 1 else None
        self.offset = None  # from the agent to the stairs down
        self.up = None      # from the agent to the stairs up
        if self.at is not None and len(places[">"]) == 1:
            self.offset = minus(places[">"][0], self.at)
        if self.at is not None and len(places["<"]) == 1:
            self.up = minus(places["<"][0], self.at)
        self.doors = sum(row.count("+") for row in self.map)
        self.terrain = "".join(sorted({char for row in self.map for char in row if char in TERRAIN}))

    @property
    def asks_by_message(self):
        return "?" in self.message and bool(QUESTION.search(self.message))

    @property
    def asks(self):
        """Whether a question is open: the cursor has then left the agent. Messages stay after their question."""
        if self.has_cursor:
            return not self.cursor.lower().startswith("yourself")
        return self.asks_by_message

    def cell(self, dx, dy):
        """The character of the map at this offset from the agent."""
        if self.at is None:
            return " "
        x, y = self.at[0] + dx, self.at[1] + dy
        if 0 <= y < len(self.map) and 0 <= x < len(self.map[y]):
            return self.map[y][x]
        return " "

    def find(self, chars):
        """Offsets from the agent, with the characters, of all cells that hold one of these characters."""
        if self.at is None:
            return []
        return [(minus((x, y), self.at), char) for y, row in enumerate(self.map)
                for x, char in enumerate(row) if char in chars]

    def things(self):
        """Offsets from the agent, with the characters, of all cells that are no plain ground and no monster."""
        if self.at is None:
            return []
        return [(minus((x, y), self.at), char) for y, row in enumerate(self.map)
                for x, char in enumerate(row) if char not in GROUND and not char.isalnum()]

    def named(self):
        """(noun, distance, bearing) of the things that the observation names with one bearing."""
        found = []
        for what, distance, bearing in self.lines:
            if NO_THING.search(what):
                continue
            noun = noun_of(what)
            if noun:
                found.append((noun, distance, bearing))
        return found

    def narrow(self):
        """Whether there is little floor around the agent; None where it is not on the map."""
        if self.at is None:
            return None
        free = sum(self.cell(dx, dy) in ".#" for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0))
        return free <= 3


class Nearer(MemoryDesign):
    """What brought the agent nearer: moves by bearing, straight walks by offset, commands by sort of item."""

    def __init__(self):
        self.episodes = 0
        self.tried = Counter()               # (goal, terrain) -> episodes
        self.walked = Counter()              # (goal, terrain) -> episodes won by walking alone
        self.moves = defaultdict(Counter)    # action -> displacements that it caused
        self.placed = defaultdict(Counter)   # (distance, bearing) -> offsets of stairs that were called so
        self.signs = defaultdict(Counter)    # noun -> characters of the map that stood where it was named
        self.walks = {}                      # displacement -> shortest sequence of actions known to cause it
        self.single = {}                     # displacement of one square -> the action that is confirmed to cause it
        self.verbs = defaultdict(Counter)    # noun of an item -> commands that ask for such an item
        self.said = defaultdict(Counter)     # word of a prompt or refusal -> commands that led to it
        self.refused = Counter()             # command -> times it was refused since no fitting item was carried
        self.asked = Counter()               # command -> times it asked for an item and listed letters
        self.fit = defaultdict(set)          # noun of an item -> commands that offered it
        self.unfit = defaultdict(set)        # noun of an item -> commands that did not offer it though it was carried
        self.yes = Counter()                 # answers to [yn] questions after which something happened
        self.tails = defaultdict(Counter)    # (command, noun) -> answers that were given after the item's letter
        self.alias = defaultdict(Counter)    # letter -> names of commands that answered with it
        self.targets = Counter()             # character of the map -> times an item was gained there
        self.sorts = defaultdict(Counter)    # character of the map -> nouns of what was gained there
        self.takes = Counter()               # commands that gained an item
        self.won_with = defaultdict(Counter)  # goal -> nouns of the items that won it
        self.wins = defaultdict(Counter)     # goal -> chains of commands without an item that won it
        self.openers = Counter()             # commands with a direction that opened a door
        self.owned = Counter()               # name of an item -> episodes that began with it
        self.blocked = {}                    # (terrain, narrow) -> action -> [times, times the map stayed the same]

    # ---- learning -------------------------------------------------------------------------------------

    async def general_update(self, trajectory: Trajectory) -> None:
        init, steps = trajectory.init or {}, trajectory.steps or []
        goal = str(init.get("goal") or "")
        states = [State(init)] + [State(step) for step in steps]
        actions = [str(step.get("action_took") or "") for step in steps]
        won = trajectory.reward >= 0.99
        self.episodes += 1

        group = (goal, states[0].terrain)
        self.tried[group] += 1
        if won and actions and all(is_move(action) for action in actions):
            self.walked[group] += 1
        for name in {name_of(text) for text in states[0].items.values()}:
            self.owned[name] += 1

        offsets = [state.offset for state in states]
        if won and len(offsets) > 1 and offsets[-1] is None and offsets[-2] and reach(offsets[-2]) <= 1:
            offsets[-1] = (0, 0)  # the agent stands on the stairs and hides them
        shifts = self._shifts(states, offsets)
        self._learn_moves(states, actions, shifts)
        self._learn_walks(actions, shifts)
        self._learn_places(states)
        self._learn_blocked(states, actions)
        self._learn_gains(states, actions, shifts)
        self._learn_commands(goal, states, actions, won)
        self._learn_yes(states, actions, won)
        self._compile_walks()
        print("episode %d: %r terrain %r reward %s, %d steps, asks by cursor %d, by message %d, shifts known %d, "
              "walks %d, confirmed moves %d, placed %d, signs %s, takes %s, openers %s, refused %s, alias %s, "
              "yes %s, blocked %s"
              % (self.episodes, goal, states[0].terrain, trajectory.reward, len(actions),
                 sum(state.has_cursor and state.asks for state in states),
                 sum(state.asks_by_message for state in states),
                 sum(shift is not None for shift in shifts), len(self.walks), len(self.single), len(self.placed),
                 {noun: counts.most_common(1)[0] for noun, counts in self.signs.items() if counts},
                 dict(self.takes), dict(self.openers),
                 {verb: (times, self.asked[verb]) for verb, times in self.refused.items()},
                 {letter: counts.most_common(1)[0] for letter, counts in self.alias.items() if counts},
                 dict(self.yes), sorted(self.blocked)))

    @staticmethod
    def _shifts(states, offsets):
        """How far each step brought the agent, measured by a staircase; None where that is unknown."""
        ups = [state.up for state in states]
        shifts = []
        for i in range(len(states) - 1):
            if offsets[i] is not None and offsets[i + 1] is not None:
                shifts.append(minus(offsets[i], offsets[i + 1]))
                continue
            before, after = ups[i], ups[i + 1]
            if i == 0 and before is None and after is not None and reach(after) <= 1:
                before = (0, 0)  # the agent began on the stairs up
            if before is not None and after is not None:
                shifts.append(minus(before, after))
            else:
                shifts.append(None)
        return shifts

    def _learn_moves(self, states, actions, shifts):
        for i, action in enumerate(actions):
            moved = shifts[i]
            if moved is None or moved == (0, 0) or states[i].asks:
                continue
            self.moves[action][moved] += 1

    def _usual(self, action, moved):
        counts = self.moves.get(action)
        return bool(counts) and reach(moved) <= 1 and counts.most_common(1)[0][0] == moved

    def _learn_walks(self, actions, shifts):
        for i in range(len(actions)):
            path, places, index = [], [(0, 0)], {(0, 0): 0}
            for j in range(i, min(len(actions), i + 60)):
                moved = shifts[j]
                if moved is None or len(path) > 40:
                    break
                if moved == (0, 0):
                    continue
                if not self._usual(actions[j], moved):
                    break  # a trap, a far move or something else that does not repeat
                here = (places[-1][0] + moved[0], places[-1][1] + moved[1])
                if here in index:  # a loop: forget it
                    keep = index[here]
                    for place in places[keep + 1:]:
                        del index[place]
                    del places[keep + 1:]
                    del path[keep:]
                else:
                    index[here] = len(places)
                    places.append(here)
                    path.append(actions[j])
                if path and (here not in self.walks or len(path) < len(self.walks[here])):
                    self.walks[here] = tuple(path)

    def _learn_places(self, states):
        """Which offsets are called by which distance and bearing, told by the stairs; which sign a noun has."""
        for state in states:
            for what, distance, bearing in state.lines:
                offset = {"stairs down": state.offset, "stairs up": state.up}.get(what)
                if offset is not None and offset != (0, 0):
                    self.placed[(distance, bearing)][offset] += 1
        for i, state in enumerate(states):
            if i and state.map == states[i - 1].map:
                continue
            named = state.named()
            if not named:
                continue
            things = state.things()
            for noun, distance, bearing in named:
                known = self.placed.get((distance, bearing))
                if not known:
                    continue
                found = [char for offset, char in things if offset in known]
                if len(found) == 1:
                    self.signs[stem(noun)][found[0]] += 1

    def _learn_blocked(self, states, actions):
        """How often each single move left the map as it was, by what the episode began with."""
        narrow = states[0].narrow()
        if narrow is None:
            return
        table = self.blocked.setdefault((states[0].terrain, narrow), {})
        for i, action in enumerate(actions):
            if action not in POINTS or states[i].asks:
                continue
            known = table.setdefault(action, [0, 0])
            known[0] += 1
            known[1] += states[i].map == states[i + 1].map

    def _compile_walks(self):
        """Join confirmed moves of one square to straight walks, once for each newly confirmed set of moves."""
        best = {}
        for action, counts in self.moves.items():
            if not is_move(action) or " " in action or not counts:
                continue
            moved, times = counts.most_common(1)[0]
            if reach(moved) != 1 or times < 3 or times < 0.7 * sum(counts.values()):
                continue
            if moved not in best or times > best[moved][0]:
                best[moved] = (times, action)
        single = {moved: action for moved, (_, action) in best.items()}
        if not single or single == self.single:
            return
        self.single = single
        for dx in range(-SPAN, SPAN + 1):
            for dy in range(-SPAN, SPAN + 1):
                if (dx, dy) == (0, 0):
                    continue
                path = self._straight(dx, dy)
                old = self.walks.get((dx, dy))
                if path and (old is None or len(path) <= len(old)):
                    self.walks[(dx, dy)] = tuple(path)

    def _straight(self, dx, dy):
        across, along = (sign(dx), 0), (0, sign(dy))
        slant = (sign(dx), sign(dy))
        wide, high = abs(dx), abs(dy)
        path = []
        if wide and high and slant in self.single:
            both = min(wide, high)
            path += [self.single[slant]] * both
            wide, high = wide - both, high - both
        if wide:
            if across not in self.single:
                return []
            path += [self.single[across]] * wide
        if high:
            if along not in self.single:
                return []
            path += [self.single[along]] * high
        return path

    @staticmethod
    def _chain_start(k, states):
        """The first step of the command that step k completes: answers to questions belong to it."""
        first = k
        while first > 0 and k - first < 4 and states[first].asks:
            first -= 1
        return first

    def _landed(self, j, states, actions, shifts):
        """(moved, character where step j led, as the map showed it before); moved is None where that is unknown."""
        shift = shifts[j]
        if shift == (0, 0):
            return False, None
        if shift is None:
            if states[j].at == states[j + 1].at and states[j].map == states[j + 1].map:
                return False, None
            if states[j].at == states[j + 1].at:
                return None, None
            counts = self.moves.get(actions[j])
            if not counts:
                return None, None
            shift = counts.most_common(1)[0][0]
            if reach(shift) > 1:
                return None, None
        char = states[j].cell(*shift)
        return True, (None if char in PLAIN or char.isalpha() else char)

    def _under(self, first, states, actions, shifts):
        """The character on which the agent stands before step `first`, as the map showed it before it came."""
        for j in range(first - 1, -1, -1):
            if states[j].asks or not is_move(actions[j]):
                continue
            moved, char = self._landed(j, states, actions, shifts)
            if moved is False:
                continue
            return char
        return None

    def _learn_gains(self, states, actions, shifts):
        """Which commands gain items, what is found under which character, what opens doors."""
        for k in range(len(actions)):
            before, after = states[k], states[k + 1]
            grew = len(after.items) > len(before.items) > 0
            opened = 0 < before.doors and after.doors < before.doors
            if not (grew or opened):
                continue
            first = self._chain_start(k, states)
            verb = actions[first]
            if not verb:
                continue
            if grew:
                char = None
                if not is_move(verb):
                    self.takes[verb] += 1
                    char = self._under(first, states, actions, shifts)
                elif first == k:
                    char = self._landed(k, states, actions, shifts)[1]
                if char:
                    self.targets[char] += 1
                    for letter in set(after.items) - set(before.items):
                        noun = noun_of(after.items[letter])
                        if noun:
                            self.sorts[char][noun] += 1
            if opened and not is_move(verb):
                chain = actions[first:k + 1]
                if len(chain) == 2 and chain[1] in POINTS:
                    self.openers[verb] += 1

    def _learn_fit(self, verb, carried, refused, listed):
        """Which sorts of carried items a command takes, told by its refusal or by the letters that it lists."""
        if refused:
            self.refused[verb] += 1
        elif listed:
            self.asked[verb] += 1
        else:
            return
        for letter, text in carried.items():
            noun = noun_of(text)
            if not noun:
                continue
            if letter in listed:
                self.fit[noun].add(verb)
            elif "being worn" not in text:  # what is worn already says nothing of its sort
                self.unfit[noun].add(verb)

    def _learn_commands(self, goal, states, actions, won):
        """Which command asks for which sort of item, and how its later questions are answered."""
        for i, verb in enumerate(actions):
            if not verb or is_move(verb) or states[i].asks:
                continue
            after = states[i + 1]
            refusal = REFUSED.search(after.message)
            prompt = PROMPT.search(after.message) if after.asks else None
            for match in (prompt, refusal):
                if match:
                    for word in words_of(match.group(1)):
                        self.said[word][verb] += 1
            listed = letters_of(after.message) if after.asks else []
            self._learn_fit(verb, states[i].items, refusal is not None, listed)
            if not listed:
                continue
            items = after.items or states[i].items
            if len(listed) <= 3:
                for letter in listed:
                    noun = noun_of(items.get(letter, ""))
                    if noun:
                        self.verbs[noun][verb] += 1.0 / len(listed)
            if i + 1 >= len(actions):
                continue
            answer = actions[i + 1]
            letter = answer if answer in items else None
            if (letter is None and len(answer) > 1 and not is_move(answer) and answer != "esc"
                    and answer[0] in listed and not (states[i + 2].asks and letters_of(states[i + 2].message))
                    and "don't have that" not in states[i + 2].message):
                letter = answer[0]
                self.alias[letter][answer] += 1
            noun = noun_of(items.get(letter, "")) if letter else ""
            if not noun:
                continue
            tail, good, pos = [], True, i + 2
            while pos < len(actions) and states[pos].asks and pos < i + 8:
                reply = actions[pos]
                if states[pos + 1].message != states[pos].message:
                    if reply == "esc" or ("direction" in states[pos].message and reply not in POINTS):
                        good = False
                    tail.append(reply)
                pos += 1
            ended = won and pos == len(actions)
            if not ended and states[pos].asks:
                good = False
            if ended:
                self.verbs[noun][verb] += 5
                self.won_with[goal][noun] += 1
            if good or ended:
                self.tails[(verb, noun)][tuple(tail)] += 5 if ended else 1

        if won and actions:
            first = self._chain_start(len(actions) - 1, states)
            chain = tuple(actions[first:])
            if (chain and chain[0] and not is_move(chain[0]) and not letters_of(states[first + 1].message)
                    and not states[first].asks and "esc" not in chain
                    and not any(answer in states[0].items for answer in chain[1:])):
                self.wins[goal][chain] += 1

    def _learn_yes(self, states, actions, won):
        """Which answers to yes-or-no questions made something happen."""
        for i, answer in enumerate(actions):
            if not states[i].asks:
                continue
            match = YES_NO.search(states[i].message)
            if not match or len(answer) != 1 or answer not in match.group(1):
                continue
            after = states[i + 1]
            if won and i == len(actions) - 1:
                self.yes[answer] += 5
            elif (after.message and not after.asks and not REFUSED.search(after.message)
                  and after.message != states[i].message):
                self.yes[answer] += 1

    # ---- looking up -----------------------------------------------------------------------------------

    async def general_retrieve(self, trajectory: Trajectory):
        if not self.episodes:
            return {}
        init = trajectory.init or {}
        goal = str(init.get("goal") or "")
        commands = init.get("action_dict") or {}
        state = State(init)
        out = {}
        group = (goal, state.terrain)
        if self.walked[group] and self.walked[group] >= 0.2 * self.tried[group]:
            self._recall_walk(state, commands, out)
        plan = []
        if not self._is_walking(goal):
            plan = self._item_plan(goal, state, commands)
            if len(plan) < 2:
                plan = self._door_plan(goal, state, commands)
            if len(plan) < 2:
                plan = self._won_chain(goal, commands)
            if len(plan) >= 2:
                out[goal or "plan"] = plan
            else:
                plan = []
        if not plan and "reach the stairs down" not in out:
            self._recall_blocked(goal, state, commands, out)
        return out

    def _is_walking(self, goal):
        return any(known == goal and times > 0 for (known, _), times in self.walked.items())

    def _best_moves(self, seen, commands):
        """Confirmed moves by their mean progress over these offsets, best first."""
        total = sum(seen.values())
        if total < 4:
            return []
        rated = []
        for moved, action in self.single.items():
            if commands and action not in commands:
                continue
            gain = sum(times * (math.hypot(*offset) - math.hypot(*minus(offset, moved)))
                       for offset, times in seen.items()) / total
            if gain > 0.2:
                rated.append((gain, action))
        return [action for _, action in sorted(rated, reverse=True)]

    def _recall_walk(self, state, commands, out):
        if state.offset is not None:
            exact = self._walk_to(state.offset, commands)
            if len(exact) >= 2:
                out["reach the stairs down"] = exact
            elif not exact:
                near = self._near_walk(state.offset, commands)
                if near:
                    out["reach the stairs down"] = near
        bearings = {}
        for (_, bearing), counts in self.placed.items():
            if bearing not in POINTS:  # otherwise the bearing is itself the name of an action
                bearings.setdefault(bearing, Counter()).update(counts)
        for bearing, seen in bearings.items():
            moves = self._best_moves(seen, commands)
            if moves:
                out[bearing] = moves[0]

    def _near_walk(self, offset, commands):
        """The known walk that ends nearest to this displacement, or an empty list."""
        far = reach(offset)
        best = None
        for total, path in self.walks.items():
            gap = reach(minus(total, offset))
            if gap > far // 2 or len(path) > 1.5 * far + 2 or len(path) < 2:
                continue
            if commands and any(action not in commands for action in path):
                continue
            wide = gap > (far // 4 if far >= 4 else 1)  # only if nothing else is found
            if best is None or (wide, gap, len(path)) < best[:3]:
                best = (wide, gap, len(path), path)
        return list(best[3]) if best else []

    def _walk_to(self, offset, commands):
        """The walk that is known to cause exactly this displacement, or an empty list."""
        path = self.walks.get(offset)
        if not path or len(path) > 1.5 * reach(offset) + 2:
            return []
        if commands and any(action not in commands for action in path):
            return []
        return list(path)

    def _onward(self, start, goal, state, commands):
        """The walk from this offset to the stairs down, where the goal names them and they are in view."""
        if state.offset is None or "stairs" not in goal.lower():
            return []
        return self._walk_to(minus(state.offset, start), commands)

    def _verb(self, noun, goal, commands):
        """The command for things of this sort, or None: named by the goal, said with its words, or asking for them."""
        squeezed = re.sub(r"[^a-z]", "", goal.lower())
        names = words_of(goal)
        top = Counter()  # command -> words of the goal that it is most often said with
        for word in names:
            counts = self.said.get(word)
            if counts:
                top[counts.most_common(1)[0][0]] += 1
        weights = dict(self.verbs.get(noun, {}))
        if noun in names:
            for verb in top:
                weights.setdefault(verb, 0.0)
        rated = []
        for verb, weight in weights.items():
            if commands and verb not in commands:
                continue
            plain = re.sub(r"[^a-z]", "", verb.lower())
            rated.append((len(plain) > 2 and plain in squeezed, top[verb], weight, verb))
        return max(rated)[3] if rated else None

    def _share(self, verb):
        """How often a command that needs an item was refused since none was carried that fits."""
        times = self.refused[verb]
        return times / (times + self.asked[verb]) if times else 0.0

    def _guesses(self, noun, goal, commands):
        """Commands for a sort of item that none is known for: those that were refused for want of an item."""
        names = words_of(goal)
        fit, unfit = self.fit.get(noun, set()), self.unfit.get(noun, set())
        rated = []
        for verb, times in self.refused.items():
            if (commands and verb not in commands) or is_move(verb) or verb in self.takes:
                continue
            if (verb in unfit and verb not in fit) or self._share(verb) < 0.2:
                continue
            said = sum(verb in self.said.get(word, {}) for word in names)
            rated.append((verb in fit, said, self._share(verb), times, verb))
        most = 3 if 0 < len(commands) <= FEW else 2
        return [entry[-1] for entry in sorted(rated, reverse=True)[:most]]

    def _key(self, letter, commands):
        """How a letter is answered in this task."""
        if letter in commands:
            return letter
        for name, _ in self.alias.get(letter, Counter()).most_common():
            if name in commands:
                return name
        if self.alias and 0 < len(commands) <= FEW:  # other letters were answered by commands that begin with them
            for name in commands:
                if (len(name) > 1 and " " not in name and name.startswith(letter) and not is_move(name)
                        and self._share(name) < 0.2):
                    return name
        return letter

    def _use(self, noun, letter, goal, commands, guess=True):
        """Command, letter and later answers for an item of this sort, or an empty list."""
        verb = self._verb(noun, goal, commands) if noun else None
        if not verb:
            if not letter or not guess:
                return []
            plan = []
            for guessed in self._guesses(noun, goal, commands):
                plan += [guessed, self._key(letter, commands)]
            return plan
        if not letter:
            return [verb]
        plan = [verb, self._key(letter, commands)]
        tails = self.tails.get((verb, noun))
        if tails:
            by_length = Counter()
            for tail, weight in tails.items():
                by_length[len(tail)] += weight
            length = by_length.most_common(1)[0][0]
            tail = max((weight, tail) for tail, weight in tails.items() if len(tail) == length)[1]
            for reply in tail:
                if len(reply) > 1 and commands and reply not in commands:
                    break
                plan.append(reply)
        return plan

    def _noun_at(self, char, around):
        """The sort of thing that a character of the map stands for, with the words of the observation as a help."""
        counts = self.sorts.get(char, Counter())
        for noun, _ in counts.most_common():
            if noun in around:
                return noun
        for noun in self.verbs:
            if noun in around and self.verbs[noun]:
                return noun
        return counts.most_common(1)[0][0] if counts else ""

    def _named_thing(self, wanted, state):
        """(offset, character, noun) of the nearest thing that is named and wanted, or None."""
        by_stem = {stem(word): word for word in wanted}
        found = []
        for noun, distance, bearing in state.named():
            word = by_stem.get(stem(noun))
            if not word:
                continue
            cells = state.things()
            signs = self.signs.get(stem(noun))
            if signs:
                usual = signs.most_common(1)[0][0]
                cells = [(offset, char) for offset, char in cells if char == usual]
            known = self.placed.get((distance, bearing), {})
            fitting = [(offset, char) for offset, char in cells if offset in known]
            for offset, char in fitting or cells:
                found.append((reach(offset), offset, char, word))
        return min(found)[1:] if found else None

    @staticmethod
    def _next_letter(state):
        """The letter that the next item gets, or None."""
        lower = [letter for letter in state.items if letter.islower()]
        return chr(ord(max(lower)) + 1) if lower and max(lower) < "z" else None

    def _fetch(self, offset, noun, take, goal, state, commands):
        """Walk to an item, take it, use it, go on; go nowhere beyond it where its use is not known."""
        walk = self._walk_to(offset, commands)
        use = self._use(noun, self._next_letter(state), goal, commands)
        plan = walk + ([take] if take else []) + use
        if not use:
            return plan if walk and len(plan) >= 2 else []
        if not walk:
            return plan
        return plan + self._onward(offset, goal, state, commands)

    def _visit(self, offset, noun, goal, commands):
        """Walk to a place and use it there."""
        walk = self._walk_to(offset, commands)
        verb = self._verb(noun, goal, commands)
        if not walk or not verb:
            return []
        return walk + [verb] + [answer for answer, _ in self.yes.most_common(1)]

    def _item_plan(self, goal, state, commands):
        """Walk to the thing that is wanted or the nearest one, take it, use it, go on; or use what is carried."""
        wanted = set(words_of(goal)) | set(self.won_with.get(goal, {}))
        around = set(words_of(state.around))
        take = next((verb for verb, _ in self.takes.most_common() if not commands or verb in commands), None)
        plan = []
        named = self._named_thing(wanted, state)
        if named:
            offset, char, noun = named
            if char in ITEMS or char in self.targets:
                plan = self._fetch(offset, noun, take, goal, state, commands)
            else:
                plan = self._visit(offset, noun, goal, commands)
        else:
            chars = set(self.targets)
            if self.targets or self.takes:
                chars |= ITEMS
            cells = []
            for offset, char in state.find(chars):
                noun = self._noun_at(char, around)
                cells.append((noun not in wanted, char not in self.targets, reach(offset), offset, noun))
            if cells:
                _, _, _, offset, noun = min(cells)
                plan = self._fetch(offset, noun, take, goal, state, commands)
        if len(plan) >= 2:
            return plan

        rare, fitting = [], []
        for letter, text in state.items.items():
            noun = noun_of(text)
            if 4 * self.owned[name_of(text)] < self.episodes:
                rare.append((letter, noun))
            if noun in wanted:
                fitting.append((letter, noun))
        if len(rare) > 2:
            rare = []  # another role, nothing special
        for guess in (False, True):  # what is known goes before what is guessed
            for letter, noun in fitting[::-1] + rare[::-1]:
                use = self._use(noun, letter, goal, commands, guess)
                if use:
                    return use + self._onward((0, 0), goal, state, commands)
        return self._unseen_plan(goal, take, state, commands)

    def _unseen_plan(self, goal, take, state, commands):
        """Take and use a thing that the goal names, that was found on the floor before and is not in view."""
        letter = self._next_letter(state)
        if not take or not letter:
            return []
        carried = {stem(noun_of(text)) for text in state.items.values()}
        gained = {noun for counts in self.sorts.values() for noun in counts}
        for noun in words_of(goal):
            if noun not in gained or stem(noun) in carried:
                continue
            verb = self._verb(noun, goal, commands)
            if verb:
                return [take, verb, self._key(letter, commands)]
        return []

    def _door_plan(self, goal, state, commands):
        """Walk to the one door in view and open it by what opened doors before."""
        verb = next((verb for verb, _ in self.openers.most_common() if not commands or verb in commands), None)
        cells = state.find({"+"})
        if not verb or len(cells) != 1:
            return []
        offset = cells[0][0]
        walk = self._walk_to(offset, commands)
        if not walk:
            return []
        last = walk[-1]
        if not any(action == last and 0 in moved for moved, action in self.single.items()):
            return []
        return walk[:-1] + [verb, last] * 3 + [last] + self._onward(offset, goal, state, commands)

    def _won_chain(self, goal, commands):
        """A chain of commands without an item that won this goal."""
        for chain, _ in self.wins.get(goal, Counter()).most_common():
            if len(chain) >= 2 and all(len(action) == 1 or not commands or action in commands for action in chain):
                return list(chain)
        return []

    def _recall_blocked(self, goal, state, commands, out):
        """The slanting moves, where they nearly always failed in places that began like this one."""
        if "stairs" not in goal.lower():
            return
        table = self.blocked.get((state.terrain, state.narrow()))
        if not table:
            return
        slanting = ["northeast", "southeast", "southwest", "northwest"]
        shares = []
        for action in slanting:
            times, failed = table.get(action, (0, 0))
            if times < 15 or (commands and action not in commands):
                return
            shares.append(failed / times)
        others = [table[action][1] / table[action][0] for action in ("north", "east", "south", "west")
                  if action in table and table[action][0]]
        if not others or min(shares) < 0.8:
            return
        if sum(shares) / len(shares) - sum(others) / len(others) < 0.15:
            return
        out["wall"] = ["never %s" % action for action in slanting]
