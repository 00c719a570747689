"""What the baselines remember and retrieve, each through the real sandbox.

The models behind them are scripted here: they stand for an endpoint. Embeddings are the stand-in's.
"""

import ast
import asyncio
import contextlib
import json
from pathlib import Path

import pytest

import standins
from errors import DesignError
from harness.cli import baseline
from memory_base import Trajectory
from sandbox import Sandbox

BASELINES = ("no_memory", "trajectory_retrieval", "reasoning_bank", "dynamic_cheatsheet", "g_memory")
DESIGNS = Path(__file__).parent / "designs"


class Endpoint:
    """Answers questions with `script(system, user)`, given as an object or as raw text; keeps them."""

    def __init__(self, script=None):
        self.script, self.asked = script, []

    async def ask(self, system, user, schema, model):
        self.asked.append((system, user))
        if self.script is None:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            return standins.chat("memory", messages, schema)
        answer = self.script(system, user)
        return answer if isinstance(answer, str) else json.dumps(answer)

    async def embed(self, texts):
        return standins.embed(texts)


def episode(goal, steps, reward, start="You are in a room."):
    """A trajectory; `steps` are pairs of action and observation."""
    records = [{"action_took": action, "obs": text, "scores": 0.0, "dones": False} for action, text in steps]
    return Trajectory({"obs": start, "goal": goal}, records, reward)


@pytest.fixture(scope="module")
def retrieved():
    """What a design (its code) retrieves for each init after it has learned the trajectories."""

    async def go(box, design, trajectories, endpoint, inits):
        async with box.worker(design, endpoint) as worker:
            for trajectory in trajectories:
                await worker.update(trajectory)
            return [await worker.retrieve(init) for init in inits]

    # Layers that this system lacks are no matter here: these designs are our own.
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        box = runner.run(Sandbox(unsafe=True).__aenter__())
        stack.callback(lambda: runner.run(box.__aexit__(None, None, None)))
        yield lambda design, trajectories, endpoint, *inits: runner.run(
            go(box, design, trajectories, endpoint, inits)
        )


MUG = episode(
    "put a clean mug on the shelf",
    [
        ("go to sink 1", "You see a mug 1."),
        ("look", "You see a mug 1."),
        ("take mug 1", "You take the mug 1."),
    ],
    1.0,
)
KEY = episode(
    "unlock the red door", [("pull lever", "Nothing happens."), ("open chest", "It is locked.")], 0.0
)
NEAR_MUG = {"obs": "You are in a room.", "goal": "put a clean cup on the shelf"}
NEAR_KEY = {"obs": "You are in a room.", "goal": "unlock the blue door"}


def insight(title, content="Do it."):
    return {"title": title, "description": "When needed.", "content": content}


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_an_empty_memory_retrieves_nothing(retrieved, name):
    assert retrieved(baseline(name), [], Endpoint(), NEAR_MUG) == [{}]


@pytest.mark.parametrize("name", BASELINES[1:])
def test_each_gives_something_with_the_stand_in_for_any_domain(retrieved, name):
    domains = [
        (
            {"obs": "A kitchen with a fridge.", "actions_list": ["look"], "goal": "cool an egg"},
            {"obs": "An egg."},
        ),
        ({"obs": "rule `baba` 1 step up", "goal": "win"}, {"obs": "rule `baba` 2 steps up"}),
        (
            {
                "long_term_context": "stairs far east\n--|..|--",
                "short_term_context": "a: an apple",
                "action_dict": {"east": "move east"},
                "goal": "go down",
            },
            {"long_term_context": "stairs near east\n--|.@|--", "short_term_context": "a: an apple"},
        ),
        ({"obs": "An observation alone."}, {}),
    ]
    for init, after in domains:
        step = {"action_took": "look", **after, "scores": 1.0, "dones": True}
        (found,) = retrieved(baseline(name), [Trajectory(init, [step], 1.0)], Endpoint(), init)
        assert found


