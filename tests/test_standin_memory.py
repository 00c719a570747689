"""The stand-ins in a small game of their own: deterministic, of the promised form, no better than what they are told."""

import asyncio
import json
import random
import re
import subprocess

import pytest

import memory_base
import standins
from errors import UserError
from memory_base import Trajectory
from tests.conftest import ROOT

# ------------------------------------------------------------------- a game that is in no grammar

THINGS = ("ring", "coin", "cup", "bell", "comb", "flute")
BOXES = ("crate", "barrel", "sack", "chest")
STEPS = 6


class Boxes:
    """Find a thing: each kind of thing lies in one kind of box, which one only memory can tell."""

    def __init__(self, seed: int, rename=lambda text: text):
        rng = random.Random(seed)
        self.rename = rename
        self.thing = rng.choice(THINGS)
        self.box = f"{BOXES[THINGS.index(self.thing) % len(BOXES)]} {rng.randint(1, 3)}"
        self.others = {f"{kind} {n}": rng.choice(THINGS) for kind in BOXES for n in (1, 2, 3)}
        self.others = {box: "dust" if thing == self.thing else thing for box, thing in self.others.items()}
        self.goal = rename(f"Take the {self.thing}.")
        self.text = rename("You stand in a cellar full of boxes.")
        self.won, self.here = False, None

    def actions(self) -> list[str]:
        boxes = [f"open {kind} {n}" for n in (1, 2, 3) for kind in BOXES]
        return [self.rename(action) for action in [*boxes, *([f"take {self.here}"] if self.here else [])]]

    def step(self, action: str) -> None:
        if self.here and action == self.rename(f"take {self.here}"):
            self.won = self.here == self.thing
            self.text = self.rename(f"You take the {self.here}.")
            return
        box = next(box for box in self.others if self.rename(f"open {box}") == action)
        self.here = self.thing if box == self.box else self.others[box]
        self.text = self.rename(f"You open the {box}. In it you see a {self.here}.")


def play(seed: int, memory: object = "", rename=lambda text: text) -> Trajectory:
    """One episode of `Boxes` with the stand-in agent."""
    game, turns = Boxes(seed, rename), []
    shown = f"## Memory\nOf earlier tasks.\n```json\n{json.dumps(memory, indent=1)}\n```\n\n" if memory else ""
    system = f"A game.\n\n## How to answer\nOne action.\n\n{shown}## Goal\n{game.goal}"
    played = Trajectory({"obs": game.text, "goal": game.goal})
    for _ in range(STEPS):
        listed = "\n".join(f"- {action}" for action in game.actions())
        last = f"Observation:\n{game.text}\n\nValid actions:\n{listed}"
        messages = [{"role": "system", "content": system}, *turns, {"role": "user", "content": last}]
        action = standins.chat("agent", messages, None, seed)
        assert action in game.actions()
        turns += [{"role": "user", "content": f"Observation:\n{game.text}"}, {"role": "assistant", "content": action}]
        game.step(action)
        played.steps.append({"action_took": action, "obs": game.text, "scores": float(game.won), "dones": game.won})
        if game.won:
            break
    played.reward = float(game.won)
    return played


def rate(memory=lambda seed: "", seeds=range(1000, 1120), **more) -> float:
    return sum(play(seed, memory(seed), **more).reward for seed in seeds) / len(seeds)


def facts(shift: int = 0) -> dict:
    """Where things are: true, or with another box for each thing."""
    return {thing: f"open {BOXES[(n + shift) % len(BOXES)]}" for n, thing in enumerate(THINGS)}


class LocalTools:
    """What the sandbox gives a design, without the sandbox."""

    async def ask(self, system, user, schema, model):
        return standins.chat("memory", [{"role": "system", "content": system}, {"role": "user", "content": user}], schema)

    async def embed(self, texts):
        return standins.embed(texts)


def design(code: str, trajectories) -> memory_base.MemoryDesign:
    """A written design that has learned from trajectories."""
    memory_base.connect(LocalTools())
    space: dict = {"__name__": "design"}
    exec(compile(code, "<design>", "exec"), space)
    memory = space["Memory"]()

    async def learn():
        for trajectory in trajectories:
            await memory.general_update(trajectory)

    asyncio.run(learn())
    return memory


def retrieved(memory, trajectory: Trajectory) -> object:
    return asyncio.run(memory.general_retrieve(Trajectory(trajectory.init)))


@pytest.fixture(scope="module")
def collected() -> list[Trajectory]:
    return [play(seed) for seed in range(40)]


# --------------------------------------------------------------------------------------- the agent


def test_agent_profits_from_true_facts_and_is_misled_by_false_ones():
    none, true, false = rate(), rate(lambda seed: facts()), rate(lambda seed: facts(shift=1))
    assert 0.1 < none < 0.8  # neither hopeless nor saturated
    assert true > none + 0.2
    assert false < none - 0.05


def test_whole_episodes_of_other_tasks_help_less_than_the_facts_in_them(collected):
    raw = [{"goal": one.init["goal"], "steps": one.steps} for one in collected[:20]]
    assert rate(lambda seed: {"episodes": raw}) < rate(lambda seed: facts()) - 0.3


