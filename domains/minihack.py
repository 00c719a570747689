"""MiniHack: navigation and skill tasks of NetHack, played through text.

Every id that the installed package registers can be played, but for those of LEFT_OUT, and for Boxoban's where its
levels are missing. Success is what the engine calls success, never a threshold of the reward. A task and a seed give
one episode, whatever was played before and on whatever day. Tasks need not be winnable within the step limit."""

import functools
import os
import random
import re
import tempfile
import tomllib
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

import envs
from domains import nethack_text as nethack

LEFT_OUT = ("Custom", "MultiRoom", "LavaCrossing", "SimpleCrossing")
SHIFT = ("Corridor", "Quest", "Boxoban")
BOXOBAN_FOLDERS = {"MiniHack-Boxoban-Unfiltered-v0": "unfiltered/train", "MiniHack-Boxoban-Medium-v0": "medium/train",
                   "MiniHack-Boxoban-Hard-v0": "hard"}  # fmt: skip
# What the agent is told of `goals` and `commands`.
TEXTS = tomllib.loads((envs.DESCRIPTIONS / "minihack.toml").read_text(encoding="utf-8"))
COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west",
           "NE": "northeast", "SE": "southeast", "SW": "southwest", "NW": "northwest"}  # fmt: skip


def registered_ids() -> list[str]:
    """Sorted ids that the installed package registers and the benchmark keeps, with Boxoban's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minihack imports the deprecated pkg_resources
        import minihack  # noqa: F401  (takes 1.5 s; registers its environments)
    ids = (name for name in gymnasium.registry if name.startswith("MiniHack-"))
    return sorted(name for name in ids if not any(word in name for word in LEFT_OUT))


def boxoban_levels() -> Path | None:
    """The folder of Boxoban's levels: $BOXOBAN_LEVELS, else where minihack downloads them to."""
    import minihack  # takes 1.5 s

    default = Path(minihack.__file__).parent / "dat" / "boxoban-levels-master"
    path = Path(os.environ.get("BOXOBAN_LEVELS") or default)
    return path if all(any((path / folder).glob("*.txt")) for folder in BOXOBAN_FOLDERS.values()) else None


def make_engine(task: str, seed: int):
    """A fresh engine, ready for reset. It costs 5 ms, and has a temporary folder until it is closed.
    Raises ValueError for a task of Boxoban where its levels are missing."""
    settings = {
        "observation_keys": ("glyphs", "blstats", "tty_chars", "tty_cursor", "inv_strs", "inv_letters"),
        "max_episode_steps": 10**9,  # not the engine's own 40 to 5000: `max_steps` holds for all tasks
        "fix_moon_phase": True,  # by the seed; by the date, the moon and Friday 13th change NetHack's luck
    }
    if task in BOXOBAN_FOLDERS:
        from minihack.envs.boxohack import BoxoHack  # slow: imports minihack

        if not (levels := boxoban_levels()):
            raise ValueError(f"task={task!r} needs Boxoban's levels: set BOXOBAN_LEVELS to their folder")
        # One level, chosen by the seed: the package's class would read all levels of a folder.
        rng = random.Random(seed)
        text = rng.choice(sorted((levels / BOXOBAN_FOLDERS[task]).glob("*.txt"))).read_text()
        level = rng.choice(text.strip("\n").split("\n\n"))
        with tempfile.TemporaryDirectory(prefix="boxoban") as folder:
            Path(folder, "level.txt").write_text(f"{level}\n\n")
            engine = BoxoHack(level_set=folder, level_mode="", **settings)
        engine._goal_pos_set = {None}  # its reset tests for the end before it has looked for the goals
    else:
        spec = gymnasium.spec(task)
        engine = engine_class(spec.entry_point)(**spec.kwargs | settings)
    # Else NLE types the command to quit after a success, and the last screen is not that of the success.
    engine._quit_game = lambda observation, done: None
    engine.seed(core=seed, disp=seed, reseed=False)
    return engine


