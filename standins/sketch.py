"""The stand-in for the meta agent: it writes memory designs out of the layers in `layers.py`, for any domain.

Promises: an answer follows from the prompt and the seed. It changes one thing at a time, by what the prompt shows; a
change that hurt is taken back together with a new one. It reads its parent from the constants in the parent's code
and repeats no change that the prompt shows. What it finds is no result.
"""

import ast
import contextlib
import hashlib
import json
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

from errors import UserError

# All that is read of prompts: where the code, the plan and the error stand, numbers by their names, episodes.
STAGE = re.compile(r"^# Stage: (\w+)", re.M)
DESIGN = re.compile(r"^## Design\n(?P<fence>`{3,})python\n(?P<code>.*?)\n(?P=fence)$", re.M | re.S)
PLAN = re.compile(r"^## Plan\n```json\n(.*?)\n```$", re.M | re.S)
ERRORS = re.compile(r"^## Errors?\n(.*?)(?=^## |\Z)", re.M | re.S)
NUMBER = r"^{}: ([+-]?\d+(?:\.\d+)?)$"
EPISODE = re.compile(r"^### .*?\| score ([\d.]+)\nRetrieved:\n```json\n(.*?)\n```\n(.*?)(?=^### |^## |\Z)", re.M | re.S)
ACTION = re.compile(r"^> (.*)$", re.M)
CHANGE = re.compile(r"(Add|Remove) the layer `(\w+)`|Set `(\w+)` to ([\d.]+) \(it was ([\d.]+)\)")

LIBRARY = Path(__file__).with_name("layers.py").read_text(encoding="utf-8")  # read, not run: designs are made of it
LAYERS = {
    node.name: (ast.get_source_segment(LIBRARY, node), ast.get_docstring(node))
    for node in ast.parse(LIBRARY).body
    if isinstance(node, ast.ClassDef) and any(getattr(part, "name", "") == "tell" for part in node.body)
}
STEPS = {"TOP": (1, 2, 3, 5), "LENGTH": (6, 12, 25), "RATE": (0.1, 0.2, 0.3, 0.5), "TRUST": (1.0, 2.0, 5.0)}
LONG = 600  # tokens of retrieved memory that are too many
MATTERS = 0.01  # score difference that counts as better or worse, where the standard error is less


@dataclass(frozen=True)
class Sketch:
    """What tells one design from another."""

    layers: tuple[str, ...]
    constants: tuple[float, ...]  # in the order of STEPS

    def code(self) -> str:
        """The module: the library without the layers that are not used, and with its constants."""
        source = LIBRARY[LIBRARY.index('"""', 3) + 3 :].lstrip()
        for name in LAYERS.keys() - set(self.layers):
            source = source.replace(LAYERS[name][0] + "\n\n\n", "")
        for name, value in {"LAYERS": list(self.layers), **dict(zip(STEPS, self.constants, strict=True))}.items():
            source = re.sub(rf"(?m)^{name} = [^#\n]*?(?=  #|$)", f"{name} = {json.dumps(value)}", source)
        told = "\n".join(f"{name}: {LAYERS[name][1]}" for name in self.layers)
        return f'"""A memory of these layers.\n\n{told}\n"""\n\n{source}'


def constants_of(code: str) -> dict:
    """The settings that a module begins with, by name."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    named = [(getattr(node.targets[0], "id", ""), node.value) for node in nodes]
    return {name: ast.literal_eval(value) for name, value in named if name in ("LAYERS", *STEPS)}


def read(code: str) -> Sketch:
    """What a module was written from; no layers where it is no sketch."""
    found = constants_of(LIBRARY) | {"LAYERS": []}
    with contextlib.suppress(SyntaxError, ValueError):
        found |= constants_of(code) if "class Memory(MemoryDesign)" in code else {}
    return Sketch(tuple(name for name in found["LAYERS"] if name in LAYERS), tuple(found[name] for name in STEPS))


def apply(sketch: Sketch, change: str) -> Sketch:
    """The design after a change in words; as it was, where the words are no change."""
    found = CHANGE.match(change)
    if not found:
        return sketch
    verb, layer, name, value, _ = found.groups()
    if name in STEPS:
        constants = dict(zip(STEPS, sketch.constants, strict=True)) | {name: float(value)}
        return replace(sketch, constants=tuple(constants.values()))
    rest = tuple(one for one in sketch.layers if one != layer)
    return replace(sketch, layers=(*rest, layer) if verb == "Add" and layer in LAYERS else rest)


def write(messages: list[dict], seed: int) -> str:
    """The answer to a prompt: JSON for the planning stage, a module in a fence for the others."""
    prompt = next((one["content"] for one in messages if STAGE.search(one["content"])), "")
    stage = STAGE.search(prompt)
    stages = {"first": first, "ideate": ideate, "implement": implement, "repair": repair}
    if not stage or stage[1] not in stages:
        raise UserError(f"the meta stand-in knows the stages {', '.join(stages)}, not {stage and stage[1]!r}")
    rng = random.Random(hashlib.sha256(f"{seed}\n{prompt}".encode("utf-8", "replace")).hexdigest())
    made = stages[stage[1]](prompt, rng)
    return f"```python\n{made.code()}```" if isinstance(made, Sketch) else json.dumps(made, indent=1)


def first(prompt: str, rng: random.Random) -> Sketch:
    return replace(read(""), layers=(rng.choice(list(LAYERS)),))


def implement(prompt: str, rng: random.Random) -> Sketch:
    """The parent with the plan's changes carried out."""
    sketch, plan = parent(prompt), PLAN.search(prompt)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for change in json.loads(plan[1])["changes"] if plan else ():
            sketch = apply(sketch, str(change["what"]))
    return sketch if sketch.layers else first(prompt, rng)


