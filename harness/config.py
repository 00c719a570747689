"""The settings of a run: each one stands here once, with its default, its help and its flag."""

import argparse
import os
from dataclasses import MISSING, dataclass, field, fields, replace

from errors import UserError
from llm import OFFLINE, Keys

ENVIRONMENTS = ("alfworld", "textworld", "babaisai", "minihack")
PAPER_MODELS = {  # role: the paper's choice, the default where there is a key or a base URL
    "meta_model": "gpt-5:medium",
    "agent_model": "gpt-5-nano:low",
    "memory_model": "gpt-4o-mini",
    "embedding_model": "text-embedding-3-small",
}
PAPER_STEPS = 11  # learning steps, 43 designs; the first step writes one design from scratch
OFFLINE_STEPS = 7  # 23 designs
PAPER_PASSES = 3
OFFLINE_PASSES = {"babaisai": 5}  # few of its tasks tell designs apart, and its episodes are the shortest
OFFLINE_OTHER_PASSES = 2  # over twice the tasks
OFFLINE_TEST_PASSES = {"alfworld": 3}  # its episodes are long, and it has a shift set of 48 houses
OFFLINE_OTHER_TEST_PASSES = 6  # few designs are tested, and chance must not hide what they gain
OFFLINE_FOLDS = 2  # its episodes cost milliseconds, and more tasks tell designs apart
OFFLINE_COLLECTION_PASSES = 6  # its episodes cost milliseconds, and it wins few of them


def setting(default, help: str, **options):
    """A field of Config with what its command-line flag needs."""
    return field(default=default, metadata={"help": help, **options})


def _by_env(passes: dict[str, int], other: int) -> str:
    """Passes that depend on the environment, in words."""
    return ", ".join([str(other), *(f"{number} for {env}" for env, number in passes.items())])


@dataclass(frozen=True)
class Config:
    """Every setting of a run; written to config.json, read back on resume."""

    env: str = setting("minihack", f"domain: {', '.join(ENVIRONMENTS)}, or module:Class of one's own")
    seed: int = setting(42, "decides task halves, layouts, sampling of parents and the stand-ins")
    steps: int = setting(0, f"learning steps; 0: {PAPER_STEPS} as in the paper, {OFFLINE_STEPS} offline")
    sampling: str = setting("archive", "how parents are drawn", choices=("archive", "greedy", "random"))
    folds: int = setting(
        0,
        "1: one half of a task set is collected from, the other deployed on, as in the paper; 2: and the reverse; "
        f"0: 1, with an offline agent {OFFLINE_FOLDS}",
        choices=(0, 1, 2),
    )
    passes: int = setting(
        0,
        f"passes over the deployment half; 0: {PAPER_PASSES} as in the paper; with an offline agent "
        + _by_env(OFFLINE_PASSES, OFFLINE_OTHER_PASSES),
    )
    test_passes: int = setting(
        0,
        "the same over the test set and the shift set; 0: as --passes; where that is not given either, with an offline agent "
        + _by_env(OFFLINE_TEST_PASSES, OFFLINE_OTHER_TEST_PASSES),
    )
    collection_passes: int = setting(
        0, f"episodes of each collection task; 0: 1 as in the paper, {OFFLINE_COLLECTION_PASSES} with an offline agent"
    )
    tasks: int = setting(0, "use only so many tasks of the learning set; 0: all")
    test_tasks: int = setting(0, "use only so many tasks of the test set and the shift set; 0: all")
    agent_model: str = setting("", f"plays; name[:effort][@provider or @url] or {OFFLINE}")
    meta_model: str = setting("", "writes memory designs")
    memory_model: str = setting("", "answers calls inside memory designs")
    embedding_model: str = setting("", "embeds texts inside memory designs")
    in_flight: int = setting(10, "model calls at a time for each endpoint")
    workers: int = setting(0, "processes that play episodes; 0: cores offline, else calls in flight and cores")
    scheduler: str = setting("", "tcp://host:8786 of a Dask cluster that plays episodes in place of --workers")
    outage_seconds: float = setting(1800.0, "how long an endpoint may be down before the run stops")
    call_seconds: float = setting(300.0, "how long one model call may take; the meta agent's four times that")
    budget_usd: float = setting(0.0, "stop before more dollars than this are spent; 0: no limit")
    budget_tokens: int = setting(0, "stop before more tokens than this are used; 0: no limit")
    price: tuple[str, ...] = setting((), "model=input,cached,output in dollars a million tokens; repeatable")
    prompt_tokens: int = setting(12_000, "limit for the trajectories that the meta agent is shown")
    show_admissible: bool = setting(False, "show TextWorld's admissible commands to the agent (offline: always)")
    fresh_collection: bool = setting(False, "play the collection phase again for each design, as the authors do")
    keep_models: bool = setting(False, "let designs choose models by name, at the endpoint of --memory-model")
    unsafe_sandbox: bool = setting(False, "run designs although a layer of the sandbox is missing")
    sampling_scale: float = setting(1.0, "λ of the sampling rule")
    visit_penalty: float = setting(0.5, "α of the sampling rule")
    temperature: float = setting(0.5, "T of the sampling rule")

    def models(self) -> dict[str, str]:
        """What plays each role."""
        return {role.removesuffix("_model"): getattr(self, role) for role in PAPER_MODELS}

    def passes_over(self, split: str) -> int:
        """Passes over the deployment half of a task set, or over the shift set."""
        return self.passes if split == "learning" else self.test_passes

    def offline(self) -> list[str]:
        """The roles that a stand-in plays."""
        return [role for role in PAPER_MODELS if getattr(self, role) == OFFLINE]


