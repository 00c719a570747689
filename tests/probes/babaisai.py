"""A hand-written design for rule puzzles: what stood in the rules of the thing that was reached at the end."""

import re
from collections import Counter

from memory_base import MemoryDesign


def rules(init):
    return re.findall(r"(?m)^(\w+) is (\w+)$", init["obs"])


class Targets(MemoryDesign):
    def __init__(self):
        self.reached = Counter()  # property of the thing on which won episodes ended

    async def general_update(self, trajectory):
        if trajectory.reward < 1:
            return
        before = [trajectory.init, *trajectory.steps][-2]["obs"]
        move = trajectory.steps[-1]["action_took"]
        for thing in re.findall(rf"(?m)^(\w+) 1 step (?:to the )?{move}$", before):
            for noun, is_ in rules(trajectory.init):
                if noun == thing:
                    self.reached[is_] += 1

    async def general_retrieve(self, trajectory):
        best = [name for name, _ in self.reached.most_common(1)]
        things = [noun for noun, is_ in rules(trajectory.init) if is_ in best]
        return {"go to": things} if things else {}
