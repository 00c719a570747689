"""What each command of `python alma.py` does.

A command that plays works in a run folder of its own, can be interrupted at any point, and then ends with the line
that resumes it; results are written before they are printed. What a run costs is said and asked about before it
starts.
"""

import asyncio
import functools
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import envs
import standins
from agent import STYLES, Episode
from agent import play as play_episode
from alma import SAMPLING_RULES, design_id
from alma import learn as learning_loop
from errors import BudgetError, InfrastructureError, UserError, machine_fault
from evaluate import folds
from harness import config
from harness.cli import command_line, flag, say
from harness.config import Config
from harness.doctor import as_text, can_start, examine
from harness.estimate import ask_before_paying, designs_of
from harness.run import Run
from harness.run_folder import RunFolder, read_json, write_atomic, write_json, write_report
from llm import Keys, ModelSpec, is_local
from memory_base import read_source
from models import OFFLINE
from report import compare as comparison
from report.data import read_run
from report.words import ablation_table, summary
from sandbox import check as check_in_sandbox
from score import Score, against

BASELINES = Path(__file__).resolve().parents[1] / "baselines"
LEARNED = "learned design"
NO_MEMORY = "no_memory"
SAYS_CHARS = 4000  # of what the learned memory said for one task


# ------------------------------------------------------------------------- commands that play


@dataclass(frozen=True)
class Experiment:
    """What a command does in a run folder."""

    work: Callable[[Run], Awaitable[dict]]  # returns the result that is printed and kept in score.json
    designs: Callable[[Config], dict[str, int]]  # for each task set, how many designs it evaluates there
    again: tuple[str, ...]  # the arguments that resume it, without `--resume RUN`
    writes: int = 1  # times that the learning loop is run


def learn(command) -> int:
    async def work(run: Run) -> dict:
        result = await _learn(run)
        lines = (run.folder.design(result["learned"]) / "trajectories.jsonl").read_text(encoding="utf-8").splitlines()
        outcomes = map(json.loads, lines)
        return {**result, **_says((one["task"], one["retrieved"]) for one in outcomes)}

    return _carry_out(command, Experiment(work, _designs_learned, ("learn",)))


def reproduce(command) -> int:
    """The paper's protocol: learn, then the learned design and the baselines on the test set and the shift set."""

    def sets(settings: Config) -> list[str]:
        has_shift = any(task.split == "shift" for task in envs.domain_class(settings.env).tasks())
        return ["test", "shift"] if has_shift else ["test"]

    def designs(settings: Config) -> dict[str, int]:
        return {**_designs_learned(settings), **dict.fromkeys(sets(settings), len(baselines()) + 1)}

    async def work(run: Run) -> dict:
        result = await _learn(run)
        memories = {**{name: baseline(name) for name in baselines()}, LEARNED: _learned_code(run, result)}
        for split in sets(run.config):
            result[split] = await _compare(run, memories, split, "static" if split == "test" else "dynamic")
        tested = await run.score("test", LEARNED, memories[LEARNED])  # known by now
        return {**result, **_says((one.task, one.retrieved) for one in tested.outcomes)}

    return _carry_out(command, Experiment(work, designs, ("reproduce",)))


def evaluate(command) -> int:
    sources = {name: find_design(name) for name in command.design}  # a wrong name is said before anything is made
    sizes = command.collection_size or (None,)
    again = ["evaluate", *(part for name in command.design for part in flag("design", name))]
    again += [*flag("split", command.split), *flag("mode", command.mode)]
    if command.collection_size:
        again += flag("collection-size", ",".join(map(str, sizes)))

    async def work(run: Run) -> dict:
        results = {size: await _compare(run, sources, command.split, command.mode, size) for size in sizes}
        if None in results:
            return {command.split: results[None]}
        return {"collection sizes": results, "split": command.split, "mode": command.mode}

    def designs(settings: Config) -> dict[str, int]:
        collected = len(folds(settings, command.split)[0][0]) * settings.collection_passes
        if (most := max(command.collection_size, default=0)) > collected:
            raise UserError(f"--collection-size {most}: {collected} episodes are collected (--collection-passes)")
        return {command.split: len(sources) * len(sizes)}

    return _carry_out(command, Experiment(work, designs, tuple(again), writes=0))


