"""Memory design 80ba52789412, learned by ALMA on minihack, candidate 4.2 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (94e138dc8bcf, 23.5 %) > 2.1 (1098f740445f, 39.7 %) > 3.1 (b639cac954a6, 44.1 %) > 4.2 (80ba52789412, 48.5 %)
learning set, static: 48.5 % ± 4.4 (standard error), +30.9 [+17.6, +45.6] points to no memory [95 %]; 31 of 31 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign

HEADERS = {"message:", "language observation:", "cursor:", "map:", "inventory:"}
SHIFTS = {"north": (0, -1), "east": (1, 0), "south": (0, 1), "west": (-1, 0),
          "northeast": (1, -1), "southeast": (1, 1), "southwest": (-1, 1), "northwest": (-1, -1)}
DIRECTIONS = set(SHIFTS)
STRAIGHT = ("north", "east", "south", "west")
DIAGONAL = ("northeast", "southeast", "southwest", "northwest")
SMALL = {"the", "a", "an", "to", "of", "and", "it", "is", "you", "your", "on", "in", "off", "with", "that", "from",
         "get", "every", "what", "do", "this", "here", "there", "down"}
# Last words of what is no item: these are not looked up in the descriptions of the actions.
FIXED = {"up", "down", "door", "wall", "corner", "area", "stair", "floor", "corridor", "trap", "boulder", "doorway",
         "lava", "water", "pit", "hole"}
STAIRS = (("stairs up", "<"), ("stairs down", ">"))
LINE = re.compile(r"^(.*?) (adjacent|very near|near|very far|far) (.+)$")
FAILED = re.compile(r"never mind|don't have|can't|cannot|nothing|silly|strange|unknown|too much|not allowed", re.I)
REFUSED = re.compile(r"locked|no door|nothing|can.t|cannot|never mind|already closed", re.I)
LACKING = re.compile(r"don't have anything (?:else )?to", re.I)
OPTIONS = re.compile(r"\?\s*\[([a-z]{2,4})\]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 24  # moves of a recorded walk, before its loops are cut


def sections(step):
    """The parts of an observation by their header, each as one text; the map keeps its blank lines."""
    parts, current = defaultdict(list), ""
    text = str(step.get("long_term_context") or "") + "\n" + str(step.get("short_term_context") or "")
    for line in text.split("\n"):
        if line.strip() in HEADERS:
            current = line.strip()[:-1]
        elif line.strip() or current == "map":
            parts[current].append(line)
    return {name: "\n".join(lines).rstrip() for name, lines in parts.items()}


def rows_of(parts):
    return parts.get("map", "").split("\n")


def places(rows, sign):
    """(x, y) of each place of a sign in the map."""
    return [(x, y) for y, row in enumerate(rows) for x, one in enumerate(row) if one == sign]


def only_place(rows, sign):
    found = places(rows, sign)
    return found[0] if len(found) == 1 else None


def shape_of(rows):
    return len(rows), max((len(row) for row in rows), default=0)


def cell(rows, x, y):
    return rows[y][x] if 0 <= y < len(rows) and 0 <= x < len(rows[y]) else " "


def openness(rows, me):
    """How many of the eight cells around a place are neither unknown nor wall."""
    return sum(cell(rows, me[0] + dx, me[1] + dy) not in " |-" for dx, dy in SHIFTS.values())


def ground_of(rows, me):
    """'corridor' where at most two cells around lead on, otherwise 'open'."""
    return "corridor" if me is not None and openness(rows, me) <= 2 else "open"


def exits_of(rows, me):
    """The straight directions in which a place is open."""
    return tuple(one for one in STRAIGHT
                 if cell(rows, me[0] + SHIFTS[one][0], me[1] + SHIFTS[one][1]) not in " |-")


def singular(word):
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def noun(name):
    """The class of an item: 'a blessed clear potion (unpaid)' is a potion, 'a wand of cold' a wand."""
    text = re.sub(r"\(.*?\)", " ", str(name).lower())
    text = re.split(r"\b(?:named|labeled|labelled|called)\b", text)[0].replace("pair of ", " ")
    words = re.findall(r"[a-z]+", re.split(r"\bof\b", text)[0])
    return singular(words[-1]) if words else ""


def bare(name):
    """An item's name without brackets, numbers, articles and curses: '15 +0 daggers (...)' is 'dagger'."""
    text = re.sub(r"\(.*?\)", " ", str(name).lower())
    skipped = {"a", "an", "the", "blessed", "uncursed", "cursed"}
    return " ".join(singular(word) for word in re.findall(r"[a-z]+", text) if word not in skipped)


def words_of(text):
    return {singular(word) for word in re.findall(r"[a-z]+", str(text).lower())} - SMALL


def inventory_of(parts):
    found = {}
    for line in parts.get("inventory", "").split("\n"):
        match = re.match(r"^\s*([a-zA-Z]): (.+)$", line)
        if match:
            found[match.group(1)] = match.group(2)
    return found


def things_of(parts):
    """(name, distance, [directions]) for each line of the language observation."""
    things = []
    for line in parts.get("language observation", "").split("\n"):
        match = LINE.match(line.strip())
        if match:
            where = [one for one in re.split(r",\s*(?:and\s+)?|\s+and\s+", match.group(3).strip()) if one]
            things.append((match.group(1), match.group(2), where))
    return things


