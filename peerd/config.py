"""What an operator can set, where each value comes from, and nothing that is not here.

Sources, later ones win: the defaults below, ``<data dir>/peerd.toml``, environment variables
``PEERD_<SECTION>_<FIELD>``, command-line flags. Unknown keys are errors that name the nearest known one, so that a
typing mistake never silently means "default".

    [peer]
    name = "alpha"
    listen = "0.0.0.0:7373"

    [[services]]            # what this peer offers; see docs/services.md
    name = "word-counter"
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import socket
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peerd.disk import Reserve
from peerd.errors import PeerdError, Reason
from peerd.secret_config import SecretConfig, read_secrets

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
class AuditConfig:
    """The log of who changed what."""

    retention_days: float = 365


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
    audit: AuditConfig = field(default_factory=AuditConfig)
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


_SECTIONS: dict[str, type] = {
    "peer": PeerConfig,
    "jobs": JobsConfig,
    "containers": ContainersConfig,
    "transfers": TransfersConfig,
    "workflows": WorkflowsConfig,
    "mesh": MeshConfig,
    "store": StoreConfig,
    "http": HttpConfig,
    "limits": LimitsConfig,
    "retention": RetentionConfig,
    "audit": AuditConfig,
    "log": LogConfig,
}


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``PEERD_DATA_DIR``, else systemd's state directory, else /var/lib/peerd for root, else the XDG state home."""
    if explicit := environ.get("PEERD_DATA_DIR"):
        return Path(explicit)
    if state := environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/peerd")
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "peerd"


def load_config(
    *,
    data_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """Merge all sources. ``flags`` are ``section.field`` -> text. Raises INVALID_CONFIG naming file and key."""
    environ = os.environ if environ is None else environ
    folder = (data_dir or default_data_dir(environ)).absolute()
    file = folder / CONFIG_FILE
    values: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
    origins: dict[str, str] = {}
    services: tuple[Mapping[str, object], ...] = ()
    secrets: Mapping[str, SecretConfig] = {}
    socket_path = folder / "run" / "peerd.sock"

    def put(section: str, key: str, value: object, origin: str) -> None:
        values[section][key] = _convert(_SECTIONS[section], section, key, value, origin)
        origins[f"{section}.{key}"] = origin

    for section, content in _read_toml(file).items():
        if section == "services":
            services = _services(content, file)
        elif section == "secrets":
            secrets = read_secrets(content, str(file))
        elif section == "socket" and isinstance(content, str):
            socket_path, origins["socket"] = Path(content), str(file)
        elif section in _SECTIONS and isinstance(content, dict):
            for key, value in content.items():
                put(section, key, value, str(file))
        else:
            raise _unknown(str(file), section, [*_SECTIONS, "secrets", "services", "socket"])
    for name, text in environ.items():
        match = re.fullmatch(rf"PEERD_({'|'.join(s.upper() for s in _SECTIONS)})_([A-Z_]+)", name)
        if match:
            put(match[1].lower(), match[2].lower(), text, f"environment variable {name}")
    if named := environ.get("PEERD_SOCKET"):
        socket_path, origins["socket"] = Path(named), "environment variable PEERD_SOCKET"
    for dotted, text in (flags or {}).items():
        section, _, key = dotted.partition(".")
        put(section, key, text, "command line")
    sections = {section: cls(**values[section]) for section, cls in _SECTIONS.items()}
    return Config(
        data_dir=folder,
        socket=socket_path.absolute(),
        secrets=secrets,
        services=services,
        origins=origins,
        **sections,
    )


def show_config(config: Config) -> list[tuple[str, object, str]]:
    """(``section.field``, value, origin) of everything, for ``peerd config show``."""
    rows: list[tuple[str, object, str]] = [
        ("data_dir", str(config.data_dir), "--data-dir or default"),
        ("socket", str(config.socket), config.origins.get("socket", "default")),
    ]
    for section in _SECTIONS:
        content = getattr(config, section)
        for entry in dataclasses.fields(content):
            dotted = f"{section}.{entry.name}"
            rows.append((dotted, getattr(content, entry.name), config.origins.get(dotted, "default")))
    rows.extend(
        (f"secrets.{name}", secret.shown, str(config.data_dir / CONFIG_FILE)) for name, secret in config.secrets.items()
    )
    rows.extend(
        (f"services[{index}]", service.get("name", "?"), str(config.data_dir / CONFIG_FILE))
        for index, service in enumerate(config.services)
    )
    return rows


def _read_toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeerdError(Reason.INVALID_CONFIG, f"{file} is not TOML: {error}") from error


def _services(content: object, file: Path) -> tuple[Mapping[str, object], ...]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise PeerdError(Reason.INVALID_CONFIG, f"{file}: 'services' must be [[services]] tables")
    return tuple(content)


def _unknown(where: str, key: str, known: list[str]) -> PeerdError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    return PeerdError(Reason.INVALID_CONFIG, f"{where}: unknown key {key!r}; {hint}")


def _convert(cls: type, section: str, key: str, value: object, origin: str) -> object:
    """The value as the type of the field. Text (from environment and flags) is parsed, TOML must already fit."""
    hints = typing.get_type_hints(cls)
    if key not in hints:
        raise _unknown(origin, f"{section}.{key}", [f"{section}.{name}" for name in hints])
    wanted = hints[key]
    try:
        return _fit(wanted, value)
    except (TypeError, ValueError) as error:
        kind = "list of texts" if isinstance(wanted, types.GenericAlias) else wanted.__name__
        raise PeerdError(Reason.INVALID_CONFIG, f"{origin}: {section}.{key} must be a {kind}, not {value!r}") from error


_BOOLEANS = {"true": True, "false": False}


def _fit(wanted: object, value: object) -> object:
    if wanted == tuple[str, ...]:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif wanted is int and not isinstance(value, bool) and isinstance(value, int | str):
        return int(value)
    elif wanted is float and not isinstance(value, bool) and isinstance(value, int | float | str):
        return float(value)
    elif wanted is str and isinstance(value, str):
        return value
    elif wanted is bool and (isinstance(value, bool) or str(value).lower() in _BOOLEANS):
        return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
    raise TypeError
