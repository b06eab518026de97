"""What is seen of ports and hosts, as numbers in the store."""

from __future__ import annotations

from enum import IntEnum

from peerd.inventory.model import PortState


class State(IntEnum):
    """Of a port; a host is OPEN when it is up and CLOSED when it did not answer."""

    OPEN = 1
    CLOSED = 2
    FILTERED = 3
    OPEN_OR_FILTERED = 4
    NOT_SHOWN = 5

    @property
    def word(self) -> str:
        """As users write it."""
        return _WORDS[self]


_WORDS = {
    State.OPEN: "open",
    State.CLOSED: "closed",
    State.FILTERED: "filtered",
    State.OPEN_OR_FILTERED: "open|filtered",
    State.NOT_SHOWN: "not_shown",
}
BY_WORD = {word: state for state, word in _WORDS.items()}
OF_PORT: dict[PortState, int] = {state: int(BY_WORD[state.value]) for state in PortState}
THERE = frozenset({int(State.OPEN), int(State.OPEN_OR_FILTERED)})
"""What counts as there: open, and what silence over UDP means."""
