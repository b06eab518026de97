"""When the interpreter looks for reference cycles: rarely among what has lived long, since all calls wait meanwhile.

Left alone, CPython walks every object each time their number has grown by a quarter; with ten thousand executions
under way that is a pause of half a second, again and again just while they come in. What lives long is hardly ever
garbage here, so it is walked by the clock instead, and less often the longer it takes. What is free then goes back
to the system.
"""

from __future__ import annotations

import gc

from peerd.clock import Clock
from peerd.daemon import allocator

_YOUNG = 5_000
"""Objects made and not freed until the youngest are walked, which takes about a millisecond."""
_MIDDLE = 10
_NEVER = 1 << 30
_SHARE = 200
"""A full walk may take this part of the time."""
_LEAST_SECONDS = 60.0


class Garbage:
    """Decides when a full collection is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = 0.0

    def take_over(self) -> None:
        """What is there now, mostly code, stays: it is never walked again. Then the clock decides."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
        self._next = self._clock.monotonic() + _LEAST_SECONDS

    async def collect(self) -> None:
        """Walk everything, if it is time."""
        began = self._clock.monotonic()
        if began < self._next:
            return
        gc.collect()
        allocator.give_back()
        ended = self._clock.monotonic()
        self._next = ended + max(_LEAST_SECONDS, _SHARE * (ended - began))
