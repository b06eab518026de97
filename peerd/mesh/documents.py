"""Signed documents of which the latest word counts: one per key, spread by gossip, the same on every peer.

A document stands while its signer is a member that may sign it: whoever loses that right has its words taken over by
the peer that took the right away (:meth:`DocumentTopic.adopt`), so that what an operator ordered does not end with the
operator. Of two versions with one number, said at once on two peers, the lower digest counts, everywhere.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError

from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.envelope import DAMAGE, open_envelope, seal
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh.mesh import Mesh
from peerd.store import Store, Tx
from peerd.store.quarantine import move_aside
from peerd.v1 import mesh_pb2
from peerd.v1.signed_pb2 import Envelope

_log = structlog.get_logger(__name__)

MAX_BYTES = 64 * 1024
MAX_KEY_LENGTH = 200
MAX_KEYS = 10_000
"""Documents of one topic; more are refused, so that no member can fill the stores of all."""
_MAX_VERSION = 2**53
_LAST_DATE = 7_258_118_400_000
"""The year 2200 in milliseconds: no clock is wrong like that by itself."""
_LAST_COUNT = 2**32
"""Changes of one document: one a second, for a century."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Document(Generic[T]):
    """One version of one document, verified."""

    key: str
    version: int
    digest: bytes
    signer: PeerId
    value: T
    envelope: Envelope

    def outranks(self, other: Document[T] | None) -> bool:
        """Whether this is the later word."""
        return other is None or _rank(self.version, self.digest) > _rank(other.version, other.digest)


class Kind(Protocol[T]):
    """What a topic says of its documents. Pure."""

    name: str
    payload_type: str
    history: int
    """Versions of a document that are kept."""
    dated: bool
    """Whether versions are times, so that the word of a peer that lost the one before it, or has not heard it yet,
    counts all the same. Else people count them: 1, 2, 3."""

    def parse(self, payload: bytes) -> tuple[str, int, T]:
        """Key, version and content of verified bytes. Raises INVALID_RECORD and the like."""
        ...

    def serialise(self, value: T, *, version: int, now: int) -> bytes:
        """The bytes to sign."""
        ...

    def may_sign(self, mesh: Mesh, signer: PeerId, value: T) -> bool:
        """Whether that peer's word counts for this."""
        ...


