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
from collections import Counter
from collections.abc import Callable, Iterator
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

LAYERS = {  # of the sandbox: what a design could do without it
    "namespaces": "see which processes run; its files are kept on this machine's disk, and are fewer",
    "no-new-privs": "gain rights by starting a program",
    "no-capabilities": "use the rights of root",
    "limits": "use up memory, CPU time and descriptors",
    "landlock": "read your files, if namespaces are missing too",
    "seccomp": "open sockets and start processes",
}
FREE_BYTES = 1 << 30  # of disk and of memory; with less there is a warning


@dataclass(frozen=True)
class Line:
    check: str  # what was looked at
    status: str  # "ok", "warning" or "missing": then no run can start
    found: str
    do: str = ""  # what to do where it is not ok


def examine(config: Config, domains: list[str]) -> list[Line]:
    """All lines, for runs with these settings on these domains."""
    lines = []

    @contextlib.contextmanager
    def checked(check: str, otherwise: str) -> Iterator[Callable]:
        """What fails in here is missing, and `otherwise` says what to do; what has a `do` of its own is a warning."""
        try:
            yield lambda found, do="": lines.append(Line(check, "warning" if do else "ok", found, do))
        except (UserError, InfrastructureError, BudgetError, DesignError, ContextOverflow, OSError, RuntimeError) as error:
            why = " ".join((machine_fault(error) or str(error)).split())
            lines.append(Line(check, "missing", why, otherwise))

    with checked("python", "make install, then .venv/bin/python alma.py ...") as say:
        pinned = dict(re.findall(r"(\S+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8")))
        installed = versions(pinned)
        found = f"{platform.python_version()}, {len(installed)} of {len(pinned)} packages"
        if absent := [name for name in pinned if name not in installed]:
            raise UserError(f"{found}; without {', '.join(absent)}")
        other = [f"{name} {one}, not {pinned[name]}" for name, one in installed.items() if one != pinned[name]]
        say("; ".join([found, *other]), "make install, for the versions that were tested" if other else "")
    with checked("compiler", "make install") as say:
        tools = {tool: shutil.which(tool) for tool in ("c++", "make")}
        if absent := [tool for tool, path in tools.items() if not path]:
            say(f"no {' and no '.join(absent)}: `make install` needs them", "apt-get install build-essential")
        else:
            say(", ".join(tools.values()))
    with checked("sandbox", "solve this first: no memory design runs without it"):
        lines += asyncio.run(_sandbox(config.unsafe_sandbox))
    with checked("worker processes", "solve this first: they play all episodes") as say:
        with contextlib.closing(open_pool("babaisai", 1, config.scheduler, lambda _: None)) as pool:
            asyncio.run(pool.run(os.getpid))
        say(config.scheduler or f"{config.workers} on {os.cpu_count()} cores")
    with checked("memory", "use fewer --workers") as say:
        found, do = "unknown", ""
        with contextlib.suppress(OSError, TypeError):
            free = int(re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
            with contextlib.suppress(OSError, ValueError):  # a container has a limit of its own, or "max"
                limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
                free = min(free, limit - used)
            found, do = f"{free / 1e9:.1f} GB free", "" if free >= FREE_BYTES else "use fewer --workers"
        say(found, do)
    for what, place in (("runs", lambda: "runs"), ("games", envs.cache_dir), ("temporary files", tempfile.gettempdir)):
        with checked(f"disk: {what}", "set --runs, ALMA_CACHE or TMPDIR to a folder that can be written") as say:
            wanted = Path(place()).absolute()
            folder = next(one for one in (wanted, *wanted.parents) if one.exists())
            tempfile.TemporaryFile(dir=folder).close()
            free, do = shutil.disk_usage(folder).free, "free some space there, or choose another folder"
            say(f"{free / 1e9:.1f} GB free in {folder}", "" if free >= FREE_BYTES else do)
    with checked("descriptors", "raise ulimit -n") as say:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = 50 + 10 * config.workers  # in all, and for each process that plays
        if 0 <= most < needed:
            say(f"{most}; {config.workers} workers need about {needed}", f"ulimit -n {needed}, or fewer --workers")
        else:
            say("no limit" if most < 0 else str(most))
    for name in domains:
        with checked(f"data: {name}", "solve this, or choose another --env") as say:
            domain = envs.domain_class(name)
            counts, notes = Counter(task.source for task in domain.tasks()), domain.notes()
            envs.cache_dir()  # where its games are kept
            say(", ".join(f"{count} tasks {source}" for source, count in sorted(counts.items())), "; ".join(notes))
    for role in ROLES:
        with checked(f"{role} model", f"solve this, or choose another --{role}-model") as say:
            say(*asyncio.run(_ask_model(config, role)))
    return lines


async def _sandbox(unsafe: bool) -> list[Line]:
    """Start a worker of the sandbox, and one that can be forked. `unsafe`: layers may be missing."""
    async with Sandbox(unsafe=True) as box:
        source = (ROOT / "baselines" / "no_memory.py").read_text(encoding="utf-8")
        async with box.worker(source, None, forks=True) as worker:
            forks = worker.can_fork
    status, found, do = "ok", ", ".join(box.layers), ""
    if box.unsafe:
        status, found = "warning" if unsafe else "missing", f"not safe; it holds {found or 'nothing'}"
        do = "use Linux 5.13 or newer on x86-64 and a container that allows it, or give --unsafe-sandbox"
    lines = [Line("sandbox", status, found, do)]
    do = "see README, safety: a newer kernel, or a container with fewer restrictions"
    held = {name.split()[0] for name in box.layers}
    lines += [Line(f"sandbox: {name}", "warning", f"missing: a design could {harm}", do)
              for name, harm in LAYERS.items() if name not in held]  # fmt: skip
    if not forks:
        found = "a memory is built again for each task, not forked: static mode takes longer"
        lines.append(Line("sandbox: forks", "warning", found, "Linux 5.9 or newer, with seccomp"))
    return lines


async def _ask_model(config: Config, role: str) -> tuple[str, str]:
    """One short call to a role's model: what was found and what to do."""
    spec, keys = ModelSpec.parse(getattr(config, f"{role}_model"), role), Keys.read()
    if not spec.at_endpoint:
        return f"{spec}: at no endpoint, no call is made", ""
    place = spec.base_url or keys.base_url
    key = f"key from {variable}" if (variable := getattr(keys.of(place), "variable", "")) else "no key"
    with tempfile.TemporaryDirectory(prefix="alma-") as folder, Store(Path(folder) / "store.sqlite") as store:
        prices, patience = dict(map(parse_price, config.price)), Patience(outage=5.0, deadline=60.0)
        async with Models({role: spec}, store, log=lambda _: None, keys=keys, prices=prices, patience=patience) as models:
            started = time.monotonic()
            await (models.embed(["OK"]) if role == "embedding" else models.chat(role, PROBE))
            seconds, [usage] = time.monotonic() - started, models.usage()
    tokens, unknown = usage["prompt_tokens"] + usage["completion_tokens"], usage["usd"] is None
    usd = "price unknown" if unknown else f"${usage['usd']:.6f}"
    do = f"for budgets in dollars: --price {spec.name}=in,cached,out" if unknown else ""
    return f"{spec.name} at {place} answers in {seconds:.1f} s: {tokens} tokens, {usd}; {key}", do
