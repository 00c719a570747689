"""Looks at what a run needs before it starts: this machine and the models' endpoints.

Each line comes from a real attempt: a sandbox worker, a worker process, a file, a model call. A run can start
if no line says "missing". A paid model is called once, for a fraction of a cent. No key is shown.
"""

import asyncio
import contextlib
import os
import platform
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import envs
from errors import BudgetError, ContextOverflow, DesignError, InfrastructureError, UserError, machine_fault
from harness.config import Config
from harness.pool import open_pool
from harness.run_folder import ROOT, versions
from llm import Keys, Models, ModelSpec, Patience
from models import ROLES
from models.endpoint import PROBE
from models.prices import parse_price
from models.store import Store
from sandbox import Sandbox

FAULTS = (UserError, InfrastructureError, BudgetError, DesignError, ContextOverflow, OSError, RuntimeError)
LAYERS = {  # of the sandbox: what a design could do without it
    "namespaces": "see which processes run; its files are kept on this machine's disk, and are fewer",
    "no-new-privs": "gain rights by starting a program",
    "no-capabilities": "use the rights of root",
    "limits": "use up memory, CPU time and descriptors",
    "landlock": "read your files, if namespaces are missing too",
    "seccomp": "open sockets and start processes",
}
FREE_BYTES = 1 << 30  # of disk and of memory; with less there is a warning
DESCRIPTORS, DESCRIPTORS_A_WORKER = 50, 10  # that a run needs, in all and for each process that plays
OUTAGE_SECONDS, ANSWER_SECONDS = 5.0, 60.0  # that an endpoint has


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    check: str
    status: str  # "ok", "warning" or "missing": then no run can start
    found: str
    do: str = ""  # what to do where it is not ok


def examine(config: Config, domains: list[str]) -> list[Line]:
    """All lines, for runs with these settings on these domains."""
    places = {"runs": lambda: "runs", "games": envs.cache_dir, "temporary files": tempfile.gettempdir}
    writable = "set --runs, ALMA_CACHE or TMPDIR to a folder that can be written"
    other = "solve this, or choose another"
    return [
        _line("python", "make install, then .venv/bin/python alma.py ...", _python),
        _line("compiler", "make install", _compiler),
        *asyncio.run(_sandbox(config)),
        _line("worker processes", "solve this first: they play all episodes", _worker, config),
        _line("memory", "use fewer --workers", _memory),
        *(_line(f"disk: {what}", writable, _disk, place) for what, place in places.items()),
        _line("descriptors", "raise ulimit -n", _descriptors, config),
        *(_line(f"data: {name}", f"{other} --env", _data, name) for name in domains),
        *(_line(f"{role} model", f"{other} --{role}-model", _model, config, role) for role in ROLES),
    ]


def _line(check: str, otherwise: str, look: Callable, *arguments) -> Line:
    """The line for what `look` found: a text, and what to do if it is no more than a warning.

    Where `look` fails, something is missing, and `otherwise` says what to do.
    """
    try:
        found = look(*arguments)
        found, do = asyncio.run(found) if asyncio.iscoroutine(found) else found
    except FAULTS as error:
        return Line(check, "missing", _why(error), otherwise)
    return Line(check, "warning" if do else "ok", found, do)


def _why(error: BaseException) -> str:
    return " ".join((machine_fault(error) or str(error)).split())


def _python() -> tuple[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.strip().split("==") for line in lines if "==" in line)
    installed = versions(pinned)
    absent = [name for name in pinned if name not in installed]
    other = [f"{name} {one}, not {pinned[name]}" for name, one in installed.items() if one != pinned[name]]
    found = f"{platform.python_version()}, {len(installed)} of {len(pinned)} packages"
    if absent:
        raise UserError(f"{found}; without {', '.join(absent)}")
    return "; ".join([found, *other]), "make install, for the versions that were tested" if other else ""


def _compiler() -> tuple[str, str]:
    absent = [tool for tool in ("c++", "make") if not shutil.which(tool)]
    if absent:
        return f"no {' and no '.join(absent)}: `make install` needs them", "apt-get install build-essential"
    return f"{shutil.which('c++')}, {shutil.which('make')}", ""


