"""The command line of `python alma.py`. A command's function is imported when it is called: `--help` is quick."""

import argparse
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path

from domains import DOMAINS
from errors import BudgetError, InfrastructureError, UserError, machine_fault
from harness import config


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str):
        self.exit(2, f"alma: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 done, 1 a check failed, 2 the user's mistake, 3 stopped, 130 interrupted."""
    # A standard stream that is closed becomes /dev/null, or the next file that is opened would get its number.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    sys.stdin.reconfigure(errors="replace")  # where a stream takes only ASCII
    sys.stdout.reconfigure(errors="replace")
    message = ""
    try:
        try:
            command = parse(arguments)
            code = getattr(importlib.import_module("harness.commands"), command.command)(command) or 0
        except SystemExit as end:  # from the parser, which has printed help or an error
            code = end.code
        sys.stdout.flush()
    except UserError as error:
        code, message = 2, f"alma: {error}"
    except (InfrastructureError, BudgetError) as error:
        code, message = 3, f"alma: stopped: {error}"
    except ModuleNotFoundError as error:
        if importlib.util.find_spec("gymnasium"):
            raise
        lacks = f"{sys.executable} lacks its packages ({error.name})"
        code, message = 2, f"alma: {lacks}: make install, then .venv/bin/python alma.py ..."
    except BrokenPipeError:  # nobody reads the output any more
        code = 1
    except KeyboardInterrupt as stop:  # a run adds the line that resumes it
        code, message = 130, "\n".join(["alma: interrupted", *stop.args])
    except Exception as error:
        if not (fault := machine_fault(error)):
            raise
        try:
            print(flush=True)
        except OSError as unwritten:
            fault = f"standard output cannot be written: {unwritten.strerror}"
        code, message = 3, f"alma: stopped: {fault}"
    finally:  # else Python flushes at its end and prints a traceback
        last = f"{message}\n" if message else ""
        for number, stream, text in ((2, sys.stderr, last), (1, sys.stdout, "")):
            try:
                print(end=text, file=stream, flush=True)
            except OSError:
                _discard(number)
    return code


def _discard(number: int) -> None:
    """Point a standard stream to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `command` of the result names a function of `harness.commands`, `typed` is the line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = Parser(prog="alma.py", description="ALMA: a meta agent writes the memory of another agent, tries it on real "
                    "games, and breeds better ones. With neither a key nor a base URL, stand-ins play all models.")  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (summary, *options) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        for names, option in options:
            sub.add_argument(*names, **option)
    return parser.parse_args(arguments, argparse.Namespace(typed=config.command_line(*map(str, arguments))))


def argument(*names: str, **options) -> tuple[tuple[str, ...], dict]:
    return names, options  # for one `add_argument`


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    if not re.fullmatch(r" *\d+ *(, *\d+ *)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,10,20")
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


ENV = argument("--env", required=True, help=f"{', '.join(DOMAINS)}, or module:Class")
JSON = argument("--json", action="store_true", help="print JSON and nothing else on standard output")
FOLDER = argument("folder", metavar="RUN", help="a run folder")
SETTINGS = tuple(config.arguments())
RUN = (*SETTINGS,  # of the commands that play
    argument("--runs", default="runs", metavar="FOLDER", help="where run folders are made (default runs)"),
    argument("--resume", metavar="RUN", help="go on with this run folder"),
    argument("--anyway", action="store_true", help="resume a run although the code has changed since"),
    argument("--plain", action="store_true", help="plain lines instead of a progress bar"),
    argument("--yes", action="store_true", help="start a paid run without asking"), JSON)  # fmt: skip

COMMANDS = {  # name of the command and of its function in `harness.commands`: summary, arguments
    "reproduce": ("Learn a memory design, then compare it with the baselines on the test set.", *RUN),
    "learn": ("Run the learning loop and keep every design in an archive.", *RUN),
    "evaluate": ("Compare memory designs (files, RUN/ID of an archive, baselines) on a task set.", *RUN,
        argument("--design", action="append", required=True, metavar="DESIGN",
                 help="FILE, RUN/ID, a baseline, or learned"),
        argument("--split", choices=("learning", "test", "shift"), default="test", help="default test"),
        argument("--mode", choices=("static", "dynamic"), default="static", help="default static"),
        argument("--collection-size", type=sizes, default=(), metavar="N,N,...",
                 help="learn from the first N collected episodes only, for each N: 0,10,20 (default: from all)")),
    "leaderboard": ("Compare all designs in designs/ENV and the baselines by one protocol.", *RUN,
        argument("--design", action="append", metavar="NAME",
                 help="NAME.py in designs/ENV (default: all, and the baselines)")),
    "ablation": ("Learn with each sampling rule at equal budget over several seeds.", *RUN,
        argument("--seeds", type=int, default=3, metavar="N", help="from --seed on (default 3)")),
    "report": ("Write report.html, report.md and the plots of a run again.", FOLDER),
    "compare": ("Compare runs side by side: models, seeds, ablations.",
        argument("folders", metavar="RUN", nargs="+", help="run folders"),
        argument("--plot", type=Path, metavar="FILE", help="write a plot too: .svg or .png")),
    "export": ("Write one design of a run to a file; a comment in it says where it comes from.", FOLDER,
        argument("id", metavar="ID", help="id of a design in its archive"),
        argument("file", metavar="FILE", help="where to write it")),
    "record": ("Record a finished search, so that anybody can replay it: its answers, its learned design.", FOLDER,
        argument("recording", metavar="FOLDER", help="where to: designs/ENV, or designs/ENV/seed-N for a further seed"),
        argument("--by", default="", metavar="TEXT", help="who answered as the meta agent (default: the model's name)"),
        argument("--force", action="store_true", help="replace a recording that is there")),
    "check": ("Run one design file through the sandbox on a few episodes; exit code 0 if it works.",
        argument("file", metavar="FILE", help="a memory design, ours or in the authors' form"),
        argument("--env", default="babaisai", help="domain of the episodes (default babaisai)"),
        argument("--unsafe-sandbox", action="store_true", help="go on although a layer is missing"), JSON),
    "play": ("Play a task in the terminal: the quickest way to understand a domain.", ENV,
        argument("--task", help="id of a task (default: the first)"),
        argument("--seed", type=int, default=0, help="seed of the episode (default 0)")),
    "tasks": ("List a domain's tasks, their splits and where they come from.", ENV, JSON),
    "doctor": ("Check this machine and whether each model answers; exit code 0 if a run can start.", *SETTINGS, JSON),
    "data": ("Download a domain's data with its package's own command.",
        argument("--env", required=True, help="whose data: alfworld or minihack")),
}  # fmt: skip
