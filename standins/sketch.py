"""The stand-in for the meta agent: it writes memory designs out of the layers in `layers.py`, for any domain.

An answer follows from the prompt and the seed. It changes one thing at a time and repeats no change that the prompt
shows; a change that hurt is taken back together with a new one. What it finds is no result.
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
NUMBER = re.compile(r"^(score difference|standard error|retrieved tokens): ([+-]?\d+(?:\.\d+)?)$", re.M)
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


def read(code: str) -> Sketch:
    """What a module was written from, by the constants that it begins with; no layers where it is no sketch."""
    found: dict = {}
    for source in (LIBRARY, "LAYERS = []", code if "class Memory(MemoryDesign)" in code else ""):
        with contextlib.suppress(SyntaxError, ValueError):
            nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            named = [(getattr(node.targets[0], "id", ""), node.value) for node in nodes]
            found |= {name: ast.literal_eval(value) for name, value in named if name in ("LAYERS", *STEPS)}
    return Sketch(tuple(name for name in found["LAYERS"] if name in LAYERS), tuple(found[name] for name in STEPS))


def apply(sketch: Sketch, change: str) -> Sketch:
    """The design after a change in words; as it was, where the words are no change."""
    found = CHANGE.match(change)
    if not found:
        return sketch
    verb, layer, name, value, _ = found.groups()
    constants = (float(value) if one == name else old for one, old in zip(STEPS, sketch.constants, strict=True))
    rest = tuple(one for one in sketch.layers if one != layer)
    return Sketch((*rest, layer) if verb == "Add" and layer in LAYERS else rest, tuple(constants))


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
    sketch, plan = read(parent(prompt)), PLAN.search(prompt)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for change in json.loads(plan[1])["changes"] if plan else ():
            sketch = apply(sketch, str(change["what"]))
    return sketch if sketch.layers else first(prompt, rng)


def repair(prompt: str, rng: random.Random) -> Sketch:
    """Leave out the layer in which it failed, else the last one."""
    code, error = parent(prompt), ERRORS.search(prompt)
    sketch = read(code)
    guilty = sketch.layers[-1:]
    for number in re.findall(r"line (\d+)", error[1] if error else ""):
        classes = re.findall(r"^class (\w+)", "\n".join(code.splitlines()[: int(number)]), re.M)
        guilty = tuple(name for name in classes[-1:] if name in sketch.layers) or guilty
    rest = tuple(name for name in sketch.layers if name not in guilty)
    return replace(sketch, layers=rest) if rest else first(prompt, rng)


def parent(prompt: str) -> str:
    design = DESIGN.search(prompt)
    return design["code"] if design else ""


def ideate(prompt: str, rng: random.Random) -> dict:
    """A plan: a verdict on each layer, and the change that the evidence speaks for most, with some chance."""
    sketch, text = read(parent(prompt)), DESIGN.sub("", prompt)
    numbers = {name: float(number) for name, number in reversed(NUMBER.findall(text))}  # of two the first
    errors = ERRORS.search(text)

    # Whether what a layer told was done in the better or in the worse episodes.
    episodes = [(float(score), told, set(ACTION.findall(rest))) for score, told, rest in EPISODE.findall(text)]
    wins = sum(score >= 0.5 for score, *_ in episodes)
    mean = sum(score for score, *_ in episodes) / (len(episodes) or 1)
    verdicts = {}
    for name in sketch.layers:
        told, good = [one.partition(f'"{name.lower()}"')[2].partition("\n ]")[0] for _, one, _ in episodes], 0.0
        for part, (score, _, actions) in zip(told, episodes, strict=True):
            done = sum(re.sub(r" \d+", "", action) in part for action in actions)
            good += (score - mean) * done / (len(actions) or 1)
        sign = "helped" if good > 0.02 else "misled" if good < -0.02 else "neutral"
        verdicts[name] = sign if any(told) else "missing"

    # The last change is taken back if it hurt; a score difference of 0.01 says nothing.
    made = [found.groups() for found in CHANGE.finditer(text)]  # on the way from the first design to this one
    gain, noise = numbers.get("score difference", 0.0), max(0.01, numbers.get("standard error", 0.0))
    changes = []
    if made and gain < -noise:
        verb, layer, name, new, old = made[0]
        opposite = "Remove" if verb == "Add" else "Add"
        undone = f"Set `{name}` to {old} (it was {new})." if name else f"{opposite} the layer `{layer}`."
        changes, sketch = [(undone, "the last change hurt")], apply(sketch, undone)

    # One new change is drawn: of each how much speaks for it, what does, and whether it was made before.
    ideas: dict[str, tuple[float, str, bool]] = {}
    wanted = {"Plans": wins, "Targets": wins, "Places": len(episodes) - wins}
    for layer in LAYERS:
        again = any(layer == other for _, other, *_ in made)
        if layer not in sketch.layers:
            weight = 1 + 3 * wanted.get(layer, 0.0) / (len(episodes) or 1)
            ideas[f"Add the layer `{layer}`."] = (weight, "the episodes shown have what it learns from", again)
        elif len(sketch.layers) > 1:
            failed, said = bool(errors) and layer in errors[1], verdicts.get(layer, "neutral")
            weight = {"misled": 1.5, "missing": 1.0, "neutral": 0.3, "helped": 0.1}[said] + 20 * failed
            ideas[f"Remove the layer `{layer}`."] = (weight, "it failed" if failed else f"what it told: {said}", again)
    for (name, steps), value in zip(STEPS.items(), sketch.constants, strict=True):
        at = min(range(len(steps)), key=lambda n: abs(steps[n] - value))
        for new in (*steps[max(0, at - 1) : at], *steps[at + 1 : at + 2]):
            shorter = numbers.get("retrieved tokens", 0.0) > 600 and name in ("TOP", "LENGTH") and new < steps[at]
            further = gain > noise and any(name in change for change in made[:1])
            why = "it tells too much" if shorter else "the last change helped" if further else "a small trial"
            again = any(name == other and new in (float(then), float(old)) for _, _, other, then, old in made)
            ideas[f"Set `{name}` to {new} (it was {value})."] = (0.15 + 5 * shorter + 2 * further, why, again)
    fresh = {change: idea for change, idea in ideas.items() if not idea[2]} or ideas
    what = rng.choices(list(fresh), [weight for weight, *_ in fresh.values()])[0]
    changes.append((what, fresh[what][1]))
    why = {"helped": "the better episodes did what it told", "neutral": "better and worse episodes used it alike",
           "misled": "the worse episodes did what it told", "missing": "it told nothing"}  # fmt: skip
    return {
        "worked": [layer for layer, said in verdicts.items() if said == "helped"],
        "verdicts": [{"item": layer, "verdict": said, "why": why[said]} for layer, said in verdicts.items()],
        "problems": [f"{layer}: {why[said]}" for layer, said in verdicts.items() if said in ("misled", "missing")],
        "changes": [{"what": change, "why": reason, "expected": "more tasks won"} for change, reason in changes],
    }
