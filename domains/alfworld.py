"""ALFWorld: household tasks in text, on the PDDL engine of the `textworld` and `alfworld` packages.

The official games are played where `ALFWORLD_DATA` has them (its files are never written to), else houses generated
from seeds, which need not be as hard: `Task.source` is "official" or "generated", and results say which was played."""

import contextlib
import json
import os
import random
import re
from collections import Counter
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import envs
from domains import alfworld_houses as houses
from domains.alfworld_engine import NOTHING, Engine, GameError, parse_grammar
from errors import UserError

LAYOUT = "json_2.1.1"  # folder of the official release
FOLDERS = {"learning": "train", "test": "valid_seen", "shift": "valid_unseen"}
LEARNING_TASKS = 30  # of the official `train`, drawn with a fixed seed
BANNER = "-= Welcome to TextWorld, ALFRED! =-"


def data_dir() -> Path | None:
    """Folder of the official games, under $ALFWORLD_DATA or the default place; None without games."""
    root = os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld"
    folder = Path(os.path.expanduser(root)) / LAYOUT  # as it is where there is no home folder
    return folder if any(folder.glob("*/*/*/game.tw-pddl")) else None


def read_game(path: Path) -> dict:
    """An official file's content. Raises UserError, one line with the path, if it is no game."""
    try:
        game = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(game[key], str) for key in ("pddl_domain", "grammar", "pddl_problem")):
            return game
        reason = "pddl_domain, grammar and pddl_problem must be texts"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(f"cannot read the ALFWorld game {path}: {reason}")


def load_official(path: Path, engine: Engine) -> None:
    """Load an official file into the engine. Raises UserError if it cannot be played.
    Files without a `help` action, from before the package's release 0.4, and files that the engine rejects
    get the package's current domain and grammar around their own problem and task, in memory."""
    game = read_game(path)
    try:
        if re.search(r"\(:action\s+help\b", game["pddl_domain"]):
            with contextlib.suppress(GameError):
                return engine.load(game)
        task = re.search(r"Your task is to: ([^\"]*?)\.?\"", game["grammar"])
        if not task:
            raise GameError("the grammar states no task")
        engine.load(houses.with_package_rules(game, task[1]))
    except GameError as error:
        raise UserError(f"cannot play the ALFWorld game {path}: {error}") from error


def official(folder: Path) -> tuple[list[envs.Task], list[str]]:
    """Tasks of the official data, and a line for each file that is no game and was left out."""
    tasks, unreadable = [], []
    for split, name in FOLDERS.items():
        ids = [path.parent.relative_to(folder).as_posix() for path in sorted((folder / name).glob("*/*/game.tw-pddl"))]
        found = [make_task(task, split, "official") for task in ids if "Sliced" not in task]
        rng = random.Random(0)
        by_family = [[task for task in found if task.family == one] for one in houses.tables()["families"]]
        for of_family in by_family:
            rng.shuffle(of_family)
        chosen: list[envs.Task] = []  # families take turns
        for task in filter(None, chain(*zip_longest(*by_family))):
            if split == "learning" and len(chosen) == LEARNING_TASKS:
                break
            try:
                if read_game(folder / task.id / "game.tw-pddl").get("solvable"):
                    chosen.append(task)
            except UserError as error:
                unreadable.append(str(error))
        tasks += sorted(chosen, key=lambda task: task.id)
    return tasks, unreadable


def make_task(task: str, split: str, source: str) -> envs.Task:
    """A task of an id like "valid_seen/pick_two_obj_and_place-Mug-None-Desk-301/..."."""
    return envs.Task(task, split, task.split("/")[1].split("-")[0], source, envs.derive_seed("alfworld", task))


class ALFWorld(envs.Domain):
    """Household tasks in text: find a thing, clean, heat or cool it, bring it somewhere.

    ## Action space
    Text: one of the listed commands ("go to cabinet 1", "take mug 1 from shelf 2"). The answer to any other says how
    the valid commands begin.

    ## Observation space
    Text: what the game answers. `info["record"]` has it as `obs`, with the valid commands as `actions_list` and, at
    reset, the task as `goal`.

    ## Rewards
    1 for the step that wins the game, else 0.

    ## Starting state
    In the middle of the room with empty hands. The game has no randomness: `seed` changes nothing.

    ## Episode end
    Terminated when the task is done, truncated after 100 steps.

    ## Arguments
    `task`: an id that `ALFWorld.tasks()` lists. `render_mode`: "ansi" for the last observation."""

    name = "alfworld"
    max_steps = 100
    substitute = "generated"
    offline_passes = (2, 3)  # its episodes are long, and it has a shift set of 48 houses

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        if folder := data_dir():
            return official(folder)[0]
        return [make_task(house.id, split, "generated") for split, house in houses.houses()]

    @classmethod
    def notes(cls) -> list[str]:
        """Where the tasks come from, if not from the official data, and which files were left out."""
        if folder := data_dir():
            return official(folder)[1]
        place = os.environ.get("ALFWORLD_DATA")
        looked = f"no {LAYOUT} games under ALFWORLD_DATA={place}" if place else "no ALFWORLD_DATA"
        return [f"{looked}: playing generated houses (`make data-alfworld` downloads the official games)"]

    @classmethod
    def load(cls) -> None:
        """Parse the grammar that all games share (0.1 s)."""
        parse_grammar(houses.package_text("alfred.twl2"))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Raises UserError for an unknown task."""
        super().reset(seed=seed, options=options)
        self.engine = self.engine or Engine(envs.cache_dir() / "alfworld" / "translated")
        generated = re.fullmatch(r"houses/.+/([a-z]+)_(\d+)", self.task)
        split, number = (generated[1], int(generated[2])) if generated else ("", 0)
        house = houses.house(split, number) if number < houses.SIZES.get(split, 0) else None
        if house and house.id == self.task:
            self.engine.load(houses.game(house, self.engine))
        elif (not generated and ".." not in self.task and (folder := data_dir())
              and (path := folder / self.task / "game.tw-pddl").is_file()):
            load_official(path, self.engine)
        else:
            raise UserError(f"unknown ALFWorld task {self.task!r}: `alma.py tasks --env alfworld` lists the tasks")
        self.text = self.engine.reset().removeprefix(BANNER).strip()
        self._goal = self.text[self.text.rindex("Your task is to:") :]
        return self.text, self._info(valid=True, goal=self._goal)

    def step(self, action: str):
        command = str(action).strip()
        valid = command in self.engine.commands
        self.steps += 1
        self.text = self.engine.step(command).strip()
        if not valid:  # how many commands begin with each verb
            verbs = Counter(re.match(r"go to|\w+", one)[0] for one in self.engine.commands)
            listed = ", ".join(f"{verb} ({count})" for verb, count in verbs.items())
            self.text = f"{NOTHING} That is not a valid command here. Valid commands begin with: {listed}."
        won = self.engine.won
        return self.text, float(won), won, not won and self.steps >= self.max_steps, self._info(valid)

    def _info(self, valid: bool, **extra: str) -> dict[str, Any]:
        actions = list(self.engine.commands)
        record = {"obs": self.text, "actions_list": actions, **extra}
        return self.info(record, actions, self._goal, self.engine.won, valid)
