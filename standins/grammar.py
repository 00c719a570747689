"""The grammar of memory designs: what the stand-in meta agent can write, read back, and change.

Promises: a blueprint (layers, constants, forms of functions) and a whole, readable module are two
forms of one thing: `write` and `read` lead from one to the other. A change is a sentence, which
`apply` carries out and `undo` takes back. The modules' parts are in `offline_parts.py` and `offline_layers.py`.

Try it: `python -c "import offline_grammar as g; print(g.write(g.Blueprint(('Places',))))"`
"""

import ast
import random
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

PARTS = [Path(__file__).with_name(name) for name in ("parts.py", "layers.py")]

# Each layer: the title under which a design tells what it knows.
TITLES = {
    "Episodes": "earlier episodes",
    "Plans": "plans that worked",
    "Patterns": "what such tasks need",
    "Places": "seen after",
    "Uses": "goes with",
    "Reactions": "when told",
    "Meanings": "means",
    "Sources": "look up",
    "Waste": "waste",
    "Dangers": "dangers",
    "Targets": "targets",
}
# The values that a constant may take, in order.
CHOICES: dict[str, tuple] = {
    "WON": (0.2, 0.5, 1.0),
    "LIKE": (0.0, 0.15, 0.3, 0.5, 0.8),
    "LAST": (1, 2, 3, 5, 10),
    "TRUST": (0.5, 1.0, 2.0, 4.0, 8.0),
    "TASKS": (1, 2, 3),
    "RATE": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    "TALLY_LIFT": (1.0, 1.5, 2.0, 3.0),
    "EPISODES_TOP": (1, 2, 3, 5),
    "EPISODES_STEPS": (5, 10, 20, 40, 100),
    "EPISODES_WON_ONLY": (True, False),
    "PLANS_TOP": (1, 2, 3, 5),
    "PLANS_USUAL": (0.5, 0.7, 0.9),
    "PLANS_LIFT": (1.2, 1.5, 2.0, 3.0),
    "PLANS_STEPS": (3, 5, 8, 12, 25, 50),
    "PATTERNS_SHARE": (0.1, 0.3, 0.5, 0.7, 0.9),
    "PATTERNS_LIFT": (1.0, 1.5, 2.0, 3.0),
    "PATTERNS_TOP": (2, 3, 5, 8),
    "PLACES_TOP": (1, 2, 4, 6, 10),
    "PLACES_SHARE": (0.1, 0.3, 0.5, 0.7),
    "PLACES_LIFT": (1.0, 1.5, 2.0, 4.0),
    "USES_TOP": (1, 2, 3, 5),
    "USES_THINGS": (4, 8, 12, 20),
    "REACTIONS_TOP": (1, 2, 3, 5, 8),
    "REACTIONS_RATE": (0.02, 0.05, 0.1, 0.2, 0.4),
    "SELDOM": (0.1, 0.2, 0.3, 0.5),
    "MEANINGS_SEEN": (2, 3, 5),
    "MEANINGS_SHARE": (0.2, 0.5, 0.8),
    "SOURCES_TOP": (1, 2, 3),
    "SOURCES_RATE": (0.1, 0.3, 0.5),
    "WASTE_TRIES": (3, 10, 30),
    "WASTE_RATE": (0.0, 0.05, 0.1, 0.2, 0.4),
    "DANGERS_TOP": (3, 6, 12),
    "DANGERS_RATE": (0.05, 0.1, 0.2, 0.4),
    "TARGETS_TOP": (1, 2, 3, 5),
    "TARGETS_RATE": (0.1, 0.3, 0.5, 0.7),
}
# Constants by the end of their names: the way to a wider match.
LOOSER = {"SHARE": -1, "TRIES": -1, "SEEN": -1, "TASKS": -1, "RATE": -1, "LIFT": -1, "TRUST": -1, "LIKE": -1, "WON": -1, "LAST": 1, "ONLY": 1}
SHORTER = ("TOP", "STEPS", "THINGS")
SLOTS = {  # functions of which a design has one of several forms
    "closeness": {"closeness": "words in common roles", "closeness_in_order": "the same words at the same places"},
    "situation": {"situation": "the goal and the first observation", "situation_goal": "the goal alone"},
    "path_of": {
        "path_of": "steps that deal with the goal",
        "path_of_all": "each step where it was last taken",
    },
    "context": {"context": "words of the goal", "context_in_sight": "words of the goal and of what is in sight"},
    "decisive": {
        "decisive": "gains and last steps",
        "decisive_for_goal": "steps that brought up words of the goal",
    },
    "adapt": {"adapt": "the words of the new task", "adapt_nothing": "the words of the old task"},
    "shape": {"shape": "an object with a title for each layer", "shape_sentences": "a list of sentences"},
}


