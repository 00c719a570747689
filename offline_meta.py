"""The stand-in for the meta agent: plans and writes memory designs out of a grammar.

Promises: each answer follows from the text of the prompt and the seed alone; what it writes is a whole,
readable module; it reads its parent from the parent's code (which layers, which constants) and plans
from what it is shown (scores, retrieved memory, the last change and its effect). It knows no domain,
and whether a design is any good it learns from scores only.

Try it: `python -c "import offline_meta; print(offline_meta.write(offline_meta.Blueprint(('Places',))))"`
"""

import ast
import hashlib
import json
import random
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

DESIGN = re.compile(r"^## Design\n(?P<fence>`{3,})python\n(?P<code>.*?)\n(?P=fence)$", re.M | re.S)
PARTS = Path(__file__).with_name("offline_parts.py")

# Each layer: the title under which a design tells what it knows.
TITLES = {
    "Episodes": "earlier episodes",
    "Notes": "notes on earlier tasks",
    "Plans": "plans that worked",
    "Opening": "first moves",
    "Order": "order of commands",
    "Places": "seen after",
    "Uses": "goes with",
    "Cues": "right when in sight",
    "Company": "named together",
    "Arguments": "belongs to",
    "Habits": "commands of good episodes",
    "Warnings": "warnings",
    "Dangers": "dangers",
    "Links": "commands for this task",
    "Targets": "targets",
    "Effects": "brought about by",
}
# The values that a constant may take, in order.
CHOICES: dict[str, tuple] = {
    "WON": (0.2, 0.5, 1.0),
    "LIKE": (0.0, 0.15, 0.3, 0.5, 0.8),
    "LAST": (1, 2, 3, 5, 10),
    "EPISODES_TOP": (1, 2, 3, 5),
    "EPISODES_STEPS": (5, 10, 20, 40, 100),
    "EPISODES_WON_ONLY": (True, False),
    "NOTES_TOP": (1, 2, 3, 5, 8),
    "PLANS_TOP": (1, 2, 3, 5),
    "PLANS_STEPS": (3, 5, 8, 12, 25, 50),
    "OPENING_STEPS": (2, 4, 6, 10),
    "ORDER_TOP": (1, 2, 3, 5),
    "ORDER_STEPS": (4, 8, 12, 20),
    "PLACES_TOP": (1, 2, 4, 6, 10),
    "PLACES_SEEN": (1, 2, 3),
    "USES_TOP": (1, 2, 3, 5),
    "USES_TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
    "USES_RATE": (0.05, 0.1, 0.2, 0.3, 0.5),
    "USES_THINGS": (4, 8, 12, 20),
    "CUES_TOP": (4, 8, 12, 20),
    "CUES_WORDS": (1, 2, 3, 5),
    "CUES_TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
    "CUES_RATE": (0.05, 0.1, 0.2, 0.3, 0.5),
    "COMPANY_TOP": (1, 2, 3, 5, 8),
    "COMPANY_TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
    "ARGUMENTS_TOP": (1, 2, 3, 5),
    "ARGUMENTS_LIFT": (1.2, 1.5, 2.0, 3.0, 5.0),
    "ARGUMENTS_SEEN": (1, 2, 3, 5),
    "WARNINGS_TOP": (5, 10, 20, 40),
    "WARNINGS_TRIES": (2, 3, 5, 10),
    "WARNINGS_RATE": (0.6, 0.8, 0.9, 1.0),
    "DANGERS_TOP": (3, 6, 12),
    "DANGERS_TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
    "DANGERS_RATE": (0.05, 0.1, 0.2, 0.4),
    "HABITS_TOP": (3, 6, 10, 15),
    "HABITS_TRUST": (0.5, 1.0, 2.0, 4.0),
    "LINKS_TOP": (4, 8, 15),
    "TARGETS_TOP": (1, 2, 3, 5),
    "TARGETS_SEEN": (1, 2, 3),
    "EFFECTS_TOP": (3, 6, 12, 20, 40),
    "EFFECTS_SEEN": (1, 2, 3, 5),
    "EFFECTS_TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
}
# Constants by the end of their names: the way to a wider match.
LOOSER = {"SEEN": -1, "LIFT": -1, "TRIES": -1, "RATE": -1, "TRUST": -1, "LIKE": -1, "WON": -1, "LAST": 1, "ONLY": 1}
SHORTER = ("TOP", "STEPS", "THINGS")
SLOTS = {  # functions of which a design has one of several forms
    "closeness": {"closeness": "common words", "closeness_in_form": "the same words at the same places"},
    "situation": {"situation": "the goal and the first observation", "situation_goal": "the goal alone"},
    "path_of": {
        "path_of": "each step where it was last taken",
        "path_of_detourless": "steps without detours",
        "path_of_goal": "steps that deal with the goal",
        "path_of_needed": "steps that a later one needed",
    },
    "decisive": {
        "decisive": "gains and last steps",
        "decisive_unnamed": "gains and last steps that were not named in sight",
        "decisive_for_goal": "steps that brought up words of the goal",
    },
    "adapt": {"adapt": "the words of the old task", "adapt_words": "the words of the new task in their places"},
    "shape": {"shape": "an object with a title for each layer", "shape_sentences": "a list of sentences"},
}
LONG = 1200  # tokens of retrieved memory that call for trimming
MATTERS = 0.01  # score difference that counts as better or worse


