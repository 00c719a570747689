"""The sketching meta stand-in: whole modules out of its layers, and plans that follow from what is shown."""

import ast
import asyncio
import json
import re
from dataclasses import replace

import pytest

import standins
from memory_base import Trajectory
from prompts import plan_schema
from sandbox import Sandbox
from standins import sketch
from standins.sketch import LAYERS, STEPS, Sketch
from tests.conftest import ROOT
from tests.test_standin_memory import Boxes, LocalTools, design, play, rate, retrieved

BOXES = [play(seed) for seed in range(40)]


def of(*layers: str, **constants: float) -> Sketch:
    """A design of these layers, its other constants those of the library."""
    plain = sketch.read("")
    values = (constants.get(name, value) for name, value in zip(STEPS, plain.constants, strict=True))
    return Sketch(layers, tuple(values))


# ----------------------------------------------------------------------------------- the modules


def test_every_layer_and_constant_reads_back_from_the_module_that_it_is_written_in():
    sketches = [of(layer) for layer in LAYERS] + [of(*LAYERS)]
    sketches += [of("Plans", "Places", **{name: value}) for name in STEPS for value in STEPS[name]]
    for one in sketches:
        code = one.code()
        assert sketch.read(code) == one
        assert all(layer in ast.get_docstring(ast.parse(code)) for layer in one.layers)
        written = set(re.findall(r"^class (\w+)", code, re.M))
        assert written == {*one.layers, "Episode", "Memory"}  # nothing that is not used


def test_what_is_no_sketch_reads_as_one_without_layers():
    for code in ("", "def f(:", "LAYERS = ['Plans']", "class Mine:\n    pass\n"):
        assert sketch.read(code) == of()


def test_every_layer_loads_learns_is_forked_and_retrieves_in_the_sandbox():
    codes = [of(layer).code() for layer in LAYERS] + [of(*LAYERS).code()]

    async def go():
        told = []
        async with Sandbox(BOXES[:12]) as sandbox:
            for code in codes:
                async with sandbox.worker(code, LocalTools(), forks=True) as worker:
                    empty = await worker.retrieve(BOXES[0].init)
                    for number in range(12):
                        await worker.update(number)
                    async with worker.fork(LocalTools()) as frozen:
                        told.append((empty, await frozen.retrieve(BOXES[0].init)))
        return told

    told = asyncio.run(go())
    assert not any(empty for empty, _ in told)
    assert sum(bool(full) for _, full in told) >= len(told) / 2  # some have nothing to tell of this game


def story(goal: str, start: str, *steps: tuple[str, str, float]) -> Trajectory:
    """An episode: each step an action, what was seen after it, the score so far."""
    told = [{"action_took": action, "obs": seen, "scores": score} for action, seen, score in steps]
    return Trajectory({"obs": start, "goal": goal}, told, reward=told[-1]["scores"])


REACHED = [
    story("win", f"{a} is red\n{b} is blue\n{a} 2 left\n{b} 2 right", ("left", f"{a} is red\n{a} 1 left", 0.0), ("left", "won", 1.0))
    for a, b in (("lamp", "cup"), ("cup", "vase"), ("ring", "lamp"))
]
FETCHED = [
    story(
        f"put a hot {thing} on the {place}", "shelf 1, table 1, stove 1",
        ("look", "nothing", 0.0), ("go to shelf 1", f"a {thing} 1", 0.0), (f"take {thing} 1 from shelf 1", "taken", 0.0),
        (f"heat {thing} 1 with stove 1", "hot", 0.0), (f"put {thing} 1 on {place} 1", "done", 1.0),
    )
    for thing, place in (("cup", "table"), ("egg", "tray"), ("plate", "table"), ("cup", "bench"))
]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "episodes", "goal", "start", "told"),
    [
        ("Targets", REACHED, "win", "vase is blue\nflute is red", ["go to flute"]),
        ("Places", FETCHED, "put a cold cup on the shelf", "", {"cup": ["go to shelf"]}),
        ("Plans", FETCHED, "put a hot bowl on the desk", "", ["take bowl from shelf", "heat bowl with stove", "put bowl on desk"]),
    ],
)  # fmt: skip
def test_a_layer_tells_what_it_is_for(layer, episodes, goal, start, told):
    memory = design(of(layer).code(), episodes)
    found = retrieved(memory, Trajectory({"obs": start, "goal": goal}))
    assert found == ({layer.lower(): told} if told else {})


