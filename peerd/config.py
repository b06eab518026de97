"""What an operator can set, and nothing that is not here; where values come from is in :mod:`peerd.config_reading`.

[peer]
name = "alpha"
listen = "0.0.0.0:7373"

[[services]]            # what this peer offers; see docs/services.md
name = "word-counter"
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peerd.disk import Reserve
from peerd.secret_config import SecretConfig

DEFAULT_PORT = 7373
CONFIG_FILE = "peerd.toml"


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """This machine among the others."""

    name: str = ""
    """What people call it; the host name when empty."""
    listen: str = f"0.0.0.0:{DEFAULT_PORT}"
    """host:port for other peers; port 0 takes a free one."""
    advertise: tuple[str, ...] = ()
    """host:port by which others reach it, best first; found out from ``listen`` when empty."""
    labels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    region: str = ""
    """Where this machine stands, such as ``eu-west``."""
    location: str = ""
    """``LATITUDE,LONGITUDE`` in degrees, such as ``52.52,13.405``."""
    accept_profile_services: bool = False
    """Whether services that an admin wrote into the profile of this peer's role are offered here."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """What this machine runs for others."""

    max_running: int = 0
    """Jobs that run at once; twice the number of cores when 0."""
    max_queued: int = 20_000
    """Jobs that are not final; more are refused with ``overloaded``."""
    output_cap_bytes: int = 256 * 1024**2
    """Longest stdout and stderr of a job, each; what comes after is dropped and counted."""
    allow_commands_from: tuple[str, ...] = ()
    """Peer ids and roles whose ad-hoc commands are run, and only inside a sandbox. Nobody by default."""
    sandbox: str = "auto"
    """``auto`` uses bubblewrap where it works; ``none`` never does."""
    limits: str = "auto"
    """``auto`` keeps jobs to their limits by control groups where they work; ``rlimits`` never does."""
    cpus: float = 0
    """What jobs may reserve together; all of the machine when 0."""
    memory_bytes: int = 0
    """The same."""
    gpus: int = -1
    """The same, counted from the first; all of the machine when -1."""
    default_memory_bytes: int = 0
    """The most a job may use that asks for nothing itself; no limit when 0."""
    default_disk_bytes: int = 0
    """The same, of the disk; up to what is kept free of it when 0."""
    max_pids: int = 1024
    """Processes and threads of one job; no limit when 0."""
    stop_grace_seconds: float = 10
    """How long a daemon that is told to stop waits for running jobs; they go on without it, and the next finds them."""
    quota_bytes_per_orchestrator: int = 0
    """What the jobs of one other peer may occupy here; more jobs and transfers wait, a job that writes more is ended.
    No limit when 0."""
    created_expires_seconds: float = 3600
    """A job that was created and never started fails after this long."""


@dataclass(frozen=True, kw_only=True)
class ContainersConfig:
    """What runs container services, and what they may use where they say nothing themselves."""

    socket: str = ""
    """Of podman or docker; the first of the usual ones that answers when empty, none at all when ``none``."""
    user: str = ""
    """Numeric ``uid:gid`` of containers, for a daemon that is root; nobody's (65534:65534) when empty."""
    memory_bytes: int = 0
    """The most a container may use that asks for nothing itself; half of what jobs have here when 0."""
    tmp_bytes: int = 64 * 1024**2
    """Room in /tmp, which counts as memory."""


@dataclass(frozen=True, kw_only=True)
class TransfersConfig:
    """What this machine takes from others."""

    max_bytes: int = 1024**4
    """Largest single transfer."""
    min_free_bytes: int = 1024**3
    """Free space that is never used; the larger of this and min_free_fraction counts."""
    min_free_fraction: float = 0.05
    concurrency: int = 4
    """Transfers sent at once."""

    @property
    def reserve(self) -> Reserve:
        """What of the disk stays free."""
        return Reserve(min_free_bytes=self.min_free_bytes, min_free_fraction=self.min_free_fraction)


