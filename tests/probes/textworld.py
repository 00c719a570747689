"""A hand-written design for text adventures: what an instruction means as a command, which commands never pay.

An instruction is a line of an observation that reads like a command; what it means is told by the commands on its
thing that scored after it was read, without the thing.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign


def without(command, thing):
    """A command without a thing that it names."""
    return " ".join(command.replace(thing, " ").split())


class Instructions(MemoryDesign):
    def __init__(self):
        self.right = defaultdict(Counter)  # verb of an instruction -> forms of commands on its thing that scored
        self.tried = defaultdict(Counter)  # the same for all commands on it
        self.used, self.paid = Counter(), Counter()  # by the verb of a command
        self.told = Counter()  # commands that were answered with instructions
        self.ended = Counter()  # last commands of won episodes

    async def general_update(self, trajectory):
        lines, score, known = set(), 0.0, set(re.findall(r"[a-z]+", trajectory.init["obs"].lower()))
        for step in trajectory.steps:
            action, text = step["action_took"], step["obs"]
            verb, gain = action.split()[0], step["scores"] > score
            score = step["scores"]
            fresh = set(re.findall(r"[a-z]+", text.lower())) - known
            known |= fresh
            self.used[verb] += " with " not in action
            self.paid[verb] += gain or text.startswith("-=") or "reveal" in text
            for line, thing in sorted(lines):
                if thing in action and action.split()[0] not in ("take", "examine"):
                    form = without(action, thing)
                    self.tried[line][form] += 1
                    self.right[line][form] += gain
            found = re.findall(r"(?m)^\s*([a-z]+) the ([a-z ]+)$", text)
            self.told[action] += bool(found)
            lines |= set(found)
        if trajectory.reward == 1 and trajectory.steps:
            self.ended[trajectory.steps[-1]["action_took"]] += 1

    async def general_retrieve(self, trajectory):
        told, tried, right = {}, sum(self.tried.values(), Counter()), sum(self.right.values(), Counter())
        for verb, forms in sorted(self.right.items()):
            rate = {form: n / (self.tried[verb][form] + 1) for form, n in forms.items()}
            luck = {form: 1.2 * right[form] / (tried[form] + 1) for form in rate}
            fit = {form: rate[form] - luck[form] * (not form.startswith(verb)) for form in rate}
            best = max(fit, key=lambda form: (fit[form], form), default=None)
            if best and fit[best] > 0:
                told[verb] = best
        often = [verb for verb, n in self.used.items() if n > 20]
        useless = sorted(verb for verb in often if self.paid[verb] < 0.05 * self.used[verb])
        found = {"instructions": told, "useless": useless}
        goal = set(re.findall(r"[a-z]+", trajectory.init["goal"].lower()))
        for name, count in (("first", self.told), ("last", self.ended)):
            fitting = [action for action, n in count.most_common() if n and set(action.split()[1:]) <= goal]
            found |= {name: fitting[0]} if fitting else {}
        return found