@dataclass(frozen=True)
class Blueprint:
    """What the grammar chooses: everything that a written module says beyond its fixed parts."""

    layers: tuple[str, ...]
    constants: dict[str, object] = field(default_factory=dict)  # those that differ from the parts' own
    forms: dict[str, str] = field(default_factory=dict)  # slot: which of its forms


def answer(messages: list[dict], schema: dict | None, seed: int) -> str:
    """The meta agent's answer: JSON for the planning stage, a module in a fence for the others."""
    prompt = messages[-1]["content"]
    stage = re.search(r"^# Stage: (\w+)", prompt, re.M)
    rng = random.Random(hashlib.sha256(f"{seed}\n{prompt}".encode("utf-8", "replace")).hexdigest())
    name = stage.group(1) if stage else "first"
    if name == "ideate":
        return json.dumps(ideate(prompt, rng), ensure_ascii=False, indent=1)
    make = {"implement": implement, "repair": repair}.get(name, first)
    return f"```python\n{write(make(prompt, rng))}```"


# ------------------------------------------------------------------------------ reading and writing


@lru_cache(maxsize=1)
def parts() -> dict[str, str]:
    """Source of each definition of the parts, by name, in their order; imports under "import"."""
    source = PARTS.read_text(encoding="utf-8")
    lines, found = source.splitlines(), {"import": ""}
    for node in ast.parse(source).body:
        start = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))])
        text = "\n".join(lines[start - 1 : node.end_lineno])
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found["import"] += text + "\n"
        elif isinstance(node, ast.Assign):
            found[node.targets[0].id] = text
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found[node.name] = text
    return found


