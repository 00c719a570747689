"""One episode as a pure function.

Promises: the result of `play` depends on nothing but the `Episode` (and on the model's answers), so
it can run in any process on any machine; `pool.py` has those. It does not promise that a real model
answers the same twice.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from dataclasses import dataclass

import envs
import standins
from errors import InfrastructureError
from memory_base import Trajectory

OFFLINE = "offline"


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

    def key(self) -> str:
        """Hash under which the result is stored."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Played:
    """What came of an episode."""

    trajectory: Trajectory  # what a memory design may see
    success: bool  # the engine says that the task is won
    invalid: int  # actions that were not valid
    shortened: int  # turns left out because the model's context was full

    def to_json(self) -> dict:
        return {**vars(self), "trajectory": vars(self.trajectory)}

    @staticmethod
    def from_json(value: dict) -> "Played":
        return Played(Trajectory(**value["trajectory"]), value["success"], value["invalid"], value["shortened"])


def play(episode: Episode, gateway: str | None = None, design: str = "") -> Played:
    """Play one episode in this process.

    `gateway` is where to ask for the agent's answers unless it is offline; `design` is whom the
    calls are booked to, and shapes nothing.
    """
    env = environment(episode.domain)
    text, info = env.reset(seed=episode.seed, options={"task": episode.task})
    trajectory = Trajectory(init=info["record"])
    dialogue = Dialogue(episode, env, info)
    ask = _asker(episode, gateway, design)
    done, invalid = False, 0
    while not done:
        dialogue.observe(text, info)
        action = dialogue.act(ask)
        text, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        invalid += not info["valid"]
        trajectory.steps.append(
            {"action_took": action, **info["record"], "scores": info["score"], "dones": done}
        )
    trajectory.reward = float(info["score"])
    return Played(trajectory, bool(info["success"]), invalid, dialogue.left_out)


class Dialogue:
    """The messages of one episode: the agent's prompt, then observations and actions by turns."""

    def __init__(self, episode: Episode, env: envs.Domain, info: dict):
        from models.prompting import domain_text, render

        self._render = render
        self._listed = getattr(env, "lists_actions", False) or episode.show_admissible
        static = info["record"].get("action_dict") or getattr(env, "action_descriptions", {})
        self._system = render(
            "agent", domain=domain_text(episode.domain), actions=static, memory=episode.memory, goal=info["goal"]
        )
        self._turns: list[tuple[dict, dict]] = []  # messages with an observation and with an action
        self.left_out = 0  # oldest turns that are no longer shown

    def observe(self, text: str, info: dict) -> None:
        self._text, self._now, self._actions = text, info["now"], info["actions"]

    def act(self, ask) -> str:
        """Ask for an action until the prompt fits the model's context."""
        from llm import ContextOverflow
        from models.answers import match_action

        while True:
            try:
                answer = ask(self.messages())
                break
            except ContextOverflow:
                if self.left_out >= len(self._turns):
                    raise InfrastructureError("the model's context is too short for one observation") from None
                self.left_out += max(1, (len(self._turns) - self.left_out) // 4)
        action = match_action(answer, self._actions) or " ".join(answer.split())[:200] or "(no answer)"
        observed = {"role": "user", "content": f"Observation:\n{self._text}"}
        self._turns.append((observed, {"role": "assistant", "content": action}))
        return action

    def messages(self) -> list[dict[str, str]]:
        """Chat messages; what only matters now (inventory, valid actions) is in the last one alone."""
        system = self._system
        if self.left_out:
            system += f"\n\nThe first {self.left_out} turns are left out: the dialogue was too long."
        turns = itertools.chain.from_iterable(self._turns[self.left_out :])
        actions = self._actions if self._listed else []
        turn = self._render("turn", text=self._text, now=self._now, actions=actions)
        return [{"role": "system", "content": system}, *turns, {"role": "user", "content": turn}]


@functools.cache
def environment(domain: str) -> envs.Domain:
    """This process's one environment of a domain: engines are costly to start."""
    return envs.domain_class(domain)()


def _asker(episode: Episode, gateway: str | None, design: str):
    if episode.agent_model == OFFLINE:
        return lambda messages: standins.chat("agent", messages, None, episode.seed)
    client = _client(gateway)
    return lambda messages: client.chat(
        "agent", messages, sample=episode.sample, design=design, stage="play", seed=episode.seed
    )


@functools.lru_cache(maxsize=1)  # a cluster's worker outlives a run and its gateway
def _client(gateway: str):
    from llm import GatewayClient

    return GatewayClient(gateway)


def prepare(domain: str, task: str) -> None:
    """Make what must exist before a task can start (a generated game); runs in a worker."""
    make = getattr(envs.domain_class(domain), "prepare", None)
    if make:
        make([task])