def is_move(action):
    words = str(action).split()
    return bool(words) and words[-1] in DIRECTIONS and (len(words) == 1 or words[0] == "far")


def is_question(message):
    """Whether a message ends as a question, with its possible answers and the default: 'Eat it? [ynq] (n)'."""
    return bool(re.search(r"\?\s*(\[[^\]]*\])?(\s*\([a-zA-Z]\))?\s*$", message or ""))


def options_of(message):
    """(letters, question) of a question with a few fixed answers: 'Drink from the sink? [yn]'."""
    text = " ".join(str(message or "").split())
    match = OPTIONS.search(text)
    if not match or not is_question(text) or "what do you want" in text.lower():
        return "", ""
    return match.group(1), re.split(r"(?<=[.!])\s+", text[:match.end()])[-1]


def offered_letters(message):
    """The letters in 'What do you want to read? [a-cf or ?*]'."""
    match = re.search(r"What do you want to [^\[]*\[([^\]]*)\]", message or "")
    if not match:
        return []
    text = match.group(1).split(" or ")[0]
    letters = []
    for first, last in re.findall(r"([a-zA-Z])(?:-([a-zA-Z]))?", text):
        letters += [chr(code) for code in range(ord(first), ord(last or first) + 1)]
    return letters


def answer_letter(action, actions):
    """The item that an answer names: 'f', or a command that stands for that key."""
    if len(action) == 1:
        return action
    match = re.search(r"the item ([a-zA-Z])\b", str(actions.get(action, "")))
    return match.group(1) if match else ""


def goal_of(init):
    return " ".join(str(init.get("goal") or "").split())


