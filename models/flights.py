"""Calls under way: who asks for what is asked already waits for the same answer.

Once nobody waits any more, a call that was not sent is given up; one that was sent is paid for and goes on to its end.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence


class Flight:
    """A call that `make` makes; `sent` is set by it as soon as the call will be paid."""

    def __init__(self, flights: "Flights", keys: Sequence[str], make: Callable[["Flight"], Coroutine]):
        self.sent, self._flights, self._keys, self._waiting = False, flights, keys, 0
        self.task = asyncio.create_task(make(self))
        self.task.add_done_callback(self._forget)

    async def join(self):
        """The call's result, or its error."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self.sent:
                self.task.cancel()
                self._forget()  # whoever asks from now on asks anew
            raise
        finally:
            self._waiting -= 1

    def _forget(self, landed: asyncio.Task | None = None) -> None:
        for key in self._keys:
            if self._flights.get(key) is self:
                del self._flights[key]
        if landed and not landed.cancelled():
            landed.exception()  # those who joined raise it; a call that nobody waits for may fail


class Flights(dict[str, Flight]):
    """All flights, by the keys of what they bring."""

    def start(self, keys: Sequence[str], make: Callable[[Flight], Coroutine]) -> Flight:
        """Start what `make` does; until it ends it stands under each of `keys`."""
        flight = Flight(self, keys, make)
        self.update(dict.fromkeys(keys, flight))
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
