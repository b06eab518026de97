"""What operators say of peers: taken out for maintenance, called by another name, forgotten.

A note is a signed document that every peer keeps, so it holds for a peer that is down, and for whoever looks at it from
anywhere. No heartbeat ends one: only another note does.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.documents import Document, DocumentTopic
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import ADMIN, OPERATE, check_name, from_timestamp, to_timestamp
from peerd.registry.adverts import is_peer_id
from peerd.registry.model import Maintenance
from peerd.store import Store, Tx
from peerd.v1.registry_pb2 import PeerNote

NOTE_TYPE = "application/vnd.peerd.note.v1+protobuf"
MAX_REASON_LENGTH = 500

MAINTENANCE, NAME, FORGOTTEN = "maintenance", "name", "forgotten"
_KINDS = (MAINTENANCE, NAME, FORGOTTEN)


class NoteKind:
    """Notes as documents. Implements :class:`peerd.mesh.documents.Kind`."""

    name = "note"
    payload_type = NOTE_TYPE
    history = 1
    dated = True

    def parse(self, payload: bytes) -> tuple[str, int, PeerNote]:
        try:
            note = PeerNote.FromString(payload)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_RECORD, "the signed bytes are not a note") from error
        parse_peer_id(note.peer_id)
        if note.kind not in _KINDS:
            raise PeerdError(Reason.INVALID_RECORD, f"a note of the kind {note.kind[:40]!r}")
        check_reason(note.reason)
        if note.name:
            check_peer_name(note.name)
        return key_of(PeerId(note.peer_id), note.kind), note.version, note

    def serialise(self, value: PeerNote, *, version: int, now: int) -> bytes:
        note = PeerNote()
        note.CopyFrom(value)
        note.version = version
        note.issued_at.CopyFrom(to_timestamp(now))
        return note.SerializeToString(deterministic=True)

    def may_sign(self, mesh: Mesh, signer: PeerId, value: PeerNote) -> bool:
        grants = mesh.grants(signer)
        if grants is None:
            return False
        if value.kind == MAINTENANCE:
            # Whoever operates a machine may take it out, whatever that machine may do elsewhere.
            return bool(grants & {OPERATE, ADMIN}) or signer == value.peer_id
        return ADMIN in grants


class Notes:
    """The notes there are. Its topic is what gossip spreads."""

    def __init__(self, store: Store, mesh: Mesh, identity: Identity) -> None:
        self.topic: DocumentTopic[PeerNote] = DocumentTopic(NoteKind(), store, mesh, identity)
        self._on_change: list[Callable[[PeerId], None]] = []
        self.topic.on_change(self._changed)

    def on_change(self, callback: Callable[[PeerId], None]) -> None:
        """Call this with the peer whose notes changed."""
        self._on_change.append(callback)

    def maintenance(self, peer_id: PeerId) -> Maintenance | None:
        """Whether an operator has taken the peer out, and why."""
        found = self._find(peer_id, MAINTENANCE)
        if found is None or not found.value.on:
            return None
        return Maintenance(reason=found.value.reason, by=found.signer, since=issued_at(found))

    def name(self, peer_id: PeerId) -> str:
        """What an admin calls it; empty if nobody has said."""
        found = self._find(peer_id, NAME)
        return found.value.name if found is not None else ""

    def forgotten(self, peer_id: PeerId) -> bool:
        """Whether an admin does not want to see it any more."""
        found = self._find(peer_id, FORGOTTEN)
        return found is not None and found.value.on

    # -- In a transaction

    def drain(self, tx: Tx, peer_id: PeerId, reason: str) -> None:
        """Take a peer out. Raises INVALID_ARGUMENT or PERMISSION_DENIED."""
        check_reason(reason)
        self._put(tx, PeerNote(peer_id=peer_id, kind=MAINTENANCE, on=True, reason=reason))

    def resume(self, tx: Tx, peer_id: PeerId) -> None:
        """Let it take work again. Raises PERMISSION_DENIED."""
        self._put(tx, PeerNote(peer_id=peer_id, kind=MAINTENANCE, on=False))

    def rename(self, tx: Tx, peer_id: PeerId, name: str) -> None:
        """Call it so, whatever it calls itself. Raises INVALID_NAME or PERMISSION_DENIED."""
        self._put(tx, PeerNote(peer_id=peer_id, kind=NAME, name=check_peer_name(name)))

    def forget(self, tx: Tx, peer_id: PeerId) -> None:
        """Leave it out of lists until it comes back. Raises PERMISSION_DENIED."""
        self._put(tx, PeerNote(peer_id=peer_id, kind=FORGOTTEN, on=True))

    def _put(self, tx: Tx, note: PeerNote) -> None:
        self.topic.put(tx, key_of(PeerId(note.peer_id), note.kind), note)

    def _find(self, peer_id: PeerId, kind: str) -> Document[PeerNote] | None:
        return self.topic.find(key_of(peer_id, kind))

    def _changed(self, key: str) -> None:
        for callback in self._on_change:
            callback(PeerId(key.partition("/")[0]))


def key_of(peer_id: PeerId, kind: str) -> str:
    """The key of a note: notes of different kinds never overwrite each other."""
    return f"{peer_id}/{kind}"


def issued_at(document: Document[PeerNote]) -> Millis:
    """When it was said, by the signer's clock."""
    return from_timestamp(document.value.issued_at)


def check_reason(text: str) -> None:
    """Refuse what could not be shown in one line. Raises INVALID_ARGUMENT."""
    if len(text) > MAX_REASON_LENGTH or not text.isprintable():
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"the reason has {len(text)} characters, or control characters; at most {MAX_REASON_LENGTH} printable ones",
        )


def check_peer_name(name: str) -> str:
    """A name that a peer may have. Raises INVALID_NAME."""
    check_name(name, "name")
    if is_peer_id(name):
        raise PeerdError(Reason.INVALID_NAME, "a peer may not be named like a peer id")
    return name
