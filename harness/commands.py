"""The commands that run the method: learn, evaluate, reproduce, ablation.

Promises: each works in a run folder of its own, can be interrupted at any point and ends with the line
that goes on with it; results are written before they are printed. What a run costs is said and asked
about before it starts.

Try it: `python alma.py evaluate --env babaisai --design no_memory --design trajectory_retrieval`
"""

import asyncio
import functools
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import envs
from archive import SAMPLINGS
from errors import BudgetError, InfrastructureError, UserError
from evaluate import folds
from harness import config
from harness.cli import baseline, domain_of, find_design
from harness.config import Config
from harness.estimate import ask_before_paying, designs_of
from harness.run import Run, design_id
from harness.run_folder import RunFolder, is_full, write_json, write_report
from report.words import ablation_table, summary
from score import Score, against

LEARNED = "learned design"
NO_MEMORY = "no_memory"
HUMAN_MADE = (NO_MEMORY, "trajectory_retrieval", "reasoning_bank", "dynamic_cheatsheet", "g_memory")


@dataclass(frozen=True)
class Experiment:
    """What a command does in a run folder."""

    work: Callable[[Run], Awaitable[dict]]  # the result that is printed, and kept in score.json
    designs: Callable[[Config], dict[str, int]]  # for each task set, how many designs it evaluates there
    again: str  # the command line that goes on, without `--resume RUN`
    writes: int = 1  # times that the learning loop is run


def learn(command) -> int:
    return _carry_out(command, Experiment(_learn, _learning, "learn"))


def reproduce(command) -> int:
    return _carry_out(command, Experiment(_reproduce, _whole_protocol, "reproduce"))


def evaluate(command) -> int:
    sources = {name: find_design(name) for name in command.design}  # a wrong name is said before anything is made
    sizes = command.collection_size or (None,)
    again = [f"--design {name}" for name in command.design] + [f"--split {command.split} --mode {command.mode}"]
    if command.collection_size:
        again.append(f"--collection-size {','.join(map(str, sizes))}")

    async def work(run: Run) -> dict:
        return await _evaluate(run, sources, command.split, command.mode, sizes)

    def counted(settings: Config) -> dict[str, int]:
        collected = len(folds(settings, command.split)[0][0]) * settings.collection_passes
        if (most := max(command.collection_size, default=0)) > collected:
            raise UserError(f"--collection-size {most}: {collected} episodes are collected (--collection-passes)")
        return {command.split: len(sources) * len(sizes)}

    return _carry_out(command, Experiment(work, counted, f"evaluate {' '.join(again)}", writes=0))


# --- what they do in a run -----------------------------------------------------------------------


def _learning(settings: Config) -> dict[str, int]:
    return {"learning": designs_of(settings.steps)}


def _whole_protocol(settings: Config) -> dict[str, int]:
    tested = dict.fromkeys(("test", "shift") if _has_shift(settings) else ("test",), len(HUMAN_MADE) + 1)
    return {**_learning(settings), **tested}


def _has_shift(settings: Config) -> bool:
    return any(task.split == "shift" for task in envs.domain_class(settings.env).tasks())


async def _learn(run: Run) -> dict:
    from alma import learn

    archive = await learn(run)
    best = archive.best()
    if best is None:
        raise InfrastructureError("no candidate passed verification: the archive is empty (see dropped/)")
    return {"learned": best.id, "score": best.score, "no_memory": archive.f0, "designs": len(archive.evaluated())}


async def _reproduce(run: Run) -> dict:
    """The paper's protocol: the learned design and the baselines, on the test set and on the shift set."""
    result = await _learn(run)
    designs = {name: baseline(name) for name in HUMAN_MADE} | {LEARNED: _learned_code(run, result)}
    result["test"] = await _compare(run, designs, "test", "static")
    if _has_shift(run.config):
        result["shift"] = await _compare(run, designs, "shift", "dynamic")
    return result


async def _test_learned(run: Run, known: Path | None = None) -> dict:
    """Learn, then only the learned design on the test set; episodes that the run folder `known` has are not played again."""
    if known:
        run.store.copy_episodes(known / "store.sqlite")
    result = await _learn(run)
    return {**result, "test": await _compare(run, {LEARNED: _learned_code(run, result)}, "test", "static")}


def _learned_code(run: Run, learned: dict) -> str:
    return (run.folder.design(learned["learned"]) / "design.py").read_text(encoding="utf-8")


async def _evaluate(run: Run, designs: dict[str, str], split: str, mode: str, sizes: tuple) -> dict:
    results = {size: await _compare(run, designs, split, mode, size) for size in sizes}
    whole = results.pop(None, None)
    return {split: whole} if whole else {"collection sizes": results, "split": split, "mode": mode}


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


# --- run folders ---------------------------------------------------------------------------------


