"""Memory design 1fc985c1f1b9, learned by ALMA on textworld, candidate 4.2 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (54a70a372024, 45.1 %) > 3.2 (fed6e01f6993, 51.4 %) > 4.2 (1fc985c1f1b9, 63.5 %)
learning set, static: 63.5 % ± 3.4 (standard error), +32.4 [+17.4, +48.1] points to no memory [95 %]
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign, Trajectory

ROOM = re.compile(r"-=\s*(.*?)\s*=-")
SPLIT = re.compile(r"\s+(?:from|with|on|into|in)\s+")
DIRECTION = re.compile(r"^\s*([a-z]+) the (.+?)[\s.]*$")
NEGATIVE = {"avoid", "never", "not", "no", "useless", "fails", "wrong", "wasted", "dead", "lost"}
RESULT = {"reward", "score", "success", "won", "outcome", "result"}


def canonical(command):
    """`take knife from counter` -> `take knife`: the place differs from house to house."""
    return str(command).strip().split(" from ")[0]


def verb_of(command):
    words = str(command).split()
    return words[0].lower() if words else ""


def object_of(command):
    parts = str(command).strip().split(None, 1)
    return SPLIT.split(parts[1])[0].strip().lower() if len(parts) > 1 else ""


def tool_of(command):
    parts = str(command).split(" with ", 1)
    return parts[1].strip().lower() if len(parts) > 1 else ""


def words_of(text):
    return set(re.findall(r"[a-z]+", str(text).lower()))


def head_of(thing):
    """The last word of a name: `type 8 passkey` -> `passkey`."""
    words = re.findall(r"[a-z]+", str(thing).lower())
    return words[-1] if words and len(words[-1]) > 2 else ""


def kind_of(goal):
    return "cooking" if words_of(goal) & {"cook", "cookbook", "recipe", "meal"} else "other"


def sentences_of(text):
    return [one.strip() for one in re.split(r"[.!?]+", str(text).lower()) if one.strip()]


def frame_of(thing, goal):
    """The words before and after a thing in a goal ("" where the sentence begins or ends), or None."""
    for sentence in reversed(sentences_of(goal)):
        found = re.search(r"(?<![\w'-])" + re.escape(thing) + r"(?![\w'-])", sentence)
        if found:
            before = re.search(r"([\w'-]+)\s+$", sentence[:found.start()])
            after = re.match(r"\s+([\w'-]+)", sentence[found.end():])
            return (before.group(1) if before else "", after.group(1) if after else "")
    return None


def thing_in(frame, goal):
    """What stands in a frame of words in the last sentence of a goal that has the frame, or ""."""
    before, after = frame
    start = r"(?<![\w'-])" + re.escape(before) + r"\s+" if before else r"^"
    end = r"\s+" + re.escape(after) + r"(?![\w'-])" if after else r"\s*$"
    pattern = re.compile(start + r"(?=((?:[\w'-]+\s+){0,3}?[\w'-]+)" + end + ")")
    for sentence in reversed(sentences_of(goal)):
        spans = [found.group(1) for found in pattern.finditer(sentence)]
        spans = [span for span in spans if span != after and words_of(span)]
        if spans:
            return min(spans, key=lambda span: len(span.split()))
    return ""


class Kind:
    """What was counted for one kind of task."""

    def __init__(self):
        self.episodes = 0                   # episodes with a gain
        self.tasks = set()                  # tasks with a gain
        self.tries = Counter()              # verb -> tries in all episodes
        self.tries_of = Counter()           # command -> the same
        self.total = Counter()              # verb -> tries before the last gain
        self.total_of = Counter()           # command -> the same
        self.kept = Counter()               # verb -> needed steps
        self.kept_of = Counter()            # command -> the same
        self.kept_in = Counter()            # verb -> episodes that needed it
        self.gain_verbs = Counter()         # verb -> gains of score
        self.gain_objects = Counter()       # thing -> gains of score
        self.gains = 0
        self.gains_named = 0                # gains whose thing the goal named
        self.frames = Counter()             # (word before, word after) of a gained thing in its goal
        self.support = defaultdict(set)     # command -> tasks in which it helped
        self.places = defaultdict(list)     # command -> positions (0 early, 1 late)
        self.told = Counter()               # command -> scored things that it told of
        self.goal_named = set()             # commands whose thing the goal named
        self.lost = Counter()               # (verb, thing) -> games that it ended
        self.means = defaultdict(Counter)   # (verb, tool) -> words by which a recipe asks for it
        self.replies = defaultdict(Counter)  # (verb, tool) -> words of the game's replies
        self.reply_count = Counter()        # (verb, tool) -> replies
        self.recipe_words = Counter()       # first words of recipe lines
        self.verbs = set()                  # verbs of valid commands
        self.command_words = set()          # words of valid commands
        self.unlock_tasks = set()
        self.keys = defaultdict(set)        # head noun of a needed key -> tasks
        self.doors = defaultdict(set)       # head noun of what it unlocked -> tasks
        self.pairs = defaultdict(set)       # (key, door) of needed unlock steps -> tasks
        self.key_heads = set()              # head nouns of all keys of valid unlock commands
        self.keys_valid = defaultdict(set)  # head noun of a key of a valid unlock command -> tasks
        self.pairs_valid = defaultdict(set)  # (key, door) of valid unlock commands -> tasks
        self.fixed_heads = set()            # head nouns of doors, containers and places
        self.needed_heads = set()           # head nouns of things that were needed or gained
        self.take_heads = defaultdict(set)  # head noun of a thing that could be taken -> tasks
        self.goal_words = Counter()
        self.goals = 0


class CausalSlices(MemoryDesign):
    def __init__(self):
        self.kinds = {}

    async def general_update(self, trajectory: Trajectory) -> None:
        init = trajectory.init or {}
        steps = [step for step in trajectory.steps or [] if step.get("action_took")]
        if not steps:
            print("update: no steps")
            return
        goal = str(init.get("goal", ""))
        goal_words = words_of(goal)
        task = goal + "\n" + str(init.get("obs", ""))
        kind = self.kinds.setdefault(kind_of(goal), Kind())
        kind.goals += 1
        kind.goal_words.update(goal_words)
        commands = [str(step["action_took"]).strip() for step in steps]

        # Rooms and valid commands, one before each step and one after the last.
        room, score = "", 0.0
        rooms, valid, gains = [], [], []
        for i, observation in enumerate([init] + steps):
            found = ROOM.findall(str(observation.get("obs", "")))
            if found:
                room = found[-1]
            new_score = float(observation.get("scores") or 0.0)
            if i > 0 and new_score > score + 1e-9:
                gains.append(i - 1)
            score = max(score, new_score)
            rooms.append(room)
            valid.append({str(one).strip() for one in observation.get("admissible_commands") or []})

        # What there is: verbs, keys, doors and containers, things that can be taken.
        for command in set().union(*valid):
            verb, thing, tool = verb_of(command), object_of(command), tool_of(command)
            kind.verbs.add(verb)
            kind.command_words |= words_of(command)
            if verb == "take":
                if head_of(thing):
                    kind.take_heads[head_of(thing)].add(task)
                parts = command.split(" from ", 1)
                if len(parts) > 1:
                    kind.fixed_heads.add(head_of(parts[1]))
            elif verb in ("open", "close"):
                kind.fixed_heads.add(head_of(thing))
            elif verb == "unlock" and tool:
                kind.key_heads.add(head_of(tool))
                kind.fixed_heads.add(head_of(thing))
                if head_of(tool):
                    kind.keys_valid[head_of(tool)].add(task)
                    if head_of(thing):
                        kind.pairs_valid[(head_of(tool), head_of(thing))].add(task)
        for command in commands:
            kind.tries[verb_of(command)] += 1
            kind.tries_of[canonical(command)] += 1

        # What the game says to commands with a tool, and the lines of recipes.
        recipe = defaultdict(set)           # thing -> words by which it is asked for
        for i, step in enumerate(steps):
            text = str(step.get("obs", ""))
            if ROOM.search(text):
                continue
            for line in text.lower().splitlines():
                match = DIRECTION.match(line)
                if match:
                    recipe[match.group(2)].add(match.group(1))
            tool = tool_of(commands[i])
            if tool and (not valid[i] or commands[i] in valid[i]):
                pair = (verb_of(commands[i]), tool)
                kind.reply_count[pair] += 1
                kind.replies[pair].update(words_of(text) - words_of(commands[i]))
        for asked in recipe.values():
            kind.recipe_words.update(asked)

        # A game that ended badly: its last command.
        last = steps[-1]
        if "***" in str(last.get("obs", "")) and float(trajectory.reward or 0.0) < 0.999 \
                and len(steps) - 1 not in gains:
            kind.lost[(verb_of(commands[-1]), object_of(commands[-1]))] += 1
            print("update: lost by", commands[-1])

        if not gains:
            print("update: no gain in", len(steps), "steps,", kind_of(goal))
            return
        end = gains[-1]

        first_gain = {}
        for i in gains:
            verb, thing = verb_of(commands[i]), object_of(commands[i])
            kind.gains += 1
            kind.gain_verbs[verb] += 1
            if thing:
                kind.gain_objects[thing] += 1
                kind.needed_heads.add(head_of(thing))
                first_gain.setdefault(thing, i)
                if words_of(thing) and words_of(thing) <= goal_words:
                    kind.gains_named += 1
                    frame = frame_of(thing, goal)
                    if frame and any(frame):
                        kind.frames[frame] += 1

        # Commands that told of things before these were scored, each once.
        telling = {}                        # command -> (step, number of things)
        patterns = {thing: re.compile(r"(?<!\w)" + re.escape(thing) + r"(?!\w)") for thing in first_gain}
        for i in range(end + 1):
            text = str(steps[i].get("obs", "")).lower()
            if ROOM.search(text) or verb_of(commands[i]) == "go" or commands[i] in telling:
                continue
            things = [thing for thing, when in first_gain.items()
                      if i < when and thing not in commands[i].lower() and patterns[thing].search(text)]
            if not things:
                continue
            before = "\n".join(valid[i]).lower()
            if len(things) > 1 or any(not patterns[thing].search(before) for thing in things):
                telling[commands[i]] = (i, len(things))

        way = self._slice(commands, valid, rooms, gains, [i for i, _ in telling.values()])

        kind.episodes += 1
        kind.tasks.add(task)
        for command in commands[:end + 1]:
            kind.total[verb_of(command)] += 1
            kind.total_of[canonical(command)] += 1
        for command in way:
            kind.kept[verb_of(command)] += 1
            kind.kept_of[canonical(command)] += 1
            if verb_of(command) == "take":
                kind.needed_heads.add(head_of(object_of(command)))
            if verb_of(command) == "unlock" and tool_of(command):
                kind.unlock_tasks.add(task)
                key, door = head_of(tool_of(command)), head_of(object_of(command))
                kind.needed_heads.add(key)
                if key:
                    kind.keys[key].add(task)
                if door:
                    kind.doors[door].add(task)
                if key and door:
                    kind.pairs[(key, door)].add(task)
        for verb in {verb_of(command) for command in way}:
            kind.kept_in[verb] += 1

        for command, (_, number) in telling.items():
            kind.told[canonical(command)] += number
        for n, command in enumerate(way):
            if verb_of(command) == "go":
                continue
            name = canonical(command)
            kind.support[name].add(task)
            kind.places[name].append((n + 1) / len(way))
            thing = words_of(object_of(command))
            if thing and thing <= goal_words:
                kind.goal_named.add(name)

        # By which word a recipe asks for a command with a tool, where it does not name the command itself.
        for i in gains:
            verb, tool, thing = verb_of(commands[i]), tool_of(commands[i]), object_of(commands[i])
            asked = recipe.get(thing, set())
            if tool and thing and verb not in asked:
                kind.means[(verb, tool)].update(asked - kind.verbs)
        print("update:", kind_of(goal), "gains", len(gains), "steps", end + 1, "needed", len(way), way[:12],
              "frames", kind.frames.most_common(2))

    @staticmethod
    def _slice(commands, valid, rooms, gains, telling):
        """Commands without which the gains would not have come, in order, each verb and thing once."""

        def enabler(i):
            """The step that first made the command of step i valid in its room, unless that was coming in."""
            command = commands[i]
            for k in range(i + 1):
                if rooms[k] == rooms[i] and command in valid[k]:
                    if k == 0 or verb_of(commands[k - 1]) == "go" or command in valid[k - 1]:
                        return None
                    if verb_of(command) == "take" and object_of(commands[k - 1]) == object_of(command):
                        return None  # it was only put down there
                    return k - 1
            return None

        needed = set(gains) | set(telling)
        visited = {rooms[0]}
        for i in range(gains[-1] + 1):
            if verb_of(commands[i]) == "go" and rooms[i + 1] not in visited:
                visited.add(rooms[i + 1])
                j = enabler(i)
                if j is not None:
                    needed.add(j)
        queue = list(needed)
        while queue:
            i = queue.pop()
            found = []
            j = enabler(i)
            if j is not None:
                found.append(j)
            if verb_of(commands[i]) != "take":
                for thing in (object_of(commands[i]), tool_of(commands[i])):
                    if not thing:
                        continue
                    for j in range(i - 1, -1, -1):
                        if verb_of(commands[j]) == "take" and object_of(commands[j]) == thing:
                            if commands[i] not in valid[j]:
                                found.append(j)
                            break
            for j in found:
                if j not in needed:
                    needed.add(j)
                    queue.append(j)
        way, seen = [], set()
        for i in sorted(needed):
            name = (verb_of(commands[i]), object_of(commands[i]))
            if name not in seen:
                seen.add(name)
                way.append(commands[i])
        return way

    @staticmethod
    def _rules(kind):
        """Notes on which tool does what a recipe asks for."""
        table = {}
        for pair in set(kind.means) | set(kind.replies):
            votes = Counter()
            for word, count in kind.means.get(pair, {}).items():
                if word not in kind.verbs:
                    votes[word] += count
            for reply, count in kind.replies.get(pair, {}).items():
                if len(reply) < 3 or count < 0.3 * kind.reply_count[pair]:
                    continue
                for word in kind.recipe_words:
                    if len(word) > 2 and word not in kind.verbs and word[:2] == reply[:2]:
                        votes[word] += count
            table[pair] = votes
        rules = []
        for (verb, tool), votes in sorted(table.items()):
            best = votes.most_common(2)
            if not best or (len(best) > 1 and best[0][1] == best[1][1]):
                continue
            word, count = best[0]
            if any(other[0] == verb and other[1] != tool and table[other][word] >= count for other in table):
                continue
            rules.append(f"{word}: {verb} with {tool}")
        return rules

    @staticmethod
    def _chains(kind, seen_words):
        """Up to four pairs (key, door) of head nouns: keys in sight first, then those that were needed most."""
        def needed(key):
            return len(kind.keys.get(key, ()))

        def valid(key):
            return len(kind.keys_valid.get(key, ()))

        keys = sorted(set(kind.keys) | set(kind.keys_valid),
                      key=lambda key: (key not in seen_words, -needed(key), -valid(key), key))
        pairs = set(kind.pairs) | set(kind.pairs_valid)
        chains = []
        for key in keys:
            doors = sorted({door for other, door in pairs if other == key},
                           key=lambda door: (door not in seen_words, -len(kind.pairs.get((key, door), ())),
                                             -len(kind.pairs_valid.get((key, door), ())), door))
            if doors:
                chains.append((key, doors[0]))
        return chains[:4]

    @staticmethod
    def _wasted_plans(kind, evidence_of, common):
        """For each wasted verb a plan that begins with it and goes on with the next ones."""
        verbs = sorted(evidence_of, key=lambda verb: (-evidence_of[verb], verb))
        if len(verbs) < 2:
            return []
        names = []
        for verb in verbs:
            tries = {one: count for one, count in kind.tries_of.items() if verb_of(one) == verb}
            best = max(sorted(tries), key=lambda one: tries[one], default=verb)
            frequent = tries.get(best, 0) > 0.5 * kind.tries[verb] and best not in common
            names.append(best if frequent else verb)
        size = len(names)
        return [[names[(i + j) % size] for j in range(min(4, size))] for i in range(size)]

    async def general_retrieve(self, trajectory: Trajectory):
        init = trajectory.init or {}
        goal = str(init.get("goal", ""))
        kind = self.kinds.get(kind_of(goal))
        if kind is None:
            return {}
        goal_words = words_of(goal)
        answer, notes = {}, []
        shared = sorted(word for word in goal_words - NEGATIVE - RESULT
                        if len(word) > 3 and kind.goal_words[word] >= 0.5 * kind.goals)[:6]

        # 1. Commands that helped in many tasks of this kind, those that tell first, then in their usual order.
        need = max(2, 0.4 * len(kind.tasks))
        common = []
        for command, tasks in kind.support.items():
            thing = words_of(object_of(command))
            if len(tasks) < need:
                continue
            if command in kind.goal_named and not thing <= goal_words:
                continue  # it was the aim of another task
            common.append(command)
        common.sort(key=lambda one: (-len(kind.support[one]), one))
        common = common[:5]
        common.sort(key=lambda one: (-kind.told[one], sum(kind.places[one]) / len(kind.places[one])))
        if len(common) > 1:
            answer[" ".join(["plan"] + shared)] = common
        elif common:
            notes.append(f"Do {common[0]}.")

        # 2. How things are unlocked, where the goal names what is gained: a chain for each noun of a key.
        named = kind.gains > 0 and kind.gains_named >= 0.5 * kind.gains
        if named:
            seen_words = words_of(init.get("obs", ""))
            for command in init.get("admissible_commands") or []:
                seen_words |= words_of(command)
            if len(kind.unlock_tasks) >= 2:
                for key, door in self._chains(kind, seen_words):
                    answer[" ".join(["chain", key] + shared)] = [f"take {key}", f"unlock {door} with {key}",
                                                                 f"open {door}"]
            keys = sorted((set(kind.keys) | kind.key_heads) - {""},
                          key=lambda one: (-len(kind.keys.get(one, ())), -len(kind.keys_valid.get(one, ())), one))
            notes += [f"Always {key}." for key in keys[:6]]

            # The thing that the goal names, by the words that stood around such things in learned goals.
            gain_verb = kind.gain_verbs.most_common(1)[0][0]
            for frame, _ in kind.frames.most_common():
                thing = thing_in(frame, goal)
                if thing:
                    # Once without the verb, so that the verb's guard below still outweighs it elsewhere.
                    notes.append(f"Always {thing}.")
                    notes.append(f"Do {gain_verb} {thing}.")
                    break

            # The verb that gains, but also ends games: guarded for all other things.
            ended_by = Counter()
            for (verb, _), count in kind.lost.items():
                ended_by[verb] += count
            for verb in sorted(ended_by):
                if not kind.gain_verbs[verb]:
                    continue
                notes.append(f"Avoid {verb}.")
                if ended_by[verb] >= 2:
                    notes.append(f"{verb} other things: lost.")

        # 3. Verbs: those that gains do without, stressed by the evidence, and those that open the way.
        tries = sum(count for verb, count in kind.total.items() if verb != "go")
        kept = sum(count for verb, count in kind.kept.items() if verb != "go")
        mean = kept / tries if tries else 0.0
        lost_verbs = {verb for verb, _ in kind.lost}
        anchor = " ".join([word for word in shared if word not in kind.command_words][:3])
        wasted = {}                         # verb without a special command -> tries
        for verb in sorted(kind.tries):
            if verb == "go" or kind.gain_verbs[verb]:
                continue
            special = [command for command in common if verb_of(command) == verb]
            rest = kind.total[verb] - sum(kind.total_of[one] for one in special)
            rest_kept = kind.kept[verb] - sum(kind.kept_of[one] for one in special)
            evidence = kind.tries[verb] - sum(kind.tries_of[one] for one in special)
            if evidence >= 10 and rest >= 1 and rest_kept < 0.05 * rest:
                notes.append(f"Never {verb}.")
                if evidence >= 30:
                    notes.append(f"{verb} is useless.")
                if evidence >= 80:
                    notes.append(f"{verb}: wasted")
                    if anchor and not special:
                        notes.append(f"Avoid {verb} {anchor}.")
                        notes.append(f"{verb} fails {anchor}.")
                for command in special:
                    notes.append(f"Always {command}.")
                if not special:
                    wasted[verb] = evidence
            elif kind.total[verb] >= 3 and kind.kept[verb] > 1.3 * mean * kind.total[verb] \
                    and kind.kept_in[verb] >= 2 and verb not in lost_verbs:
                notes.append(f"Always {verb}.")
        plans = self._wasted_plans(kind, wasted, common)
        if plans:
            answer[" ".join(["wasted useless"] + shared)] = plans

        # 4. Which tool does what a recipe asks for.
        notes += self._rules(kind)

        # 5. Things to leave alone.
        if named:
            here = set()
            for command in init.get("admissible_commands") or []:
                if verb_of(command) in ("open", "close", "unlock"):
                    here |= words_of(object_of(command))
            ended = Counter()
            for (verb, thing), count in kind.lost.items():
                if kind.gain_verbs[verb] and head_of(thing):
                    ended[head_of(thing)] += count
            heads = set(kind.take_heads) | set(ended)
            heads -= kind.needed_heads | kind.key_heads | kind.fixed_heads | kind.verbs | goal_words | here
            order = sorted(heads, key=lambda one: (-ended[one], -len(kind.take_heads.get(one, ())), one))
            notes += [f"Avoid {head}." for head in order[:16]]
        else:
            bad = 0
            for (verb, thing), _ in kind.lost.most_common():
                if not thing or not kind.gain_verbs[verb] or kind.gain_objects[thing]:
                    continue
                if words_of(thing) & goal_words:
                    continue
                notes.append(f"Avoid {thing}.")
                bad += 1
                if bad >= 6:
                    break

        if notes:
            answer["notes"] = notes
        return answer
