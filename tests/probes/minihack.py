"""A hand-written design for small levels: which commands changed what one carries or ended in success."""

import re
from collections import Counter, defaultdict

from memory_base import MemoryDesign

SMALL = frozenset(["a", "an", "the", "of", "to", "and", "from", "in", "on", "it", "is", "what", "you", "see", "at", "which", "way"])


def content(text):
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word not in SMALL and len(word) > 1]


class Commands(MemoryDesign):
    def __init__(self):
        self.ended = defaultdict(Counter)  # word of a goal -> commands that ended won episodes
        self.played = defaultdict(Counter)  # word of a goal -> commands that were used
        self.carried = Counter()  # commands of won episodes that changed what is carried
        self.target = Counter()  # what was beside the agent before the last step of a won episode

    async def general_update(self, trajectory):
        goal = content(trajectory.init["goal"])
        contexts = [trajectory.init, *trajectory.steps]
        taken = [step["action_took"] for step in trajectory.steps]
        for word in goal:
            for action in sorted(set(taken)):
                self.played[word][action] += 1
        if trajectory.reward < 1:
            return
        sizes = [len(context["short_term_context"]) for context in contexts]
        self.carried.update(sorted({action for n, action in enumerate(taken) if sizes[n] < sizes[n + 1]}))
        last, before = taken[-1], contexts[-2]
        command = taken[-2] if len(last) == 1 and len(taken) > 1 else last
        for line in before["long_term_context"].splitlines():
            if re.search(rf" adjacent (?:.*\W)?{last}\b", line):
                self.target[line.split(" adjacent ")[0]] += 1
                return
        for word in goal:
            self.ended[word][command] += 1

    async def general_retrieve(self, trajectory):
        goal, told = content(trajectory.init["goal"]), {}
        commands = Counter()
        for word in goal:
            for command, n in self.ended[word].items():
                if command in trajectory.init["action_dict"]:
                    commands[command] += n / (1 + self.played[word][command])
        best = [command for command, _ in commands.most_common(1)]
        carried = [command for command, _ in self.carried.most_common() if len(command) > 1]  # a letter is an answer
        first = [command for command in carried[:1] if command in trajectory.init["action_dict"]]
        if best:
            told["do"] = first + best
        elif first:
            told["see here"] = first[0]
        targets = [line for line, n in self.target.most_common(4) if set(content(line)) & set(goal)]
        if targets:
            told["go to"] = targets[:1]
        return told
