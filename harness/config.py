"""The settings of a run: each stands here once, with its default, its help and its flag."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from alma import SAMPLING_RULES
from domains import DOMAINS
from errors import UserError
from models import MANUAL, MOST_OUTPUT, OFFLINE, RECORDED

PAPER_MODELS = {  # role: the paper's choice, the default where there is a key or a base URL
    "meta_model": "gpt-5:medium", "agent_model": "gpt-5-nano:low", "memory_model": "gpt-4o-mini",
    "embedding_model": "text-embedding-3-small"}  # fmt: skip
PAPER = {"steps": 11, "passes": 3, "collection_passes": 1, "folds": 1}  # 43 designs
# Stand-ins win few episodes, but an episode takes milliseconds: more of them tell designs apart. 23 designs.
STAND_INS = {"steps": 7, "collection_passes": 6, "folds": 2}
# Settings that shape no search: what it costs, where it runs, and who answers as the meta agent.
SHAPELESS = ("meta_model", "recording", "in_flight", "workers", "scheduler", "outage_seconds", "call_seconds",
             "budget_usd", "budget_tokens", "price", "unsafe_sandbox")  # fmt: skip


def setting(default, help: str, **options):
    """A field of Config with what its command-line flag needs."""
    return field(default=default, metadata={"help": help, **options})


@dataclass(frozen=True)
class Config:
    """Every setting of a run; written to config.json, read back on resume."""

    env: str = setting("minihack", f"domain: {', '.join(DOMAINS)}, or module:Class of your own")
    seed: int = setting(42, "decides task halves, layouts, sampling of parents and the stand-ins")
    steps: int = setting(0, f"learning steps; 0: {PAPER['steps']}, or {STAND_INS['steps']} offline")
    sampling: str = setting("archive", "how parents are drawn", choices=tuple(SAMPLING_RULES))
    objective: str = setting("score", "what the search climbs: the score, as in the paper, or what experience gives: "
        "the score after all collected episodes less that after a single one", choices=("score", "experience"))
    experience: str = setting("learned", "whose scores after no episode and after a single one are shown: of learned "
        "designs, of all, of none; alone: of all", choices=("learned", "all", "none"), nargs="?", const="all")
    finalists: int = setting(
        5, "best designs that are measured again on fresh seeds before one is chosen; 0: none, as in the paper")
    final_passes: int = setting(
        0, f"passes over fresh seeds for each finalist; 0: as --passes, at least {PAPER['passes']}")
    race: bool = setting(
        False, "stop deploying a candidate that cannot come among the ten best, or is worse than its parent")
    folds: int = setting(0, "1: collect on one half of a task set, deploy on the other, as in the paper; 2: also the "
        f"other way round; 0: {PAPER['folds']} (offline agent: {STAND_INS['folds']})", choices=(0, 1, 2))
    passes: int = setting(
        0, f"passes over the deployment half; 0: {PAPER['passes']} (offline agent: depends on the domain)")
    test_passes: int = setting(0, "passes over the test and shift sets; 0: as --passes, or its default")
    collection_passes: int = setting(0, "episodes of each collection task; 0: "
        f"{PAPER['collection_passes']} (offline agent: {STAND_INS['collection_passes']})")
    tasks: int = setting(0, "use only the first TASKS tasks of the learning set; 0: all")
    test_tasks: int = setting(0, "use only the first TEST_TASKS tasks of the test and shift sets; 0: all")
    agent_model: str = setting("", f"plays the games; name[:effort][@provider or @url] or {OFFLINE}")
    meta_model: str = setting("", f"writes memory designs; {MANUAL}: by files, see docs/assistant.md; {RECORDED}: an "
        "earlier search, see docs/recorded.md, the default without a key where the domain has a recording")
    recording: str = setting("", f"folder that --meta-model {RECORDED} replays; default: designs/ENV, or its seed-SEED")
    memory_model: str = setting("", "answers calls inside memory designs")
    embedding_model: str = setting("", "embeds texts inside memory designs")
    agent_style: str = setting("act", "how the agent answers: act (an action alone), react (thoughts first)")
    agent_tokens: int = setting(
        MOST_OUTPUT["agent"], "longest answer of the agent, with reasoning; set less for a small local model")
    constrain_actions: bool = setting(
        False, "ask for one of the listed actions by JSON schema, where the agent's endpoint can")
    in_flight: int = setting(10, "model calls at a time for each endpoint")
    workers: int = setting(
        0, "processes that play; 0: as many as cores (offline), as --in-flight (local agent), else the sum")
    scheduler: str = setting("", "tcp://host:8786 of a Dask cluster that plays instead of --workers")
    outage_seconds: float = setting(1800.0, "how long an endpoint may be down before the run stops")
    call_seconds: float = setting(300.0, "how long one model call may take; the meta agent's four times that")
    budget_usd: float = setting(0.0, "stop before more dollars than this are spent; 0: no limit")
    budget_tokens: int = setting(0, "stop before more tokens than this are used; 0: no limit")
    price: tuple[str, ...] = setting((), "model=input,cached,output in dollars a million tokens; repeatable",
        action="append", metavar="MODEL=IN,CACHED,OUT")
    prompt_tokens: int = setting(8_000, "limit for the evidence (tables, episodes) that the meta agent is shown")
    allow_solvers: bool = setting(
        False, "let designs solve new tasks: leave out the rule against it, as the paper does")
    show_admissible: bool = setting(False, "show the agent TextWorld's admissible commands (offline: always)")
    fresh_collection: bool = setting(False, "repeat the collection phase for each design, as the authors do")
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


NAMES = tuple(one.name for one in fields(Config))  # of all settings


def arguments() -> Iterator[tuple[tuple[str], dict]]:
    """The flags of all settings, as the arguments of `add_argument`."""

    def number(kind: type):
        def parse(text: str):
            value = kind(text)
            if not 0 <= value < 1e12:
                raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1e12")
            return value

        parse.__name__ = kind.__name__  # in what argparse says of a text that is no number
        return parse

    for one in fields(Config):
        options = {"default": None, **one.metadata}
        if one.type is bool:
            options["action"] = "store_true"
        elif "choices" in options:
            options["type"] = one.type
        elif "action" not in options:
            options |= {"type": str if one.type is str else number(one.type), "metavar": one.name.upper()}
        if one.default:
            options["help"] += f" (default {one.default})"
        yield (f"--{one.name.replace('_', '-')}",), options


def flag(name: str, value: object) -> list[str]:
    """A flag with its value, as arguments; a value that looks like a flag is attached."""
    name, value = name.replace("_", "-"), str(value)
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def command_line(*arguments: str) -> str:
    """The command line with these arguments, to be pasted into a shell."""
    script, here = Path(sys.argv[0]), Path("alma.py")
    if script.name != here.name or (here.exists() and script.exists() and here.samefile(script)):
        script = here
    return shlex.join(["python", str(script), *arguments])


def given(arguments: argparse.Namespace) -> dict:
    """The settings that the flags give, by name."""
    return {name: value for name in NAMES if (value := getattr(arguments, name)) is not None}


def from_flags(arguments: argparse.Namespace, defaults: Mapping | None = None) -> Config:
    """The settings that the flags give, else `defaults`; what depends on others stays 0 (see `commands.complete`)."""
    chosen = {**(defaults or {}), **given(arguments)}
    config = Config(**{**chosen, "price": tuple(chosen.get("price", ()))})
    for name in ("in_flight", "agent_tokens", "call_seconds", "temperature"):
        if (value := getattr(config, name)) <= 0:
            least = "at least 1" if isinstance(value, int) else f"above 0, not {value}"
            raise UserError(f"--{name.replace('_', '-')} must be {least}")
    if large := [name for name in NAMES if name.endswith("passes") and getattr(config, name) > 10_000]:
        raise UserError(f"--{large[0].replace('_', '-')} must be at most 10,000")
    return config


def from_json(value: dict) -> Config:
    """The settings of an earlier run; a setting that it does not have takes its default. Raises UserError."""
    # A run that does not know finalists keeps the learned design that its search has chosen, and plays no more for it.
    before = {} if "finalists" in value else {"finalists": 0, "experience": "none"}
    known = {"price": (), **before, **{name: value[name] for name in NAMES if name in value}}
    if "env" not in known or not isinstance(known["price"], list | tuple):
        raise UserError("config.json is damaged: it is not the settings of a run")
    return Config(**{**known, "price": tuple(known["price"])})


def default_workers(in_flight: int, local: bool = False) -> int:
    """One process for each call in flight, and one for each core to step the engines meanwhile."""
    # The server of a local agent caches the prompts of `in_flight` episodes and no more.
    return in_flight if local else in_flight + (os.cpu_count() or 1)