def ablation(command) -> int:
    """Each sampling rule, seed by seed; no episode is played again for another rule."""
    runs = command.seeds * len(SAMPLING_RULES)

    def designs(settings: Config) -> dict[str, int]:
        return {split: count * runs for split, count in {**_designs_learned(settings), "test": 1}.items()}

    async def work(run: Run, known: Path | None = None) -> dict:
        if known:
            run.store.copy_episodes(known / "store.sqlite")
        result = await _learn(run)
        return {**result, "test": await _compare(run, {LEARNED: _learned_code(run, result)}, "test", "static")}

    experiment = Experiment(work, designs, (), writes=runs)
    if command.resume:
        folder = RunFolder.open(Path(command.resume))
        folder.check_code(command.anyway)
        root, settings = folder.path, config.from_json(folder.config())
    else:
        settings = _settings(command, experiment)
        name = f"ablation-{settings.env}"
        values = asdict(settings)
        root = RunFolder.create(Path(command.runs), name, settings.agent_model, values, command.typed).path
    results: dict[str, list[dict]] = {rule: [] for rule in SAMPLING_RULES}
    for seed in range(settings.seed, settings.seed + command.seeds):
        known = None
        for rule in SAMPLING_RULES:
            path, own = root / f"{rule}-{seed}", asdict(replace(settings, sampling=rule, seed=seed))
            folder = RunFolder.open(path) if path.is_dir() else RunFolder.at(path, own)
            own_designs = {**_designs_learned(settings), "test": 1}
            this = Experiment(functools.partial(work, known=known), lambda _, own=own_designs: own, ())
            again = ("ablation", *flag("resume", root), *flag("seeds", command.seeds))
            stopped, result = _do(folder, {}, command, this, again)
            if stopped:
                return stopped
            known = path
            results[rule].append(result)
    write_json(root / "ablation.json", results)
    _print_result(json.dumps(results) if command.json else f"{ablation_table(results)}\nrun folder: {root}", root)
    return 0


# What they share.


def _designs_learned(settings: Config) -> dict[str, int]:
    return {"learning": designs_of(settings.steps)}


async def _learn(run: Run) -> dict:
    archive = await learning_loop(run)
    best = archive.best()
    if best is None:
        raise InfrastructureError("no candidate passed verification: the archive is empty (see dropped/)")
    return {"learned": best.id, "score": best.score, "no_memory": archive.f0, "designs": len(archive.evaluated())}


def _says(outcomes: Iterable[tuple[str, object]]) -> dict:
    """What the learned memory said for one task: the first of (task, retrieved) that is not empty, cut."""
    for task, retrieved in outcomes:
        if retrieved not in (None, "", [], {}):
            said = retrieved if isinstance(retrieved, str) else json.dumps(retrieved, indent=1, ensure_ascii=False)
            return {"says": {"task": task, "text": said[:SAYS_CHARS]}}
    return {}


def _learned_code(run: Run, learned: dict) -> str:
    return (run.folder.design(learned["learned"]) / "design.py").read_text(encoding="utf-8")


async def _compare(run: Run, designs: dict[str, str], split: str, mode: str, size: int | None = None) -> dict:
    """Scores of designs (name: code) on one task set, kept in results-*.json."""
    run.display.stage(f"{split} set, {mode} mode" + (f", {size} episodes collected" if size is not None else ""))
    found = await asyncio.gather(*(run.score(split, name, code, mode, size) for name, code in designs.items()))
    scores = dict(zip(designs, found, strict=True))
    results = {
        name: {
            **score.summary(),
            "id": design_id(designs[name]),
            **run.memory_cost(design_id(designs[name]), split),
            "against_best": _against_best(name, scores),
            "tasks": score.tasks(),
        }
        for name, score in scores.items()
    }
    kept = f"results-{split}-{mode}{'' if size is None else f'-{size}'}.json"
    write_json(run.folder.path / kept, {"labels": run.labels(), "scores": results})
    return results


