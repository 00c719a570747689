"""The stand-in meta agent: whole modules out of the grammar, and plans that follow from what is shown."""

import ast
import asyncio
import json
import re
from collections import Counter

import pytest
from standins.grammar import CHOICES, SLOTS, TITLES, Blueprint

from memory_base import Trajectory
from meta import plan_schema
from sandbox import Sandbox
from standins import grammar, offline
from tests.conftest import ROOT
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


def test_every_part_loads_learns_is_forked_and_retrieves_in_the_sandbox():
    codes = [grammar.write(Blueprint((layer,), forms={"shape": "shape_sentences"})) for layer in TITLES]
    codes += [grammar.write(Blueprint(tuple(TITLES), forms={slot: form})) for slot in SLOTS for form in SLOTS[slot]]

    async def go():
        told = []
        async with Sandbox(BOXES[:12]) as sandbox:
            for code in dict.fromkeys(codes):
                async with sandbox.worker(code, LocalTools(), forks=True) as worker:
                    empty = await worker.retrieve(BOXES[0].init)
                    for number in range(12):
                        await worker.update(number)
                    async with worker.fork(LocalTools()) as fork:
                        told.append((empty, await fork.retrieve(BOXES[0].init)))
        return told

    told = asyncio.run(go())
    assert not any(empty for empty, _ in told)
    assert sum(bool(full) for _, full in told) > len(told) / 2  # some have nothing to tell of this game


def story(goal: str, start: str, *steps: tuple[str, str, float]) -> Trajectory:
    """An episode: each step an action, what was seen after it, the score so far."""
    told = [{"action_took": action, "obs": seen, "scores": score} for action, seen, score in steps]
    return Trajectory({"obs": start, "goal": goal}, told, reward=told[-1]["scores"])


REACHED = [
    story("win", f"{a} is red\n{b} is blue\n{a} 2 left\n{b} 2 right", ("left", f"{a} is red\n{b} is blue\n{b} 4 right", 1.0))
    for a, b in (("lamp", "cup"), ("cup", "vase"), ("ring", "lamp"))
]
IDLE = [story("win", "a hall", *((f"stare at wall {n}", "a hall", 0.0) for n in range(12)), ("leave", "a yard", 1.0))]
ENDED = [story("win", "a hall", ("wait", "a hall", 0.0), ("jump", "you fall", 0.0)) for _ in range(4)]
ENDED += [story("win", "a hall", *[("wait", "a hall", 0.0)] * 9) for _ in range(4)]
FETCHED = [
    story(
        f"put a hot {thing} on the {place}", "shelf 1, table 1, stove 1",
        ("look", "nothing", 0.0), ("go to shelf 1", f"a {thing} 1", 0.0), (f"take {thing} 1 from shelf 1", "taken", 0.0),
        (f"heat {thing} 1 with stove 1", "hot", 0.0), (f"put {thing} 1 on {place} 1", "done", 1.0),
    )
    for thing, place in (("cup", "table"), ("egg", "tray"), ("plate", "table"), ("cup", "bench"))
]  # fmt: skip
STRUCK = [story("light the candle", where, ("wait", "dark", 0.0), ("strike match", "light", 1.0)) for where in ("dark", "dim")]
STRUCK += [story("cross the hall", "dark", ("wait", "dark", 0.0), ("strike match", "light", 0.0)) for _ in range(2)]
FOUND = [
    Trajectory(
        {"obs": start, "carried": "a torch"},
        [{"action_took": "wait", "obs": f"a {where}", "carried": "a torch", "scores": 0.0} for where in ("yard", "barn", "shed")]
        + [{"action_took": "grab", "obs": "a shed", "carried": "a torch", "scores": 0.0}]
        + [{"action_took": "wait", "obs": "a key glitters", "carried": "a torch", "scores": 0.0}]
        + [{"action_took": "grab", "obs": "yours", "carried": "a torch\na key", "scores": 0.0}],
        reward=0.0,
    )
    for start in ("a hall", "a vault", "a hall")
]  # fmt: skip
FOUND += [Trajectory(one.init, one.steps[:4]) for one in FOUND]
FLET = [
    Trajectory(
        {"obs": f"a {place}", "goal": "make it", "commands": ["scan slab"]},
        [
            {"action_took": "scan slab", "obs": f"Parts:\n  blue {thing}\n  nut\nDo:\n  flet it", "commands": ["scan slab"], "scores": 0.0},
            {"action_took": f"grab blue {thing} from box", "obs": f"You grab the blue {thing} from the box.", "commands": [
                f"plim blue {thing} with gloop", "plim nut with gloop"], "scores": 0.5},
            {"action_took": f"warm blue {thing} with kiln", "obs": f"You fletted the blue {thing}. It is warm and red.",
             "commands": ["plim nut with gloop"], "scores": 0.5},
        ],
        reward=0.5,
    )
    for place, thing in (("hut", "bolt"), ("barn", "pin"), ("shed", "peg"))
]  # fmt: skip
FETCHED += [story("dance", "a hall", ("look", "nothing", 0.0)) for _ in range(5)]


