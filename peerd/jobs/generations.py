"""StartJob: give a job its complete interfaces, or replace them by a higher generation. Idempotent.

What a generation changes is decided in :mod:`peerd.jobs.merging`; whether the job may start then in
:mod:`peerd.jobs.readiness`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peerd.catalog.catalog import Catalog
from peerd.catalog.model import EVERYTHING, InterfaceKind, Service, ServiceKind
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.jobs import edge_repository
from peerd.jobs.ends import OUTPUT_TRUNCATED
from peerd.jobs.merging import merge
from peerd.jobs.model import Edge, EdgeStatus, Job, JobKey, JobStatus
from peerd.jobs.places import Places
from peerd.jobs.readiness import readiness
from peerd.jobs.repository import JobRepository
from peerd.jobs.sends import Sends
from peerd.store import Store, Tx
from peerd.store.audit import note
from peerd.transfers.repository import forget_received


class Generations:
    """Takes interfaces."""

    def __init__(
        self,
        store: Store,
        repository: JobRepository,
        catalog: Catalog,
        sends: Sends,
        places: Places,
        name_of: Callable[[PeerId], str],
    ) -> None:
        self._store = store
        self._repository = repository
        self._catalog = catalog
        self._sends = sends
        self._places = places
        self._name_of = name_of

    async def start(
        self,
        key: JobKey,
        job_execution_id: int,
        generation: int,
        edges: Sequence[Edge],
        *,
        hold: bool = False,
        request_id: str = "",
    ) -> Job:
        """The job as it is then; with ``hold`` it does not start yet.

        Raises NOT_FOUND for a job to be created anew, JOB_CANCELLED, ILLEGAL_INTERFACE.
        """
        job = await self._store.write(
            lambda tx: self._start(tx, key, job_execution_id, generation, edges, hold, request_id)
        )
        failpoint("job.start.after_commit")
        return job

    def _start(
        self,
        tx: Tx,
        key: JobKey,
        job_execution_id: int,
        generation: int,
        edges: Sequence[Edge],
        hold: bool,
        request_id: str,
    ) -> Job:
        job = self._repository.find(tx, key)
        if job is None and self._repository.is_buried(tx, key):
            raise PeerdError(Reason.JOB_CANCELLED, "this job was cancelled before it came")
        if job is None or job.id != job_execution_id:
            raise PeerdError(
                Reason.NOT_FOUND,
                f"this peer has no job execution {job_execution_id} of that key",
                next_action="create the job first",
            )
        self._repository.contact(tx, key)
        ended_badly = job.status.final and job.status is not JobStatus.COMPLETED
        if generation <= job.generation or ended_badly:
            return self._repository.get(tx, job.id)
        self._check(tx, job, edges)
        job = self._apply(tx, job, generation, edges, hold=hold)
        target: dict[str, object] = {"job_execution_id": job.id, "generation": generation}
        note(tx, "StartJob", caller=key.orchestrator, target=target, request_id=request_id)
        failpoint("job.start.before_commit")
        return job

    def _apply(self, tx: Tx, job: Job, generation: int, edges: Sequence[Edge], *, hold: bool) -> Job:
        merged = merge(job, edge_repository.edges_of(tx, job.id), edges)
        for edge in merged.drop:
            edge_repository.drop_edge(tx, job.id, edge.edge_id)
            edge_repository.replace_files(tx, job.id, edge.edge_id, ())
        for edge in merged.withdraw:
            self._sends.withdraw(tx, self._places.transfer_key(job, edge))
        for edge in merged.put:
            edge_repository.put_edge(tx, job.id, edge)
            if edge.status is EdgeStatus.CLEARING:
                # Should the first producer be named again, its files must be taken again as well.
                forget_received(tx, self._places.received_key(job, edge))
        for edge in merged.send:
            self._sends.enqueue(tx, self._places.transfer(job, edge))
        if job.started or job.status.final:
            return self._repository.touch(tx, job, generation=generation)
        now = readiness(
            edge_repository.edges_of(tx, job.id),
            waits_for_inputs=job.waits_for_inputs,
            name_of=self._name_of,
            hold=hold,
        )
        return self._repository.move(
            tx, job, now.status, reason=now.reason, message=now.message, generation=generation, hold=int(hold)
        )

    def _check(self, tx: Tx, job: Job, edges: Sequence[Edge]) -> None:
        """Only what the service declares; a service that is offered no longer is not asked again."""
        _check_stdout(job, edges)
        service = self._catalog.find(tx, str(job.service_id)) if job.service_id is not None else None
        if service is None and job.service_id is not None:
            return
        for edge in edges:
            if not _fits(service, edge):
                way = "takes" if edge.incoming else "gives"
                what = job.work.service or "a command"
                raise PeerdError(Reason.ILLEGAL_INTERFACE, f"edge {edge.edge_id}: {what} {way} no {edge.place}")


def _check_stdout(job: Job, edges: Sequence[Edge]) -> None:
    """Half a result that looks like a whole one is worse than none, also for who asks when the job is over."""
    stdout = next((edge for edge in edges if not edge.incoming and edge.kind is InterfaceKind.STDOUT), None)
    if stdout is not None and job.status is JobStatus.COMPLETED and job.reason == OUTPUT_TRUNCATED:
        raise PeerdError(Reason.ILLEGAL_INTERFACE, f"edge {stdout.edge_id}: {job.message}")


def _fits(service: Service | None, edge: Edge) -> bool:
    interfaces = service.interfaces if service is not None else EVERYTHING[ServiceKind.PROCESS]
    if edge.incoming:
        return any(interface.takes(edge.kind, edge.path) for interface in interfaces)
    return any(interface.gives(edge.kind, edge.path) for interface in interfaces)
