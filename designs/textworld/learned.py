"""Which commands moved an episode on, in which order, where steps are wasted, and which things lose the game?

Idea: houses and recipes change from task to task, but what a verb does, and to which sort of thing, does not. Each
episode is reduced to its distinct commands, and each of them is marked as useful or not:
  * it raised the score, or made a thing visible that was not seen before (a thing that is only the changed form of
    what the command was used on does not count), or opened a way that was not open before;
  * or it was the last command on the same thing before a useful command became possible (take key -> unlock door).
Retrieval counts over the tasks of the same kind and says shortly: short plans of commands that were useful in several
tasks, each judged by its own record; chains of key, lock and opening by sort of thing; verbs (go by room, too) and
things that helped; verbs that brought nothing, each with the few words that cover most of the observations in which it
was wasted; things that lost the game. A verb that lost a game stands in no plan, chain or list of what helped, but is
not warned of for that. A verb that ended a won game is never warned of.

Memory design af18f6993255, learned by ALMA on textworld, candidate 5.4 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (115ebe8d0b2b, 44.7 %) > 2.1 (6a5bcf42b94f, 33.2 %) > 3.2 (b6ce1637b01b, 43.6 %) > 5.4 (af18f6993255, 54.1 %)
learning set, static: 54.1 % ± 2.1 (standard error), +16.3 [+5.7, +28.1] points to no memory [95 %]
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import defaultdict

from memory_base import MemoryDesign, Trajectory

PREPOSITIONS = re.compile(r"\s+(?:from|with|into|on|in|onto)\s+")
ROOM = re.compile(r"-=\s*(.+?)\s*=-")
WORD = re.compile(r"(?<![\w'])[a-z]{4,}(?![\w'])")
# words without a meaning of their own, which tell no situation from another
SMALL = frozenset("""about already also and another because been could from have here into just like more much once only
    over really should some such than that their them then there these they this those very were what when where which
    while will with would your""".split())


def clean(text):
    return " ".join(str(text or "").lower().split())


def split_command(command):
    """"take red key from box" -> ("take", ["red key", "box"])."""
    words = clean(command).split(" ", 1)
    if len(words) < 2:
        return words[0], []
    return words[0], [part.strip() for part in PREPOSITIONS.split(words[1]) if part.strip()]


def head(phrase):
    """The last word names the sort of thing: "spherical passkey" -> "passkey"."""
    return phrase.split()[-1]


def number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def has_phrase(text, phrase):
    return re.search(r"\b" + re.escape(phrase) + r"\b", text) is not None


def verbs_of(commands):
    return {split_command(command)[0] for command in commands}


def situation(text):
    """The distinct words of an observation that may tell in what situation the agent is."""
    return frozenset(WORD.findall(text)) - SMALL


def cover_words(sets, allowed, most=3, least=0.1):
    """At most `most` words that one after the other cover most of the sets, each at least the share `least`."""
    left = list(sets)
    chosen = []
    while left and len(chosen) < most:
        counts = defaultdict(int)
        for words in left:
            for word in words & allowed:
                counts[word] += 1
        if not counts:
            break
        best = min(counts, key=lambda word: (-counts[word], word))
        if counts[best] < least * len(sets):
            break
        chosen.append(best)
        left = [words for words in left if best not in words]
    return chosen


def short_plans(commands, longest=4):
    """Cut an ordered list into at most two plans of at most `longest` commands, each with two verbs or more."""
    def fits(group):
        return 2 <= len(group) <= longest and len(verbs_of(group)) >= 2

    count = len(commands)
    if count <= longest:
        return [commands] if fits(commands) else []
    cuts = sorted(range(max(1, count - longest), min(longest, count - 1) + 1), key=lambda k: abs(2 * k - count))
    best = []
    for cut in cuts:
        groups = [group for group in (commands[:cut], commands[cut:]) if fits(group)]
        if len(groups) > len(best):
            best = groups
    if len(best) == 2:
        return best
    # one group has a single verb: give it the command of another verb that is nearest to the border
    for cut in cuts:
        left, right = list(commands[:cut]), list(commands[cut:])
        if fits(left) and len(verbs_of(right)) == 1:
            nearest_first = range(len(left) - 1, -1, -1)
            for k in nearest_first:
                if split_command(left[k])[0] not in verbs_of(right):
                    moved = [left[:k] + left[k + 1:], [left[k]] + right]
                    if fits(moved[0]) and fits(moved[1]):
                        return moved
        elif fits(right) and len(verbs_of(left)) == 1:
            for k in range(len(right)):
                if split_command(right[k])[0] not in verbs_of(left):
                    moved = [left + [right[k]], right[:k] + right[k + 1:]]
                    if fits(moved[0]) and fits(moved[1]):
                        return moved
    return best


def find_chains(actions, useful, goal):
    """{(head of the key, head of the lock): whether the key was taken before} of the unlockings that helped."""
    parts = [split_command(action) for action in actions]
    chains = {}
    for i, (verb, phrases) in enumerate(parts):
        if verb != "unlock" or len(phrases) != 2:
            continue
        lock, key = phrases
        if has_phrase(goal, lock) or has_phrase(goal, key):
            continue
        opened = any(useful[j] and parts[j] == ("open", [lock]) for j in range(i + 1, len(parts)))
        if not useful[i] and not opened:
            continue
        taken = any(parts[j][0] == "take" and parts[j][1][:1] == [key] for j in range(i))
        pair = (head(key), head(lock))
        chains[pair] = chains.get(pair, False) or taken
    return chains


def find_waste(actions, useful, texts, most=40):
    """{verb: word sets of the observations before its useless uses}; texts[i] was seen before actions[i]."""
    waste = defaultdict(list)
    for i, action in enumerate(actions):
        verb = split_command(action)[0]
        if not verb or verb == "go" or useful[i]:
            continue
        if len(waste[verb]) < most:
            waste[verb].append(situation(texts[i]))
    return dict(waste)


def count_go(actions, useful, texts):
    """How many distinct (room, go command) were used, and how many of them were useful."""
    room = ""
    used = {}
    for i, action in enumerate(actions):
        match = ROOM.search(texts[i])
        if match:
            room = match.group(1)
        if action.startswith("go "):
            used[room, action] = used.get((room, action), False) or useful[i]
    return len(used), sum(used.values())


class UsefulCommands(MemoryDesign):
    def __init__(self):
        # dicts: goal, task, commands {text: (useful, position)}, fatal (text or ""), offered {verb: set of heads},
        # winner (verb or ""), chains {(key head, lock head): key was taken before}, waste {verb: [word sets]},
        # command_words (set of all words of commands), all_verbs (set), go (used, useful)
        self.episodes = []

    # ---- learning -------------------------------------------------------------------------------------------

    def _mark(self, init, steps):
        """The actions, for each whether it was useful, and what was offered: {verb: heads}."""
        actions = [clean(step.get("action_took")) for step in steps]
        states = [init] + list(steps)  # states[i] is what was seen before actions[i]
        texts = [clean(state.get("obs")) for state in states]
        valid = [{clean(one) for one in state.get("admissible_commands") or []} for state in states]

        things = set()
        for command in set(actions).union(*valid):
            verb, phrases = split_command(command)
            if verb != "go":
                things.update(phrases)

        offered = defaultdict(set)
        for command in set().union(*valid):
            verb, phrases = split_command(command)
            if verb != "go" and phrases:
                offered[verb].add(head(phrases[0]))

        def visible(index):
            named = set()
            for command in valid[index]:
                named.update(split_command(command)[1])
            return {thing for thing in things if thing in named or has_phrase(texts[index], thing)}

        parts = [split_command(action) for action in actions]

        def is_news(thing, index):
            """Whether a new thing is more than a changed form of what the action was used on."""
            verb, phrases = parts[index]
            if verb == "go":
                return True
            return not any(has_phrase(thing, phrase) or has_phrase(phrase, thing) for phrase in phrases)

        useful = [False] * len(actions)
        seen = visible(0)
        room = ""
        match = ROOM.search(texts[0])
        if match:
            room = match.group(1)
        ways = {(room, command) for command in valid[0] if command.startswith("go ")}
        score = 0.0
        for i in range(len(actions)):
            after = i + 1
            match = ROOM.search(texts[after])
            if match:
                room = match.group(1)
            now_things = visible(after)
            now_ways = {(room, command) for command in valid[after] if command.startswith("go ")}
            now_score = number(steps[i].get("scores"))
            news = any(is_news(thing, i) for thing in now_things - seen)
            useful[i] = bool(now_score > score or news or now_ways - ways)
            seen |= now_things
            ways |= now_ways
            score = now_score

        first_valid = {}
        for i, commands in enumerate(valid):
            for command in commands:
                first_valid.setdefault(command, i)
        for i in range(len(actions) - 1, -1, -1):
            verb, phrases = parts[i]
            if not useful[i] or verb == "go" or not phrases:
                continue
            start = min(first_valid.get(actions[i], i), i)
            for j in range(start - 1, -1, -1):  # the last command on the same thing before it was possible
                if parts[j][0] != "go" and set(parts[j][1]) & set(phrases):
                    useful[j] = True
                    break
        return actions, useful, dict(offered)

    async def general_update(self, trajectory: Trajectory) -> None:
        init = trajectory.init or {}
        steps = list(trajectory.steps or [])
        if not steps:
            print("episode without steps")
            return
        actions, useful, offered = self._mark(init, steps)
        commands = {}
        for position, (action, good) in enumerate(zip(actions, useful)):
            if not action or action.startswith("go "):
                continue
            old = commands.get(action)
            if old is None or (good and not old[0]):
                commands[action] = (good, position)
        reward = number(trajectory.reward)
        last = steps[-1]
        fatal = ""
        if reward < 1 and last.get("dones") and "***" in str(last.get("obs") or ""):
            fatal = actions[-1]
            if fatal in commands:
                commands[fatal] = (False, commands[fatal][1])
        winner = split_command(actions[-1])[0] if reward >= 1 else ""
        goal = clean(init.get("goal"))
        chains = find_chains(actions, useful, goal)

        states = [init] + steps
        texts = [clean(state.get("obs")) for state in states]
        every_command = {action for action in actions if action}
        for state in states:
            every_command.update(clean(one) for one in state.get("admissible_commands") or [])
        command_words = set()
        for command in every_command:
            command_words.update(re.findall(r"[a-z]+", command))
        waste = find_waste(actions, useful, texts)
        go = count_go(actions, useful, texts)

        self.episodes.append({"goal": goal, "task": goal + " | " + clean(init.get("obs")), "commands": commands,
                              "fatal": fatal, "offered": offered, "winner": winner, "chains": chains,
                              "waste": waste, "command_words": command_words,
                              "all_verbs": verbs_of(every_command), "go": go})
        good = [command for command, (is_good, _) in commands.items() if is_good]
        untried = sorted(set(offered) - verbs_of(commands))
        print(f"reward {reward:.2f}, {len(steps)} steps, {len(good)} of {len(commands)} commands useful, "
              f"go {go[1]} of {go[0]}: {'; '.join(good[:12])}" + (f"; fatal: {fatal}" if fatal else "")
              + (f"; chains: {', '.join(f'{lock} with {key}' for key, lock in chains)}" if chains else "")
              + (f"; offered, not tried: {', '.join(untried)}" if untried else ""))

    # ---- retrieval ------------------------------------------------------------------------------------------

    def _same_kind(self, goal):
        """Episodes with the very same goal; else those whose goal belongs to one task alone."""
        same = [one for one in self.episodes if one["goal"] == goal]
        if same:
            return same
        tasks = defaultdict(set)
        for one in self.episodes:
            tasks[one["goal"]].add(one["task"])
        return [one for one in self.episodes if len(tasks[one["goal"]]) == 1]

    def _chains(self, pool, first_obs, risky):
        """The chains of key, lock and opening that most tasks had, those of the first observation before others."""
        chain_tasks, chain_count, chain_taken = defaultdict(set), defaultdict(int), defaultdict(bool)
        for one in pool:
            for pair, taken in one["chains"].items():
                chain_tasks[pair].add(one["task"])
                chain_count[pair] += 1
                chain_taken[pair] = chain_taken[pair] or taken
        if len({task for tasks in chain_tasks.values() for task in tasks}) < 2:
            return {}
        order = sorted(chain_tasks, key=lambda pair: (not any(has_phrase(first_obs, name) for name in pair),
                                                      -len(chain_tasks[pair]), -chain_count[pair], pair))
        found = {}
        for key, lock in order[:3]:
            commands = [f"unlock {lock} with {key}", f"open {lock}"]
            if chain_taken[key, lock] and "take" not in risky:
                commands.insert(0, f"take {key}")
            found[f"{lock} with {key}"] = commands
        return found

    def _situations(self, pool, verbs, goal):
        """{verb: words that cover most of the observations before its useless uses}, for the 6 most wasted verbs."""
        command_words, all_verbs = set(), set()
        for one in pool:
            command_words |= one["command_words"]
            all_verbs |= one["all_verbs"]
        starts = tuple(sorted({verb[:4] for verb in all_verbs if len(verb) >= 4}))
        goal_words = set(re.findall(r"[a-z]+", goal))
        sets, word_tasks = {}, {}
        for verb in verbs:
            sets[verb], word_tasks[verb] = [], defaultdict(set)
            for one in pool:
                for words in one["waste"].get(verb, []):
                    sets[verb].append(words)
                    for word in words:
                        word_tasks[verb][word].add(one["task"])
        found = {}
        for verb in sorted(verbs, key=lambda verb: (-len(sets[verb]), verb))[:6]:
            allowed = {word for word, tasks in word_tasks[verb].items()
                       if len(tasks) >= 2 and word not in command_words and word not in goal_words
                       and not (starts and word.startswith(starts))}
            found[verb] = cover_words(sets[verb], allowed)
        return found

    async def general_retrieve(self, trajectory: Trajectory):
        init = trajectory.init or {}
        goal = clean(init.get("goal"))
        first_obs = clean(init.get("obs"))
        pool = self._same_kind(goal)
        if not pool:
            return {}

        verb_tries, verb_good, verb_tasks = defaultdict(int), defaultdict(int), defaultdict(set)
        pair_tries, pair_good, pair_tasks = defaultdict(int), defaultdict(int), defaultdict(set)
        whole_tasks, whole_at, whole_tries = defaultdict(set), defaultdict(list), defaultdict(int)
        head_good, head_fatal, verb_fatal = defaultdict(int), defaultdict(int), defaultdict(int)
        whole_fatal = defaultdict(int)
        offered_heads, offered_tasks = defaultdict(set), defaultdict(set)
        go_used, go_good, go_tasks = 0, 0, set()
        for one in pool:
            used, good_ways = one["go"]
            go_used += used
            go_good += good_ways
            if good_ways:
                go_tasks.add(one["task"])
            for verb, names in one["offered"].items():
                offered_heads[verb] |= names
                offered_tasks[verb].add(one["task"])
            for command, (good, position) in one["commands"].items():
                verb, phrases = split_command(command)
                verb_tries[verb] += 1
                verb_good[verb] += good
                if good:
                    verb_tasks[verb].add(one["task"])
                # what only the goal of that other task named belongs to that task
                if any(has_phrase(one["goal"], phrase) and not has_phrase(goal, phrase) for phrase in phrases):
                    continue
                if phrases:
                    whole_tries[command] += 1
                if good and phrases:
                    whole_tasks[command].add(one["task"])
                    whole_at[command].append(position)
                for name in {head(phrase) for phrase in phrases}:
                    pair_tries[verb, name] += 1
                    pair_good[verb, name] += good
                    head_good[name] += good
                    if good:
                        pair_tasks[verb, name].add(one["task"])
            if one["fatal"]:
                verb, phrases = split_command(one["fatal"])
                verb_fatal[verb] += 1
                whole_fatal[one["fatal"]] += 1
                if phrases:
                    head_fatal[head(phrases[0])] += 1

        total = sum(verb_tries.values())
        if not total:
            return {}
        base = sum(verb_good.values()) / total
        risky = {verb for verb, count in verb_fatal.items() if count > 0}
        lost = [name for name in sorted(head_fatal, key=lambda name: (-head_fatal[name], name))
                if not has_phrase(goal, name)
                and (head_good[name] == 0 or (head_fatal[name] >= 2 and head_fatal[name] >= head_good[name]))]

        # verbs that brought nothing; a verb that ended a won game is never one of them
        winners = {one["winner"] for one in pool if one["winner"]}
        wasted = [verb for verb in sorted(verb_tries, key=lambda verb: -verb_tries[verb])
                  if verb_tries[verb] >= 5 and verb_good[verb] / verb_tries[verb] <= 0.3 * base]
        wasted += [verb for verb in sorted(offered_heads)
                   if verb not in wasted and verb_good[verb] == 0
                   and len(offered_heads[verb]) >= 3 and len(offered_tasks[verb]) >= 2]
        wasted = [verb for verb in wasted if verb not in winners]

        result = {}

        # 1. commands that were useful word for word in several tasks, in their usual order, as short plans
        shared = [command for command in whole_tasks if len(whole_tasks[command]) >= 2
                  and len(whole_at[command]) >= 0.5 * whole_tries[command]
                  and split_command(command)[0] not in risky
                  and not whole_fatal.get(command, 0)
                  and not any(head(phrase) in lost for phrase in split_command(command)[1])]
        shared.sort(key=lambda command: (-len(whole_tasks[command]), command))
        shared = shared[:8]
        shared.sort(key=lambda command: sum(whole_at[command]) / len(whole_at[command]))
        plans = dict(zip(["first", "later"], short_plans(shared)))
        if plans:
            result["plans"] = plans
        elif len(shared) >= 2:
            print(f"no plan from: {'; '.join(shared)}")

        # 2. key, lock and opening by sort of thing
        chains = self._chains(pool, first_obs, risky)
        if chains:
            result["chains"] = chains

        # 3. sorts of things on which a verb helped; a verb that lost a game is not named
        good_pairs = [pair for pair in pair_tasks if len(pair_tasks[pair]) >= 2 and pair[1] not in lost
                      and pair_good[pair] / pair_tries[pair] >= 1.2 * base]
        pairs = [pair for pair in good_pairs if pair[0] not in risky]
        pairs.sort(key=lambda pair: (-len(pair_tasks[pair]), -pair_good[pair] / pair_tries[pair], pair))
        helped = defaultdict(list)
        for verb, name in pairs[:24]:
            if len(helped[verb]) < 8:
                helped[verb].append(name)
        if helped:
            result["helped"] = dict(helped)

        # 4. verbs as such, and go by its distinct uses in a room
        notes = []
        for verb in sorted(verb_tries, key=lambda verb: -verb_tries[verb]):
            rate = verb_good[verb] / verb_tries[verb]
            if len(verb_tasks[verb]) >= 2 and rate >= 1.3 * base and not verb_fatal[verb]:
                notes.append(f"{verb}.")
        if len(go_tasks) >= 2 and go_good / go_used >= 1.3 * base:
            notes.append("go.")
        if notes:
            result["good"] = notes

        # 5. what brought nothing: the verb, also with words of the situations in which it was wasted, or single
        # things where the verb helped on others; a thing on which any verb was useful is spared
        good_names = defaultdict(set)
        for verb, name in good_pairs:
            good_names[verb].add(name)
        plain = [verb for verb in wasted if verb not in good_names]
        situations = self._situations(pool, plain, goal)
        warnings = []
        for verb in wasted:
            if verb not in good_names:
                warnings.append(f"Avoid {verb}.")
                warnings += [f"Avoid {verb} at {word}." for word in situations.get(verb, [])]
                continue
            bad = [name for other, name in pair_tries
                   if other == verb and head_good[name] == 0 and pair_tries[verb, name] >= 2
                   and name not in good_names[verb] and not has_phrase(goal, name)]
            bad.sort(key=lambda name: (-pair_tries[verb, name], name))
            warnings += [f"Avoid {verb} {name}." for name in bad[:4]]
        if warnings:
            result["wasted"] = warnings

        # 6. things that ended a game
        if lost:
            result["lost"] = lost[:8]
        return result
