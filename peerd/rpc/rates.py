"""How many calls a peer may make: a token bucket for each caller. Pure but for the table it keeps."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from peerd.errors import PeerdError, Reason

MAX_CALLERS = 10_000
"""Buckets that are kept; the one unused longest goes first, and would be full by then."""


@dataclass(slots=True)
class Bucket:
    """Tokens come back steadily up to a burst; each call takes one."""

    tokens: float
    filled_at: float

    def take(self, now: float, *, per_second: float, burst: float) -> float:
        """0 if there was a token, else the seconds until there is one."""
        self.tokens = min(burst, self.tokens + max(0.0, now - self.filled_at) * per_second)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / per_second


class Rates:
    """The buckets of all callers. A rate of 0 limits nobody."""

    def __init__(self, *, per_second: float = 0.0, burst: float = 1.0) -> None:
        self._per_second = per_second
        self._burst = max(1.0, burst)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, caller: str, now: float) -> None:
        """Count a call. Raises RATE_LIMITED with the time to wait."""
        if self._per_second <= 0:
            return
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = Bucket(tokens=self._burst, filled_at=now)
            if len(self._buckets) > MAX_CALLERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(caller)
        wait = bucket.take(now, per_second=self._per_second, burst=self._burst)
        if wait:
            raise PeerdError(
                Reason.RATE_LIMITED,
                f"more than {self._per_second:g} calls a second, with bursts of {self._burst:g}",
                retry_after_seconds=wait,
            )
