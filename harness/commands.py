"""What each command of `python alma.py` does.

A command that plays has a run folder of its own. When it is interrupted, it prints the line that resumes it.
Results are written before they are printed. A paid run shows its cost and asks before it starts.
"""

import asyncio
import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import agent
import alma
import envs
import sandbox
import standins
from errors import BudgetError, InfrastructureError, UserError, machine_fault
from evaluate import NO_MEMORY, folds
from harness import config
from harness import leaderboard as board
from harness.config import PAPER_MODELS, SHAPELESS, Config, command_line, flag
from harness.doctor import examine
from harness.estimate import Deployed, ask_before_paying, compared, designs_of, episodes_of, searched
from harness.recording import about_design, settings_of, write_recording
from harness.run import Run
from harness.run_folder import RunFolder, write_atomic, write_json, write_report
from llm import Keys, ModelSpec, is_local
from memory_base import read_source
from models import OFFLINE, RECORDED, recorded
from prompts.evidence import read_episodes
from report import compare as comparison
from report.data import LEARNED, read_run
from report.words import ablation_table, summary
from score import against

BASELINES = Path(__file__).resolve().parents[1] / "baselines"


def learn(command) -> int:
    async def work(run: Run) -> dict:
        result = await _learn(run)
        return {**result, **_says(read_episodes(run.folder.design(result["learned"])))}

    return _carry_out(command, work, lambda settings: {"learning": searched(settings)})


def reproduce(command) -> int:
    """The paper's protocol: learn, then compare with the baselines on the test set and the shift set."""

    async def work(run: Run) -> dict:
        _, *compared_on = reproduced(run.config)
        result = await _learn(run, compared_on, baselines())
        tested = await run.score("test", LEARNED, run.folder.code(result["learned"]))  # known by now
        return {**result, **_says(map(vars, tested.outcomes))}

    return _carry_out(command, work, reproduced)


def reproduced(settings: Config) -> dict[str, Deployed]:
    """What `reproduce` deploys on each task set: the learning set, then those on which it compares."""
    count = len(baselines())  # no memory aside, and the learned design
    explained = len(_with_experience(settings, [*baselines(), LEARNED]))  # in static mode alone
    found = {"learning": searched(settings), "test": compared(settings, "test", count, explained)}
    if any(task.split == "shift" for task in envs.domain_class(settings.env).tasks()):
        found["shift"] = compared(settings, "shift", count)
    return found


def evaluate(command, sources: dict[str, str] | None = None, then: Callable[[Run, dict], None] | None = None) -> int:
    """Compare designs (`sources`: name, code) on a task set; `then` gets the run and what `_compare` found."""
    env = RunFolder.open(Path(command.resume)).config().get("env") if command.resume else command.env
    sources = sources or {name: find_design(name, env or Config.env) for name in command.design}  # a wrong name is an error
    split, mode, sizes = command.split, command.mode, command.collection_size
    again = [part for name in command.design for part in flag("design", name)]
    again += [*flag("split", split), *flag("mode", mode)] if command.command == "evaluate" else []
    again += flag("collection-size", ",".join(map(str, sizes))) if sizes else []

    async def work(run: Run) -> dict:
        done = {size: await _compare(run, sources, split, mode, size) for size in sizes or (None,)}
        if then:
            then(run, done[None])
        scores = {size: one["scores"] for size, one in done.items()}
        found = {"collection sizes": scores, "split": split, "mode": mode} if sizes else {split: scores[None]}
        return {**found, "noise": {split: next(iter(done.values()))["noise"]}}

    def deployed(settings: Config) -> dict[str, Deployed]:
        collected = len(folds(settings, split)[0][0]) * settings.collection_passes
        if (most := max(sizes, default=0)) > collected:
            raise UserError(f"--collection-size {most}: {collected} episodes are collected (more with --collection-passes)")
        explained = len(_with_experience(settings, sources)) if not sizes and mode == "static" else 0
        return {split: compared(settings, split, len(set(sources) - {NO_MEMORY}), explained, len(sizes) or 1)}

    return _carry_out(command, work, deployed, again, searches=0)