@functools.cache
def engine_class(entry_point: str) -> type:
    """The package's class of a task, which compiles each level once in a process (10 ms in a shell)."""

    class Engine(load_env_creator(entry_point)):
        compiled: ClassVar[dict[str, bytes]] = {}  # by the level's text or the name of its file

        def _patch_nhdat(self, des_file: str) -> None:
            data = Path(self.nethack._vardir, "nhdat")  # a link to the package's own until a level is in it
            if level := self.compiled.get(des_file):
                data.unlink()
                data.write_bytes(level)
            else:
                super()._patch_nhdat(des_file)
                if not data.is_symlink():
                    self.compiled[des_file] = data.read_bytes()

    return Engine


class SkippedScreens:
    """NLE's game, which also keeps the screens that NLE skips: as it presses space at every `--More--`, the messages on
    those pages in `pages`; as it goes on to the list of scores when the game is over, the last observation in `end`."""

    def __init__(self, game, observation_keys: list[str]):
        self.game, self.keys = game, observation_keys
        self.pages: list[str] = []
        self.end: dict[str, np.ndarray] | None = None

    def __getattr__(self, name: str):
        return getattr(self.game, name)

    def step(self, action: int):
        observation, done = self.game.step(action)
        seen = dict(zip(self.keys, observation, strict=True))
        if self.end is None and (done or seen["program_state"][0]):  # the game is over
            self.end = {key: array.copy() for key, array in seen.items()}
        elif self.end is None and seen["internal"][3]:  # the game waits for a space
            self.pages.append(nethack.message_text(seen["tty_chars"]))
        return observation, done


