"""The folder of a run: what is written where, so that a kill at any point loses nothing. One process writes at a time."""

import contextlib
import errno
import fcntl
import functools
import gzip
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from errors import InfrastructureError, UserError
from prompts import quote
from report.data import read_lines
from report.page import render

ROOT = Path(__file__).resolve().parents[1]
# What shapes a run's result: the prompts, and all code but the report and the bench.
SHAPING = ("*.py", "domains/*.py", "domains/*.toml", "harness/*.py", "jail/*.py", "models/*.py", "prompts/**/*.*",
           "standins/*.py")  # fmt: skip
TIME = "%Y-%m-%dT%H:%M:%SZ"  # in a run's log and history


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: under a temporary name, then renamed. It is compressed if its name ends with .gz."""
    content = content.encode("utf-8", "replace") if isinstance(content, str) else content
    content = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # report the first error
            temporary.unlink()
        raise _unwritten(f"cannot write {path}", error) from error


def _unwritten(what: str, error: OSError) -> InfrastructureError | UserError:
    """The error to raise for a failed write: only a full disk, or quota, is not the user's mistake."""
    kind = InfrastructureError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
    return kind(f"{what}: {error.strerror}")


def write_json(path: Path, value, indent: int | None = 1) -> None:
    write_atomic(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path):
    """The JSON value of a file; UserError in one line where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def write_report(path: Path, plots: bool = True) -> list[Path]:
    """Write report.html of a run folder, with `plots` also report.md and the figures; returns their paths."""
    files = render(path, plots)
    for name, content in files.items():
        write_atomic(path / name, content)
    return [path / name for name in files]


class RunFolder:
    """One run's folder: config.json, archive.jsonl, designs/<id>/, store.sqlite, reports."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(cls, runs: Path, environment: str, model: str, config: dict, command: str = "") -> "RunFolder":
        """A new folder `<UTC timestamp>-<env>-<model>` under `runs`; `command`: the line that starts the same run."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{environment}-{model.split('@')[0]}"
        first = Path(runs) / re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        for path in (first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000))):
            with contextlib.suppress(FileExistsError):
                return cls.at(path, config, command)
        raise UserError(f"cannot make a run folder {first}: there are too many of this second")

    @classmethod
    def at(cls, path: Path, config: dict, command: str = "", exist_ok: bool = False) -> "RunFolder":
        """A new run in the folder `path`, which must not exist, or with `exist_ok` holds no run yet."""
        try:
            path.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError:
            raise
        except OSError as error:
            raise _unwritten(f"cannot make a run folder {path}", error) from error
        write_json(path / "config.json", {**config, "about": about() | ({"command": command} if command else {})})
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run; UserError where there is none."""
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"no run in {path}: it has no config.json")
        return cls(path)

    def check_code(self, anyway: bool) -> None:
        """Raise UserError where the code or a prompt has changed since the run began, unless `anyway`."""
        before = (config := self.config()).get("about", {})
        if before.get("code", "") == fingerprint():
            return
        if not anyway:
            raise UserError(f"the code or the prompts have changed since {self.path} began: --anyway resumes it with "
                            "the new ones, and plays the episodes that depend on them again")  # fmt: skip
        write_json(self.path / "config.json", {**config, "about": {**before, **about()}})
        self.note({"event": "code changed", "before": before.get("code", "")})

    def claim(self) -> None:
        """Keep other processes out while this one writes; the claim ends with the process."""
        try:
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until the process ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {self.path}") from None
        except OSError as error:
            raise _unwritten(f"cannot write in {self.path}", error) from error

    def config(self) -> dict:
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict):
            raise UserError(f"{self.path / 'config.json'} is damaged: not an object")
        return config

    def design(self, design_id: str) -> Path:
        return self.path / "designs" / design_id

    def code(self, design_id: str) -> str:
        return (self.design(design_id) / "design.py").read_text(encoding="utf-8")

    def archive(self) -> list[dict]:
        """The lines of archive.jsonl that are whole."""
        return [design for design in read_lines(self.path / "archive.jsonl", []) if "id" in design]

    def write_candidate(self, folder: Path, code: str, plan: dict | None, transcript, **more: str) -> None:
        """Write design.py, plan.json and log.txt.gz of a candidate: the dialogue and `more` texts."""
        write_atomic(folder / "design.py", code)
        write_json(folder / "plan.json", plan)
        entries = [(f"{stage}: {side}", text) for stage, side, text in transcript] + list(more.items())
        log = [f"=== {title}\n{quote(text, 20_000)}" for title, text in entries]
        write_atomic(folder / "log.txt.gz", "\n\n".join(log) + "\n")

    def write_archive(self, designs: list[dict]) -> bool:
        """Write archive.jsonl; returns whether it changed. A resumed run does not shorten it."""
        if len(designs) < len(known := self.archive()):
            return False
        lines = (json.dumps(design, ensure_ascii=False) for design in designs)
        write_atomic(self.path / "archive.jsonl", "".join(f"{line}\n" for line in lines))
        return designs != known

    def log(self, line: str) -> None:
        self._append("log.txt", f"{datetime.now(UTC):{TIME}} {line}")

    def note(self, event: dict) -> None:
        self._append("history.jsonl", json.dumps({"time": f"{datetime.now(UTC):{TIME}}", **event}, ensure_ascii=False))

    def _append(self, name: str, line: str) -> None:
        try:
            with open(self.path / name, "a", encoding="utf-8", errors="replace") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise InfrastructureError(f"cannot write {self.path / name}: {error.strerror}") from error


def about() -> dict:
    """Versions, git commit and fingerprint of the code: what is needed to repeat a run."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit, names = "", ("openai", "numpy", "gymnasium", "minihack", "nle", "alfworld", "textworld", "networkx")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    packages = {**dict.fromkeys(names, "not installed"), **versions(names)}
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": packages,
            "commit": commit or "unknown", "code": fingerprint()}  # fmt: skip


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@functools.cache
def fingerprint() -> str:
    """Hash of the code and the prompts that shape a run's result."""
    paths = sorted({path for pattern in SHAPING for path in ROOT.glob(pattern) if path.suffix != ".pyc"})
    lines = (f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
