"""What the HTTP surface asks of the daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from peerd.clock import Clock, Millis
from peerd.identity.peer_id import PeerId
from peerd.inventory.inventory import Inventory
from peerd.registry.model import PeerView
from peerd.scans.plain import PlainScans
from peerd.v1.devices_pb2 import Device
from peerd.v1.profiles_pb2 import Profile
from peerd.v1.registry_pb2 import ExternalPeer


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of being ready."""

    name: str
    ok: bool
    message: str
    required: bool = True
    """Whether the daemon is not ready without it."""


class Registered(Protocol):
    """What came of a registration."""

    @property
    def node_id(self) -> str: ...

    @property
    def created(self) -> bool: ...


class Peers(Protocol):
    """The registry."""

    def peers(self) -> tuple[PeerView, ...]:
        """All peers, external ones included."""
        ...


class Details(Protocol):
    """What an external machine tells of itself."""

    @property
    def said(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


class Externals(Protocol):
    """Registration of machines without peerd."""

    def details(self, node_id: str) -> Details | None:
        """Of one, if it is known."""
        ...

    async def register(self, asked: ExternalPeer, *, caller: str) -> Registered:
        """List a machine, or bring what is known of it up to date."""
        ...

    async def beat(self, node_id: str, *, status: str, metrics: Mapping[str, float]) -> Millis:
        """A heartbeat came."""
        ...


class Token(Protocol):
    """A token that was checked."""

    @property
    def token_id(self) -> str: ...


class Tokens(Protocol):
    """Who may."""

    async def check(self, text: str, scope: int) -> Token:
        """Raises NOT_AUTHENTICATED or PERMISSION_DENIED."""
        ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """All of it."""

    self_id: PeerId
    version: str
    started_at: Millis
    clock: Clock
    peers: Peers
    externals: Externals
    tokens: Tokens
    devices: Callable[[], Awaitable[Sequence[Device]]]
    """Those of this peer, and the miners of all."""
    inventory: Inventory
    scans: PlainScans
    profile: Callable[[str], Profile | None]
    checks: Callable[[], Awaitable[Sequence[Check]]]
    database: Callable[[], Awaitable[Mapping[str, object]]]
    collect: Callable[[], None]
    """Bring the gauges up to date."""
