"""The four domains behind one text interface.

Promises: every domain is a `gymnasium.Env` whose observations and actions are text; a task is
named by an id; the same task and seed give the same episode in every process and on every
machine, whatever was played before. It does not promise that tasks are equally hard, nor that
ALFWorld's data or Boxoban's levels are there: `Task.source` says where a task comes from.

Try it: `python alma.py tasks --env minihack` and `python alma.py play --env babaisai`.
"""

import hashlib
import importlib
import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces

# The domain of each `--env`, as "module:class". Heavy engines are imported on first use only.
DOMAINS = {
    "alfworld": "domains.alfworld:ALFWorld",
    "textworld": "domains.textworld:TextWorld",
    "babaisai": "domains.babaisai:BabaIsAI",
    "minihack": "domains.minihack:MiniHack",
}
TEXT = spaces.Text(min_length=0, max_length=200_000, charset=string.printable)


@dataclass(frozen=True)
class Task:
    """One game that can be played; with a seed it is an episode."""

    id: str  # unique in its domain, the same on every machine
    split: str  # "learning", "test" or "shift"
    family: str  # kind of task, for tables: "cooking", "navigation", "pick_and_place_simple", ...
    source: str  # where it comes from: "official", "generated" or "engine"
    seed: int  # base of the seeds of its episodes, in [0, 2**31)


class Domain(gymnasium.Env):
    """Base class of a domain: subclass it, add `prompts/domains/<name>.md`, and it plays.

    ## Action space
    Text: one action or command. An action that is not valid costs a step, changes nothing else,
    and is answered with a line that says what is valid.

    ## Observation space
    Text: what stays in the agent's dialogue. `info` has the rest:
    * `record`: dict of JSON values, the keys that a memory design sees (SPEC: init and steps),
    * `now`: text that is shown for the current turn only (an inventory), may be empty,
    * `actions`: list of the valid actions' texts at this moment, empty where there is no list,
    * `goal`: the goal of the task in one paragraph,
    * `score`: task score so far, in [0, 1],
    * `success`: True once the engine says that the task is won,
    * `valid`: False where the last action was not valid.

    ## Rewards
    The change of the task score; an episode's rewards add up to its score.

    ## Episode end
    Terminated when the engine ends the game, truncated after `max_steps` steps.

    ## Arguments
    `task`: id of the task that `reset` starts where `options={"task": id}` names none.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 4}
    name: ClassVar[str]  # as in `--env`
    max_steps: ClassVar[int]  # steps of an episode
    substitute: ClassVar[str] = ""  # source of tasks that stand in for published ones; labels every result
    static_actions: ClassVar[bool] = False  # the same action list at every step
    observation_space = TEXT
    action_space = spaces.Text(min_length=1, max_length=200, charset=string.printable)

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        self.render_mode = render_mode
        self.task_id = task

    @classmethod
    def tasks(cls) -> list[Task]:
        """All tasks of the domain in a fixed order: learning, test, shift."""
        raise NotImplementedError

    @classmethod
    def load(cls) -> None:
        """Load what all episodes need, once in the process that forks the workers. No engine is started."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start `options["task"]` (else the constructor's task, else the first) with `seed`.

        A subclass calls this first: it seeds `self.np_random`.
        """
        super().reset(seed=seed)

    def step(self, action: str):
        raise NotImplementedError


class UnknownDomain(ValueError):
    """No such domain; the message names those that exist."""


def domain_class(name: str) -> type[Domain]:
    """The class of a domain, by a name of DOMAINS or as "module:Class" for one's own."""
    path = DOMAINS.get(name, name)
    if ":" not in path:
        raise UnknownDomain(f"unknown environment {name!r}; choose from {', '.join(DOMAINS)} or module:Class")
    module, cls = path.split(":", 1)
    return getattr(importlib.import_module(module), cls)


def derive_seed(*parts) -> int:
    """A seed in [0, 2**31) that depends on nothing but `parts` (strings and integers)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def cache_dir() -> Path:
    """Where generated games and downloaded levels are kept: $ALMA_CACHE or ~/.cache/alma."""
    path = Path(os.environ.get("ALMA_CACHE") or Path.home() / ".cache" / "alma")
    path.mkdir(parents=True, exist_ok=True)
    return path


def notes(domain: type[Domain]) -> list[str]:
    """What a user should know of a domain's data on this machine, a line each."""
    return domain.notes() if hasattr(domain, "notes") else []


def match(action: str, actions: list[str]) -> str:
    """The valid action that `action` is but for its case, else `action` itself."""
    return next((one for one in actions if one.casefold() == action.casefold()), action)


def describe_nethack(observation: dict) -> dict[str, str]:
    """NetHack in words, after the convention of the NetHack language wrapper.

    `observation`: arrays as NLE returns them. Returns `text_message`, `text_glyphs`, `text_cursor`,
    `text_inventory` and what else there are arrays for.
    """
    from domains import nethack_text as nethack

    return nethack.describe_nethack(observation)


# Importing this module makes the ids known to `gymnasium.make`; no engine is started by that.
gymnasium.register("alma/BabaIsAI-v0", entry_point="domains.babaisai:BabaIsAIEnv", disable_env_checker=True)
gymnasium.register("alma/MiniHack-v0", entry_point="domains.minihack:MiniHack", disable_env_checker=True)
gymnasium.register("alma/TextWorld-v0", entry_point="domains.textworld:TextWorld", disable_env_checker=True)
gymnasium.register("alma/ALFWorld-v0", entry_point="domains.alfworld:ALFWorld", disable_env_checker=True)
