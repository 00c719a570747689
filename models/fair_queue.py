"""So many at a time, and fair between designs: a slow one does not starve the others.

Calls at an endpoint and workers of the sandbox go through it. Tried by `pytest tests/test_endpoints.py`.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator


class FairSlots:
    """So many calls in flight; a free slot goes to the waiting design that has the fewest in flight."""

    def __init__(self, size: int):
        self._free = size
        self._busy: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future]] = {}  # in order of their last turn

    @contextlib.asynccontextmanager
    async def slot(self, who: str) -> AsyncIterator[None]:
        await self._take(who)
        try:
            yield
        finally:
            self._give_back(who)

    async def _take(self, who: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            self._busy[who] += 1
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give_back(who)  # its turn came while it was being cancelled
            raise

    def _give_back(self, who: str) -> None:
        self._busy[who] -= 1
        if not self._busy[who]:
            del self._busy[who]
        self._free += 1
        while self._waiting and self._free:
            self._next_turn(min(self._waiting, key=lambda waiting: self._busy[waiting]))

    def _next_turn(self, who: str) -> None:
        queue = self._waiting.pop(who)
        future = queue.popleft()
        if queue:
            self._waiting[who] = queue  # at the end: its turn was now
        if not future.done():  # else it was cancelled
            self._free -= 1
            self._busy[who] += 1
            future.set_result(None)