def distance_of(one, other):
    return ((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5


class LoopFree:
    """A walk of single moves that forgets what lies between two visits of one place."""

    def __init__(self):
        self.places, self.moves, self.index = [(0, 0)], [], {(0, 0): 0}

    def add(self, move, dx, dy):
        here = (self.places[-1][0] + dx, self.places[-1][1] + dy)
        if here in self.index:
            keep = self.index[here]
            for place in self.places[keep + 1:]:
                del self.index[place]
            self.places, self.moves = self.places[:keep + 1], self.moves[:keep]
        else:
            self.index[here] = len(self.places)
            self.places.append(here)
            self.moves.append(move)
        return here


class ItemUseMemory(MemoryDesign):
    def __init__(self):
        self.episodes = 0
        self.goal_count = Counter()  # episodes by goal
        self.kits = defaultdict(set)  # bare name of an item -> goals in whose first inventory it was
        self.offers = defaultdict(Counter)  # command -> item classes that its question offered
        self.answers = defaultdict(Counter)  # (class, command) -> answers, "$" for the item's letter
        self.direct = defaultdict(Counter)  # (class, command) -> goals that this use won at once
        self.later = defaultdict(Counter)  # (class, command) -> goals that were won after this use
        self.outcome = defaultdict(Counter)  # (class, command) -> words of the message that followed
        self.letter_actions = defaultdict(Counter)  # letter -> the action that answered with it
        self.picked = Counter()  # item class -> how often it was picked up
        self.picked_signs = Counter()  # sign on the map of what was picked up
        self.next_letter = Counter()  # was a picked up item's letter the first free one?
        self.item_wins = Counter()  # "carried" or "floor": how the item lay whose use won at once
        self.item_commands = Counter()  # command -> how often it asked for an item or missed one
        self.directions = Counter()  # direction -> how often it answered a question for one
        self.option_answers = defaultdict(Counter)  # "yn" -> answers that led on
        self.option_texts = {}  # "rl" -> a question that offered these letters
        self.asks = defaultdict(Counter)  # command -> answers that it wanted after the item, "$dir" for a direction
        self.directed = Counter()  # command -> how often it was done with a direction and no item
        self.at_door = defaultdict(Counter)  # command -> "changed", "refused", "noise" or "silent" at a closed door
        self.walks = {}  # (dx, dy) -> shortest recorded moves with this displacement
        self.corridor_walks = {}  # open directions of the start -> (won, length, moves) of the longest walk
        self.compass = defaultdict(dict)  # direction in between -> move -> [sum of gains, tries]
        self.move_tries = Counter()  # (ground, "diagonal" or "straight", "moved" or "failed")
        self.move_episodes = defaultdict(set)  # (ground, "diagonal" or "straight") -> numbers of episodes
        self.offsets = defaultdict(Counter)  # (distance, direction) -> (dx, dy) on the map
        self.wins = defaultdict(list)  # goal -> {"map", "walk", "shift", "tail"} of each won episode
        self.deaths = defaultdict(Counter)  # goal -> last action of lost episodes

    # ---- learning

    async def general_update(self, trajectory):
        init, steps = trajectory.init or {}, trajectory.steps or []
        goal, actions = goal_of(init), init.get("action_dict") or {}
        won = trajectory.reward >= 0.99
        states = [sections(init)] + [sections(step) for step in steps]
        took = [""] + [str(step.get("action_took") or "") for step in steps]
        messages = [state.get("message", "") for state in states]
        self.episodes += 1
        self.goal_count[goal] += 1
        for name in inventory_of(states[0]).values():
            self.kits[bare(name)].add(goal)

        chains = self._learn_uses(goal, actions, states, took, messages, won)
        self._learn_item_commands(took, messages)
        self._learn_options(took, messages, won)
        self._learn_pickups(states, took, messages)
        self._learn_offsets(states)
        self._learn_compass(states, took, messages)
        self._learn_moves(states, took, messages)
        walk, shift, first_run = self._learn_walks(states, took, messages)
        self._learn_corridor(states[0], first_run, goal, won)

        if won:
            tail = chains[-1][2] if chains and chains[-1][1] == len(states) - 1 else []
            self.wins[goal].append({"map": states[0].get("map", ""), "walk": walk[:20], "shift": shift,
                                    "tail": tail})
        elif steps and steps[-1].get("dones") and len(steps) < 100:
            self.deaths[goal][took[-1]] += 1
        print(f"episode {self.episodes}: won {won}, uses {len(self.answers)}, walks {len(self.walks)}, "
              f"offsets {len(self.offsets)}, pickups {sum(self.picked.values())}, own walk {len(walk)}, "
              f"letters {self.next_letter[True]}/{self.next_letter[False]}, item wins {dict(self.item_wins)}, "
              f"options {len(self.option_answers)}, asks {len(self.asks)}, signs {''.join(self.picked_signs)}, "
              f"compass {len(self.compass)}, item commands {len(self.item_commands)}, "
              f"corridors {({one: what[1] for one, what in self.corridor_walks.items()})}")

    def _learn_uses(self, goal, actions, states, took, messages, won):
        """Commands with their answers, as (start, end, [command, answers...]); counts what they did."""
        chains, i, last = [], 1, len(states) - 1
        for step in range(1, last + 1):
            if took[step] in DIRECTIONS and is_question(messages[step - 1]) \
                    and "direction" in messages[step - 1].lower() and not FAILED.search(messages[step]):
                self.directions[took[step]] += 1
        while i <= last:
            if is_move(took[i]) or is_question(messages[i - 1]) or not is_question(messages[i]):
                if not is_move(took[i]) and not is_question(messages[i - 1]):
                    chains.append((i, i, [took[i]]))
                i += 1
                continue
            end = i
            while end < last and end - i < 4 and is_question(messages[end]):
                end += 1
            verb, answers = took[i], took[i + 1:end + 1]
            held = inventory_of(states[i]) or inventory_of(states[i - 1])
            letters = offered_letters(messages[i])
            for kind in {noun(held[letter]) for letter in letters if letter in held}:
                self.offers[verb][kind] += 1
            complete = bool(answers) and "esc" not in answers and not is_question(messages[end])
            if complete:
                if letters and answer_letter(answers[0], actions) in held:
                    self._learn_asks(verb, answers, messages[i:end])
                self._learn_directed(verb, answers, states, messages, i, end)
            if complete and not FAILED.search(messages[end]):
                kind, pattern = "", list(answers)
                letter = answer_letter(answers[0], actions)
                on_floor = re.search(r"[Tt]here (?:is|are) (.+?) here", messages[i])
                if letters and letter in held:
                    kind, pattern[0] = noun(held[letter]), "$"
                    self.letter_actions[letter][answers[0]] += 1
                elif on_floor and answers[0] == "y":
                    kind = noun(on_floor.group(1))
                at_once = won and end == last
                if at_once and (kind or answers[0] == "y"):
                    self.item_wins["carried" if pattern[0] == "$" else "floor"] += 1
                if kind:
                    use = (kind, verb)
                    self.answers[use][tuple(pattern)] += 20 if at_once else 1
                    self.outcome[use].update(words_of(messages[end]))
                    if at_once:
                        self.direct[use][goal] += 1
                    elif won:
                        self.later[use][goal] += 1
            chains.append((i, end, [verb] + answers))
            i = end + 1
        return chains

    def _learn_item_commands(self, took, messages):
        """Which commands ask for an item, or say that there is none for them."""
        for i in range(1, len(took)):
            if not took[i] or is_move(took[i]) or is_question(messages[i - 1]):
                continue
            if offered_letters(messages[i]) or LACKING.search(messages[i]):
                self.item_commands[took[i]] += 1

    def _learn_asks(self, verb, answers, questions):
        """What a command wants to know after the item; `questions[j]` is what `answers[j]` answered."""
        wanted = []
        for answer, question in list(zip(answers, questions))[1:]:
            if "direction" in question.lower():
                wanted.append("$dir")
            elif len(answer) == 1 and answer in options_of(question)[0]:
                wanted.append(answer)
            else:
                return  # a second item or something else that cannot be said beforehand
        self.asks[verb][tuple(wanted)] += 1

    def _learn_directed(self, verb, answers, states, messages, start, end):
        """Commands with a direction, and what they did to a closed door."""
        direction = answers[-1]
        if direction not in DIRECTIONS or "direction" not in messages[end - 1].lower():
            return
        if len(answers) == 1 and not FAILED.search(messages[end]):
            self.directed[verb] += 1
        before, after = rows_of(states[start - 1]), rows_of(states[end])
        me = only_place(before, "@")
        if me is None:
            return
        x, y = me[0] + SHIFTS[direction][0], me[1] + SHIFTS[direction][1]
        if cell(before, x, y) != "+":
            return
        if shape_of(before) == shape_of(after):
            changed = cell(after, x, y) != "+"
        else:
            changed = len(places(after, "+")) < len(places(before, "+"))
        if changed:
            result = "changed"
        elif REFUSED.search(messages[end]):
            result = "refused"
        else:
            result = "noise" if messages[end].strip() else "silent"
        self.at_door[verb][result] += 1
        print(f"at a door: {verb} {result}; all {({one: dict(what) for one, what in self.at_door.items()})}")

    def _learn_options(self, took, messages, won):
        """Which of a few offered letters led on."""
        last = len(messages) - 1
        for i in range(1, len(messages)):
            bracket, question = options_of(messages[i - 1])
            if not bracket or len(took[i]) != 1 or took[i] not in bracket:
                continue
            if won and i == last:
                self.option_answers[bracket][took[i]] += 20
            elif is_question(messages[i]) or (messages[i].strip() and not FAILED.search(messages[i])):
                self.option_answers[bracket][took[i]] += 1
            else:
                continue
            self.option_texts[bracket] = question

    def _learn_pickups(self, states, took, messages):
        for i in range(1, len(states)):
            if "pickup" not in (took[i], took[i - 1]) or "Moving:" in messages[i]:
                continue
            before, after = inventory_of(states[i - 1]), inventory_of(states[i])
            if not before and not after:
                continue
            for letter in set(after) - set(before):
                if not re.search(r"(?:^|\s)" + letter + r" - ", messages[i]):
                    continue
                self.picked[noun(after[letter])] += 1
                free = [one for one in LETTERS if one not in before]
                self.next_letter[bool(free) and free[0] == letter] += 1
                self._learn_sign(states, i)

    def _learn_sign(self, states, i):
        """How the place on which something was picked up looked before somebody stood on it."""
        rows = rows_of(states[i])
        me, shape = only_place(rows, "@"), shape_of(rows)
        if me is None:
            return
        for j in range(i - 1, max(-1, i - 11), -1):
            earlier = rows_of(states[j])
            if shape_of(earlier) != shape:
                return
            sign = cell(earlier, me[0], me[1])
            if sign not in "@. <" and not sign.isalpha():
                self.picked_signs[sign] += 1
                return

    def _learn_offsets(self, states):
        """Where on the map a thing is that the language observation puts at a distance and direction."""
        for state in states:
            rows = rows_of(state)
            me = only_place(rows, "@")
            if me is None:
                continue
            for text, sign in STAIRS:
                lines = [thing for thing in things_of(state) if thing[0].strip().lower() == text]
                there = only_place(rows, sign)
                if there is not None and len(lines) == 1 and len(lines[0][2]) == 1:
                    self.offsets[(lines[0][1], lines[0][2][0])][(there[0] - me[0], there[1] - me[1])] += 1

    def _learn_compass(self, states, took, messages):
        """How much nearer a move came to a thing that lay in a direction between the eight."""
        for i in range(1, len(states)):
            if took[i] not in DIRECTIONS or is_question(messages[i - 1]):
                continue
            before, after = rows_of(states[i - 1]), rows_of(states[i])
            place, here = only_place(before, "@"), only_place(after, "@")
            if place is None or here is None:
                continue
            things = things_of(states[i - 1])
            for text, sign in STAIRS:
                lines = [thing for thing in things if thing[0].strip().lower() == text]
                if len(lines) != 1 or len(lines[0][2]) != 1 or lines[0][2][0] in DIRECTIONS:
                    continue
                old, new = only_place(before, sign), only_place(after, sign)
                if old is None or new is None:
                    continue
                known = self.compass[lines[0][2][0]].setdefault(took[i], [0.0, 0])
                known[0] += distance_of(place, old) - distance_of(here, new)
                known[1] += 1

    def _learn_moves(self, states, took, messages):
        """How often straight and diagonal moves lead anywhere, in corridors and in the open."""
        for i in range(1, len(states)):
            if took[i] not in DIRECTIONS or is_question(messages[i - 1]):
                continue
            before, after = rows_of(states[i - 1]), rows_of(states[i])
            place, here = only_place(before, "@"), only_place(after, "@")
            if place is None or here is None:
                continue
            key = (ground_of(before, place), "straight" if took[i] in STRAIGHT else "diagonal")
            if place != here or shape_of(before) != shape_of(after):
                self.move_tries[key + ("moved",)] += 1
            elif not messages[i].strip() or "solid stone" in messages[i]:
                self.move_tries[key + ("failed",)] += 1
            else:
                continue
            self.move_episodes[key].add(self.episodes)

    @staticmethod
    def _anchored_shift(move, old_rows, place, new_rows, here):
        """How far somebody moved while the map grew, measured from the stairs; None if that is not known."""
        for sign in "<>":
            old, new = only_place(old_rows, sign), only_place(new_rows, sign)
            if old is not None and new is not None:
                shift = (here[0] - new[0] - place[0] + old[0], here[1] - new[1] - place[1] + old[1])
                return shift if shift in ((0, 0), SHIFTS[move]) else None
        # The first step off the stairs, which were hidden below.
        new = only_place(new_rows, "<")
        dx, dy = SHIFTS[move]
        if not places(old_rows, "<") and new == (here[0] - dx, here[1] - dy):
            return dx, dy
        return None

    def _learn_walks(self, states, took, messages):
        """Record the moves between any two places of the episode.

        Returns its loop-free moves and its displacement, if they are known, and the steps of its first run.
        """
        runs, run, broken, gap = [], [], False, False
        rows = rows_of(states[0])
        place, shape = only_place(rows, "@"), shape_of(rows)
        for i in range(1, len(states)):
            old_rows, rows = rows, rows_of(states[i])
            here, now = only_place(rows, "@"), shape_of(rows)
            if here is None:
                gap = True
                continue
            single = place is not None and not gap and took[i] in DIRECTIONS and not is_question(messages[i - 1])
            shift = None
            if single and now != shape:
                shift = self._anchored_shift(took[i], old_rows, place, rows, here)
            if shift is not None:
                if shift != (0, 0):
                    run.append((took[i], shift[0], shift[1]))
            elif place is not None and here == place and (now == shape or not is_move(took[i])):
                pass  # nobody moved
            elif single and now == shape \
                    and abs(here[0] - place[0]) <= 1 and abs(here[1] - place[1]) <= 1:
                run.append((took[i], here[0] - place[0], here[1] - place[1]))
            else:
                runs.append(run)
                run, broken = [], True
            place, shape, gap = here, now, False
        runs.append(run)
        for run in runs:
            for start in range(len(run)):
                walk = LoopFree()
                for move, dx, dy in run[start:start + LONGEST]:
                    end = walk.add(move, dx, dy)
                    known = self.walks.get(end)
                    if end != (0, 0) and (known is None or len(walk.moves) < len(known)):
                        self.walks[end] = tuple(walk.moves)
        if broken:
            return [], None, runs[0]
        whole = LoopFree()
        for move, dx, dy in runs[0]:
            whole.add(move, dx, dy)
        return list(whole.moves), whole.places[-1], runs[0]

    def _learn_corridor(self, first_state, run, goal, won):
        """The longest straight walk from a start in a corridor, by the directions in which it is open."""
        rows = rows_of(first_state)
        me = only_place(rows, "@")
        if me is None or "stairs" not in goal.lower() or ground_of(rows, me) != "corridor":
            return
        walk, best = LoopFree(), []
        for move, dx, dy in run:
            if move not in STRAIGHT:
                break
            walk.add(move, dx, dy)
            if len(walk.moves) > len(best):
                best = list(walk.moves)
        if not best:
            return
        exits = exits_of(rows, me)
        new = (bool(won), len(best), best)
        known = self.corridor_walks.get(exits)
        if known is None or new[:2] > known[:2]:
            self.corridor_walks[exits] = new

    # ---- looking up

    def _walk(self, dx, dy, actions):
        """The recorded walk with this displacement, or the one that comes nearest to it."""
        found = self.walks.get((dx, dy))
        if found is None:
            size, best = max(abs(dx), abs(dy)), None
            for (x, y), moves in self.walks.items():
                rest = max(abs(dx - x), abs(dy - y))
                if rest * 2 <= size and (best is None or (rest, len(moves)) < best[0]):
                    best = ((rest, len(moves)), moves)
            found = best[1] if best else ()
        return [move for move in found if not actions or move in actions]

    def _place_of(self, rows, me, distance, direction):
        """Where on the map the thing of a line of the language observation lies, or None."""
        if me is None:
            return None
        for (dx, dy), _ in self.offsets.get((distance, direction), Counter()).most_common():
            if cell(rows, me[0] + dx, me[1] + dy) not in " .|-@<>":
                return me[0] + dx, me[1] + dy
        return None

    def _is_kit(self, name):
        """Whether an item is what characters carry in several tasks."""
        goals = len(self.kits.get(bare(name), ()))
        if goals < 2:
            return False
        kind = noun(name)
        return goals >= 3 or not any(use[0] == kind for use in self.direct)

    def _says_yes(self):
        """Whether `y` is the answer that led on most often where there was yes and no."""
        total = Counter()
        for bracket, answers in self.option_answers.items():
            if bracket.startswith("yn"):
                total.update(answers)
        return total["y"] > 0 and total["y"] >= max(total.values())

    def _letter_action(self, letter):
        """The action that answered with this letter in other episodes, or the letter."""
        known = self.letter_actions.get(letter)
        return known.most_common(1)[0][0] if known else letter

    def _follow_up(self, verb, to_stairs):
        """What the command was answered after the item in other episodes."""
        counts = self.asks.get(verb)
        if not counts:
            return []
        filled = Counter({answers: count for answers, count in counts.items() if answers})
        if not filled or sum(filled.values()) * 3 < sum(counts.values()):
            return []
        plan = []
        for answer in filled.most_common(1)[0][0]:
            if answer == "$dir":
                if to_stairs or not self.directions:
                    return [] if to_stairs else plan
                answer = self.directions.most_common(1)[0][0]
            plan.append(answer)
        return plan

    def _aim(self, verb, things, goal_words, actions):
        """The direction of the thing that the goal names, for a command that asked for a direction after the item."""
        filled = Counter({answers: count for answers, count in self.asks.get(verb, {}).items() if answers})
        if not filled or filled.most_common(1)[0][0][0] != "$dir":
            return ""
        for name, _, where in things:
            kind = noun(name)
            if kind in goal_words and kind not in FIXED and len(where) == 1 \
                    and where[0] in DIRECTIONS and where[0] in actions:
                return where[0]
        return ""

    def _question_notes(self, kind, verb, named, to_stairs):
        """Pairs of a question and its learned answer, for a class of item that was never used so."""
        for bracket, answers in self.option_answers.items():
            text = self.option_texts.get(bracket, "")
            if not bracket.startswith("yn") and answers and kind in words_of(text):
                return [(text, answers.most_common(1)[0][0])]
        if to_stairs:
            return []
        asks = self.asks.get(verb) or Counter()
        seen = {answer for answers in asks for answer in answers}
        notes = []
        if self._says_yes() and (not asks or "y" in seen):
            brackets = sorted(one for one in self.option_answers if one.startswith("yn"))
            notes.append((" ".join(f"[{one}]" for one in brackets), "y"))
        if self.directions and not named and (not asks or "$dir" in seen):
            notes.append(("In what direction?", self.directions.most_common(1)[0][0]))
        return notes

    def _use(self, kind, goal, allowed, actions, named, sign=""):
        """(score, command, answers) of the best use of a class of item, or None."""
        best = None
        for verb in allowed:
            use = (kind, verb)
            offered = self.offers.get(verb, {})
            if kind not in offered and use not in self.answers:
                continue
            direct = self.direct[use][goal] if use in self.direct else 0
            others = sum(self.direct[use].values()) if use in self.direct else 0
            later = self.later[use][goal] if use in self.later else 0
            specific = 1 / max(1, len(offered))
            if specific < 0.12 and not others and not later:
                continue
            shared = len(words_of(goal) & set(self.outcome[use])) if use in self.outcome else 0
            score = specific + 3 * min(direct, 2) + min(others, 2) + 0.5 * min(later, 2) + 0.5 * shared
            known = self.answers.get(use)
            score += 0.1 if known else 0
            answers = max(known, key=known.get) if known else ("$",)
            if best is None or score > best[0]:
                best = (score, verb, answers)
        if best is None or best[0] < 0.5:
            return self._described_use(kind, goal, allowed, actions, named, sign) or best
        return best

    def _described_use(self, kind, goal, allowed, actions, named, sign=""):
        """The routine that won elsewhere, with the command whose description names this class of item."""
        goal_words = words_of(goal)
        wanted = bool(named) and kind in goal_words
        if kind in FIXED and not wanted:
            return None
        texts = {verb: f"{verb} {actions.get(verb, '')}".lower() for verb in allowed}
        fitting = [verb for verb in allowed
                   if kind in {singular(word) for word in re.findall(r"[a-z]+", texts[verb])}]
        if wanted and not fitting and sign and self.picked_signs and sign not in self.picked_signs \
                and self._says_yes():
            return 0.05, allowed[0], ("y",)  # nothing that looks so was ever picked up
        if not sum(self.item_wins.values()):
            return None
        if fitting:
            order = {verb: number for number, verb in enumerate(allowed)}
            verb = min(fitting, key=lambda one: (-len(words_of(texts[one]) & goal_words),
                                                 -sum(self.offers.get(one, Counter()).values()), order[one]))
            shape = "carried" if self.item_wins["carried"] else "floor"
        elif wanted:
            verb = allowed[0]
            shape = "floor" if self.item_wins["floor"] else "carried"
        else:
            return None
        return 0.05, verb, (("$",) if shape == "carried" else ("y",))

    def _unknown_item(self, rows, me, things, allowed, letter, actions):
        """(name, plan) for the nearest thing that looks like an item: the commands that ask for items, in turn."""
        verbs = [verb for verb in allowed
                 if self.item_commands.get(verb) and len(self.offers.get(verb, ())) <= 4]
        verbs.sort(key=lambda verb: (len(self.offers.get(verb, ())), -self.item_commands[verb], verb))
        if not verbs or me is None:
            return None
        found = []
        for number, (name, distance, where) in enumerate(things):
            kind = noun(name)
            if not kind or kind in FIXED or len(where) != 1:
                continue
            place = self._place_of(rows, me, distance, where[0])
            if place is None:
                continue
            sign = cell(rows, place[0], place[1])
            if sign.isalpha() or sign in ":;&'~":
                continue  # a monster
            found.append((max(abs(place[0] - me[0]), abs(place[1] - me[1])), number, name, place))
        if not found:
            return None
        _, _, name, place = min(found)
        plan = self._walk(place[0] - me[0], place[1] - me[1], actions) + ["pickup"]
        answer = self._letter_action(letter)
        for verb in verbs[:5]:
            plan += [verb, answer]
        return name, plan

    def _diagonals_fail(self):
        """Whether diagonal moves in corridors hardly ever led anywhere, and straight ones did."""
        rates = {}
        for kind in ("diagonal", "straight"):
            moved = self.move_tries[("corridor", kind, "moved")]
            tries = moved + self.move_tries[("corridor", kind, "failed")]
            if not tries or (kind == "diagonal" and tries < 20):
                return False
            rates[kind] = moved / tries
        return len(self.move_episodes.get(("corridor", "diagonal"), ())) >= 3 and rates["diagonal"] < 0.25 \
            and rates["straight"] > 0 and rates["straight"] >= 2 * rates["diagonal"]

    def _compass_notes(self, actions):
        """For each direction in between the move that came nearest to what lay there."""
        notes = {}
        for direction in sorted(self.compass):
            best = None
            for move, (gains, tries) in sorted(self.compass[direction].items()):
                if tries < 2 or move not in actions:
                    continue
                mean = gains / tries
                if mean > 0.5 and (best is None or mean > best[0]):
                    best = (mean, move)
            if best and len(notes) < 8:
                notes[direction] = best[1]
        return notes

    def _agreed_walk(self, by_moves, first_map, actions):
        """The shortest walk of won episodes with this first map, if most of them ended at one place."""
        same = [one for one in by_moves if one["map"] == first_map]
        ends = Counter(one["shift"] for one in same if one["walk"] and one["shift"] is not None)
        if not ends:
            return []
        shift, count = ends.most_common(1)[0]
        if count < 2 or count * 2 <= len(same):
            return []
        walk = min((one["walk"] for one in same if one["walk"] and one["shift"] == shift), key=len)
        return [move for move in walk if not actions or move in actions]

    def _door_verbs(self, actions):
        """The command that changed a door, or those that may still do so."""
        changed, noisy, untried, rest = [], [], [], []
        for verb in set(self.directed) | set(self.at_door):
            if verb not in actions:
                continue
            known = self.at_door.get(verb, Counter())
            if known["changed"]:
                changed.append((-known["changed"], verb))
            elif known["noise"] and not known["refused"]:
                noisy.append((-known["noise"], verb))
            elif not sum(known.values()):
                untried.append((-self.directed[verb], verb))
            elif known["silent"] or known["noise"]:
                rest.append((known["refused"], -self.directed[verb], verb))
        if changed:
            return [min(changed)[1]]
        verbs = [verb for _, verb in sorted(noisy)] + [verb for _, verb in sorted(untried)]
        return (verbs or [verb for _, _, verb in sorted(rest)])[:3]

    def _door_plan(self, rows, me, actions):
        """The recorded walk to a closed door and, in rounds, the commands that may open it."""
        door = only_place(rows, "+")
        if door is None or me is None:
            return []
        verbs = self._door_verbs(actions)
        if not verbs:
            return []
        sides = []
        for direction in STRAIGHT:
            dx, dy = SHIFTS[direction]
            x, y = door[0] - dx, door[1] - dy
            if cell(rows, x, y) in ".@<" and direction in actions:
                sides.append((max(abs(x - me[0]), abs(y - me[1])), direction, (x, y)))
        if not sides:
            return []
        _, direction, side = min(sides)
        shift = (side[0] - me[0], side[1] - me[1])
        walk = () if shift == (0, 0) else self.walks.get(shift)
        if walk is None:
            near = [(len(moves), moves) for (x, y), moves in self.walks.items()
                    if abs(x - shift[0]) <= 1 and abs(y - shift[1]) <= 1]
            walk = min(near)[1] if near else None
        if walk is None or any(move not in actions for move in walk):
            return []
        plan = list(walk)
        for _ in range(10 if len(verbs) == 1 else 6):
            for verb in verbs:
                plan += [verb, direction]
            plan.append(direction)
        return plan + [direction] * 4

    async def general_retrieve(self, trajectory):
        if not self.episodes:
            return ""
        init = trajectory.init or {}
        goal, actions = goal_of(init), init.get("action_dict") or {}
        parts = sections(init)
        held, things = inventory_of(parts), things_of(parts)
        rows = rows_of(parts)
        me, stairs = only_place(rows, "@"), only_place(rows, ">")
        goal_words = words_of(goal)
        to_stairs = "stairs" in goal.lower()
        corridor = to_stairs and ground_of(rows, me) == "corridor"
        result = {}

        # A goal that names its command wants only that command, and the things that it names.
        first = (re.findall(r"[a-z]+", goal.lower()) or [""])[0]
        named = [name for name, text in actions.items()
                 if not is_move(name) and first and first in re.findall(r"[a-z]+", f"{name} {text}".lower())]
        allowed = named or [name for name in actions if not is_move(name)]
        wins = self.wins.get(goal, [])
        by_moves = [one for one in wins if not one["tail"]]
        # One lucky crossing does not make a goal one that is won by walking.
        walkable = to_stairs and len(by_moves) >= 2 and len(by_moves) * 8 >= self.goal_count[goal]
        item_goal = bool(named) or not re.match(r"reach the stairs", goal.lower()) or not by_moves

        free = [one for one in LETTERS if one not in held]
        next_letter = free[0] if free and self.next_letter[True] > self.next_letter[False] else ""
        can_pick = "pickup" in actions and sum(self.picked.values()) > 0
        candidates = []  # (score, name, letter, moves and pickup, use, place, lies on the floor)
        if item_goal:
            for letter, name in held.items():
                kind = noun(name)
                if kind and (kind in goal_words if named else not self._is_kit(name)):
                    use = self._use(kind, goal, allowed, actions, named)
                    if use and "$" in use[2]:
                        candidates.append((use[0] + 0.2, name, letter, [], use, me, False))
            for name, distance, where in things:
                kind = noun(name)
                if not kind or len(where) != 1 or (named and kind not in goal_words):
                    continue
                place = self._place_of(rows, me, distance, where[0])
                sign = cell(rows, place[0], place[1]) if place else ""
                use = self._use(kind, goal, allowed, actions, named, sign)
                if not use:
                    continue
                carried = "$" in use[2]
                if carried and not can_pick:
                    continue
                path = self._walk(place[0] - me[0], place[1] - me[1], actions) if place else []
                if carried:
                    path = path + ["pickup"]
                candidates.append((use[0], name, next_letter, path, use, place, carried))
        candidates.sort(key=lambda one: -one[0])

        shown_notes = 0
        for _, name, letter, path, (_, verb, answers), place, lies in candidates:
            if lies and (named or shown_notes < 2):
                result[f"You see here {name}"] = "pickup"
                shown_notes += 1
        question_notes = {}
        for _, name, letter, path, (_, verb, answers), place, lies in candidates[:2]:
            shown = re.sub(r"\(.*?\)", "", name).strip()
            kind = noun(name)
            # What the goal names is aimed at, where the command was seen to ask for a direction.
            aim = ""
            if to_stairs and (tuple(answers) == ("$",)
                              or (len(answers) == 2 and answers[0] == "$" and answers[1] in DIRECTIONS)):
                aim = self._aim(verb, things, goal_words, actions)
            if aim:
                answers = ("$",)
            plan, whole = path + [verb], True
            for answer in answers:
                if answer == "$":
                    if not letter:
                        whole = False
                        break
                    answer = self._letter_action(letter)
                plan.append(answer)
            if whole and aim:
                plan.append(aim)
                if stairs is None:
                    plan += [aim] * 6
            # A use that was never seen: what the command asked in other episodes stands for it.
            elif whole and tuple(answers) == ("$",) and (kind, verb) not in self.answers:
                plan += self._follow_up(verb, to_stairs)
                for question, answer in self._question_notes(kind, verb, named, to_stairs):
                    if len(question_notes) < 2:
                        question_notes.setdefault(question, answer)
            if to_stairs and place is not None and stairs is not None:
                plan += self._walk(stairs[0] - place[0], stairs[1] - place[1], actions)
            if len(plan) > 1:
                result[f"{goal} {shown}"] = plan
        result.update(question_notes)

        if not candidates and not to_stairs and not named and can_pick and next_letter:
            unknown = self._unknown_item(rows, me, things, allowed, next_letter, actions)
            if unknown:
                name, plan = unknown
                shown = re.sub(r"\(.*?\)", "", name).strip()
                result[f"You see here {name}"] = "pickup"
                result[f"{goal} {shown}"] = plan

        planned = any(isinstance(value, list) for value in result.values())
        if not planned and to_stairs and "door" in goal.lower():
            plan = self._door_plan(rows, me, actions)
            if plan:
                result[f"{goal} door"] = plan
                planned = True
        if not planned:
            tails = Counter(tuple(one["tail"]) for one in wins if one["tail"])
            if walkable:
                plan, key = [], f"{goal} stairs"
                if corridor:
                    pass  # walks of other places lead into the rock
                elif me is not None and stairs is not None:
                    plan = self._walk(stairs[0] - me[0], stairs[1] - me[1], actions)
                else:
                    plan = self._agreed_walk(by_moves, parts.get("map", ""), actions)
                if plan:
                    result[key] = plan if len(plan) > 1 else plan[0]
                    planned = True
            elif tails:
                tail = list(tails.most_common(1)[0][0])
                for kind in goal_words:
                    if self.picked[kind] and "pickup" in actions:
                        result[f"You see here {kind}"] = "pickup"
                if len(tail) > 1:
                    result[goal] = tail
                    planned = True
        if not planned and corridor and me is not None:
            known = self.corridor_walks.get(exits_of(rows, me))
            if known and len(known[2]) >= 4 and all(move in actions for move in known[2]):
                result[f"{goal} corridor"] = list(known[2])
                planned = True
        if not planned:
            lost = self.deaths.get(goal, Counter())
            worst, count = lost.most_common(1)[0] if lost else ("", 0)
            if count >= 3 and count * 2 >= sum(lost.values()) and len(wins) * 5 < self.goal_count[goal]:
                result["avoid"] = worst
        if corridor and self._diagonals_fail():
            for direction in DIAGONAL:
                if direction in actions:
                    result.setdefault(direction, "avoid, reach the stairs")
        if not corridor and self.episodes >= 3 and re.match(r"reach the stairs", goal.lower()):
            for direction, move in self._compass_notes(actions).items():
                result.setdefault(direction, move)
        return result or ""
