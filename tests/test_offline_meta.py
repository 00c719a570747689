"""The stand-in meta agent: whole modules out of the grammar, and plans that follow from what is shown."""

import ast
import asyncio
import json
import re
from collections import Counter

import pytest

import envs
import offline
import offline_grammar as grammar
from memory_base import Trajectory
from offline_grammar import CHOICES, SLOTS, TITLES, Blueprint
from prompting import plan_schema
from sandbox import Sandbox
from tests.test_offline import Boxes, LocalTools, design, play, rate, retrieved

BOXES = [play(seed) for seed in range(40)]


# --------------------------------------------------------------------------------------- the grammar


def test_every_part_and_form_reads_back_from_the_module_that_it_is_written_in():
    blueprints = [Blueprint((layer,), forms={"shape": "shape_sentences"}) for layer in TITLES]
    everything = tuple(TITLES)
    blueprints += [Blueprint(everything, forms={slot: form}) for slot in SLOTS for form in SLOTS[slot] if form != slot]
    blueprints += [Blueprint(everything, {name: CHOICES[name][0]}) for name in CHOICES]
    for blueprint in blueprints:
        code = grammar.write(blueprint)
        read = grammar.read(code)
        assert ast.get_docstring(ast.parse(code))
        assert (read.layers, read.forms) == (blueprint.layers, blueprint.forms)
        assert all(grammar.value_of(read, name) == value for name, value in blueprint.constants.items())


def test_every_constant_and_form_is_used_by_some_layer_and_has_its_default_among_its_choices():
    used = set(grammar.needed(Blueprint(tuple(TITLES))))
    assert set(SLOTS) <= used and set(CHOICES) <= used
    assert all(grammar.default(name) in CHOICES[name] for name in CHOICES)


def test_every_change_can_be_taken_back():
    blueprint = Blueprint(("Plans", "Places"))
    changes = [grammar.to_add("Uses"), grammar.to_remove("Plans"), grammar.to_form(blueprint, "shape", "shape_sentences")]
    changes += [grammar.to_step(blueprint, name, step) for name in grammar.constants_of("Plans") for step in (1, -1)]
    for change in filter(None, changes):
        after = grammar.apply(blueprint, change)
        back = grammar.apply(after, grammar.undo(after, change))
        assert grammar.write(after) != grammar.write(blueprint)
        assert set(back.layers) == set(blueprint.layers)
        assert all(grammar.value_of(back, name) == grammar.default(name) for name in CHOICES)
        assert all(form == slot for slot, form in back.forms.items())


def test_every_part_loads_learns_and_retrieves_in_the_sandbox():
    codes = [grammar.write(Blueprint((layer,), forms={"shape": "shape_sentences"})) for layer in TITLES]
    codes += [grammar.write(Blueprint(tuple(TITLES), forms={slot: form})) for slot in SLOTS for form in SLOTS[slot]]

    async def go():
        told = []
        async with Sandbox(BOXES[:12]) as sandbox:
            for code in dict.fromkeys(codes):
                async with sandbox.worker(code, LocalTools()) as worker:
                    empty = await worker.retrieve(BOXES[0].init)
                    for number in range(12):
                        await worker.update(number)
                    told.append((empty, await worker.retrieve(BOXES[0].init)))
        return told

    told = asyncio.run(go())
    assert not any(empty for empty, _ in told)
    assert sum(bool(full) for _, full in told) > 0.7 * len(told)


def texts_of_domains() -> dict[str, str]:
    """What each domain says: its description, its goals and its first observations."""
    said = {}
    for name in envs.DOMAINS:
        env = envs.domain_class(name)()
        for task in [task for task in env.tasks() if task.split == "learning"][::6]:
            text, info = env.reset(seed=task.seed, options={"task": task.id})
            parts = (text, info["now"], info["goal"], *info["actions"])
            said[name] = " ".join((said.get(name, ""), *map(str, parts)))
        env.close()
    return said


# --------------------------------------------------------------------------------------- the stages

IDEATE = """# Stage: ideate

## Design
```python
{code}
```

## Score
score: {score:.3f}
standard error: 0.020
no memory: 0.300
difference: {gain:+.3f}
retrieved tokens: {tokens}

## Last change
{last}

## Errors
{errors}

## Trajectories
{episodes}
## Answer
JSON
"""
EPISODE = """### boxes-1 | score {score:.2f}
Retrieved:
```json
{retrieved}
```
Goal: <data>{goal}</data>
Steps:
{steps}

"""
TOLD = '{"plans that worked": ["wait"]}'


