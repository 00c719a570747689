"""ALMA: a meta agent writes the memory of another agent, tries it on real games, and breeds better ones.

`learn` is the paper's algorithm; `main` is the command line. The other modules in the order in which
they read well: memory_base (what a memory design is), evaluate (what turns one into a score),
episodes, envs, archive, meta, run, sandbox, llm, offline, report.

Try it: `python alma.py reproduce --env minihack`
"""

import asyncio
import random
import sys
from dataclasses import replace

from errors import BudgetError, DesignError, InfrastructureError, UserError

TRIES = 3  # modules that the meta agent may write until one passes verification
MAX_PARENTS = 5  # designs drawn in a learning step
VERIFY_UPDATES, VERIFY_RETRIEVALS = 3, 2  # real trajectories and real tasks that verification uses


async def learn(run):
    """The learning loop: sample, ideate and plan, implement, verify, evaluate, archive."""
    from archive import Archive

    learning = await run.evaluator("learning")
    archive = Archive(await learning.f0())
    rng = random.Random(run.config.seed)
    for step in range(1, run.config.steps + 1):
        run.announce(step, archive)
        parents = sample(archive, run.config, rng) or [None]  # an empty archive: write one from scratch
        children = await asyncio.gather(
            *(make_child(run, learning, parent, step, place) for place, parent in enumerate(parents, 1))
        )
        for child in children:
            archive.add(replace(child, state="duplicate") if child.id in archive else child)
        run.keep(archive)
    return archive


async def make_child(run, learning, parent, step: int, place: int):
    """One candidate of a learning step, from the parent to its line in the archive."""
    from harness.run import Candidate
    from llm import AnswerError

    candidate = Candidate(run, learning, parent, step, place)
    plan, code, tries = None, "", 1
    try:
        if parent is None:
            candidate.show("implement", "from scratch")
            code = await candidate.meta.first()
        else:
            candidate.show("ideate", f"from {parent.candidate} ({parent.score:.3f})")
            evidence = candidate.evidence()
            plan = await candidate.meta.ideate_and_plan(evidence)
            candidate.show("implement")
            code = await candidate.meta.implement(evidence, plan)
        candidate.show("verify")
        while why := await verify(learning, code, candidate.name):
            if tries == TRIES:
                return candidate.dropped(code, plan, tries, why)
            candidate.show("repair")
            code = await candidate.meta.repair(code, why, tries)
            tries += 1
    except AnswerError as error:
        return candidate.dropped(code, plan, tries, f"no usable answer of the meta agent: {error}")
    return await candidate.evaluate(code, plan, tries)


def sample(archive, config, rng: random.Random) -> list:
    """Up to five parents, drawn without replacement by the paper's rule or by an ablation's."""
    return archive.sample(
        MAX_PARENTS, rng, config.sampling, config.sampling_scale, config.visit_penalty, config.temperature
    )


async def verify(learning, code: str, name: str) -> str:
    """What is wrong with a module, empty where nothing is. No episode is played for it.

    It must load in the sandbox, learn from real collected trajectories and retrieve for real tasks.
    """
    from sandbox import outlive

    fold = learning.folds[0]

    async def try_out():
        async with fold.sandbox.worker(code, fold.tools(name, "verify")) as worker:
            for index in range(min(VERIFY_UPDATES, len(fold.collected))):
                await worker.update(index)
            for played in await fold.without_memory(VERIFY_RETRIEVALS):
                await worker.retrieve(played.trajectory.init)

    try:
        await outlive(try_out)
    except DesignError as error:
        return f"{error.status}: {error}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 done, 1 a check or comparison failed, 2 the user's mistake, 3 stopped."""
    from harness.cli import parse

    command = parse(arguments)
    try:
        return command.run(command)
    except UserError as error:
        print(f"alma: {error}", file=sys.stderr)
        return 2
    except (InfrastructureError, BudgetError) as error:
        print(f"alma: stopped: {error}", file=sys.stderr)
        return 3
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("alma: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
