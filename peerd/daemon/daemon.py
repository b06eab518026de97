"""Builds the daemon from its parts and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
from starlette.types import ASGIApp

from peerd import __version__, metrics
from peerd.audit.servicer import AuditServicer
from peerd.backups.backups import Backups
from peerd.backups.servicer import BackupServicer
from peerd.catalog.catalog import Catalog
from peerd.catalog.search import OnlinePeer, Search
from peerd.catalog.servicer import CatalogServicer
from peerd.clock import Clock, SystemClock
from peerd.config import Config
from peerd.daemon import http
from peerd.daemon.advert import own_advert
from peerd.daemon.following import Following, timing_of
from peerd.daemon.hardware import detect_hardware
from peerd.daemon.load import LoadMeter, Work
from peerd.daemon.measuring import (
    CountedDestinations,
    CountedOutcomes,
    JobCounter,
    LoopLag,
    call_ended,
    collect,
    probe_ended,
)
from peerd.daemon.notify import Notifier
from peerd.daemon.observing import CallObserver
from peerd.daemon.routing import RoutedDestinations, RoutedOutcomes
from peerd.daemon.servicer import DaemonServicer, Facts
from peerd.datadir import DataDir
from peerd.detector.contact import Measurement
from peerd.detector.prober import Prober
from peerd.detector.repository import next_incarnation
from peerd.detector.servicer import DetectorServicer
from peerd.errors import PeerdError, Reason
from peerd.externals.externals import Externals
from peerd.identity.key import Identity, load_identity
from peerd.identity.peer_id import PeerId
from peerd.jobs.assembly import JobFloor, Surroundings, assemble
from peerd.jobs.runner import ProcessRunner
from peerd.loops import run_every
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.gossip import Gossip
from peerd.mesh.mesh import Mesh
from peerd.mesh.servicer import MeshServicer
from peerd.profiles.profile import Followed, ProfileKind
from peerd.profiles.servicer import ProfileServicer, profile_message
from peerd.registry.adverts import Adverts
from peerd.registry.heartbeats import FLUSH_SECONDS, Heartbeats
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.registry.servicer import RegistryServicer
from peerd.rpc.channels import Channels
from peerd.rpc.rates import Rates
from peerd.rpc.server import RpcServer
from peerd.store import Store, open_store
from peerd.store.audit import prune
from peerd.store.backup import swap_staged
from peerd.store.requests import forget_old_answers
from peerd.tokens.servicer import TokenServicer
from peerd.tokens.tokens import Tokens
from peerd.transfers.receiver import Limits, Receiver
from peerd.transfers.sender import Sender
from peerd.transfers.servicer import TransferServicer
from peerd.v1 import (
    audit_pb2_grpc,
    backup_pb2_grpc,
    catalog_pb2_grpc,
    daemon_pb2_grpc,
    detector_pb2_grpc,
    jobs_pb2_grpc,
    mesh_pb2_grpc,
    profiles_pb2_grpc,
    registry_pb2_grpc,
    tokens_pb2_grpc,
    transfers_pb2_grpc,
    workflows_pb2_grpc,
)
from peerd.v1.profiles_pb2 import Profile
from peerd.v1.registry_pb2 import Hardware, Sample
from peerd.web.server import WebServer
from peerd.web.surroundings import Check
from peerd.web.surroundings import Surroundings as WebSurroundings
from peerd.workflows.delivery import LocalPeer
from peerd.workflows.logs import Logs
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.placing import Placer
from peerd.workflows.reports import JobReportServicer
from peerd.workflows.servicer import WorkflowServicer
from peerd.workflows.views import Viewer

_log = structlog.get_logger(__name__)

_STOP_GRACE_SECONDS = 2.0
_UPKEEP_SECONDS = 3600.0
_SWEEP_SECONDS = 5.0
_ANSWER_SECONDS = 0.2
"""For the answer to a restore to reach whoever asked."""
_COUNT_SECONDS = 2.0
_HARDWARE_SECONDS = 600.0
_DRAIN_LOOK_SECONDS = 0.1
_LEAVE_SECONDS = 1.0
"""For telling others that we go."""


class Daemon:
    """One running peer. Built by :meth:`build`; everything it owns is ended by :meth:`close`."""

    def __init__(self, config: Config, clock: Clock, identity: Identity, store: Store, mesh: Mesh) -> None:
        self._config = config
        self._clock = clock
        self._identity = identity
        self._store = store
        self._mesh = mesh
        self._started_at = clock.now()
        self._listen_address = ""
        self._port = 0
        self._stopping = False
        self._web = WebServer(config.http) if config.http.listen else None
        self._tokens = Tokens(store, clock)
        self._lag = LoopLag(clock)
        self._notifier = Notifier()
        self._backups = Backups(config.store, DataDir(config.data_dir).store, identity.peer_id, clock)
        self.restarts = False
        """Whether it ended to be started again, with a restored store."""
        self._stop = asyncio.Event()
        self._open_jobs = 0
        self._hardware = Hardware()
        self._background: set[asyncio.Task[Any]] = set()
        self._adverts = Adverts(store, mesh, identity)
        self._notes = Notes(store, mesh, identity)
        self._registry = Registry(mesh, self._adverts, self._notes, clock)
        self._heartbeats = Heartbeats(
            store, clock, days=config.mesh.history_days, detail_hours=config.mesh.history_detail_hours
        )
        self._channels = Channels(identity, self._registry, clock, socket=config.socket)
        self._gossip = Gossip(mesh, self._channels, clock, seconds=config.mesh.exchange_seconds)
        self._gossip.register(self._adverts)
        self._profiles = DocumentTopic(ProfileKind(), store, mesh, identity)
        self._gossip.register(self._notes.topic)
        self._gossip.register(self._profiles)
        self._externals = Externals(store, mesh, identity, clock, offline_seconds=config.http.external_offline_seconds)
        self._gossip.register(self._externals.topic)
        self._externals.topic.on_change(lambda key: self._push_own(self._externals.topic, key))
        self._registry.list_externals(
            lambda: self._externals.views(is_present=self._registry.is_online, name_of=self._registry.name_of)
        )
        self._observer = CallObserver(store, count=call_ended)
        self._server = RpcServer(
            identity,
            mesh,
            self._channels,
            clock,
            resolve=self._registry.resolve,
            rates=Rates(per_second=config.limits.calls_per_second, burst=config.limits.burst),
            observer=self._observer,
        )
        self._catalog = Catalog(store, config.data_dir)

    @classmethod
    async def build(cls, config: Config, clock: Clock) -> Daemon:
        """Load what the data directory holds. Raises NOT_INITIALIZED, KEY_EXPOSED, STORE_CORRUPT and the like."""
        folder = DataDir(config.data_dir)
        folder.check_mode()
        identity = load_identity(folder.identity_key)
        store = await open_store(folder.store, clock)
        try:
            daemon = cls(config, clock, identity, store, await Mesh.load(store, identity, clock))
            await daemon._adverts.load()
            await daemon._notes.topic.load()
            await daemon._profiles.load()
            await daemon._externals.load()
            daemon._detect(await next_incarnation(store))
            await daemon._catalog.sync(config.services)
            runner = await ProcessRunner.probe(
                sandbox=config.jobs.sandbox, hidden=[config.data_dir, config.socket.parent]
            )
            daemon._wire(runner, folder)
        except BaseException:
            await store.close()
            raise
        return daemon

    def _detect(self, incarnation: int) -> None:
        """The failure detector, and who hears from it."""
        self._prober = Prober(
            self._mesh,
            self._identity,
            self._channels,
            self._clock,
            incarnation=incarnation,
            timing=timing_of(self._config, Followed()),
            own_sample=self._sample,
        )
        self._load = LoadMeter(
            self._clock,
            self._config.data_dir,
            work=self._work,
            local_health=lambda: self._prober.local_health,
        )
        self._registry.attach(self._prober, own_sample=self._sample)
        self._prober.on_change(self._registry.changed)
        self._prober.on_measurement(self._measured)
        self._prober.on_measurement(probe_ended)
        self._adverts.on_change(self._hurry)
        self._following = Following(
            self._config,
            self._profiles,
            lambda: self._mesh.roles(self._identity.peer_id),
            catalog=self._catalog,
            prober=self._prober,
            changed=self._publish_advert,
        )
        self._notes.topic.on_change(lambda key: self._push_own(self._notes.topic, key))
        self._profiles.on_change(lambda key: self._push_own(self._profiles, key))
        self._profiles.on_change(lambda _: self._later(self._following.apply()))
        self._mesh.on_change(self._membership_changed)

    def _wire(self, runner: ProcessRunner, folder: DataDir) -> None:
        """Jobs, transfers and workflows know each other only through what is passed here."""
        config, store, clock, self_id = self._config, self._store, self._clock, self._identity.peer_id
        self._isolation = runner.isolation
        self._floor = JobFloor(
            data_dir=config.data_dir,
            control_root=folder.control,
            peer_id=self_id,
            name_of=self._registry.name_of,
        )
        # Home hears of its edges from the sender, the orchestrator sends packages: one of them must come first.
        home = LocalPeer(
            lambda tx, execution_id, event: self._orchestrator.post(tx, execution_id, event),
            own_peer_id=self_id,
            store_id=store.store_id,
            data_dir=config.data_dir,
        )
        outcomes = CountedOutcomes(RoutedOutcomes(jobs=self._floor.expectations, home=home))
        destinations = CountedDestinations(RoutedDestinations(jobs=self._floor.expectations, home=home))
        self._sender = Sender(self_id, store, self._channels, outcomes, clock, concurrency=config.transfers.concurrency)
        self._placer = Placer(self._registry, self._channels, clock)
        self._orchestrator = Orchestrator(
            store,
            clock,
            own_peer_id=self_id,
            data_dir=config.data_dir,
            dials=self._channels,
            registry=self._registry,
            is_revoked=self._mesh.is_revoked,
            placing=self._placer,
            sends=self._sender,
            config=config.workflows,
        )
        limits = Limits(
            max_bytes=config.transfers.max_bytes,
            min_free_bytes=config.transfers.min_free_bytes,
            min_free_fraction=config.transfers.min_free_fraction,
        )
        self._receiver = Receiver(self_id, store, destinations, limits)
        around = Surroundings(
            store=store,
            clock=clock,
            catalog=self._catalog,
            channels=self._channels,
            sends=self._sender,
            runner=runner,
            isolation=runner.isolation,
            roles_of=self._mesh.roles,
            closed=self._closed,
            bounds=self._following.bounds,
            reserve=self._reserve,
        )
        self._jobs = assemble(self._floor, around, config.jobs)
        self._floor.changes.subscribe(JobCounter(clock).changed)
        self._server.register(self._services())
        self._mesh.on_loss(self._end_calls)
        self._registry.on_online(self._peer_online)
        self._adverts.on_change(self._advert_changed)
        self._catalog.on_change(lambda: self._later(self._publish_advert()))

    def _services(self) -> list[tuple[str, Any]]:
        search = Search(self._channels, self._online_peers)
        mesh = MeshServicer(
            self._store,
            self._mesh,
            self._gossip,
            self._clock,
            resolve=self._registry.resolve,
            own_addresses=lambda: self._registry.addresses(self._identity.peer_id),
        )
        registry = RegistryServicer(
            self._store, self._registry, self._notes, self._heartbeats, forget_external=self._externals.forget
        )
        detector = DetectorServicer(self._prober)
        backups = BackupServicer(self._backups, self._store, restart=self._end_to_restart)
        tokens = TokenServicer(self._store, self._tokens)
        audit = AuditServicer(self._identity.peer_id, self._store)
        profiles = ProfileServicer(self._store, self._profiles)
        catalog = CatalogServicer(self._store, self._catalog, search, self._identity.peer_id)
        transfers = TransferServicer(self._identity.peer_id, self._store, self._receiver, self._sender)
        daemon = DaemonServicer(
            self._identity,
            self._config,
            self._registry,
            self._clock,
            facts=self._facts,
            load=lambda: (self._jobs.executor.running, self._orchestrator.active),
        )
        viewer = Viewer(
            own_peer_id=self._identity.peer_id, data_dir=self._config.data_dir, name_of=self._registry.name_of
        )
        logs = Logs(self._store, self._channels, self._orchestrator.changes)
        workflows = WorkflowServicer(self._store, self._clock, self._orchestrator, self._placer, logs, viewer)
        reports = JobReportServicer(self._orchestrator, self._clock, self._store.store_id)
        add = {
            "MeshService": lambda s: mesh_pb2_grpc.add_MeshServiceServicer_to_server(mesh, s),
            "DetectorService": lambda s: detector_pb2_grpc.add_DetectorServiceServicer_to_server(detector, s),
            "ProfileService": lambda s: profiles_pb2_grpc.add_ProfileServiceServicer_to_server(profiles, s),
            "AuditService": lambda s: audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, s),
            "TokenService": lambda s: tokens_pb2_grpc.add_TokenServiceServicer_to_server(tokens, s),
            "BackupService": lambda s: backup_pb2_grpc.add_BackupServiceServicer_to_server(backups, s),
            "RegistryService": lambda s: registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, s),
            "CatalogService": lambda s: catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, s),
            "JobService": lambda s: jobs_pb2_grpc.add_JobServiceServicer_to_server(self._jobs.servicer, s),
            "JobReportService": lambda s: jobs_pb2_grpc.add_JobReportServiceServicer_to_server(reports, s),
            "TransferService": lambda s: transfers_pb2_grpc.add_TransferServiceServicer_to_server(transfers, s),
            "WorkflowService": lambda s: workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(workflows, s),
            "DaemonService": lambda s: daemon_pb2_grpc.add_DaemonServiceServicer_to_server(daemon, s),
        }
        return [(f"peerd.v1.{name}", register) for name, register in add.items()]

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and work until told to stop. Jobs go on without the daemon and are found again by the next one."""
        self._stop = stop
        port = await self._server.start(listen=self._config.peer.listen, socket=self._config.socket)
        self._listen_address = f"{self._config.peer.listen.rpartition(':')[0]}:{port}"
        self._port = port
        self._hardware = await detect_hardware()
        await self._following.apply()
        await self._publish_advert()
        app = self._http()
        _announce(DataDir(self._config.data_dir).listen_address, self._listen_address)
        _log.info("daemon.listens", peer=self._identity.peer_id, address=self._listen_address)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work)
                for work in (
                    self._prober.run(),
                    run_every(self._heartbeats.flush, seconds=FLUSH_SECONDS, clock=self._clock, name="heartbeats"),
                    self._gossip.run(),
                    self._sender.run(),
                    self._jobs.executor.run(),
                    self._jobs.reporter.run(),
                    self._orchestrator.run(),
                    self._lag.run(),
                    self._notifier.watch(self._clock, self._is_well),
                    run_every(self._backups.keep_up, seconds=_UPKEEP_SECONDS, clock=self._clock, name="backups"),
                    run_every(self._externals.sweep, seconds=_SWEEP_SECONDS, clock=self._clock, name="externals"),
                    run_every(self._count_jobs, seconds=_COUNT_SECONDS, clock=self._clock, name="count jobs"),
                    run_every(self._look_at_hardware, seconds=_HARDWARE_SECONDS, clock=self._clock, name="hardware"),
                    run_every(self._upkeep, seconds=_UPKEEP_SECONDS, clock=self._clock, name="upkeep"),
                )
            ]
            if self._web is not None and app is not None:
                running.append(tasks.create_task(self._web.run(app)))
            self._notifier.ready(f"listens on {self._listen_address}")
            await stop.wait()
            _log.info("daemon.stops")
            self._notifier.stopping(self._config.jobs.stop_grace_seconds)
            self._stopping = True
            await self._drain()
            for task in running:
                task.cancel()
            await self._prober.leave(_LEAVE_SECONDS)
            await self._server.stop(_STOP_GRACE_SECONDS)
            await self._heartbeats.flush()

    async def close(self) -> None:
        """End what is open, whatever state it is in."""
        for task in self._background:
            task.cancel()
        await self._server.stop(0)
        await self._channels.close()
        await self._observer.close()
        await self._store.close()
        if self._web is not None:
            self._web.stop()
        DataDir(self._config.data_dir).listen_address.unlink(missing_ok=True)
        DataDir(self._config.data_dir).http_address.unlink(missing_ok=True)

    async def _publish_advert(self) -> None:
        content = own_advert(
            self._config,
            self._following.followed,
            self._hardware,
            port=self._port,
            isolation=self._isolation,
            catalog_digest=self._catalog.digest,
        )
        await self._adverts.publish(content)

    def _advert_changed(self, peers: frozenset[PeerId]) -> None:
        """Our own: because something changed here, or because others held a later one from before a restore."""
        if self._identity.peer_id in peers:
            self._gossip.push("advert", [self._identity.peer_id])

    def _http(self) -> ASGIApp | None:
        """Take the address, and say where it is."""
        if self._web is None:
            return None
        address = self._web.bind()
        _announce(DataDir(self._config.data_dir).http_address, address)
        _log.info("daemon.listens_http", address=address)
        around = WebSurroundings(
            self_id=self._identity.peer_id,
            version=__version__,
            started_at=self._started_at,
            clock=self._clock,
            peers=self._registry,
            externals=self._externals,
            tokens=self._tokens,
            profile=self._profile_of,
            checks=self._checks,
            database=lambda: http.database(self._store, DataDir(self._config.data_dir).store),
            collect=lambda: collect(self._registry.peers(), self._sample(), self._started_at),
        )
        return http.gated(around, self._config.http, loopback=self._web.loopback)

    def _profile_of(self, role: str) -> Profile | None:
        found = self._profiles.find(role)
        return profile_message(found) if found is not None and not found.value.deleted else None

    async def _checks(self) -> Sequence[Check]:
        maintenance = self._notes.maintenance(self._identity.peer_id)
        return await http.checks(
            self._store,
            self._config.data_dir,
            reserve=self._reserve(shutil.disk_usage(self._config.data_dir).total),
            listens=self._port > 0,
            stopping=self._stopping,
            loop_lag=self._lag.seconds,
            maintenance=None if maintenance is None else maintenance.reason or "is in maintenance",
        )

    async def _is_well(self) -> bool:
        """What the watchdog wants to know: the loop is not stuck, and the store takes writes."""
        try:
            async with asyncio.timeout(self._notifier.watchdog_seconds / 3 or None):
                return all(check.ok for check in await self._checks() if check.name in ("store", "event_loop"))
        except TimeoutError:
            return False

    def _end_to_restart(self) -> None:
        """Answer first, then end: what is acknowledged from now on would be lost with the store."""
        self.restarts = self._stopping = True
        asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._stop.set)

    def _reserve(self, total: int) -> int:
        """Bytes that stay free on a file system of that size."""
        transfers = self._config.transfers
        return max(transfers.min_free_bytes, int(total * transfers.min_free_fraction))

    def _closed(self) -> PeerdError | None:
        """Why this peer takes no new jobs now."""
        if self._stopping:
            return PeerdError(Reason.SHUTTING_DOWN, f"{self._config.peer_name} is being stopped")
        maintenance = self._notes.maintenance(self._identity.peer_id)
        if maintenance is None:
            return None
        reason = f": {maintenance.reason}" if maintenance.reason else ""
        return PeerdError(Reason.MAINTENANCE, f"{self._config.peer_name} is in maintenance{reason}")

    async def _drain(self) -> None:
        """Give running jobs the grace to end."""
        until = self._clock.monotonic() + self._config.jobs.stop_grace_seconds
        while self._jobs.executor.running and self._clock.monotonic() < until:
            await self._clock.sleep(_DRAIN_LOOK_SECONDS)

    def _push_own(self, topic: DocumentTopic[Any], key: str) -> None:
        """Our own word goes to everybody at once; what we were told, gossip passes on."""
        found = topic.find(key)
        if found is not None and found.signer == self._identity.peer_id:
            self._gossip.push(topic.name, [key])

    def _membership_changed(self, peers: frozenset[PeerId]) -> None:
        if self._identity.peer_id in peers:
            self._later(self._following.apply())
        for peer_id in peers:
            record = self._mesh.membership.current.get(peer_id)
            if record is not None and record.version == 1:
                metrics.registrations.labels("member").inc()
            if record is not None and record.signer == self._identity.peer_id:
                # What a peer said whose word we took away is said again by us, where it still counts.
                self._later(self._adopt(peer_id))

    async def _adopt(self, peer_id: PeerId) -> None:
        await self._notes.topic.adopt(peer_id)
        await self._profiles.adopt(peer_id)

    def _hurry(self, peers: frozenset[PeerId]) -> None:
        for peer_id in peers:
            self._prober.hurry(peer_id)

    def _measured(self, measurement: Measurement) -> None:
        self._heartbeats.add(measurement, self._registry.status(measurement.peer_id))

    def _sample(self) -> Sample:
        return self._load.sample()

    def _work(self) -> Work:
        running = self._jobs.executor.running
        return Work(
            running_jobs=running,
            queued_jobs=max(0, self._open_jobs - running),
            active_transfers=self._sender.active,
            calls=self._observer.calls,
        )

    async def _count_jobs(self) -> None:
        self._open_jobs = await self._store.write(self._floor.repository.count_open)

    async def _look_at_hardware(self) -> None:
        self._hardware = await detect_hardware()
        await self._publish_advert()

    async def _upkeep(self) -> None:
        await self._store.write(forget_old_answers)
        await self._heartbeats.prune()
        kept_ms = round(self._config.audit.retention_days * 86_400_000)
        await self._store.write(lambda tx: prune(tx, before=tx.now - kept_ms))

    def _facts(self) -> Facts:
        return Facts(
            mesh_id=self._mesh.mesh_id,
            store_id=self._store.store_id,
            started_at=self._started_at,
            listen_address=self._listen_address,
            isolation=self._isolation,
        )

    def _online_peers(self) -> list[OnlinePeer]:
        """The others: this peer's own services are searched without a call."""
        return [
            OnlinePeer(peer_id=peer.peer_id, name=peer.name)
            for peer in self._registry.peers()
            if peer.status.present and not peer.is_self and not peer.external
        ]

    def _end_calls(self, peer_id: PeerId) -> None:
        if self._mesh.grants(peer_id) is None:
            self._server.calls.end_calls(peer_id, PeerdError(Reason.REVOKED, f"{peer_id} was revoked"))
        else:
            self._server.calls.end_calls(
                peer_id, PeerdError(Reason.PERMISSION_DENIED, f"{peer_id} has lost a grant; call again")
            )

    def _peer_online(self, peer_id: PeerId) -> None:
        self._orchestrator.peer_online(peer_id)
        self._later(self._sender.peer_online(peer_id))
        self._later(self._greet(peer_id))

    async def _greet(self, peer_id: PeerId) -> None:
        """Compare documents at once with a peer that is back: one of us may have missed much."""
        try:
            await self._gossip.exchange_with(peer_id)
        except PeerdError as error:
            _log.debug("daemon.greeting_failed", peer=peer_id, reason=error.reason.text)

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def run_until_signalled(config: Config) -> bool:
    """Hold the data directory, run the daemon, end it in order at SIGTERM or SIGINT.

    True if it wants to be started again, with a store that was restored.
    """
    folder = DataDir(config.data_dir)
    if not folder.initialized:
        raise PeerdError(Reason.NOT_INITIALIZED, f"there is no peer in {config.data_dir}")
    folder.check_mode()
    with folder.lock():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        clock = SystemClock()
        replaced = swap_staged(folder.store, backup_dir=folder.store.parent / "backups", now=clock.now())
        if replaced is not None:
            _log.warning("daemon.store_restored", replaced=str(replaced))
        daemon = await Daemon.build(config, clock)
        try:
            await daemon.run(stop)
        finally:
            await daemon.close()
        return daemon.restarts


def _announce(path: Path, address: str) -> None:
    """Tell whoever started us that we listen, and where."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(address + "\n", encoding="utf-8")
    os.replace(temporary, path)
