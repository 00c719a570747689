"""Prints ratios, measured side by side in one run: absolute times prove nothing on another machine.

Domains against their bare engines; the sandbox against a cold start of Python; episodes of the stand-in agent; whole
evaluations against the time that their model calls alone would need. `python -m bench standins [DOMAIN ...]` and
`python -m bench latency [DOMAIN ...]` print one part.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable
from statistics import median

from bench import latency, standin_episodes, timed
from bench.engines import ENGINES
from sandbox import Sandbox

SECONDS = 4.0  # for each engine, and for the sandbox


async def sandbox() -> dict[str, float]:
    """Median milliseconds of a worker's start, an empty retrieval, and a cold start, the worker's cost without template."""
    source = "class Empty:\n async def general_update(self, t): pass\n async def general_retrieve(self, t): return {}"
    command = [sys.executable, "-I", "-c", "import numpy, networkx"]
    times: dict[str, list[float]] = {"worker": [], "retrieve": [], "cold_start": []}
    async with Sandbox() as box:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with timed(times["cold_start"]):
                await asyncio.to_thread(subprocess.run, command, check=True)
            for _ in range(10):
                async with contextlib.AsyncExitStack() as stack:
                    with timed(times["worker"]):
                        worker = await stack.enter_async_context(box.worker(source, None))
                    for _ in range(20):
                        with timed(times["retrieve"]):
                            await worker.retrieve({})
    return {name: 1000 * median(values) for name, values in times.items()}


def print_rows(title: str, rows: Iterable[tuple[str, dict[str, float]]]) -> None:
    print(title)
    for name, numbers in rows:
        parts = (f"{key} {one:,.3g}" if isinstance(one, float) else f"{key} {one}" for key, one in numbers.items())
        print(f"  {name:10} {'  '.join(parts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench", description="Print ratios; without a part, all of them.")
    parser.add_argument("part", nargs="?", choices=("latency", "standins"))
    parser.add_argument("domains", nargs="*", default=list(ENGINES), help="default: all of them")
    given = parser.parse_args()
    if not given.part:
        engines = ((name, measure(SECONDS)) for name, measure in ENGINES.items())
        print_rows("engines: steps a second, ours and the bare engine's, and their ratio", engines)
        print_rows("sandbox: milliseconds", [("sandbox", asyncio.run(sandbox()))])
    if given.part != "latency":
        title = "stand-in agent: milliseconds of CPU, without memory and with an earlier episode retrieved"
        print_rows(title, ((name, standin_episodes.measure(name, SECONDS)) for name in given.domains))
    if given.part != "standins":
        title = "evaluations: seconds against the floor of their model calls; host_ms: the host's CPU for a call"
        print_rows(title, ((name, row) for name in given.domains for row in latency.rows(name)))