async def _sandbox(config: Config) -> list[Line]:
    """Start a worker of the sandbox, and one that can be forked."""
    try:
        async with Sandbox(unsafe=True) as box:
            source = (ROOT / "baselines" / "no_memory.py").read_text(encoding="utf-8")
            async with box.worker(source, None, forks=True) as worker:
                forks = worker.can_fork
    except FAULTS as error:
        return [Line("sandbox", "missing", _why(error), "solve this first: no memory design runs without it")]
    lines = [Line("sandbox", "ok", ", ".join(box.layers))]
    if box.unsafe:
        do = "use Linux 5.13 or newer on x86-64 and a container that allows it, or give --unsafe-sandbox"
        status = "warning" if config.unsafe_sandbox else "missing"
        lines = [Line("sandbox", status, f"not safe; it holds {', '.join(box.layers) or 'nothing'}", do)]
    held = {name.split()[0] for name in box.layers}
    do = "see README, safety: a newer kernel, or a container with fewer restrictions"
    for name in (name for name in LAYERS if name not in held):
        lines.append(Line(f"sandbox: {name}", "warning", f"missing: a design could {LAYERS[name]}", do))
    if not forks:
        found = "a memory is built again for each task, not forked: static mode takes longer"
        lines.append(Line("sandbox: forks", "warning", found, "Linux 5.9 or newer, with seccomp"))
    return lines


async def _worker(config: Config) -> tuple[str, str]:
    """Start a process that plays, here or on the cluster."""
    with contextlib.closing(open_pool("babaisai", 1, config.scheduler, lambda _: None)) as pool:
        await pool.run(os.getpid)
    return config.scheduler or f"{config.workers} on {os.cpu_count()} cores", ""


def _memory() -> tuple[str, str]:
    try:
        free = int(re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
    except (OSError, TypeError):
        return "unknown", ""
    with contextlib.suppress(OSError, ValueError):  # a container has a limit of its own, or "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return f"{free / 1e9:.1f} GB free", "" if free >= FREE_BYTES else "use fewer --workers"


def _disk(place: Callable) -> tuple[str, str]:
    folder = Path(place()).absolute()
    while not folder.exists():
        folder = folder.parent
    tempfile.TemporaryFile(dir=folder).close()
    free = shutil.disk_usage(folder).free
    do = "" if free >= FREE_BYTES else "free some space there, or choose another folder"
    return f"{free / 1e9:.1f} GB free in {folder}", do


def _descriptors(config: Config) -> tuple[str, str]:
    workers, (most, _) = config.workers, resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS + DESCRIPTORS_A_WORKER * workers
    if 0 <= most < needed:
        return f"{most}; {workers} workers need about {needed}", f"ulimit -n {needed}, or fewer --workers"
    return "no limit" if most < 0 else str(most), ""


def _data(name: str) -> tuple[str, str]:
    """The tasks that a domain has here, and its notes on what it lacks."""
    domain = envs.domain_class(name)
    tasks, notes = domain.tasks(), domain.notes()
    envs.cache_dir()  # where its games are kept
    sources = sorted({task.source for task in tasks})
    found = ", ".join(f"{sum(task.source == source for task in tasks)} tasks {source}" for source in sources)
    return found, "; ".join(notes)


async def _model(config: Config, role: str) -> tuple[str, str]:
    """Make one short call to a role's model."""
    spec, keys = ModelSpec.parse(getattr(config, f"{role}_model"), role), Keys.read()
    if not spec.at_endpoint:
        return f"{spec}: at no endpoint, no call is made", ""
    place = spec.base_url or keys.base_url
    variable = getattr(keys.of(place), "variable", "")
    with tempfile.TemporaryDirectory(prefix="alma-") as folder, Store(Path(folder) / "store.sqlite") as store:
        patience = Patience(outage=OUTAGE_SECONDS, deadline=ANSWER_SECONDS)
        prices = dict(parse_price(text) for text in config.price)
        options = {"log": lambda _: None, "keys": keys, "patience": patience, "prices": prices}
        async with Models({role: spec}, store, **options) as models:
            started = time.monotonic()
            await (models.embed(["OK"]) if role == "embedding" else models.chat(role, PROBE))
            seconds, [usage] = time.monotonic() - started, models.usage()
    usd = "price unknown" if usage["usd"] is None else f"${usage['usd']:.6f}"
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    key = f"key from {variable}" if variable else "no key"
    found = f"{spec.name} at {place} answers in {seconds:.1f} s: {tokens} tokens, {usd}; {key}"
    return found, f"for budgets in dollars: --price {spec.name}=in,cached,out" if usage["usd"] is None else ""
