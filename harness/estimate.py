"""What a run will cost: an estimate, and a question before a paid run starts.

It is high: every episode uses all its steps. But reasoning models may answer longer: only a budget is a limit.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import envs
from alma import MAX_PARENTS
from errors import UserError
from evaluate import RACE_ROUNDS, SINGLES, folds
from harness.config import Config
from llm import Keys, ModelSpec, is_local
from models.prices import PlannedCalls, estimate, parse_price, price
from prompts import count_tokens, render

EXPERIENCE_DEPLOYMENTS = 1 + SINGLES  # of a design whose experience is measured: after no episode and after single ones


def designs_of(steps: int) -> int:
    """The number of designs made in so many learning steps: 1, 1, 2, 4, 5, 5, ... (43 in eleven steps)."""
    made = 0
    for _ in range(steps):
        made += min(made, MAX_PARENTS) or 1
    return made


@dataclass(frozen=True)
class Deployed:
    """What is played on a task set at most."""

    designs: int  # no memory aside
    passes: int  # over the deployed tasks, of all designs together
    without: int  # passes of no memory: those of a design, and as many more that tell what chance alone does


def searched(config: Config) -> Deployed:
    """What a search plays on the learning set: each design, and the finalists again on fresh seeds."""
    designs, each = designs_of(config.steps), 1 + EXPERIENCE_DEPLOYMENTS * (config.objective == "experience")
    finalists = min(config.finalists, designs)
    without = config.passes + max(config.passes, config.final_passes if finalists else 0)
    return Deployed(designs, each * (designs * config.passes + finalists * config.final_passes), without)


def compared(config: Config, split: str, designs: int, explained: int = 0, sizes: int = 1) -> Deployed:
    """What a comparison of designs plays: with so many sizes of the collection, and of some what experience gives."""
    deployments, passes = designs * sizes + explained * EXPERIENCE_DEPLOYMENTS, config.passes_over(split)
    return Deployed(designs, passes * deployments, 2 * passes)


def episodes_of(config: Config, deployed: Mapping[str, Deployed], seeds: int = 1) -> int:
    """The number of episodes that are needed at most for what is deployed on each task set."""
    total = 0
    for split, one in deployed.items():
        collected, tasks = _collected_and_deployed(config, split)
        if split != "shift" or "test" not in deployed:  # else its designs have learned from the test set
            total += collected * (seeds + one.designs * config.fresh_collection)
        total += tasks * (one.passes + one.without * seeds)
    return total


def _collected_and_deployed(config: Config, split: str) -> tuple[int, int]:
    """Episodes of the collection phase, and tasks that are deployed on, in all folds."""
    halves = folds(config, split)
    return config.collection_passes * sum(len(half) for half, _ in halves), sum(len(half) for _, half in halves)


def planned_calls(config: Config, deployed: Mapping[str, Deployed], written: int, seeds: int = 1) -> list[PlannedCalls]:
    """The calls of a run, by role: what is deployed on each task set, and how many designs are written."""
    domain, base_url = envs.domain_class(config.env), Keys.read().base_url
    # The mean of an agent's prompt, from a real first observation: it holds half an episode's turns.
    task = next(task for task in domain.tasks() if task.split == "learning")
    text, info = domain().reset(seed=task.seed, options={"task": task.id})
    now = render("turn", text="", now=info["now"], actions=info["actions"])
    turns = (count_tokens(text) + 10) * domain.max_steps // 2
    agent_prompt = count_tokens(domain.description()) + 200 + count_tokens(now) + turns
    sizes = ((one, *_collected_and_deployed(config, split)) for split, one in deployed.items())
    memory_calls = sum(collected * one.designs + tasks * one.passes for one, collected, tasks in sizes)
    planned = []
    for role, calls, prompt_tokens, answer_tokens, cached_share in (  # answers with reasoning
        ("agent", domain.max_steps * episodes_of(config, deployed, seeds), agent_prompt, 300, 0.7),
        # A design takes 2.3 calls: ideate, implement, now and then a repair. 10,000 tokens are what all stages have in
        # common, code and plan, without the evidence.
        ("meta", int(written * 2.3), 10_000 + config.prompt_tokens // 2, 6000, 0.0),
        # A design calls once to learn from each collected episode and once for each deployed one; many make no calls.
        ("memory", memory_calls, 2000, 400, 0.0),
    ):
        spec = ModelSpec.parse(getattr(config, f"{role}_model"))
        url = (spec.base_url or base_url) if spec.at_endpoint else ""
        planned.append(PlannedCalls(role, spec.name, calls, prompt_tokens, answer_tokens, cached_share, url))
    return planned


def ask_before_paying(config: Config, deployed: Callable[[Config], Mapping[str, Deployed]], written: int, yes: bool,
                      seeds: int = 1) -> None:
    """Show the estimate of a paid run and ask whether to start; raises UserError where it must not.
    `deployed`: what is deployed on each task set; `written`: how many designs the meta agent writes."""
    prices, keys, paid = dict(map(parse_price, config.price)), Keys.read(), False
    for spec in (ModelSpec.parse(model, role) for role, model in config.models().items()):
        if spec.at_endpoint:
            url = spec.base_url or keys.base_url
            known = price(spec.name, prices, url)
            keys.of(url)  # raises UserError where it is missing, before a run folder is made
            if config.budget_usd and not known:
                give = f"--price {spec.name}=in,cached,out"
                raise UserError(f"--budget-usd cannot be kept: the price of {spec.name} is unknown: give {give}")
            paid = paid or known is not None or not is_local(url)
    if not paid:
        return

    def show(words: str, settings: Config, played: Mapping[str, Deployed], more: str = "") -> None:
        needed = estimate(planned_calls(settings, played, written, seeds), prices)
        print(f"{words} {needed}{more}", file=sys.stderr)

    plan, plays = deployed(config), written and ModelSpec.parse(config.agent_model).at_endpoint
    show("this run will need", config, plan, " at most, by estimate")
    if plays and config.passes > 1:
        once = replace(config, passes=1, finalists=config.finalists or Config.finalists)
        flags = f"--test-passes {once.test_passes} --finalists {once.finalists} --final-passes {once.final_passes}"
        show(f"with --passes 1 {flags} it would need", once, deployed(once))
    if plays and not config.race and config.objective == "score":
        when = f"if each design is clearly behind after the first of {RACE_ROUNDS} parts of its episodes; few are"
        search, most = plan["learning"], plan["learning"].designs * config.passes
        raced = replace(search, passes=search.passes - round((1 - 1 / RACE_ROUNDS) * most))
        show("with --race it may need as little as", config, {**plan, "learning": raced}, f", {when}")
    limits = [f"${config.budget_usd:,.2f}"] if config.budget_usd else []
    limits += [f"{config.budget_tokens:,} tokens"] if config.budget_tokens else []
    if limits:
        print(f"it stops at {' or '.join(limits)}", file=sys.stderr)
    if not yes and not sys.stdin.isatty():
        raise UserError("a paid run asks before it starts, and there is no terminal: give --yes")
    if not yes and input("start? [y/N] ").strip().casefold() not in ("y", "yes"):
        raise UserError("not started")
