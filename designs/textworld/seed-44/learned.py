"""Memory design 2973bfbe2a65, learned by ALMA on textworld, candidate 3.2 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (97c1652c4336, 48.0 %) > 3.2 (2973bfbe2a65, 55.1 %)
learning set, static: 55.1 % ± 3.1 (standard error), +22.9 [+8.0, +39.6] points to no memory [95 %]
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign

PREPOSITIONS = re.compile(r" (?:from|with|on|into|in) ")
HEADER = re.compile(r"-=\s*(.+?)\s*=-")
TOKEN = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*|[.!?:;,]")
PUT_AWAY = {"insert", "put", "drop", "close"}  # never the cause of a point


def words(text):
    return set(re.findall(r"[a-z]+", str(text).lower()))


def tokens(text):
    """The words of a text in order, its punctuation as words of their own."""
    return TOKEN.findall(str(text).lower())


def kind_of(goal):
    """The key under which episodes are kept: games with a recipe, and all others."""
    return "recipe" if words(goal) & {"recipe", "hungry", "cookbook"} >= {"recipe"} else "other"


def clean(command):
    return " ".join(str(command).lower().split())


def canon(command):
    """A command without what depends on the single game: where a thing is taken from."""
    command = clean(command)
    return command.split(" from ")[0] if command.startswith("take ") else command


def verb(command):
    return command.split(" ", 1)[0] if command else ""


def noun(command):
    rest = command.split(" ", 1)[1] if " " in command else ""
    return PREPOSITIONS.split(rest)[0].strip()


def tool(command):
    return command.split(" with ", 1)[1].strip() if " with " in command else ""


def head(thing):
    """The last word of a name: what repeats over games ('type e passkey' is a passkey)."""
    parts = str(thing).split()
    return parts[-1] if parts else ""


class CausalCredit(MemoryDesign):
    """Learns which commands lead to points, by walking back from each point to what enabled it."""

    MIN_USES = 8        # so often must a verb be used before it is called useless or useful
    USELESS = 0.02      # ... with at most this share of its uses credited
    USEFUL = 0.15       # ... with at least this share credited, and
    LIFT = 2.0          # at least so many times the share of all commands
    PLAN_SHARE = 0.4    # a command of the plan is credited in this share of the tasks that scored
    STAPLE_SHARE = 0.6  # a staple is met in this share of the tasks
    CHAIN_SHARE = 0.25  # chains replace the plan if this share of the tasks that scored has one
    OTHER_SHARE = 0.1   # taking other things is called bad with at most this share credited
    MAX_PLAN = 5
    MAX_CHAINS = 5
    MAX_DO = 12
    MAX_THINGS = 15

    def __init__(self):
        self.episodes = defaultdict(list)  # kind -> summaries of episodes

    async def general_update(self, trajectory):
        init = trajectory.init or {}
        steps = trajectory.steps or []
        goal = str(init.get("goal", ""))
        kind = kind_of(goal)
        actions = [""] + [clean(step.get("action_took", "")) for step in steps]
        observations = [str(init.get("obs", ""))] + [str(step.get("obs", "")) for step in steps]
        admissible = [{clean(one) for one in state.get("admissible_commands") or []} for state in [init] + steps]
        rooms, room = [], ""
        for text in observations:
            found = HEADER.search(text)
            room = found.group(1).lower() if found else room
            rooms.append(room)

        scoring, before = [], 0.0
        for i, step in enumerate(steps, 1):
            score = float(step.get("scores") or 0.0)
            if score > before + 1e-9:
                scoring.append(i)
            before = score
        credited = self._credit(actions, observations, admissible, rooms, scoring)

        used, helped, commands = Counter(), Counter(), {}
        for i in range(1, len(actions)):
            name = canon(actions[i])
            if not name:
                continue
            used[verb(name), name] += 1
            helped[verb(name), name] += i in credited
            first, good = commands.get(name, (i, False))
            if i in credited and not good:
                first, good = i, True
            commands[name] = (first, good)

        lost = ""
        if steps and trajectory.reward < 1 and steps[-1].get("dones") and "***" in observations[-1] \
                and len(steps) not in scoring:
            lost = canon(actions[-1])
        offered, tools, nouns, keys = set(), set(), set(), set()
        for state in admissible + [set(actions)]:
            for command in state:
                if verb(command) == "take":
                    offered.add(noun(command))
                if tool(command):
                    tools.add(tool(command))
                    if verb(command) == "unlock":
                        keys.add(head(tool(command)))
                if noun(command):
                    nouns.add(noun(command))
        chains, opened = self._chains(actions, rooms, credited)
        frames = self._frames(goal, [noun(actions[i]) for i in scoring if verb(actions[i]) == "take"])
        self.episodes[kind].append({
            "task": goal + "\n" + observations[0], "goal": words(goal), "scored": bool(scoring), "used": used,
            "helped": helped, "commands": commands, "lost": lost, "offered": offered, "tools": tools,
            "nouns": nouns, "keys": keys - {""}, "chains": chains, "opened": opened, "frames": frames})
        print(f"{kind}: reward {trajectory.reward}, {len(steps)} steps, {len(scoring)} scored, credited:",
              "; ".join(actions[i] for i in sorted(credited))[:300], "| chains:", dict(chains), "| frames:", frames,
              "| lost by:", lost or "-")

    @staticmethod
    def _credit(actions, observations, admissible, rooms, scoring):
        """The steps that raised the score, and those that made these steps possible."""
        possible = [{canon(command) for command in state} for state in admissible]
        credited, open_steps = set(scoring), list(scoring)
        while open_steps:
            i = open_steps.pop()
            action, room, causes = actions[i], rooms[i - 1], set()
            name = canon(action)
            for j in range(i):  # the first moment at which this command could be given; a direction: in this room
                if name in possible[j] and (verb(action) != "go" or rooms[j] == room):
                    causes.add(j)
                    break
            things = {noun(action), tool(action)} - {""}
            if verb(action) != "take":  # the things that it uses were taken before, and had to be
                for thing in things:
                    for j in range(1, i):
                        if verb(actions[j]) == "take" and noun(actions[j]) == thing:
                            if not any(name in possible[k] for k in range(j)):
                                causes.add(j)
                            break
            if i in scoring and noun(action):  # a text that was read before named its object
                for j in range(1, i):
                    if verb(actions[j]) in ("examine", "read") and noun(actions[j]) not in things \
                            and not HEADER.search(observations[j]) and noun(action) in observations[j].lower():
                        causes.add(j)
                        break
            for j in causes:
                if j >= 1 and j not in credited and verb(actions[j]) not in PUT_AWAY:
                    credited.add(j)
                    open_steps.append(j)
        return credited

    @staticmethod
    def _chains(actions, rooms, credited):
        """What unlocked what, by the last words of the names, and what was opened without a key."""
        chains, unlocked = {}, set()
        for i in range(1, len(actions)):
            if verb(actions[i]) != "unlock" or not tool(actions[i]):
                continue
            door = noun(actions[i])
            unlocked.add(door)
            weight = 0.0
            if i in credited:
                weight = 1.0
            else:
                for j in range(i + 1, len(actions)):
                    if actions[j] != "open " + door:
                        continue
                    for k in range(j + 1, len(actions)):
                        if verb(actions[k]) == "go":
                            if rooms[k - 1] == rooms[i - 1] and rooms[k] not in rooms[:k]:
                                weight = 0.5
                            break
                    break
            pair = (head(tool(actions[i])), head(door))
            if weight and all(pair):
                chains[pair] = max(weight, chains.get(pair, 0.0))
        opened = {head(noun(actions[i])) for i in credited
                  if verb(actions[i]) == "open" and noun(actions[i]) not in unlocked}
        return chains, opened - {""}

    @staticmethod
    def _frames(goal, nouns):
        """The words of the goal to the left and right of a thing that was taken for a point."""
        text, frames = tokens(goal), []
        for thing in nouns:
            name = tokens(thing)
            if not name:
                continue
            for i in range(1, len(text) - len(name)):
                if text[i:i + len(name)] == name:
                    frames.append((text[i - 1], text[i + len(name)]))
                    break
        return frames

    @staticmethod
    def _thing_of(goal, episodes):
        """The thing that stands in this goal where other goals named what scored."""
        text = tokens(goal)
        counts = Counter(frame for one in episodes for frame in one["frames"])
        for (left, right), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            spans = []
            for i, word in enumerate(text):
                if word != left:
                    continue
                for j in range(i + 2, min(i + 6, len(text))):
                    if text[j] == right:
                        span = text[i + 1:j]
                        if left not in span and all(part[0].isalnum() for part in span):
                            spans.append(span)
                        break
            if spans:
                return " ".join(min(spans, key=len))
        return ""

    async def general_retrieve(self, trajectory):
        init = trajectory.init or {}
        goal = str(init.get("goal", ""))
        episodes = self.episodes.get(kind_of(goal), [])
        if not episodes:
            return {}
        goal_words = words(goal)
        present = goal_words | words(init.get("obs", ""))
        scored = [one for one in episodes if one["scored"]]
        tasks = {one["task"] for one in scored}
        all_tasks = {one["task"] for one in episodes}
        losses = [one["lost"] for one in episodes if one["lost"]]
        take_loses = any(verb(name) == "take" for name in losses)
        keys = {key for one in episodes for key in one["keys"]}
        aim = self._thing_of(goal, episodes)

        used_in, good_in, places = defaultdict(set), defaultdict(set), defaultdict(list)
        key_good = defaultdict(set)  # last word of a key -> tasks in which taking one was credited
        for one in scored:
            for name, (first, good) in one["commands"].items():
                used_in[name].add(one["task"])
                if good:
                    good_in[name].add(one["task"])
                    places[name].append(first)
                    thing = noun(name)
                    if verb(name) == "take" and head(thing) in keys and not words(thing) <= one["goal"]:
                        key_good[head(thing)].add(one["task"])

        # Takes that were neither of the thing of the goal nor of a key: do they pay?
        other_uses = other_good = 0
        for one in episodes:
            for (what, name), count in one["used"].items():
                thing = noun(name)
                if what == "take" and not words(thing) <= one["goal"] and head(thing) not in keys:
                    other_uses += count
                    other_good += one["helped"][what, name]
        wary = take_loses and other_uses > 0 and other_good <= self.OTHER_SHARE * other_uses

        # What is met in most tasks of the kind.
        met, takeable = defaultdict(set), set()
        for one in episodes:
            takeable |= one["offered"]
            for thing in one["nouns"]:
                met[thing].add(one["task"])

        def staple(name):
            return len(met[noun(name)]) >= self.STAPLE_SHARE * len(all_tasks)

        # Chains of key and door, each counted once in a task.
        weights = defaultdict(dict)
        for one in episodes:
            for pair, weight in one["chains"].items():
                weights[pair][one["task"]] = max(weight, weights[pair].get(one["task"], 0.0))
        chain_tasks = {task for found in weights.values() for task in found}
        use_chains = bool(weights) and len(chain_tasks) >= self.CHAIN_SHARE * max(1, len(tasks))
        plans = {}
        if use_chains:
            ranked = sorted(weights, key=lambda pair: (-len(set(pair) & present), -sum(weights[pair].values()), pair))
            for key, door in ranked[:self.MAX_CHAINS]:
                chain = [f"take {key}", f"unlock {door} with {key}", f"open {door}"]
                if aim and f"take {aim}" not in chain:
                    chain.append(f"take {aim}")
                plans[f"{door} {key}"] = chain

        # What was credited in many tasks, in its usual order. Directions belong to one map only.
        shared = [name for name, good in good_in.items() if verb(name) != "go" and len(good) >= 2
                  and 2 * len(good) >= len(used_in[name])]
        shared.sort(key=lambda name: (-len(good_in[name]), name))
        plan = []
        if not use_chains:
            plan = [name for name in shared if len(good_in[name]) >= self.PLAN_SHARE * len(tasks)
                    and (take_loses or staple(name))][:self.MAX_PLAN]
            plan.sort(key=lambda name: sum(places[name]) / len(places[name]))
        named = []
        for name in shared:
            if name in plan or tool(name):
                continue
            if wary and verb(name) == "take":
                continue  # said below, by the last words of the keys
            if not take_loses and noun(name) in takeable and not staple(name):
                continue  # a name would speak for all that can be done with the thing
            named.append(f"Do {name}.")
        notes = named[:self.MAX_DO]
        if use_chains:
            opened = defaultdict(set)
            for one in scored:
                for thing in one["opened"]:
                    opened[thing].add(one["task"])
            often = sorted((thing for thing in opened if len(opened[thing]) >= 2),
                           key=lambda thing: (-len(opened[thing]), thing))
            notes += [f"Do open {thing}." for thing in often[:4]]

        # Takes: bad in general where they lose, but for keys and for the thing of the goal.
        if wary:
            notes.append(f"Avoid take ({other_good}/{other_uses}).")
            best = sorted(key_good, key=lambda key: (-len(key_good[key]), key))
            notes += [f"Do take {key}." for key in best[:8]]
            if aim:
                notes.append(f"Do take {aim}.")

        # Verbs: which were worth their steps, beside the commands of the plan, and which never were.
        uses, helps, total, total_good = Counter(), Counter(), 0, 0
        for one in scored:
            for (what, name), count in one["used"].items():
                total += count
                total_good += one["helped"][what, name]
                if name not in plan:
                    uses[what] += count
                    helps[what] += one["helped"][what, name]
        base = total_good / total if total else 0.0
        losing = {verb(name) for name in losses} - {"take", "go", ""}
        for what in sorted(losing - set(uses)):
            notes.append(f"Avoid {what}.")
        for what, count in uses.most_common():
            if wary and what == "take":
                continue
            share = helps[what] / count
            if what in losing or (count >= self.MIN_USES and share <= self.USELESS):
                notes.append(f"Avoid {what} ({helps[what]}/{count}).")
            elif count >= self.MIN_USES and share >= max(self.USEFUL, self.LIFT * base) and what != "go":
                notes.append(f"Do {what} ({helps[what]}/{count}).")

        # Things: what lost a game when it was taken, then what was never needed where taking can lose.
        if take_loses:
            needed = set(goal_words)
            for name in good_in:
                # what was the aim of a single other task is no tool of this one
                if len(good_in[name]) >= 2 or verb(name) != "take":
                    needed |= words(noun(name)) | words(tool(name))
            for one in episodes:
                for thing in one["tools"]:
                    needed |= words(thing)
            things = [thing for thing, _ in
                      Counter(noun(name) for name in losses if verb(name) == "take").most_common()]
            seen = defaultdict(set)
            for one in episodes:
                for thing in one["offered"]:
                    seen[thing].add(one["task"])
            things += sorted((thing for thing in seen if thing not in things),
                             key=lambda thing: (-len(seen[thing]), thing))
            things = [thing for thing in things
                      if words(thing) and not words(thing) & needed and head(thing) not in keys]
            notes += [f"Avoid {thing}." for thing in things[:self.MAX_THINGS]]

        answer = {}
        if plans:
            answer["plans"] = plans
        elif len(plan) >= 2:
            answer["plan"] = plan
        else:
            notes = [f"Do {name}." for name in plan] + notes
        if notes:
            answer["notes"] = list(dict.fromkeys(notes))
        return answer