@dataclass(frozen=True, kw_only=True)
class WorkflowsConfig:
    """How this machine orchestrates."""

    lease_seconds: float = 60
    """How long an executor may run a job without hearing from us."""
    sync_seconds: float = 5
    """How often leases are renewed and lost reports fetched."""
    max_clock_skew_seconds: float = 20
    """Added to a lease before its job may start elsewhere: for clocks that run differently, and for a call that got no
    answer and came late all the same, 10 s each."""
    max_open_executions: int = 20_000
    """Executions under way; more are refused with ``overloaded``."""
    replace_after_seconds: float = 15
    """A job never started on a peer that is away so long is placed on another one, if its selector allows."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How this machine keeps up with the others."""

    exchange_seconds: float = 5
    """How often signed documents are compared with another peer."""
    probe_seconds: float = 1
    """How often some other peer is probed; a peer that is gone is offline after some seven of these in a small mesh."""
    history_days: float = 30
    """How long the history of probes is kept."""
    history_detail_hours: float = 24
    """How long every probe of it is kept; of older ones one in five minutes, and every change of status."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Copies of the store, in the data directory's backups/."""

    backup_hours: float = 24
    """A copy is made this often; never when 0."""
    backups_kept: int = 7
    """Of those made by the clock; what an operator makes is kept."""


@dataclass(frozen=True, kw_only=True)
class HttpConfig:
    """Health, metrics and JSON over HTTP."""

    listen: str = "127.0.0.1:9205"
    """host:port; on another address than this machine's own every request needs a token. Nothing listens when empty."""
    tls_certificate: str = ""
    """PEM file; with tls_key, HTTPS is spoken."""
    tls_key: str = ""
    external_offline_seconds: float = 300
    """A machine without peerd counts as offline after so long without a heartbeat."""
    requests_per_second: float = 50
    """Of each token, or of each address without one; 0 limits nobody."""
    burst: float = 200


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What one peer may ask of this one."""

    calls_per_second: float = 500
    """Of each caller, steadily; 0 limits nobody. Probes do not count, nor do calls over the unix socket."""
    burst: float = 2000
    """Calls at once, after a quiet time."""


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """How long what is over stays on the disk. What is kept ('peerctl executions keep') stays for ever."""

    executions_days: float = 30
    """Files that came home to an execution, and its event log."""
    jobs_days: float = 7
    """Directories of jobs that ran here, from their end, once their execution is over."""
    abandoned_days: float = 30
    """The same for jobs whose orchestrator never said so: counted from when it was last heard of."""
    history_days: float = 180
    """Rows of executions and jobs."""
    collect_minutes: float = 10
    """How often it is looked at."""


@dataclass(frozen=True, kw_only=True)
class ScansConfig:
    """What this machine takes of signed scans; see docs/scans.md."""

    max_bytes: int = 512 * 1024**2
    """Largest scan."""
    http_max_bytes: int = 10_000_000
    """Largest body of a request over HTTP."""
    max_records: int = 5_000_000
    """Records and skipped lines of one scan; one with more fails."""
    max_seconds: float = 3600
    """How long one scan may be read in one go; one that takes longer fails."""
    submissions_per_minute: float = 60
    """Of each scanner, and besides of each caller: a peer, or an address over HTTP. 0 limits nobody."""
    max_queued: int = 1000
    """Ingest jobs that are not final; more are refused with ``overloaded``."""
    max_queued_per_scanner: int = 200
    """The same, of one scanner."""
    keep_data_days: float = 7
    """How long the bytes of a scan are kept after its ingest job is final, to process it again."""
    keep_skipped_days: float = 90
    """How long it is kept which lines were skipped, after that."""
    keep_jobs_days: float = 0
    """How long an ingest job that is final is known by its scan id; 0 for ever, so that the id stays unique."""
    allowed_networks: tuple[str, ...] = ()
    """CIDR. The service port-scan is offered here, and scans what these contain; not offered when empty."""
    scan_roles: tuple[str, ...] = ()
    """Roles of peers that may have this one scan; all with the grant ``operate`` when empty."""
    scan_seconds: float = 600
    """How long one run of nmap may take."""
    hand_in_to: str = ""
    """Id of the peer that ingests what port-scan finds here, signed by this peer; may be its own. Empty: nobody."""
    ingest_url: str = ""
    """Of this machine's own HTTP, such as ``http://127.0.0.1:9205``. With it the service scan-ingest is offered, whose
    jobs hand in there what they are sent, each signed by a registered scanner."""


@dataclass(frozen=True, kw_only=True)
class InventoryConfig:
    """What is known of scanned hosts."""

    asn_database: str = ""
    """MMDB file with autonomous systems, such as GeoLite2-ASN; nothing is said of them when empty."""
    country_database: str = ""
    """MMDB file with countries, such as GeoLite2-Country."""
    observations_days: float = 90
    """Older observations are thinned out to those with which something changed."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """The log of who changed what."""

    retention_days: float = 365


@dataclass(frozen=True, kw_only=True)
class NodesConfig:
    """Probing nodes of organizations from this machine; see docs/nodes.md."""

    prober: bool = False
    """Whether the service node-prober is offered here."""
    allowed_networks: tuple[str, ...] = ()
    """CIDR. Only addresses that these and the organization's own allowed networks contain are dialed; none if empty."""
    blocked_hosts: tuple[str, ...] = ()
    """Host names (with all below them when they begin with a dot), addresses and CIDR that are never dialed."""
    allow_special: tuple[str, ...] = ()
    """``loopback``, ``link-local``: special addresses that may be dialed where their networks are allowed."""
    connects_per_second: float = 200
    """Of one job, at most."""
    max_running: int = 8
    """Jobs that probe at once."""
    allowed_roles: tuple[str, ...] = ()
    """Roles of peers that may have this one probe; all with the grant ``operate`` when empty."""
    protocols_dir: str = ""
    """Directory with more protocols (*.toml), beside the built-in ones."""


