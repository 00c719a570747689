"""A queue for what there are only so many of: calls in flight, workers of the sandbox or of the pool."""

import asyncio
import bisect
import contextlib
import operator
from collections import Counter
from collections.abc import AsyncIterator


class FairQueue:
    """At most `size` turns at a time; `async with queue.turn(who)` waits for one and gives it back.

    The highest priority goes first; among equals a free turn goes to the one (a design, say) that has the fewest, so
    that a slow one does not starve the others.
    """

    def __init__(self, size: int):
        self._free = size
        self._busy: Counter[str] = Counter()  # turns under way
        # Who waits, in order of their last turn: (-priority, the turn itself), sorted, among equals as they came.
        self._waiting: dict[str, list[tuple[float, asyncio.Future]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, who: str = "", priority: float = 0.0) -> AsyncIterator[None]:
        future = asyncio.get_running_loop().create_future()
        bisect.insort(self._waiting.setdefault(who, []), (-priority, future), key=operator.itemgetter(0))
        self._serve()
        try:
            await future
            yield
        finally:
            if future.done() and not future.cancelled():  # it had its turn, if only while being cancelled
                self._free += 1
                self._busy -= Counter([who])
                self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            who = min(self._waiting, key=lambda who: (self._waiting[who][0][0], self._busy[who]))
            queue = self._waiting.pop(who)
            _, future = queue.pop(0)
            if queue:
                self._waiting[who] = queue  # at the end: its turn was now
            if not future.done():  # else its waiter was cancelled
                self._free -= 1
                self._busy[who] += 1
                future.set_result(None)
