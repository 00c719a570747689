"""Memory design 2e420384e9de, learned by ALMA on alfworld, candidate 4.1 of its search.
Lineage, first design first, with the success on the learning set: 1.1 (1012195f01d1, 80.2 %) > 2.1 (b45b91e36611, 86.5 %) > 3.1 (1dbb2a68ba7f, 89.6 %) > 4.1 (2e420384e9de, 91.7 %)
learning set, static: 91.7 % ± 0.0 (standard error), +72.9 [+61.5, +83.3] points to no memory [95 %]
Written by: a large language model, working as a coding assistant's helper: for each candidate a fresh context, which read the candidate's requests (a plan, then a module) and nothing else; no answer was edited. Labels of the run: offline, manual.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign, Trajectory

TOKEN = re.compile(r"[a-z]+ \d+")
TAKE = re.compile(r"^take (.+ \d+) from (.+ \d+)$")
MOVE = re.compile(r"^(?:move|put) (.+? \d+) (?:to|in/on|in|on) (.+ \d+)$")
TREAT = re.compile(r"^([a-z]+) (.+ \d+) with (.+ \d+)$")
SINGLE = re.compile(r"^([a-z]+) ([a-z]+ \d+)$")
SAME_WORD = {"hot": "heat", "cold": "cool"}  # adjectives of goals, read as the verb of the command
STOPS = 40    # places in a find-plan
STANDS = 4    # places of the tool that end a carry-plan
FRONT = 3     # other places of the destination's kind that begin the find-plan of a pair goal
DECAY = 0.85  # what the next place of the same kind is worth
REPORT = 48   # episodes between two printed lines


def kind(name):
    return re.sub(r"\s*\d+$", "", str(name).strip().lower())


def number(name):
    match = re.search(r"(\d+)$", str(name).strip())
    return int(match.group(1)) if match else 0


def goal_words(init):
    text = str(init.get("goal") or "")
    if not text:
        text = str(init.get("obs") or "")
        text = text[text.find("Your task is to"):] if "Your task is to" in text else ""
    text = text.lower().replace("your task is to", " ")
    return [SAME_WORD.get(word, word) for word in re.findall(r"[a-z]+", text)]


def room_places(init):
    actions = init.get("actions_list") or []
    found = [a[6:].strip() for a in actions if isinstance(a, str) and a.startswith("go to ")]
    if not found:
        first = str(init.get("obs") or "").split("\n\n")[0]
        found = re.findall(r"\ban? ([a-z]+ \d+)", first)
    return found


class CarrySpans(MemoryDesign):
    def __init__(self):
        self.episodes = 0
        self.wins = 0
        self.visits = Counter()                 # kind of place -> places looked into
        self.found = defaultdict(Counter)       # kind of thing -> kind of place -> places it was seen in
        self.items = Counter()                  # kind of place -> things seen there, of all kinds
        self.closed = Counter()                 # kind of place -> arrivals at a closed one
        self.opened = Counter()                 # kind of place -> successful openings
        self.appliance = defaultdict(Counter)   # verb -> kind of place -> episodes in which it was offered
        self.shapes = Counter()                 # ("take", "clean", "move") -> spans
        self.phrase = defaultdict(Counter)      # verb -> what is observed after it, up to the thing
        self.goal_count = Counter()             # word -> goals
        self.uses = Counter()                   # verb -> valid uses
        self.news = Counter()                   # verb -> uses that showed something unseen
        self.handling = set()                   # verbs that carry or treat
        self.last_verbs = Counter()             # verb -> wins that it ended
        self.verb_kinds = defaultdict(set)      # verb -> kinds that it was applied to, alone
        self.records = []                       # what digest judges with all that is known
        # made by digest
        self.digested = -1
        self.ended = Counter()                  # goal word -> episodes that a right delivery ended
        self.unended = Counter()                # goal word -> episodes with right deliveries, none of which ended it
        self.tool_wins = Counter()              # verb -> wins in which it was applied to the tool of the goal
        self.tool_losses = Counter()            # the same for lost episodes
        self.tool_won = 0                       # wins with a tool in the goal
        self.tool_go_last = 0                   # those that a walk ended
        self.back = 0                           # untreated deliveries that won, of things from the destination's kind
        self.fresh = 0                          # the same, of things from another kind of place
        self.spread = 0                         # pair goals: right things at different places only, which ended nothing
        self.together_lost = 0                  # pair goals: two right things at one place, and yet not won

    # ---- reading a goal with what was learned ----
    def parse_goal(self, words, places):
        """(thing, destination, tool, treatments) as kinds; None where there is none."""
        kinds = {kind(p) for p in places}
        dest = None
        for word in words:
            if word in kinds:
                dest = word
        need = []
        for word in words:
            if word in self.appliance and word not in need:
                need.append(word)
        things = [w for w in words if w in self.found and w != dest and w not in need]
        if not things:
            rest = [w for w in words if w != dest and w not in need and len(w) > 2]
            if rest:
                things = [min(rest, key=lambda w: self.goal_count[w])]
        thing = things[0] if things else None
        tool = things[1] if len(things) > 1 and dest is None else None
        return thing, dest, tool, need

    def digest(self):
        """Judge the episodes with the goals read by the whole memory; once for each state of it."""
        if self.digested == self.episodes:
            return
        self.ended, self.unended = Counter(), Counter()
        self.tool_wins, self.tool_losses = Counter(), Counter()
        self.tool_won = self.tool_go_last = 0
        self.back = self.fresh = 0
        self.spread = self.together_lost = 0
        parsed = []
        for record in self.records:
            thing, dest, tool, need = self.parse_goal(record["words"], record["places"])
            parsed.append((thing, dest, need))
            right = [(ended, origin) for item, place, done, ended, origin in record["deliveries"]
                     if item == thing and place == dest and set(need) <= done]
            if right:
                counter = self.ended if any(ended for ended, _ in right) else self.unended
                for word in set(record["words"]) - {thing, dest}:
                    counter[word] += 1
                if not need:
                    for ended, origin in right:
                        if ended and origin:
                            if origin == dest:
                                self.back += 1
                            else:
                                self.fresh += 1
            if tool:
                if record["won"]:
                    self.tool_won += 1
                    if record["last_verb"] == "go":
                        self.tool_go_last += 1
                for verb in {v for v, item in record["singles"] if item == tool}:
                    (self.tool_wins if record["won"] else self.tool_losses)[verb] += 1
        for record, (thing, dest, need) in zip(self.records, parsed):
            if thing and dest and self.too_few_words(record["words"], thing, dest, need):
                self.judge_pair(record, thing, dest, need)
        self.digested = self.episodes

    def judge_pair(self, record, thing, dest, need):
        """Count whether right things lay at one place or at several, by the moves of an episode."""
        lying = defaultdict(set)   # place -> right things that were put there and not taken again
        ever = defaultdict(set)    # place -> right things that were ever put there
        together = ended_once = False
        for act, item, place, done, ended in record["events"]:
            for things in lying.values():
                things.discard(item)
            if act == "move" and kind(item) == thing and kind(place) == dest and set(need) <= done:
                lying[place].add(item)
                ever[place].add(item)
                together = together or len(lying[place]) > 1
                ended_once = ended_once or ended
        different = set().union(*ever.values())
        if together and not record["won"]:
            self.together_lost += 1
        if len(different) > 1 and all(len(things) < 2 for things in ever.values()) and not ended_once:
            self.spread += 1

    def operating_verb(self):
        """The verb that works the tool of a goal, or None."""
        self.digest()
        if not self.tool_wins:
            return None
        top = max(self.tool_wins.values())

        def order(verb):
            won = self.tool_wins[verb]
            share = won / (won + self.tool_losses[verb])
            return len(self.verb_kinds.get(verb) or ()), -won, -share, verb

        return min((v for v, count in self.tool_wins.items() if count >= 0.8 * top), key=order)

    def idle_verbs(self):
        if self.wins < 2:
            return []
        operating = self.operating_verb()
        return sorted(verb for verb, count in self.uses.items()
                      if count >= 10 and self.news[verb] < 0.03 * count
                      and verb not in self.handling and not self.last_verbs[verb] and verb != operating)

    # ---- learning ----
    async def general_update(self, trajectory: Trajectory) -> None:
        init = trajectory.init or {}
        steps = trajectory.steps or []
        won = float(trajectory.reward or 0) >= 0.5
        places = room_places(init)
        place_set = set(places)
        known = set(places) | set(TOKEN.findall(str(init.get("obs") or "")))
        valid_now = init.get("actions_list") or []
        visited, contents, offers, moved = set(), set(), set(), set()
        treated = defaultdict(set)
        origins = {}     # thing -> kind of place that it was last taken from
        deliveries = []  # (kind of thing, kind of place, treatments, whether it ended in a win, kind it came from)
        events = []      # ("take" or "move", thing, place, treatments, whether it ended in a win), in order
        singles = set()  # (verb, kind of thing)
        span = []
        last_verb = ""

        for step in steps:
            action = str(step.get("action_took") or "").strip()
            obs = str(step.get("obs") or "")
            valid = bool(action) and (not valid_now or action in valid_now) and "nothing happens" not in obs.lower()
            valid_now = step.get("actions_list") or []
            tokens = set(TOKEN.findall(obs))
            fresh = tokens - known
            known |= tokens
            for offer in valid_now:
                match = TREAT.match(str(offer))
                if match and match.group(3) in place_set:
                    offers.add((match.group(1), kind(match.group(3))))
            if not valid:
                continue
            verb = action.split()[0]
            last_verb = verb
            self.uses[verb] += 1
            if fresh:
                self.news[verb] += 1

            here = None
            if action.startswith("go to "):
                here = action[6:].strip()
                if "is closed" in obs:
                    self.closed[kind(here)] += 1
                    here = None
            elif action.startswith("open "):
                here = action[5:].strip()
                self.opened[kind(here)] += 1
            if here is not None and here in place_set:
                visited.add(here)
                if "you see" in obs:
                    for item in TOKEN.findall(obs.split("you see", 1)[1]):
                        if item not in moved and item not in place_set:
                            contents.add((kind(item), here))

            take, move, treat = TAKE.match(action), MOVE.match(action), TREAT.match(action)
            thing = None
            if take:
                thing = take.group(1)
                moved.add(thing)
                origins[thing] = kind(take.group(2))
                events.append(("take", thing, take.group(2), set(), False))
                span = ["take"]
            elif move:
                thing = move.group(1)
                if span:
                    self.shapes[tuple(span + ["move"])] += 1
                span = []
                ended = won and bool(step.get("dones"))
                deliveries.append((kind(thing), kind(move.group(2)), set(treated[thing]),
                                   ended, origins.get(thing, "")))
                events.append(("move", thing, move.group(2), set(treated[thing]), ended))
            elif treat and treat.group(3) in place_set:
                thing = treat.group(2)
                treated[thing].add(verb)
                offers.add((verb, kind(treat.group(3))))
                if span and verb not in span:
                    span.append(verb)
            else:
                single = SINGLE.match(action)
                if single:
                    singles.add((verb, kind(single.group(2))))
            if thing is not None:
                self.handling.add(verb)
                at = obs.find(thing)
                if 0 < at < 60:
                    self.phrase["move" if move else verb][obs[:at]] += 1

        # what this episode adds up to
        self.episodes += 1
        for place in visited:
            self.visits[kind(place)] += 1
        for item, place in contents:
            self.found[item][kind(place)] += 1
            self.items[kind(place)] += 1
        for verb, place in offers:
            self.appliance[verb][place] += 1
        for verb, item in singles:
            self.verb_kinds[verb].add(item)
        words = goal_words(init)
        for word in set(words):
            self.goal_count[word] += 1
        if won:
            self.wins += 1
            if last_verb:
                self.last_verbs[last_verb] += 1
        self.records.append({"words": words, "places": places, "won": won, "last_verb": last_verb,
                             "deliveries": deliveries, "events": events, "singles": singles})
        if self.episodes % REPORT == 0:
            self.digest()
            empty = sorted(k for k in self.visits if not self.items[k])
            print(f"{self.episodes} episodes: pair goals spread {self.spread}, together and lost "
                  f"{self.together_lost}; kinds of place always empty: {', '.join(empty) or 'none'}")

    # ---- answering ----
    def shuts(self, k):
        """Whether places of this kind were met closed and could be opened."""
        return self.closed[k] >= 2 and self.opened[k] >= 1

    def ranked_kinds(self, thing, kinds):
        seen = self.found.get(thing) or {}
        rate = {k: seen.get(k, 0) / (self.visits[k] + 1.0) for k in kinds}
        return sorted((k for k in rate if rate[k] > 0), key=lambda k: (-rate[k], k))

    def ranked_places(self, thing, places, last=None, only_seen=False):
        """Places of the room, best first; then kinds that were always empty; those of the kind `last` at the end."""
        seen = self.found.get(thing) or {}
        mean = min(1.0, sum(self.items.values()) / (sum(self.visits.values()) + 1.0))
        nth = Counter()
        scored = []
        for place in sorted(set(places), key=lambda p: (kind(p), number(p))):
            k = kind(place)
            if only_seen and (not self.visits[k] or not seen.get(k, 0)):
                continue
            usual = min(1.0, self.items[k] / (self.visits[k] + 1.0)) if self.visits[k] else mean
            score = (seen.get(k, 0) + 0.1 * usual) / (self.visits[k] + 1.0)
            scored.append((k == last, score <= 0, -score * DECAY ** nth[k], k, number(place), place))
            nth[k] += 1
        return [one[-1] for one in sorted(scored)]

    def too_few_words(self, words, thing, dest, need):
        return [word for word in dict.fromkeys(words)
                if word not in (thing, dest) and word not in need
                and self.unended[word] >= 2 and not self.ended[word]]

    def one_is_too_few(self, words, thing, dest, need):
        """The words of the goal with which one right delivery never ended a task."""
        self.digest()
        return self.too_few_words(words, thing, dest, need)

    def span_order(self, need):
        fitting = [(count, shape) for shape, count in self.shapes.items() if set(shape[1:-1]) == set(need)]
        if fitting:
            return list(max(fitting)[1])
        if self.shapes:
            return ["take"] + list(need) + ["move"]
        return []

    async def general_retrieve(self, trajectory: Trajectory):
        if not self.episodes:
            return ""
        self.digest()
        init = trajectory.init or {}
        places = room_places(init)
        kinds = sorted({kind(p) for p in places})
        words = goal_words(init)
        thing, dest, tool, need = self.parse_goal(words, places)

        def named(k):  # the first place of this kind in the room
            return next((p for p in sorted(places) if kind(p) == k), k)

        def after(verb):
            best = self.phrase[verb].most_common(1) if verb in self.phrase else []
            return best[0][0] + thing if best else ""

        find, carry, facts = [], [], []
        carry_key = ""
        if thing:
            sources = self.ranked_kinds(thing, kinds)
            if dest and not need and self.fresh > self.back:
                sources = [k for k in sources if k != dest]  # what won came from elsewhere
            if not tool:
                for k in sources[:4]:
                    facts.append(f"{thing} seen on {k}.")
            take = f"take {thing} from {sources[0]}" if sources else f"take {thing}"
            few = self.one_is_too_few(words, thing, dest, need) if dest else []
            stops = self.ranked_places(thing, places, last=dest)[:STOPS]
            front = []
            if few and not self.together_lost and self.closed[dest] < 2:
                # both things belong at one place: its neighbours are seen first, so that they are no news later
                target = named(dest)
                same = sorted({p for p in places if kind(p) == dest}, key=number)
                front = [p for p in same if p != target][:FRONT]
            for place in front + [p for p in stops if p not in front]:
                find.append(f"go to {place}")
                if self.shuts(kind(place)):
                    find.append(f"open {place}")
            if find:
                find.append(take)
            for k in dict.fromkeys(sources[:4] + ([dest] if dest else []) + kinds):
                if self.shuts(k):
                    facts.append(f"You arrive at the {k}: open {k}.")

            if dest:
                order = self.span_order(need)
                body = []
                previous = "take"
                for verb in order:
                    if verb == "take":
                        body.append(take)
                        continue
                    if verb == "move":
                        where = dest
                    else:
                        where = next((k for k, _ in self.appliance[verb].most_common() if k in kinds), None)
                    if where is None:
                        continue
                    body.append(f"go to {named(where)}")
                    if after(previous):
                        facts.append(f"{after(previous)}: go to {where}.")
                    if verb == "move":
                        if self.closed[where] and self.opened[where]:
                            body.append(f"open {named(where)}")
                        body.append(f"move {thing} to {named(where)}")
                    else:
                        body.append(f"{verb} {thing} with {named(where)}")
                        facts.append(f"{verb} {thing} with {where}.")
                    previous = verb
                if body:
                    carry = list(body)
                    carry_key = " ".join([thing] + need + [dest])
                    if few:
                        again = [p for p in stops if kind(p) != dest][:1]
                        carry += [f"go to {p}" for p in again] + body
                        carry_key = " ".join(few + [thing] + need + [dest])
                        if after("move"):
                            for k in [k for k in sources if k != dest][:2]:
                                facts.append(f"{after('move')}: go to {k}.")
            elif tool:
                verb = self.operating_verb()
                if verb:
                    if after("take"):
                        for k in self.ranked_kinds(tool, kinds)[:2]:
                            facts.append(f"{after('take')}: go to {k}.")
                    stands = self.ranked_places(tool, places, only_seen=True)
                    others = [p for p in self.ranked_places(tool, places)
                              if p not in stands and self.closed[kind(p)] < 2]
                    # the first two are not valid until the tool or the thing is at hand: they wait in front
                    carry = [f"{verb} {tool}", take]
                    for place in stands:
                        carry.append(f"go to {place}")
                        if self.shuts(kind(place)):
                            carry.append(f"open {place}")
                    carry += [f"go to {p}" for p in others]
                    if 4 * self.tool_go_last >= self.tool_won:
                        carry += [f"go to {p}" for p in stands[:STANDS]]
                    carry_key = f"{thing} {tool}"

        answer = {}
        if len(carry) > 1:
            answer[carry_key] = carry
        if len(find) > 1:
            answer[f"find {thing}"] = find
        if facts:
            answer["facts"] = list(dict.fromkeys(facts))
        idle = self.idle_verbs()
        if idle:
            answer["avoid"] = [f"Avoid {verb}." for verb in idle]
        return answer or ""