@pytest.mark.parametrize(
    ("layer", "episodes", "goal", "start", "told"),
    [
        ("Targets", REACHED, "win", "vase is blue\nflute is red", ["flute"]),
        ("Meanings", FLET, "make it", "", {"plim": ["plim with gloop"], "fletted": ["warm with kiln"]}),
        ("Sources", FLET, "make it", "", ["scan slab"]),
        ("Waste", IDLE, "win", "", ["avoid stare"]),
        ("Dangers", ENDED, "win", "", ["never jump"]),
        ("Dangers", [*ENDED, story("win", "a roof", ("jump", "you land", 1.0))], "win", "", None),
        ("Places", FETCHED, "put a cold cup on the shelf", "", {"cup": ["go to shelf"]}),
        (
            "Patterns", FETCHED, "put a hot bowl on the desk", "",
            ["go to shelf", "take bowl from shelf", "heat bowl with stove", "put bowl on desk"],
        ),
        (
            "Plans", FETCHED[:1], "put a hot bowl on the desk", "",
            ["go to shelf -> take bowl from shelf -> heat bowl with stove -> put bowl on desk"],
        ),
        ("Reactions", FOUND, "escape", "a hall", ["glitters: grab"]),
        ("Uses", STRUCK, "carry the candle", "", {"candle": ["strike match", "wait"]}),
    ],
)  # fmt: skip
def test_a_part_tells_what_it_is_for(layer, episodes, goal, start, told):
    memory = design(grammar.write(Blueprint((layer,))), episodes)
    found = retrieved(memory, Trajectory({"obs": start, "goal": goal}))
    assert found == ({TITLES[layer]: told} if told else {})


@pytest.mark.parametrize(
    ("layer", "episodes", "init"),
    [
        ("Meanings", FLET, {"obs": "", "goal": "make it"}),
        ("Sources", FLET, {"obs": "", "goal": "make it"}),
        ("Places", FETCHED, {"obs": "", "goal": "put a cold cup on the shelf"}),
        ("Reactions", FOUND, {"obs": "a hall", "goal": "escape"}),
        ("Uses", STRUCK, {"obs": "", "goal": "carry the candle"}),
    ],
)
def test_what_one_task_alone_speaks_for_is_told_of_no_other(layer, episodes, init):
    code = grammar.write(Blueprint((layer,)))
    same = [Trajectory({**episodes[0].init, "goal": init["goal"]}, one.steps, one.reward) for one in episodes]
    assert retrieved(design(code, episodes), Trajectory(init))
    assert not retrieved(design(code, same), Trajectory(init))
    if layer != "Uses":  # which compares tasks with one another
        assert retrieved(design(code.replace("TASKS = 2", "TASKS = 1"), same), Trajectory(init))


