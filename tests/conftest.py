"""Shared fixtures. Nothing here needs the network, a key, or files outside the repository."""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Shells start jobs in the background with Ctrl-C ignored, and what is started here would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