def _against_best(name: str, scores: dict[str, Score]) -> dict | None:
    """The paired difference to the best other memory; None where there is no other."""
    others = [other for other in scores if other not in (name, NO_MEMORY)]
    if name == NO_MEMORY or not others:
        return None
    best = max(others, key=lambda other: scores[other].mean)
    difference, *interval = against(scores[name], scores[best])
    return {"name": best, "difference": difference, "interval": interval}


# Run folders.


def _carry_out(command, experiment: Experiment) -> int:
    """Do an experiment in a new run folder, or go on in the one that `--resume` names."""
    changed = {name: getattr(command, name) for name in ("budget_usd", "budget_tokens", "scheduler")}
    overrides = {name: value for name, value in changed.items() if value is not None}  # what --resume may change
    if command.resume:
        fixed = [name for name in config.names() if getattr(command, name, None) is not None and name not in overrides]
        if fixed:
            raise UserError(f"--resume goes on with the run's own settings: leave out --{fixed[0].replace('_', '-')}")
        folder = RunFolder.open(Path(command.resume))
        folder.check_code(command.anyway)
    else:
        settings, overrides = _settings(command, experiment), {}
        folder = RunFolder.create(
            Path(command.runs), settings.env, settings.agent_model, asdict(settings), command.typed
        )
    again = [*experiment.again, *flag("resume", folder.path)]
    for name, value in overrides.items():
        again += flag(name.replace("_", "-"), value)
    stopped, result = _do(folder, overrides, command, experiment, again)
    if not stopped:
        _print_result(json.dumps(result) if command.json else summary(result), folder.path)
    return stopped


def _print_result(text: str, folder: Path) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        kept = f"the result is kept in {folder}"
        raise InfrastructureError(f"standard output cannot be written: {error.strerror}; {kept}") from None


def _settings(command, experiment: Experiment) -> Config:
    """The settings that the flags give, after a look at the domain and a question before it costs anything."""
    settings = complete(config.from_flags(command))
    designs = experiment.designs(settings)
    for split in designs:
        folds(settings, split)  # a set that is not there is said before anything is made
    ask_before_paying(settings, designs, designs_of(settings.steps) * experiment.writes, command.yes)
    return settings


def complete(settings: Config) -> Config:
    """The settings with the defaults that depend on others: on keys, on who plays, on the domain. Raises UserError."""
    domain = envs.domain_class(settings.env)
    if settings.agent_style not in STYLES:
        raise UserError(f"unknown --agent-style {settings.agent_style!r}: choose from {', '.join(STYLES)}")
    keys, models = Keys.read(), _models(settings)
    offline_agent = models["agent_model"] == OFFLINE
    if settings.constrain_actions and settings.agent_style != "act":
        raise UserError("--constrain-actions leaves no room for thoughts: it goes with --agent-style act alone")
    agent = ModelSpec.parse(models["agent_model"])
    local = agent.at_endpoint and is_local(agent.base_url or keys.base_url)
    passes, test_passes = domain.offline_passes if offline_agent else (config.PAPER_PASSES, config.PAPER_PASSES)
    steps = config.OFFLINE_STEPS if models["meta_model"] == OFFLINE else config.PAPER_STEPS
    folded = config.OFFLINE_FOLDS if offline_agent else config.PAPER_FOLDS
    collection = config.OFFLINE_COLLECTION_PASSES if offline_agent else config.PAPER_COLLECTION_PASSES
    return replace(
        settings,
        **models,
        steps=settings.steps or steps,
        folds=settings.folds or folded,
        passes=settings.passes or passes,
        test_passes=settings.test_passes or settings.passes or test_passes,
        collection_passes=settings.collection_passes or collection,
        workers=settings.workers or config.default_workers(0 if offline_agent else settings.in_flight, local),
        show_admissible=settings.show_admissible or offline_agent,
    )


def _models(settings: Config) -> dict[str, str]:
    """The model of each role: the paper's where none is named, without a key and an address a stand-in."""
    reachable = bool(Keys.read())
    return {
        role: getattr(settings, role) or (paper if reachable else OFFLINE) for role, paper in config.PAPER_MODELS.items()
    }


