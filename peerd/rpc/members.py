"""What the RPC floor asks of those above: who is trusted, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from peerd.identity.peer_id import PeerId


class Members(Protocol):
    """The live member table. Reads are answered from memory, from any thread."""

    def anchors(self) -> frozenset[PeerId]:
        """Active members and keys of pending invites: the roots of the TLS server."""
        ...

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        """The grants of an active member; None for anybody else."""
        ...

    def is_invite(self, peer_id: PeerId) -> bool:
        """Whether this is the key of a pending invite."""
        ...

    def is_revoked(self, peer_id: PeerId) -> bool:
        """Whether this key was a member and is out for good."""
        ...


class Addresses(Protocol):
    """Where peers listen."""

    def addresses(self, peer_id: PeerId) -> Sequence[str]:
        """host:port, best first; empty when unknown."""
        ...
