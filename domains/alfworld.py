"""ALFWorld: household tasks in text, on the PDDL engine of the `textworld` and `alfworld` packages.

Promises: the official games where `ALFWORLD_DATA` has them (files are never written to), else
houses made from seeds; what the agent reads, what it may do and when it has won are the untouched
engine's; an episode depends on the task alone. It does not promise that houses are as hard as
official games: `Task.source` tells "official" from "generated", and results say which was played.

Try it: `python alma.py tasks --env alfworld` and `python alma.py play --env alfworld`
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import envs
from domains import alfworld_houses as houses
from domains.alfworld_engine import AlfredEnv, GameError, parse_grammar
from errors import UserError

LAYOUT = "json_2.1.1"  # folder of the official release
FOLDERS = {"learning": "train", "test": "valid_seen", "shift": "valid_unseen"}
LEARNING_TASKS = 30  # of the official `train`
SELECTION_SEED = 0  # of those 30
FAMILIES = tuple(houses.ROOMS)
BANNER = "-= Welcome to TextWorld, ALFRED! =-"
TASK = "Your task is to:"
NOTHING = "Nothing happens."  # the engine's answer to what is no valid command


@dataclass(frozen=True)
class Official:
    """The official games of a folder, read through once."""

    tasks: tuple[envs.Task, ...]
    unreadable: tuple[str, ...]  # one line for each file that had to be left out


def data_dir() -> Path | None:
    """Folder of the official games: under $ALFWORLD_DATA, or where `alfworld-download` puts them."""
    root = os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld"
    folder = Path(root).expanduser() / LAYOUT
    return folder if any(folder.glob("*/*/*/game.tw-pddl")) else None


def read_game(path: Path) -> dict:
    """An official file's content. Raises UserError, one line with the path, for what is no game."""
    try:
        game = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(game[key], str) for key in ("pddl_domain", "grammar", "pddl_problem")):
            return game
        reason = "a text of the game is no text"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(f"cannot read the ALFWorld game {path}: {reason}")


def modernise(game: dict) -> dict:
    """The game with the package's current domain and grammar around its problem and its task."""
    task = re.search(r"Your task is to: ([^\"]*?)\.?\"", game["grammar"])
    if not task:
        raise GameError("the grammar states no task")
    grammar = houses.package_text("alfred.twl2").replace("UNKNOWN GOAL", task[1])
    return {**game, "pddl_domain": houses.package_text("alfred.pddl"), "grammar": grammar}


def load_official(path: Path, engine: AlfredEnv) -> None:
    """Load an official file into the engine, brought up to date in memory if it is old.

    Files from before the package's release 0.4 have no `help` action, and the engine rejects some
    of them. Raises UserError for a game that cannot be played.
    """
    game = read_game(path)
    try:
        if re.search(r"\(:action\s+help\b", game["pddl_domain"]):
            try:
                return engine.load(game)
            except GameError:
                return engine.load(modernise(game))
        engine.load(modernise(game))
    except GameError as error:
        raise UserError(f"cannot play the ALFWorld game {path}: {error}") from error


def official(folder: Path) -> Official:
    """All tasks of the official data, each file that is used read once to see whether it is whole."""
    tasks, unreadable = [], []
    for split, name in FOLDERS.items():
        paths = sorted((folder / name).glob("*/*/game.tw-pddl"))
        ids = [path.parent.relative_to(folder).as_posix() for path in paths]
        ids = [task for task in ids if family_of(task) in FAMILIES and "Sliced" not in task]
        wanted = LEARNING_TASKS if split == "learning" else len(ids)
        chosen: list[str] = []
        for task in spread(ids):
            if len(chosen) == wanted:
                break
            try:
                if read_game(folder / task / "game.tw-pddl").get("solvable"):
                    chosen.append(task)
            except UserError as error:
                unreadable.append(str(error))
        tasks += [make_task(task, split, "official") for task in sorted(chosen)]
    return Official(tuple(tasks), tuple(unreadable))


def spread(ids: list[str]) -> Iterator[str]:
    """All ids, one of each family by turns, shuffled within families with a fixed seed."""
    rng = random.Random(SELECTION_SEED)
    piles = [[task for task in ids if family_of(task) == family] for family in FAMILIES]
    for pile in piles:
        rng.shuffle(pile)
    for row in range(max(map(len, piles))):
        yield from (pile[row] for pile in piles if row < len(pile))


def family_of(task: str) -> str:
    """Type of a task from its id."""
    return task.split("/")[1].split("-")[0]


def make_task(task: str, split: str, source: str) -> envs.Task:
    return envs.Task(task, split, family_of(task), source, envs.derive_seed("alfworld", task))