def _do(
    folder: RunFolder, overrides: dict, command, experiment: Experiment, again: Sequence[str]
) -> tuple[int, dict]:
    """Do an experiment in a folder: exit code and result. A run that stops prints the line that resumes it.

    `again`: the arguments of that line.
    """
    resume = f"resume with: {command_line(*again)}"
    try:
        result = asyncio.run(_in_run(folder, overrides, command, experiment))
        write_json(folder.path / "score.json", result)
        write_report(folder.path)
        return 0, result
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"alma: interrupted\n{resume}")
        return 130, {}
    except Exception as error:
        fault = str(error) if isinstance(error, InfrastructureError | BudgetError) else machine_fault(error)
        if not fault:
            raise
        say(f"alma: stopped: {fault}\n{resume}")
        return 3, {}


async def _in_run(folder: RunFolder, overrides: dict, command, experiment: Experiment) -> dict:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)

    def report_error(loop, context: dict) -> None:  # suppress follow-up errors once the run is stopping
        error = context.get("exception")
        if not isinstance(error, UserError | InfrastructureError | BudgetError) and not machine_fault(error):
            loop.default_exception_handler(context)

    loop.set_exception_handler(report_error)
    async with Run(folder, command.plain, overrides, command.command) as run:
        run.introduce()
        run.plan(experiment.designs(run.config))
        done = await experiment.work(run)
        about = {"env": run.config.env, "labels": run.labels(), "models": run.config.models()}
        return {**done, **about, "folder": str(folder.path)}


# ------------------------------------------------------------------------------------- designs


def baselines() -> list[str]:
    """The names of all baselines: what lies in `baselines/` is one. No memory comes first."""
    return sorted((path.stem for path in BASELINES.glob("*.py")), key=lambda name: (name != NO_MEMORY, name))


def baseline(name: str) -> str:
    """The code of a baseline."""
    if name not in baselines():
        raise UserError(f"no baseline {name!r}: choose from {', '.join(baselines())}")
    return (BASELINES / f"{name}.py").read_text(encoding="utf-8")


def find_design(name: str) -> str:
    """The code of a design: a file, RUN/ID of a run's archive, or the name of a baseline."""
    path = Path(name)
    if path.is_file():
        return _source(path)
    archived = path.parent / "designs" / path.name / "design.py"
    if archived.is_file():
        return archived.read_text(encoding="utf-8")
    if "/" in name or name.endswith(".py"):
        raise UserError(f"no such design: {name} is neither a file nor RUN/ID")
    return baseline(name)


