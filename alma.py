"""ALMA: a meta agent writes the memory of another agent, tries it on real games, and breeds better ones.

This module is the paper's learning loop: `learn` repeats sample, ideate and plan, implement, verify, evaluate,
archive. Nothing is ever removed from the archive, a child enters it whatever its score is, and every design keeps a
chance to be drawn. A run with the same seed and the same answers of the models ends in the same archive.

The other modules in the order in which they read well: memory_base (what a memory design is), evaluate (what turns
one into a score), agent (one episode), meta (the meta agent's prompts and answers), sandbox, llm, envs.

Try it: `python alma.py reproduce --env minihack`
"""

import hashlib
import math
import random
import runpy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from errors import AnswerError, DesignError, UserError
from sandbox import outlive, side_by_side

MAX_PARENTS = 5  # designs drawn in a learning step
MAX_TRIES = 3  # modules that the meta agent may write until one passes verification
VERIFY_UPDATES, VERIFY_RETRIEVALS = 3, 2  # real trajectories and real tasks that verification uses
LARGEST = 700.0  # that `math.exp` can take


# ------------------------------------------------------------------------------ the learning loop


async def learn(run) -> "Archive":
    """The learning loop on a `harness.run.Run`; returns the archive with every candidate that was made."""
    learning = await run.evaluator("learning")
    archive = Archive(await learning.f0())
    rng = random.Random(run.config.seed)
    for step in range(1, run.config.steps + 1):
        run.announce(f"learning step {step}/{run.config.steps}", archive)
        drawn = sample(archive, run.config, rng)
        run.place(step, archive, drawn)
        children = await side_by_side(
            make_child(run, learning, archive, parents, f"{step}.{place}") for place, parents in enumerate(drawn, 1)
        )
        for child in children:
            archive.add(child)
        run.keep(archive)
    if finalists := archive.finalists(run.config.finalists):
        run.announce("finalists, on fresh seeds", archive)
    measured = await side_by_side(run.measure_again(design, design.lead(archive.f0)) for design in finalists)
    for design, again in zip(finalists, measured, strict=True):
        archive.update(design, **again)
    run.keep(archive)
    return archive


async def make_child(run, learning, archive: "Archive", parents: Sequence["Design"], name: str) -> "Design":
    """One candidate, "<learning step>.<place in it>", from its parents (none: from scratch) to its archive line."""
    meta, plan, code, tries, error = await run.meta_agent(learning, archive, name), None, "", 1, ""
    try:
        if not parents:
            run.show(name, "implement", "from scratch")
            code = await meta.first()
        else:
            run.show(name, "ideate", f"from {parents[0].candidate} ({parents[0].score:.3f})")
            evidence = run.evidence(archive, parents[0])
            plan = await meta.ideate_and_plan(evidence)
            run.show(name, "implement")
            code = await meta.implement(evidence, plan)
        run.show(name, "verify")
        while error := await verify(learning, code, name):
            if tries == MAX_TRIES:
                break
            run.show(name, "repair")
            code = await meta.repair(code, error, tries)
            tries += 1
    except AnswerError as unusable:
        error = f"no usable answer of the meta agent: {unusable}"
    # The files of a candidate are written before its line in the archive, so a run that is killed loses nothing.
    if error:
        known = run.keep_dropped(name, code, plan, meta.transcript, error)
    else:
        race = run.race(archive, parents) if run.config.race else None
        known = await run.evaluate(name, code, plan, meta.transcript, race)
    own_id, step = design_id(code or f"{run.config.seed} {name}"), int(name.split(".")[0])
    ids = tuple(parent.id for parent in parents)
    return Design(own_id, name, ids, step, tries=tries, cost=run.cost(own_id, name), **known)


async def verify(learning, code: str, name: str) -> str:
    """What is wrong with a module, which must load in the sandbox, learn from real collected trajectories and retrieve
    for real tasks; empty where nothing is. No episode is played for it."""
    fold = learning.folds[0]

    async def try_out():
        async with fold.sandbox.worker(code, fold.tools(name, "verify")) as worker:
            for index in range(min(VERIFY_UPDATES, len(fold.collected))):
                await worker.update(index)
            for played in await fold.without_memory(most=VERIFY_RETRIEVALS):
                await worker.retrieve(played.trajectory.init)

    try:
        await outlive(try_out)
    except DesignError as error:
        return f"{error.status}: {error}"
    return ""


# ------------------------------------------------------------------------------------ the archive


@dataclass(frozen=True)
class Design:
    """One line of the archive."""

    id: str  # hash of the code; where no code came, of the candidate's name
    candidate: str  # "<learning step>.<place in it>", the name to which its making is booked
    parents: tuple[str, ...]  # ids of the designs that it was made from; none for a design from scratch
    step: int  # learning step, from 1
    state: str  # "evaluated", "dropped" (it failed verification) or "duplicate" (of a design in the archive)
    score: float | None = None  # success rate on the learning set's deployment half, in [0, 1]
    stderr: float | None = None  # standard error over the passes
    difference: float | None = None  # paired, to no memory
    retrieved_tokens: float | None = None  # mean for a task
    visits: int = 0  # times that it was drawn as a parent
    tries: int = 1  # modules written until one passed verification
    cost: float | None = 0.0  # dollars: meta agent and the design's own calls; None: price unknown
    error: str = ""  # why it was dropped, cut
    experience: float | None = None  # score(all) - score(one), where `--objective experience` climbs it
    raced: int = 0  # episodes after which `--race` stopped it, and of which the score is; 0: all were played
    fresh: float | None = None  # of a finalist: what the search climbs (`lead`), measured again on fresh seeds
    final: float | None = None  # of a finalist: the same over all passes, the search's and the fresh ones
    by: str = ""  # "sketch" where that wrote it, since nothing was recorded; empty: the run's meta agent

    def lead(self, f0: float) -> float:
        """What the search climbs: the lead over no memory or, with that objective, what experience gives."""
        if self.experience is not None:
            return self.experience
        return self.difference if self.raced else self.score - f0