TELLING = {  # the modules with the words of each domain: its things, places, commands
    "alfworld": ("domains/alfworld_houses.py", "domains/alfworld_houses.toml", "domains/alfworld_engine.py"),
    "babaisai": ("domains/babaisai_levels.py", "domains/babaisai_levels.toml", "domains/babaisai_world.py"),
    "minihack": ("domains/nethack_text.py", "domains/nethack_text.toml"),
    "textworld": ("domains/textworld_games.py",),
}
GENERAL = {"brought", "constants", "decide", "definition", "effect", "forms", "mine", "near", "neutral", "push", "pushed", "shape"}


def words_of(*paths) -> set[str]:
    """Words of texts, and of the string constants of modules."""
    texts = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            nodes = ast.walk(ast.parse(text))
            text = " ".join(one.value for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str))
        texts.append(text)
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


def test_no_word_of_the_layers_is_the_word_of_one_domain():
    said = {
        name: words_of(ROOT / "prompts" / "domains" / f"{name}.md", *(ROOT / path for path in paths))
        for name, paths in TELLING.items()
    }
    others = [
        path.read_text(encoding="utf-8")
        for pattern in ("*.py", "harness/*.py", "jail/*.py", "models/*.py", "report/*.py", "bench/*.py")
        for path in ROOT.glob(pattern)
        if path.name != "envs.py"
    ]
    elsewhere = set(re.findall(r"[a-z]+", " ".join(others).lower()))  # English that no game is needed for
    sources = [ROOT / "standins" / f"{name}.py" for name in ("layers", "sketch")]
    mine = set(re.findall(r"[a-z]+", " ".join(path.read_text(encoding="utf-8") for path in sources).lower()))
    for name, words in said.items():
        own = words - elsewhere - set().union(*(other for key, other in said.items() if key != name))
        assert len(own) > 20
        assert own & mine <= GENERAL


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
TOLD = '{"plans": ["wait"]}'


def episode(score=0.0, retrieved="{}", goal="Take the coin.", steps=("> open crate 1", "dust", "> open sack 2")) -> str:
    return EPISODE.format(score=score, retrieved=retrieved, goal=goal, steps="\n".join(steps))


def prompt(parent: Sketch, score=0.35, tokens=100, last="none", retrieved="{}", errors="none", episodes=()) -> str:
    won = episode(1.0, retrieved, "Take the ring.", ("> open barrel 1", "a coin", "> take coin"))
    shown = "".join(episodes or (episode(0.0, retrieved), won))
    return IDEATE.format(
        code=parent.code().strip(), score=score, gain=score - 0.3, tokens=tokens, last=last, errors=errors, episodes=shown
    )


def ask(text: str, seed: int = 0) -> str:
    return standins.chat("meta", [{"role": "user", "content": text}], None, seed)


def plans(parent: Sketch, **shown) -> list[list[str]]:
    """The changes that are planned for a design, for many seeds."""
    answers = [json.loads(ask(prompt(parent, **shown), seed)) for seed in range(40)]
    return [[change["what"] for change in answer["changes"]] for answer in answers]


def code_of(answer: str) -> str:
    assert answer.startswith("```python\n") and answer.rstrip().endswith("```")
    return answer.removeprefix("```python\n").rstrip().removesuffix("```")


def implemented(parent: Sketch, changes: list[str]) -> Sketch:
    plan = json.dumps({"changes": [{"what": what, "why": ""} for what in changes]})
    text = f"# Stage: implement\n\n## Design\n```python\n{parent.code()}\n```\n\n## Plan\n```json\n{plan}\n```\n"
    return sketch.read(code_of(ask(text)))


def test_first_designs_are_whole_modules_of_one_layer_that_learn_and_retrieve_json():
    codes = {code_of(ask("# Stage: first\n\nWrite one.", seed)) for seed in range(20)}
    assert len(codes) == len(LAYERS)
    for code in codes:
        assert len(sketch.read(code).layers) == 1
        json.dumps(retrieved(design(code, BOXES), BOXES[0]), allow_nan=False)


