"""A hand-written design for households: where kinds of things lie, and what was done in what order."""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign


def kinds(text):
    """The words of a text without numbers."""
    return re.findall(r"[a-z]+", text.lower())


class Households(MemoryDesign):
    def __init__(self):
        self.found = defaultdict(Counter)  # kind of thing -> commands that brought it into sight
        self.looked = Counter()  # how often a kind of place was looked at
        self.done = defaultdict(Counter)  # word of a goal -> commands of won episodes that treat a thing

    async def general_update(self, trajectory):
        goal = set(kinds(trajectory.init["goal"]))
        here = ""
        for step in trajectory.steps:
            action = kinds(step["action_took"])
            if action[:2] == ["go", "to"]:
                here = " ".join(action[2:])
                self.looked[here] += 1
            if action[0] in ("go", "open"):
                for thing in set(re.findall(r"a ([a-z]+) \d", step["obs"])):
                    self.found[thing][here] += 1
            if trajectory.reward and "with" in action:
                for word in goal:
                    self.done[word][" ".join([action[0], "with", action[-1]])] += 1

    async def general_retrieve(self, trajectory):
        told = {}
        for word in kinds(trajectory.init["goal"]):
            if word in self.found:
                rate = {place: n / (self.looked[place] + 2) for place, n in self.found[word].items()}
                best = sorted(rate, key=lambda place: (-rate[place], place))[:4]
                told[word] = [f"go to {place}" for place in best]
        orders = []
        for word in ("heat", "cool", "clean"):
            if word in kinds(trajectory.init["goal"]) and self.done[word]:
                orders.append(self.done[word].most_common(1)[0][0])
        return {"found": told, "do": orders} if told or orders else {}
