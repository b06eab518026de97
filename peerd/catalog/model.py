"""What a peer offers: services, and what they take and give.

A service is the owner's word: its argv, paths and limits come from the owner alone; a job chooses values for declared
parameters and nothing else. A service id means nothing without its peer. No database and no wire here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class ServiceKind(Enum):
    """How a service does its work."""

    DATA = "data"  # offers a file or directory
    PROCESS = "process"  # runs an argv
    CONTAINER = "container"  # runs an image


class InterfaceKind(Enum):
    """A way in or out of a job."""

    STDIN = "stdin"  # in: files concatenated in the order of the edges
    INPUT = "input"  # in: files under input/
    MOUNT = "mount"  # in or out: files under mounts/<path>/
    PACKAGE = "package"  # in: files that the definition brings along, under package/
    OUTPUT = "output"  # out: files under output/
    STDOUT = "stdout"  # out: logs/stdout.txt
    STDERR = "stderr"  # out: logs/stderr.txt


class MountFunction(Enum):
    """On a service: seen from the service. On a job's interface peer: the role of *that peer*, never BOTH."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


RECEIVING = frozenset({InterfaceKind.STDIN, InterfaceKind.INPUT, InterfaceKind.MOUNT, InterfaceKind.PACKAGE})
SENDING = frozenset({InterfaceKind.OUTPUT, InterfaceKind.STDOUT, InterfaceKind.STDERR, InterfaceKind.MOUNT})


@dataclass(frozen=True, kw_only=True)
class ServiceInterface:
    """One thing a service takes or gives. A mount without path stands for any mount."""

    kind: InterfaceKind
    path: str = ""
    mount_function: MountFunction = MountFunction.BOTH
    description: str = ""

    def takes(self, kind: InterfaceKind, path: str) -> bool:
        """Whether a job may receive there."""
        return kind in RECEIVING and self._is(kind, path) and self.mount_function is not MountFunction.OUTPUT

    def gives(self, kind: InterfaceKind, path: str) -> bool:
        """Whether a job may send from there."""
        return kind in SENDING and self._is(kind, path) and self.mount_function is not MountFunction.INPUT

    def _is(self, kind: InterfaceKind, path: str) -> bool:
        return self.kind is kind and (kind is not InterfaceKind.MOUNT or self.path in ("", path))


EVERYTHING: Mapping[ServiceKind, tuple[ServiceInterface, ...]] = {
    ServiceKind.PROCESS: tuple(ServiceInterface(kind=kind) for kind in InterfaceKind),
    ServiceKind.DATA: (ServiceInterface(kind=InterfaceKind.OUTPUT),),
    # Where a mount appears in a container is for the owner to say: a job must not replace the image's own /bin.
    ServiceKind.CONTAINER: tuple(ServiceInterface(kind=kind) for kind in InterfaceKind if kind.name != "MOUNT"),
}
"""What a service that declares no interfaces takes and gives: all its kind can."""


@dataclass(frozen=True, kw_only=True)
class ServiceParam:
    """A value that a job may choose; ``default`` None makes it required."""

    name: str
    description: str = ""
    default: str | None = None
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class ContainerImage:
    """What a container service runs; 0 and empty mean what the machine's configuration or the image says."""

    image: str
    digest: str = ""
    pull: bool = False
    """Whether it may be fetched from its registry."""
    entrypoint: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    pids: int = 0
    tmp_bytes: int = 0


SCAN_FORMATS = ("", "naabu", "nmap_xml", "masscan_json", "masscan_ndjson", "masscan_xml", "host_port")
"""Of scans; empty: told by the content."""


@dataclass(frozen=True, kw_only=True)
class HandIn:
    """That jobs leave scans, which this peer signs as itself and hands in to another one's inventory."""

    to: str
    """Id of the peer that ingests them."""
    format: str = ""
    files: tuple[str, ...] = ()
    """Patterns below output/; empty for all."""
    vantage: str = ""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A service as its owner declares it, already checked (see :mod:`peerd.catalog.declaration`)."""

    name: str
    kind: ServiceKind
    description: str = ""
    interfaces: tuple[ServiceInterface, ...] = ()
    argv: tuple[str, ...] = ()
    path: str = ""
    params: tuple[ServiceParam, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    job_env: frozenset[str] = frozenset()
    read_only_paths: tuple[str, ...] = ()
    writable_paths: tuple[str, ...] = ()
    network: bool = False
    isolation: int = 0
    """The least isolation (registry_pb2.IsolationLevel) it may run under."""
    allowed_peers: frozenset[str] = frozenset()
    allowed_roles: frozenset[str] = frozenset()
    container: ContainerImage | None = None
    cpus: float = 0.0
    """These four: what a job of it reserves that says nothing itself; 0 is nothing."""
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpus: int = 0
    max_concurrent: int = 0
    """Jobs of it that run at once; 0 is no limit."""
    limits: int = 0
    """How strictly limits must be kept (registry_pb2.LimitsLevel)."""
    hand_in: HandIn | None = None


@dataclass(frozen=True, kw_only=True)
class Service:
    """A declared service with its id on this peer."""

    service_id: int
    active: bool
    origin: str
    declaration: Declaration

    @property
    def name(self) -> str:
        """Its name, unique on this peer."""
        return self.declaration.name

    @property
    def interfaces(self) -> tuple[ServiceInterface, ...]:
        """What it declares, or everything its kind can do."""
        return self.declaration.interfaces or EVERYTHING[self.declaration.kind]

    def takes(self, kind: InterfaceKind, path: str = "") -> bool:
        """Whether a job of it may receive there."""
        return any(interface.takes(kind, path) for interface in self.interfaces)

    def gives(self, kind: InterfaceKind, path: str = "") -> bool:
        """Whether a job of it may send from there."""
        return any(interface.gives(kind, path) for interface in self.interfaces)

    def allows(self, peer_id: str, roles: frozenset[str]) -> bool:
        """Whether that peer may order it: everybody when the owner named nobody."""
        declared = self.declaration
        if not declared.allowed_peers and not declared.allowed_roles:
            return True
        return peer_id in declared.allowed_peers or bool(declared.allowed_roles & roles)
