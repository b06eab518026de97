"""CreateJob: admit a job and give it an id, once for each key.

The key is the idempotence: the same key and content gives the same id for ever, whatever request id it carries, also
after the job has ended. The same key with other content is a mistake of the orchestrator and refused. How long the
lease is does not count as content: an orchestrator may be restarted with another setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerd.catalog.catalog import Catalog
from peerd.catalog.model import Service, ServiceKind
from peerd.disk import Disk
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.jobs.admission import Machine, Orderer, admit, admit_load
from peerd.jobs.commands import command_work, service_work
from peerd.jobs.model import Job, JobKey, Resources, RetryPolicy, Work
from peerd.jobs.quota import Quota
from peerd.jobs.repository import JobRepository, NewJob
from peerd.jobs.reuse import Reused, reusable
from peerd.jobs.secrets import Vault, WantedSecrets, with_secrets
from peerd.store import Store, Tx
from peerd.store.audit import note


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an orchestrator asks for, decoded."""

    key: JobKey
    digest: bytes
    workflow_id: str
    node_id: str
    job_name: str
    request_id: str = ""
    """For the audit log."""
    service: str = ""
    """Name or id; empty for an ad-hoc command."""
    argv: tuple[str, ...] = ()
    network: bool = False
    params: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    secrets: WantedSecrets = field(default_factory=WantedSecrets)
    timeout_seconds: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    waits_for_inputs: bool = True
    stop_without_lease: bool = False
    lease_seconds: float = 60.0
    resources: Resources = field(default_factory=Resources)
    priority: int = 0
    reused: Reused | None = None
    """Whose files it sends again, in place of a service or a command."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What admission needs to know."""

    machine: Machine
    roles_of: Callable[[PeerId], frozenset[str]]
    disk: Callable[[], Disk]
    quota: Quota
    vault: Vault
    closed: Callable[[], PeerdError | None]
    """Why nothing new is taken now, if so."""


class Creation:
    """Takes orders."""

    def __init__(self, store: Store, repository: JobRepository, catalog: Catalog, gate: Gate) -> None:
        self._store = store
        self._repository = repository
        self._catalog = catalog
        self._gate = gate

    async def create(self, order: Order) -> Job:
        """The job of that key, new or not. Raises whatever refuses it; then nothing was stored."""
        disk = self._gate.disk()
        job = await self._store.write(lambda tx: self._create(tx, order, disk))
        failpoint("job.create.after_commit")
        return job

    def _create(self, tx: Tx, order: Order, disk: Disk) -> Job:
        present = self._repository.find(tx, order.key)
        if present is not None:
            if present.request_digest != order.digest:
                raise PeerdError(
                    Reason.ALREADY_EXISTS,
                    f"job execution {present.id} has this key already, with other content",
                    next_action="raise the placement for a different job",
                )
            self._repository.contact(tx, order.key)
            return present
        if self._repository.is_buried(tx, order.key):
            raise PeerdError(Reason.JOB_CANCELLED, "this job was cancelled before it came")
        closed = self._gate.closed()
        if closed is not None:
            raise closed
        admit_load(self._gate.machine, self._repository.count_open(tx), disk)
        caller = order.key.orchestrator
        self._gate.quota.check(tx, caller)
        new = self._reusing(tx, order, order.reused) if order.reused is not None else self._working(tx, order)
        job = self._repository.create(tx, new)
        note(tx, "CreateJob", caller=caller, target=_named(order, job), request_id=order.request_id)
        failpoint("job.create.before_commit")
        return job

    def _working(self, tx: Tx, order: Order) -> NewJob:
        service = self._catalog.get(tx, order.service) if order.service else None
        caller = order.key.orchestrator
        orderer = Orderer(peer_id=caller, roles=self._gate.roles_of(caller))
        admit(self._gate.machine, orderer, service, _resources(order, service))
        self._gate.vault.admit(orderer, service, order.secrets, isolation=self._gate.machine.isolation)
        return _new_job(order, service)

    def _reusing(self, tx: Tx, order: Order, wanted: Reused) -> NewJob:
        """Nothing is run, so nothing is asked of services and secrets: it was, when the earlier job was created."""
        earlier = reusable(self._repository.find_id(tx, wanted.job_execution_id), order.key.orchestrator, wanted)
        return NewJob(
            key=order.key,
            request_digest=order.digest,
            workflow_id=order.workflow_id,
            node_id=order.node_id,
            job_name=order.job_name,
            service_id=earlier.service_id,
            work=earlier.work,
            timeout_seconds=None,
            retry=RetryPolicy(),
            waits_for_inputs=True,
            stop_without_lease=False,
            lease_seconds=order.lease_seconds,
            priority=order.priority,
            reused_id=earlier.id,
        )


def _named(order: Order, job: Job) -> dict[str, object]:
    return {
        "job_execution_id": job.id,
        "workflow_execution_id": order.key.workflow_execution_id,
        "node_id": order.node_id,
        "service": job.work.service or "(command)",
        **({"reused_job_execution_id": job.reused_id} if job.reused_id is not None else {}),
    }


def _new_job(order: Order, service: Service | None) -> NewJob:
    return NewJob(
        key=order.key,
        request_digest=order.digest,
        workflow_id=order.workflow_id,
        node_id=order.node_id,
        job_name=order.job_name,
        service_id=service.service_id if service is not None else None,
        work=_work(order, service),
        timeout_seconds=order.timeout_seconds,
        retry=order.retry,
        waits_for_inputs=order.waits_for_inputs,
        stop_without_lease=order.stop_without_lease,
        lease_seconds=order.lease_seconds,
        priority=order.priority,
        resources=_resources(order, service),
        max_concurrent=service.declaration.max_concurrent if service is not None else 0,
    )


def _resources(order: Order, service: Service | None) -> Resources:
    """The job's own wishes, then its service's. Offering data takes nothing."""
    if service is None:
        return order.resources
    declared = service.declaration
    if declared.kind is ServiceKind.DATA:
        return Resources()
    return order.resources.otherwise(
        Resources(
            cpus=declared.cpus,
            memory_bytes=declared.memory_bytes,
            disk_bytes=declared.disk_bytes,
            gpus=declared.gpus,
        )
    )


def _work(order: Order, service: Service | None) -> Work:
    if service is None:
        work = command_work(order.argv, order.env, network=order.network)
    else:
        work = service_work(service, order.params, order.env)
    return with_secrets(work, order.secrets, service)