def names_in(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def needed(blueprint: Blueprint) -> list[str]:
    """The parts that the layers use, directly or through others, in the order of the parts."""
    todo, found = [*blueprint.layers, "shape"], set()
    while todo:
        name = todo.pop()
        if name in found or name not in parts():
            continue
        found.add(name)
        todo += names_in(parts()[blueprint.forms.get(name, name)])
    return [name for name in parts() if name in found]


def write(blueprint: Blueprint) -> str:
    """The module of a blueprint."""
    constants, functions = [], []
    for name in needed(blueprint):
        source = parts()[blueprint.forms.get(name, name)]
        if name in blueprint.constants:
            source = re.sub(r"= \S+", f"= {blueprint.constants[name]!r}", source, count=1)
        source = source.replace(f"def {blueprint.forms.get(name, name)}(", f"def {name}(")
        (constants if name.isupper() else functions).append(source)
    body = "\n\n\n".join([*functions, _design(blueprint)])
    text = "\n".join(constants) + "\n\n\n" + body
    return f'"""{_headline(blueprint)}"""\n\n{_imports(text)}\n{text}\n'


def _headline(blueprint: Blueprint) -> str:
    told = [purpose(name) for name in blueprint.layers]
    return f"A memory that keeps {'; '.join(told)}." if told else "An empty memory."


def purpose(layer: str) -> str:
    """What a layer is for: the first clause of its docstring."""
    text = ast.get_docstring(ast.parse(parts()[layer]).body[0]) or layer
    text = re.split(r"[;:.]", text)[0]
    return text[0].lower() + text[1:]


def _imports(text: str) -> str:
    """The imports that a text needs, the designs' own module last."""
    used, lines = names_in(text), []
    for node in ast.parse(parts()["import"]).body:
        own = isinstance(node, ast.ImportFrom) and node.module == "memory_base"
        names = [alias.name for alias in node.names if alias.name in used]
        if own:
            lines += ["", f"from memory_base import {', '.join(sorted({*names, 'MemoryDesign'}))}", ""]
        elif names and isinstance(node, ast.ImportFrom):
            lines.append(f"from {node.module} import {', '.join(names)}")
        elif names:
            lines.append(f"import {names[0]}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _design(blueprint: Blueprint) -> str:
    layers = "\n".join(f'            "{TITLES[name]}": {name}(),' for name in blueprint.layers)
    return f'''class Memory(MemoryDesign):
    """Every layer learns from every episode; before a task each tells what it knows of it."""

    def __init__(self):
        self.layers = {{
{layers}
        }}

    async def general_update(self, trajectory):
        for layer in self.layers.values():
            await layer.update(trajectory=trajectory)

    async def general_retrieve(self, trajectory):
        told = {{}}
        for title, layer in self.layers.items():
            told[title] = await layer.retrieve(init=trajectory.init)
        return shape({{title: found for title, found in told.items() if found}})'''


def read(code: str) -> Blueprint:
    """The blueprint of a module: its layers in the order of their use, constants, and forms."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return Blueprint(())
    layers = [node.name for node in body if isinstance(node, ast.ClassDef) and node.name in TITLES]
    layers.sort(key=lambda name: code.rfind(f"{name}()"))
    constants, forms = {}, {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in CHOICES and isinstance(node.value, ast.Constant) and node.value.value != default(name):
                constants[name] = node.value.value
        elif isinstance(node, ast.FunctionDef) and node.name in SLOTS:
            forms.update(_form(node))
    return Blueprint(tuple(layers), constants, forms)


def _form(node: ast.FunctionDef) -> dict[str, str]:
    """Which form of a slot a function is; nothing where it is the usual one or a foreign one."""
    for name in SLOTS[node.name]:
        known = ast.parse(parts()[name]).body[0]
        if name != node.name and list(map(ast.dump, known.body)) == list(map(ast.dump, node.body)):
            return {node.name: name}
    return {}


def default(constant: str):
    """The value that the parts give a constant."""
    return ast.literal_eval(ast.parse(parts()[constant]).body[0].value)


# ------------------------------------------------------------------------------------- changes


def value_of(blueprint: Blueprint, constant: str):
    return blueprint.constants.get(constant, default(constant))


def constants_of(layer: str) -> list[str]:
    """The constants that a layer uses, its own first."""
    used = needed(Blueprint((layer,)))
    return sorted((name for name in CHOICES if name in used), key=lambda name: "_" not in name)


def to_add(layer: str) -> str:
    return f"Add a layer `{layer}`: {purpose(layer)}."


def to_remove(layer: str) -> str:
    return f"Remove the layer `{layer}`."


def to_step(blueprint: Blueprint, constant: str, step: int) -> str | None:
    """Words for moving a constant up or down its choices; None where there is nowhere to go."""
    old, choices = value_of(blueprint, constant), CHOICES[constant]
    near = min(range(len(choices)), key=lambda n: abs(choices[n] - old))
    place = near + step
    if step == 0 or not 0 <= place < len(choices):
        return None
    return f"Set `{constant}` to {choices[place]} (it was {old})."


def to_form(blueprint: Blueprint, slot: str, form: str) -> str:
    old = SLOTS[slot][blueprint.forms.get(slot, slot)]
    return f"Let `{slot}` use {SLOTS[slot][form]} (it used {old})."


def apply(blueprint: Blueprint, change: str) -> Blueprint:
    """Carry out one change that is put in words; what it cannot read it leaves."""
    layers = blueprint.layers
    if found := re.match(r"Add a layer `(\w+)`", change):
        name = found.group(1)
        return replace(blueprint, layers=(*layers, name)) if name in TITLES and name not in layers else blueprint
    if found := re.match(r"Remove the layer `(\w+)`", change):
        return replace(blueprint, layers=tuple(name for name in layers if name != found.group(1)))
    if (found := re.match(r"Set `(\w+)` to (\S+)", change)) and found.group(1) in CHOICES:
        value = ast.literal_eval(found.group(2))
        return replace(blueprint, constants={**blueprint.constants, found.group(1): value})
    if (found := re.match(r"Let `(\w+)` use (.*?) \(it used", change)) and found.group(1) in SLOTS:
        slot = found.group(1)
        form = next((name for name, said in SLOTS[slot].items() if said == found.group(2)), slot)
        return replace(blueprint, forms={**blueprint.forms, slot: form})
    return blueprint


def undo(blueprint: Blueprint, change: str) -> str | None:
    """Words for taking a change back."""
    if found := re.match(r"Add a layer `(\w+)`", change):
        return to_remove(found.group(1)) if found.group(1) in blueprint.layers else None
    if found := re.match(r"Remove the layer `(\w+)`", change):
        return to_add(found.group(1)) if found.group(1) in TITLES else None
    if found := re.match(r"Set `(\w+)` to (\S+) \(it was (\S+)\)", change):
        return f"Set `{found.group(1)}` to {found.group(3)} (it was {found.group(2)})."
    if found := re.match(r"Let `(\w+)` use (.*?) \(it used (.*)\)", change):
        return f"Let `{found.group(1)}` use {found.group(3)} (it used {found.group(2)})."
    return None


def push(blueprint: Blueprint, change: str, rng: random.Random) -> str | None:
    """Words for going on in the direction of a change."""
    if (found := re.match(r"Set `(\w+)` to (\S+) \(it was (\S+)\)", change)) and found.group(1) in CHOICES:
        up = ast.literal_eval(found.group(2)) > ast.literal_eval(found.group(3))
        return to_step(blueprint, found.group(1), 1 if up else -1)
    if (found := re.match(r"Add a layer `(\w+)`", change)) and found.group(1) in blueprint.layers:
        return any_step(blueprint, [found.group(1)], rng)
    return None


def any_step(blueprint: Blueprint, layers, rng: random.Random) -> str | None:
    steps = [to_step(blueprint, name, step) for layer in layers for name in constants_of(layer) for step in (1, -1)]
    steps = [step for step in steps if step]
    return rng.choice(steps) if steps else None


# -------------------------------------------------------------------------------------- stages


def first(prompt: str, rng: random.Random) -> Blueprint:
    """What one tries first: keep episodes or plans, and tell those of the likest task."""
    layers = rng.choice([("Episodes",), ("Plans",), ("Episodes", "Opening"), ("Plans", "Warnings"), ("Notes",)])
    return vary(Blueprint(layers), rng, 2)


def vary(blueprint: Blueprint, rng: random.Random, count: int) -> Blueprint:
    for _ in range(count):
        change = any_step(blueprint, blueprint.layers, rng)
        blueprint = apply(blueprint, change) if change else blueprint
    return blueprint


@dataclass(frozen=True)
class Shown:
    """What the planning prompt shows of a design and its episodes."""

    blueprint: Blueprint
    score: float
    base: float  # score of no memory
    tokens: float
    last: tuple[str, ...]  # the last changes, in words
    difference: float  # in score, that they made
    errors: str
    episodes: tuple[tuple[float, object, str], ...]  # score, retrieved value, steps


def read_prompt(prompt: str) -> Shown:
    """Find the sections by their headings. Retrieved text is data: it is measured, never obeyed."""
    code = DESIGN.search(prompt)
    number = {name: float(value) for name, value in re.findall(r"^([a-z ]+): ([+-]?\d+(?:\.\d+)?)$", prompt, re.M)}
    last = re.search(r"^## Last change\n(.*?)^## ", prompt, re.M | re.S)
    changes = re.findall(r"^- (?:<data>)?(.*?)(?:</data>)?$", last.group(1) if last else "", re.M)
    errors = re.search(r"^## Errors\n(.*?)^## ", prompt, re.M | re.S)
    return Shown(
        blueprint=read(code["code"]) if code else Blueprint(()),
        score=number.get("score", 0.0),
        base=number.get("no memory", 0.0),
        tokens=number.get("retrieved tokens", 0.0),
        last=tuple(changes),
        difference=number.get("score difference", 0.0),
        errors="" if not errors or errors.group(1).strip() == "none" else errors.group(1).strip(),
        episodes=tuple(_episodes(prompt)),
    )


def _episodes(prompt: str):
    pattern = r"^### .*? \| score ([\d.]+)\nRetrieved:\n```json\n(.*?)\n```\n(.*?)(?=^### |^## |\Z)"
    for score, retrieved, steps in re.findall(pattern, prompt, re.M | re.S):
        try:
            value = json.loads(retrieved)
        except ValueError:
            value = retrieved  # it was cut
        yield float(score), value, steps


def verdicts(shown: Shown) -> dict[str, str]:
    """For each layer: did it tell something, and was that used in better or in worse episodes?"""
    found = {}
    mean = sum(score for score, _, _ in shown.episodes) / (len(shown.episodes) or 1)
    for layer in shown.blueprint.layers:
        told = [(score, _told(value, TITLES[layer]), steps) for score, value, steps in shown.episodes]
        if not any(text for _, text, _ in told):
            found[layer] = "missing"
            continue
        gain = sum((score - mean) * _used(text, steps) for score, text, steps in told if text)
        found[layer] = "helped" if gain > 0.02 else "misled" if gain < -0.02 else "neutral"
    return found


def _told(value, title: str) -> str:
    """What was retrieved under a layer's title, as text; empty where there was nothing."""
    if isinstance(value, dict):
        return json.dumps(value[title]) if value.get(title) else ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if title in text else ""


def _used(text: str, steps: str) -> float:
    """Share of an episode's action words that the retrieved text has."""
    actions = set(re.findall(r"[a-z]+", " ".join(re.findall(r"^> (.*)$", steps, re.M)).lower()))
    return len(actions & set(re.findall(r"[a-z]+", text.lower()))) / (len(actions) or 1)


def ideate(prompt: str, rng: random.Random) -> dict:
    """A plan by the schema: what the shown episodes say, and the changes that follow from it."""
    shown = read_prompt(prompt)
    verdict = verdicts(shown)
    changes = _changes(shown, verdict, rng)
    why = {
        "helped": "what it told was used in the better episodes",
        "neutral": "better and worse episodes used it alike",
        "misled": "what it told was used in the worse episodes",
        "missing": "nothing was retrieved from it in the episodes shown",
    }
    problems = [f"`{layer}`: {why[said]}." for layer, said in verdict.items() if said in ("misled", "missing")]
    if shown.tokens > LONG:
        problems.append(f"Too long: {shown.tokens:.0f} tokens a task.")
    return {
        "worked": [f"`{layer}`: {why['helped']}." for layer, said in verdict.items() if said == "helped"],
        "verdicts": [{"item": layer, "verdict": said, "why": why[said]} for layer, said in verdict.items()],
        "problems": problems,
        "changes": [{"what": what, "why": reason} for what, reason in changes],
    }


def _changes(shown: Shown, verdict: dict[str, str], rng: random.Random) -> list[tuple[str, str]]:
    """Up to two changes that the evidence calls for, then always something new: taking a change back
    alone would write the grandparent again, and what evidence calls for is the same for all children."""
    wanted = [*_after_last(shown, rng), *_after_errors(shown), *_after_verdicts(shown, verdict, rng)]
    chosen, blueprint = [], shown.blueprint
    for ideas, room in ((wanted, rng.choice((1, 1, 2))), (_new(shown, verdict, rng), rng.choice((1, 1, 2)))):
        most = len(chosen) + room
        for what, why in ideas:
            after = apply(blueprint, what) if what else blueprint
            if after.layers and write(after) != write(blueprint) and len(chosen) < most:
                chosen.append((what, why))
                blueprint = after
    if not chosen or write(blueprint) == write(shown.blueprint):  # never the parent over again
        missing = [name for name in TITLES if name not in shown.blueprint.layers]
        chosen.append((to_add(rng.choice(missing)), "nothing else is left to try"))
    return chosen


def _after_last(shown: Shown, rng: random.Random):
    """A change that helped is pushed further, one that hurt is taken back."""
    for change in shown.last:
        if shown.difference > MATTERS:
            yield push(shown.blueprint, change, rng), "the last change in this direction helped"
        elif shown.difference < -MATTERS:
            yield undo(shown.blueprint, change), "the last change hurt"


def _after_errors(shown: Shown):
    for layer in shown.blueprint.layers:
        if layer in shown.errors:
            yield to_remove(layer), "it failed"


def _after_verdicts(shown: Shown, verdict: dict[str, str], rng: random.Random):
    """Empty retrievals loosen the match, long ones are trimmed, what misled loses weight."""
    if shown.tokens > LONG:
        names = [n for layer in shown.blueprint.layers for n in constants_of(layer) if n.endswith(SHORTER)]
        for name in sorted(names, key=lambda n: (not n.startswith("EPISODES"), rng.random()))[:2]:
            yield to_step(shown.blueprint, name, -1), f"{shown.tokens:.0f} tokens are too long"
    for layer, said in verdict.items():
        names = constants_of(layer)
        if said == "missing":
            loose = [to_step(shown.blueprint, n, LOOSER.get(n.split("_")[-1], 0)) for n in names]
            for step in rng.sample([step for step in loose if step], 1) if any(loose) else ():
                yield step, f"`{layer}` told nothing: loosen its match"
        elif said == "misled" and shown.score <= shown.base and len(verdict) > 1:
            yield to_remove(layer), "it was used in the worse episodes"
        elif said == "misled":
            name = rng.choice(names)
            yield to_step(shown.blueprint, name, -1 if name.endswith(SHORTER) else 1), "it misled: say less"


def _new(shown: Shown, verdict: dict[str, str], rng: random.Random):
    """Something that was not tried in this line: another layer, a constant, a form."""
    blueprint = shown.blueprint
    missing = [name for name in TITLES if name not in blueprint.layers]
    ideas = []
    if missing:
        name = rng.choice(missing)
        ideas.append((to_add(name), f"nothing tells of {purpose(name)} yet"))
        worst = [layer for layer, said in verdict.items() if said != "helped"]
        if worst and (shown.score <= shown.base or len(blueprint.layers) > 3):
            ideas.append((to_remove(rng.choice(worst)), "it did not help"))
    ideas.append((any_step(blueprint, blueprint.layers, rng), "to see whether it matters"))
    slot = rng.choice([name for name in SLOTS if name in needed(blueprint)])
    form = rng.choice([name for name in SLOTS[slot] if name != blueprint.forms.get(slot, slot)])
    ideas.append((to_form(blueprint, slot, form), "to see whether it matters"))
    head = ideas[: 1 + (shown.score <= shown.base)]
    rest = ideas[len(head) :]
    return [*head, *rng.sample(rest, len(rest))] if rng.random() < 0.7 else rng.sample(ideas, len(ideas))


def implement(prompt: str, rng: random.Random) -> Blueprint:
    """The parent's blueprint with the plan's changes carried out."""
    code = DESIGN.search(prompt)
    plan = re.search(r"^## Plan\n```json\n(.*?)\n```$", prompt, re.M | re.S)
    blueprint = read(code["code"]) if code else Blueprint(())
    try:
        changes = json.loads(plan.group(1))["changes"] if plan else []
    except (ValueError, KeyError, TypeError):
        changes = []
    for change in changes:
        blueprint = apply(blueprint, str(change.get("what", "")))
    return blueprint if blueprint.layers else first(prompt, rng)


def repair(prompt: str, rng: random.Random) -> Blueprint:
    """Leave out the layer in which it failed, or else the longest-named suspect: the last one."""
    code = DESIGN.search(prompt)
    error = prompt.partition("\n## Error\n")[2]
    blueprint = read(code["code"]) if code else Blueprint(())
    lines = code["code"].splitlines() if code else []
    numbers = [int(n) for n in re.findall(r"line (\d+)", error)]
    guilty = [layer for n in numbers for layer in [_class_at(lines, n)] if layer in blueprint.layers]
    rest = tuple(name for name in blueprint.layers if name not in (guilty[-1:] or blueprint.layers[-1:]))
    return replace(blueprint, layers=rest) if rest else first(prompt, rng)


def _class_at(lines: list[str], number: int) -> str:
    """Name of the class that a line stands in."""
    for line in reversed(lines[:number]):
        if found := re.match(r"class (\w+)", line):
            return found.group(1)
    return ""