@pytest.mark.parametrize(
    "told",
    [
        lambda thing, box: {thing: {"found in": box}},
        lambda thing, box: [f"A {thing} lies in a {box}."],
        lambda thing, box: f"Look for the {thing} in each {box}.",
        lambda thing, box: [{"thing": thing, "where": [box]}],
    ],
)
def test_agent_reads_facts_in_any_form(told):
    def memory(seed):
        thing = Boxes(seed).thing
        return told(thing, BOXES[THINGS.index(thing) % len(BOXES)])

    assert rate(memory) > rate() + 0.15


def test_agent_heeds_a_warning():
    def memory(seed):
        wrong = [box for box in BOXES if box != BOXES[THINGS.index(Boxes(seed).thing) % len(BOXES)]]
        return {"advice": [f"Never open a {box}." for box in wrong]}

    assert rate(memory) > rate() + 0.15


def test_agent_scores_stay_when_every_word_is_swapped_for_nonsense():
    made_up = {}

    def nonsense(match):
        rng = random.Random(match.group())
        syllables = ("bli", "dro", "vak", "mup", "zel", "tor", "gan", "fip")
        return made_up.setdefault(match.group(), "".join(rng.sample(syllables, 3)))

    game_words = "|".join([*THINGS, *BOXES, "dust", "boxes", "cellar"])

    def rename(text):
        return re.sub(rf"\b({game_words})\b", nonsense, text)

    for shift in (0, 1):
        swapped = json.loads(rename(json.dumps(facts(shift))))
        assert rate(lambda seed, told=swapped: told, rename=rename) == pytest.approx(
            rate(lambda seed, shift=shift: facts(shift)), abs=0.1
        )
    assert len(set(made_up.values())) == len(made_up) > 5


def test_an_unknown_role_and_an_unknown_stage_are_errors():
    with pytest.raises(UserError, match="judge"):
        standins.chat("judge", [{"role": "user", "content": "Hello"}])
    for text in ("# Stage: merge\n\nMerge these.", "Write something."):
        with pytest.raises(UserError, match="stages first, ideate, implement, repair"):
            standins.chat("meta", [{"role": "user", "content": text}])


def test_agent_answers_where_no_actions_are_listed():
    messages = [{"role": "system", "content": "A game."}, {"role": "user", "content": "Observation:\nA door."}]
    assert standins.chat("agent", messages)


def test_agent_takes_a_static_list_of_actions_and_what_the_observation_points_to():
    system = "A game.\n\n## Actions\nleft: go left\nright: go right\nwait: do nothing\n\n## Goal\nReach the lamp."
    text = "Observation:\nlamp 3 steps to the right\nstone 1 step to the left"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    assert {standins.chat("agent", messages, seed=seed) for seed in range(20)} == {"right"}


# -------------------------------------------------------------------------------- models in designs

SCHEMA = {
    "type": "object",
    "properties": {
        "lessons": {"type": "array", "items": {"type": "string"}},
        "kind": {"type": "string", "enum": ["search", "fetch"]},
        "sure": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["lessons", "kind"],
}


def test_memory_role_extracts_sentences_of_its_input():
    text = "The crate held the ring. The weather was fine. Open the crate to get the ring."
    answer = standins.chat("memory", [{"role": "user", "content": text}])
    assert answer and all(line in text for line in answer.splitlines())
    assert "ring" in answer.splitlines()[0]


def test_memory_role_fills_a_schema():
    answer = standins.chat("memory", [{"role": "user", "content": "fetch 12 rings. Open the crate."}], SCHEMA)
    value = json.loads(answer)
    assert value["kind"] == "fetch" and value["count"] == 9 and value["sure"] is True
    assert value["lessons"] and all(isinstance(lesson, str) for lesson in value["lessons"])


def test_embeddings_are_unit_vectors_and_near_for_texts_with_common_words():
    a, b, c, empty = standins.embed(["open the red crate", "a red crate", "a flute plays", "12 -- !"])
    dot = [sum(x * y for x, y in zip(a, other, strict=True)) for other in (a, b, c)]
    assert len(a) == 256 and dot[0] == pytest.approx(1) and dot[1] > 0.4 > abs(dot[2])
    assert not any(empty)


# ----------------------------------------------------------------------------------- determinism

SCRIPT = """
import sys; sys.path[:0] = sys.argv[1:3]
import json, standins, test_standin_memory as t
from dataclasses import replace
from standins.sketch import LAYERS, read
played = [t.play(seed) for seed in range(12)]
told = [t.retrieved(t.design(replace(read(""), layers=(layer,)).code(), played), played[0]) for layer in LAYERS]
moves = [step["action_took"] for seed in range(5) for step in t.play(seed, t.facts()).steps]
first = [standins.chat("meta", [{"role": "user", "content": "# Stage: first"}], None, seed) for seed in range(4)]
print(json.dumps([told, moves, first, standins.embed(["open the crate"])]))
"""


def test_all_answers_are_the_same_in_two_processes_with_other_string_hashes(python):
    root = str(ROOT)
    runs = [
        subprocess.run(
            [python, "-c", SCRIPT, root, f"{root}/tests"],
            env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(runs[0]) > 1000
