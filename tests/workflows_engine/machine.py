"""A simulated executor: what lasts over a crash, what does not, and the processes that outlive the daemon.

What it decides it decides by peerd's own pure functions (``merge``, ``readiness``, ``judge``, the tables of moves);
only their shells (store, runner of processes) are written anew here. Whatever happens to the world - an effect began,
ended, files arrived - is told to the witness at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.ends import Ending, judge
from peerd.jobs.merging import merge
from peerd.jobs.model import Edge, EdgeStatus, Job, JobKey, JobStatus, Stop, check_transition
from peerd.jobs.readiness import missing_inputs, readiness
from peerd.transfers.model import TransferKey
from peerd.v1 import jobs_pb2
from peerd.workflows import model as engine
from peerd.workflows.model import Report

from .network import Network
from .parcels import Manifest, Sender
from .rows import Attempt, Create, new_job, to_edges

CREATED_EXPIRES_MS = 2000

Step = Callable[[], None]


class Witness(Protocol):
    """Sees what really happens."""

    def began(self, executor: str, job: Job, attempt_id: int, inputs: dict[int, Manifest]) -> None: ...

    def ended(self, executor: str, attempt_id: int, how: str) -> None: ...

    def recorded(self, executor: str, job: Job) -> None: ...

    def contacted(self, executor: str, job: Job, now: Millis) -> None: ...


@dataclass(kw_only=True)
class Executor:
    """Of one machine."""

    name: str
    network: Network
    witness: Witness
    refuses: Reason | None = None

    # Durable
    jobs: dict[int, Job] = field(default_factory=dict)
    ids: dict[JobKey, int] = field(default_factory=dict)
    edges: dict[int, dict[int, Edge]] = field(default_factory=dict)
    inputs: dict[int, dict[int, Manifest]] = field(default_factory=dict)
    tombstones: set[JobKey] = field(default_factory=set)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    next_id: int = 1
    # Not the daemon's: attempt -> running, ok, fail or vanished
    processes: dict[int, str] = field(default_factory=dict)
    # In memory: attempts that are watched, and whether they still have to be handed to the runner.
    watches: dict[int, bool] = field(default_factory=dict)
    up_since: int = 0

    sender: Sender = field(init=False)
    forget_received: Callable[[TransferKey], None] = lambda _: None

    def __post_init__(self) -> None:
        self.sender = Sender(name=self.name, network=self.network, settled=self._settled)

    # Calls

    def create(self, request: Create) -> int:
        key = request.key
        if key in self.ids:
            self._contact(key)
            return self.ids[key]
        if key in self.tombstones:
            raise PeerdError(Reason.JOB_CANCELLED, "this job was cancelled before it came")
        if self.refuses is not None:
            raise PeerdError(self.refuses, "not here")
        job_id = self.ids[key] = self.next_id
        self.next_id += 1
        self.jobs[job_id] = new_job(job_id, request, self.network.now)
        self.edges[job_id], self.inputs[job_id] = {}, {}
        return job_id

    def start(self, key: JobKey, request: jobs_pb2.StartJobRequest) -> Report:
        job = self._find(key)
        if job is None and key in self.tombstones:
            raise PeerdError(Reason.JOB_CANCELLED, "this job was cancelled before it came")
        if job is None or job.id != request.job_execution_id:
            raise PeerdError(Reason.NOT_FOUND, "no such job")
        self._contact(key)
        ended_badly = job.status.final and job.status is not JobStatus.COMPLETED
        if request.generation > job.generation and not ended_badly:
            if self.refuses is Reason.ILLEGAL_INTERFACE:
                raise PeerdError(Reason.ILLEGAL_INTERFACE, "the service takes no such thing")
            self._take_interfaces(self.jobs[job.id], request.generation, to_edges(request), hold=request.hold)
        return self.report(self.jobs[job.id])

    def _take_interfaces(self, job: Job, generation: int, wanted: Sequence[Edge], *, hold: bool) -> None:
        edges = self.edges[job.id]
        merged = merge(job, edges.values(), wanted)
        for edge in merged.drop:
            del edges[edge.edge_id]
            self.inputs[job.id].pop(edge.edge_id, None)
        for edge in merged.withdraw:
            self.sender.withdraw(self._sending(job, edge))
        for edge in merged.put:
            edges[edge.edge_id] = edge
            if edge.status is EdgeStatus.CLEARING:
                self.forget_received(self._receiving(job, edge))
        for edge in merged.send:
            self.sender.enqueue(self._sending(job, edge), (self.name, job.id, job.attempt))
        if job.started or job.status.final:
            self._touch(job, generation=generation)
        else:
            self._move(job, self._readiness(job), generation=generation, hold=hold)

    def cancel(self, key: JobKey) -> Report:
        job = self._find(key)
        if job is None:
            self.tombstones.add(key)
            return Report(job_execution_id=0, status=engine.JobStatus.CANCELLED, revision=0)
        if job.status is JobStatus.RUNNING:
            if job.stop is not Stop.CANCEL:
                self._touch(job, stop=Stop.CANCEL, reason="cancelling")
        elif not job.status.final:
            self._move(job, JobStatus.CANCELLED, reason="cancelled")
        return self.report(self.jobs[job.id])

    def sync(self, keys: Sequence[JobKey]) -> tuple[list[tuple[JobKey, Report]], list[JobKey]]:
        known = [key for key in keys if key in self.ids]
        for key in known:
            self._contact(key)
        return [(key, self.report(self.jobs[self.ids[key]])) for key in known], [
            key for key in keys if key not in self.ids
        ]

    def acknowledge(self, key: JobKey, revision: int) -> None:
        job = self.jobs[self.ids[key]]
        known = max(job.acknowledged_revision, revision)
        self.jobs[job.id] = replace(job, acknowledged_revision=known, contact_at=self.network.now)

    def unacknowledged(self) -> dict[str, list[tuple[JobKey, Report]]]:
        found: dict[str, list[tuple[JobKey, Report]]] = {}
        for job in self.jobs.values():
            if job.revision > job.acknowledged_revision:
                found.setdefault(job.key.orchestrator, []).append((job.key, self.report(job)))
        return found

    def report(self, job: Job) -> Report:
        return Report(
            job_execution_id=job.id,
            status=engine.JobStatus(job.status.value),
            revision=job.revision,
            generation=job.generation,
            reason=job.reason,
            message=job.message,
            attempt=job.attempt,
            edges=tuple(
                engine.EdgeNews(edge_id=edge.edge_id, status=engine.EdgeStatus(edge.status.value), reason=edge.reason)
                for edge in self.edges[job.id].values()
                if not edge.incoming
            ),
        )

    # Files

    def expect(self, key: TransferKey) -> None:
        job = self.jobs.get(key.destination_job_execution_id)
        if job is None:
            raise _unexpected("no such job") if key.destination_job_execution_id < self.next_id else _not_yet("no job")
        if (job.key.orchestrator, job.key.workflow_execution_id) != (key.orchestrator, key.workflow_execution_id):
            raise _unexpected("another execution")
        if job.status.final:
            raise _unexpected(f"it is {job.status.value}")
        if job.generation == 0:
            raise _not_yet("no interfaces")
        edge = self.edges[job.id].get(key.edge_id)
        if edge is None or not edge.incoming:
            raise _unexpected("no such edge")
        if edge.peer_id == key.source_peer_id and edge.peer_job_execution_id < key.source_job_execution_id:
            raise _not_yet("a newer job of that peer")
        if (edge.peer_id, edge.peer_job_execution_id) != (key.source_peer_id, key.source_job_execution_id):
            raise _unexpected("from another job or peer")
        if edge.status is EdgeStatus.CLEARING:
            raise _not_yet("clearing")
        if edge.status is EdgeStatus.RECEIVED:
            raise _unexpected("complete already")

    def received(self, key: TransferKey, manifest: Manifest) -> None:
        job = self.jobs[key.destination_job_execution_id]
        edges = self.edges[job.id]
        edges[key.edge_id] = replace(edges[key.edge_id], status=EdgeStatus.RECEIVED, bytes=1)
        self.inputs[job.id][key.edge_id] = manifest
        if job.status is JobStatus.WAITING_INPUTS:
            self._move(job, self._readiness(job))
        else:
            self._touch(job)

    def _settled(self, key: TransferKey, delivered: bool) -> None:
        job = self.jobs[key.source_job_execution_id]
        edge = self.edges[job.id].get(key.edge_id)
        if edge is None or edge.status is not EdgeStatus.SENDING or self._sending(job, edge) != key:
            return
        status = EdgeStatus.DELIVERED if delivered else EdgeStatus.FAILED
        reason = "" if delivered else "unexpected_transfer"
        self.edges[job.id][edge.edge_id] = replace(edge, status=status, reason=reason)
        self._touch(job)

    # What it does by itself

    def steps(self) -> list[Step]:
        """All that could be done next."""
        found: list[Step] = list(self.sender.steps())
        for job in self.jobs.values():
            if job.status is JobStatus.READY and not job.hold and (job.next_try_at or 0) <= self.network.now:
                found.append(lambda job=job: self._begin(job))  # type: ignore[misc]
            for edge in self.edges[job.id].values():
                if edge.status is EdgeStatus.CLEARING:
                    found.append(lambda job=job, edge=edge: self._clear(job, edge))  # type: ignore[misc]
        for attempt_id, fresh in self.watches.items():
            job = self.jobs[self.attempts[attempt_id].job_id]
            if fresh:
                found.append(lambda job=job, a=attempt_id: self._spawn(job, a))  # type: ignore[misc]
            elif job.stop is not None or self.processes.get(attempt_id) != "running":
                found.append(lambda job=job, a=attempt_id: self._end(job, a))  # type: ignore[misc]
        return found

    def _begin(self, job: Job) -> None:
        attempt_id = len(self.attempts) + 1
        self.attempts[attempt_id] = Attempt(job_id=job.id, number=job.attempt + 1)
        self._move(job, JobStatus.RUNNING, attempt=job.attempt + 1, next_try_at=None)
        self.watches[attempt_id] = True

    def _spawn(self, job: Job, attempt_id: int) -> None:
        self.watches[attempt_id] = False
        if job.stop is None:
            missing = missing_inputs(self.edges[job.id].values()) if job.waits_for_inputs else []
            assert not missing, f"{job.node_id} starts without {missing}"
            for edge_id, (peer, job_id, _) in self.inputs[job.id].items():
                edge = self.edges[job.id][edge_id]
                assert (edge.peer_id, edge.peer_job_execution_id) == (peer, job_id), "files of a former producer"
            self.processes[attempt_id] = "running"
            self.witness.began(self.name, job, attempt_id, dict(self.inputs[job.id]))

    def exits(self, attempt_id: int, how: str) -> None:
        """A process ends by itself: ok, fail, or vanished (nobody will know how)."""
        self.processes[attempt_id] = how
        self.witness.ended(self.name, attempt_id, how)

    def _end(self, job: Job, attempt_id: int) -> None:
        """Stop it if it is to be stopped, and record its end."""
        if self.processes.get(attempt_id) == "running":
            self.exits(attempt_id, "killed")
        how = self.processes.get(attempt_id, "none")
        code = {"ok": 0, "fail": 1}.get(how)
        ending = Ending(outcome="lost" if how == "vanished" else "exit", exit_code=code)
        del self.watches[attempt_id]
        verdict = judge(job, ending, sends_stdout=False)
        self.attempts[attempt_id].outcome = verdict.outcome
        retry = verdict.retry_after_seconds
        next_try = Millis(self.network.now + 100) if retry is not None else None
        self._move(job, verdict.status, reason=verdict.reason, message=verdict.message, next_try_at=next_try)
        if verdict.status is JobStatus.COMPLETED:
            for edge in list(self.edges[job.id].values()):
                if not edge.incoming:
                    self.edges[job.id][edge.edge_id] = replace(edge, status=EdgeStatus.SENDING)
                    self.sender.enqueue(self._sending(job, edge), (self.name, job.id, job.attempt))

    def _clear(self, job: Job, edge: Edge) -> None:
        self.inputs[job.id].pop(edge.edge_id, None)
        self.edges[job.id][edge.edge_id] = replace(edge, status=EdgeStatus.WAITING, bytes=0)

    def expire(self) -> None:
        """End what nobody asked for in time."""
        now = self.network.now
        for job in list(self.jobs.values()):
            if job.status.final or job.stop is not None:
                continue
            if job.status is JobStatus.CREATED:
                if max(job.contact_at, self.up_since) + CREATED_EXPIRES_MS < now:
                    self._move(job, JobStatus.FAILED, reason="refused", message="created, and not started in time")
            elif job.stop_without_lease and job.lease_until < now:
                if job.status is JobStatus.RUNNING:
                    self._touch(job, stop=Stop.LEASE, reason="stopping")
                    for attempt_id in [a for a in self.watches if self.attempts[a].job_id == job.id]:
                        self._end(self.jobs[job.id], attempt_id)
                else:
                    self._move(job, JobStatus.FAILED, reason="lost", message="its orchestrator is gone")

    def crash(self, *, reboot: bool) -> None:
        """The daemon is killed; ``reboot``: everything that runs there as well."""
        self.watches.clear()
        self.sender.crash()
        if reboot:
            for attempt_id, how in list(self.processes.items()):
                if how == "running":
                    self.exits(attempt_id, "vanished")

    def recover(self) -> None:
        """A new daemon looks at what the one before left."""
        self.up_since = self.network.now
        for attempt_id, attempt in self.attempts.items():
            if attempt.outcome is not None:
                continue
            job = self.jobs[attempt.job_id]
            if attempt_id in self.processes or job.stop is not None:
                self.watches[attempt_id] = False
                continue
            attempt.outcome = "never_started"
            self._move(job, JobStatus.READY, attempt=job.attempt - 1)

    # Rows

    def _find(self, key: JobKey) -> Job | None:
        return self.jobs[self.ids[key]] if key in self.ids else None

    def _contact(self, key: JobKey) -> None:
        if (job := self._find(key)) is not None:
            self.jobs[job.id] = replace(job, contact_at=self.network.now)
            self.witness.contacted(self.name, job, self.network.now)

    def _move(self, job: Job, to: JobStatus, **columns: object) -> None:
        check_transition(job.id, job.status, to)
        self._touch(job, status=to, **{"reason": "", "message": "", **columns})
        if to.final:
            self.witness.recorded(self.name, self.jobs[job.id])

    def _touch(self, job: Job, **columns: object) -> None:
        present = self.jobs[job.id]
        assert present.status is job.status
        self.jobs[job.id] = replace(present, revision=present.revision + 1, **columns)  # type: ignore[arg-type]

    def _readiness(self, job: Job) -> JobStatus:
        edges = self.edges[job.id].values()
        return readiness(edges, waits_for_inputs=job.waits_for_inputs, name_of=str).status

    def _sending(self, job: Job, edge: Edge) -> TransferKey:
        return self._key(job, edge, (self.name, job.id), (edge.peer_id, edge.peer_job_execution_id))

    def _receiving(self, job: Job, edge: Edge) -> TransferKey:
        return self._key(job, edge, (edge.peer_id, edge.peer_job_execution_id), (self.name, job.id))

    def _key(self, job: Job, edge: Edge, source: tuple[str, int], target: tuple[str, int]) -> TransferKey:
        return TransferKey(
            orchestrator=job.key.orchestrator,
            store_id=job.key.store_id,
            workflow_execution_id=job.key.workflow_execution_id,
            edge_id=edge.edge_id,
            source_peer_id=PeerId(source[0]),
            source_job_execution_id=source[1],
            destination_peer_id=PeerId(target[0]),
            destination_job_execution_id=target[1],
        )


def _unexpected(message: str) -> PeerdError:
    return PeerdError(Reason.UNEXPECTED_TRANSFER, message)


def _not_yet(message: str) -> PeerdError:
    return PeerdError(Reason.NOT_YET_EXPECTED, message)