def add_flags(parser: argparse.ArgumentParser, names=None) -> None:
    """The flags of all settings, or of those in `names`."""
    for one in fields(Config):
        if names is not None and one.name not in names:
            continue
        options = {"help": one.metadata["help"], "default": None}
        if one.type is bool:
            options["action"] = "store_true"
        elif "choices" in one.metadata:
            options |= {"choices": one.metadata["choices"], "type": one.type}
        elif one.name == "price":
            options |= {"action": "append", "metavar": "MODEL=IN,CACHED,OUT"}
        else:
            options |= {"type": _number(one.type) if one.type is not str else str, "metavar": one.name.upper()}
        if one.default not in (MISSING, "", (), False, 0, 0.0):
            options["help"] += f" (default {one.default})"
        parser.add_argument(f"--{one.name.replace('_', '-')}", **options)


def _number(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 <= value < 1e12:
            raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1e12")
        return value

    parse.__name__ = kind.__name__
    return parse


def from_flags(arguments: argparse.Namespace) -> Config:
    """The settings that the flags give, checked, with the defaults that depend on others."""
    given = {
        one.name: getattr(arguments, one.name)
        for one in fields(Config)
        if getattr(arguments, one.name, None) is not None
    }
    if "price" in given:
        given["price"] = tuple(given["price"])
    return _complete(Config(**given))


def from_json(value: dict) -> Config:
    """The settings of an earlier run; UserError where they are damaged."""
    known = {one.name: value[one.name] for one in fields(Config) if one.name in value}
    missing = [one.name for one in fields(Config) if one.name not in value]
    if missing:
        raise UserError(f"config.json is damaged or of another version: {missing[0]} is missing")
    known["price"] = tuple(known["price"])
    return Config(**known)


def default_workers(in_flight: int) -> int:
    """One process for each call that is waited for, and for each core one that steps its engine meanwhile."""
    return in_flight + (os.cpu_count() or 1)


def _complete(config: Config) -> Config:
    if config.in_flight < 1:
        raise UserError("--in-flight must be at least 1")
    if config.call_seconds <= 0:
        raise UserError(f"--call-seconds must be above 0, not {config.call_seconds}")
    if config.temperature <= 0:
        raise UserError(f"--temperature must be above 0, not {config.temperature}")
    if config.env not in ENVIRONMENTS and ":" not in config.env:
        raise UserError(
            f"unknown environment {config.env!r}: choose from {', '.join(ENVIRONMENTS)}, or module:Class of your own"
        )
    reachable = bool(Keys.read())
    models = {
        role: getattr(config, role) or (paper if reachable else OFFLINE) for role, paper in PAPER_MODELS.items()
    }
    offline_agent = models["agent_model"] == OFFLINE
    return replace(
        config,
        **models,
        steps=config.steps or (OFFLINE_STEPS if models["meta_model"] == OFFLINE else PAPER_STEPS),
        folds=config.folds or (OFFLINE_FOLDS if offline_agent else 1),
        passes=config.passes or (OFFLINE_PASSES.get(config.env, OFFLINE_OTHER_PASSES) if offline_agent else PAPER_PASSES),
        test_passes=config.test_passes
        or config.passes
        or (OFFLINE_TEST_PASSES.get(config.env, OFFLINE_OTHER_TEST_PASSES) if offline_agent else PAPER_PASSES),
        collection_passes=config.collection_passes or (OFFLINE_COLLECTION_PASSES if offline_agent else 1),
        workers=config.workers or default_workers(0 if offline_agent else config.in_flight),
        show_admissible=config.show_admissible or offline_agent,
    )