class ALFWorld(envs.Domain):
    """Household tasks in text: find a thing, treat it, bring it somewhere.

    ## Action space
    Text: one of the listed commands ("go to cabinet 1", "take mug 1 from shelf 2"). Any other costs
    a step, changes nothing, and is answered with the kinds of command that are valid.

    ## Observation space
    Text: what the game says. `info["record"]` has it as `obs`, with the valid commands as
    `actions_list` and, at reset, the task as `goal`. `info["actions"]` are the valid commands.

    ## Rewards
    1 for the step that wins the game, else 0.

    ## Starting state
    In the middle of the room with empty hands. The same at every reset of a task: the game has no
    randomness, `seed` changes nothing.

    ## Episode end
    Terminated when the task is done, truncated after 100 steps.

    ## Arguments
    `task`: id of a task, see `tasks()`. `render_mode`: "ansi" for the last observation as text.
    """

    name = "alfworld"
    max_steps = 100
    substitute = "generated"
    lists_actions: ClassVar[bool] = True  # the agent is shown the valid commands of each step

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        super().__init__(task, render_mode)
        self._engine: AlfredEnv | None = None

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        folder = data_dir()
        if folder:
            return list(official(folder).tasks)
        return [make_task(house.id, split, "generated") for split, house in houses.houses()]

    @classmethod
    def notes(cls) -> list[str]:
        """Lines for the user about where the tasks come from and what had to be left out."""
        folder = data_dir()
        if folder:
            return list(official(folder).unreadable)
        place = os.environ.get("ALFWORLD_DATA")
        looked = f"no {LAYOUT} games under ALFWORLD_DATA={place}" if place else "no ALFWORLD_DATA"
        return [f"{looked}: playing generated houses (`make data-alfworld` downloads the official games)"]

    @classmethod
    def load(cls) -> None:
        """Parse the grammar that all games share: 0.1 s."""
        parse_grammar(houses.package_text("alfred.twl2"))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super(envs.Domain, self).reset(seed=seed)
        task = (options or {}).get("task") or self.task_id or self.tasks()[0].id
        self._load(task)
        self._state = self._engine.reset()
        self._steps = 0
        self._text = self._state.feedback.removeprefix(BANNER).strip()
        self._goal = self._text[self._text.rindex(TASK) :]
        return self._text, self._info(valid=True, goal=self._goal)

    def _load(self, task: str) -> None:
        """Load a task's game. Raises UserError for an id that is no task's."""
        cache = envs.cache_dir() / "alfworld"
        self._engine = self._engine or AlfredEnv(cache / "translated")
        if task.startswith("houses/"):
            self._engine.load(houses.game(find_house(task), cache, self._engine))
            return
        folder = data_dir()
        if not folder or ".." in task or not (folder / task / "game.tw-pddl").is_file():
            raise UserError(f"unknown ALFWorld task {task!r}: `alma.py tasks --env alfworld` lists them")
        load_official(folder / task / "game.tw-pddl", self._engine)

    @property
    def game(self) -> Mapping[str, Any]:
        """Content of the game that was loaded last."""
        return self._engine.data

    def step(self, action: str):
        command = str(action).strip()
        valid = command in self._state["admissible_commands"]
        self._state, _, won = self._engine.step(command)
        self._steps += 1
        self._text = self._state.feedback.strip() if valid else f"{NOTHING} {self._advice()}"
        truncated = not won and self._steps >= self.max_steps
        return self._text, float(won), won, truncated, self._info(valid)

    def _info(self, valid: bool, **extra: str) -> dict[str, Any]:
        actions = self._state["admissible_commands"]
        return {
            "record": {"obs": self._text, "actions_list": list(actions), **extra},
            "now": "",
            "actions": list(actions),
            "goal": self._goal,
            "score": float(self._state["won"]),
            "success": self._state["won"],
            "valid": valid,
        }

    def _advice(self) -> str:
        """What is valid now: the verbs, and how many commands begin with each."""
        verbs = Counter(re.match(r"go to|\w+", command)[0] for command in self._state["admissible_commands"])
        listed = ", ".join(f"{verb} ({count})" for verb, count in verbs.items())
        return f"That is not a valid command here. Valid commands begin with: {listed}."

    def render(self) -> str | None:
        return self._text if self.render_mode == "ansi" else None

    def close(self) -> None:
        if self._engine:
            self._engine.close()
            self._engine = None


def find_house(task: str) -> houses.House:
    """The generated house of a task id. Raises UserError where there is none."""
    found = re.fullmatch(r"houses/.+/([a-z]+)_(\d+)", task)
    if found and int(found[2]) < houses.SIZES.get(found[1], 0):
        made = houses.house(found[1], int(found[2]))
        if made.id == task:
            return made
    raise UserError(f"unknown ALFWorld task {task!r}: `alma.py tasks --env alfworld` lists them")
