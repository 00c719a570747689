"""One episode: the agent plays a task with what was retrieved in its prompt.

The result of `play` depends on the `Episode` and on the model's answers alone, so it can run in any process on any
machine, and it is stored under the episode's key. A real model may answer differently when it is asked again.
"""

import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import envs
import standins
from errors import ContextOverflow, InfrastructureError
from memory_base import Trajectory
from models import MOST_OUTPUT, OFFLINE
from models.answers import match_action
from models.gateway import GatewayClient
from prompts import render

ROOT = Path(__file__).resolve().parent
# What shapes an episode beside its settings; the files of a domain of one's own come on top.
SHAPING = ("agent.py", "envs.py", "models/answers.py", "domains/*.py", "domains/*.toml", "prompts/__init__.py",
           "prompts/agent*.md", "prompts/domains/*.toml", "prompts/turn.md")


@dataclass(frozen=True)
class Episode:
    """Everything that the outcome of an episode depends on."""

    domain: str  # as in `--env`
    task: str  # id of the task
    seed: int  # decides the layout; the stand-in agent breaks ties by it
    agent_model: str  # as in `--agent-model`
    memory: str = ""  # what was retrieved, as JSON; empty where there is nothing
    sample: str = ""  # tells passes apart: three passes are three samples of the model
    show_admissible: bool = False  # put TextWorld's admissible commands into the prompt
    style: str = "act"  # how the agent answers, a key of STYLES
    tokens: int = MOST_OUTPUT["agent"]  # most tokens of an answer, reasoning included
    constrain: bool = False  # ask for one of the listed actions by JSON schema, where the endpoint can

    def key(self) -> str:
        """Hash under which the result is stored; it changes with the code and the prompts that shape an episode."""
        values = [*asdict(self).values(), code_of_episodes(self.domain, self.agent_model == OFFLINE)]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@functools.cache
def code_of_episodes(domain: str, offline: bool) -> str:
    """Fingerprint of the prompts and of the code of a domain and of the agent that plays it."""
    cls, patterns = envs.domain_class(domain), (*SHAPING, *(["standins/*.py"] if offline else []))
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    paths.add(Path(sys.modules[cls.__module__].__file__).resolve())
    contents = [cls.description(), *(path.read_text(encoding="utf-8") for path in sorted(paths))]
    return hashlib.sha256("\x1f".join(contents).encode()).hexdigest()


@dataclass(frozen=True)
class Played:
    """What came of an episode."""

    trajectory: Trajectory  # what a memory design may see
    success: bool  # the engine says that the task is won
    invalid: int  # actions that were not valid
    shortened: int  # turns left out because the model's context was full
    invalid_answer: str = ""  # the first answer that was no valid action, cut


# How the agent answers. A style is a prompt, `prompts/<name>.md`, and a function that reads an answer: it returns
# the action (None where there is none) and what the dialogue keeps of the answer.
def act(answer: str, actions: list[str]) -> tuple[str | None, str]:
    """One action and nothing else, as in the paper; the dialogue keeps the action alone."""
    action = match_action(answer, actions)
    return action, action or ""


def react(answer: str, actions: list[str]) -> tuple[str | None, str]:
    """Thoughts first, then the action in a line of its own; the dialogue keeps both."""
    return match_action(answer, actions), answer.strip()[:2000]


STYLES: dict[str, tuple[str, Callable]] = {"act": ("agent", act), "react": ("agent_react", react)}


def play(episode: Episode, gateway: str | None = None, design: str = "") -> Played:
    """Play one episode in this process; `gateway` is where to ask for the agent's answers unless it is offline, and
    `design` is whom the calls are booked to. Raises InfrastructureError, BudgetError."""
    env, (_, read) = environment(episode.domain), STYLES[episode.style]
    text, info = env.reset(seed=episode.seed, options={"task": episode.task})
    trajectory, system = Trajectory(init=info["record"]), system_prompt(episode, env, info)
    shown = env.lists_actions or episode.show_admissible
    booked = {"sample": episode.sample, "design": design, "stage": "play", "seed": episode.seed}
    turns: list[tuple[dict, dict]] = []  # messages with an observation and with an answer
    left_out, invalid, invalid_answer, done = 0, 0, "", False
    while not done:
        # What matters now alone (inventory, valid actions) stands in the last message and is not kept.
        actions, now = info["actions"], turn(episode, env, text, info)
        schema = action_schema(actions) if episode.constrain and shown and actions else None
        while True:  # until the dialogue fits the model's context
            note = f"\n\nThe first {left_out} turns are left out: the dialogue was too long." if left_out else ""
            kept = itertools.chain.from_iterable(turns[left_out:])
            messages = [{"role": "system", "content": system + note}, *kept, {"role": "user", "content": now}]
            try:
                if episode.agent_model == OFFLINE:
                    answer = standins.chat("agent", messages, None, episode.seed)
                else:
                    answer = _client(gateway).chat("agent", messages, schema=schema, limit=episode.tokens, **booked)
                break
            except ContextOverflow:
                if left_out >= len(turns):
                    raise InfrastructureError("the model's context is too short for one observation") from None
                left_out += max(1, (len(turns) - left_out) // 4)
        action, said = read(answer, actions)
        action = action or " ".join(answer.split())[:200] or "(no answer)"
        seen = {"role": "user", "content": f"Observation:\n{text}"}
        turns.append((seen, {"role": "assistant", "content": said or action}))
        text, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        if not info["valid"]:
            invalid += 1
            invalid_answer = invalid_answer or answer[:300]
        trajectory.steps.append({"action_took": action, **info["record"], "scores": info["score"], "dones": done})
    trajectory.reward = float(info["score"])
    return Played(trajectory, bool(info["success"]), invalid, left_out, invalid_answer)


def system_prompt(episode: Episode, env: envs.Domain, info: dict) -> str:
    """What stands above all turns of an episode: the domain, the memory, the goal."""
    shown = {"domain": env.description(), "actions": env.action_descriptions, "goal": info["goal"]}
    return render(STYLES[episode.style][0], memory=episode.memory, **shown)


def turn(episode: Episode, env: envs.Domain, text: str, info: dict) -> str:
    """An observation as the agent is shown it, with what matters now alone."""
    # Actions that the system prompt describes are the same at each turn: they are not listed again.
    listed = (env.lists_actions and not env.action_descriptions) or episode.show_admissible
    return render("turn", text=text, now=info["now"], actions=info["actions"] if listed else [])


def opening(episode: Episode) -> tuple[str, str]:
    """The agent's system prompt and its first turn; runs in a worker."""
    env = environment(episode.domain)
    text, info = env.reset(seed=episode.seed, options={"task": episode.task})
    return system_prompt(episode, env, info), turn(episode, env, text, info)


def action_schema(actions: list[str]) -> dict:
    """JSON schema of an answer that is one of the actions; closed, so that OpenAI takes it as strict."""
    properties = {"action": {"type": "string", "enum": actions}}
    return {"type": "object", "properties": properties, "required": ["action"], "additionalProperties": False}


_client = functools.lru_cache(maxsize=1)(GatewayClient)  # a cluster's worker outlives a run and its gateway


@functools.cache
def environment(domain: str) -> envs.Domain:
    """This process's one environment of a domain: engines are costly to start."""
    return envs.domain_class(domain)()


def prepare(domain: str, task: str) -> None:
    """Make what must exist before a task can start (a generated game); runs in a worker."""
    envs.domain_class(domain).prepare([task])
