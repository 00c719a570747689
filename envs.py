"""The interface that all domains share: tasks, one text environment, and seeds. Names are in `domains.DOMAINS`.

Every domain is a `gymnasium.Env` whose observations and actions are text; a task is named by an id; the same task
and seed give the same episode in every process and on every machine, whatever was played before.
Try it: `python alma.py tasks --env minihack` and `python alma.py play --env babaisai`."""

import hashlib
import importlib
import os
import string
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces

from domains import DOMAINS
from domains.nethack_text import describe_nethack
from errors import UserError

__all__ = ["DOMAINS", "Domain", "Task", "cache_dir", "derive_seed", "describe_nethack", "domain_class", "match"]

DESCRIPTIONS = Path(__file__).parent / "prompts" / "domains"


@dataclass(frozen=True)
class Task:
    """One game that can be played; with a seed it is an episode."""

    id: str  # unique in its domain, the same on every machine
    split: str  # "learning", "test" or "shift"
    family: str  # kind of task, for tables: "cooking", "navigation", "pick_and_place_simple", ...
    source: str  # where it comes from: "official", "generated" or "engine"
    seed: int  # base of the seeds of its episodes, in [0, 2**31)


class Domain(gymnasium.Env):
    """Base class of a domain: subclass it, describe it in `<name>.md`, and it plays. All hooks stand here.

    ## Action space
    Text: one action or command. An action that is not valid costs a step, changes nothing else, and is answered with
    a line that says what is valid.

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
    `task`: id of the task that `reset` starts where `options={"task": id}` names none."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 4}
    observation_space = spaces.Text(min_length=0, max_length=200_000, charset=string.printable)
    action_space = spaces.Text(min_length=1, max_length=200, charset=string.printable)

    name: ClassVar[str]  # names the description, `<name>.md`
    max_steps: ClassVar[int]  # steps of an episode
    lists_actions: ClassVar[bool] = True  # show the agent `info["actions"]` at each turn
    # Passes over the deployment half of the learning set and of the test set with a stand-in as the agent, whose
    # episodes cost milliseconds: as many as tell designs apart.
    offline_passes: ClassVar[tuple[int, int]] = (2, 6)
    substitute: ClassVar[str] = ""  # source of tasks that stand in for published ones; labels every result
    # What each action does, where the actions are the same at every step of a task: shown once, at the top of the
    # agent's prompt, and then not listed at each turn. A subclass may set it in `reset`.
    action_descriptions: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed
    engine: Any = None  # what plays the game, where there is something to close
    text = ""  # the last observation

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        self.task_id, self.render_mode = task, render_mode

    @classmethod
    def tasks(cls) -> list[Task]:
        """All tasks of the domain in a fixed order: learning, test, shift."""
        raise NotImplementedError

    @classmethod
    def description(cls) -> str:
        """What the agents are told of it: `prompts/domains/<name>.md`, or `<name>.md` beside a module of one's own."""
        places = [DESCRIPTIONS / f"{cls.name}.md", Path(sys.modules[cls.__module__].__file__).parent / f"{cls.name}.md"]
        for path in filter(Path.is_file, places):
            return path.read_text(encoding="utf-8").strip()
        raise UserError(f"the domain {cls.__name__} has no description: write {places[0]} or {places[1]}")

    @classmethod
    def prepare(cls, tasks: Iterable[str]) -> None:
        """Make what must exist before these tasks can start, such as generated games; runs in a worker."""

    @classmethod
    def load(cls) -> None:
        """Load what all episodes need, once, in the process that forks the workers. No engine is started."""

    @classmethod
    def notes(cls) -> list[str]:
        """What a user should know about the domain's data on this machine, a line each."""
        return []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start `options["task"]` (else the constructor's task, else the first) with `seed`. A subclass calls this
        first: it names the task, starts to count steps, and seeds `self.np_random`."""
        super().reset(seed=seed)
        self.task = (options or {}).get("task") or self.task_id or self.tasks()[0].id
        self.steps = 0

    def step(self, action: str):
        raise NotImplementedError

    def render(self) -> str | None:
        return self.text if self.render_mode == "ansi" else None

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def info(self, record, actions, goal, success, valid, score=None, now="") -> dict[str, Any]:
        """The `info` of `reset` and `step`; a game without points has the score 1 or 0."""
        score = float(success) if score is None else score
        return dict(record=record, now=now, actions=actions, goal=goal, score=score, success=success, valid=valid)


def domain_class(name: str) -> type[Domain]:
    """The class of a domain, by its name in `domains.DOMAINS` or as "module:Class"; raises UserError."""
    module, colon, cls = DOMAINS.get(name, name).partition(":")
    if not colon:
        raise UserError(f"unknown environment {name!r}: choose from {', '.join(DOMAINS)}, or module:Class of your own")
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot use environment {name!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Domain)):
        raise UserError(f"cannot use environment {name!r}: {cls} is not a subclass of envs.Domain")
    return found


def derive_seed(*parts) -> int:
    """A seed in [0, 2**31) that depends on nothing but `parts` (strings and integers)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def cache_dir() -> Path:
    """Where generated games are kept: $ALMA_CACHE or ~/.cache/alma. Raises UserError where it cannot be made."""
    try:
        path = Path(os.environ.get("ALMA_CACHE") or Path.home() / ".cache" / "alma")
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the second where there is no home folder
        why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
        raise UserError(f"no cache folder ({why}): set ALMA_CACHE to a folder that can be written") from None
    return path


def match(action: str, actions: list[str]) -> str:
    """The valid action that equals `action` when case is ignored, else `action` itself."""
    return next((one for one in actions if one.casefold() == action.casefold()), action)


# Importing this module makes the ids known to `gymnasium.make`; no engine is started by that.
for path in (DOMAINS["alfworld"], DOMAINS["textworld"], "domains.babaisai:BabaIsAIEnv", DOMAINS["minihack"]):
    name = path.split(":")[1].removesuffix("Env")
    gymnasium.register(f"alma/{name}-v0", entry_point=path, disable_env_checker=True)
