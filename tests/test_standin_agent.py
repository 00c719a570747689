"""The agent stand-in on real domains: a good memory helps it, a shuffled copy or a dump of everything less.

`python -m tests.test_standin_agent ENV DESIGN.py` prints the same four rates for a design over the whole test set.
"""

import asyncio
import json
import random
import re
import sys
from pathlib import Path
from statistics import mean

import pytest

import envs
import evaluate
import memory_base
import standins
from agent import Episode, play
from memory_base import Trajectory
from standins.agent import act
from standins.prompt import read_observation
from standins.state import read_directions

PROBES = Path(__file__).parent / "probes"


class LocalTools:
    """What the sandbox gives a design, without the sandbox."""

    async def ask(self, system, user, schema, model):
        return standins.chat("memory", [{"role": "user", "content": user}], schema)

    async def embed(self, texts):
        return standins.embed(texts)


def halves(domain: str, families: str, most: int | None = None) -> list[list[envs.Task]]:
    """Collection and deployment tasks of the test split in these families, at most so many of each half."""
    tasks = [task for task in envs.domain_class(domain).tasks() if task.split == "test"]
    wanted = families.split()
    chosen = [[task for task in half if not wanted or task.family in wanted][:most] for half in evaluate.halve(tasks, 42)]
    envs.domain_class(domain).prepare([task.id for half in chosen for task in half])
    return chosen


def episode(domain: str, task: envs.Task, phase: str, memory: object = "") -> Trajectory:
    seed = envs.derive_seed(task.seed, 42, phase)
    text = evaluate.memory_text(memory)
    return play(Episode(domain, task.id, seed, "offline", text, "", show_admissible=True)).trajectory


def learned(design: Path, trajectories: list[Trajectory]) -> memory_base.MemoryDesign:
    memory_base.connect(LocalTools())
    memory = memory_base.load_design(design)()

    async def learn():
        for trajectory in trajectories:
            await memory.general_update(trajectory)

    asyncio.run(learn())
    return memory


def rates(
    domain: str, families: str, times: int, passes: int, most: int | None = None, design: Path | None = None
) -> dict[str, float]:
    """Success on the deployment half with no memory, a design's (else the probe's), a shuffled copy of it, a dump."""
    collection, deployment = halves(domain, families, most)
    collected = [episode(domain, task, f"collection {n}") for task in collection for n in range(times)]
    memory = learned(design or PROBES / f"{domain}.py", collected)
    deployed = [(task, number) for number in range(passes) for task in deployment]
    none = [episode(domain, task, number) for task, number in deployed]
    told = [asyncio.run(memory.general_retrieve(Trajectory(one.init))) for one in none]
    dump = [_texts(one) for one in collected[:3]]
    played = {
        "probe": [episode(domain, *which, one) for which, one in zip(deployed, told, strict=True)],
        "shuffled": [episode(domain, *which, one) for which, one in zip(deployed, shuffled(told), strict=True)],
        "dump": [episode(domain, *which, dump) for which in deployed],
    }
    return {name: mean(one.reward for one in ones) for name, ones in {"none": none, **played}.items()}


def shuffled(told: list[dict]) -> list[dict]:
    """The same keys, and in the values each word replaced by another word of the values."""
    found = sorted({word for one in told for text in leaves(one) for word in re.findall(r"[a-z]+", text.lower())})
    half = len(found) // 2
    other = dict(zip(found, found[half:] + found[:half], strict=True))
    return [renamed(one, other) for one in told]


def leaves(value) -> list[str]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for part in parts for text in leaves(part)]


def renamed(value, other: dict[str, str]):
    if isinstance(value, dict):
        return {key: renamed(part, other) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, other) for part in value]
    return re.sub(r"[a-z]+", lambda word: other[word[0]], value.lower()) if isinstance(value, str) else value


def _texts(one: Trajectory) -> dict:
    """An episode as actions and observations, without lists of commands."""
    steps = [{key: value for key, value in step.items() if isinstance(value, str)} for step in one.steps]
    return {"goal": one.init["goal"], "steps": steps, "reward": one.reward}


@pytest.mark.parametrize(
    ("domain", "families", "times", "passes", "most"),
    [
        ("babaisai", "goto_win two_room-goto_win you_win two_room-maybe_break_stop-goto_win", 8, 4, None),
        ("minihack", "Eat Wear", 2, 2, None),
        ("textworld", "cooking", 2, 1, 3),
    ],
)
def test_a_good_memory_helps_and_a_shuffled_copy_or_a_dump_does_less(domain, families, times, passes, most):
    got = rates(domain, families, times, passes, most)
    assert got["probe"] > got["none"] + 0.1, got
    assert got["probe"] > got["dump"], got
    assert got["probe"] > got["shuffled"], got


def test_the_commands_that_won_in_a_house_win_there_again_and_the_same_with_words_exchanged_do_not():
    families = "pick_and_place_simple pick_clean_then_place_in_recep look_at_obj_in_light"
    houses = [task for half in halves("alfworld", families, 4) for task in half]
    played = [(task, episode("alfworld", task, f"first {number}")) for task in houses for number in range(4)]
    won = [(task, one) for task, one in played if one.reward]
    told = [{"goal": one.init["goal"], "steps": [step["action_took"] for step in one.steps]} for _, one in won]
    again = [episode("alfworld", task, "again", memory) for (task, _), memory in zip(won, told, strict=True)]
    other = [episode("alfworld", task, "again", memory) for (task, _), memory in zip(won, shuffled(told), strict=True)]
    assert len(won) > 3
    assert mean(one.reward for one in again) > max(0.8, mean(one.reward for one in other) + 0.4)