class MiniHack(envs.Domain):
    """Small levels of NetHack: find the way, use an item, fight or avoid a monster.

    ## Action space
    Text: a command by its name ("north", "far east", "apply") or, where the game asks a question, a single key ("f",
    "y"). An answer is a step of its own. The task decides which commands there are. The case of names does not
    matter, that of keys does.

    ## Observation space
    Text: message, language description, cursor and map; `info["now"]` is the inventory.

    ## Rewards
    1 when the engine reports that the task is accomplished, else 0.

    ## Starting state
    The level that the package draws for the seed. Each reset makes a fresh engine (5 ms), so nothing of an earlier
    episode can reach this one.

    ## Episode end
    Terminated when the engine ends the game (success or death), truncated after 100 steps.

    ## Arguments
    `task`: an id that `MiniHack.tasks()` lists."""

    name = "minihack"
    max_steps = 100

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        """Learning (30 %) and test tasks, drawn by `random.Random(42)` from the sorted ids, then shift with Boxoban's:
        levels that are missing do not change the other splits."""
        ids = [name for name in registered_ids() if name not in BOXOBAN_FOLDERS or boxoban_levels()]
        shift = [name for name in ids if any(word in name for word in SHIFT)]
        rest = [name for name in ids if name not in shift]
        random.Random(42).shuffle(rest)
        count = round(0.3 * len(rest))
        tasks = []
        for split, names in ("learning", sorted(rest[:count])), ("test", sorted(rest[count:])), ("shift", shift):
            for name in names:
                family = re.match(r"MiniHack-([A-Za-z]+)", name)[1]  # "Sokoban" of "MiniHack-Sokoban1a-v1"
                source = "official" if name in BOXOBAN_FOLDERS else "engine"
                tasks.append(envs.Task(name, split, family, source, envs.derive_seed("minihack", name)))
        return tasks

    @classmethod
    def notes(cls) -> list[str]:
        """Whether Boxoban's tasks are left out."""
        left_out = "Boxoban's three tasks are left out: no levels (make data-boxoban, or set BOXOBAN_LEVELS)"
        return [] if boxoban_levels() else [left_out]

    @classmethod
    def load(cls) -> None:
        """Import the package: 1.5 s."""
        registered_ids()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed, options=options)
        self.close()
        if self.task not in registered_ids():
            raise ValueError(f"task={self.task!r} is unknown; `alma.py tasks --env minihack` lists the tasks")
        seed = envs.derive_seed("minihack", self.task) if seed is None else seed
        engine_seed = envs.derive_seed("minihack", self.task, seed)
        # Some of minihack's levels use the global generators: they are seeded, and restored at the end.
        state, numpy_state = random.getstate(), np.random.get_state()
        random.seed(engine_seed)
        np.random.seed(engine_seed)
        try:
            self.engine = make_engine(self.task, engine_seed)
            self.engine.nethack = SkippedScreens(self.engine.nethack, self.engine._observation_keys)
            self.engine.reset()
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)

        # What each of the engine's commands does, and its index; a printable key has the index too.
        self.action_descriptions, self.indices = {}, {}
        for index, key in enumerate(self.engine.actions):
            direction = COMPASS.get(key.name)
            if direction is None:
                name, description = key.name.lower(), TEXTS["commands"][key.name.lower()]
            elif type(key).__name__.endswith("Longer"):
                name, description = f"far {direction}", f"move {direction} until something is in the way"
            else:
                name, description = direction, f"move {direction}"
            self.action_descriptions[name], self.indices[name] = description, index
            if 32 < key.value < 127:
                self.indices[chr(key.value)] = index
        self.commands = list(self.action_descriptions)
        self.success, goals = False, TEXTS["goals"]
        self.goal = goals[max((key for key in goals if self.task.startswith(f"MiniHack-{key}")), key=len)]
        return self._observe(action_dict=self.action_descriptions, goal=self.goal)

    def step(self, action: str):
        if self.engine is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        index = self.index(action)
        self.steps += 1
        done, refusal = False, ""
        if index is None:
            keys = ", or a single key where the game asks for one" if self.engine._allow_all_yn_questions else ""
            refusal = f"{action[:80]!r} is no valid action here. Valid actions: {', '.join(self.commands)}{keys}."
        else:
            self.engine.nethack.pages.clear()
            _, _, done, _, engine_info = self.engine.step(index)
            self.success = engine_info["end_status"] == self.engine.StepStatus.TASK_SUCCESSFUL
        text, info = self._observe(refusal)
        return text, float(self.success), done, not done and self.steps >= self.max_steps, info

    def index(self, text: str) -> int | None:
        """The engine's index of a command by its name in any case, or of a single key; else None."""
        text = text.strip()
        return self.indices.get(text if len(text) == 1 else " ".join(text.lower().split()))

    def _observe(self, refusal: str = "", **init: Any) -> tuple[str, dict[str, Any]]:
        """The engine's last observation in words, or a refusal in place of its message, and the info."""
        game = self.engine.nethack
        seen = game.end or dict(zip(game.keys, self.engine.last_observation, strict=True))
        glyphs, blstats, screen = seen["glyphs"], seen["blstats"], seen["tty_chars"]
        pages = (*game.pages, nethack.message_text(screen))
        told = "\n".join(page.replace("--More--", "").replace("(end)", "").strip() for page in pages)
        message = refusal or told.strip()
        self.text = (f"message:\n{message}\n\nlanguage observation:\n{nethack.glyphs_text(glyphs, blstats)}\n\n"
                     f"cursor:\n{nethack.cursor_text(glyphs, blstats, seen['tty_cursor'])}\n\n"
                     f"map:\n{nethack.map_text(screen)}")  # fmt: skip
        now = f"inventory:\n{nethack.inventory_text(seen['inv_strs'], seen['inv_letters'])}"
        record = {"long_term_context": self.text, "short_term_context": now, **init}

        # Possible answers where the game waits for one and asks for a direction or an item.
        answers, asked = [], seen["internal"][1]
        if asked and "direction?" in message:
            answers = [name for name in (*COMPASS.values(), "wait", "down") if name in self.indices]
        elif asked and (choices := re.search(r"\[(.+?)\]", message)):  # "[a-c or ?*]" offers the items a, b and c
            letters = re.sub(r"(\w)-(\w)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))),
                             choices[1].replace(" or ", ""))  # fmt: skip
            answers = [letter for letter in letters if letter in self.indices and letter.isalpha()]
            if answers and "esc" in self.indices:
                answers.append("esc")
        if answers:
            now += "\n\nValid actions:\n" + "\n".join(f"- {answer}" for answer in answers)
        actions = answers or list(self.commands)
        return self.text, self.info(record, actions, self.goal, self.success, not refusal, now=now)