def leaderboard(command) -> int:
    """Compare the baselines and a domain's designs, or those that are named, by one protocol; write the leaderboard."""
    settings = RunFolder.open(Path(command.resume)).config() if command.resume else {}
    if settings and any(settings.get(name) != value for name, value in {**board.PROTOCOL, "tasks": 0, "test_tasks": 0}.items()):
        raise UserError(f"{command.resume} is no run of a leaderboard: its settings are others")
    env = settings.get("env") or command.env or Config.env
    envs.domain_class(env)
    own = {name: _source(path) for name, path in board.contributed(env).items()}
    known = {**own, **{name: baseline(name) for name in baselines()}}
    if taken := set(own) & set(baselines()):
        raise UserError(f"designs/{env}/{min(taken)}.py has the name of a baseline: choose another")
    if wrong := [name for name in command.design or () if name not in known]:
        raise UserError(f"no design {wrong[0]!r} in designs/{env}/, and no baseline: choose from {', '.join(known)}")
    command.split, command.mode, command.collection_size = "test", "static", ()
    command.design = list(dict.fromkeys([NO_MEMORY, *(command.design or [*baselines(), *known])]))
    if not command.resume:
        if wrong := [name for name in config.given(command) if name not in (*SHAPELESS, *PAPER_MODELS, "env")]:
            raise UserError(f"a leaderboard has one protocol: leave out --{wrong[0].replace('_', '-')}")
        vars(command).update(board.PROTOCOL)
    board.check()  # before anything is measured

    def keep(run: Run, done: dict) -> None:
        board.keep(env, run.config.agent_model, run.models.totals()["usd"], done, known)
        run.display.log(f"written: {recorded.DESIGNS / 'README.md'}")

    return evaluate(command, {name: known[name] for name in command.design}, keep)


def _with_experience(settings: Config, names: Collection[str]) -> list[str]:
    """The memories whose scores after no episode and after a single one are shown beside the score after all."""
    left_out = {"none": names, "learned": baselines(), "all": [NO_MEMORY]}[settings.experience]
    return [name for name in names if name not in left_out]


def ablation(command) -> int:
    """Learn with each sampling rule, seed by seed. The rules share all episodes of the same seed."""
    if command.seeds < 1:
        raise UserError("--seeds must be at least 1")
    known, runs = None, command.seeds * len(alma.SAMPLING_RULES)

    def deployed(settings: Config, runs: int = 1) -> dict[str, Deployed]:
        tested = compared(settings, "test", 1, len(_with_experience(settings, [LEARNED])))
        one_run = {"learning": searched(settings), "test": tested}.items()
        # Runs with the same seed share what no memory plays.
        return {split: replace(one, designs=runs * one.designs, passes=runs * one.passes) for split, one in one_run}

    async def work(run: Run) -> dict:
        if known:  # the run before, with the same seed
            run.store.copy_episodes(known / "store.sqlite")
        return await _learn(run, ["test"])

    root, *how = _open(command, lambda settings: deployed(settings, runs), flag("seeds", command.seeds), runs)
    settings = config.from_json(root.config())
    results: dict[str, list[dict]] = {rule: [] for rule in alma.SAMPLING_RULES}
    for seed in range(settings.seed, settings.seed + command.seeds):
        known = None
        for rule in alma.SAMPLING_RULES:
            path, own = root.path / f"{rule}-{seed}", asdict(replace(settings, sampling=rule, seed=seed))
            begun = (path / "config.json").is_file()  # else a kill may have left an empty folder
            folder = RunFolder.open(path) if begun else RunFolder.at(path, own, exist_ok=True)
            results[rule].append(_do(command, folder, *how, work, deployed))
            known = path
    write_json(root.path / "ablation.json", results)
    text = json.dumps(results) if command.json else f"{ablation_table(results)}\nrun folder: {root.path}"
    return _print_result(text, root.path)


