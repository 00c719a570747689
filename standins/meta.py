"""The stand-in for the meta agent: plans how to change memory designs, and has them written.

Promises: each answer follows from the text of the prompt and the seed alone; what it writes is a whole,
readable module; it reads its parent from the parent's code (which layers, which constants) and plans
from what it is shown (scores, retrieved memory, episodes, the last change and its effect). It knows no
domain, and whether a design is any good it learns from scores only. How designs are written stands
in `offline_grammar.py`.

Try it: `python -c "import offline_meta; print(offline_meta.answer([{'content': '# Stage: first'}], None, 1))"`
"""

import hashlib
import json
import random
import re
from dataclasses import dataclass, replace

from standins.grammar import (
    LOOSER,
    SHORTER,
    SLOTS,
    TITLES,
    Blueprint,
    any_step,
    apply,
    constants_of,
    needed,
    purpose,
    push,
    read,
    to_add,
    to_form,
    to_remove,
    to_step,
    undo,
    write,
)

DESIGN = re.compile(r"^## Design\n(?P<fence>`{3,})python\n(?P<code>.*?)\n(?P=fence)$", re.M | re.S)

LONG = 600  # tokens of retrieved memory that call for trimming
MATTERS = 0.01  # score difference that counts at least as better or worse
MANY = 8  # layers from which one is left out now and then; below, more are added
WON = 0.5  # score from which an episode counts as won

Idea = tuple[str | None, str]  # a change in words, None where there is nowhere to go; why


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


def first(prompt: str, rng: random.Random) -> Blueprint:
    """What one tries first: keep whole episodes, and tell those of the likest task."""
    blueprint = Blueprint(("Episodes",))
    return apply(blueprint, any_step(blueprint, blueprint.layers, rng) or "")


# ------------------------------------------------------------------------------ what it is shown


@dataclass(frozen=True)
class Episode:
    """A deployed episode as the planning prompt shows it."""

    score: float
    retrieved: object  # JSON, or text where it was cut
    goal: str
    actions: tuple[str, ...]
    seen: str  # the observations of its steps, as far as they are shown


@dataclass(frozen=True)
class Shown:
    """What the planning prompt shows of a design and its episodes."""

    blueprint: Blueprint
    score: float
    error: float  # standard error of the score
    base: float  # score of no memory
    tokens: float
    last: tuple[str, ...]  # the last changes, in words
    difference: float  # in score, that they made
    errors: str
    episodes: tuple[Episode, ...]


def read_prompt(prompt: str) -> Shown:
    """Find the sections by their headings. Retrieved text is data: it is measured, never obeyed."""
    number = {name: float(value) for name, value in re.findall(r"^([a-z ]+): ([+-]?\d+(?:\.\d+)?)$", prompt, re.M)}
    last = re.search(r"^## Last change\n(.*?)^## ", prompt, re.M | re.S)
    changes = re.findall(r"^- (?:<data>)?(.*?)(?:</data>)?$", last.group(1) if last else "", re.M)
    errors = re.search(r"^## Errors\n(.*?)^## ", prompt, re.M | re.S)
    return Shown(
        blueprint=_design(prompt),
        score=number.get("score", 0.0),
        error=number.get("standard error", 0.0),
        base=number.get("no memory", 0.0),
        tokens=number.get("retrieved tokens", 0.0),
        last=tuple(changes),
        difference=number.get("score difference", 0.0),
        errors="" if not errors or errors.group(1).strip() == "none" else errors.group(1).strip(),
        episodes=tuple(_episodes(prompt)),
    )


def _design(prompt: str) -> Blueprint:
    code = DESIGN.search(prompt)
    return read(code["code"]) if code else Blueprint(())


def _episodes(prompt: str):
    pattern = r"^### .*? \| score ([\d.]+)\nRetrieved:\n```json\n(.*?)\n```\n(.*?)(?=^### |^## |\Z)"
    for score, retrieved, rest in re.findall(pattern, prompt, re.M | re.S):
        try:
            value = json.loads(retrieved)
        except ValueError:
            value = retrieved  # it was cut
        goal = re.search(r"^Goal: (?:<data>)?(.*?)(?:</data>)?$", rest, re.M)
        steps = rest.partition("Steps:\n")[2]
        actions = tuple(re.findall(r"^> (.*)$", steps, re.M))
        seen = re.sub(r"^> .*$", "", steps, flags=re.M)
        yield Episode(float(score), value, goal.group(1) if goal else "", actions, seen)


