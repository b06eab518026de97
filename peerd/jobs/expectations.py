"""What jobs here expect to receive, and what becomes of what they send.

A push is accepted only along an edge of a job's present interfaces, from exactly the peer and job that the edge names.
What may become right by waiting (no interfaces yet, old files still being removed, a newer job of the same peer) is
``not_yet_expected``; everything else is ``unexpected_transfer``, for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs import edge_repository
from peerd.jobs.model import Edge, EdgeStatus, Job, JobFile, JobStatus
from peerd.jobs.places import Places
from peerd.jobs.quota import Quota
from peerd.jobs.readiness import Readiness, readiness
from peerd.jobs.repository import JobRepository
from peerd.store import Tx
from peerd.transfers.model import NO_ROOM, Expectation, Received, TransferKey


class Expectations:
    """Implements Destinations and Outcomes of transfers, for job execution ids above 0."""

    def __init__(
        self, repository: JobRepository, places: Places, name_of: Callable[[PeerId], str], quota: Quota
    ) -> None:
        self._quota = quota
        self._repository = repository
        self._places = places
        self._name_of = name_of

    # As receiver

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        """Where it belongs, and how much of it may come. Raises NOT_YET_EXPECTED, UNEXPECTED_TRANSFER."""
        job, edge = self._expected(tx, key)
        return Expectation(
            directory=self._places.receiving(job, edge),
            root=self._places.of(job).directory,
            room_bytes=self._quota.room(tx, job.key.orchestrator, promised=edge.bytes),
            was_refused=_waits_for_room(job),
        )

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """Promise the room for it until all is here, so that no other is promised the same. Raises as ``expect``."""
        job, edge = self._expected(tx, key)
        edge_repository.put_edge(tx, job.id, replace(edge, bytes=total_bytes))
        if _waits_for_room(job):
            now = self._readiness(tx, job)
            self._repository.touch(tx, job, reason=now.reason, message=now.message)

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        """Let its orchestrator see why the job waits, if it does; repeated refusals are told once."""
        job = self._repository.find_id(tx, key.destination_job_execution_id)
        edge = edge_repository.find_edge(tx, key.destination_job_execution_id, key.edge_id)
        if job is None or edge is None or job.status is not JobStatus.WAITING_INPUTS or job.reason == error.reason.text:
            return
        sender = self._name_of(edge.peer_id)
        message = f"{edge.place} from {sender} (edge {edge.edge_id}) waits for room: {error.message}"
        self._repository.touch(tx, job, reason=error.reason.text, message=message)

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        """Record that an edge is complete, and let the job start if that was the last. Raises as ``expect``."""
        job, edge = self._expected(tx, key)
        done = replace(edge, status=EdgeStatus.RECEIVED, bytes=received.total_bytes)
        edge_repository.put_edge(tx, job.id, done)
        prefix = PurePosixPath(self._places.receiving(job, edge).relative_to(self._places.of(job).directory))
        # Sizes of single files are known to the manifest; here only their names matter.
        files = [JobFile(path=str(prefix / name), size=0) for name in received.files]
        edge_repository.replace_files(tx, job.id, edge.edge_id, files)
        edges = edge_repository.edges_of(tx, job.id)
        total = sum(each.bytes for each in edges if each.incoming and each.status is EdgeStatus.RECEIVED)
        if job.status is not JobStatus.WAITING_INPUTS:
            self._repository.touch(tx, job, bytes_received=total)
            return
        now = self._readiness(tx, job)
        self._repository.move(tx, job, now.status, reason=now.reason, message=now.message, bytes_received=total)

    def _readiness(self, tx: Tx, job: Job) -> Readiness:
        edges = edge_repository.edges_of(tx, job.id)
        return readiness(edges, waits_for_inputs=job.waits_for_inputs, name_of=self._name_of, hold=job.hold)

    def _expected(self, tx: Tx, key: TransferKey) -> tuple[Job, Edge]:
        job = self._job(tx, key)
        if job.status.final:
            raise _unexpected(f"job execution {job.id} is {job.status.value}")
        if job.generation == 0:
            raise PeerdError(
                Reason.NOT_YET_EXPECTED, f"job execution {job.id} has no interfaces yet", retry_after_seconds=0.5
            )
        edge = edge_repository.find_edge(tx, job.id, key.edge_id)
        if edge is None or not edge.incoming:
            raise _unexpected(f"job execution {job.id} has no incoming edge {key.edge_id}")
        if edge.peer_id == key.source_peer_id and edge.peer_job_execution_id < key.source_job_execution_id:
            # The same peer runs the producer anew, and we have not been told yet.
            raise PeerdError(
                Reason.NOT_YET_EXPECTED,
                f"edge {key.edge_id} comes from job {edge.peer_job_execution_id} of that peer, as far as is known here",
                retry_after_seconds=1,
            )
        if (edge.peer_id, edge.peer_job_execution_id) != (key.source_peer_id, key.source_job_execution_id):
            raise _unexpected(f"edge {key.edge_id} of job execution {job.id} comes from another job or peer")
        if edge.status is EdgeStatus.CLEARING:
            raise PeerdError(
                Reason.NOT_YET_EXPECTED, "files of an earlier producer are being removed", retry_after_seconds=0.5
            )
        if edge.status is EdgeStatus.RECEIVED:
            # The same files again are answered from the receiver's own record and never come here.
            raise _unexpected(f"edge {key.edge_id} of job execution {job.id} is complete already")
        return job, edge

    def _job(self, tx: Tx, key: TransferKey) -> Job:
        job = self._repository.find_id(tx, key.destination_job_execution_id)
        if job is None:
            if key.destination_job_execution_id > self._repository.highest_id(tx):
                raise PeerdError(
                    Reason.NOT_YET_EXPECTED,
                    f"this peer has no job execution {key.destination_job_execution_id} yet",
                    retry_after_seconds=2,
                )
            raise _unexpected(f"job execution {key.destination_job_execution_id} is gone")
        ours = (job.key.orchestrator, job.key.store_id, job.key.workflow_execution_id, self._places.executor)
        if ours != (key.orchestrator, key.store_id, key.workflow_execution_id, key.destination_peer_id):
            raise _unexpected(f"job execution {job.id} belongs to another execution")
        return job

    # As sender

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """An edge has arrived."""
        self._settle(tx, key, EdgeStatus.DELIVERED, total_bytes, "", "")

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        """An edge will never arrive. The job stays completed; its orchestrator decides what follows."""
        self._settle(tx, key, EdgeStatus.FAILED, 0, reason, message)

    def _settle(self, tx: Tx, key: TransferKey, status: EdgeStatus, total: int, reason: str, message: str) -> None:
        job = self._repository.find_id(tx, key.source_job_execution_id)
        edge = edge_repository.find_edge(tx, key.source_job_execution_id, key.edge_id)
        if job is None or edge is None or edge.status is not EdgeStatus.SENDING:
            return
        if self._places.transfer_key(job, edge) != key:
            return  # news of a destination that a newer generation has replaced
        edge_repository.put_edge(tx, job.id, replace(edge, status=status, bytes=total, reason=reason, message=message))
        self._repository.touch(tx, job, bytes_sent=job.bytes_sent + total)


def _waits_for_room(job: Job) -> bool:
    """Whether it says that an offer was refused for want of room."""
    return job.status is JobStatus.WAITING_INPUTS and job.reason in {reason.text for reason in NO_ROOM}


def _unexpected(message: str) -> PeerdError:
    return PeerdError(Reason.UNEXPECTED_TRANSFER, message)