async def _learn(run: Run, splits: Iterable[str] = (), others: Iterable[str] = ()) -> dict:
    """Run the learning loop, then compare the learned design with `others`, which are baselines, on these task sets."""
    archive = await alma.learn(run)
    best, f0 = archive.best(), archive.f0
    if best is None:
        raise InfrastructureError("no candidate passed verification: the archive is empty (see dropped/)")
    finalists = [{"id": one.id, "candidate": one.candidate, "search": one.lead(f0), "fresh": one.fresh, "final": one.final}
                 for one in archive.finalists(run.config.finalists)]  # fmt: skip
    result = {"learned": best.id, "candidate": best.candidate, "score": best.score, "no_memory": f0,
              "designs": len(archive.evaluated()), "objective": run.config.objective, "finalists": finalists,
              "noise": {"learning": await run.luck("learning")}}  # fmt: skip
    memories = {**{name: baseline(name) for name in others}, LEARNED: run.folder.code(best.id)}
    for split in splits:
        done = await _compare(run, memories, split, "static" if split == "test" else "dynamic")
        result[split], result["noise"][split] = done["scores"], done["noise"]
    return result


def _says(outcomes: Iterable[dict]) -> dict:
    """An example of what the learned memory said: the first of its texts that is not empty, cut."""
    for one in outcomes:
        if (text := one["retrieved"]) not in (None, "", [], {}):
            text = text if isinstance(text, str) else json.dumps(text, indent=1, ensure_ascii=False)
            return {"says": {"task": one["task"], "text": text[:4000]}}
    return {}


async def _compare(run: Run, designs: dict[str, str], split: str, mode: str, size: int | None = None) -> dict:
    """Scores of designs (name: code) on one task set, each against the best other, and what chance alone does there.

    The same is kept in results-*.json. `size`: how many of the collected episodes they learn from; None: all, and in
    static mode it is also shown what some have from experience.
    """
    run.display.stage(f"{split} set, {mode} mode" + ("" if size is None else f", {size} episodes collected"))
    how = {} if size is None else {"learned": slice(size)}
    found = [run.score(split, name, code, mode, **how) for name, code in designs.items()]
    noise, *found = await sandbox.side_by_side([run.luck(split, mode, next(iter(designs.values()))), *found])
    scores = dict(zip(designs, found, strict=True))
    shown = _with_experience(run.config, designs) if size is None and mode == "static" else []
    found = await sandbox.side_by_side(run.experience(split, name, designs[name]) for name in shown)
    experiences = {name: {"experience": one} for name, one in zip(shown, found, strict=True)}
    results = {}
    for name, score in scores.items():
        design, lead = alma.design_id(designs[name]), None
        others = [other for other in scores if other not in (name, NO_MEMORY)]
        if name != NO_MEMORY and others:
            best = max(others, key=lambda other: scores[other].mean)
            difference, *interval = against(score, scores[best])  # paired
            lead = {"name": best, "difference": difference, "interval": interval}
        results[name] = {**score.summary(), "id": design, **run.memory_cost(design, split), "against_best": lead,
                         "tasks": score.tasks(), **experiences.get(name, {})}  # fmt: skip
    done = {"labels": run.labels(), "noise": noise, "scores": results}
    suffix = "" if size is None else f"-{size}"
    write_json(run.folder.path / f"results-{split}-{mode}{suffix}.json", done, indent=None)
    return done


def _carry_out(command, work: Callable, deployed: Callable, again: Sequence[str] = (), searches: int = 1) -> int:
    """Do `work` in a run folder and print its result, for the arguments see `_open` and `_do`."""
    folder, *how = _open(command, deployed, again, searches)
    result = _do(command, folder, *how, work, deployed)
    return _print_result(json.dumps(result) if command.json else summary(result), folder.path)