def repair(prompt: str, rng: random.Random) -> Sketch:
    """Leave out the layer in which it failed, else the last one."""
    sketch, design, error = parent(prompt), DESIGN.search(prompt), ERRORS.search(prompt)
    guilty = sketch.layers[-1:]
    for number in map(int, re.findall(r"line (\d+)", error[1] if error else "")):
        classes = re.findall(r"^class (\w+)", "\n".join(design["code"].splitlines()[:number]), re.M) if design else []
        guilty = tuple(classes[-1:]) if classes and classes[-1] in sketch.layers else guilty
    rest = tuple(name for name in sketch.layers if name not in guilty)
    return replace(sketch, layers=rest) if rest else first(prompt, rng)


def parent(prompt: str) -> Sketch:
    design = DESIGN.search(prompt)
    return read(design["code"]) if design else read("")


def ideate(prompt: str, rng: random.Random) -> dict:
    """A plan: a verdict on each layer, and the change that the evidence speaks for most, with some chance."""
    sketch = parent(prompt)
    text = DESIGN.sub("", prompt)

    def number(name: str) -> float:
        found = re.search(NUMBER.format(name), text, re.M)
        return float(found[1]) if found else 0.0

    episodes = [(float(score), told, set(ACTION.findall(rest))) for score, told, rest in EPISODE.findall(text)]
    verdicts = {layer: verdict(layer, episodes) for layer in sketch.layers}
    made = [found.group() for found in CHANGE.finditer(text)]  # on the way from the first design to this one
    gain, noise = number("score difference"), max(MATTERS, number("standard error"))
    back = []
    if made and gain < -noise:  # take back the last change
        verb, layer, name, new, old = CHANGE.match(made[0]).groups()
        undone = f"Set `{name}` to {old} (it was {new})." if name else ""
        back = [undone or f"{'Remove' if verb == 'Add' else 'Add'} the layer `{layer}`."]
        sketch = apply(sketch, back[0])
    errors = ERRORS.search(text)

    ideas: dict[str, tuple[float, str]] = {}  # changes: how much speaks for each, and what
    wins = sum(score >= 0.5 for score, *_ in episodes)
    wanted = {"Plans": wins, "Targets": wins, "Places": len(episodes) - wins}
    for layer in LAYERS:
        if layer not in sketch.layers:
            weight = 1 + 3 * wanted.get(layer, 0.0) / (len(episodes) or 1)
            ideas[f"Add the layer `{layer}`."] = (weight, "the episodes shown have what it learns from")
        elif len(sketch.layers) > 1:
            failed = bool(errors) and layer in errors[1]
            said = verdicts.get(layer, "neutral")
            weight = {"misled": 1.5, "missing": 1.0, "neutral": 0.3, "helped": 0.1}[said] + 20 * failed
            ideas[f"Remove the layer `{layer}`."] = (weight, "it failed" if failed else f"what it told: {said}")
    for name, value in zip(STEPS, sketch.constants, strict=True):
        at = min(range(len(STEPS[name])), key=lambda n: abs(STEPS[name][n] - value))
        for step in (-1, 1):
            if 0 <= at + step < len(STEPS[name]):
                shorter = number("retrieved tokens") > LONG and name in ("TOP", "LENGTH") and step < 0
                further = gain > noise and any(f"`{name}`" in change for change in made[:1])
                why = "it tells too much" if shorter else "the last change helped" if further else "a small trial"
                idea = f"Set `{name}` to {STEPS[name][at + step]} (it was {value})."
                ideas[idea] = (0.15 + 5 * shorter + 2 * further, why)
    fresh = {change: idea for change, idea in ideas.items() if not repeats(change, made)} or ideas
    what = rng.choices(list(fresh), [weight for weight, _ in fresh.values()])[0]
    changes = [{"what": change, "why": "the last change hurt"} for change in back]
    why = {"helped": "the better episodes did what it told", "neutral": "better and worse episodes used it alike",
           "misled": "the worse episodes did what it told", "missing": "it told nothing"}  # fmt: skip
    return {
        "worked": [layer for layer, said in verdicts.items() if said == "helped"],
        "verdicts": [{"item": layer, "verdict": said, "why": why[said]} for layer, said in verdicts.items()],
        "problems": [f"{layer}: {why[said]}" for layer, said in verdicts.items() if said in ("misled", "missing")],
        "changes": [{**change, "expected": "more tasks won"} for change in (*changes, {"what": what, "why": fresh[what][1]})],
    }


def verdict(layer: str, episodes: list[tuple]) -> str:
    """Whether what a layer told was done in the better or in the worse episodes."""
    mean = sum(score for score, *_ in episodes) / (len(episodes) or 1)
    gain, told = 0.0, False
    for score, retrieved, actions in episodes:
        part = retrieved.partition(f'"{layer.lower()}"')[2].partition("\n ]")[0]
        told = told or bool(part)
        gain += (score - mean) * sum(re.sub(r" \d+", "", action) in part for action in actions) / (len(actions) or 1)
    return "missing" if not told else "helped" if gain > 0.02 else "misled" if gain < -0.02 else "neutral"


def repeats(change: str, made: list[str]) -> bool:
    """Whether a change touches what a change before it has set to the same, or was set from."""
    _, layer, name, new, _ = CHANGE.match(change).groups()
    for one in made:
        _, other, constant, value, old = CHANGE.match(one).groups()
        if (layer and layer == other) or (name and name == constant and float(new) in (float(value), float(old))):
            return True
    return False
