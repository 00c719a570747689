"""MiniHack: navigation and skill tasks of NetHack, played through text.

Promises: every id that the installed package registers (without `Custom`, `MultiRoom`,
`LavaCrossing` and `SimpleCrossing`) starts, steps and ends; success is what the engine calls
success, never a reward threshold; a task and a seed give one episode, whatever was played
before and on whatever day. It does not promise that a task can be won within the step limit,
nor that Boxoban's levels are there: without them those ids are left out, and `notes` says so.

Try it: `python alma.py play --env minihack --task MiniHack-Eat-v0`.
"""

import contextlib
import functools
import os
import random
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

import envs
from domains import nethack_text as nethack

LEFT_OUT = ("Custom", "MultiRoom", "LavaCrossing", "SimpleCrossing")
SHIFT = ("Corridor", "Quest", "Boxoban")
LEARNING_SHARE = 0.3
SPLIT_SEED = 42
# The engine's own limits (40 to 5000 steps) are lifted, so that `max_steps` holds for all tasks.
NO_LIMIT = 10**9
OBSERVATION_KEYS = ("glyphs", "blstats", "tty_chars", "tty_cursor", "inv_strs", "inv_letters")
BOXOBAN_FOLDERS = {
    "MiniHack-Boxoban-Unfiltered-v0": "unfiltered/train",
    "MiniHack-Boxoban-Medium-v0": "medium/train",
    "MiniHack-Boxoban-Hard-v0": "hard",
}

COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west",
           "NE": "northeast", "SE": "southeast", "SW": "southwest", "NW": "northwest"}
# What each command does; the names are the engine's own, in lower case.
COMMANDS = {
    "down": "go down the stairs that you stand on",
    "wait": "let one turn pass; as an answer: yourself",
    "more": "read on where the game waits for it",
    "adjust": "change the letter of an item",
    "apply": "use a tool: a key, a horn, a lamp",
    "attributes": "show what you know about yourself",
    "call": "give a name to a monster or to a kind of item",
    "cast": "cast a spell that you know",
    "chat": "talk to somebody next to you",
    "close": "close a door",
    "dip": "dip an item into a liquid",
    "drop": "drop an item",
    "droptype": "drop several items",
    "eat": "eat something that you carry or stand on",
    "engrave": "write on the floor",
    "enhance": "see and raise your weapon skills",
    "esc": "leave a question without an answer",
    "fight": "attack in a direction even if nothing is seen there",
    "fire": "shoot what is in your quiver; as an answer: the item f",
    "force": "force a lock with your weapon",
    "inventory": "list what you carry",
    "inventtype": "list one kind of what you carry",
    "invoke": "call upon the special power of an item",
    "jump": "jump to a place",
    "kick": "kick in a direction",
    "look": "look at what lies under you",
    "loot": "open a box or bag on the floor",
    "monster": "use the special ability of a monster that you have become",
    "move": "move in a direction without picking up or fighting",
    "movefar": "move far in a direction without picking up or fighting",
    "offer": "offer a sacrifice on an altar",
    "open": "open a door",
    "pay": "pay a shopkeeper",
    "pickup": "pick up what lies under you",
    "pray": "pray to your god",
    "puton": "put on a ring or an amulet",
    "quaff": "drink a potion, or from what you stand on",
    "quiver": "choose what fire shoots",
    "read": "read a scroll or a book",
    "remove": "take off a ring or an amulet",
    "ride": "mount or leave a steed",
    "rub": "rub a lamp or a stone",
    "rush": "rush in a direction until something is there",
    "rush2": "rush in a direction, another way",
    "search": "search next to you for what is hidden, which takes a turn",
    "seearmor": "show the armour that you wear",
    "seerings": "show the rings that you wear",
    "seetools": "show the tools that you use",
    "seetrap": "name a trap next to you",
    "seeweapon": "show the weapon that you wield",
    "shell": "does nothing here",
    "sit": "sit down",
    "swap": "exchange the wielded and the second weapon",
    "takeoff": "take off armour",
    "takeoffall": "take off several pieces",
    "throw": "throw an item in a direction",
    "tip": "empty a box or bag",
    "turn": "turn the undead away",
    "twoweapon": "fight with two weapons or stop it",
    "untrap": "disarm a trap",
    "versionshort": "show the version of the game",
    "wear": "put on armour",
    "wield": "take a weapon in hand",
    "wipe": "wipe your face",
    "zap": "zap a wand",
    "plus": "list the spells that you know",
    "quote": "show the amulet that you wear",
    "dollar": "count your gold",
    "space": "read on where the game waits for it",
}

