"""What a run will cost: an estimate, and a question before a paid run starts.

The estimate is high: every episode uses all its steps. But the answers of reasoning models may be longer than
assumed: only a budget (`--budget-usd`) is a limit.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import envs
from errors import UserError
from evaluate import SINGLES, folds
from harness.config import Config
from llm import Keys, ModelSpec, is_local
from models.prices import PlannedCalls, estimate, parse_price, price
from prompts import count_tokens, render

ANSWER_TOKENS = {"meta": 6000, "agent": 300, "memory": 400}  # of one answer, reasoning included
META_PROMPT_TOKENS = 10_000  # what all stages have in common, code and plan, without the evidence
META_CALLS = 2.3  # for one design: ideate, implement, now and then a repair
ONE_PASS = "the finalists are measured again all the same"
RACING = "see docs/cost.md"
MEMORY_CALLS = 1.0  # of one design for one trajectory or task; many designs make none


def designs_of(steps: int, most: int = 5) -> int:
    """The number of designs made in so many learning steps: 1, 1, 2, 4, 5, 5, ... (43 in eleven steps)."""
    made = min(steps, 1)
    for _ in range(steps - 1):
        made += min(made, most)
    return made


def deployments_of(config: Config, steps: int) -> float:
    """The deployments on the learning set of so many learning steps, finalists included.

    A deployment has as many passes as the settings say. With `--objective experience` a design is deployed after each
    of three single episodes too.
    """
    designs, each = designs_of(steps), 1 + SINGLES * (config.objective == "experience")
    finalists = min(config.finalists, designs)
    # A finalist's lead is measured on the fresh seeds alone and over all passes, both with no memory beside it.
    again = finalists * each + (finalists > 0)
    return designs * each + again * config.final_passes / config.passes


def episodes_of(config: Config, split: str, deployments: float) -> int:
    """The number of episodes of so many deployments on a task set.

    With them go the collection phase and no memory, twice: the second time tells what chance alone does.
    """
    collected, deployed = _collected_and_deployed(config, split)
    return collected + round(deployed * (deployments + 2))


def _collected_and_deployed(config: Config, split: str) -> tuple[int, int]:
    """Episodes of the collection phase and of the deployment of one design, in all folds."""
    halves = folds(config, split)
    collected = config.collection_passes * sum(len(collection) for collection, _ in halves)
    return collected, config.passes_over(split) * sum(len(deployment) for _, deployment in halves)


def planned_calls(config: Config, deployments: Mapping[str, float], written: int) -> list[PlannedCalls]:
    """The calls of a run with so many deployments on each task set, in which some designs are written, by role."""
    domain = envs.domain_class(config.env)
    specs = {role: ModelSpec.parse(getattr(config, f"{role}_model")) for role in ("meta", "agent", "memory")}
    default = Keys.read().base_url

    def planned(role: str, calls: int, prompt_tokens: int, cached_share: float = 0.0) -> PlannedCalls:
        spec = specs[role]
        url = (spec.base_url or default) if spec.at_endpoint else ""
        return PlannedCalls(role, spec.name, calls, prompt_tokens, ANSWER_TOKENS[role], cached_share, url)

    steps = domain.max_steps * sum(episodes_of(config, split, count) for split, count in deployments.items())
    # The mean of an agent's prompt, from a real first observation: it holds half an episode's turns.
    task = next(task for task in domain.tasks() if task.split == "learning")
    text, info = domain().reset(seed=task.seed, options={"task": task.id})
    now = count_tokens(render("turn", text="", now=info["now"], actions=info["actions"]))
    turns = (count_tokens(text) + 10) * domain.max_steps // 2
    agent = planned("agent", steps, count_tokens(domain.description()) + 200 + now + turns, 0.7)
    meta_prompt = META_PROMPT_TOKENS + config.prompt_tokens // 2
    # A design is called once to learn from each collected episode and once to retrieve for each deployed one.
    calls = sum(sum(_collected_and_deployed(config, split)) * count for split, count in deployments.items())
    meta = planned("meta", int(written * META_CALLS), meta_prompt)
    return [agent, meta, planned("memory", int(MEMORY_CALLS * calls), 2000)]


def ask_before_paying(
    config: Config, deployments: Callable[[Config], Mapping[str, float]], written: int, yes: bool
) -> None:
    """Show the estimate of a paid run and ask whether to start; raises UserError where it must not.

    `deployments`: how many there are on each task set; `written`: how many designs the meta agent writes.
    """
    prices, keys = dict(parse_price(text) for text in config.price), Keys.read()
    paid = False
    for spec in (ModelSpec.parse(model, role) for role, model in config.models().items()):
        if not spec.at_endpoint:
            continue
        url = spec.base_url or keys.base_url
        known = price(spec.name, prices, url)
        keys.of(url)  # raises UserError where it is missing, before a run folder is made
        if config.budget_usd and not known:
            give = f"--price {spec.name}=in,cached,out"
            raise UserError(f"--budget-usd cannot be kept: the price of {spec.name} is unknown: give {give}")
        paid = paid or known is not None or not is_local(url)
    if not paid:
        return


    def needed(config: Config):
        return estimate(planned_calls(config, deployments(config), written), prices)

    print(f"this run will need {needed(config)} at most, by estimate", file=sys.stderr)
    if written and config.passes > 1:
        one = f"--passes 1 --test-passes {config.test_passes}"
        print(f"with {one} it would need {needed(replace(config, passes=1))}; {ONE_PASS}", file=sys.stderr)
    if written and not config.race and config.objective == "score":
        print(f"with --race it needs less: {RACING}", file=sys.stderr)
    limits = [f"${config.budget_usd:,.2f}"] if config.budget_usd else []
    limits += [f"{config.budget_tokens:,} tokens"] if config.budget_tokens else []
    if limits:
        print(f"it stops at {' or '.join(limits)}", file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("a paid run asks before it starts, and there is no terminal: give --yes")
    if input("start? [y/N] ").strip().casefold() not in ("y", "yes"):
        raise UserError("not started")
