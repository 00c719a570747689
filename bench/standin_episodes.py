"""CPU of the host for whole episodes of the stand-in agent, without and with a retrieved memory.

Each task is played twice: without memory, and with what the first time did in the prompt, as a memory of whole
episodes would tell it. What the agent itself takes of that is measured apart: the rest is the engine and the prompt.
"""

import json
import time
from unittest import mock

import envs
import standins
from agent import Episode, play
from bench import timed


def measure(domain: str, seconds: float) -> dict[str, float]:
    """Milliseconds of CPU of an episode, of the agent in it and of one action of the agent; `memory_`: with a retrieved
    memory. Tasks of the learning set are played in their order, for about `seconds`."""
    engine, costs = envs.domain_class(domain), {"": [], "memory_": []}
    tasks = [task for task in engine.tasks() if task.split == "learning"]
    engine.prepare([tasks[0].id])
    _episode(domain, tasks[0], "")  # the first one loads packages and games
    started = time.process_time()
    for task in tasks:
        if costs[""] and time.process_time() - started > seconds:
            break
        engine.prepare([task.id])
        trajectory, *cost = _episode(domain, task, "")
        costs[""].append(cost)
        taken = [step["action_took"] for step in trajectory.steps]
        memory = {"goal": trajectory.init["goal"], "actions": taken, "reward": trajectory.reward}
        costs["memory_"].append(_episode(domain, task, json.dumps([memory], indent=1))[1:])
    numbers = {"episodes": len(costs[""])}
    for kind, rows in costs.items():
        whole, agent, steps = map(sum, zip(*rows, strict=True))
        numbers |= {f"{kind}episode_ms": whole / len(rows), f"{kind}agent_ms": agent / len(rows)}
        numbers[f"{kind}action_ms"] = agent / steps
    return numbers


def _episode(domain: str, task: envs.Task, memory: str):
    """What was played, milliseconds of CPU of all of it and of the agent's answers, and its steps."""
    chat, whole, spent = standins.chat, [], []

    def timed_chat(*arguments):
        with timed(spent, time.process_time):
            return chat(*arguments)

    with mock.patch.object(standins, "chat", timed_chat), timed(whole, time.process_time):
        trajectory = play(Episode(domain, task.id, task.seed, "offline", memory, "", True)).trajectory
    return trajectory, 1000 * whole[0], 1000 * sum(spent), len(trajectory.steps)
