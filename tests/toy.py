"""A domain of one's own: gems behind doors. The example of the README, and the quickest real domain.

Each kind of gem always lies behind a door of the same colour, so a memory can know where to look.
"""

import os
import random
from pathlib import Path

from envs import Domain, Task, derive_seed

BEHIND = {"ruby": "red", "emerald": "green", "sapphire": "blue", "amber": "yellow", "pearl": "white", "jet": "black"}


class Doors(Domain):
    """Gems behind doors. Arguments, spaces and `info` are those of `envs.Domain`."""

    name = "doors"
    max_steps = 4
    lists_actions = True

    @classmethod
    def tasks(cls):
        return [
            Task(f"{gem}-{number}", split, gem, "generated", derive_seed("doors", gem, number))
            for number, split in enumerate(("learning",) * 4 + ("test",) * 2 + ("shift",))
            for gem in BEHIND
        ]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task") or self.task_id or "ruby-0"
        self._gem, self._steps = task.split("-")[0], 0
        self._doors = random.Random(seed).sample(sorted(BEHIND.values()), len(BEHIND))
        text = f"You stand in a hall with {len(self._doors)} doors."
        return text, self._info(text, 0.0, True, {"goal": f"Find the {self._gem}."})

    def step(self, action):
        self._steps += 1
        valid = action in self._actions()
        won = action == f"open {BEHIND[self._gem]} door"
        if valid:
            text = f"Behind the door lies the {self._gem}." if won else "The room behind the door is empty."
        else:
            text = f"Nothing happens. Valid actions: {', '.join(self._actions())}."
        return text, float(won), won, self._steps >= self.max_steps, self._info(text, float(won), valid)

    def _actions(self):
        return [f"open {colour} door" for colour in self._doors]

    def _info(self, text, score, valid, more=None):
        record = {"obs": text, "actions_list": self._actions(), **(more or {})}
        return {
            "record": record,
            "now": "",
            "actions": self._actions(),
            "goal": f"Find the {self._gem}.",
            "score": score,
            "success": score == 1.0,
            "valid": valid,
        }


class Witnessed(Doors):
    """Doors that leave a line for each episode that ends, in the file $ALMA_WITNESS."""

    def reset(self, *, seed=None, options=None):
        self._episode = f"{(options or {}).get('task')} {seed}"
        return super().reset(seed=seed, options=options)

    def step(self, action):
        text, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            with open(Path(os.environ["ALMA_WITNESS"]), "a") as file:
                file.write(f"{self._episode}\n")
        return text, reward, terminated, truncated, info