STAIRS = "Reach the stairs down (>)."
GOALS = {
    "Boxoban": "Push every boulder onto a fountain. Boulders can be pushed, not pulled.",
    "ClosedDoor": "Get through the closed door and reach the stairs down (>).",
    "CorridorBattle": "Get past the monsters and reach the stairs down (>).",
    "Eat": "Eat the apple.",
    "Freeze": "Cause a blast of cold that bounces off a wall.",
    "Freeze-Lava": "Get across the lava and reach the stairs down (>).",
    "KeyRoom": "Get through the locked door and reach the stairs down (>).",
    "LavaCross": "Get across the lava and reach the stairs down (>).",
    "Levitate": "Start to levitate.",
    "LockedDoor": "Get through the locked door and reach the stairs down (>).",
    "Memento": "Find out from what you see at the start which way leads to the grid bug, and kill it.",
    "Pray": "Pray on the altar.",
    "PutOn": "Put on the amulet.",
    "Quest": "Get past monsters and obstacles and reach the stairs down (>).",
    "Read": "Read the scroll.",
    "River": "Get across the water and reach the stairs down (>).",
    "Sink": "Drink from the sink.",
    "Sokoban": "Fill every pit with a boulder and reach the stairs down (>).",
    "Wear": "Wear the robe.",
    "Wield": "Wield the dagger.",
    "WoD": "Get past the minotaur and reach the stairs down (>).",
    "WoD-Easy": "Kill the minotaur.",
    "Zap": "Zap the wand.",
}


def registered_ids() -> list[str]:
    """Sorted ids of the installed package that the benchmark keeps, levels or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minihack imports the deprecated pkg_resources
        import minihack  # noqa: F401  (registers its environments)
    ids = (name for name in gymnasium.registry if name.startswith("MiniHack-"))
    return sorted(name for name in ids if not any(word in name for word in LEFT_OUT))


def boxoban_levels() -> Path | None:
    """The folder of Boxoban's levels: $BOXOBAN_LEVELS, else where minihack downloads them to."""
    import minihack

    named = os.environ.get("BOXOBAN_LEVELS")
    path = Path(named) if named else Path(minihack.__file__).parent / "dat" / "boxoban-levels-master"
    found = all(any((path / folder).glob("*.txt")) for folder in BOXOBAN_FOLDERS.values())
    return path if found else None


def family(task: str) -> str:
    """The kind of a task: "Eat" of "MiniHack-Eat-Distr-v0", "Sokoban" of "MiniHack-Sokoban1a-v1"."""
    return re.match(r"MiniHack-([A-Za-z]+)", task)[1]


def goal(task: str) -> str:
    """The goal of a task in one sentence: that of the longest key of GOALS that its id begins with."""
    name = task.removeprefix("MiniHack-")
    keys = [key for key in GOALS if name.startswith(key)]
    return GOALS[max(keys, key=len)] if keys else STAIRS


@contextlib.contextmanager
def global_generators(seed: int):
    """Seed the global generators, which some of minihack's levels read, and put them back."""
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def boxoban_level(folder: Path, seed: int) -> str:
    """One level of a folder of Boxoban files, chosen by `seed`; independent of the disk's order."""
    rng = random.Random(seed)
    text = rng.choice(sorted(folder.glob("*.txt"))).read_text()
    blocks = [block.split("\n", 1)[1] for block in text.strip("\n").split("\n\n")]
    return rng.choice(blocks)


