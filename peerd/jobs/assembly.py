"""Builds the executor of a peer from its parts, in the one order that works.

The sender of files needs to tell jobs what became of their files, and jobs need the sender: so the
:class:`JobFloor` comes first, then the sender with its expectations, then :func:`assemble`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peerd.catalog.catalog import Catalog
from peerd.clock import Clock
from peerd.config import JobsConfig, RetentionConfig
from peerd.disk import Reserve
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.jobs.admission import Machine
from peerd.jobs.attempts import Attempts, Runner
from peerd.jobs.attempts import Bounds as AttemptBounds
from peerd.jobs.available import Available, this_machine
from peerd.jobs.cancellation import Cancellation
from peerd.jobs.changes import Changes
from peerd.jobs.choosing import Capacity
from peerd.jobs.clearing import Clearing
from peerd.jobs.creation import Creation, Gate
from peerd.jobs.data import DataJobs
from peerd.jobs.executor import Executor, Room, Upkeep
from peerd.jobs.expectations import Expectations
from peerd.jobs.generations import Generations
from peerd.jobs.leases import Leases
from peerd.jobs.measuring import Measuring
from peerd.jobs.model import Resources
from peerd.jobs.places import Places
from peerd.jobs.quota import Quota
from peerd.jobs.recording import Completed, Recording
from peerd.jobs.reporter import Reporter
from peerd.jobs.repository import JobRepository
from peerd.jobs.retention import JobRetention
from peerd.jobs.secrets import Vault
from peerd.jobs.sends import Sends
from peerd.jobs.servicer import Commands, JobServicer
from peerd.jobs.views import Views
from peerd.rpc.channels import Channels
from peerd.secret_config import SecretConfig
from peerd.store import Store
from peerd.v1 import registry_pb2


class JobFloor:
    """What receiver and sender need of jobs, and jobs need of themselves."""

    def __init__(
        self,
        *,
        data_dir: Path,
        control_root: Path,
        peer_id: PeerId,
        name_of: Callable[[PeerId], str],
        quota_bytes: int = 0,
    ) -> None:
        self.changes = Changes()
        self.quota = Quota(limit_bytes=quota_bytes, executor=peer_id)
        self.repository = JobRepository(self.changes)
        self.places = Places(data_dir=data_dir, control_root=control_root, executor=peer_id)
        self.name_of = name_of
        self.expectations = Expectations(self.repository, self.places, name_of, self.quota)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many jobs are taken."""

    max_running: int
    max_queued: int


def bounds_of(config: JobsConfig, *, max_running: int = 0, max_queued: int = 0) -> Bounds:
    """As configured; where a number is given here (0 is none) it counts unless the configuration says otherwise."""
    return Bounds(
        max_running=config.max_running or max_running or 2 * (os.cpu_count() or 1),
        max_queued=min(config.max_queued, max_queued) if max_queued else config.max_queued,
    )


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What jobs use and do not own."""

    store: Store
    clock: Clock
    catalog: Catalog
    channels: Channels
    sends: Sends
    runner: Runner
    isolation: int
    """registry_pb2.IsolationLevel of the runner."""
    limits: int = registry_pb2.LIMITS_LEVEL_RLIMITS
    """registry_pb2.LimitsLevel of the runner."""
    limits_cpus: bool = False
    """Whether the runner gives a job no more processor time than it asked for."""
    machine: Callable[[], Resources] = lambda: this_machine()
    """What the machine has; its disk is looked at anew each time."""
    roles_of: Callable[[PeerId], frozenset[str]]
    containers: Callable[[], bool] = lambda: False
    """Whether there is a container engine."""
    container_memory_bytes: int = 0
    """The most a container may use that asks for nothing; half of what there is when 0."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    bounds: Callable[[JobsConfig], Bounds] = lambda config: bounds_of(config)
    """How many jobs are taken, which may change while the daemon runs."""
    secrets: Mapping[str, SecretConfig] = field(default_factory=dict)
    """What jobs may be given."""
    closed: Callable[[], PeerdError | None] = lambda: None
    """Why no new jobs are taken now, if so."""
    reserve: Reserve = field(default_factory=Reserve)
    """What of the disk stays free."""
    completed: Completed = lambda *_: None
    """Hears of each job that has ended well."""


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What the daemon serves and runs."""

    servicer: JobServicer
    executor: Executor
    reporter: Reporter
    retention: JobRetention


def assemble(floor: JobFloor, around: Surroundings, config: JobsConfig) -> Jobs:
    """Wire everything; nothing runs yet."""
    store, repository, places, clock = around.store, floor.repository, floor.places, around.clock
    views = Views(store, places, around.sends)
    leases = Leases(store, repository, clock, created_expires_seconds=config.created_expires_seconds)
    retention = JobRetention(store, places, clock, around.retention)
    vault = Vault(around.secrets, own_peer_id=places.executor, roles_of=around.roles_of)
    commands = Commands(
        creation=Creation(store, repository, around.catalog, _gate(floor, around, config, vault)),
        generations=Generations(store, repository, around.catalog, around.sends, places, floor.name_of),
        cancellation=Cancellation(store, repository, floor.changes, clock),
        leases=leases,
        retention=retention,
    )
    recording = Recording(repository, around.sends, places, completed=around.completed)
    bounds = AttemptBounds(output_cap_bytes=config.output_cap_bytes)
    available = Available(
        config, around.machine, lambda: around.reserve.look(places.data_dir), around.container_memory_bytes
    )
    executor = Executor(
        store,
        recording,
        Attempts(store, around.runner, recording, places, clock, bounds, vault),
        Upkeep(
            leases=leases,
            clearing=Clearing(store, repository, places),
            data=DataJobs(store, recording, places, clock),
            measuring=Measuring(store, repository, places, floor.quota, clock),
        ),
        clock,
        Room(
            capacity=lambda: Capacity(slots=around.bounds(config).max_running, resources=available.now()),
            isolation=around.isolation,
            limits_of=lambda job: available.limits_of(job, level=around.limits, limits_cpus=around.limits_cpus),
        ),
    )
    executor.listen(floor.changes)
    reporter = Reporter(store, repository, views, around.channels, clock)
    reporter.listen(floor.changes)
    servicer = JobServicer(commands, views, places, clock)
    return Jobs(servicer=servicer, executor=executor, reporter=reporter, retention=retention)


def _gate(floor: JobFloor, around: Surroundings, config: JobsConfig, vault: Vault) -> Gate:
    machine = Machine(
        isolation=around.isolation,
        limits=around.limits,
        capacity=Available(config, around.machine, lambda: around.reserve.look(floor.places.data_dir)).ever,
        allow_commands_from=frozenset(config.allow_commands_from),
        max_queued=lambda: around.bounds(config).max_queued,
        containers=around.containers,
    )
    return Gate(
        machine=machine,
        roles_of=around.roles_of,
        disk=lambda: around.reserve.look(floor.places.data_dir),
        quota=floor.quota,
        vault=vault,
        closed=around.closed,
    )