def verdicts(shown: Shown) -> dict[str, str]:
    """For each layer: did it tell something, and was that used in better or in worse episodes?"""
    found = {}
    mean = sum(one.score for one in shown.episodes) / (len(shown.episodes) or 1)
    for layer in shown.blueprint.layers:
        told = [(one, _told(one.retrieved, TITLES[layer])) for one in shown.episodes]
        if not any(text for _, text in told):
            found[layer] = "missing"
            continue
        gain = sum((one.score - mean) * _used(text, one.actions) for one, text in told if text)
        found[layer] = "helped" if gain > 0.02 else "misled" if gain < -0.02 else "neutral"
    return found


def _told(value, title: str) -> str:
    """What was retrieved under a layer's title, as text; empty where there was nothing."""
    if isinstance(value, dict):
        return json.dumps(value[title]) if value.get(title) else ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if title in text else ""


def _used(text: str, actions: tuple[str, ...]) -> float:
    """Share of an episode's action words that the retrieved text has."""
    mine = _words(" ".join(actions))
    return len(mine & _words(text)) / (len(mine) or 1)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def lacks(shown: Shown) -> list[tuple[str, str]]:
    """Layers that could tell what the lost episodes lacked, and what speaks for them."""
    lost = [one for one in shown.episodes if one.score < WON and one.actions]
    longest = max((len(one.actions) for one in shown.episodes), default=0)
    common = set.intersection(*(_words(one.goal) for one in shown.episodes)) if shown.episodes else set()
    found = []
    if any(_words(one.goal) - common - _words(one.seen) for one in lost):
        found += [("Places", "what the goal names was not seen")]
    if any(_words(one.goal) & _words(one.seen) - common for one in lost):
        found += [(name, "what the goal names was seen, and nothing came of it") for name in ("Meanings", "Uses")]
    if any(len(set(one.actions)) < 0.6 * len(one.actions) for one in lost):
        found += [("Waste", "the same commands came again and again")]
    if any(len(one.actions) < 0.6 * longest for one in lost):
        found += [("Dangers", "lost episodes ended early")]
    if any(one.score == 0 for one in lost):
        found += [("Reactions", "nothing that was done had an effect that counted")]
    if any(0 < one.score < 1 for one in shown.episodes):
        found += [(name, "some steps scored") for name in ("Meanings", "Sources")]
    if any(one.score >= WON for one in shown.episodes):
        found += [(name, "there are won episodes to learn from") for name in ("Plans", "Patterns", "Targets")]
    return [(name, why) for name, why in found if name not in shown.blueprint.layers]


# -------------------------------------------------------------------------------------- planning


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


def _changes(shown: Shown, verdict: dict[str, str], rng: random.Random) -> list[Idea]:
    """What the evidence calls for, then always something new: taking a change back alone would write
    the grandparent again, and what evidence calls for is the same for all children."""
    said = _after_verdicts(shown, verdict, rng)
    evidence = [*_after_errors(shown), *_after_length(shown), *_after_last(shown), *rng.sample(said, min(len(said), 1))]
    ideas = [idea for idea in (*evidence, *_new(shown, rng)) if idea[0]]
    chosen, blueprint, removals = [], shown.blueprint, []
    for idea in ideas:
        after = apply(blueprint, idea[0])
        if not after.layers:
            removals.append(idea)  # the only layer: once another is there
        elif write(after) != write(blueprint):
            chosen.append(idea)
            blueprint = after
    for idea in removals:
        if apply(blueprint, idea[0]).layers:
            chosen.append(idea)
            blueprint = apply(blueprint, idea[0])
    return chosen


def _after_errors(shown: Shown) -> list[Idea]:
    return [(to_remove(layer), "it failed") for layer in shown.blueprint.layers if layer in shown.errors]


