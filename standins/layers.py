"""The layers that `sketch` writes memory designs from: what is here is copied into the designs.

Promises: each layer learns from the words of finished episodes and from nothing else, in one pass over the steps of
each; it knows no domain. It does not promise that a layer helps: the search is to find that out.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign

LAYERS = ["Plans"]
TOP = 5  # items that a layer tells at most
LENGTH = 12  # steps of a plan or an episode that are told at most
RATE = 0.3  # share of cases from which something is told
TRUST = 2.0  # cases that count as seen before the first one: the more, the later a rate is believed
SMALL = set(["a", "an", "the", "of", "to", "in", "on", "at", "by", "for", "from", "with", "and", "or", "is", "are", "it", "you", "your", "that", "this"])


def words(text):
    """The words of a text, without numbers and small words."""
    return [word for word in re.findall(r"[a-z]+", str(text).lower()) if word not in SMALL]


def kind(action):
    """A command without the numbers of things."""
    return " ".join(re.sub(r"\d+", " ", action).split()) or action


def text_of(record):
    """What a record shows, as text."""
    return "\n".join(value for key, value in record.items() if isinstance(value, str) and key not in ("goal", "action_took"))


class Episode:
    """What all layers use of a finished episode."""

    def __init__(self, trajectory):
        self.goal = words(trajectory.init.get("goal", ""))
        self.won = trajectory.reward >= 0.5
        self.actions = [str(step.get("action_took", "")) for step in trajectory.steps]
        self.texts = [text_of(record) for record in (trajectory.init, *trajectory.steps)]
        seen, self.news = set(words(self.texts[0])), []  # for each step: words that were not seen before
        for action, text in zip(self.actions, self.texts[1:]):
            fresh = set(words(text)) - seen
            self.news.append(fresh - set(words(action)))
            seen |= fresh
        scores = [0.0, *(float(step.get("scores") or 0) for step in trajectory.steps)]
        self.gained = [after > before for before, after in zip(scores, scores[1:])]


class Episodes:
    """Whole episodes; tells the last steps of those with the likest goal."""

    def __init__(self):
        self.kept = []

    def learn(self, episode):
        steps = [{"action": action, "observation": text[:300]} for action, text in zip(episode.actions, episode.texts[1:])]
        self.kept.append((episode.goal, episode.won, steps[-LENGTH:]))

    def tell(self, goal, text):
        best = sorted(self.kept, key=lambda one: (-len(set(one[0]) & set(goal)), not one[1]))
        return [{"goal": " ".join(old), "steps": steps, "success": won} for old, won, steps in best[:TOP]]


class Plans:
    """The shortest won episode with the likest goal: its commands on what the goal names, in the words of the new goal."""

    def __init__(self):
        self.won = []

    def learn(self, episode):
        if episode.won:
            aims = set(episode.goal)
            named = [kind(action) for action in episode.actions if aims & set(words(action)[1:])]
            told = named if len(named) > 1 else [kind(action) for action in episode.actions[-2:]]
            last = {action: number for number, action in enumerate(told)}  # what was done again counts where it was last
            self.won.append((episode.goal, sorted(last, key=last.get)[-LENGTH:]))

    def tell(self, goal, text):
        best = sorted(self.won, key=lambda one: (-len(set(one[0]) & set(goal)) / (len(set(one[0]) | set(goal)) or 1), len(one[1])))
        plans = []
        for old, plan in best:
            new = {a: b for a, b in zip(old, goal) if a not in goal} if len(old) == len(goal) else {}
            plans.append([" ".join(new.get(word, word) for word in action.split()) for action in plan])
        return plans[0] if plans else []


class Places:
    """Where things of the goal were found: the commands that brought their names into sight."""

    def __init__(self):
        self.found, self.done = defaultdict(Counter), Counter()

    def learn(self, episode):
        for action, news in dict(zip(map(kind, episode.actions), episode.news)).items():
            self.done[action] += 1
            for word in news:
                self.found[word][action] += 1

    def tell(self, goal, text):
        told = {}
        for word in dict.fromkeys(goal):
            rates = {action: n / (self.done[action] + TRUST) for action, n in self.found[word].items()} if word in self.found else {}
            least = (1 + RATE) / 2 * max(rates.values(), default=0.0)
            best = sorted((action for action in rates if rates[action] >= least), key=lambda action: (-rates[action], action))
            if best:
                told[word] = best[:TOP]
        return told


class Scoring:
    """Commands after which the score rose, oftenest for the times that they were given; the last ones of a win as well."""

    def __init__(self):
        self.tried, self.scored = Counter(), Counter()

    def learn(self, episode):
        self.tried.update(map(kind, episode.actions))
        self.scored.update(kind(action) for action, gained in zip(episode.actions, episode.gained) if gained)

    def tell(self, goal, text):
        rates = {action: n / (self.tried[action] + TRUST) for action, n in self.scored.items()}
        best = sorted((action for action in rates if rates[action] >= RATE), key=lambda action: (-rates[action], action))
        return best[:TOP]


class Targets:
    """Which thing to reach: what the first observation says of the things that won episodes ended on."""

    def __init__(self):
        self.told, self.good = Counter(), Counter()  # lines with one of their words left open

    def learn(self, episode):
        if episode.won and episode.actions:
            near = [line for line in episode.texts[-2].splitlines() if set(words(episode.actions[-1])) & set(words(line))]
            ended = {words(line)[0] for line in near if words(line) and " 1 " in line} or {words(line)[0] for line in near if words(line)}
            for form, word in self.forms(episode.texts[0]):
                self.told[form] += 1
                self.good[form] += word in ended

    def forms(self, text):
        lines = [line for line in dict.fromkeys(text.lower().splitlines()) if len(line) < 80]
        return [(re.sub(rf"\b{word}\b", "_", line), word) for line in lines for word in dict.fromkeys(words(line))]

    def tell(self, goal, text):
        rates = Counter()
        for form, word in self.forms(text):
            rates[word] = max(rates[word], self.good[form] / (self.told[form] + TRUST))
        return [f"go to {word}" for word, rate in rates.most_common(TOP) if rate >= RATE]


class Waste:
    """First words of commands that hardly ever brought anything new, and no score."""

    def __init__(self):
        self.tries, self.news, self.good = Counter(), Counter(), set()

    def learn(self, episode):
        for action, news, gained in zip(episode.actions, episode.news, episode.gained):
            verb = action.split(" ")[0]
            self.tries[verb] += 1
            self.news[verb] += bool(news)
            self.good |= {verb} if gained else set()

    def tell(self, goal, text):
        bad = [verb for verb, n in self.tries.items() if n >= 10 * TRUST and verb not in self.good]
        return [f"avoid {verb}" for verb in sorted(bad) if self.news[verb] < RATE / 10 * self.tries[verb]][: 3 * TOP]


class Dangers:
    """Last commands of lost episodes that ended early."""

    def __init__(self):
        self.tries, self.last, self.won = Counter(), [], set()

    def learn(self, episode):
        self.tries.update(map(kind, episode.actions))
        last = kind(episode.actions[-1]) if episode.actions else ""
        if episode.won:
            self.won.add(last)
        else:
            self.last.append((len(episode.actions), last))

    def tell(self, goal, text):
        longest = max((length for length, _ in self.last), default=0)
        ends = Counter(last for length, last in self.last if length < longest and last not in self.won)
        risks = {action: n / (self.tries[action] + TRUST) for action, n in ends.items()}
        bad = sorted((action for action in risks if risks[action] >= RATE), key=lambda action: (-risks[action], action))
        return [f"never {action}" for action in bad[:TOP]]


class Memory(MemoryDesign):
    """Layers that learn side by side; each tells what it has under its name."""

    def __init__(self):
        self.layers = {name: globals()[name]() for name in LAYERS}

    async def general_update(self, trajectory):
        episode = Episode(trajectory)
        for layer in self.layers.values():
            layer.learn(episode)

    async def general_retrieve(self, trajectory):
        goal, text = words(trajectory.init.get("goal", "")), text_of(trajectory.init)
        told = {name.lower(): layer.tell(goal, text) for name, layer in self.layers.items()}
        return {name: part for name, part in told.items() if part}
