"""Prints ratios, measured side by side in one run: absolute times prove nothing on another machine.

Environments against their raw engines and against a loop that does nothing; the sandbox against a
cold start of Python; a whole evaluation against the time that its model calls alone would need.

Try it: `make bench`, `python bench.py latency` for evaluations alone, and `python bench.py success` for
what random actions and the stand-in win
"""

import argparse
import asyncio
import contextlib
import importlib
import random
import subprocess
import sys
import time
from statistics import mean, median

SECONDS = 4.0  # for each environment, and for the sandbox


def environments() -> None:
    """Steps a second through our text interface against the raw engine, in this process."""
    print("environments: steps a second, ours and the raw engine, and their ratio")
    for name, module in (
        ("babaisai", "domains.babaisai"),
        ("minihack", "domains.minihack"),
        ("textworld", "domains.textworld"),
        ("alfworld", "domains.alfworld"),
    ):
        _show(name, importlib.import_module(module).bench_steps(SECONDS))


def sandbox() -> None:
    """What a worker and an empty retrieval cost beside a cold start of Python."""
    print("sandbox: milliseconds")
    _show("sandbox", sandbox_milliseconds(SECONDS))


def sandbox_milliseconds(seconds: float) -> dict[str, float]:
    """Medians in milliseconds, in about `seconds`: a worker, an empty retrieval, a cold start of Python.

    The last is what each worker would cost without the template: `python -I` with the same imports.
    """
    return asyncio.run(_sandbox_milliseconds(seconds))


async def _sandbox_milliseconds(seconds: float) -> dict[str, float]:
    from sandbox import Sandbox

    source = "class Empty:\n async def general_update(self, t): pass\n async def general_retrieve(self, t): return {}"
    command = [sys.executable, "-I", "-c", "import numpy, networkx"]
    times: dict[str, list[float]] = {"worker": [], "retrieve": [], "cold_start": []}

    @contextlib.contextmanager
    def timed(name: str):
        started = time.perf_counter()
        yield
        times[name].append(1000 * (time.perf_counter() - started))

    async with Sandbox() as box:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with timed("cold_start"):
                await asyncio.to_thread(subprocess.run, command, check=True)
            for _ in range(10):
                async with contextlib.AsyncExitStack() as stack:
                    with timed("worker"):
                        worker = await stack.enter_async_context(box.worker(source, None))
                    for _ in range(20):
                        with timed("retrieve"):
                            await worker.retrieve({})
    return {name: median(values) for name, values in times.items()}


def success() -> None:
    """Share of learning tasks won (TextWorld: points) by random actions and by the stand-in agent."""
    import envs
    from agent import Episode, play

    print("success without memory, one episode for each learning task: random actions, offline agent")
    for name in envs.DOMAINS:
        domain = envs.domain_class(name)
        tasks = [task for task in domain.tasks() if task.split == "learning"]
        env = domain()
        random_scores = [_play_randomly(env, task) for task in tasks]
        offline = [play(Episode(name, task.id, task.seed, "offline", show_admissible=True)) for task in tasks]
        offline_scores = [played.trajectory.reward for played in offline]
        _show(name, {"random": mean(random_scores), "offline": mean(offline_scores), "n": len(tasks)})


def latency() -> None:
    """Whole evaluations against the time that their model calls alone would need."""
    from bench import latency as bench_latency

    print("evaluations against an endpoint of fixed latency")
    bench_latency.table()
    print("how the cost grows")
    bench_latency.growth()


def _play_randomly(env, task) -> float:
    rng = random.Random(task.seed)
    _, info = env.reset(seed=task.seed, options={"task": task.id})
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(rng.choice(info["actions"]))
        done = terminated or truncated
    return info["score"]


def _show(name: str, numbers: dict) -> None:
    parts = [f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items()]
    print(f"  {name:10} {'  '.join(parts)}", flush=True)


PARTS = {"success": success, "latency": latency}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print ratios; without a part, all but success.")
    parser.add_argument("part", nargs="?", choices=PARTS)
    part = parser.parse_args().part
    if part:
        PARTS[part]()
    else:
        environments()
        sandbox()
        latency()
