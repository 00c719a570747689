"""Memory design 075404ca3018, learned by ALMA on minihack, candidate 4.2 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (e9490524610d, 19.1 %) > 3.2 (3c772664f0b9, 29.4 %) > 4.2 (075404ca3018, 33.8 %)
learning set, static: 33.8 % ± 4.4 (standard error), +13.2 [+4.4, +23.5] points to no memory [95 %]; 13 of 13 points come from experience: this is a memory
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter

from memory_base import MemoryDesign, Trajectory

SECTION = re.compile(r"^(message|language observation|cursor|map|inventory):[ ]*$", re.M)
THING = re.compile(r"^(.*?) (very near|very far|adjacent|near|far) (.+)$")
WANTED = re.compile(r"(?:want to|anything to|anything else to) ([a-z ]+?) ?[.?\[]")
ITEM_QUESTION = re.compile(r"What do you want to ([a-z ]+?)\? ?\[([^\]]*)\]")
CHOICE = re.compile(r"\?.*?\[([a-z]+)\](?: \(([a-z])\))?")
UNDERFOOT = re.compile(r"You see here (?:an? |the )?(.+?)\.")
REFUSED = ("Never mind", "You don't have", "What do you want", "Unknown command")
NO_DIRECTION = ("Never mind", "strange direction", "What do you want")
NO_ANSWERS = {"esc", "space"}
LANDMARKS = "><%?=\"(!/*)[_{"
GOAL_SIGNS = "%?=\"(!/*)[_{#"
LONE_SIGNS = "%?=\"(!/["
FIXED_SIGNS = ">#_{"  # what cannot be picked up
NO_NAMES = {"stairs", "dark", "area", "wall", "lava", "water", "down", "reach", "from"}
PLAIN_WORDS = {"uncursed", "blessed", "cursed", "being", "worn", "hand", "weapon", "alternate", "wielded", "quiver",
               "pouch", "labeled", "unlabeled"}
LONGEST = 30  # commands of a plan
TRUST = 0.3  # share of won episodes from which on the routes of a walled kind are believed


def look(state):
    """What is read from one observation (init or step)."""
    text = str(state.get("long_term_context") or "") + "\n\n" + str(state.get("short_term_context") or "")
    parts = SECTION.split(text)
    found = {}
    for name, body in zip(parts[1::2], parts[2::2]):
        found.setdefault(name, body.strip("\n"))
    grid = found.get("map", "")
    rows = grid.split("\n")
    signs = {}
    for y, row in enumerate(rows):
        for x, sign in enumerate(row):
            if sign not in ". " and not sign.isalnum():
                signs.setdefault(sign, []).append((x, y))
    people = signs.get("@", [])
    me = people[0] if len(people) == 1 else None
    offset = None
    if me is not None and signs.get(">"):
        offset = minus(signs[">"][0], me)
    inventory = {}
    for line in found.get("inventory", "").split("\n"):
        match = re.match(r"^([A-Za-z$]): (.*)$", line.strip())
        if match:
            inventory[match.group(1)] = match.group(2).lower()
    things = []  # name, distance, directions
    for line in found.get("language observation", "").split("\n"):
        match = THING.match(line.strip().lower())
        if match:
            directions = set(re.findall("[a-z]+", match.group(3))) - {"and"}
            things.append((match.group(1), match.group(2), directions))
    return {
        "me": me,
        "signs": signs,
        "shape": (len(rows), max(len(row) for row in rows)),
        "offset": offset,
        "walled": any(sign in grid for sign in "|-#"),
        "message": " ".join(found.get("message", "").split()),
        "role": found.get("cursor", "").strip().lower(),
        "inventory": inventory,
        "things": things,
    }


def size(vector):
    return max(abs(vector[0]), abs(vector[1]))


def minus(a, b):
    return (a[0] - b[0], a[1] - b[1])


def bearing(offset):
    """The direction of an offset, by the names that the observation uses."""
    dx, dy = offset
    upright = "south" if dy > 0 else "north"
    level = "east" if dx > 0 else "west"
    if dx == 0:
        return upright
    if dy == 0:
        return level
    if abs(dx) == abs(dy):
        return upright + level
    return level + upright + level if abs(dx) > abs(dy) else upright + upright + level


def nearness(offset):
    far = size(offset)
    for limit, name in ((1, "adjacent"), (2, "very near"), (5, "near"), (19, "far")):
        if far <= limit:
            return name
    return "very far"


def step_between(before, after):
    """How the agent moved from one observation to the next, or None."""
    here, there = before["me"], after["me"]
    if here is None or there is None:
        return None
    votes = Counter()
    for sign in LANDMARKS:
        one, two = before["signs"].get(sign, []), after["signs"].get(sign, [])
        if len(one) == 1 and len(two) == 1:
            votes[minus(minus(one[0], here), minus(two[0], there))] += 1
    if votes:
        return votes.most_common(1)[0][0]
    one, two = before["signs"].get("<", []), after["signs"].get("<", [])
    if not one and len(two) == 1 and size(minus(there, two[0])) == 1:
        return minus(there, two[0])  # stood on the stairs up, which are seen now
    if len(one) == 1 and not two and size(minus(one[0], here)) == 1:
        return minus(one[0], here)  # stands on the stairs up now
    if before["shape"] == after["shape"]:
        return minus(there, here)
    return None


def item_words(text):
    return set(re.findall("[a-z]{4,}", text)) - PLAIN_WORDS


def goal_words(goal):
    return {word.rstrip("s") for word in set(re.findall("[a-z]{4,}", goal.lower())) - NO_NAMES}


def offered_letters(text):
    """The letters of '- bcd or ?*' or 'a-e or ?*'."""
    text = text.split(" or ")[0]
    letters = set()
    for first, last in re.findall("([A-Za-z])-([A-Za-z])", text):
        letters.update(chr(code) for code in range(ord(first), ord(last) + 1))
    letters.update(re.findall("[A-Za-z]", text))
    return letters


def question_class(message):
    """What a message asks: ('direction', ''), (letters in the bracket, default), or ('', '')."""
    if "direction?" in message:
        return "direction", ""
    if ITEM_QUESTION.search(message):
        return "", ""
    match = CHOICE.search(message)
    if match:
        return match.group(1), match.group(2) or ""
    return "", ""


class RoutesFromExperience(MemoryDesign):
    """Displacement -> commands, pooled over goals; and which command the words of a goal or an item mean."""

    def __init__(self):
        self.episodes = Counter()  # by (goal, walled)
        self.wins = Counter()
        self.open_routes = {}  # displacement -> commands, from all open maps
        self.routes = {}  # walled kinds: (goal, walled) -> {displacement: commands}
        self.steps = {}  # command -> Counter of the moves of one square that it made
        self.tried = Counter()  # command -> episodes
        self.responses = {}  # command -> Counter of words, in episodes
        self.uses = {}  # item word -> command -> [sum of weights, episodes]
        self.picked = Counter()  # command -> episodes in which it brought a new letter
        self.pick_words = Counter()  # words of the message before
        self.pick_events = 0
        self.letter_shift = Counter()  # letter of a new item, counted from the number of items before
        self.keys = {}  # letter that was offered alone -> Counter of actions that were accepted for it
        self.initial_matches = 0  # accepted commands of several characters that begin with the letter
        self.follow = {}  # command -> Counter of the classes of the question after its item was named
        self.follow_item = {}  # (item word, command) -> the same
        self.replies = {}  # class of a question -> Counter of answers
        self.role_words = {}  # role -> Counter of the words of first inventories
        self.role_episodes = Counter()

    # ---- learning

    async def general_update(self, trajectory: Trajectory) -> None:
        init = trajectory.init or {}
        steps = trajectory.steps or []
        views = [look(state) for state in [init, *steps]]
        actions = [str(step.get("action_took") or "").strip() for step in steps]
        scores = [0.0] + [float(step.get("scores") or 0.0) for step in steps]
        won = (trajectory.reward or 0) >= 0.999
        goal = str(init.get("goal") or "")
        walled = views[0]["walled"]
        kind = (goal, walled)
        self.episodes[kind] += 1
        self.wins[kind] += int(won)

        moves = self._measure(actions, views)
        table = self.routes.setdefault(kind, {}) if walled else self.open_routes
        self._learn_routes(table, actions, moves)
        self._learn_lexicon(actions, views, scores)
        known_moves = sum(move is not None for move in moves)
        keys = {letter: counts.most_common(2) for letter, counts in self.keys.items()}
        follow = {command: dict(counts) for command, counts in self.follow.items()}
        replies = {name: counts.most_common(2) for name, counts in self.replies.items()}
        print(f"{kind}: won {won}, {len(steps)} steps, {known_moves} moves measured, {len(table)} displacements, "
              f"picked {dict(self.picked.most_common(3))}, shift {dict(self.letter_shift.most_common(2))}, "
              f"keys {keys}, initials {self.initial_matches}, follow {follow}, replies {replies}, "
              f"commands with answers {len(self.responses)}, item words {len(self.uses)}")

    def _measure(self, actions, views):
        """One entry for each action: the move of at most one square, or None."""
        moves = []
        for index, action in enumerate(actions):
            move = step_between(views[index], views[index + 1])
            if move is not None and (size(move) > 1 or (size(move) == 1 and (" " in action or not action))):
                move = None
            if move is not None and size(move) == 1:
                counts = self.steps.setdefault(action, Counter())
                counts[move] += 1
                if counts.most_common(1)[0][0] != move:
                    move = None  # not what this command usually does: a wrong measurement
            moves.append(move)
        return moves

    def _learn_routes(self, table, actions, moves):
        for start in range(len(moves)):
            place = (0, 0)
            places, commands = [place], []
            for now in range(start, len(moves)):
                move = moves[now]
                if move is None:
                    break
                place = (place[0] + move[0], place[1] + move[1])
                if place in places:  # blocked, or a detour: cut it out
                    index = places.index(place)
                    places, commands = places[:index + 1], commands[:index]
                    continue
                places.append(place)
                commands.append(actions[now])
                if len(commands) > LONGEST:
                    continue
                known = table.get(place)
                if known is None or (len(commands), len(set(commands))) < (len(known), len(set(known))):
                    table[place] = tuple(commands)

    def _learn_lexicon(self, actions, views, scores):
        first = views[0]["inventory"]
        self.role_episodes[views[0]["role"]] += 1
        words = set()
        for text in first.values():
            words |= item_words(text)
        self.role_words.setdefault(views[0]["role"], Counter()).update(words)

        tried, picked, responses, uses = set(), set(), {}, {}
        asker = None  # the command that raised the question that is pending
        for index, action in enumerate(actions):
            if not action:
                continue
            before, after = views[index], views[index + 1]
            message = after["message"]
            self._learn_letter(before["inventory"], after["inventory"])
            if "?" in before["message"]:
                self._learn_answer(asker, before, action, message, scores[index + 1] > scores[index])
                continue
            asker = action
            tried.add(action)
            match = WANTED.search(message)
            if match and ("[" in message or "You don't have anything" in message):
                responses.setdefault(action, set()).update(match.group(1).split())
            match = ITEM_QUESTION.search(message)
            if match:
                letters = offered_letters(match.group(2))
                for letter in letters:
                    for word in item_words(after["inventory"].get(letter, "")):
                        key = (word, action)
                        uses[key] = max(uses.get(key, 0.0), 1 / len(letters))
            if before["inventory"] and set(after["inventory"]) - set(before["inventory"]):
                picked.add(action)
                if not self.steps.get(action):
                    self.pick_events += 1
                    self.pick_words.update(set(re.findall("[a-z]{3,}", before["message"].lower())))
        self.tried.update(tried)
        self.picked.update(picked)
        for action, words in responses.items():
            self.responses.setdefault(action, Counter()).update(words)
        for (word, action), weight in uses.items():
            entry = self.uses.setdefault(word, {}).setdefault(action, [0.0, 0])
            entry[0] += weight
            entry[1] += 1

    def _learn_letter(self, before, after):
        """Which letter a new item gets, counted from the number of items."""
        if not before:
            return
        new = [letter for letter in after if letter not in before and "a" <= letter <= "z"]
        if len(new) == 1:
            count = sum(letter.isalpha() for letter in before)
            self.letter_shift[ord(new[0]) - ord("a") - count] += 1

    def _learn_answer(self, asker, before, action, message, rose):
        if action in NO_ANSWERS:
            return
        question = before["message"]
        match = ITEM_QUESTION.search(question)
        if match:
            if not message or any(words in message for words in REFUSED):
                return
            letters = offered_letters(match.group(2))
            letter = None
            if len(letters) == 1:
                only = next(iter(letters))
                if action == only or len(action) > 1:
                    letter = only
                    self.keys.setdefault(only, Counter())[action] += 1
                    if len(action) > 1 and action.startswith(only):
                        self.initial_matches += 1
            elif action in letters:
                letter = action
            if letter is None or asker is None or letter not in before["inventory"]:
                return
            name, _ = question_class(message)
            self.follow.setdefault(asker, Counter())[name] += 1
            for word in item_words(before["inventory"][letter]):
                self.follow_item.setdefault((word, asker), Counter())[name] += 1
            return
        name, default = question_class(question)
        if not name:
            return
        if name == "direction":
            accepted = not any(words in message for words in NO_DIRECTION)
        else:
            accepted = len(action) == 1 and action in name and action != default and action != "q"
        if accepted:
            self.replies.setdefault(name, Counter())[action] += 5 if rose else 1

    # ---- retrieving

    async def general_retrieve(self, trajectory: Trajectory):
        init = trajectory.init or {}
        known = set(init.get("action_dict") or {})
        if not known or not self.episodes:
            return {}
        try:
            return self._retrieve(init, known)
        except Exception as error:
            print(f"retrieval failed: {type(error).__name__}: {error}")
            return {}

    def _retrieve(self, init, known):
        goal = str(init.get("goal") or "")
        view = look(init)
        kind = (goal, view["walled"])
        key = "plan to " + goal.rstrip(".")
        stairs = "stairs" in goal.lower()
        open_stairs = stairs and not view["walled"]
        if open_stairs and view["offset"] is not None and "}" not in view["signs"]:
            plan = self._open_route(view["offset"], False, known)
            return {key: plan} if len(plan) > 1 else {}
        unseen = open_stairs and view["offset"] is None

        target = self._target(goal, view)  # (sign, offset, name) or None
        if unseen and target is not None and target[1] != (0, 0):
            target = None
        command, matched = self._goal_command(goal, known)
        letter = None
        if command is None and target is not None:
            command, matched = self._item_command(item_words(target[2]), known)
        if command is None and (target is None or stairs):
            command, matched, letter = self._inventory_command(view, known)
            if letter is not None:
                target = None  # what is carried is used instead
        pick = self._pick_command(known)
        fixed = target is not None and bool(target[0]) and target[0] in FIXED_SIGNS

        use, used = [], False  # the command and its answers
        if command:
            use.append(command)
            if fixed:
                yes = self._best_known(self.replies.get("yn", Counter()), known)
                if yes:
                    use.append(yes)
            else:
                answer = self._key(letter or self._next_letter(view), known)
                if answer:
                    used = True
                    use.append(answer)
                    text = view["inventory"].get(letter, "") if letter else target[2] if target else ""
                    reply = self._follow_up(item_words(text), command, goal, view, known)
                    if reply:
                        use.append(reply)

        plan, place = [], (0, 0)
        if target is not None:
            offset = target[1]
            here = offset == (0, 0)
            walk = [] if here else self._open_route(offset, view["walled"], known)
            if fixed:
                if walk:
                    plan = walk + use
            elif walk or (here and pick):
                plan = walk + ([pick] if pick else []) + use
                place = offset
            if stairs and not used:
                plan = []
        elif letter is not None and used:
            plan = list(use)
        if plan and stairs and used and view["offset"] is not None:
            plan = plan + self._crossing(minus(view["offset"], place), known)
        if unseen and not plan:
            return {}
        if not plan and stairs and view["walled"] and view["offset"] is not None:
            plan = self._kind_route(kind, view["offset"], known)
        result = {}
        if len(plan) > 1:
            result[key] = plan[:LONGEST + 8]

        notes = []
        if command and matched:
            notes.append(f"{' '.join(matched)}: {command}.")
        if pick and not fixed and (target is not None or not stairs):
            before = self._words_before_pick()
            thing = " ".join(sorted(item_words(target[2]))) if target is not None else ""
            text = " ".join(part for part in (before, thing) if part)
            if text and letter is None:
                notes.append(f"{text}: {pick}.")
        if notes:
            result["notes"] = notes
        return result

    def _target(self, goal, view):
        """The thing that the goal names, what lies underfoot, or the only thing that lies there."""
        me = view["me"]
        wanted = goal_words(goal)
        best = None
        if me is not None:
            for sign in GOAL_SIGNS:
                for place in view["signs"].get(sign, []):
                    offset = minus(place, me)
                    name = self._name(offset, view, wanted)
                    if name and (best is None or size(offset) < size(best[1])):
                        best = (sign, offset, name)
        if best is not None:
            return best
        match = UNDERFOOT.search(view["message"])
        if match and item_words(match.group(1).lower()):
            return (None, (0, 0), match.group(1).lower())
        if me is None:
            return None
        lone = [(sign, place) for sign in LONE_SIGNS for place in view["signs"].get(sign, [])]
        if len(lone) == 1:
            sign, place = lone[0]
            offset = minus(place, me)
            return (sign, offset, self._name(offset, view, None) or "")
        return None

    def _name(self, offset, view, wanted):
        for name, distance, directions in view["things"]:
            if distance != nearness(offset) or bearing(offset) not in directions:
                continue
            if wanted is None:
                if "dark area" not in name and "wall" not in name:
                    return name
            elif {word.rstrip("s") for word in re.findall("[a-z]{4,}", name)} & wanted:
                return name
        return None

    def _goal_command(self, goal, known):
        """The command whose answers hold the first words of the goal, and these words."""
        words = re.findall("[a-z]+", goal.lower())[:2]
        best, best_rank = (None, []), None
        for command, counts in self.responses.items():
            tried = self.tried[command]
            if command not in known or tried < 2 or command in self.steps:
                continue
            matched = [word for word in words if counts[word] >= 2 and counts[word] / tried >= 0.5]
            if not matched:
                continue
            rank = (sum(counts[word] / tried for word in matched), tried)
            if best_rank is None or rank > best_rank:
                best, best_rank = (command, matched), rank
        return best

    def _item_command(self, words, known):
        """The command that offered items with these words, and few others."""
        best, best_rank = (None, []), None
        for word in sorted(words):
            for command, (total, count) in self.uses.get(word, {}).items():
                if command not in known or count < 2 or total / count < 0.5:
                    continue
                rank = (total / count, count)
                if best_rank is None or rank > best_rank:
                    best, best_rank = (command, [word]), rank
        return best

    def _inventory_command(self, view, known):
        """For an item that those of this role rarely began with: command, words, letter."""
        episodes = self.role_episodes[view["role"]]
        if episodes < 3:
            return None, [], None
        usual = self.role_words.get(view["role"], Counter())
        for letter, text in reversed(list(view["inventory"].items())):
            rare = {word for word in item_words(text) if usual[word] / episodes < 1 / 3}
            if rare:
                command, matched = self._item_command(rare, known)
                if command:
                    return command, matched, letter
        return None, [], None

    def _pick_command(self, known):
        best, best_rank = None, None
        for command, count in self.picked.items():
            if command not in known or count < 2 or self.steps.get(command) or " " in command:
                continue
            share = count / max(1, self.tried[command])
            if share >= 0.05 and (best_rank is None or (share, count) > best_rank):
                best, best_rank = command, (share, count)
        return best

    def _words_before_pick(self):
        if not self.pick_events:
            return ""
        words = [word for word, count in self.pick_words.most_common() if count / self.pick_events >= 0.6]
        return " ".join(words[:3])

    def _next_letter(self, view):
        """The letter that a new item will get, or None."""
        if not self.letter_shift:
            return None
        count = sum(letter.isalpha() for letter in view["inventory"])
        code = ord("a") + count + self.letter_shift.most_common(1)[0][0]
        return chr(code) if ord("a") <= code <= ord("z") else None

    def _key(self, letter, known):
        """The known action that answers with this letter, or None."""
        if not letter:
            return None
        if letter in known:
            return letter
        best = self._best_known(self.keys.get(letter, Counter()), known)
        if best:
            return best
        if self.initial_matches > 0:
            fitting = [action for action in known
                       if action.startswith(letter) and " " not in action and action not in self.steps]
            if len(fitting) == 1:
                return fitting[0]
        return None

    def _follow_up(self, words, command, goal, view, known):
        """The answer to what is asked after the item was named, or None."""
        counts = Counter()
        for word in sorted(words):
            counts.update(self.follow_item.get((word, command), {}))
        if not counts:
            counts = self.follow.get(command, Counter())
        if not counts:
            return None
        name = counts.most_common(1)[0][0]
        if not name:
            return None
        replies = self.replies.get(name, Counter())
        if name != "direction":
            return self._best_known(replies, known)
        wanted = goal_words(goal)
        moves = known & set(self.steps)
        for thing, _, directions in view["things"]:
            if {word.rstrip("s") for word in set(re.findall("[a-z]{4,}", thing)) - NO_NAMES} & wanted:
                towards = sorted(directions & moves)
                if towards:
                    return towards[0]
        return self._best_known(replies, moves)

    def _best_known(self, counts, known):
        for answer, _ in counts.most_common():
            if answer in known:
                return answer
        return None

    def _open_route(self, offset, walled, known):
        """The remembered commands for this displacement, or, if it is long, for one that ends close to it."""
        far = size(offset)
        allowed = far // 3 if far > 5 and not walled else 0
        best, best_rank = [], None
        for moved, commands in self.open_routes.items():
            gap = size(minus(offset, moved))
            if gap > allowed or not known.issuperset(commands):
                continue
            different = len(set(commands))
            if walled and (len(commands) != far or different > 2):
                continue
            rank = (gap, len(commands), different)
            if best_rank is None or rank < best_rank:
                best, best_rank = list(commands), rank
        return best

    def _crossing(self, offset, known):
        """The remembered straight commands from the place of use to the stairs, or to a place near them."""
        far = size(offset)
        if far == 0:
            return []
        best = self._open_route(offset, True, known)
        if best:
            return best
        allowed = max(1, far // 3)
        best_rank = None
        for moved, commands in self.open_routes.items():
            gap = size(minus(offset, moved))
            if gap > allowed or len(set(commands)) > 2 or not known.issuperset(commands):
                continue
            rank = (gap, len(commands))
            if best_rank is None or rank < best_rank:
                best, best_rank = list(commands), rank
        return best

    def _kind_route(self, kind, offset, known):
        """The remembered commands of this walled kind for this displacement, if the kind is won often enough."""
        if not self.episodes[kind] or self.wins[kind] / self.episodes[kind] < TRUST:
            return []
        allowed = max(1, size(offset) // 3)
        best, best_rank = [], None
        for moved, commands in self.routes.get(kind, {}).items():
            gap = size(minus(offset, moved))
            if gap > allowed or not known.issuperset(commands):
                continue
            rank = (gap, len(commands))
            if best_rank is None or rank < best_rank:
                best, best_rank = list(commands), rank
        return best