def _open(command, deployed: Callable, again: Sequence[str], searches: int) -> tuple[RunFolder, dict, str]:
    """A new run folder or that of `--resume`, what is changed in its settings, and the command that resumes it.

    `deployed(settings)`: what is deployed on each task set, which is shown and asked about where it costs something;
    `again`: arguments that `--resume` needs too; `searches`: how often the learning loop is run.
    """
    given = config.given(command) if command.resume else {}
    if command.resume:
        if fixed := [name for name in given if name not in ("budget_usd", "budget_tokens", "scheduler")]:
            raise UserError(f"--resume keeps the run's own settings: leave out --{fixed[0].replace('_', '-')}")
        folder = RunFolder.open(Path(command.resume))
        began = (shlex.split(folder.config().get("about", {}).get("command", "")) + [command.command] * 3)[2]
        if began != command.command and (began, command.command) != ("learn", "reproduce"):
            raise UserError(f"{folder.path} was begun by `{began}`: resume it with that command")
        folder.check_code(command.anyway)
    else:
        settings, seeds = complete(_with_recording(command, searches)), getattr(command, "seeds", 1)
        for split in deployed(settings):
            folds(settings, split)  # raises UserError where the domain has no such set
        ask_before_paying(settings, deployed, designs_of(settings.steps) * searches, command.yes, seeds)
        name = f"ablation-{settings.env}" if command.command == "ablation" else settings.env
        folder = RunFolder.create(Path(command.runs), name, settings.agent_model, asdict(settings), command.typed)
    changes = (part for name, value in given.items() for part in flag(name, value))
    return folder, given, command_line(command.command, *again, *flag("resume", folder.path), *changes)


def _print_result(text: str, folder: Path) -> int:
    try:
        print(text, flush=True)
        return 0
    except BrokenPipeError:
        raise
    except OSError as error:
        kept = f"the result is kept in {folder}"
        raise InfrastructureError(f"standard output cannot be written: {error.strerror}; {kept}") from None


def _with_recording(command, searches: int = 1) -> Config:
    """The settings that the flags give; those of a recorded search are the defaults where it is replayed: with
    `--meta-model recorded` or `--recording`, and without a key where the domain has a recording. Raises UserError."""
    settings = config.from_flags(command)
    wanted = bool(settings.recording) or settings.meta_model == RECORDED
    if settings.recording and settings.meta_model not in ("", RECORDED):
        raise UserError(f"--recording is replayed by --meta-model {RECORDED}, not by {settings.meta_model}")
    if wanted and searches != 1:
        raise UserError("a recording is one search: learn and reproduce replay it, no other command does")
    folder = settings.recording or recorded.find(settings.env, settings.seed)
    if not wanted and (searches != 1 or not folder or settings.meta_model or Keys.read()):
        return settings
    defaults = settings_of(Path(folder), settings.env, _models(settings)["agent_model"]) if folder else {}
    return replace(config.from_flags(command, defaults), meta_model=RECORDED, recording=str(folder or ""))


def complete(settings: Config) -> Config:
    """The settings with the defaults that depend on keys, models and the domain. Raises UserError."""
    domain = envs.domain_class(settings.env)
    if settings.agent_style not in agent.STYLES:
        raise UserError(f"unknown --agent-style {settings.agent_style!r}: choose from {', '.join(agent.STYLES)}")
    if settings.race and settings.objective == "experience":
        raise UserError("--race compares scores: it cannot go with --objective experience")
    if settings.constrain_actions and settings.agent_style != "act":
        raise UserError("--constrain-actions leaves no room for thoughts: use it with --agent-style act")
    models, paper = _models(settings), config.PAPER
    player, offline_agent = ModelSpec.parse(models["agent_model"]), models["agent_model"] == OFFLINE
    local = player.at_endpoint and is_local(player.base_url or Keys.read().base_url)
    by_writer = config.STAND_INS if models["meta_model"] in (OFFLINE, RECORDED) else paper
    by_agent = config.STAND_INS if offline_agent else paper
    passes, test_passes = domain.offline_passes if offline_agent else (paper["passes"], paper["passes"])
    defaults = {"steps": by_writer["steps"], **{name: by_agent[name] for name in ("folds", "collection_passes")},
                "passes": passes, "test_passes": settings.passes or test_passes,
                "final_passes": max(settings.passes or passes, paper["passes"]),
                "workers": config.default_workers(0 if offline_agent else settings.in_flight, local),
                "show_admissible": offline_agent}  # fmt: skip
    return replace(settings, **models, **{name: getattr(settings, name) or value for name, value in defaults.items()})