@dataclass(frozen=True)
class Blueprint:
    """What the grammar chooses: everything that a written module says beyond its fixed parts."""

    layers: tuple[str, ...]
    constants: dict[str, object] = field(default_factory=dict)  # those that differ from the parts' own
    forms: dict[str, str] = field(default_factory=dict)  # slot: which of its forms


# ------------------------------------------------------------------------------ reading and writing


@lru_cache(maxsize=1)
def parts() -> dict[str, str]:
    """Source of each definition of the parts, by name, in their order; imports under "import"."""
    found = {"import": ""}
    for source in (path.read_text(encoding="utf-8") for path in PARTS):
        lines = source.splitlines()
        for node in ast.parse(source).body:
            start = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))])
            text = "\n".join(lines[start - 1 : node.end_lineno])
            if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != f"standins.{PARTS[0].stem}"):
                found["import"] += text + "\n"
            elif isinstance(node, ast.Assign):
                found[node.targets[0].id] = text
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found[node.name] = text
    return found


@lru_cache(maxsize=256)
def names_in(source: str) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))


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


@lru_cache(maxsize=64)
def purpose(layer: str) -> str:
    """What a layer is for: the first clause of its docstring."""
    text = ast.get_docstring(ast.parse(parts()[layer]).body[0]) or layer
    text = re.split(r"[;:.]", text)[0]
    return text[0].lower() + text[1:]


def _imports(text: str) -> str:
    """The imports that a text needs: modules, then names of modules, the designs' own module last."""
    used, plain, named = names_in(text), set(), {"memory_base": {"MemoryDesign"}}
    for node in ast.parse(parts()["import"]).body:
        names = {alias.name for alias in node.names} & used
        if isinstance(node, ast.Import):
            plain |= names
        elif names:
            named[node.module] = named.get(node.module, set()) | names
    own = named.pop("memory_base")
    lines = [f"import {name}" for name in sorted(plain)]
    lines += [f"from {module} import {', '.join(sorted(named[module]))}" for module in sorted(named)]
    return "\n".join([*lines, "", f"from memory_base import {', '.join(sorted(own))}", ""]).lstrip("\n") + "\n"


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


@lru_cache(maxsize=64)
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


def push(blueprint: Blueprint, change: str) -> str | None:
    """Words for going on in the direction of a change; an added layer tells more."""
    if (found := re.match(r"Set `(\w+)` to (\S+) \(it was (\S+)\)", change)) and found.group(1) in CHOICES:
        up = ast.literal_eval(found.group(2)) > ast.literal_eval(found.group(3))
        return to_step(blueprint, found.group(1), 1 if up else -1)
    if (found := re.match(r"Add a layer `(\w+)`", change)) and found.group(1) in blueprint.layers:
        own = [name for name in constants_of(found.group(1)) if name.endswith("_TOP")]
        return to_step(blueprint, own[0], 1) if own else None
    return None


def any_step(blueprint: Blueprint, layers, rng: random.Random) -> str | None:
    steps = [to_step(blueprint, name, step) for layer in layers for name in constants_of(layer) for step in (1, -1)]
    steps = [step for step in steps if step]
    return rng.choice(steps) if steps else None