# ------------------------------------------------------------------- finding the way back

GARDEN = {  # scene -> where each command leads; a map that no grammar knows
    "Pond": {"wade vor": "Hedge"},
    "Hedge": {"wade hin": "Pond", "wade vor": "Bower"},
    "Bower": {"wade hin": "Hedge", "wade vor": "Grove"},
    "Grove": {"wade hin": "Bower", "wade vor": "Marsh"},
    "Marsh": {"wade hin": "Grove"},
}


def described(scene: str) -> str:
    ways = " and ".join(command.split()[1] for command in GARDEN[scene])
    return f"* {scene} *\nThis is the {scene.lower()}, a quiet and pleasant place to be.\nPaths lead {ways}."


def test_agent_walks_back_to_where_it_saw_what_directions_name():
    """The directions at the far end tell to polish what was seen at the near end."""
    taken = ["wade vor", "wade hin", "wade vor", "wade vor", "wade hin", "wade vor", "wade vor", "wade vor", "read slab"]
    scene, texts = "Pond", [described("Pond") + " There is a sphere here."]
    for command in taken[:-1]:
        scene = GARDEN[scene][command]
        texts.append(described(scene) + (" There is a sphere here." if scene == "Pond" else ""))
    texts.append("Do this:\npolish the sphere\nread the sphere\n")
    system = "A game. You can `read THING` and `polish THING`.\n\n## Goal\nDo what the slab says."
    walked = []
    for _ in range(4):
        listed = "".join(f"- {command}\n" for command in ("read slab", "hum", "wait", *GARDEN[scene]))
        messages = [{"role": "system", "content": system}]
        for text, action in zip(texts, taken, strict=False):
            messages += [{"role": "user", "content": f"Observation:\n{text}"}, {"role": "assistant", "content": action}]
        last = f"Observation:\n{texts[-1]}\n\nValid actions:\n{listed}"
        action = act([*messages, {"role": "user", "content": last}], 1)
        walked.append(action)
        scene = GARDEN[scene].get(action, scene)
        taken.append(action)
        texts.append(described(scene) + (" There is a sphere here." if scene == "Pond" else ""))
    assert walked == ["wade hin"] * 4 and scene == "Pond"


# ------------------------------------------------------------------- a domain that is in no grammar


def test_forms_of_one_fact_all_help_in_a_domain_that_no_grammar_knows():
    from tests.toy import BEHIND, Doors

    tasks = [task for task in Doors.tasks() if task.split == "test"]

    def rate(told):
        rewards = []
        for task in tasks:
            gem = task.id.split("-")[0]
            for number in range(3):
                rewards.append(episode("tests.toy:Doors", task, str(number), told(gem, BEHIND[gem])).reward)
        return mean(rewards)

    none = rate(lambda gem, colour: "")
    assert none < 0.85
    for told in (
        lambda gem, colour: {"goal": f"Find the {gem}.", "plan": [f"open {colour} door"], "reward": 1.0},
        lambda gem, colour: {"advice": [f"open {colour} door"]},
        lambda gem, colour: f"to find the {gem}: open {colour} door",
        lambda gem, colour: {name: f"open {other} door" for name, other in BEHIND.items()},
    ):
        assert rate(told) > none + 0.1
    colours = random.Random(1).sample(sorted(BEHIND.values()), len(BEHIND))
    wrong = dict(zip(BEHIND, colours, strict=True))
    assert rate(lambda gem, colour: {"advice": [f"open {wrong[gem]} door"]}) < rate(
        lambda gem, colour: {"advice": [f"open {colour} door"]}
    )


# ------------------------------------------------------------------- reading directions and warnings


def test_lines_that_deal_with_the_things_of_another_list_are_directions_though_no_command_is_known():
    text = "Parts:\n  blue bolt\n  red nut\nWhat to do:\n  plim the blue bolt\n  plim the red nut\n  dorn it\n"
    told = read_directions(read_observation(text), frozenset(["take"]))
    assert told.steps == (("plim", "blue", "bolt"), ("plim", "red", "nut"), ("dorn",))
    assert told.listed == (frozenset(["blue", "bolt"]), frozenset(["red", "nut"]))
    assert not read_directions(read_observation("Parts:\n  blue bolt\n  red nut\nColours:\n  green\n  grey\n"), frozenset(["take"]))


@pytest.mark.parametrize(("warning", "heeded"), [("never take printer", False), ("never take lamp", True), ("never take", True)])
def test_a_warning_of_one_thing_says_nothing_of_another(warning, heeded):
    system = f"A game.\n\n## Memory\nOf earlier tasks.\n```json\n{json.dumps({'dangers': [warning]})}\n```\n\n## Goal\nWin."
    user = "Observation:\nA lamp and a door.\n\nValid actions:\n- take lamp\n- open door"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    picked = {act(messages, seed) for seed in range(40)}
    assert picked == ({"open door"} if heeded else {"open door", "take lamp"})


if __name__ == "__main__":
    print({name: round(100 * rate, 1) for name, rate in rates(sys.argv[1], "", 2, 2, design=Path(sys.argv[2])).items()})