def _models(settings: Config) -> dict[str, str]:
    """The model of each role. Default: the paper's; without a key and a base URL, a stand-in."""
    models = PAPER_MODELS if Keys.read() else dict.fromkeys(PAPER_MODELS, OFFLINE)
    return {role: getattr(settings, role) or model for role, model in models.items()}


def _do(command, folder: RunFolder, overrides: dict, resume: str, work: Callable, deployed: Callable) -> dict:
    """What `work(run)` returns in a run; kept in score.json. An error that stops it says how to resume."""

    def report_error(loop, context: dict) -> None:  # suppress follow-up errors once the run is stopping
        error = context.get("exception")
        if not isinstance(error, UserError | InfrastructureError | BudgetError) and not machine_fault(error):
            loop.default_exception_handler(context)

    async def in_run() -> dict:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        asyncio.get_running_loop().set_exception_handler(report_error)
        async with Run(folder, command.plain, overrides, command.command) as run:
            run.introduce()
            run.display.plan(episodes_of(run.config, deployed(run.config)))
            return {**await work(run), "env": run.config.env, "labels": run.labels(),
                    "models": run.config.models(), "folder": str(folder.path)}  # fmt: skip

    try:
        result = asyncio.run(in_run())
        write_json(folder.path / "score.json", result, indent=None)
        write_report(folder.path)
        return result
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise KeyboardInterrupt(f"resume with: {resume}") from None
    except Exception as error:
        fault = str(error) if isinstance(error, InfrastructureError | BudgetError) else machine_fault(error)
        if not fault:
            raise
        raise InfrastructureError(f"{fault}\nresume with: {resume}") from error


def baselines() -> list[str]:
    """The names of all baselines: the files in `baselines/`, no memory first."""
    return sorted((path.stem for path in BASELINES.glob("*.py")), key=lambda name: (name != NO_MEMORY, name))


def baseline(name: str) -> str:
    return (BASELINES / f"{name}.py").read_text(encoding="utf-8")


def find_design(name: str, env: str) -> str:
    """The code of a design: a file, RUN/ID of an archive (or RUN/7.1, its name), a baseline, or a file in `designs/ENV/`."""
    envs.domain_class(env)
    path, kept = Path(name), recorded.DESIGNS / env / f"{name}.py"
    ids = {one.get("candidate"): one["id"] for one in RunFolder(path.parent).archive()}
    archived = path.parent / "designs" / str(ids.get(path.name, path.name)) / "design.py"
    if path.is_file():
        return _source(path)
    if archived.is_file():
        return archived.read_text(encoding="utf-8")
    if name in baselines():
        return baseline(name)
    if kept.is_file():
        return _source(kept)
    names = ", ".join([*baselines(), *board.contributed(env)])
    raise UserError(f"no baseline {name!r}, no file and no RUN/ID: choose from {names}")


def _source(path: Path) -> str:
    """The text of a design's file, in the encoding that it declares."""
    try:
        return read_source(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def export(command) -> None:
    run, folder = read_run(command.folder), RunFolder.open(Path(command.folder))
    folder.config()  # raises UserError where it is damaged
    node = next((one for one in run.evaluated if command.id in (one.id, one.name)), None)
    if node is None:
        ids = ", ".join(f"{one.name} ({one.id})" for one in run.evaluated) or "none"
        raise UserError(f"no design {command.id!r} in {run.path}; it has {ids}")
    facts = [*about_design(run, node), f"settings: {json.dumps(run.config)}"]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in facts)
    write_atomic(Path(command.file), f"{comment}\n{folder.code(node.id)}")
    print(command.file)


def record(command) -> None:
    print(*write_recording(Path(command.folder), Path(command.recording), command.by, command.force), sep="\n")


