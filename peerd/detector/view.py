"""A short digest of all that a peer holds of everybody, so that two can tell at once whether they agree."""

from __future__ import annotations

from hashlib import blake2b

from peerd.identity.peer_id import PeerId

GROUPS = 64
"""Peers are spread over so many groups, each with a digest of its own."""


def group_of(peer_id: PeerId) -> int:
    """The group of a peer, the same everywhere."""
    return blake2b(peer_id.encode(), digest_size=1).digest()[0] % GROUPS


class ViewDigest:
    """XOR of the hashes of all entries, by group: changing one costs one hash, whatever the size of the mesh."""

    def __init__(self) -> None:
        self._hashes: dict[PeerId, tuple[int, int]] = {}
        self.groups = [0] * GROUPS
        self.total = 0

    def put(self, peer_id: PeerId, incarnation: int, *, present: bool) -> None:
        """What is held of a peer now."""
        entry = blake2b(f"{peer_id}/{incarnation}/{present:d}".encode(), digest_size=8).digest()
        number = int.from_bytes(entry, "big")
        group, before = self._hashes.get(peer_id) or (group_of(peer_id), 0)
        self._hashes[peer_id] = (group, number)
        self.groups[group] ^= before ^ number
        self.total ^= before ^ number

    def drop(self, peer_id: PeerId) -> None:
        """Nothing is held of it any more."""
        if peer_id in self._hashes:
            group, before = self._hashes.pop(peer_id)
            self.groups[group] ^= before
            self.total ^= before

    def group(self, peer_id: PeerId) -> int:
        """The group of a peer that something is held of."""
        return self._hashes[peer_id][0]