@dataclass(frozen=True, kw_only=True)
class DevicesConfig:
    """USB-serial miners at this machine."""

    watch: tuple[str, ...] = ()
    """USB ids, ``VENDOR`` or ``VENDOR:PRODUCT``, of ports that may be opened; others are listed only. None by default;
    miners come with 10c4, 303a and 1a86."""
    simulated: str = ""
    """A directory of ``peerd simulate miner``, whose pseudo-terminals are watched as if they were plugged in."""
    reset_on_open: bool = False
    """Whether boards are made to boot when their port is opened, so that they print everything."""
    trust_ports: bool = False
    """Whether the USB port says which miner it is where nothing else tells two apart."""
    detail_hours: float = 24
    """How long readings are kept by the minute."""
    history_days: float = 90
    """How long they are kept by the hour."""


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What goes to stderr."""

    level: str = "info"
    format: str = "auto"
    """``json``, ``text``, or ``auto``: text on a terminal."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything, and where the data lies."""

    data_dir: Path
    socket: Path
    peer: PeerConfig = field(default_factory=PeerConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    containers: ContainersConfig = field(default_factory=ContainersConfig)
    transfers: TransfersConfig = field(default_factory=TransfersConfig)
    workflows: WorkflowsConfig = field(default_factory=WorkflowsConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    scans: ScansConfig = field(default_factory=ScansConfig)
    inventory: InventoryConfig = field(default_factory=InventoryConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    nodes: NodesConfig = field(default_factory=NodesConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    log: LogConfig = field(default_factory=LogConfig)
    secrets: Mapping[str, SecretConfig] = field(default_factory=dict)
    """By name: where to find them, never what they are."""
    services: tuple[Mapping[str, object], ...] = ()
    """Service declarations, in the JSON mapping of peerd.v1.ServiceDeclaration."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """``section.field`` -> where its value comes from, for those that are not defaults."""

    @property
    def peer_name(self) -> str:
        """The configured name, or the host name."""
        return self.peer.name or socket.gethostname().split(".")[0]
