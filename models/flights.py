"""Calls under way: who asks for what is asked already waits for the same answer.

Promises: once nobody waits any more, a call that was not sent is given up; one that was sent is paid for, so it
goes on until its answer is kept.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable


class Flight:
    """A call that `make` makes; `sent` is set by it as soon as the call will be paid."""

    def __init__(self, make: Callable[["Flight"], Coroutine], forget: Callable[[], None]):
        self.sent, self.forget, self._waiting = False, forget, 0
        self.task = asyncio.create_task(make(self))

    async def join(self):
        """The call's result, or its error."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self.sent:
                self.task.cancel()
                self.forget()  # whoever asks from now on asks anew
            raise
        finally:
            self._waiting -= 1


class Flights(dict[str, Flight]):
    """All flights, by the keys of what they bring."""

    def start(self, keys: Iterable[str], make: Callable[[Flight], Coroutine]) -> Flight:
        """Start what `make` does; until it ends it stands under each of `keys`."""

        def forget() -> None:
            for key in keys:
                if self.get(key) is flight:
                    del self[key]

        flight = Flight(make, forget)
        self.update(dict.fromkeys(keys, flight))

        def landed(task: asyncio.Task) -> None:
            forget()
            if not task.cancelled():
                task.exception()  # those who joined raise it; a call that nobody waits for may fail

        flight.task.add_done_callback(landed)
        return flight

    async def aclose(self, seconds: float) -> None:
        """Give up what was not sent; the rest has so many seconds to end."""
        flights = set(self.values())
        for flight in flights:
            if not flight.sent:
                flight.task.cancel()
        if tasks := [flight.task for flight in flights]:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
