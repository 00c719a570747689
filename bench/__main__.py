"""Prints ratios, measured side by side in one run: absolute times prove nothing on another machine.

Domains against their bare engines and against a loop that does nothing; the sandbox against a cold
start of Python; episodes of the stand-in agent; whole evaluations against the time that their model calls alone
would need.

`make bench` prints all of it; `python -m bench latency` evaluations alone, `python -m bench standins` the episodes.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from statistics import median

from bench import latency, standin_episodes
from bench.engines import ENGINES
from sandbox import Sandbox

SECONDS = 4.0  # for each engine, and for the sandbox


def engines() -> None:
    """Steps a second of each domain beside its bare engine, in this process."""
    print("engines: steps a second, ours and the bare engine's, and their ratio")
    for name, measure in ENGINES.items():
        _print_row(name, measure(SECONDS))


async def sandbox() -> None:
    """Median milliseconds of starting a worker, of an empty retrieval, and of a cold start of Python.

    The cold start is what each worker would cost without the template: `python -I` with the same imports.
    """
    print("sandbox: milliseconds")
    source = "class Empty:\n async def general_update(self, t): pass\n async def general_retrieve(self, t): return {}"
    command = [sys.executable, "-I", "-c", "import numpy, networkx"]
    times: dict[str, list[float]] = {"worker": [], "retrieve": [], "cold_start": []}

    @contextlib.contextmanager
    def timed(name: str):
        started = time.perf_counter()
        yield
        times[name].append(1000 * (time.perf_counter() - started))

    async with Sandbox() as box:
        end = time.monotonic() + SECONDS
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
    _print_row("sandbox", {name: median(values) for name, values in times.items()})


def standins() -> None:
    """CPU of the host for an episode of the stand-in agent, all of it and the agent's own, and for one action."""
    print("stand-in agent: milliseconds of CPU, without memory and with an earlier episode retrieved")
    for name in ENGINES:
        _print_row(name, standin_episodes.measure(name, SECONDS))


def evaluations() -> None:
    """Whole evaluations against the time that their model calls alone would need."""
    print("evaluations against an endpoint of fixed latency")
    latency.table()


def _print_row(name: str, numbers: dict[str, float | int]) -> None:
    parts = [f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items()]
    print(f"  {name:10} {'  '.join(parts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench", description="Print ratios; without a part, all of them.")
    parser.add_argument("part", nargs="?", choices=("latency", "standins"))
    part = parser.parse_args().part
    if not part:
        engines()
        asyncio.run(sandbox())
    if part != "latency":
        standins()
    if part != "standins":
        evaluations()