@pytest.mark.parametrize("name", BASELINES[2:])
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no JSON",
        "{}",
        '{"insights": null, "entries": 3, "key_steps": "2"}',
        '{"insights": [null, {}], "entries": [null, " "], "key_steps": []}',
    ],
)
def test_a_faulty_answer_loses_nothing_that_was_learned(retrieved, name, answer):
    good = {
        "insights": ["Mugs lie at sinks."] if name == "g_memory" else [insight("mugs", "Mugs lie at sinks.")],
        "entries": ["Mugs lie at sinks."],
        "key_steps": [1, 3],
    }
    endpoint = Endpoint(lambda system, user: answer if "Goal: unlock" in user else good)
    (found,) = retrieved(baseline(name), [MUG, KEY], endpoint, NEAR_MUG)
    assert "Mugs lie at sinks." in json.dumps(found)


@pytest.mark.parametrize("name", BASELINES[2:])
def test_a_faulty_answer_is_asked_for_once_more(retrieved, name):
    good = {"insights": [insight("x")], "entries": ["x"], "key_steps": [1]}
    good["insights"] = ["x"] if name == "g_memory" else good["insights"]
    endpoint = Endpoint()
    endpoint.script = lambda system, user: "no JSON" if len(endpoint.asked) == 1 else good
    (found,) = retrieved(baseline(name), [MUG], endpoint, NEAR_MUG)
    assert len(endpoint.asked) == 2 and '"x"' in json.dumps(found)


@pytest.mark.parametrize("name", BASELINES[2:])
def test_what_the_model_reads_of_a_long_episode_is_bounded_and_has_every_action(retrieved, name):
    steps = [(f"action {number}", f"line {number}\n" + "a long story " * 500) for number in range(100)]
    endpoint = Endpoint(lambda system, user: "{}")
    retrieved(baseline(name), [episode("a goal", steps, 0.0, "a start " * 5_000)], endpoint)
    question = endpoint.asked[0][1]
    assert len(question) < 25_000
    assert all(f"action {number}: " in question for number in range(100))


def test_the_baselines_that_ask_a_model_read_a_trajectory_in_the_same_way():
    def reading(name):
        functions = [node for node in ast.parse(baseline(name)).body if isinstance(node, ast.FunctionDef)]
        return [ast.dump(one) for one in functions if one.name in ("transcript", "task_texts", "seen")]

    one, *others = (reading(name) for name in BASELINES[2:])
    assert len(one) == 3 and all(other == one for other in others)


# --- no memory -----------------------------------------------------------------------------------


def test_no_memory_retrieves_nothing_after_successes_and_failures(retrieved):
    endpoint = Endpoint()
    assert retrieved(baseline("no_memory"), [MUG, KEY], endpoint, NEAR_MUG, NEAR_KEY) == [{}, {}]
    assert endpoint.asked == []


# --- trajectory retrieval ------------------------------------------------------------------------


def test_trajectory_retrieval_returns_the_nearest_trajectory_whole_failed_or_not(retrieved):
    endpoint = Endpoint()
    mug, key = retrieved(baseline("trajectory_retrieval"), [MUG, KEY], endpoint, NEAR_MUG, NEAR_KEY)
    assert mug == {"similar_task": MUG.init, "reward": 1.0, "steps": MUG.steps}
    assert key == {"similar_task": KEY.init, "reward": 0.0, "steps": KEY.steps}
    assert endpoint.asked == []


def test_trajectory_retrieval_cuts_long_observations_and_leaves_out_lists_of_commands(retrieved):
    steps = [(f"go {number}", "far " * 10_000) for number in range(50)]
    long = episode("a goal", [("look", "short"), *steps], 0.5)
    for record in (long.init, *long.steps):
        record["actions_list"] = ["look"] * 100
    (found,) = retrieved(baseline("trajectory_retrieval"), [long], Endpoint(), long.init)
    assert [step["action_took"] for step in found["steps"]] == [
        "look",
        *(f"go {number}" for number in range(50)),
    ]
    assert found["steps"][0]["obs"] == "short"
    assert 30_000 < sum(len(step["obs"]) for step in found["steps"]) < 41_000
    assert "actions_list" not in json.dumps(found)


# --- ReasoningBank -------------------------------------------------------------------------------


def reflect(system, user):
    """Three insights and one too many; a success is told from a failure by the instruction alone."""
    what = "failed" if "did not complete" in system else "did well"
    subject = "mug" if "mug" in user else "door"
    return {
        "why": "...",
        "insights": [insight(f"{what} {number}", f"{subject} {number}") for number in range(4)],
    }


