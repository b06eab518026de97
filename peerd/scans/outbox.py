"""Hands in what jobs of this machine scanned, signed by this peer: a service's owner says which files, and to whom.

The job itself never gets near the key: it leaves files, and once its end is committed, so is the wish to hand them in.
Each file is one scan with an id of its own, so that it counts once however often it is sent; it is tried until the
other peer has it, and retention leaves the job's directory until then.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import structlog

from peerd.clock import DAY_MS, Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.jobs import occupancy
from peerd.jobs.model import Job, JobFile
from peerd.loops import sleep_or_wake
from peerd.moments import moment
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.scans import hand_ins
from peerd.scans.hand_ins import HandIn, HandInState
from peerd.scans.signing import Signer
from peerd.scans.statement import FIRST_MS
from peerd.store import Store, Tx
from peerd.transfers.selection import Selection
from peerd.v1 import scans_pb2, scans_pb2_grpc
from peerd.v1.signed_pb2 import Envelope

GIVE_UP_MS = 7 * DAY_MS
MAX_FILES = 1000
"""Of one job."""
_FIRST_PAUSE_MS = 1_000
_LONGEST_PAUSE_MS = 300_000
_LOOK_SECONDS = 60.0
_UNARY_BYTES = 2 * 1024**2
"""Larger scans are streamed: a message has at most 4 MiB."""
_PIECE_BYTES = 1024**2
_CALL_SECONDS = 30.0
_STREAM_SECONDS = 3600.0
_HOPELESS = frozenset(
    {
        Reason.SCAN_CONFLICT,
        Reason.INVALID_STATEMENT,
        Reason.TOO_LARGE,
        Reason.FILES_REMOVED,
        Reason.REVOKED,
        Reason.NO_FILES_MATCH,
    }
)
"""What trying again does not mend. A grant that is missing, or a peer that is away, somebody may."""
_AWAY = frozenset({Reason.NOT_TRUSTED_OR_UNREACHABLE, Reason.CONNECTION_LOST, Reason.DEADLINE_EXCEEDED})

_log = structlog.get_logger(__name__)


class Outbox:
    """Of one peer."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        self_id: PeerId,
        signer: Signer,
        channels: Channels,
        data_dir: Path,
    ) -> None:
        self._store = store
        self._clock = clock
        self._self_id = self_id
        self._signer = signer
        self._channels = channels
        self._data_dir = data_dir
        self._wake = asyncio.Event()

    def completed(self, tx: Tx, job: Job, files: Sequence[JobFile], directory: Path) -> None:
        """A job has ended well: what its service's owner wants handed in is, from this transaction on."""
        wish = job.work.hand_in
        if wish is None or job.reused_id is not None:  # whose files it sends again handed them in
            return
        selection = Selection(path="output", files=wish.files)
        found = sorted(file.path for file in files if file.path.startswith("output/") and selection.takes(file.path))
        columns: dict[str, object] = {
            "job_execution_id": job.id,
            "service": job.work.service,
            "directory": str(directory.relative_to(self._data_dir)),
            "to_peer_id": wish.to,
            "format": wish.format,
            "vantage": wish.vantage or self._self_id,
            "scanned_at": job.ended_at if FIRST_MS <= (job.ended_at or 0) <= tx.now else tx.now,
        }
        name = f"job-{self._store.store_id}-{job.id}"
        problem: PeerdError | None = None
        if not found:
            problem = selection.nothing_found([file.path for file in files], more=False)
        elif len(found) > MAX_FILES:
            problem = PeerdError(Reason.TOO_LARGE, f"the job left {len(found)} scans; {MAX_FILES} are handed in")
        if problem is not None:
            said = {"reason": problem.reason.text, "message": problem.message, "next_action": problem.next_action}
            hand_ins.add(tx, **columns, **said, scan_id=f"{name}-0", path="", state=HandInState.REFUSED.value)
            return
        for number, path in enumerate(found, start=1):
            below = path.removeprefix("output/")
            hand_ins.add(tx, **columns, scan_id=f"{name}-{number}", path=below, state=HandInState.WAITING.value)
        occupancy.hold(tx, job.id, True)
        tx.on_commit(self._wake.set)

    async def run(self) -> None:
        """Until cancelled. Begins with what an earlier daemon left."""
        while True:
            self._wake.clear()
            try:
                due = await hand_ins.due(self._store, self._clock.steady())
                ended = await asyncio.gather(
                    *(self._serve([each for each in due if each.to_peer_id == to]) for to in _to(due)),
                    return_exceptions=True,  # one that fails must not leave the others to go on beside the next round
                )
                for failure in ended:
                    if failure is not None:
                        raise failure
                pause = 0.0 if due else await self._pause()
            except PeerdError as error:  # the store takes nothing now
                _log.warning("scans.not_handed_in", reason=error.reason.text, message=error.message)
                pause = 5.0
            except Exception:  # noqa: BLE001 - such as a store that another program locks: the daemon must not end of it
                _log.exception("scans.not_handed_in")
                pause = 5.0
            if pause:
                await sleep_or_wake(self._clock, pause, self._wake)

    async def _pause(self) -> float:
        at = await hand_ins.next_due(self._store)
        return _LOOK_SECONDS if at is None else min(_LOOK_SECONDS, max(0.05, (at - self._clock.steady()) / 1000))

    async def _serve(self, mine: Sequence[HandIn]) -> None:
        """One peer's, one after the other: those of others do not wait for it."""
        for one in mine:
            if not await self.hand_in(one):
                return

    async def peer_online(self, peer_id: PeerId) -> None:
        """Somebody is back: what waits for them need not wait for its next turn."""
        if await self._store.write(lambda tx: hand_ins.bring_forward(tx, peer_id)):
            self._wake.set()

    async def hand_in(self, one: HandIn) -> bool:
        """Try it now, and store what became of it; returns whether the peer that it is for answered."""
        try:
            failpoint("scan_hand_in.send.before")
            job = await self._send(one)
        except PeerdError as error:
            await self._store.write(lambda tx, e=error: self._trouble(tx, one, e))  # type: ignore[misc]
            return error.reason not in _AWAY
        except Exception:  # noqa: BLE001 - whatever one scan does to us, it must not stop the others
            _log.exception("scans.hand_in_crashed", hand_in_id=one.hand_in_id)
            fault = PeerdError(Reason.INTERNAL, "handing in the scan failed inside the daemon")
            await self._store.write(lambda tx: self._trouble(tx, one, fault))
            return True
        failpoint("scan_hand_in.send.after")

        def write(tx: Tx) -> None:
            hand_ins.handed_in(tx, one.hand_in_id, job.ingest_job_id)
            self._let_go(tx, one)
            failpoint("scan_hand_in.done.before_commit")

        await self._store.write(write)
        failpoint("scan_hand_in.done.after_commit")
        return True

    def _trouble(self, tx: Tx, one: HandIn, error: PeerdError) -> None:
        """Try again later, or never."""
        if error.reason in _HOPELESS or tx.steady - one.waiting_since >= GIVE_UP_MS:
            hand_ins.refused(tx, one.hand_in_id, error)
            self._let_go(tx, one)
            return
        pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS << min(one.attempts, 12))
        hand_ins.postponed(tx, one.hand_in_id, error, tx.steady + pause)
        if error.reason in _AWAY:
            hand_ins.put_off(tx, one.to_peer_id, error, tx.steady + pause)

    def _let_go(self, tx: Tx, one: HandIn) -> None:
        if hand_ins.jobs_done(tx, one.job_execution_id):
            occupancy.hold(tx, one.job_execution_id, False)

    async def _send(self, one: HandIn) -> scans_pb2.IngestJob:
        to = parse_peer_id(one.to_peer_id)
        with closing(await asyncio.to_thread(_open, self._data_dir / one.directory / "output", one.path)) as content:
            sha256, size = await asyncio.to_thread(_measure, content)
            envelope, _ = self._signer.sign(
                scans_pb2.ScanStatement(
                    audience=to,
                    scan_id=one.scan_id,
                    format=one.format,
                    vantage=one.vantage,
                    data_sha256=sha256,
                    data_size=size,
                    scanned_at=moment(Millis(one.scanned_at)),
                )
            )
            stub: scans_pb2_grpc.ScanServiceAsyncStub = scans_pb2_grpc.ScanServiceStub(self._channels.channel(to))
            with remote_errors(to):
                if size > _UNARY_BYTES:
                    streamed = await stub.SubmitStream(_messages(envelope, content), timeout=_STREAM_SECONDS)
                    return streamed.job
                data = await asyncio.to_thread(content.read, _UNARY_BYTES + 1)
                request = scans_pb2.SubmitRequest(envelope=envelope, data=data)
                return (await stub.Submit(request, timeout=_CALL_SECONDS)).job


