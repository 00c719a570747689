"""Looks at this machine and at the models' endpoints before a run does: what is there, and what to do where not.

Promises: each line comes from a real attempt (a sandbox worker, a worker process, a file, a model call), and a
run could start where no line says "missing". A call of a paid model costs a fraction of a cent; its price is
shown, a key never. It does not promise that there is enough memory, disk or money for a whole run.
"""

import asyncio
import os
import platform
import re
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import envs
from errors import BudgetError, ContextOverflow, DesignError, InfrastructureError, UserError, machine_fault
from harness.config import Config
from harness.pool import open_pool
from harness.run_folder import ROOT
from llm import PROBE, Keys, Models, ModelSpec, Patience
from models import ROLES
from models.prices import parse_price
from models.store import Store
from sandbox import Sandbox

FAULTS = (UserError, InfrastructureError, BudgetError, DesignError, ContextOverflow, OSError, RuntimeError)
LAYERS = {  # of the sandbox: what a design could do without it
    "namespaces": "see which processes run; its files are kept on this machine's disk, and are fewer",
    "no-new-privs": "gain rights by starting a program",
    "no-capabilities": "use the rights of root",
    "limits": "use up memory, CPU time and descriptors",
    "landlock": "read what the namespaces leave, if they are missing too: your files",
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
    machine = [_python(), _compiler(), *asyncio.run(_sandbox(config)), _workers(config)]
    machine += [*_room(), _descriptors(config)]
    data = [_data(name) for name in domains]
    return machine + data + [asyncio.run(_model(config, role)) for role in ROLES]


def _python() -> Line:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.strip().split("==") for line in lines if "==" in line]
    absent, other = [], []
    for name, version in pinned:
        try:
            if (found := metadata.version(name)) != version:
                other.append(f"{name} {found}, not {version}")
        except metadata.PackageNotFoundError:
            absent.append(name)
    found = f"{platform.python_version()}, {len(pinned) - len(absent)} of {len(pinned)} packages"
    if absent:
        do = "make install, then .venv/bin/python alma.py ..."
        return Line("python", "missing", f"{found}; without {', '.join(absent)}", do)
    if other:
        do = "make install, for the versions that were tried"
        return Line("python", "warning", f"{found}; {', '.join(other)}", do)
    return Line("python", "ok", found)


def _compiler() -> Line:
    absent = [tool for tool in ("c++", "make") if not shutil.which(tool)]
    if absent:
        return Line("compiler", "warning", f"no {' and no '.join(absent)}: `make install` needs them",
                    "apt-get install build-essential")  # fmt: skip
    return Line("compiler", "ok", f"{shutil.which('c++')}, {shutil.which('make')}")


async def _sandbox(config: Config) -> list[Line]:
    """A worker of the sandbox is started, and one that can be forked."""
    try:
        async with Sandbox(unsafe=True) as box:
            source = (ROOT / "baselines" / "no_memory.py").read_text(encoding="utf-8")
            async with box.worker(source, None, forks=True) as worker:
                forks = worker.can_fork
    except FAULTS as error:
        return [Line("sandbox", "missing", _why(error), "mend that first: no memory design runs without it")]
    held = {name.split()[0] for name in box.layers}
    lines = [Line("sandbox", "ok", ", ".join(box.layers))]
    if box.unsafe:
        do = "use Linux 5.13 or newer on x86-64 and a container that allows it, or give --unsafe-sandbox"
        status = "warning" if config.unsafe_sandbox else "missing"
        lines = [Line("sandbox", status, f"not safe; it holds {', '.join(box.layers) or 'nothing'}", do)]
    for name in [name for name in LAYERS if name not in held]:
        do = "see README, safety: a newer kernel, or a container with fewer restrictions"
        lines.append(Line(f"sandbox: {name}", "warning", f"missing: a design could {LAYERS[name]}", do))
    if not forks:
        found = "a memory is built again for each task, not forked: static mode takes longer"
        lines.append(Line("sandbox: forks", "warning", found, "Linux 5.9 or newer, with seccomp"))
    return lines