def make_boxoban(task: str, seed: int, settings: dict[str, Any]):
    """Boxoban with one level: minihack's class reads whole folders, so it gets one of a single file."""
    from minihack.envs.boxohack import BoxoHack

    levels = boxoban_levels()
    if levels is None:
        raise ValueError(f"task={task!r} needs Boxoban's levels: set BOXOBAN_LEVELS to their folder")
    with tempfile.TemporaryDirectory(prefix="boxoban") as folder:
        level = boxoban_level(levels / BOXOBAN_FOLDERS[task], seed)
        Path(folder, "level.txt").write_text(f"; 0\n{level}\n\n")
        engine = BoxoHack(level_set=folder, level_mode="", **settings)
    engine._goal_pos_set = {None}  # its reset asks for the end before it has looked for the goals
    return engine


@functools.cache
def engine_class(entry_point: str) -> type:
    """The package's class of a task, whose levels are compiled once in a process (10 ms in a shell)."""
    from gymnasium.envs.registration import load_env_creator

    compiled: dict[str, bytes] = {}  # by the level's text or the name of its file in the package

    class Engine(load_env_creator(entry_point)):
        def _patch_nhdat(self, des_file: str) -> None:
            data = Path(self.nethack._vardir, "nhdat")  # a link to the package's own until a level is in it
            if des_file in compiled:
                data.unlink()
                data.write_bytes(compiled[des_file])
                return
            super()._patch_nhdat(des_file)
            if not data.is_symlink():
                compiled[des_file] = data.read_bytes()

    return Engine


def make_engine(task: str, seed: int):
    """A fresh engine, ready for reset. It costs 5 ms and a temporary folder until it is closed."""
    # The phase of the moon and Friday 13th change NetHack's luck: take them from the seed.
    settings = {"max_episode_steps": NO_LIMIT, "fix_moon_phase": True, "observation_keys": OBSERVATION_KEYS}
    if task in BOXOBAN_FOLDERS:
        engine = make_boxoban(task, seed, settings)
    else:
        spec = gymnasium.spec(task)
        engine = engine_class(spec.entry_point)(**{**spec.kwargs, **settings})
    # After a success NLE types the command to quit and answers its questions. We close the engine
    # instead, so that the last screen is that of the success.
    engine._quit_game = lambda observation, done: None
    engine.seed(core=seed, disp=seed, reseed=False)
    return engine


class PageTurner:
    """NLE's game, keeping what NLE passes over before anybody has seen it.

    NLE presses space at every `--More--`: what was said on those pages is kept in `pages`. When
    the game is over it leafs on to the list of scores: the screen of the end is kept in `end`.
    """

    def __init__(self, game, observation_keys: list[str]):
        self.game = game
        self.keys = observation_keys
        self.pages: list[str] = []
        self.end: dict[str, np.ndarray] | None = None
        self.state, self.screen, self.internal = map(
            observation_keys.index, ("program_state", "tty_chars", "internal"))

    def __getattr__(self, name: str):
        return getattr(self.game, name)

    def step(self, action: int):
        observation, done = self.game.step(action)
        if self.end is None and (done or observation[self.state][0]):  # program_state[0]: game over
            self.end = {key: array.copy() for key, array in zip(self.keys, observation, strict=True)}
        elif self.end is None and observation[self.internal][3]:  # waits for a space
            self.pages.append(nethack.message_text(observation[self.screen]))
        return observation, done


