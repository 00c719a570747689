"""The commands of `python alma.py`: what each flag is, and what each command does.

Heavy modules are imported inside the commands that need them, so that `--help` answers at once.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import standins
from errors import UserError
from harness import config

BASELINES = Path(__file__).parents[1] / "baselines"


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str):
        self.exit(2, f"alma: {message} (see {self.prog} --help)\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `run` of the result is the function that carries it out."""
    parser = Parser(
        prog="alma.py",
        description="ALMA: a meta agent writes the memory of another agent, tries it on real games, "
        "and breeds better ones. Without a key and without a base URL, offline stand-ins play every model.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (function, flags) in COMMANDS.items():
        summary = function.__doc__.splitlines()[0]
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.set_defaults(run=function)
        flags(sub)
    return parser.parse_args(arguments)


# --- commands that run the method: see experiments.py -------------------------------------------


def learn(command) -> int:
    """Run the learning loop and keep every design in an archive."""
    from harness import commands as experiments

    return experiments.learn(command)


def reproduce(command) -> int:
    """Learn a memory design, then test it beside the baselines."""
    from harness import commands as experiments

    return experiments.reproduce(command)


def evaluate(command) -> int:
    """Compare memory designs on a task set: files, RUN/ID of an archive, or names of baselines."""
    from harness import commands as experiments

    return experiments.evaluate(command)


def ablation(command) -> int:
    """Learn with archive, greedy and random sampling at equal budget over several seeds."""
    from harness import commands as experiments

    return experiments.ablation(command)


def baseline(name: str) -> str:
    """The code of a baseline."""
    path = BASELINES / f"{name}.py"
    if not path.is_file():
        raise UserError(f"no baseline {name!r}: choose from {', '.join(sorted(p.stem for p in BASELINES.glob('*.py')))}")
    return path.read_text(encoding="utf-8")


def find_design(name: str) -> str:
    """The code of a design: a file, RUN/ID of a run's archive, or the name of a baseline."""
    path = Path(name)
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    archived = path.parent / "designs" / path.name / "design.py"
    if archived.is_file():
        return archived.read_text(encoding="utf-8")
    if "/" in name or name.endswith(".py"):
        raise UserError(f"no such design: {name} is neither a file nor RUN/ID")
    return baseline(name)


# --- commands that look at one thing ------------------------------------------------------------


def tasks(command) -> int:
    """List a domain's tasks, their splits and where they come from."""
    import envs

    domain = domain_of(command.env)
    rows = [{"id": t.id, "split": t.split, "family": t.family, "source": t.source} for t in domain.tasks()]
    if command.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['split']:9} {row['source']:10} {row['family']:28} {row['id']}")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("learning", "test", "shift")}
    print(f"{command.env}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    for note in envs.notes(domain):
        print(note)
    return 0


def play(command) -> int:
    """Play a task in the terminal: the quickest way to understand a domain."""
    import envs

    domain = domain_of(command.env)
    known = [task.id for task in domain.tasks()]
    task = command.task or known[0]
    if task not in known:
        raise UserError(f"unknown task {task!r} of {command.env}: python alma.py tasks --env {command.env} lists them")
    env = domain(task)
    text, info = env.reset(seed=command.seed if command.seed is not None else 0)
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


def check(command) -> int:
    """Run one design file through the sandbox on a few episodes; exit code 0 if it works."""
    path = Path(command.file)
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    from agent import Episode
    from agent import play as play_episode
    from sandbox import check as check_in_sandbox

    env = command.env or "babaisai"
    chosen = [task for task in domain_of(env).tasks() if task.split == "learning"][:3]
    played = [play_episode(Episode(env, task.id, task.seed, config.OFFLINE, show_admissible=True)) for task in chosen]
    trajectories = [one.trajectory for one in played]
    result = asyncio.run(check_in_sandbox(source, trajectories, OfflineTools(), unsafe=command.unsafe_sandbox))
    if command.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {json.dumps(value, ensure_ascii=True)}")
    return 0 if result["status"] == "ok" else 1


def report(command) -> int:
    """Write report.html, report.md and the plots of a run anew."""
    from harness.run_folder import RunFolder
    from report.words import write

    for path in write(RunFolder.open(Path(command.folder)).path):
        print(path)
    return 0


def compare(command) -> int:
    """Put runs side by side: models, seeds, ablations."""
    from harness.run_folder import RunFolder
    from report.compare import compare as compare_runs

    print(compare_runs([RunFolder.open(Path(path)).path for path in command.folders], command.plot))
    return 0


def export(command) -> int:
    """Write one design of a run to a file, with where it comes from in a comment."""
    from harness.run_folder import RunFolder, read_json, write_atomic

    folder = RunFolder.open(Path(command.folder))
    source = folder.design(command.id) / "design.py"
    if not source.is_file():
        known = ", ".join(line["id"] for line in folder.archive() if line.get("state") == "evaluated")
        raise UserError(f"no design {command.id!r} in {folder.path}; it has {known or 'none'}")
    score = read_json(source.parent / "score.json")
    settings = {key: value for key, value in folder.config().items() if key != "about"}
    lines = [
        f"Memory design {command.id}, learned by ALMA on {settings['env']}",
        f"lineage, first design first: {' > '.join(_lineage(folder.archive(), command.id))}",
        f"learning set: {score['mean']:.3f} ± {score['stderr']:.3f} (standard error), "
        f"{score['difference']:+.3f} to no memory",
        f"settings: {json.dumps(settings)}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    write_atomic(Path(command.file), f"{comment}\n{source.read_text(encoding='utf-8')}")
    print(command.file)
    return 0


def _lineage(archive: list[dict], design: str | None) -> list[str]:
    """Ids from the first ancestor to the design."""
    parents = {line["id"]: line.get("parent") for line in archive if line.get("state") == "evaluated"}
    path = []
    while design and design not in path:
        path.append(design)
        design = parents.get(design)
    return path[::-1]


DOWNLOADS = {  # command, what it makes, and where to get that by hand
    "alfworld": (["alfworld-download"], "the official games (2 GB)", "ALFWORLD_DATA", "github.com/alfworld/alfworld"),
    "minihack": (
        ["python", "-m", "minihack.scripts.download_boxoban_levels"],
        "Boxoban's levels",
        "BOXOBAN_LEVELS",
        "github.com/google-deepmind/boxoban-levels",
    ),
}


def data(command) -> int:
    """Download a domain's data with its package's own command."""
    import socket
    import subprocess

    program, what, variable, source = DOWNLOADS[command.env]
    by_hand = f"get them from {source} on a machine that can, and set {variable} to the folder"
    try:
        socket.create_connection(("github.com", 443), timeout=10).close()
    except OSError as error:
        raise UserError(f"cannot download {what}: github.com cannot be reached ({error}); {by_hand}") from None
    if subprocess.run([str(Path(sys.executable).parent / program[0]), *program[1:]], check=False).returncode:
        raise UserError(f"the download of {what} failed; {by_hand}")
    return 0


class OfflineTools:
    """A design's tools with the stand-ins behind them."""

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return standins.chat("memory", messages, schema, 0)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return standins.embed(texts)


def domain_of(name: str):
    """A domain's class; raises UserError where it cannot be had."""
    import envs

    try:
        return envs.domain_class(name)
    except (envs.UnknownDomain, ImportError, AttributeError) as error:
        raise UserError(f"cannot use environment {name!r}: {error}") from None


# --- flags --------------------------------------------------------------------------------------


def _flags_of_a_run(parser) -> None:
    config.add_flags(parser)
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders are made (default runs)")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run folder")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of a progress bar")
    parser.add_argument("--yes", action="store_true", help="start a paid run without asking")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")


def _flags_of_evaluate(parser) -> None:
    _flags_of_a_run(parser)
    parser.add_argument("--design", action="append", required=True, metavar="DESIGN", help="FILE, RUN/ID or a baseline")
    parser.add_argument("--split", choices=("learning", "test", "shift"), default="test", help="default test")
    parser.add_argument("--mode", choices=("static", "dynamic"), default="static", help="default static")
    parser.add_argument(
        "--collection-size",
        type=_sizes,
        default=(),
        metavar="N,N,...",
        help="learn from the first N collected episodes only, for each N: 0,10,20 (default: from all)",
    )


def _sizes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = (-1,)
    if min(sizes) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,10,20")
    return sizes


def _flags_of_tasks(parser) -> None:
    parser.add_argument("--env", required=True, help=f"{', '.join(config.ENVIRONMENTS)}, or module:Class")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _flags_of_play(parser) -> None:
    parser.add_argument("--env", required=True, help=f"{', '.join(config.ENVIRONMENTS)}, or module:Class")
    parser.add_argument("--task", help="id of a task (default: the first)")
    parser.add_argument("--seed", type=int, help="seed of the episode (default 0)")


def _flags_of_check(parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a memory design, ours or in the authors' form")
    parser.add_argument("--env", help="domain of the episodes (default babaisai)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--unsafe-sandbox", action="store_true", help="go on although a layer is missing")


def _flags_of_ablation(parser) -> None:
    _flags_of_a_run(parser)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds, from --seed on (default 3)")


def _flags_of_report(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder")


def _flags_of_compare(parser) -> None:
    parser.add_argument("folders", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot too: .svg or .png")


def _flags_of_export(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("id", metavar="ID", help="id of a design in its archive")
    parser.add_argument("file", metavar="FILE", help="where to write it")


def _flags_of_data(parser) -> None:
    parser.add_argument("--env", required=True, choices=tuple(DOWNLOADS), help="whose data")


COMMANDS = {  # name: what carries it out, its flags
    "reproduce": (reproduce, _flags_of_a_run),
    "learn": (learn, _flags_of_a_run),
    "evaluate": (evaluate, _flags_of_evaluate),
    "ablation": (ablation, _flags_of_ablation),
    "report": (report, _flags_of_report),
    "compare": (compare, _flags_of_compare),
    "export": (export, _flags_of_export),
    "check": (check, _flags_of_check),
    "play": (play, _flags_of_play),
    "tasks": (tasks, _flags_of_tasks),
    "data": (data, _flags_of_data),
}
