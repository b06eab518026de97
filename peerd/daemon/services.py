"""Every gRPC service of the daemon, with what it is served by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peerd.audit.servicer import AuditServicer
from peerd.backups.backups import Backups
from peerd.backups.servicer import BackupServicer
from peerd.catalog.catalog import Catalog
from peerd.catalog.search import Search
from peerd.catalog.servicer import CatalogServicer
from peerd.clock import Clock
from peerd.config import Config
from peerd.daemon.neighbours import Neighbours
from peerd.daemon.servicer import DaemonServicer, Facts
from peerd.daemon.workshop import Workshop
from peerd.datadir import DataDir
from peerd.detector.servicer import DetectorServicer
from peerd.devices.devices import Devices
from peerd.devices.directory import Directory
from peerd.devices.servicer import DeviceServicer
from peerd.identity.key import Identity
from peerd.inventory.inventory import Inventory
from peerd.inventory.servicer import InventoryServicer
from peerd.mesh.servicer import MeshServicer
from peerd.profiles.servicer import ProfileServicer
from peerd.registry.servicer import RegistryServicer
from peerd.scans.assembly import Scans
from peerd.schedules.servicer import ScheduleServicer
from peerd.space.servicer import SpaceServicer
from peerd.store import Store
from peerd.tokens.servicer import TokenServicer
from peerd.tokens.tokens import Tokens
from peerd.transfers.servicer import TransferServicer
from peerd.v1 import (
    audit_pb2_grpc,
    backup_pb2_grpc,
    catalog_pb2_grpc,
    daemon_pb2_grpc,
    detector_pb2_grpc,
    devices_pb2_grpc,
    inventory_pb2_grpc,
    jobs_pb2_grpc,
    mesh_pb2_grpc,
    nodes_pb2_grpc,
    profiles_pb2_grpc,
    registry_pb2_grpc,
    scans_pb2_grpc,
    schedules_pb2_grpc,
    space_pb2_grpc,
    tokens_pb2_grpc,
    transfers_pb2_grpc,
    workflows_pb2_grpc,
)
from peerd.workflows.reports import JobReportServicer
from peerd.workflows.servicer import WorkflowServicer


def all_services(
    config: Config,
    clock: Clock,
    identity: Identity,
    store: Store,
    *,
    neighbours: Neighbours,
    workshop: Workshop,
    catalog: Catalog,
    tokens: Tokens,
    backups: Backups,
    scans: Scans,
    inventory: Inventory,
    devices: Devices,
    directory: Directory,
    facts: Callable[[], Facts],
    own_addresses: Callable[[], Sequence[str]],
    restart: Callable[[], None],
) -> list[tuple[str, Callable[[Any], None]]]:
    """(full name, how to add it to a server) of each. ``restart`` ends the daemon after a restore."""
    self_id, registry, jobs = identity.peer_id, neighbours.registry, workshop.jobs.servicer
    search = Search(neighbours.channels, neighbours.online_peers)
    mesh = MeshServicer(
        store,
        neighbours.mesh,
        neighbours.gossip,
        clock,
        resolve=registry.resolve,
        own_addresses=own_addresses,
    )
    peers = RegistryServicer(
        store, registry, neighbours.notes, neighbours.heartbeats, forget_external=neighbours.externals.forget
    )
    daemon = DaemonServicer(
        identity,
        config,
        registry,
        clock,
        facts=facts,
        load=lambda: (workshop.running, workshop.orchestrator.active),
    )
    workflows = WorkflowServicer(
        store,
        clock,
        workshop.orchestrator,
        workshop.placer,
        workshop.logs,
        workshop.viewer,
        workshop.execution_retention,
        workshop.lifecycle,
        workshop.schedules.stored,
    )
    reports = JobReportServicer(workshop.orchestrator, clock, store.store_id)
    transfers = TransferServicer(self_id, store, workshop.receiver, workshop.sender, clock)
    audit, profiles = AuditServicer(self_id, store), ProfileServicer(store, neighbours.profiles)
    detector, services = DetectorServicer(neighbours.prober), CatalogServicer(store, catalog, search, self_id)
    tokens_servicer, backup = TokenServicer(store, tokens), BackupServicer(backups, store, restart=restart)
    space = SpaceServicer(
        store,
        DataDir(config.data_dir),
        workshop.collector,
        self_id=self_id,
        name_of=registry.name_of,
        reserve=config.transfers.reserve,
        quota_bytes=config.jobs.quota_bytes_per_orchestrator,
        scan_bytes=scans.data_bytes,
    )
    schedules = ScheduleServicer(store, clock, workshop.schedules, registry.name_of)
    scanned = InventoryServicer(inventory, clock)
    miners = DeviceServicer(store, devices, directory, neighbours.cards, neighbours.channels, registry.name_of)
    add: dict[str, Callable[[Any], None]] = {
        "MeshService": lambda s: mesh_pb2_grpc.add_MeshServiceServicer_to_server(mesh, s),
        "DetectorService": lambda s: detector_pb2_grpc.add_DetectorServiceServicer_to_server(detector, s),
        "RegistryService": lambda s: registry_pb2_grpc.add_RegistryServiceServicer_to_server(peers, s),
        "ProfileService": lambda s: profiles_pb2_grpc.add_ProfileServiceServicer_to_server(profiles, s),
        "CatalogService": lambda s: catalog_pb2_grpc.add_CatalogServiceServicer_to_server(services, s),
        "JobService": lambda s: jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, s),
        "JobReportService": lambda s: jobs_pb2_grpc.add_JobReportServiceServicer_to_server(reports, s),
        "TransferService": lambda s: transfers_pb2_grpc.add_TransferServiceServicer_to_server(transfers, s),
        "WorkflowService": lambda s: workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(workflows, s),
        "ScheduleService": lambda s: schedules_pb2_grpc.add_ScheduleServiceServicer_to_server(schedules, s),
        "ScanService": lambda s: scans_pb2_grpc.add_ScanServiceServicer_to_server(scans.servicer, s),
        "InventoryService": lambda s: inventory_pb2_grpc.add_InventoryServiceServicer_to_server(scanned, s),
        "OrganizationService": lambda s: nodes_pb2_grpc.add_OrganizationServiceServicer_to_server(
            workshop.nodes.organizations, s
        ),
        "NodeService": lambda s: nodes_pb2_grpc.add_NodeServiceServicer_to_server(workshop.nodes.nodes, s),
        "DeviceService": lambda s: devices_pb2_grpc.add_DeviceServiceServicer_to_server(miners, s),
        "AuditService": lambda s: audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, s),
        "TokenService": lambda s: tokens_pb2_grpc.add_TokenServiceServicer_to_server(tokens_servicer, s),
        "BackupService": lambda s: backup_pb2_grpc.add_BackupServiceServicer_to_server(backup, s),
        "SpaceService": lambda s: space_pb2_grpc.add_SpaceServiceServicer_to_server(space, s),
        "DaemonService": lambda s: daemon_pb2_grpc.add_DaemonServiceServicer_to_server(daemon, s),
    }
    return [(f"peerd.v1.{name}", register) for name, register in add.items()]
