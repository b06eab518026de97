"""What this machine says of itself to the others."""

from __future__ import annotations

import platform
import socket

from peerd import __version__
from peerd.config import Config
from peerd.errors import PeerdError, Reason
from peerd.profiles.profile import Followed
from peerd.v1.registry_pb2 import Advert, Hardware, IsolationLevel, LimitsLevel, Location

_ANY = ("0.0.0.0", "[::]", "::", "")  # noqa: S104 - recognised, not bound
_SOMEWHERE = ("192.0.2.1", 9)
"""A documentation address (RFC 5737): connecting a datagram socket to it sends nothing, and shows our own address."""


def own_advert(
    config: Config,
    followed: Followed,
    hardware: Hardware,
    *,
    port: int,
    isolation: IsolationLevel.ValueType,
    limits: LimitsLevel.ValueType,
    catalog_digest: bytes,
) -> Advert:
    """The unsigned content of this peer's advert."""
    return Advert(
        name=config.peer_name,
        addresses=own_addresses(config, port),
        labels=sorted({*config.peer.labels, *followed.labels}),
        profile_version=followed.version,
        groups=sorted(config.peer.groups),
        location=_location(config),
        hostname=socket.gethostname(),
        platform=f"{platform.system().lower()}-{platform.machine()}",
        peerd_version=__version__,
        isolation=isolation,
        limits=limits,
        catalog_digest=catalog_digest,
        hardware=hardware,
    )


def own_addresses(config: Config, port: int) -> tuple[str, ...]:
    """Where other peers find this one, as HOST:PORT."""
    return config.peer.advertise or (f"{_reachable_host(config.peer.listen)}:{port}",)


def _location(config: Config) -> Location:
    location = Location(region=config.peer.region)
    if config.peer.location:
        latitude, _, longitude = config.peer.location.partition(",")
        try:
            location.latitude, location.longitude = float(latitude), float(longitude)
        except ValueError as error:
            raise PeerdError(
                Reason.INVALID_CONFIG, f"peer.location must be 'LATITUDE,LONGITUDE', not {config.peer.location!r}"
            ) from error
    return location


def _reachable_host(listen: str) -> str:
    host = listen.rpartition(":")[0]
    if host not in _ANY:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
