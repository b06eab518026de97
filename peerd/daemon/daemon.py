"""Builds the daemon from its parts and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from starlette.types import ASGIApp

from peerd import __version__
from peerd.backups.backups import Backups
from peerd.catalog.catalog import Catalog
from peerd.clock import DAY_MS, Clock
from peerd.config import Config, JobsConfig
from peerd.daemon import http
from peerd.daemon.advert import own_addresses, own_advert
from peerd.daemon.engine import SWEEP_SECONDS, container_runner, with_engine
from peerd.daemon.following import Following
from peerd.daemon.garbage import Garbage
from peerd.daemon.hardware import detect_hardware
from peerd.daemon.load import LoadMeter, Work
from peerd.daemon.measuring import LoopLag, call_ended, collect
from peerd.daemon.neighbours import Neighbours
from peerd.daemon.notify import Notifier
from peerd.daemon.observing import CallObserver
from peerd.daemon.restored import take_over
from peerd.daemon.scanning import build_scans
from peerd.daemon.servicer import Facts
from peerd.daemon.services import all_services
from peerd.daemon.workshop import Workshop
from peerd.datadir import DataDir
from peerd.devices.devices import Devices
from peerd.devices.directory import Directory
from peerd.devices.moving import Moves
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity, load_identity
from peerd.identity.peer_id import PeerId
from peerd.inventory.inventory import Inventory
from peerd.inventory.upkeep import InventoryUpkeep
from peerd.jobs.assembly import Bounds
from peerd.jobs.available import this_machine
from peerd.jobs.model import Resources
from peerd.jobs.runner import ProcessRunner
from peerd.jobs.runner.dispatch import Runners
from peerd.loops import run_every
from peerd.mesh.mesh import Mesh
from peerd.nodes.offering import prober_service
from peerd.registry.heartbeats import FLUSH_SECONDS
from peerd.rpc.rates import Rates
from peerd.rpc.server import RpcServer
from peerd.scans.offering import scan_services
from peerd.store import Store, open_store
from peerd.store.audit import prune
from peerd.store.requests import forget_old_answers
from peerd.tokens.tokens import Tokens
from peerd.v1.registry_pb2 import Hardware, Sample
from peerd.web.server import WebServer
from peerd.web.surroundings import Check
from peerd.web.surroundings import Surroundings as WebSurroundings

_log = structlog.get_logger(__name__)

_STOP_GRACE_SECONDS = 2.0
_UPKEEP_SECONDS = 600.0
_GARBAGE_SECONDS = 10.0
_SWEEP_SECONDS = 5.0
_COUNT_SECONDS = 2.0
_ENRICH_SECONDS = 5.0
_HARDWARE_SECONDS = 600.0
_HEALTH_SECONDS = 2.0
_DRAIN_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 0.2
"""For the answer to a restore to reach whoever asked."""
_LEAVE_SECONDS = 2.0
"""For telling others that we go."""


class Daemon:
    """One running peer. Built by :meth:`build`; everything it owns is ended by :meth:`close`."""

    def __init__(self, config: Config, clock: Clock, identity: Identity, store: Store, mesh: Mesh) -> None:
        self._config = config
        self._clock = clock
        self._identity = identity
        self._store = store
        self._mesh = mesh
        self._folder = DataDir(config.data_dir)
        self._started_at = clock.now()
        self._listen_address = ""
        self._port = 0
        self._hardware = Hardware()
        self._stopping = False
        self._stop = asyncio.Event()
        self.restarts = False
        """Whether it ended to be started again, with a restored store."""
        self._neighbours = Neighbours(config, clock, identity, store, mesh)
        self._catalog = Catalog(store, config.data_dir)
        self._tokens = Tokens(store, clock)
        self._backups = Backups(
            config.store, store, self._folder.store, identity.peer_id, clock, reserve=config.transfers.reserve
        )
        self._scans = build_scans(config, clock, identity, store, self._neighbours)
        self._inventory_reads = store.beside()
        self._inventory = Inventory(self._inventory_reads, clock)
        self._inventory_upkeep = InventoryUpkeep(config.inventory, store)
        around = self._neighbours
        registry = around.registry
        moves = Moves(store, around.cards, around.channels, registry.name_of, registry.is_online)
        self._devices = Devices(config.devices, store, clock, moves=moves)
        self._directory = Directory(identity.peer_id, self._devices, around.cards, registry.name_of, registry.is_online)
        self._running: list[asyncio.Task[None]] = []
        self._web = WebServer(config.http) if config.http.listen else None
        self._lag = LoopLag(clock)
        self._garbage = Garbage(clock)
        self._notifier = Notifier()
        self._observer = CallObserver(store, count=call_ended)
        self._server = RpcServer(
            identity,
            mesh,
            self._neighbours.channels,
            clock,
            resolve=self._neighbours.registry.resolve,
            rates=Rates(per_second=config.limits.calls_per_second, burst=config.limits.burst),
            observer=self._observer,
        )
        self._load = LoadMeter(
            clock, config.data_dir, work=self._work, local_health=lambda: self._neighbours.prober.local_health
        )

    @classmethod
    async def build(cls, config: Config, clock: Clock) -> Daemon:
        """Load what the data directory holds. Raises NOT_INITIALIZED, KEY_EXPOSED, STORE_CORRUPT and the like."""
        folder = DataDir(config.data_dir)
        folder.check_mode()
        identity = load_identity(folder.identity_key)
        store = await open_store(folder.store, clock, peer_id=identity.peer_id)
        try:
            await take_over(store, folder, identity.peer_id)
            daemon = cls(config, clock, identity, store, await Mesh.load(store, identity, clock))
            await daemon._neighbours.load(own_sample=daemon._sample)
            prober = prober_service(config.nodes)
            own = scan_services(config.scans)
            await daemon._catalog.sync((*config.services, *([prober] if prober is not None else []), *own))
            await daemon._scans.load()
            hidden = [config.data_dir, config.socket.parent]
            processes = await ProcessRunner.probe(sandbox=config.jobs.sandbox, hidden=hidden, limits=config.jobs.limits)
            containers = container_runner(config, identity.peer_id)
            await containers.look()
            daemon._wire(Runners(processes, containers))
        except BaseException:
            await store.close()
            raise
        return daemon

    def _wire(self, runner: Runners) -> None:
        """Who works, who serves, and who hears of what."""
        self._containers = runner.containers
        self._containers.on_change(lambda: self._neighbours.later(self._publish_advert()))
        neighbours, self_id = self._neighbours, self._identity.peer_id
        self._following = Following(
            self._config,
            neighbours.profiles,
            lambda: self._mesh.roles(self_id),
            catalog=self._catalog,
            prober=neighbours.prober,
            changed=self._publish_advert,
        )
        self._workshop = Workshop(
            self._config, self._clock, self_id, self._store, neighbours, self._catalog, runner, self, self._scans
        )
        self._server.register(
            all_services(
                self._config,
                self._clock,
                self._identity,
                self._store,
                neighbours=neighbours,
                workshop=self._workshop,
                catalog=self._catalog,
                tokens=self._tokens,
                backups=self._backups,
                scans=self._scans,
                inventory=self._inventory,
                devices=self._devices,
                directory=self._directory,
                facts=self._facts,
                own_addresses=lambda: own_addresses(self._config, self._port),
                restart=self._end_to_restart,
            )
        )
        self._mesh.on_loss(self._end_calls)
        self._mesh.on_change(lambda peers: neighbours.later(self._following.apply()) if self_id in peers else None)
        neighbours.profiles.on_change(lambda _: neighbours.later(self._following.apply()))
        self._catalog.on_change(lambda: neighbours.later(self._publish_advert()))

    # -- Life

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and work until told to stop. Jobs go on without the daemon and are found again by the next one."""
        self._stop = stop
        self._port = await self._server.start(listen=self._config.peer.listen, socket=self._config.socket)
        self._listen_address = f"{self._config.peer.listen.rpartition(':')[0]}:{self._port}"
        # What it had before, until it has been looked at anew: programs are asked for that, and nobody should wait.
        known = self._neighbours.adverts.find(self._identity.peer_id)
        self._hardware = known.hardware if known is not None else await detect_hardware()
        await self._following.apply()
        await self._publish_advert()
        app = self._http()
        _announce(self._folder.listen_address, self._listen_address)
        _log.info("daemon.listens", peer=self._identity.peer_id, address=self._listen_address)
        self._garbage.take_over()
        neighbours, workshop = self._neighbours, self._workshop
        collecting = self._config.retention.collect_minutes * 60
        async with asyncio.TaskGroup() as tasks:
            self._running = running = [
                tasks.create_task(work)
                for work in (
                    neighbours.prober.run(),
                    neighbours.gossip.run(),
                    workshop.sender.run(),
                    workshop.jobs.executor.run(),
                    workshop.jobs.reporter.run(),
                    workshop.orchestrator.run(),
                    workshop.ticker.run(),
                    self._scans.ingest.run(),
                    workshop.outbox.run(),
                    workshop.nodes.applying.run(),
                    self._devices.run(),
                    neighbours.cards.run(self._devices),
                    self._lag.run(),
                    run_every(self._garbage.collect, seconds=_GARBAGE_SECONDS, clock=self._clock, name="garbage"),
                    self._notifier.watch(self._clock, self._is_well),
                    run_every(neighbours.heartbeats.flush, seconds=FLUSH_SECONDS, clock=self._clock, name="heartbeats"),
                    run_every(neighbours.externals.sweep, seconds=_SWEEP_SECONDS, clock=self._clock, name="externals"),
                    run_every(workshop.count, seconds=_COUNT_SECONDS, clock=self._clock, name="count jobs"),
                    run_every(self._scans.count, seconds=_COUNT_SECONDS, clock=self._clock, name="count scans"),
                    run_every(self._say_health, seconds=_HEALTH_SECONDS, clock=self._clock, name="health"),
                    run_every(self._containers.sweep, seconds=SWEEP_SECONDS, clock=self._clock, name="containers"),
                    run_every(self._look_at_hardware, seconds=_HARDWARE_SECONDS, clock=self._clock, name="hardware"),
                    run_every(workshop.collector.keep_up, seconds=collecting, clock=self._clock, name="retention"),
                    run_every(self._backups.keep_up, seconds=_UPKEEP_SECONDS, clock=self._clock, name="backups"),
                    run_every(
                        self._inventory_upkeep.enrich, seconds=_ENRICH_SECONDS, clock=self._clock, name="enrichment"
                    ),
                    run_every(neighbours.adopt_fallen, seconds=_UPKEEP_SECONDS, clock=self._clock, name="fallen words"),
                    run_every(self._following.apply, seconds=_UPKEEP_SECONDS, clock=self._clock, name="profiles"),
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
            if not self.restarts:
                await self._drain()
            for task in running:
                task.cancel()
            await neighbours.prober.leave(_LEAVE_SECONDS)
            await self._server.stop(_STOP_GRACE_SECONDS)
            if not self.restarts:
                await neighbours.heartbeats.flush()

    async def close(self) -> None:
        """End what is open, whatever state it is in."""
        await self._server.stop(0)
        await self._neighbours.close()
        await self._observer.close()
        self._inventory_upkeep.close()
        await self._inventory_reads.close()
        await self._store.close()
        if self._web is not None:
            self._web.stop()
        self._folder.listen_address.unlink(missing_ok=True)
        self._folder.http_address.unlink(missing_ok=True)

    async def _drain(self) -> None:
        """Give running jobs the grace to end."""
        until = self._clock.monotonic() + self._config.jobs.stop_grace_seconds
        while self._workshop.running and self._clock.monotonic() < until:
            await self._clock.sleep(_DRAIN_LOOK_SECONDS)

    def _end_to_restart(self) -> None:
        """Stop all work at once, answer, then end: what is acknowledged from now on would be lost with the store."""
        self.restarts = self._stopping = True
        for task in self._running:
            task.cancel()
        asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._stop.set)

    async def _upkeep(self) -> None:
        await self._store.write(forget_old_answers)
        now = self._workshop.hold.moment()
        if now is None:
            return
        await self._neighbours.heartbeats.prune()
        await self._scans.prune(now)
        kept_ms = round(self._config.audit.retention_days * DAY_MS)
        await self._store.write(lambda tx: prune(tx, before=now - kept_ms))
        await self._inventory_upkeep.thin(now)
        await self._devices.forget_old(now)

    # -- What this peer takes; see peerd.daemon.workshop.House

    async def _say_health(self) -> None:
        """By service: a peer without room or in maintenance answers, and takes no work."""
        room = self._config.transfers.reserve.look(self._config.data_dir).has_room()
        await self._server.say_health(
            {"JobService": room and self.closed() is None, "TransferService": room, "WorkflowService": room}
        )

    def closed(self) -> PeerdError | None:
        """Why this peer takes no new jobs now."""
        if self._stopping:
            return PeerdError(Reason.SHUTTING_DOWN, f"{self._config.peer_name} is being stopped")
        maintenance = self._neighbours.notes.maintenance(self._identity.peer_id)
        if maintenance is None:
            return None
        reason = f": {maintenance.reason}" if maintenance.reason else ""
        return PeerdError(Reason.MAINTENANCE, f"{self._config.peer_name} is in maintenance{reason}")

    def bounds(self, config: JobsConfig) -> Bounds:
        """How many jobs are taken now."""
        return self._following.bounds(config)

    def machine(self) -> Resources:
        """What of this machine jobs may have."""
        has, guess = self._hardware, this_machine()
        return Resources(
            cpus=has.cpu_cores or guess.cpus, memory_bytes=has.memory_bytes or guess.memory_bytes, gpus=len(has.gpus)
        )

    # -- What this peer says of itself

    async def _publish_advert(self) -> None:
        content = own_advert(
            self._config,
            self._following.followed,
            with_engine(self._hardware, self._containers.version),
            port=self._port,
            isolation=self._workshop.isolation,
            limits=self._workshop.limits,
            catalog_digest=self._catalog.digest,
        )
        await self._neighbours.adverts.publish(content)

    async def _look_at_hardware(self) -> None:
        self._hardware = await detect_hardware()
        await self._publish_advert()

    def _sample(self) -> Sample:
        return self._load.sample()

    def _work(self) -> Work:
        return Work(
            running_jobs=self._workshop.running,
            queued_jobs=self._workshop.queued,
            active_transfers=self._workshop.sender.active,
            calls=self._observer.calls,
        )

    def _facts(self) -> Facts:
        return Facts(
            mesh_id=self._mesh.mesh_id,
            store_id=self._store.store_id,
            started_at=self._started_at,
            listen_address=self._listen_address,
            isolation=self._workshop.isolation,
        )

    # -- HTTP, and whether all is well

    def _http(self) -> ASGIApp | None:
        """Take the address, and say where it is."""
        if self._web is None:
            return None
        address = self._web.bind()
        _announce(self._folder.http_address, address)
        _log.info("daemon.listens_http", address=address)
        neighbours = self._neighbours
        around = WebSurroundings(
            self_id=self._identity.peer_id,
            version=__version__,
            started_at=self._started_at,
            clock=self._clock,
            peers=neighbours.registry,
            externals=neighbours.externals,
            tokens=self._tokens,
            inventory=self._inventory,
            scans=self._scans.web,
            profile=neighbours.profile_of,
            devices=self._directory.everything,
            checks=self._checks,
            database=lambda: http.database(self._store, self._folder.store),
            collect=lambda: collect(neighbours.registry.peers(), self._sample(), self._started_at),
        )
        return http.gated(around, self._config.http, loopback=self._web.loopback)

    async def _checks(self) -> Sequence[Check]:
        maintenance = self._neighbours.notes.maintenance(self._identity.peer_id)
        return await http.checks(
            self._store,
            self._config.transfers.reserve.look(self._config.data_dir),
            now=self._clock.now(),
            address=self._listen_address,
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

    def _end_calls(self, peer_id: PeerId) -> None:
        if self._mesh.grants(peer_id) is None:
            error = PeerdError(Reason.REVOKED, f"{peer_id} was revoked")
        else:
            error = PeerdError(Reason.PERMISSION_DENIED, f"{peer_id} has lost a grant; call again")
        self._server.calls.end_calls(peer_id, error)


def _announce(path: Path, address: str) -> None:
    """Tell whoever started us that we listen, and where."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(address + "\n", encoding="utf-8")
    os.replace(temporary, path)