def episode(score=0.0, retrieved="{}", goal="Take the coin.", steps=("> open crate 1", "dust", "> open sack 2")) -> str:
    return EPISODE.format(score=score, retrieved=retrieved, goal=goal, steps="\n".join(steps))


def prompt(blueprint, score=0.35, tokens=100, last="none", retrieved="{}", errors="none", episodes=()) -> str:
    won = episode(1.0, retrieved, "Take the ring.", ("> open barrel 1", "a coin", "> take coin"))
    shown = "".join(episodes or (episode(0.0, retrieved), won))
    return IDEATE.format(
        code=grammar.write(blueprint).strip(), score=score, gain=score - 0.3, tokens=tokens, last=last,
        errors=errors, episodes=shown,
    )  # fmt: skip


def ask(text: str, seed: int = 0) -> str:
    return offline.chat("meta", [{"role": "user", "content": text}], None, seed)


def plans(blueprint, **shown) -> list[list[str]]:
    """The changes that are planned for a design, for many seeds."""
    answers = [json.loads(ask(prompt(blueprint, **shown), seed)) for seed in range(40)]
    return [[change["what"] for change in answer["changes"]] for answer in answers]


def code_of(answer: str) -> str:
    assert answer.startswith("```python\n") and answer.rstrip().endswith("```")
    return answer.removeprefix("```python\n").rstrip().removesuffix("```")


def implemented(blueprint, changes: list[str]) -> Blueprint:
    plan = json.dumps({"changes": [{"what": what, "why": ""} for what in changes]})
    code = grammar.write(blueprint)
    text = f"# Stage: implement\n\n## Design\n```python\n{code}\n```\n\n## Plan\n```json\n{plan}\n```\n"
    return grammar.read(code_of(ask(text)))


def test_first_designs_are_plain_whole_modules_that_learn_and_retrieve_json():
    codes = {code_of(ask("# Stage: first\n\nWrite one.", seed)) for seed in range(12)}
    assert len(codes) > 3
    for code in codes:
        assert set(grammar.read(code).layers) <= {"Episodes", "Notes"}
        json.dumps(retrieved(design(code, BOXES), BOXES[0]), allow_nan=False)


def test_plan_has_the_form_of_its_schema():
    plan = json.loads(ask(prompt(Blueprint(("Plans", "Places")))))
    assert set(plan) == set(plan_schema()["required"])
    assert {verdict["item"] for verdict in plan["verdicts"]} == {"Plans", "Places"}
    assert all(set(change) == {"what", "why"} for change in plan["changes"]) and plan["changes"]


def test_plan_loosens_the_match_of_what_was_never_retrieved():
    wider = {"Set `LAST` to 5 (it was 3).", "Set `WON` to 0.2 (it was 0.5).", "Set `LIKE` to 0.3 (it was 0.5)."}
    for layer in ("Uses", "Plans"):
        assert all(first in wider for first, *_ in plans(Blueprint((layer,)), retrieved="{}"))


def test_plan_trims_what_is_long_and_helps_and_leaves_out_what_is_long_and_does_not():
    told = '{"earlier episodes": ["open barrel and then open it again"], "plans that worked": ["open"]}'
    blueprint = Blueprint(("Episodes", "Plans"))
    helps = plans(blueprint, tokens=9000, retrieved=told, score=0.4)
    useless = plans(blueprint, tokens=9000, retrieved=told, score=0.3)
    trims = sum(re.match(r"Set `EPISODES_(TOP|STEPS)` to", changes[0]) is not None for changes in helps)
    leaves = sum(changes[0] == "Remove the layer `Episodes`." for changes in useless)
    assert trims > 10 and leaves > 10
    assert not any("Remove the layer `Episodes`." in changes for changes in helps)