def test_reasoning_bank_keeps_three_insights_and_asks_otherwise_after_a_failure(retrieved):
    endpoint = Endpoint(reflect)
    near_mug, near_key = retrieved(baseline("reasoning_bank"), [MUG, KEY], endpoint, NEAR_MUG, NEAR_KEY)
    assert [one["title"] for one in near_mug["insights"]] == ["did well 0", "did well 1", "did well 2"]
    assert [one["title"] for one in near_key["insights"]] == ["failed 0", "failed 1", "failed 2"]
    assert [one["content"] for one in near_key["insights"]] == ["door 0", "door 1", "door 2"]
    assert {one["outcome"] for one in near_mug["insights"]} == {"success"}
    assert {one["outcome"] for one in near_key["insights"]} == {"failure"}
    assert "1. go to sink 1: You see a mug 1." in endpoint.asked[0][1]
    assert "score 0.00 of 1" in endpoint.asked[1][1]


def test_reasoning_bank_fills_up_from_the_next_task_and_says_nothing_twice(retrieved):
    def reflect_briefly(system, user):
        mug = [insight("same", "Look first.")] * 3 + [insight("one too many")]
        return {"insights": mug if "Goal: put" in user else [insight("other")]}

    trajectories = [MUG, MUG, KEY]
    (found,) = retrieved(baseline("reasoning_bank"), trajectories, Endpoint(reflect_briefly), NEAR_MUG)
    assert [one["title"] for one in found["insights"]] == ["same", "other"]


def test_reasoning_bank_takes_part_of_the_points_for_a_failure(retrieved):
    half = episode("cook a meal", [("look", "A kitchen.")], 0.5)
    endpoint = Endpoint(reflect)
    retrieved(baseline("reasoning_bank"), [half], endpoint)
    assert "did not complete" in endpoint.asked[0][0]


# --- Dynamic Cheatsheet --------------------------------------------------------------------------


def test_cheatsheet_is_rewritten_from_the_last_sheet_and_shown_for_every_task(retrieved):
    def curate(system, user):
        return {"entries": ["doors (1x)", "mugs (2x)"] if "- mugs (1x)" in user else ["mugs (1x)"]}

    endpoint = Endpoint(curate)
    near, far = retrieved(baseline("dynamic_cheatsheet"), [MUG, KEY], endpoint, NEAR_MUG, NEAR_KEY)
    assert near == far == {"cheat_sheet": ["doors (1x)", "mugs (2x)"]}
    assert "(empty)" in endpoint.asked[0][1] and "score 1.00 of 1" in endpoint.asked[0][1]
    assert "- mugs (1x)" in endpoint.asked[1][1] and "score 0.00 of 1" in endpoint.asked[1][1]


def test_cheatsheet_is_bounded_by_whole_entries(retrieved):
    entries = [f"{number} " + "x" * 998 for number in range(1000, 1020)]
    (found,) = retrieved(
        baseline("dynamic_cheatsheet"), [MUG], Endpoint(lambda *_: {"entries": entries}), NEAR_MUG
    )
    assert found["cheat_sheet"] == entries[:7]
    endless = Endpoint(lambda *_: {"entries": ["y" * 50_000]})
    (found,) = retrieved(baseline("dynamic_cheatsheet"), [MUG], endless, NEAR_MUG)
    assert found["cheat_sheet"] == ["y" * 8_000]


# --- G-Memory ------------------------------------------------------------------------------------


def analyse(system, user):
    new = user.split("\n\n")[0]
    return {"key_steps": [1, 3], "insights": [f"about {'mugs' if 'mug' in new else 'doors'}"]}


def test_g_memory_returns_key_steps_of_successes_and_insights_of_failures_too(retrieved):
    endpoint = Endpoint(analyse)
    near_mug, near_key = retrieved(baseline("g_memory"), [MUG, KEY], endpoint, NEAR_MUG, NEAR_KEY)
    steps = [
        {"action": "go to sink 1", "result": "You see a mug 1."},
        {"action": "take mug 1", "result": "You take the mug 1."},
    ]
    assert near_mug["similar_tasks"] == [{"goal": MUG.init["goal"], "score": 1.0, "steps": steps}]
    assert near_mug["insights"] == ["about mugs", "about doors"]
    assert near_key["insights"][0] == "about doors"
    assert KEY.init["goal"] not in json.dumps(near_key["similar_tasks"])


def test_g_memory_returns_no_trajectory_where_nothing_went_well(retrieved):
    (found,) = retrieved(baseline("g_memory"), [KEY], Endpoint(analyse), NEAR_KEY)
    assert found == {"insights": ["about doors"]}