class Actions:
    """The text actions of one engine: commands by name, and single keys as answers to questions."""

    def __init__(self, keys):
        self.names: dict[str, int] = {}  # name -> index in the engine's action space
        self.keys: dict[str, int] = {}  # printable key -> the same index
        self.descriptions: dict[str, str] = {}
        for index, key in enumerate(keys):
            name, description = self.describe(key)
            self.names[name] = index
            self.descriptions[name] = description
            if 32 < key.value < 127:
                self.keys[chr(key.value)] = index

    @staticmethod
    def describe(key) -> tuple[str, str]:
        kind, name = type(key).__name__, key.name
        if kind.endswith("Longer"):
            return f"far {COMPASS[name]}", f"move {COMPASS[name]} until something is in the way"
        if name in COMPASS:
            return COMPASS[name], f"move {COMPASS[name]}"
        return name.lower(), COMMANDS[name.lower()]

    def index(self, text: str) -> int | None:
        """The engine's index of an action's text, None where there is no such action."""
        text = text.strip()
        if text in self.keys:
            return self.keys[text]
        return self.names.get(" ".join(text.lower().split()))

    def answers(self, message: str) -> list[str]:
        """What the question in `message` can be answered with, empty where it is no such question."""
        if "direction?" in message:
            found = [name for name in COMPASS.values() if name in self.names]
            return found + [name for name in ("wait", "down") if name in self.names]
        choices = re.search(r"\[(.+?)\]", message)
        if not choices:
            return []
        letters = re.sub(r"(\w)-(\w)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))),
                         choices[1].replace(" or ", ""))
        found = [letter for letter in letters if letter in self.keys and letter.isalpha()]
        return found + [name for name in ("esc",) if name in self.names and found]


