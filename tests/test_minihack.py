"""MiniHack and the language text: recorded observations, determinism, every id, the prompts' questions."""

import json
import os
import random
import subprocess
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from domains import minihack as envs_minihack
from domains import nethack_text as nethack
from domains.minihack import MiniHack

ROOT = Path(__file__).resolve().parents[1]
LEVEL = """\
##########
#        #
# @$ .   #
#  $ .   #
#  $ .   #
#  $ .   #
#        #
#        #
##########
##########"""
TRAJECTORIES = """
import hashlib, json, random, sys
from domains.minihack import MiniHack
names = json.loads(sys.argv[1])
env, hashes = MiniHack(), {}
for name in names:
    text, info = env.reset(seed=7, options={"task": name})
    seen, rng = [text, info["record"]["short_term_context"]], random.Random(name)
    for _ in range(25):
        text, reward, over, _, info = env.step(rng.choice(info["actions"]))
        seen += [text, str(reward), info["now"]]
        if over:
            break
    hashes[name] = [hashlib.sha256(part.encode()).hexdigest() for part in (seen[0], "".join(seen))]
print(json.dumps(hashes))
"""


def levels(folder: Path, per_file: int = 3) -> Path:
    """A folder of Boxoban levels in the layout of minihack's download."""
    for place in envs_minihack.BOXOBAN_FOLDERS.values():
        (folder / place).mkdir(parents=True)
        for number in range(2):
            blocks = [f"; {index}\n{LEVEL}\n" for index in range(per_file)]
            (folder / place / f"00{number}.txt").write_text("\n".join(blocks))
    return folder


def play(env: MiniHack, task: str, seed: int, *actions: str):
    text, info = env.reset(seed=seed, options={"task": task})
    result = text, 0.0, False, False, info
    for action in actions:
        result = env.step(action)
    return result


@pytest.fixture
def env():
    env = MiniHack()
    yield env
    env.close()


# The language text


def test_text_equals_every_recorded_observation(shared):
    recorded = np.load(shared / "minihack_language" / "observations.npz")
    arrays = {name: recorded[name] for name in recorded.files if name != "names"}
    expected = json.loads((shared / "minihack_language" / "expected.json").read_text())
    assert len(expected) == 110
    for index, wanted in enumerate(expected):
        text = nethack.describe_nethack({name: array[index] for name, array in arrays.items()})
        assert {"name": wanted["name"], **text} == wanted


def test_every_glyph_has_the_name_of_its_kind():
    from nle import nethack as nh

    names = nethack.glyph_names()
    assert len(names) == nh.MAX_GLYPH
    newt = next(index for index in range(nh.NUMMONS) if nh.permonst(index).mname == "newt")
    offsets = {nh.GLYPH_MON_OFF: "newt", nh.GLYPH_PET_OFF: "tame newt", nh.GLYPH_DETECT_OFF: "detected newt",
               nh.GLYPH_BODY_OFF: "newt corpse", nh.GLYPH_RIDDEN_OFF: "ridden newt",
               nh.GLYPH_STATUE_OFF: "newt statue"}
    assert {offset: names[offset + newt] for offset in offsets} == offsets
    assert names[nh.GLYPH_INVIS_OFF] == "invisible creature"
    assert names[nh.GLYPH_CMAP_OFF + 24] == "stairs down" and names[nh.GLYPH_CMAP_OFF + 27] == "alter"
    assert names[nh.GLYPH_EXPLODE_OFF + 4] == "explosion middle center"
    assert names[nh.GLYPH_ZAP_OFF + 1] == "vertical zap beam"
    assert names[nh.GLYPH_SWALLOW_OFF + 3] == "swallow middle left"
    assert names[nh.GLYPH_WARNING_OFF] == "unknown creature causing you worry"
    assert {"worthless piece of white glass", "scroll labeled unlabeled", "gray flint", "boulder", "splash of acid venom"} <= set(names)


@pytest.mark.parametrize(("noun", "expected"), [
    ("boulder", "boulders"), ("lava", "area of lava"), ("hiking boots", "hiking boots"), ("jelly", "jellies"),
    ("scroll labeled FOO", "scrolls labeled FOO"), ("wolf", "wolves"), ("killer bee", "killer bees"),
    ("worthless piece of red glass", "worthless pieces of red glass"), ("lynx", "lynxes"),
    ("Master of Thieves", "Masters of Thieves"), ("wood nymph", "wood nymphs"),
    ("can of grease", "cans of grease"), ("Master Assassin", "Master Assassins"), ("quasit", "quasits"),
    ("unknown creature causing you worry", "unknown creatures causing you worry"),
])
def test_plurals_follow_the_convention(noun, expected):
    assert nethack.plural(noun) == expected