def test_g_memory_shows_the_model_similar_episodes_and_their_insights(retrieved):
    endpoint = Endpoint(analyse)
    retrieved(baseline("g_memory"), [MUG, MUG], endpoint)
    first, second = (user for _, user in endpoint.asked)
    assert "similar episode" not in first and "- about mugs" not in first
    assert (
        "A similar episode (score 1.00 of 1):\nGoal: put a clean mug" in second and "- about mugs" in second
    )


def test_g_memory_reaches_a_neighbour_of_the_nearest_tasks(retrieved):
    """The old task is far from the new one, but was nearest to the task that is near to it."""
    old = episode("alpha beta gamma delta", [("dig", "A coin.")], 1.0, "north cave")
    bridges = [
        episode(f"alpha beta sun moon {word}", [("wait", "Dark.")], 0.0, "north hill") for word in "pqr"
    ]
    far = {"obs": "hill", "goal": "sun moon"}
    (found,) = retrieved(baseline("g_memory"), [old, *bridges], Endpoint(analyse), far)
    assert [one["goal"] for one in found["similar_tasks"]] == ["alpha beta gamma delta"]


def test_g_memory_ranks_insights_by_the_support_of_near_tasks(retrieved):
    said = iter([["rare"], ["common"], ["common"]])
    endpoint = Endpoint(lambda *_: {"key_steps": [1], "insights": next(said)})
    trajectories = [
        episode("put a clean mug on the shelf", [("look", f"Room {word}.")], 1.0) for word in "abc"
    ]
    (found,) = retrieved(baseline("g_memory"), trajectories, endpoint, NEAR_MUG)
    assert found["insights"] == ["common", "rare"]


def test_g_memory_keeps_the_steps_with_an_effect_where_the_model_names_none(retrieved):
    (found,) = retrieved(baseline("g_memory"), [MUG], Endpoint(lambda *_: "no JSON"), NEAR_MUG)
    assert [step["action"] for step in found["similar_tasks"][0]["steps"]] == ["go to sink 1", "take mug 1"]
    assert "insights" not in found


# --- designs in the authors' form ----------------------------------------------------------------


def house(goal, actions, reward):
    start = f"You are in the middle of a room.\n\nYour task is to: {goal}"
    steps = [{"action_took": action, "obs": "Done.", "scores": reward, "dones": False} for action in actions]
    return Trajectory({"obs": start, "actions_list": ["look"]}, steps, reward)


HOUSES = [
    house(
        "put a mug on the desk",
        ["go to sink 1", "take mug from sink", "go to desk 1", "move mug to desk"],
        1.0,
    ),
    house("put a mug in the safe", ["take mug from shelf", "open safe 1"], 0.0),
    house("heat an egg", ["take egg from fridge", "heat egg with microwave"], 1.0),
    house("put a mug on the shelf", ["take mug from sink", "move mug to shelf"], 1.0),
]


def find(system, user):
    if system.startswith("Advise"):
        return f"Advice on {len(user)} characters."
    thing, place = user.removeprefix("take ").split(" from ")
    return {"thing": thing, "place": place}


def test_a_design_in_the_authors_form_retrieves_what_its_rewrite_retrieves(retrieved):
    inits = [house(goal, [], 0.0).init for goal in ("put a mug on the table", "cool an egg", "open the door")]
    sources = [(DESIGNS / name).read_text() for name in ("house_authors.py", "house_ours.py")]
    theirs, ours = (retrieved(source, HOUSES, Endpoint(find), *inits) for source in sources)
    assert theirs == ours
    assert theirs[0]["places"] == {"mug": {"sink": {"count": 2}, "shelf": {"count": 1}}}
    assert theirs[0]["plans"][0]["goal"].startswith("put a mug on") and len(theirs[0]["plans"]) == 2
    assert theirs[0]["advice"].startswith("Advice on") and 0 < theirs[0]["closeness"][0] < 1


def test_names_of_the_authors_code_that_do_not_exist_are_the_designs_fault(retrieved):
    source = (
        (DESIGNS / "house_authors.py").read_text().replace("import Agent, Embedding", "import Agent, Nothing")
    )
    with pytest.raises(DesignError, match="Nothing"):
        retrieved(source, [], Endpoint(find))
