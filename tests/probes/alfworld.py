"""A hand-written design for households: where kinds of things lie, and the plan of a won episode.

The plan is that of the most similar goal, without detours, its things and places swapped for those of the
new goal: a word of a goal takes the place of one that was used in the same positions of commands.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign


def kinds(text):
    """The words of a text without numbers."""
    return re.findall(r"[a-z]+", text.lower())


def shape(action):
    """A command as words without numbers, and the position of each."""
    return list(enumerate(kinds(action)))


class Households(MemoryDesign):
    def __init__(self):
        self.found = defaultdict(Counter)  # kind of thing -> kinds of places where it was seen
        self.looked = Counter()  # how often a kind of place was looked at
        self.roles = defaultdict(Counter)  # word -> (command, position)
        self.won = []  # (words of the goal, commands)

    async def general_update(self, trajectory):
        goal, here = kinds(trajectory.init["goal"]), ""
        for step in trajectory.steps:
            action = kinds(step["action_took"])
            for position, word in shape(step["action_took"]):
                if position:
                    self.roles[word][action[0], position if position < 2 else "last"] += 1
            if action[:2] == ["go", "to"]:
                here = action[-1]
                self.looked[here] += 1
            if action[0] in ("go", "open"):
                for thing in set(re.findall(r"a ([a-z]+) \d", step["obs"])):
                    self.found[thing][here] += 1
        if trajectory.reward:
            self.won.append((goal, self.trimmed(goal, [step["action_took"] for step in trajectory.steps])))

    def trimmed(self, goal, actions):
        """Commands on what the goal names: each verb once, as used last, and not where things came from."""
        plan, verbs = [], set()
        for action in reversed(actions):
            words = kinds(action.partition(" from ")[0])
            if words[0] in ("go", "open", "close", "examine") or words[0] in verbs or not set(words[1:]) & set(goal):
                continue
            verbs.add(words[0])
            plan.append(words)
            if len(words) > 2:
                plan.append(["go", "to", words[-1]])
        return plan[::-1]

    def likeness(self, a, b):
        a, b = self.roles[a], self.roles[b]
        return sum((a & b).values()) / max(1, sum((a | b).values()))

    async def general_retrieve(self, trajectory):
        goal, told = kinds(trajectory.init["goal"]), {}
        for word in goal:
            if word in self.found:
                rate = {place: n / (self.looked[place] + 2) for place, n in self.found[word].items()}
                best = sorted(rate, key=lambda place: (-rate[place], place))[:4]
                told[word] = [f"go to {place}" for place in best]
        plan = self.adapted(goal)
        return {"found": told, "plan": plan} if told or plan else {}

    def adapted(self, goal):
        things = [word for word in goal if word in self.found or self.roles[word]]
        if not self.won:
            return []
        def fit(won):
            common = set(goal) & set(won[0])
            return sum(1 / sum(word in other for other, _ in self.won) for word in common) - 0.002 * len(won[1])
        like, plan = max(self.won, key=fit)
        used = {word for action in plan for word in action[1:]}
        old = sorted(set(like) & used - set(goal))
        new = [thing for thing in things if thing not in like]
        pairs = sorted(((self.likeness(a, b), a, b) for a in old for b in new), reverse=True)
        swap = {}
        for _, a, b in pairs:
            if a not in swap and b not in swap.values():
                swap[a] = b
        return [" ".join(swap.get(word, word) for word in action) for action in plan]