class MiniHack(envs.Domain):
    """Small levels of NetHack: find the way, use an item, fight or avoid a monster.

    ## Action space
    Text: a command by its name ("north", "far east", "apply"), and, where the game asks a
    question, a single key ("f", "y"). Which commands there are depends on the task and is fixed
    for an episode. Questions take steps of their own. Names do not depend on case, keys do.

    ## Observation space
    Text: message, language description, cursor and map; `info["now"]` is the inventory.

    ## Rewards
    1 when the engine reports that the task is accomplished, else 0.

    ## Starting state
    The level that the package draws for the seed. Each reset makes a fresh engine (5 ms), so
    that nothing of an earlier episode can reach this one.

    ## Episode end
    Terminated when the engine ends the game (success or death), truncated after 100 steps.

    ## Arguments
    `task`: an id that `MiniHack.tasks()` lists.
    """

    name: ClassVar[str] = "minihack"
    max_steps: ClassVar[int] = 100
    static_actions: ClassVar[bool] = True

    def __init__(self, task: str | None = None, render_mode: str | None = None):
        super().__init__(task, render_mode)
        self.engine = None
        self.actions: Actions | None = None
        self.steps = 0
        self.screen: dict[str, str] = {}  # the parts of the long-term context, by their titles
        self.inventory = ""
        self.asked = False
        self.goal = ""
        self.success = False

    @classmethod
    def tasks(cls) -> list[envs.Task]:
        """Learning (30 %) and test tasks, drawn by `random.Random(42)` from the sorted ids, then shift.

        Boxoban's ids are shift tasks, so whether they are there does not change the other splits.
        """
        ids = registered_ids()
        if boxoban_levels() is None:
            ids = [name for name in ids if name not in BOXOBAN_FOLDERS]
        shift = [name for name in ids if any(word in name for word in SHIFT)]
        rest = [name for name in ids if name not in shift]
        random.Random(SPLIT_SEED).shuffle(rest)
        count = round(LEARNING_SHARE * len(rest))
        splits = {"learning": sorted(rest[:count]), "test": sorted(rest[count:]), "shift": shift}
        return [cls.task(name, split) for split, names in splits.items() for name in names]

    @staticmethod
    def task(name: str, split: str) -> envs.Task:
        source = "official" if name in BOXOBAN_FOLDERS else "engine"
        return envs.Task(name, split, family(name), source, envs.derive_seed("minihack", name))

    @classmethod
    def notes(cls) -> list[str]:
        """What the user should know about the tasks that are there, one line each."""
        if boxoban_levels():
            return []
        return ["Boxoban's three tasks are left out: no levels (make data-boxoban, or set BOXOBAN_LEVELS)"]

    @classmethod
    def load(cls) -> None:
        """Import the package: 1.5 s."""
        registered_ids()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.close()
        task = (options or {}).get("task") or self.task_id or self.tasks()[0].id
        if task not in registered_ids():
            raise ValueError(f"task={task!r} is no MiniHack task; MiniHack.tasks() lists them")
        seed = envs.derive_seed("minihack", task) if seed is None else seed
        engine_seed = envs.derive_seed("minihack", task, seed)
        with global_generators(engine_seed):
            self.engine = make_engine(task, engine_seed)
            self.engine.nethack = PageTurner(self.engine.nethack, self.engine._observation_keys)
            self.engine.reset()
        self.actions = Actions(self.engine.actions)
        self.goal, self.steps, self.success = goal(task), 0, False
        self.look()
        record = self.context() | {"action_dict": self.actions.descriptions, "goal": self.goal}
        return record["long_term_context"], self.info(record, valid=True)

    def step(self, action: str):
        if self.engine is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        index = self.actions.index(action)
        self.steps += 1
        done = False
        if index is None:
            self.screen["message"] = self.invalid(action)
        else:
            self.engine.nethack.pages.clear()
            _, _, done, _, engine_info = self.engine.step(index)
            self.success = engine_info["end_status"] == self.engine.StepStatus.TASK_SUCCESSFUL
            self.look()
        record = self.context()
        truncated = not done and self.steps >= self.max_steps
        info = self.info(record, valid=index is not None)
        return record["long_term_context"], float(self.success), done, truncated, info

    def invalid(self, action: str) -> str:
        keys = ", or a single key where the game asks for one" if self.engine._allow_all_yn_questions else ""
        names = ", ".join(self.actions.names)
        return f"{action[:80]!r} is no valid action here. Valid actions: {names}{keys}."

    def look(self) -> None:
        """Read the engine's last observation: its arrays are reused, the texts are ours."""
        turner = self.engine.nethack
        seen = turner.end or dict(zip(turner.keys, self.engine.last_observation, strict=True))
        pages = (*turner.pages, nethack.message_text(seen["tty_chars"]))
        message = "\n".join(page.replace("--More--", "").replace("(end)", "").strip() for page in pages)
        self.screen = {
            "message": message.strip(),
            "language observation": nethack.glyphs_text(seen["glyphs"], seen["blstats"]),
            "cursor": nethack.cursor_text(seen["glyphs"], seen["blstats"], seen["tty_cursor"]),
            "map": nethack.map_text(seen["tty_chars"]),
        }
        self.inventory = nethack.inventory_text(seen["inv_strs"], seen["inv_letters"])
        self.asked = bool(seen["internal"][1])  # the game waits for the answer to a question

    def context(self) -> dict[str, str]:
        """The observation under the keys that memory designs know."""
        long_term = "\n\n".join(f"{title}:\n{text}" for title, text in self.screen.items())
        return {"long_term_context": long_term, "short_term_context": f"inventory:\n{self.inventory}"}

    def info(self, record: dict[str, Any], valid: bool) -> dict[str, Any]:
        answers = self.actions.answers(self.screen["message"]) if self.asked else []
        asked = "\n\nValid actions:\n" + "\n".join(f"- {answer}" for answer in answers) if answers else ""
        return {
            "record": record,
            "now": record["short_term_context"] + asked,
            "actions": answers or list(self.actions.names),
            "goal": self.goal,
            "score": float(self.success),
            "success": self.success,
            "valid": valid,
        }

    def render(self) -> str:
        return self.context()["long_term_context"]

    def close(self) -> None:
        """Give the engine's memory and temporary folder back."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None