def test_plan_pushes_a_change_that_helped_and_takes_back_one_that_hurt_unless_it_may_be_chance():
    last = "- <data>Set `PLANS_TOP` to 3 (it was 2).</data>\nscore difference: {:+.3f}"
    blueprint = Blueprint(("Plans",), {"PLANS_TOP": 3})
    further, back = "Set `PLANS_TOP` to 5 (it was 3).", "Set `PLANS_TOP` to 2 (it was 3)."
    assert all(first == further for first, *_ in plans(blueprint, last=last.format(0.1), retrieved=TOLD))
    assert all(first == back for first, *_ in plans(blueprint, last=last.format(-0.1), retrieved=TOLD))
    chance = [first for first, *_ in plans(blueprint, last=last.format(0.015), retrieved=TOLD)]
    assert chance.count(further) < 5 and chance.count(back) < 5


def test_plan_tells_more_of_a_layer_that_helped():
    last = "- <data>Add a layer `Plans`: what was done.</data>\nscore difference: +0.100"
    changes = plans(Blueprint(("Notes", "Plans")), last=last, retrieved=TOLD)
    assert all(first == "Set `PLANS_TOP` to 3 (it was 2)." for first, *_ in changes)


def test_plan_leaves_out_a_layer_that_failed():
    for changes in plans(Blueprint(("Plans", "Places")), errors="<data>3 × update: KeyError in Places</data>"):
        assert changes[0] == "Remove the layer `Places`."


def test_plan_leaves_out_what_misled_where_nothing_was_gained():
    told = '{"plans that worked": ["open crate sack"]}'  # used in the lost episode alone
    changes = plans(Blueprint(("Notes", "Plans")), score=0.25, retrieved=told)
    assert sum("Remove the layer `Plans`." in planned for planned in changes) > 10


@pytest.mark.parametrize(
    ("shown", "layer"),
    [
        ([episode(goal="Take the coin."), episode(goal="Take the ring.")], "Places"),
        ([episode(goal="Take the coin.", steps=("> open sack", "A coin.")), episode(goal="Take the ring.")], "Uses"),
        ([episode(steps=("> wait", "dust", "> wait", "dust", "> wait", "dust"))], "Waste"),
        ([episode(steps=("> wait",)), episode(steps=("> a", "> b", "> c", "> d"))], "Dangers"),
        ([episode(0.4), episode(0.0)], "Arguments"),
        ([episode(1.0), episode(0.0)], "Patterns"),
    ],
)
def test_plan_adds_what_the_lost_episodes_lacked(shown, layer):
    def share(episodes):
        changes = plans(Blueprint(("Notes",)), retrieved=TOLD, episodes=episodes)
        return sum(any(f"Add a layer `{layer}`" in one for one in planned) for planned in changes)

    nothing = [episode(goal="", steps=("> a", "> b", "> c"))]
    assert share(shown) > 1.5 * share(nothing)


def test_implementation_carries_out_the_plan():
    changes = ["Add a layer `Places`: where.", "Set `PLANS_TOP` to 5 (it was 2).", "Dance."]
    assert implemented(Blueprint(("Plans",)), changes) == Blueprint(("Plans", "Places"), {"PLANS_TOP": 5})


def test_children_differ_from_their_parent_and_nearly_always_from_each_other():
    for parent in (Blueprint(("Episodes",)), Blueprint(("Plans", "Places", "Company", "Uses"))):
        children = Counter(grammar.write(implemented(parent, changes)) for changes in plans(parent, retrieved=TOLD))
        assert grammar.write(parent) not in children
        assert len(children) > 32  # of 40


def test_repair_leaves_out_the_layer_that_failed():
    code = grammar.write(Blueprint(("Places", "Plans")))
    line = next(n for n, text in enumerate(code.splitlines(), 1) if "self.found[word][kind" in text)
    error = f'Traceback:\n  File "design.py", line {line}, in update\nKeyError'
    text = f"# Stage: repair\n\n## Design\n```python\n{code}\n```\n\n## Error\n<data>{error}</data>\n"
    assert grammar.read(code_of(ask(text))).layers == ("Plans",)


def test_a_foreign_parent_is_replaced_by_a_whole_module():
    text = "# Stage: implement\n\n## Design\n```python\nclass Mine:\n    pass\n```\n\n## Plan\n```json\n{}\n```\n"
    assert grammar.read(code_of(ask(text))).layers


def test_a_written_design_beats_no_memory_in_a_game_that_is_in_no_grammar():
    memory = design(grammar.write(Blueprint(("Places",))), BOXES)

    def told(seed):
        game = Boxes(seed)
        return retrieved(memory, Trajectory({"obs": game.text, "goal": game.goal}))

    assert rate(told) > rate() + 0.1
