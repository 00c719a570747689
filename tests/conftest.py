"""Shared fixtures. Nothing here needs the network, a key, or files outside the repository."""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The files that take longest. With `--dist loadfile` a file stays on one worker: these start first, so that at the end
# no worker is left alone with one of them.
LONGEST = (
    "textworld", "machines", "run_kills", "sandbox_hostile", "experiments", "sandbox_forks", "dask", "sandbox", "offline_kills",
    "local", "recorded", "standin_agent", "run_faults", "forking", "endpoints", "standin_words", "alfworld", "loop", "run_full_disk",
    "run_money", "minihack", "evaluate", "run_key", "report_browser", "doctor", "report", "sandbox_machines", "llm",
)  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


# The tests start hundreds of processes: each would compile every module of this repository.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Shells start jobs in the background with Ctrl-C ignored, and what is started here would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def generated_games(tmp_path_factory):
    """An empty cache of generated games, which the workers of this session share: none of an earlier one is met."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALMA_CACHE", str(folder / "games"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded facts beside the repository; tests that need it skip without it."""
    path = Path(os.environ.get("ALMA_SHARED") or ROOT.parent / "shared")
    if not path.is_dir():
        pytest.skip(f"needs the recorded data in {path}")
    return path


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter for tests that start fresh processes."""
    return sys.executable