class DocumentTopic(Generic[T]):
    """The documents of one kind. A gossip topic."""

    def __init__(self, kind: Kind[T], store: Store, mesh: Mesh, identity: Identity) -> None:
        self.name = kind.name
        self._kind = kind
        self._store = store
        self._mesh = mesh
        self._identity = identity
        self._versions: dict[str, list[Document[T]]] = {}
        self._on_change: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Read what the store knows."""
        rows = await self._store.all("SELECT key, version, envelope FROM documents WHERE topic = ?", (self.name,))
        found: dict[str, list[Document[T]]] = defaultdict(list)
        for row in rows:
            try:
                document = self._read(Envelope.FromString(row["envelope"]))
            except (PeerdError, DecodeError) as error:
                if isinstance(error, PeerdError) and error.reason not in DAMAGE:  # stored by a version with other rules
                    _log.info("documents.stored_one_ignored", topic=self.name, message=error.message)
                    continue
                key = {"topic": self.name, "key": row["key"], "version": row["version"]}
                await self._store.write(
                    functools.partial(move_aside, source="documents", key=key, content=row["envelope"], error=error)
                )
                continue
            found[document.key].append(document)
        self._versions = {key: sorted(held, key=_order, reverse=True) for key, held in found.items()}

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call this on the event loop with the key of a document that changed."""
        self._on_change.append(callback)

    # -- Reads

    def find(self, key: str) -> Document[T] | None:
        """The version that counts: the newest whose signer may sign it."""
        return next((entry for entry in self._versions.get(key, ()) if self._stands(entry)), None)

    def current(self) -> list[Document[T]]:
        """What counts, of every key."""
        return [found for key in sorted(self._versions) if (found := self.find(key)) is not None]

    def history(self, key: str) -> list[Document[T]]:
        """All kept versions, newest first, those of signers that may not sign any more included."""
        return list(self._versions.get(key, ()))

    # -- Changes

    def put(self, tx: Tx, key: str, value: T) -> Document[T]:
        """Say something new, in a transaction; it is known and spread once that is durable.

        Raises PERMISSION_DENIED when this peer's word does not count for it.
        """
        if not self._kind.may_sign(self._mesh, self._identity.peer_id, value):
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                f"this peer may not sign {self.name} documents",
                next_action="order it from a peer with that grant, or have an admin grant it to this one",
            )
        version = self._following(tx, key)
        payload = self._kind.serialise(value, version=version, now=tx.now)
        document = self._read(seal(self._identity, payload, self._kind.payload_type))
        self._keep(tx, document)
        failpoint("documents.put.before_commit")
        return document

    def _following(self, tx: Tx, key: str) -> int:
        """The version that comes next.

        What nobody comes to by saying things is not followed: somebody took that number to have the last word for ever.
        Once that one may not sign any more, any other version counts.
        """
        row = tx.one(
            "SELECT max(version) AS version FROM documents WHERE topic = ? AND key = ? AND version <= ?",
            (self.name, key, self._most),
        )
        version = (row["version"] if row is not None and row["version"] is not None else 0) + 1
        if self._kind.dated:
            version = max(version, tx.now)
        counts = self.find(key)
        if counts is not None and counts.version > self._most:
            raise PeerdError(
                Reason.INVALID_RECORD,
                f"nothing can be said after {counts.signer}, which gave its word the number {counts.version}",
                next_action="revoke that peer, since no peer does so by itself, and say it again",
            )
        return version

    @property
    def _most(self) -> int:
        return _LAST_DATE if self._kind.dated else _LAST_COUNT

    async def adopt(self, signer: PeerId) -> None:
        """Say again what a peer said whose word does not count any more, where ours does."""
        for document in self._fallen():
            if document.signer != signer:
                continue
            try:
                await self._store.write(functools.partial(self.put, key=document.key, value=document.value))
            except PeerdError as error:
                if error.retryable:  # the store takes nothing now
                    raise
                # Such as one with the last version there is: what else was said must not be lost with it.
                _log.warning("documents.not_adopted", topic=self.name, key=document.key, message=error.message)

    def fallen(self) -> set[PeerId]:
        """Whose words do not count any more, where ours would."""
        return {document.signer for document in self._fallen()}

    def _fallen(self) -> list[Document[T]]:
        return [
            held[0]
            for held in self._versions.values()
            if not self._stands(held[0])
            and held[0].version <= self._most
            and self._kind.may_sign(self._mesh, self._identity.peer_id, held[0].value)
        ]

    # -- The gossip topic

    def summary(self) -> list[mesh_pb2.DocumentVersion]:
        """The newest version held of each key, if it stands."""
        return [
            mesh_pb2.DocumentVersion(key=entry.key, version=entry.version, digest=entry.digest)
            for entry in self.current()
        ]

    def lacking(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Keys of which they hold a later version."""
        return [entry.key for entry in theirs if _rank(entry.version, entry.digest) > self._held(entry.key)]

    def newer(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Keys of which we hold a later version."""
        held = {entry.key: _rank(entry.version, entry.digest) for entry in theirs}
        nothing = _rank(0, b"")
        return [
            entry.key for entry in self.current() if _rank(entry.version, entry.digest) > held.get(entry.key, nothing)
        ]

    def documents(self, keys: Iterable[str]) -> Iterator[mesh_pb2.DocumentChain]:
        """Our envelopes of these keys."""
        for key in keys:
            found = self.find(key)
            if found is not None:
                yield mesh_pb2.DocumentChain(topic=self.name, key=key, envelopes=[found.envelope])

    async def apply(self, chains: Sequence[mesh_pb2.DocumentChain], source: str) -> set[str]:
        """Take in what is later than ours and stands; returns the keys."""
        changed: set[str] = set()
        for chain in chains:
            for envelope in chain.envelopes[-1:]:
                try:
                    document = self._accepted(envelope)
                except PeerdError as error:
                    _log.info(
                        "documents.refused", topic=self.name, source=source, key=chain.key[:80], message=error.message
                    )
                    continue
                if document is not None:
                    await self._store.write(functools.partial(self._keep, document=document))
                    changed.add(document.key)
        return changed

    def _accepted(self, envelope: Envelope) -> Document[T] | None:
        if len(envelope.payload) > MAX_BYTES:
            raise PeerdError(Reason.INVALID_RECORD, f"{len(envelope.payload)} bytes; at most {MAX_BYTES}")
        document = self._read(envelope)
        if not document.outranks(self.find(document.key)):
            return None
        if not self._stands(document):
            raise PeerdError(Reason.PERMISSION_DENIED, f"{document.signer} may not sign this")
        if document.key not in self._versions and len(self._versions) >= MAX_KEYS:
            raise PeerdError(Reason.TOO_LARGE, f"more than {MAX_KEYS} documents of {self.name}")
        return document

    # -- Inside

    def _read(self, envelope: Envelope) -> Document[T]:
        opened = open_envelope(envelope, self._kind.payload_type)
        key, version, value = self._kind.parse(opened.payload)
        if not 0 < len(key) <= MAX_KEY_LENGTH or not 1 <= version <= _MAX_VERSION:
            raise PeerdError(Reason.INVALID_RECORD, f"a document with key {key[:80]!r} and version {version}")
        return Document(
            key=key,
            version=version,
            digest=digest(opened.payload),
            signer=opened.signer,
            value=value,
            envelope=envelope,
        )

    def _stands(self, document: Document[T]) -> bool:
        return self._kind.may_sign(self._mesh, document.signer, document.value)

    def _held(self, key: str) -> tuple[int, bytes]:
        found = self.find(key)
        return _rank(found.version, found.digest) if found is not None else _rank(0, b"")

    def _keep(self, tx: Tx, document: Document[T]) -> None:
        """Store it; it counts from the commit on, whoever waits for that."""
        tx.execute(
            "INSERT INTO documents (topic, key, version, digest, envelope, stored_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (topic, key, version) DO UPDATE SET digest = excluded.digest, envelope = excluded.envelope,"
            " stored_at = excluded.stored_at",
            (
                self.name,
                document.key,
                document.version,
                document.digest,
                document.envelope.SerializeToString(),
                tx.now,
            ),
        )
        tx.execute(
            "DELETE FROM documents WHERE topic = ? AND key = ? AND version <= ?",
            (self.name, document.key, document.version - self._kind.history),
        )
        tx.on_commit(lambda: self._install(document))

    def _install(self, document: Document[T]) -> None:
        others = [entry for entry in self._versions.get(document.key, ()) if entry.version != document.version]
        held = sorted([document, *others], key=_order, reverse=True)
        kept = held[: self._kind.history]  # without it, if it stands below what does not count any more
        self._versions[document.key] = kept if document in kept else [*kept, document]
        for callback in self._on_change:
            callback(document.key)


def _rank(version: int, content: bytes) -> tuple[int, bytes]:
    """Higher counts: the version, then the lower digest."""
    return version, bytes(255 - octet for octet in content)


def _order(document: Document[T]) -> tuple[int, bytes]:
    return _rank(document.version, document.digest)