def _to(due: Sequence[HandIn]) -> list[str]:
    return list(dict.fromkeys(each.to_peer_id for each in due))


def _open(root: Path, path: str) -> BinaryIO:
    """A file that a job made; no component of the path may be a link. Raises FILES_REMOVED."""
    folders, name = path.split("/")[:-1], path.rpartition("/")[2]
    opened: list[int] = []
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(folder, flags, dir_fd=opened[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(name, flags, dir_fd=opened[-1]), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PeerdError(Reason.FILES_REMOVED, f"the scan {path!r} is not there any more") from error
    except OSError as error:
        raise PeerdError(Reason.DISK_FAILED, f"the scan {path!r} cannot be read: {error}") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _measure(content: BinaryIO) -> tuple[bytes, int]:
    """(SHA-256, size in bytes); leaves the file at its beginning."""
    hasher, size = hashlib.sha256(), 0
    while piece := content.read(_PIECE_BYTES):
        hasher.update(piece)
        size += len(piece)
    content.seek(0)
    return hasher.digest(), size


async def _messages(envelope: Envelope, content: BinaryIO) -> AsyncIterator[scans_pb2.SubmitStreamRequest]:
    yield scans_pb2.SubmitStreamRequest(envelope=envelope)
    read: Callable[[int], bytes] = content.read
    while piece := await asyncio.to_thread(read, _PIECE_BYTES):
        yield scans_pb2.SubmitStreamRequest(data=piece)
