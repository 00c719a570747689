"""A hand-written design for text adventures: what each instruction means as a command, and which commands never paid."""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign


class Instructions(MemoryDesign):
    def __init__(self):
        self.meant = defaultdict(Counter)  # verb of an instruction -> form of the command that scored
        self.wrong = defaultdict(Counter)  # the same for commands that did not
        self.used, self.paid = Counter(), Counter()  # by the verb of a command

    async def general_update(self, trajectory):
        lines, places, score = [], set(), 0.0
        for step in trajectory.steps:
            action, text = step["action_took"], step["obs"]
            verb, *rest = action.split()
            title = re.match(r"-= (.*) =-", text)
            new = bool(title) and title.group(1) not in places
            places |= {title.group(1)} if title else set()
            self.used[verb] += 1
            self.paid[verb] += new or step["scores"] > score
            for told in lines:
                thing = told.split(" the ")[-1]
                if " the " in told and thing in action:
                    form = action.replace(f" {thing}", "")
                    (self.meant if step["scores"] > score else self.wrong)[told.split()[0]][form] += 1
            score = step["scores"]
            lines += [line.strip() for line in text.splitlines() if re.fullmatch(r"\s*[a-z]+ the [a-z ]+", line)]

    async def general_retrieve(self, trajectory):
        told = {}
        for verb, forms in self.meant.items():
            told[verb] = forms.most_common(1)[0][0]
        useless = [verb for verb, n in self.used.items() if n > 20 and self.paid[verb] == 0]
        return {"instructions": told, "useless": sorted(useless)}
