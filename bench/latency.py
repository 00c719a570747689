"""A whole evaluation against the least time that its model calls allow, with an endpoint of fixed latency.

The floor is max(calls x latency / calls in flight, engine CPU seconds / cores). Measured is `Run.score` of designs side
by side; start-up is stated apart. Episodes are cut, so resets weigh more. The endpoint (`tests/endpoint.py`, started by
`python -m bench.latency DOMAIN SECONDS`) is a process of its own on the same cores.
"""

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from unittest import mock

import envs
from bench import timed
from evaluate import folds
from harness.config import Config, default_workers
from harness.progress import Display
from harness.run import Run
from harness.run_folder import ROOT, RunFolder
from tests.endpoint import ModelServer

MOVES = {"minihack": ("north", "east", "south", "west"), "babaisai": ("up", "down", "left", "right")}
DESIGN = '''
"""Design {number}: the first actions of the collected trajectory that shares most words."""
from memory_base import MemoryDesign

class Nearest(MemoryDesign):
    def __init__(self):
        self.kept = []

    async def general_update(self, trajectory):
        self.kept.append((set(str(trajectory.init).split()), [step["action_took"] for step in trajectory.steps]))

    async def general_retrieve(self, trajectory):
        words = set(str(trajectory.init).split())
        return {{"design": {number}, "actions": max(self.kept, key=lambda one: len(one[0] & words))[1]}}
'''


@dataclass(frozen=True)
class Setting:
    latency: float  # seconds of the endpoint
    in_flight: int
    steps: int = 6  # of an episode
    tasks: int = 26  # half of them are collected
    passes: int = 3
    designs: int = 5  # side by side, as in a learning step

    @property
    def episodes(self) -> int:
        return self.tasks // 2 * (1 + self.passes * (1 + self.designs))  # collected, without memory, of each design


# 95 and 286 episodes are eight and nine rounds of the workers, with the last round nearly full. 247 episodes
# (five designs) leave a quarter of it empty: a tail of 3 % that says nothing about the code.
SETTINGS = (Setting(0.5, 10, tasks=10), Setting(0.5, 30, designs=6), Setting(0.05, 10, tasks=10), Setting(0.05, 30))


def rows(name: str) -> Iterator[dict]:
    """The row of each setting, in one domain; games that are missing are made before the first."""
    domain = envs.domain_class(name)
    domain.prepare([task.id for task in domain.tasks() if task.split == "learning"])
    for setting in SETTINGS:
        with endpoint(name, setting.latency) as url:
            yield measure(name, setting, url)


def measure(domain: str, setting: Setting, url: str) -> dict:
    """The row of a setting: seconds, floor, their ratio, start-up, CPU of the host a call."""
    # The table is what one looks at, not the progress of each run.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Display, "_say"):
        measured = asyncio.run(_evaluate(domain, setting, url, Path(folder)))
    # CPU seconds of the engine: as many resets and steps, extrapolated from a sample of tasks.
    env, tasks = envs.domain_class(domain)(), envs.domain_class(domain).tasks()[:6]
    env.reset(seed=0, options={"task": tasks[0].id})  # loads what is shared by all resets
    resets, steps = [], []
    for task in tasks:
        with timed(resets, time.process_time):
            _, info = env.reset(seed=1, options={"task": task.id})
        with timed(steps, time.process_time):
            for number in range(4):
                _, _, ended, cut, info = env.step(info["actions"][number % len(info["actions"])])
                if ended or cut:
                    break
        steps[-1] /= number + 1
    env.close()
    engine = (setting.episodes * mean(resets) + measured["calls"] * mean(steps)) / (os.cpu_count() or 1)
    floor = max(measured["calls"] * setting.latency / setting.in_flight, engine)
    return {**asdict(setting), **measured, "engine": engine, "floor": floor, "ratio": measured["seconds"] / floor}


async def _evaluate(domain: str, setting: Setting, url: str, folder: Path) -> dict:
    roles = dict.fromkeys(("meta_model", "memory_model", "embedding_model"), "offline")
    config = Config(
        env=f"bench.short:{domain}_{setting.steps}", agent_model=f"agent@{url}", in_flight=setting.in_flight,
        workers=default_workers(setting.in_flight), tasks=setting.tasks, passes=setting.passes, collection_passes=1,
        show_admissible=True, steps=1, **roles,
    )  # fmt: skip
    started = time.perf_counter()
    async with Run(RunFolder.create(folder, domain, "agent", asdict(config)), plain=True) as run:
        folds(config, "learning")  # the host's own import of the domain
        await asyncio.gather(*(run.pool.run(os.getpid) for _ in range(config.workers)))
        start_up, seconds, cpu = time.perf_counter() - started, [], []
        designs = (DESIGN.format(number=number) for number in range(setting.designs))
        with timed(seconds), timed(cpu, time.process_time):
            scores = await asyncio.gather(*(run.score("learning", "", code) for code in designs))
        if failed := [score.errors for score in scores if score.errors]:
            raise RuntimeError(f"a design of the bench failed: {failed[0]}")
        calls = sum(row["calls"] for row in run.store.usage())
    return {"seconds": seconds[0], "start_up": start_up, "calls": calls, "host_ms": 1000 * cpu[0] / calls}


@contextlib.contextmanager
def endpoint(domain: str, latency: float) -> Iterator[str]:
    """The address of the test endpoint, in a process of its own."""
    command = [sys.executable, "-m", "bench.latency", domain, str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


if __name__ == "__main__":  # the endpoint
    domain, latency = sys.argv[1:]

    def answer(_role: str, body: dict) -> str:
        """A valid action, chosen by a hash of the prompt: a model that costs no CPU."""
        said = body["messages"][-1]["content"]
        listed = [line[2:] for line in said.splitlines() if line.startswith("- ")]
        choices = MOVES.get(domain) or listed or ("look",)
        return choices[hashlib.sha256(said.encode()).digest()[0] % len(choices)]

    server = ModelServer(answer, latency=float(latency))
    asyncio.run(server.serve(lambda: print(f"listening at {server.url}", flush=True)))