def test_a_plan_has_the_form_of_its_schema():
    plan = json.loads(ask(prompt(of("Plans", "Places"))))
    assert set(plan) == set(plan_schema()["required"])
    assert {verdict["item"] for verdict in plan["verdicts"]} == {"Plans", "Places"}
    assert all(set(change) == {"what", "why", "expected"} for change in plan["changes"]) and plan["changes"]


def test_a_plan_changes_one_thing():
    assert all(len(changes) == 1 for changes in plans(of("Plans"), retrieved=TOLD))


def test_a_change_that_hurt_is_taken_back_with_a_new_one_unless_it_may_be_chance():
    last = "- <data>Set `TOP` to 3 (it was 2).</data>\nscore difference: {:+.3f}"
    back = "Set `TOP` to 2 (it was 3)."
    hurt = plans(of("Plans", TOP=3), last=last.format(-0.1), retrieved=TOLD)
    assert all(len(changes) == 2 and changes[0] == back for changes in hurt)
    assert not {implemented(of("Plans", TOP=3), changes) for changes in hurt} & {of("Plans", TOP=2), of("Plans", TOP=3)}
    assert not any(back in changes for changes in plans(of("Plans", TOP=3), last=last.format(-0.015), retrieved=TOLD))


def test_a_plan_trims_what_is_too_long():
    changes = [first for first, *_ in plans(of("Targets"), tokens=9000)]
    assert sum(bool(re.match(r"Set `(TOP|LENGTH)` to", change)) for change in changes) > 10
    others = [first for first, *_ in plans(of("Targets"))]
    assert sum(bool(re.match(r"Set `(TOP|LENGTH)` to", change)) for change in others) < 10


def test_a_plan_leaves_out_a_layer_that_failed():
    changes = plans(of("Plans", "Places"), errors="<data>3 × update: KeyError in Places</data>")
    assert sum(planned == ["Remove the layer `Places`."] for planned in changes) > 20


def test_implementation_carries_out_the_plan():
    changes = ["Add the layer `Places`.", "Set `TOP` to 3 (it was 5).", "Dance."]
    assert implemented(of("Plans"), changes) == of("Plans", "Places", TOP=3)


def test_no_design_comes_back_in_a_line_whose_changes_are_shown():
    for seed in range(5):
        parent, line, changes = of("Plans"), [of("Plans")], []
        for _ in range(8):
            shown = "".join(f"- <data>{change}</data>\n" for change in changes) + "score difference: -0.100"
            answer = json.loads(ask(prompt(parent, last=shown if changes else "none", retrieved=TOLD), seed))
            new = [change["what"] for change in answer["changes"]]
            parent, changes = implemented(parent, new), [*reversed(new), *changes]
            assert parent not in line
            line.append(parent)


def test_children_differ_from_their_parent_and_from_each_other():
    for parent in (of("Targets"), of("Plans", "Places", "Targets")):
        children = {implemented(parent, changes) for changes in plans(parent, retrieved=TOLD)}
        assert parent not in children and len(children) > 5


def test_repair_leaves_out_the_layer_that_failed():
    code = of("Places", "Plans").code()
    line = next(n for n, text in enumerate(code.splitlines(), 1) if "self.found[word][action]" in text)
    error = f'Traceback:\n  File "design.py", line {line}, in learn\nKeyError'
    text = f"# Stage: repair\n\n## Design\n```python\n{code}\n```\n\n## Error\n<data>{error}</data>\n"
    assert sketch.read(code_of(ask(text))).layers == ("Plans",)


def test_a_foreign_parent_is_followed_by_a_whole_module():
    text = "# Stage: implement\n\n## Design\n```python\nclass Mine:\n    pass\n```\n\n## Plan\n```json\n{}\n```\n"
    assert sketch.read(code_of(ask(text))).layers


def test_a_written_design_beats_no_memory_in_a_game_that_nobody_knows():
    memory = design(replace(of("Places"), layers=("Places",)).code(), BOXES)

    def told(seed):
        game = Boxes(seed)
        return retrieved(memory, Trajectory({"obs": game.text, "goal": game.goal}))

    assert rate(told) > rate() + 0.1
