"""Speed, as ratios measured side by side: `python -m bench`."""

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def timed(seconds: list[float], clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Append the seconds that this takes."""
    started = clock()
    yield
    seconds.append(clock() - started)
