"""Receives what this peer's jobs expect, and nothing else.

Offer: is it expected, from this very peer, and is there room? What is missing is answered. Push: blocks are verified
as they come. When all is there: files in place, one transaction that records it and tells the job's owner, verdict.
A verdict that got lost is harmless: the next offer of the same files is answered with "complete".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from peerd.disk import Reserve
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.store import Store, Tx
from peerd.transfers import repository
from peerd.transfers.manifest import MAX_FILES, FileEntry, Manifest, check_manifest
from peerd.transfers.model import NO_ROOM, Destinations, Expectation, Received, TransferKey
from peerd.transfers.staging import Staging
from peerd.uninterrupted import uninterrupted

MAX_SESSIONS = 1000
"""Accepted offers that are held in memory."""
MAX_HELD_FILES = 2 * MAX_FILES
"""That are listed in these; some 400 bytes each."""

Piece = tuple[int, int, bytes]
"""File index, offset, bytes."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be taken in."""

    max_bytes: int = 1024**4
    reserve: Reserve = field(default_factory=Reserve)


@dataclass(kw_only=True)
class _Session:
    """An offer that was accepted and is being filled."""

    manifest: Manifest
    digest: bytes
    staging: Staging
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    missing: list[tuple[int, int]] | None = None
    """What the next stream must bring; None until that is known, and from when a stream has begun."""
    received_bytes: int = 0

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Nothing else is done about it meanwhile. Raises OVERLOADED when something is."""
        if self.lock.locked():
            raise PeerdError(Reason.OVERLOADED, "an earlier offer or stream of this transfer is still being worked on")
        async with self.lock:
            yield

    async def prepare(self) -> list[tuple[int, int]]:
        """(file index, offset) of what is missing.

        To verify what is there may take longer than an offer waits: found once, it is answered at once to the next one.
        """
        if self.missing is None:
            self.missing = await asyncio.to_thread(self.staging.prepare)
            absent = sum(self.manifest.files[index].size - offset for index, offset in self.missing)
            self.received_bytes = self.manifest.total_bytes - absent
        return self.missing


class Receiver:
    """The receiving end of this peer."""

    def __init__(self, self_id: PeerId, store: Store, destinations: Destinations, limits: Limits) -> None:
        self._self_id = self_id
        self._store = store
        self._destinations = destinations
        self._limits = limits
        self._sessions: dict[TransferKey, _Session] = {}

    async def offer(self, key: TransferKey, digest: bytes, files: Sequence[FileEntry]) -> list[tuple[int, int]] | None:
        """(file index, offset) of what is missing; None when all of it was received before.

        Raises UNEXPECTED_TRANSFER, NOT_YET_EXPECTED, INVALID_PATH, QUOTA_EXCEEDED, STORAGE_QUOTA, DISK_LOW.
        """
        expectation = await self._store.write(lambda tx: self._expect(tx, key, digest))
        if expectation is None:
            return None
        manifest = await asyncio.to_thread(_checked, files, digest)
        await self._accept(expectation, key, manifest)
        session = self._session(expectation, key, digest, manifest)
        async with session.taken():
            # An earlier stream of it may have come to its end since the first look.
            if await self._store.write(lambda tx: self._expect(tx, key, digest)) is None:
                del self._sessions[key]
                return None
            missing = await uninterrupted(session.prepare())
        failpoint("transfer.offer.before_answer")
        return missing

    async def push(self, key: TransferKey, digest: bytes, pieces: AsyncIterator[Piece]) -> None:
        """Take in what was missing; returns when all is verified, in its place and recorded."""
        session = self._sessions.get(key)
        if session is None or session.digest != digest:
            raise PeerdError(Reason.OFFER_FIRST, "there is no accepted offer for this; it was perhaps before a restart")
        async with session.taken():
            session.missing = None
            try:
                await self._take(session, pieces)
                await uninterrupted(self._finish(key, session))
            finally:
                session.staging.close()
        failpoint("transfer.verdict.before_send")

    def progress(self, key: TransferKey) -> tuple[int, int]:
        """(bytes here, bytes in all) of a transfer that arrives now; zeros otherwise."""
        session = self._sessions.get(key)
        return (0, 0) if session is None else (session.received_bytes, session.manifest.total_bytes)

    def _session(self, expectation: Expectation, key: TransferKey, digest: bytes, manifest: Manifest) -> _Session:
        """That of this offer: one of other files takes the place of the one before."""
        known = self._sessions.get(key)
        if known is not None and (known.digest == digest or known.lock.locked()):
            return known
        self._forget_idle(len(manifest.files))
        staging = Staging(expectation, key.edge_id, manifest, digest)
        made = self._sessions[key] = _Session(manifest=manifest, digest=digest, staging=staging)
        return made

    def _forget_idle(self, coming: int) -> None:
        """Offers that nobody went on with must not pile up; whoever comes back offers again."""
        held = coming + sum(len(session.manifest.files) for session in self._sessions.values())
        for name, session in list(self._sessions.items()):
            if len(self._sessions) < MAX_SESSIONS and held <= MAX_HELD_FILES:
                return
            if not session.lock.locked():
                held -= len(session.manifest.files)
                del self._sessions[name]

    def _expect(self, tx: Tx, key: TransferKey, digest: bytes) -> Expectation | None:
        if repository.was_received(tx, key, digest):
            return None
        return self._destinations.expect(tx, key)

    async def _accept(self, expectation: Expectation, key: TransferKey, manifest: Manifest) -> None:
        """Return when there is room for it; the job's owner hears either way, if it cares."""
        try:
            self._check_room(expectation, manifest)
            if expectation.room_bytes is not None or expectation.was_refused:
                await self._store.write(lambda tx: self._promise(tx, key, manifest.total_bytes))
        except PeerdError as error:
            if error.reason in NO_ROOM:
                refusal = error
                await self._store.write(lambda tx: self._destinations.refused(tx, key, refusal))
            raise

    def _promise(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """One after the other, so that offers that come at once are not promised the same room."""
        room = self._destinations.expect(tx, key).room_bytes
        if room is not None and total_bytes > room:
            raise PeerdError(
                Reason.STORAGE_QUOTA,
                f"{total_bytes} bytes do not fit: {room} more may be sent to the jobs of {key.orchestrator} here",
            )
        self._destinations.accepted(tx, key, total_bytes)

    def _check_room(self, expectation: Expectation, manifest: Manifest) -> None:
        if len(manifest.files) > MAX_FILES or manifest.total_bytes > self._limits.max_bytes:
            raise PeerdError(
                Reason.QUOTA_EXCEEDED,
                f"{manifest.total_bytes} bytes in {len(manifest.files)} files are more than this peer takes at once",
            )
        expectation.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limits.reserve.look(expectation.root).check(manifest.total_bytes)

    async def _take(self, session: _Session, pieces: AsyncIterator[Piece]) -> None:
        """Write one piece in a thread while the next one arrives."""
        writing: asyncio.Future[None] | None = None
        try:
            async for index, offset, data in pieces:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(session.staging.write, index, offset, data))
                session.received_bytes += len(data)
            if writing is not None:
                await writing
        finally:
            if writing is not None and not writing.done():
                # A thread cannot be interrupted: the next stream must not find it writing.
                await asyncio.wait([writing])

    async def _finish(self, key: TransferKey, session: _Session) -> None:
        digest = session.digest
        await self._store.write(lambda tx: self._expect(tx, key, digest))
        paths = await asyncio.to_thread(session.staging.publish)
        received = Received(
            manifest_digest=digest,
            file_count=len(paths),
            total_bytes=session.manifest.total_bytes,
            files=paths,
        )

        def record(tx: Tx) -> None:
            if repository.was_received(tx, key, digest):
                return
            self._destinations.expect(tx, key)
            repository.record_received(tx, key, received)
            self._destinations.received(tx, key, received)

        failpoint("transfer.received.before_commit")
        await self._store.write(record)
        failpoint("transfer.received.after_commit")
        await asyncio.to_thread(session.staging.remove)
        del self._sessions[key]


def _checked(files: Sequence[FileEntry], digest: bytes) -> Manifest:
    """In a thread: of a million files it takes seconds."""
    manifest = check_manifest(files)
    if manifest.digest() != digest:
        raise PeerdError(Reason.INVALID_ARGUMENT, "the digest of the manifest is not that of its files")
    return manifest
