"""A hand-written design for text adventures: what an instruction means as a command, which commands never pay.

It does not help yet: the agent rarely comes as far as having all that a recipe names.
"""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign


class Instructions(MemoryDesign):
    def __init__(self):
        self.right = defaultdict(Counter)  # verb of an instruction -> forms of commands on its thing that scored
        self.wrong = defaultdict(Counter)  # the same for commands that did not
        self.used, self.paid = Counter(), Counter()  # by the verb of a command
        self.scored = Counter()  # commands with the goal's words that scored or told something

    async def general_update(self, trajectory):
        lines, score, known = [], 0.0, set(trajectory.init["obs"].split())
        for step in trajectory.steps:
            action, text = step["action_took"], step["obs"]
            verb, scored = action.split()[0], step["scores"] > score
            fresh = set(text.split()) - known
            known |= fresh
            self.used[verb] += 1
            self.paid[verb] += scored or len(fresh) > 2
            score = step["scores"]
            for told in lines:
                first, _, thing = told.partition(" the ")
                if thing in action:
                    (self.right if scored else self.wrong)[first][action.replace(thing, "").replace("  ", " ")] += 1
            lines += re.findall(r"(?m)^\s*([a-z]+ the [a-z ]+)$", text)

    async def general_retrieve(self, trajectory):
        told, never = {}, []
        everywhere = sum(self.right.values(), Counter())
        for verb, forms in sorted(self.right.items()):
            tried = forms + self.wrong[verb]
            known = [form for form, n in tried.items() if n > 2 and forms[form]]
            sure = {form: (2 * forms[form] / tried[form] - 1) * forms[form] / everywhere[form] for form in known}
            best = max(sure, key=sure.get, default=None)
            if best and sure[best] > 0.3:
                told[verb] = best
        for verb, forms in sorted(self.wrong.items()):
            failed = [form for form, n in forms.items() if n > 2 and not self.right[verb][form]]
            never += [f"{verb}: {form}" for form in failed if "with" in form]
        rate = {verb: self.paid[verb] / n for verb, n in self.used.items() if n > 30}
        useless = sorted(verb for verb in rate if rate[verb] < 0.02)
        return {"instructions": told, "never": never, "useless": useless}