@pytest.mark.parametrize(("dx", "dy", "expected"), [
    (0, -1, "adjacent north"), (2, 2, "very near southeast"), (-3, 1, "near westsouthwest"),
    (5, -4, "near eastnortheast"), (6, 0, "far east"), (19, 1, "far eastsoutheast"),
    (20, 1, "very far eastsoutheast"), (-1, 4, "near southsouthwest"), (-78, -20, "very far westnorthwest"),
])
def test_places_have_the_convention_s_distances_and_directions(dx, dy, expected):
    where = nethack.place(dx, dy)
    assert f"{nethack.DISTANCES[where >> 4]} {nethack.DIRECTIONS[where & 15]}" == expected


def test_rays_end_at_walls_and_after_nine_squares_but_things_are_seen_everywhere():
    from nle import nethack as nh

    glyphs = np.full((21, 79), nh.GLYPH_CMAP_OFF + 19, dtype=np.int16)  # floor
    glyphs[10, 13] = glyphs[10, 14] = nh.GLYPH_CMAP_OFF + 52  # pits on the ray to the east
    glyphs[10, 15] = nh.GLYPH_CMAP_OFF + 1  # a wall, and another behind it
    glyphs[10, 17] = nh.GLYPH_CMAP_OFF + 1
    glyphs[10, 18] = nh.GLYPH_CMAP_OFF + 24  # stairs behind the walls
    glyphs[12, 13] = nh.GLYPH_CMAP_OFF + 52  # a pit beside the rays
    glyphs[20, 10] = nh.GLYPH_CMAP_OFF + 2  # a wall ten squares to the south
    blstats = np.zeros(27, dtype=np.int64)
    blstats[:2] = 10, 10
    assert nethack.glyphs_text(glyphs, blstats).split("\n") == [
        "stairs down far east", "pits near east", "vertical wall near east"]


def test_a_menu_is_read_as_a_whole_and_a_message_as_its_line():
    screen = np.full((24, 80), ord(" "), dtype=np.uint8)
    for row, text in enumerate(("Things that are here:", "an apple", "2 daggers", "(end)", "|....|")):
        screen[row, 30:30 + len(text)] = list(text.encode())
    assert nethack.message_text(screen) == "Things that are here:\nan apple\n2 daggers\n(end)"
    screen[3] = ord(" ")
    assert nethack.message_text(screen) == "Things that are here:"
    screen[0] = ord(" ")
    assert nethack.message_text(screen) == ""


# Tasks


def test_splits_are_disjoint_and_follow_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("BOXOBAN_LEVELS", str(levels(tmp_path)))
    tasks = MiniHack.tasks()
    by_split = {"learning": set(), "test": set(), "shift": set()}
    for task in tasks:
        by_split[task.split].add(task.id)
    assert sum(map(len, by_split.values())) == len(tasks) == len({task.id for task in tasks})
    assert not any(word in task.id for task in tasks for word in envs_minihack.LEFT_OUT)
    shift = {task.id for task in tasks if any(word in task.id for word in envs_minihack.SHIFT)}
    assert by_split["shift"] == shift
    rest = len(by_split["learning"]) + len(by_split["test"])
    assert len(by_split["learning"]) == round(0.3 * rest)
    assert MiniHack.tasks() == tasks


def test_boxoban_without_levels_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("BOXOBAN_LEVELS", str(levels(tmp_path / "there")))
    with_levels = MiniHack.tasks()
    assert MiniHack.notes() == []
    monkeypatch.setenv("BOXOBAN_LEVELS", str(tmp_path / "nowhere"))
    assert "Boxoban" in "".join(MiniHack.notes())
    without = MiniHack.tasks()
    assert [task for task in with_levels if "Boxoban" not in task.id] == without
    with pytest.raises(ValueError, match="BOXOBAN_LEVELS"):
        MiniHack("MiniHack-Boxoban-Hard-v0").reset(seed=0)


def test_a_boxoban_level_is_solved_by_pushing_its_boulders(tmp_path, monkeypatch, env):
    monkeypatch.setenv("BOXOBAN_LEVELS", str(levels(tmp_path)))
    back = ["west", "west", "south"]  # to the left of the next boulder
    moves = [*["east", "east"], *back, *["east", "east"], *back, *["east", "east"], *back, "east"]
    _, reward, over, _, info = play(env, "MiniHack-Boxoban-Medium-v0", 3, *moves)
    assert (reward, over, info["success"]) == (0.0, False, False)
    _, reward, over, _, info = env.step("east")
    assert (reward, over, info["success"]) == (1.0, True, True)


def test_every_id_starts_steps_and_ends(tmp_path, monkeypatch):
    class Short(MiniHack):
        max_steps = 4

    monkeypatch.setenv("BOXOBAN_LEVELS", str(levels(tmp_path)))
    env, rng = Short(), random.Random(0)
    for task in env.tasks():
        text, info = env.reset(seed=1, options={"task": task.id})
        assert "language observation:\n" in text and info["goal"] and info["record"]["action_dict"], task
        for step in range(1, 5):
            _, _, over, cut, info = env.step(rng.choice(info["actions"]))
            assert info["valid"] and set(info["record"]) == {"long_term_context", "short_term_context"}
            assert (over and not cut) or cut == (step == 4), task
            if over:
                break
    env.close()