def check(command) -> int:
    source = _source(Path(command.file))
    tasks = [task for task in envs.domain_class(command.env).tasks() if task.split == "learning"][:3]
    episodes = (agent.Episode(command.env, task.id, task.seed, OFFLINE, show_admissible=True) for task in tasks)
    trajectories = [agent.play(episode).trajectory for episode in episodes]
    result = asyncio.run(sandbox.check(source, trajectories, OfflineTools(), unsafe=command.unsafe_sandbox))
    print(json.dumps(result) if command.json else "\n".join(f"{key}: {json.dumps(value)}" for key, value in result.items()))
    return 0 if result["status"] == "ok" else 1


class OfflineTools:
    """A design's tools with the stand-ins behind them."""

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return standins.chat("memory", messages, schema, 0)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return standins.embed(texts)


def doctor(command) -> int:
    """What this machine has for runs with these settings, on one domain or on all."""
    settings = _with_recording(command)
    models = _models(settings)
    in_flight = 0 if models["agent_model"] == OFFLINE else settings.in_flight
    settings = replace(settings, **models, workers=settings.workers or config.default_workers(in_flight))
    lines = examine(settings, [command.env] if command.env else list(envs.DOMAINS))
    can_start, width = all(line.status != "missing" for line in lines), max(len(line.check) for line in lines)
    if command.json:
        print(json.dumps({"ok": can_start, "checks": [asdict(line) for line in lines]}))
    else:
        for line in lines:
            print(f"{line.status:8} {line.check:{width}}  {line.found}")
            if line.do:
                print(f"{'':8} {'':{width}}  -> {line.do}")
    return 0 if can_start else 1


def tasks(command) -> None:
    domain = envs.domain_class(command.env)
    rows = [{"id": t.id, "split": t.split, "family": t.family, "source": t.source} for t in domain.tasks()]
    lines = [f"{row['split']:9} {row['source']:10} {row['family']:28} {row['id']}" for row in rows]
    counts = [f"{sum(row['split'] == split for row in rows)} {split}" for split in ("learning", "test", "shift")]
    lines += [f"{command.env}: {', '.join(counts)}", *domain.notes()]
    print(json.dumps(rows) if command.json else "\n".join(lines))


def play(command) -> None:
    domain = envs.domain_class(command.env)
    known = [task.id for task in domain.tasks()]
    task = command.task or known[0]
    if task not in known:
        raise UserError(f"unknown task {task!r} of {command.env}: python alma.py tasks --env {command.env} lists them")
    env, done = domain(task), False
    text, info = env.reset(seed=command.seed)
    print(f"{task}\n\n{info['goal']}\n\nCommands: quit, or an action.", end="")
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


def data(command) -> None:
    boxoban = ["python", "-m", "minihack.scripts.download_boxoban_levels"]
    downloads = {  # command, what it downloads, the variable that names the folder, and where to get it by hand
        "alfworld": (["alfworld-download"], "the official games (2 GB)", "ALFWORLD_DATA", "alfworld/alfworld"),
        "minihack": (boxoban, "Boxoban's levels", "BOXOBAN_LEVELS", "google-deepmind/boxoban-levels"),
    }
    if command.env not in downloads:
        raise UserError(f"nothing to download for {command.env!r}: choose from {', '.join(downloads)}")
    program, what, variable, source = downloads[command.env]
    by_hand = f"get them from github.com/{source} on another machine, and set {variable} to their folder"
    try:
        socket.create_connection(("github.com", 443), timeout=10).close()
    except OSError as error:
        raise UserError(f"cannot download {what}: cannot reach github.com ({error}); {by_hand}") from None
    if subprocess.run([str(Path(sys.executable).parent / program[0]), *program[1:]], check=False).returncode:
        raise UserError(f"the download of {what} failed; {by_hand}")


def report(command) -> None:
    print(*write_report(Path(command.folder)), sep="\n")


def compare(command) -> None:
    runs = [read_run(path) for path in command.folders]
    if command.plot and (kind := command.plot.suffix.lower()) not in (".png", ".svg"):
        raise UserError(f"--plot {command.plot} must end in .svg or .png")
    if command.plot and (drawn := comparison.plot(runs)):
        write_atomic(command.plot, getattr(drawn, kind[1:]))
    print(comparison.table(runs))
