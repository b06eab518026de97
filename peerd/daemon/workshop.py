"""Jobs, transfers and workflows: they know each other only through what is passed here."""

from __future__ import annotations

from typing import Protocol

from peerd.catalog.catalog import Catalog
from peerd.clock import Clock
from peerd.config import Config, JobsConfig
from peerd.daemon.measuring import CountedDestinations, CountedOutcomes, JobCounter
from peerd.daemon.neighbours import Neighbours
from peerd.daemon.nodes import NodeWork
from peerd.daemon.routing import RoutedDestinations, RoutedOutcomes
from peerd.datadir import DataDir
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.jobs.assembly import Bounds, JobFloor, Surroundings, assemble
from peerd.jobs.model import Resources
from peerd.jobs.runner.dispatch import Runners
from peerd.nodes.handing_in import HandingIn
from peerd.scans.assembly import Scans
from peerd.scans.outbox import Outbox
from peerd.schedules.firing import Firings
from peerd.schedules.schedules import Schedules
from peerd.schedules.ticker import Ticker
from peerd.space.collector import Collector
from peerd.space.hold import Hold
from peerd.space.leftovers import Leftovers
from peerd.space.orphans import Orphans
from peerd.store import Store
from peerd.transfers.receiver import Limits, Receiver
from peerd.transfers.sender import Sender
from peerd.workflows.delivery import LocalPeer
from peerd.workflows.door import Door
from peerd.workflows.lifecycle import Lifecycle
from peerd.workflows.logs import Logs
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.placing import Placer
from peerd.workflows.retention import ExecutionRetention
from peerd.workflows.views import Viewer


class House(Protocol):
    """What the daemon decides about taking work."""

    def closed(self) -> PeerdError | None:
        """Why no new jobs are taken now, if so."""
        ...

    def machine(self) -> Resources:
        """What of this machine jobs may have."""
        ...

    def bounds(self, config: JobsConfig) -> Bounds:
        """How many jobs are taken."""
        ...


class Workshop:
    """What this peer does for others, and orders from them."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        self_id: PeerId,
        store: Store,
        neighbours: Neighbours,
        catalog: Catalog,
        runner: Runners,
        house: House,
        scans: Scans,
    ) -> None:
        registry, channels, mesh = neighbours.registry, neighbours.channels, neighbours.mesh
        self._store = store
        self._open_jobs = 0
        self.isolation = runner.isolation
        self.limits = runner.limits
        self._floor = JobFloor(
            data_dir=config.data_dir,
            control_root=DataDir(config.data_dir).control,
            peer_id=self_id,
            name_of=registry.name_of,
            quota_bytes=config.jobs.quota_bytes_per_orchestrator,
        )
        # Home hears of its edges from the sender, the orchestrator sends packages: one of them must come first.
        home = LocalPeer(
            lambda tx, execution_id, event: self.orchestrator.post(tx, execution_id, event),
            own_peer_id=self_id,
            store_id=store.store_id,
            data_dir=config.data_dir,
        )
        outcomes = CountedOutcomes(RoutedOutcomes(jobs=self._floor.expectations, home=home))
        destinations = CountedDestinations(RoutedDestinations(jobs=self._floor.expectations, home=home))
        self.sender = Sender(self_id, store, channels, outcomes, clock, concurrency=config.transfers.concurrency)
        limits = Limits(max_bytes=config.transfers.max_bytes, reserve=config.transfers.reserve)
        self.receiver = Receiver(self_id, store, destinations, limits)
        self.placer = Placer(registry, channels, clock)
        self.orchestrator = Orchestrator(
            store,
            clock,
            own_peer_id=self_id,
            data_dir=config.data_dir,
            dials=channels,
            registry=registry,
            is_revoked=mesh.is_revoked,
            placing=self.placer,
            sends=self.sender,
            config=config.workflows,
        )
        self.viewer = Viewer(own_peer_id=self_id, data_dir=config.data_dir, name_of=registry.name_of)
        self.logs = Logs(store, channels, self.orchestrator.changes, clock)
        self.outbox = Outbox(store, clock, self_id, scans.signer, channels, config.data_dir)
        around = Surroundings(
            store=store,
            clock=clock,
            catalog=catalog,
            channels=channels,
            sends=self.sender,
            runner=runner,
            isolation=runner.isolation,
            limits=runner.limits,
            limits_cpus=runner.limits_cpus,
            machine=house.machine,
            roles_of=mesh.roles,
            containers=lambda: runner.containers.found is not None,
            container_memory_bytes=config.containers.memory_bytes,
            retention=config.retention,
            secrets=config.secrets,
            closed=house.closed,
            bounds=house.bounds,
            reserve=config.transfers.reserve,
            completed=self.outbox.completed,
        )
        self.jobs = assemble(self._floor, around, config.jobs)
        self.door = Door(
            max_open=config.workflows.max_open_executions,
            open_executions=lambda: self.orchestrator.active,
            disk=lambda: config.transfers.reserve.look(config.data_dir),
        )
        self.lifecycle = Lifecycle(self.orchestrator, self.viewer, self.door)
        firings = Firings(self.lifecycle)
        self.schedules = Schedules(firings)
        self.ticker = Ticker(store, clock, self.schedules, firings)
        intake = HandingIn(self_id, scans.signer, scans.receiving)
        self.nodes = NodeWork(config, clock, self_id, store, self.lifecycle, names=registry, mesh=mesh, intake=intake)
        self.execution_retention = ExecutionRetention(
            store, clock, config.retention, data_dir=config.data_dir, own_peer_id=self_id
        )
        self.hold = Hold(clock, DataDir(config.data_dir).retention_hold)
        self.collector = Collector(
            self.execution_retention,
            self.jobs.retention,
            Orphans(store, clock, config.retention, data_dir=config.data_dir, self_id=self_id),
            Leftovers(store, data_dir=config.data_dir, self_id=self_id),
            self.hold,
        )
        self._floor.changes.subscribe(JobCounter(clock).changed)
        registry.on_online(self.orchestrator.peer_online)
        registry.on_online(lambda peer_id: neighbours.later(self.sender.peer_online(peer_id)))
        registry.on_online(lambda peer_id: neighbours.later(self.outbox.peer_online(peer_id)))

    @property
    def running(self) -> int:
        """Processes of jobs that run here now."""
        return self.jobs.executor.running

    @property
    def queued(self) -> int:
        """Jobs here that are not final and do not run, when last counted."""
        return max(0, self._open_jobs - self.running)

    async def count(self) -> None:
        """Count the jobs that are not final."""
        self._open_jobs = await self._store.write(self._floor.repository.count_open)
