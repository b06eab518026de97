"""Which news goes into the next message: what was sent least often, until each was sent often enough."""

from __future__ import annotations

from peerd.identity.peer_id import PeerId


class Spreading:
    """Peers about whom there is news, with how often it was passed on."""

    def __init__(self) -> None:
        self._sent: dict[PeerId, int] = {}

    def __bool__(self) -> bool:
        return bool(self._sent)

    def add(self, peer_id: PeerId) -> None:
        """There is news; counting starts again."""
        self._sent[peer_id] = 0

    def forget(self, peer_id: PeerId) -> None:
        """Nothing more to say of it."""
        self._sent.pop(peer_id, None)

    def take(self, count: int, *, limit: int) -> list[PeerId]:
        """Up to ``count`` peers to speak of now; one that was spoken of ``limit`` times is dropped."""
        if not self._sent:
            return []
        chosen = sorted(self._sent, key=self._sent.__getitem__)[:count] if len(self._sent) > count else [*self._sent]
        for peer_id in chosen:
            self._sent[peer_id] += 1
            if self._sent[peer_id] >= limit:
                del self._sent[peer_id]
        return chosen