TELLING = {  # the modules with the words of each domain: its things, places, commands
    "alfworld": ("domains/alfworld_houses.py", "domains/alfworld_engine.py"),
    "babaisai": ("domains/babaisai_levels.py", "domains/babaisai_world.py"),
    "minihack": ("domains/nethack_text.py",),
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


def test_no_word_of_the_grammar_is_the_word_of_one_domain():
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
    sources = [ROOT / "standins" / f"{name}.py" for name in ("parts", "layers", "grammar", "meta")]
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
        assert set(grammar.read(code).layers) == {"Episodes"}
        json.dumps(retrieved(design(code, BOXES), BOXES[0]), allow_nan=False)


def test_plan_has_the_form_of_its_schema():
    plan = json.loads(ask(prompt(Blueprint(("Plans", "Places")))))
    assert set(plan) == set(plan_schema()["required"])
    assert {verdict["item"] for verdict in plan["verdicts"]} == {"Plans", "Places"}
    assert all(set(change) == {"what", "why"} for change in plan["changes"]) and plan["changes"]


def test_plan_loosens_the_match_of_what_was_never_retrieved():
    step = re.compile(r"Set `(\w+)` to (\S+) \(it was (\S+)\)")
    for layer in ("Uses", "Plans"):
        found = [step.match(first) for first, *_ in plans(Blueprint((layer,)), retrieved="{}")]
        assert all(found)
        for name, new, old in (one.groups() for one in found):
            assert (float(new) > float(old)) == (name == "LAST")  # every other constant is a least


def test_plan_trims_what_is_long_and_helps_and_leaves_out_what_is_long_and_does_not():
    told = '{"earlier episodes": ["open barrel and then open it again"], "plans that worked": ["open"]}'
    blueprint = Blueprint(("Episodes", "Plans"))
    helps = plans(blueprint, tokens=9000, retrieved=told, score=0.4)
    useless = plans(blueprint, tokens=9000, retrieved=told, score=0.3)
    assert all(re.match(r"Set `EPISODES_(TOP|STEPS)` to", first) for first, *_ in helps)
    assert all(first == "Remove the layer `Episodes`." for first, *_ in useless)


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
    changes = plans(Blueprint(("Uses", "Plans")), last=last, retrieved=TOLD)
    assert all(first == "Set `PLANS_TOP` to 2 (it was 1)." for first, *_ in changes)


def test_plan_leaves_out_a_layer_that_failed():
    for changes in plans(Blueprint(("Plans", "Places")), errors="<data>3 × update: KeyError in Places</data>"):
        assert changes[0] == "Remove the layer `Places`."


def test_plan_leaves_out_what_misled_where_nothing_was_gained():
    told = '{"plans that worked": ["open crate sack"], "goes with": ["wait"]}'  # plans were used in the lost episode
    changes = plans(Blueprint(("Uses", "Plans")), score=0.25, retrieved=told)
    assert sum("Remove the layer `Plans`." in planned for planned in changes) > 10


@pytest.mark.parametrize(
    ("shown", "layer"),
    [
        ([episode(goal="Take the coin."), episode(goal="Take the ring.")], "Places"),
        ([episode(goal="Take the coin.", steps=("> open sack", "A coin.")), episode(goal="Take the ring.")], "Uses"),
        ([episode(steps=("> wait", "dust", "> wait", "dust", "> wait", "dust"))], "Waste"),
        ([episode(steps=("> wait",)), episode(steps=("> a", "> b", "> c", "> d"))], "Dangers"),
        ([episode(0.4), episode(0.0)], "Sources"),
        ([episode(1.0), episode(0.0)], "Patterns"),
    ],
)
def test_plan_adds_what_the_lost_episodes_lacked(shown, layer):
    def share(episodes):
        changes = plans(Blueprint(("Episodes",)), retrieved=TOLD, episodes=episodes)
        return sum(any(f"Add a layer `{layer}`" in one for one in planned) for planned in changes)

    nothing = [episode(goal="", steps=("> a", "> b", "> c"))]
    assert share(shown) > 1.2 * share(nothing)


def test_implementation_carries_out_the_plan():
    changes = ["Add a layer `Places`: where.", "Set `PLANS_TOP` to 5 (it was 2).", "Dance."]
    assert implemented(Blueprint(("Plans",)), changes) == Blueprint(("Plans", "Places"), {"PLANS_TOP": 5})


def test_children_differ_from_their_parent_and_nearly_always_from_each_other():
    for parent in (Blueprint(("Episodes",)), Blueprint(("Plans", "Places", "Patterns", "Uses"))):
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