def _after_last(shown: Shown) -> list[Idea]:
    """A change that helped is pushed further, one that hurt is taken back: beyond what chance does."""
    if shown.difference < -max(MATTERS, shown.error):
        return [(undo(shown.blueprint, change), "the last change hurt") for change in shown.last]
    if shown.difference > max(MATTERS, shown.error):
        pushed = [push(shown.blueprint, change) for change in shown.last]
        return [(change, "the last change in this direction helped") for change in pushed if change][:1]
    return []


def _after_verdicts(shown: Shown, verdict: dict[str, str], rng: random.Random) -> list[Idea]:
    """What never told anything has its match loosened or goes, what misled loses weight."""
    ideas = []
    for layer, said in verdict.items():
        names = constants_of(layer)
        if said == "missing":
            loose = [to_step(shown.blueprint, name, LOOSER.get(name.split("_")[-1], 0)) for name in names]
            ideas += [(step, f"`{layer}` told nothing: loosen its match") for step in loose if step][:2]
            if len(verdict) > 1:
                ideas.append((to_remove(layer), "it told nothing"))
        elif said == "misled" and shown.score <= shown.base:
            ideas.append((to_remove(layer), "it was used in the worse episodes"))
        elif said == "misled":
            name = rng.choice(names)
            ideas.append((to_step(shown.blueprint, name, -1 if name.endswith(SHORTER) else 1), "it misled: say less"))
    return [idea for idea in ideas if idea[0]]


def _after_length(shown: Shown) -> list[Idea]:
    """Of what is long the layer that told most is trimmed; it goes where nothing was gained beyond chance."""
    if shown.tokens <= LONG or not shown.blueprint.layers:
        return []
    sizes = {
        layer: sum(len(_told(one.retrieved, TITLES[layer])) for one in shown.episodes)
        for layer in shown.blueprint.layers
    }
    longest = max(sizes, key=lambda layer: sizes[layer])
    steps = [to_step(shown.blueprint, name, -1) for name in constants_of(longest) if name.endswith(SHORTER)]
    trims = [step for step in steps if step and shown.score > shown.base + shown.error]
    return [((trims or [to_remove(longest)])[0], f"{shown.tokens:.0f} tokens are too long")]


def _new(shown: Shown, rng: random.Random) -> list[Idea]:
    """Something that was not tried in this line: other layers, a constant, a form."""
    blueprint, many = shown.blueprint, len(shown.blueprint.layers) >= MANY
    ideas = _layers(shown, rng.choice((0, 1, 2) if many else (2, 3)), rng)
    if many:
        ideas.append((to_remove(rng.choice(blueprint.layers)), "to see whether it is needed"))
    slot = rng.choice([name for name in SLOTS if name in needed(blueprint)])
    form = rng.choice([name for name in SLOTS[slot] if name != blueprint.forms.get(slot, slot)])
    tweaks = [(to_form(blueprint, slot, form), "to see whether it matters")]
    tweaks.append((any_step(blueprint, blueprint.layers, rng), "to see whether it matters"))
    return [*ideas, *rng.sample(tweaks, rng.choice((0, 1)) if ideas else 1)]


def _layers(shown: Shown, count: int, rng: random.Random) -> list[Idea]:
    """Layers to add: those that the lost episodes call for, and any others, by turns of chance."""
    wanted = lacks(shown)
    other = [
        (name, f"nothing tells of {purpose(name)} yet") for name in TITLES if name not in shown.blueprint.layers
    ]
    ideas: dict[str, str] = {}
    while len(ideas) < min(count, len(other)):
        name, why = rng.choice(wanted if wanted and rng.random() < 0.6 else other)
        ideas.setdefault(name, why)
    return [(to_add(name), why) for name, why in ideas.items()]


# --------------------------------------------------------------------------------- implementing


def implement(prompt: str, rng: random.Random) -> Blueprint:
    """The parent's blueprint with the plan's changes carried out."""
    plan = re.search(r"^## Plan\n```json\n(.*?)\n```$", prompt, re.M | re.S)
    blueprint = _design(prompt)
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
    blueprint = _design(prompt)
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