class Archive:
    """The designs of a run in the order in which they entered."""

    def __init__(self, f0: float):
        self.f0 = f0  # score of no memory on the same tasks
        self.designs: list[Design] = []

    def add(self, design: Design) -> None:
        """Let a design in; one whose code is there already enters as a duplicate, which is never drawn."""
        known = next((other for other in self.evaluated() if other.id == design.id), None)
        # A race may have stopped two of one learning step at different episodes: the first one's score is kept.
        measured = ("score", "stderr", "difference", "retrieved_tokens", "experience", "raced")
        same = {name: getattr(known, name) for name in measured} if known else {}
        self.designs.append(replace(design, state="duplicate", **same) if known else design)

    def evaluated(self) -> list[Design]:
        return [design for design in self.designs if design.state == "evaluated"]

    def finalists(self, count: int) -> list[Design]:
        """The best designs of the search, the best first; of equals the first."""
        whole = [design for design in self.evaluated() if not design.raced]
        return sorted(whole, key=lambda design: -design.lead(self.f0))[:count]

    def best(self) -> Design | None:
        """The learned design: the best finalist over all its passes; before there are finalists, the best."""
        if again := [design for design in self.evaluated() if design.final is not None]:
            return max(again, key=lambda design: design.final)
        return next(iter(self.finalists(1) or self.evaluated()), None)

    def update(self, known: Design, **changes) -> None:
        """Change what is known of a design."""
        self.designs = [
            replace(design, **changes) if (design.id, design.state) == (known.id, "evaluated") else design
            for design in self.designs
        ]

    def lines(self) -> list[dict]:
        """The archive as it is written: one JSON object a design."""
        return [{**asdict(design), "parents": list(design.parents)} for design in self.designs]


def design_id(code: str) -> str:
    """A design's id: the first 12 hexadecimal digits of its code's SHA-256."""
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:12]


# --------------------------------------------------------------------------------- sampling rules


def sample(archive: Archive, config, rng: random.Random) -> list[list[Design]]:
    """The parents of each child of a learning step, by the run's sampling rule; counts their visits."""
    if config.sampling not in SAMPLING_RULES:
        raise UserError(f"unknown sampling rule {config.sampling!r}: choose from {', '.join(SAMPLING_RULES)}")
    drawn = SAMPLING_RULES[config.sampling](archive, config, rng) or [[]]  # an empty archive: one from scratch
    for parents in drawn:
        for parent in parents:
            visited = sum(one.visits for one in archive.evaluated() if one.id == parent.id)
            archive.update(parent, visits=visited + 1)
    return drawn


def by_merit(archive: Archive, config, rng: random.Random) -> list[list[Design]]:
    """The paper's rule: up to five different designs, by their scores and against their visits."""
    designs = archive.evaluated()
    chances = weights(designs, archive.f0, config.sampling_scale, config.visit_penalty, config.temperature)
    return [[design] for design in draw(designs, chances, rng)]


def greedy(archive: Archive, config, rng: random.Random) -> list[list[Design]]:
    """The best design alone, as often as there are places."""
    return [[archive.best()]] * min(MAX_PARENTS, len(archive.evaluated()))


def uniform(archive: Archive, config, rng: random.Random) -> list[list[Design]]:
    """Up to five different designs, each with the same chance."""
    designs = archive.evaluated()
    return [[design] for design in draw(designs, [1.0] * len(designs), rng)]


def scratch(archive: Archive, config, rng: random.Random) -> list[list[Design]]:
    """No parents: as many designs from scratch as the other rules would draw. The best of them is best-of-N."""
    return [[]] * min(MAX_PARENTS, len(archive.evaluated()))


# A rule returns the parents of each child; a child may have several parents, or none: it is written from scratch.
SAMPLING_RULES: dict[str, Callable[[Archive, object, random.Random], list[list[Design]]]] = {
    "archive": by_merit,
    "greedy": greedy,
    "random": uniform,
    "scratch": scratch,
}


def weights(designs: Sequence[Design], f0: float, scale: float, penalty: float, temperature: float) -> list[float]:
    """Sampling weights, of which only the ratios matter.

    f̂ = 1 / (1 + exp(−λ (f − f0))),  J = f̂ − α ln(1 + visits),  p ∝ exp(J / T), where f − f0 is `Design.lead`
    """
    normalized = [1 / (1 + math.exp(min(-scale * design.lead(f0), LARGEST))) for design in designs]
    merits = [value - penalty * math.log(1 + design.visits) for value, design in zip(normalized, designs, strict=True)]
    best = max(merits, default=0.0)
    shift = best if abs(best) > LARGEST * temperature else 0.0  # else the best one has no weight that can be written
    return [math.exp((merit - shift) / temperature) for merit in merits]


def draw(designs: Sequence[Design], weights: Sequence[float], rng: random.Random,
         count: int = MAX_PARENTS) -> list[Design]:
    """Up to `count` designs, one after the other without replacement, with chances in the ratio of the weights."""
    left, drawn = list(zip(designs, weights, strict=True)), []
    while left and len(drawn) < count:
        point = rng.random() * sum(weight for _, weight in left)
        for index, (_, weight) in enumerate(left):  # noqa: B007 - the last one is taken where rounding leaves a rest
            point -= weight
            if point < 0:
                break
        drawn.append(left.pop(index)[0])
    return drawn


if __name__ == "__main__":
    runpy.run_module("harness", run_name="__main__")  # the command line, which is above this module