def _workers(config: Config) -> Line:
    """A process that plays is started, here or on the cluster."""

    async def start() -> None:
        pool = open_pool("babaisai", 1, config.scheduler, lambda _: None)
        try:
            await pool.run(os.getpid)
        finally:
            pool.close()

    try:
        asyncio.run(start())
    except FAULTS as error:
        return Line("worker processes", "missing", _why(error), "mend that first: they play all episodes")
    return Line("worker processes", "ok", config.scheduler or f"{config.workers} on {os.cpu_count()} cores")


def _data(name: str) -> Line:
    """What tasks a domain has here, and whether its games can be kept."""
    try:
        domain = envs.domain_class(name)
        tasks, notes = domain.tasks(), domain.notes()
        envs.cache_dir()
    except FAULTS as error:
        return Line(f"data: {name}", "missing", _why(error), "mend that, or choose another --env")
    sources = sorted({task.source for task in tasks})
    found = ", ".join(f"{sum(task.source == source for task in tasks)} tasks {source}" for source in sources)
    return Line(f"data: {name}", "warning" if notes else "ok", found, "; ".join(notes))


def _room() -> list[Line]:
    """Memory, and the disks on which runs, games and temporary files are kept."""
    lines = []
    available = re.search(r"MemAvailable: *(\d+) kB", _text("/proc/meminfo"))
    free = int(available[1]) * 1024 if available else 0
    limit, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():  # of a container
        free = min(free, int(limit) - int(used))
    if free:
        do = "" if free >= FREE_BYTES else "use fewer --workers"
        lines.append(Line("memory", "warning" if do else "ok", f"{free / 1e9:.1f} GB free", do))
    places = {"runs": lambda: "runs", "games": envs.cache_dir, "temporary files": tempfile.gettempdir}
    for what, place in places.items():
        try:
            folder = Path(place()).absolute()
            while not folder.exists():
                folder = folder.parent
            tempfile.TemporaryFile(dir=folder).close()
            free = shutil.disk_usage(folder).free
        except FAULTS as error:
            do = "set --runs, ALMA_CACHE or TMPDIR to a folder that can be written"
            lines.append(Line(f"disk: {what}", "missing", _why(error), do))
            continue
        do = "" if free >= FREE_BYTES else "free some space there, or choose another folder"
        lines.append(Line(f"disk: {what}", "warning" if do else "ok", f"{free / 1e9:.1f} GB free in {folder}", do))
    return lines


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _descriptors(config: Config) -> Line:
    most, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], DESCRIPTORS + DESCRIPTORS_A_WORKER * config.workers
    if 0 <= most < needed:
        return Line("descriptors", "warning", f"{most}; {config.workers} workers need about {needed}",
                    f"ulimit -n {needed}, or fewer --workers")  # fmt: skip
    return Line("descriptors", "ok", "no limit" if most < 0 else str(most))


async def _model(config: Config, role: str) -> Line:
    """One short call of a role's model."""
    check = f"{role} model"
    try:
        spec, keys = ModelSpec.parse(getattr(config, f"{role}_model")), Keys.read()
        if not spec.at_endpoint:
            return Line(check, "ok", f"{spec}: a stand-in or a recording, no call is made")
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
    except FAULTS as error:
        return Line(check, "missing", _why(error), f"mend that, or choose another --{role}-model, or offline")
    usd = "price unknown" if usage["usd"] is None else f"${usage['usd']:.6f}"
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    found = f"{spec.name} at {place} answers in {seconds:.1f} s: {tokens} tokens, {usd}; "
    found += f"key from {variable}" if variable else "no key"
    if usage["usd"] is None:
        return Line(check, "warning", found, f"--price {spec.name}=in,cached,out, for budgets in dollars")
    return Line(check, "ok", found)


def _why(error: BaseException) -> str:
    return " ".join((machine_fault(error) or str(error)).split())


def as_text(lines: list[Line]) -> str:
    """A line for each, and what to do below those that are not ok."""
    width = max(len(line.check) for line in lines)
    texts = []
    for line in lines:
        texts.append(f"{line.status:8} {line.check:{width}}  {line.found}")
        if line.do:
            texts.append(f"{'':8} {'':{width}}  -> {line.do}")
    return "\n".join(texts)


def can_start(lines: list[Line]) -> bool:
    """Whether a run with these settings could start."""
    return all(line.status != "missing" for line in lines)
