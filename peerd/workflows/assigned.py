"""How many jobs each peer was given by all executions of this orchestrator and has not finished.

Kept up to date by each execution for its own share: counting all of them for each placement would cost the square of
their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Assigned:
    """Shares of executions, and their sum."""

    def __init__(self) -> None:
        self._shares: dict[int, dict[str, int]] = {}
        self._total: Counter[str] = Counter()

    @property
    def total(self) -> Mapping[str, int]:
        """By peer; a view that goes on changing."""
        return self._total

    def update(self, execution_id: int, share: Mapping[str, int]) -> None:
        """This is what the execution has given to peers now; nothing once it is over."""
        before = self._shares.get(execution_id, {})
        if before == share:
            return
        for peer in {*before, *share}:
            self._total[peer] += share.get(peer, 0) - before.get(peer, 0)
            if not self._total[peer]:
                del self._total[peer]
        if share:
            self._shares[execution_id] = dict(share)
        else:
            self._shares.pop(execution_id, None)