def _source(path: Path) -> str:
    """The text of a design's file, in the encoding that it says it is in."""
    try:
        return read_source(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except SyntaxError as error:
        raise UserError(f"cannot read {path}: {error}") from None


def export(command) -> int:
    folder = RunFolder.open(Path(command.folder))
    source = folder.design(command.id) / "design.py"
    archive = [line for line in folder.archive() if line.get("state") == "evaluated"]
    if not source.is_file():
        ids = ", ".join(line["id"] for line in archive) or "none"
        raise UserError(f"no design {command.id!r} in {folder.path}; it has {ids}")
    # Older archives have one parent in place of a list.
    parents = {line["id"]: [one for one in line.get("parents") or [line.get("parent")] if one] for line in archive}
    lineage, todo = [], [command.id]  # all ancestors, the first parents' line first
    while todo:
        if (one := todo.pop(0)) not in lineage:
            lineage.append(one)
            todo += parents.get(one, [])
    score = read_json(source.parent / "score.json")
    settings = {key: value for key, value in folder.config().items() if key != "about"}
    lines = [
        f"Memory design {command.id}, learned by ALMA on {settings['env']}",
        f"lineage, first design first: {' > '.join(lineage[::-1])}",
        f"learning set: {score['mean']:.3f} ± {score['stderr']:.3f} (standard error), "
        f"{score['difference']:+.3f} to no memory",
        f"settings: {json.dumps(settings)}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    write_atomic(Path(command.file), f"{comment}\n{source.read_text(encoding='utf-8')}")
    print(command.file)
    return 0


def check(command) -> int:
    source = _source(Path(command.file))
    tasks = [task for task in envs.domain_class(command.env).tasks() if task.split == "learning"][:3]
    played = [play_episode(Episode(command.env, task.id, task.seed, OFFLINE, show_admissible=True)) for task in tasks]
    trajectories = [one.trajectory for one in played]
    result = asyncio.run(check_in_sandbox(source, trajectories, OfflineTools(), unsafe=command.unsafe_sandbox))
    if command.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {json.dumps(value, ensure_ascii=True)}")
    return 0 if result["status"] == "ok" else 1


class OfflineTools:
    """A design's tools with the stand-ins behind them."""

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return standins.chat("memory", messages, schema, 0)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return standins.embed(texts)


# ------------------------------------------------------------------------------ machine, domains


def doctor(command) -> int:
    """What this machine has for runs with these settings, on one domain or on all."""
    settings = config.from_flags(command)
    settings = replace(settings, **_models(settings))
    in_flight = 0 if settings.agent_model == OFFLINE else settings.in_flight
    settings = replace(settings, workers=settings.workers or config.default_workers(in_flight))
    lines = examine(settings, [command.env] if command.env else list(envs.DOMAINS))
    if command.json:
        print(json.dumps({"ok": can_start(lines), "checks": [asdict(line) for line in lines]}))
    else:
        print(as_text(lines))
    return 0 if can_start(lines) else 1


def tasks(command) -> int:
    domain = envs.domain_class(command.env)
    rows = [{"id": t.id, "split": t.split, "family": t.family, "source": t.source} for t in domain.tasks()]
    if command.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['split']:9} {row['source']:10} {row['family']:28} {row['id']}")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("learning", "test", "shift")}
    print(f"{command.env}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    for note in domain.notes():
        print(note)
    return 0


def play(command) -> int:
    domain = envs.domain_class(command.env)
    known = [task.id for task in domain.tasks()]
    task = command.task or known[0]
    if task not in known:
        raise UserError(f"unknown task {task!r} of {command.env}: python alma.py tasks --env {command.env} lists them")
    env = domain(task)
    text, info = env.reset(seed=command.seed)
    print(f"{task}\n\n{info['goal']}\n\nCommands: quit, or an action.", end="")
    done = False
    while not done:
        print(f"\n{text}\n{info['now']}".rstrip())
        if info["actions"]:
            print(f"Actions: {', '.join(info['actions'])}")
        try:
            action = input("> ").strip()
        except EOFError:
            break
        if action in ("quit", ""):
            break
        text, _, terminated, truncated, info = env.step(envs.match(action, info["actions"]))
        done = terminated or truncated
    if done:
        print(f"\n{text}")
    print(f"score {info['score']:.2f}{', won' if info['success'] else ''}")
    return 0


DOWNLOADS = {  # command, what it makes, the variable that names it, and where to get it by hand
    "alfworld": (["alfworld-download"], "the official games (2 GB)", "ALFWORLD_DATA", "github.com/alfworld/alfworld"),
    "minihack": (
        ["python", "-m", "minihack.scripts.download_boxoban_levels"],
        "Boxoban's levels",
        "BOXOBAN_LEVELS",
        "github.com/google-deepmind/boxoban-levels",
    ),
}


def data(command) -> int:
    if command.env not in DOWNLOADS:
        raise UserError(f"nothing to download for {command.env!r}: choose from {', '.join(DOWNLOADS)}")
    program, what, variable, source = DOWNLOADS[command.env]
    by_hand = f"get them from {source} on a machine that can, and set {variable} to the folder"
    try:
        socket.create_connection(("github.com", 443), timeout=10).close()
    except OSError as error:
        raise UserError(f"cannot download {what}: github.com cannot be reached ({error}); {by_hand}") from None
    if subprocess.run([str(Path(sys.executable).parent / program[0]), *program[1:]], check=False).returncode:
        raise UserError(f"the download of {what} failed; {by_hand}")
    return 0


# ------------------------------------------------------------------------------------- reports


def report(command) -> int:
    for path in write_report(Path(command.folder)):
        print(path)
    return 0


def compare(command) -> int:
    runs = [read_run(path) for path in command.folders]
    drawn = comparison.plot(runs) if command.plot else None
    if drawn:
        write_atomic(command.plot, drawn.png if command.plot.suffix.lower() == ".png" else drawn.svg)
    print(comparison.table(runs))
    return 0