def _carry_out(command, experiment: Experiment) -> int:
    """Do an experiment in a new run folder, or go on in the one that `--resume` names."""
    folder, overrides = _folder(command, experiment)
    again = [experiment.again, f"--resume {folder.path}"]
    again += [f"--{name.replace('_', '-')} {value}" for name, value in overrides.items()]
    stopped, result = _do(folder, overrides, command, experiment, " ".join(again))
    if not stopped:
        _print(command, result)
    return stopped


def _print(command, result: dict) -> None:
    print(json.dumps(result) if command.json else summary(result))


def _do(folder: RunFolder, overrides: dict, command, experiment: Experiment, again: str) -> tuple[int, dict]:
    """Do it in a folder: exit code and result; a run that stops says how it goes on."""
    try:
        result = asyncio.run(_in_run(folder, overrides, command, experiment))
        write_json(folder.path / "score.json", result)
        write_report(folder.path)
        return 0, result
    except (InfrastructureError, BudgetError, OSError) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        print(f"alma: stopped: {error}\nresume with: python alma.py {again}", file=sys.stderr)
        return 3, {}
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"alma: interrupted\nresume with: python alma.py {again}", file=sys.stderr)
        return 130, {}


async def _in_run(folder: RunFolder, overrides: dict, command, experiment: Experiment) -> dict[str, Any]:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    asyncio.get_running_loop().set_exception_handler(_stumble)
    async with Run(folder, command.plain, overrides, command.command) as run:
        run.introduce()
        run.plan(experiment.designs(run.config))
        done = await experiment.work(run)
        about = {"env": run.config.env, "labels": run.labels(), "models": run.config.models()}
        return {**done, **about, "folder": str(folder.path)}


def _stumble(loop, context: dict) -> None:
    """A run that stops says why, once: over what its other tasks stumble meanwhile is no news."""
    if not isinstance(context.get("exception"), InfrastructureError | BudgetError):
        loop.default_exception_handler(context)


def _folder(command, experiment: Experiment) -> tuple[RunFolder, dict]:
    """The run folder, and the settings that a resumed run may change."""
    changed = {name: getattr(command, name) for name in ("budget_usd", "budget_tokens", "scheduler")}
    overrides = {name: value for name, value in changed.items() if value is not None}
    if command.resume:
        given = [one.name for one in fields(Config) if getattr(command, one.name, None) is not None]
        fixed = [name for name in given if name not in overrides]
        if fixed:
            raise UserError(f"--resume goes on with the run's own settings: leave out --{fixed[0].replace('_', '-')}")
        return RunFolder.open(Path(command.resume)), overrides
    settings = _settings(command, experiment)
    return RunFolder.create(Path(command.runs), settings.env, settings.agent_model, asdict(settings)), {}


def _settings(command, experiment: Experiment) -> Config:
    """The settings that the flags give, after a look at the domain and a question before it costs."""
    settings = config.from_flags(command)
    domain_of(settings.env)
    designs = experiment.designs(settings)
    for split in designs:
        folds(settings, split)  # a set that is not there is said before anything is made
    ask_before_paying(settings, designs, designs_of(settings.steps) * experiment.writes, command.yes)
    return settings


# --- the ablation --------------------------------------------------------------------------------


def ablation(command) -> int:
    seeds, one = command.seeds, Experiment(_test_learned, _learned_and_tested, "")
    whole = replace(one, designs=lambda settings: _times(_learned_and_tested(settings), 3 * seeds), writes=3 * seeds)
    root, settings = _ablation_folder(command, whole)
    results: dict[str, list[dict]] = {sampling: [] for sampling in SAMPLINGS}
    for seed in range(settings.seed, settings.seed + seeds):
        known = None
        for sampling in SAMPLINGS:
            path = root / f"{sampling}-{seed}"
            own = asdict(replace(settings, sampling=sampling, seed=seed))
            folder = RunFolder.open(path) if path.is_dir() else RunFolder.at(path, own)
            this = replace(one, work=functools.partial(_test_learned, known=known))
            stopped, result = _do(folder, {}, command, this, f"ablation --resume {root} --seeds {seeds}")
            if stopped:
                return stopped
            known = path
            results[sampling].append(result)
    write_json(root / "ablation.json", results)
    if command.json:
        print(json.dumps(results))
        return 0
    print(f"{ablation_table(results)}\nrun folder: {root}")
    return 0


def _learned_and_tested(settings: Config) -> dict[str, int]:
    return {**_learning(settings), "test": 1}


def _times(designs: dict[str, int], factor: int) -> dict[str, int]:
    return {split: count * factor for split, count in designs.items()}


def _ablation_folder(command, experiment: Experiment) -> tuple[Path, Config]:
    """The folder that holds the runs of an ablation, and the settings that they share."""
    if command.resume:
        folder = RunFolder.open(Path(command.resume))
        return folder.path, config.from_json(folder.config())
    settings = _settings(command, experiment)
    folder = RunFolder.create(Path(command.runs), f"ablation-{settings.env}", settings.agent_model, asdict(settings))
    return folder.path, settings
