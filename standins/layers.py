"""The layers that `sketch` writes memory designs from: what is here is copied into the designs.

Promises: each layer learns from the words of finished episodes and from nothing else, in one pass over the steps of
each; it knows no domain. It does not promise that a layer helps: the search is to find that out.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign

LAYERS = ["Plans"]
TOP = 5  # items that a layer tells at most
LENGTH = 12  # steps of a plan that are told at most
RATE = 0.3  # share of cases from which something is told
TRUST = 2.0  # cases that count as seen before the first one: the more, the later a rate is believed
SMALL = " a an the of to in on at by for from with and or is are it you "


def words(text):
    """The words of a text, without numbers and small words."""
    return [word for word in re.findall(r"[a-z]+", str(text).lower()) if f" {word} " not in SMALL]


def kind(action):
    """A command without the numbers of things."""
    return " ".join(re.sub(r"\d+", " ", action).split()) or action


def text_of(record):
    """What a record shows, as text."""
    shown = (value for key, value in record.items() if key not in ("goal", "action_took"))
    return "\n".join(value for value in shown if isinstance(value, str))


class Episode:
    """What all layers use of a finished episode."""

    def __init__(self, trajectory):
        self.goal = list(dict.fromkeys(words(trajectory.init.get("goal", ""))))
        self.won = trajectory.reward >= 0.5
        self.actions = [str(step.get("action_took", "")) for step in trajectory.steps]
        self.start, *self.answers = map(text_of, (trajectory.init, *trajectory.steps))
        seen, self.news = set(words(self.start)), []  # for each step: words that were not seen before
        for action, text in zip(self.actions, self.answers, strict=True):
            fresh = set(words(text)) - seen
            self.news.append(fresh - set(words(action)))
            seen |= fresh


class Plans:
    """The shortest won episode with the likest goal: its commands on what that names, in the words of the new goal."""

    def __init__(self):
        self.won = []

    def learn(self, episode):
        if episode.won:
            done = [kind(action) for action in episode.actions]
            named = [action for action in done if set(episode.goal) & set(words(action)[1:])]
            told = named if len(named) > 1 else done[-2:]
            last = {action: number for number, action in enumerate(told)}  # done again: where it was last
            self.won.append((episode.goal, sorted(last, key=last.get)[-LENGTH:]))

    def tell(self, goal, text):
        def fit(one):
            return len(set(one[0]) & set(goal)) / (len(set(one[0]) | set(goal)) or 1), -len(one[1])

        old, plan = max(self.won, key=fit, default=((), []))
        new = {a: b for a, b in zip(old, goal, strict=True) if a not in goal} if len(old) == len(goal) else {}
        return [" ".join(new.get(word, word) for word in action.split()) for action in plan]


class Places:
    """Where things of the goal were found: the commands that brought their names into sight."""

    def __init__(self):
        self.found, self.done = defaultdict(Counter), Counter()

    def learn(self, episode):
        for action, news in zip(map(kind, episode.actions), episode.news, strict=True):
            self.done[action] += 1
            for word in news:
                self.found[word][action] += 1

    def tell(self, goal, text):
        told = {}
        for word in goal:
            rates = {action: n / (self.done[action] + TRUST) for action, n in self.found.get(word, {}).items()}
            best = sorted(rates, key=lambda action: (-rates[action], action))[:TOP]
            told[word] = [action for action in best if rates[action] >= (1 + RATE) / 2 * rates[best[0]]]
        return {word: best for word, best in told.items() if best}


class Targets:
    """Which thing to reach: what the first observation says of the things that won episodes ended on."""

    def __init__(self):
        self.told, self.good = Counter(), Counter()  # lines with one of their words left open

    def learn(self, episode):
        if episode.won and episode.actions:
            lines = [episode.start, *episode.answers][-2].splitlines()
            near = [line for line in lines if set(words(episode.actions[-1])) & set(words(line))]
            ended = {words(line)[0] for line in near if " 1 " in line} or {words(line)[0] for line in near}
            for form, word in self.forms(episode.start):
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


class Memory(MemoryDesign):
    """Layers that learn side by side; each tells what it has under its name."""

    def __init__(self):
        self.layers = {name: globals()[name]() for name in LAYERS}

    async def general_update(self, trajectory):
        episode = Episode(trajectory)
        for layer in self.layers.values():
            layer.learn(episode)

    async def general_retrieve(self, trajectory):
        goal, text = list(dict.fromkeys(words(trajectory.init.get("goal", "")))), text_of(trajectory.init)
        told = {name.lower(): layer.tell(goal, text) for name, layer in self.layers.items()}
        return {name: part for name, part in told.items() if part}
