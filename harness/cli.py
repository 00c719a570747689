"""The command line of `python alma.py`: which commands there are, and the flags of each.

A command's function is imported when it is called, so that `--help` answers at once.
"""

import argparse
import importlib
import os
import shlex
import sys
from pathlib import Path

from domains import DOMAINS
from errors import BudgetError, InfrastructureError, UserError, machine_fault
from harness import config

ENV = f"{', '.join(DOMAINS)}, or module:Class"


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str):
        self.exit(2, f"alma: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 done, 1 a check or comparison failed, 2 the user's mistake, 3 stopped, 130 interrupted."""
    open_standard_streams()
    try:
        try:
            command = parse(arguments)
            code = getattr(importlib.import_module("harness.commands"), command.command)(command)
        except SystemExit as end:  # of the parser: it has printed help, or what is wrong
            code = end.code
        sys.stdout.flush()
        return code
    except UserError as error:
        say(f"alma: {error}")
        return 2
    except (InfrastructureError, BudgetError) as error:
        say(f"alma: stopped: {error}")
        return 3
    except BrokenPipeError:  # the reader of the output has left
        return 1
    except KeyboardInterrupt:
        say("alma: interrupted")
        return 130
    except Exception as error:
        if not (fault := machine_fault(error)):
            raise
        say(f"alma: stopped: {_unwritten() or fault}")
        return 3
    finally:  # Python flushes once more at its end, and would then print a traceback of its own
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                _discard(number)


def _unwritten() -> str:
    """What is wrong with standard output, if it does not take a line."""
    try:
        print(flush=True)
    except OSError as error:
        return f"standard output cannot be written: {error.strerror}"
    return ""


def open_standard_streams() -> None:
    """Make standard input, output and error usable where one is closed or takes no more than ASCII.

    A closed one becomes /dev/null; otherwise the next file that is opened would get its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    sys.stdin.reconfigure(errors="replace")
    sys.stdout.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print a message on standard error, if that takes any."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(2)


def _discard(number: int) -> None:
    """Point a standard stream to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def command_line(*arguments: str) -> str:
    """The command line with these arguments, to be pasted into a shell."""
    script = sys.argv[0] if Path(sys.argv[0]).name == "alma.py" else "alma.py"
    here = Path("alma.py")
    if here.exists() and Path(script).exists() and here.samefile(script):
        script = "alma.py"
    return shlex.join(["python", script, *arguments])


def flag(name: str, value: object) -> list[str]:
    """A flag with its value; a value that looks like a flag has to be attached."""
    value = str(value)
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `command` of the result names a function of `harness.commands`.

    `typed` is the whole line, as it can be pasted into a shell.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = Parser(
        prog="alma.py",
        description="ALMA: a meta agent writes the memory of another agent, tries it on real games, "
        "and breeds better ones. Without a key and without a base URL, offline stand-ins play every model.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (summary, flags) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        flags(sub)
    return parser.parse_args(arguments, argparse.Namespace(typed=command_line(*map(str, arguments))))


def _run(parser) -> None:
    config.add_flags(parser)
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders are made (default runs)")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run folder")
    parser.add_argument("--anyway", action="store_true", help="resume a run although the code has changed since")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of a progress bar")
    parser.add_argument("--yes", action="store_true", help="start a paid run without asking")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")


def _evaluate(parser) -> None:
    _run(parser)
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


def _doctor(parser) -> None:
    config.add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _ablation(parser) -> None:
    _run(parser)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds, from --seed on (default 3)")


def _report(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder")


def _compare(parser) -> None:
    parser.add_argument("folders", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot too: .svg or .png")


def _export(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("id", metavar="ID", help="id of a design in its archive")
    parser.add_argument("file", metavar="FILE", help="where to write it")


def _check(parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a memory design, ours or in the authors' form")
    parser.add_argument("--env", default="babaisai", help="domain of the episodes (default babaisai)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--unsafe-sandbox", action="store_true", help="go on although a layer is missing")


def _play(parser) -> None:
    parser.add_argument("--env", required=True, help=ENV)
    parser.add_argument("--task", help="id of a task (default: the first)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the episode (default 0)")


def _tasks(parser) -> None:
    parser.add_argument("--env", required=True, help=ENV)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _data(parser) -> None:
    parser.add_argument("--env", required=True, help="whose data: alfworld or minihack")


COMMANDS = {  # name of the command and of its function in `harness.commands`: summary, flags
    "reproduce": ("Learn a memory design, then test it beside the baselines.", _run),
    "learn": ("Run the learning loop and keep every design in an archive.", _run),
    "evaluate": ("Compare memory designs on a task set: files, RUN/ID of an archive, or names of baselines.", _evaluate),
    "ablation": ("Learn with each sampling rule at equal budget over several seeds.", _ablation),
    "report": ("Write report.html, report.md and the plots of a run anew.", _report),
    "compare": ("Put runs side by side: models, seeds, ablations.", _compare),
    "export": ("Write one design of a run to a file, with where it comes from in a comment.", _export),
    "check": ("Run one design file through the sandbox on a few episodes; exit code 0 if it works.", _check),
    "play": ("Play a task in the terminal: the quickest way to understand a domain.", _play),
    "tasks": ("List a domain's tasks, their splits and where they come from.", _tasks),
    "doctor": ("Look at what this machine has, and whether each model answers; exit code 0 if a run could start.", _doctor),
    "data": ("Download a domain's data with its package's own command.", _data),
}