# Episodes


def test_the_same_task_and_seed_play_the_same_in_two_processes_in_any_order(python):
    rng = random.Random(3)
    names = rng.sample([task.id for task in MiniHack.tasks() if "Boxoban" not in task.id], 6)
    outputs = []
    for order, hash_seed in ((names, "1"), (names[::-1] + names, "2")):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=str(ROOT), TZ=f"UTC{hash_seed}")
        done = subprocess.run([python, "-W", "ignore", "-c", TRAJECTORIES, json.dumps(order)], check=True,
                              capture_output=True, text=True, env=environment)
        outputs.append(json.loads(done.stdout))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 6


def test_another_seed_is_another_level(env):
    first = {play(env, "MiniHack-Room-Random-15x15-v0", seed)[0] for seed in range(4)}
    assert len(first) == 4


def test_the_global_generators_stay_as_they_were(tmp_path, monkeypatch, env):
    monkeypatch.setenv("BOXOBAN_LEVELS", str(levels(tmp_path)))
    random.seed(11)
    np.random.seed(11)
    before = random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    play(env, "MiniHack-Boxoban-Hard-v0", 2, "north", "east")
    play(env, "MiniHack-Room-Monster-5x5-v0", 2, "north", "east")
    assert (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before


def test_a_question_is_answered_with_a_key_and_success_is_the_engine_s(env):
    *_, info = play(env, "MiniHack-Zap-Fixed-v0", 1, "far northwest", "pickup", "zap")
    assert info["actions"] == ["f", "esc"] and info["now"].endswith("Valid actions:\n- f\n- esc")
    text, reward, over, _, info = env.step("f")
    assert (reward, over, info["success"], info["score"]) == (1.0, True, True, 1.0)
    assert text.startswith("message:\nYou feel self-knowledgeable...\n")  # a page that NLE turned
    assert "Do you want" not in text and "Goodbye" not in text


def test_a_death_ends_the_episode_without_success_and_shows_the_last_moment(env):
    lava = ["east"] * 12
    *_, info = play(env, "MiniHack-Freeze-Lava-Restricted-v0", 1)
    for action in lava:
        text, reward, over, _, info = env.step(action)
        if over:
            break
    assert over and reward == 0.0 and not info["success"]
    assert "You fall into the lava!" in text and "horizontal wall" in text


def test_an_invalid_action_costs_a_step_and_says_what_is_valid(env):
    text, _ = env.reset(seed=5, options={"task": "MiniHack-Room-5x5-v0"})
    told, reward, over, cut, told_info = env.step("open the fridge")
    line, _, rest = told.removeprefix("message:\n").partition("\n")
    assert line == ("'open the fridge' is no valid action here. Valid actions: north, east, south, west, "
                    "northeast, southeast, southwest, northwest.")
    assert rest == text.removeprefix("message:\n").partition("\n")[2]
    assert (reward, over, cut, told_info["valid"]) == (0.0, False, False, False)
    assert env.steps == 1


def test_names_do_not_depend_on_case_or_spaces_and_keys_do(env):
    env.reset(seed=5, options={"task": "MiniHack-Eat-v0"})
    index = env.index
    assert index(" Far  North ") == index("far north") == index("K") != index("k") == index("north")
    assert index("f") == index("fire") and index("§") is None and index("") is None


def test_an_episode_is_cut_after_a_hundred_steps(env):
    env.reset(seed=5, options={"task": "MiniHack-Room-5x5-v0"})
    for _ in range(99):
        assert env.step("nothing")[2:4] == (False, False)
    assert env.step("nothing")[2:4] == (False, True)


def test_two_hundred_episodes_leave_no_memory_files_or_folders_behind(env, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng, sizes = random.Random(0), []
    names = ["MiniHack-Room-5x5-v0", "MiniHack-Eat-v0", "MiniHack-KeyRoom-S5-v0", "MiniHack-River-v0"]
    for episode in range(200):
        _, info = env.reset(seed=episode, options={"task": names[episode % 4]})
        for _ in range(5):
            env.step(rng.choice(info["actions"]))
        if episode in (49, 199):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))))
    assert sizes[1][0] - sizes[0][0] < 8  # megabytes
    assert sizes[1][1] <= sizes[0][1]  # fewer where what other tests have left is collected meanwhile
    env.close()
    assert not list(tmp_path.iterdir())


def test_gymnasium_s_checker_accepts_the_environment():
    env = gymnasium.make("alma/MiniHack-v0", task="MiniHack-Room-Random-5x5-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
