"""Outgoing connections: one channel per peer, which trusts exactly that peer.

Our own id leads to the unix socket, so that a local job takes the same path through the code as a remote one. A
channel is replaced when the peer's addresses change or our certificate nears its end; grpc reconnects by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.credentials import RENEW_BEFORE_MS
from peerd.rpc.members import Addresses

_DRAIN_SECONDS = 600.0
"""How long calls on a replaced channel may go on."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    channel: aio.Channel
    target: str
    renew_at: Millis


class Channels:
    """All connections of this peer to others."""

    def __init__(self, identity: Identity, addresses: Addresses, clock: Clock, *, socket: Path | None = None) -> None:
        self._identity = identity
        self._addresses = addresses
        self._clock = clock
        self._socket = socket
        self._leaf = issue_leaf(identity, clock)
        self._open: dict[tuple[PeerId, str], _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self, peer_id: PeerId) -> aio.Channel:
        """The channel to a peer. Raises NOT_TRUSTED_OR_UNREACHABLE when no address of it is known."""
        return self._channel(peer_id, "calls")

    def probe_channel(self, peer_id: PeerId) -> aio.Channel:
        """A connection of its own for probes, which must not queue behind a large stream."""
        return self._channel(peer_id, "probes")

    def redial(self, peer_id: PeerId) -> None:
        """That peer is back: give up connections that wait for their next try, so that calls reach it at once."""
        for key, entry in list(self._open.items()):
            if key[0] == peer_id and entry.channel.get_state() is not grpc.ChannelConnectivity.READY:
                del self._open[key]
                self._drain(entry.channel)

    async def close(self) -> None:
        """Close every connection now."""
        for entry in self._open.values():
            await entry.channel.close()
        self._open.clear()
        for task in self._closing:
            task.cancel()

    def _channel(self, peer_id: PeerId, purpose: str) -> aio.Channel:
        target = self._target(peer_id)
        key = (peer_id, purpose)
        entry = self._open.get(key)
        if entry is not None and entry.target == target and self._clock.now() < entry.renew_at:
            return entry.channel
        if entry is not None:
            self._drain(entry.channel)
        self._open[key] = self._dial(peer_id, target, purpose)
        return self._open[key].channel

    def _target(self, peer_id: PeerId) -> str:
        if peer_id == self._identity.peer_id and self._socket is not None:
            return f"unix:{self._socket}"
        addresses = self._addresses.addresses(peer_id)
        if not addresses:
            raise PeerdError(
                Reason.NOT_TRUSTED_OR_UNREACHABLE, f"no address of {peer_id} is known", metadata={"peer": peer_id}
            )
        return target_of(addresses)

    def _dial(self, peer_id: PeerId, target: str, purpose: str) -> _Open:
        # A distinct argument keeps grpc from sharing one connection between the purposes.
        options = [*limits.CLIENT, ("peerd.purpose", purpose)]
        if target.startswith("unix:"):
            return _Open(channel=aio.insecure_channel(target, options), target=target, renew_at=Millis(2**62))
        if self._leaf.not_after - self._clock.now() < RENEW_BEFORE_MS:
            self._leaf = issue_leaf(self._identity, self._clock)
        channel = aio.secure_channel(
            target,
            grpc.ssl_channel_credentials(
                root_certificates=anchor_pem(peer_id),
                private_key=self._leaf.private_key_pem,
                certificate_chain=self._leaf.certificate_pem,
            ),
            [*options, ("grpc.default_authority", peer_id)],
        )
        return _Open(channel=channel, target=target, renew_at=Millis(self._leaf.not_after - RENEW_BEFORE_MS))

    def _drain(self, channel: aio.Channel) -> None:
        task = asyncio.ensure_future(channel.close(_DRAIN_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def target_of(addresses: Sequence[str]) -> str:
    """A grpc target that tries the addresses in order: all of them if they are IP addresses of one family."""
    for family, version in (("ipv4", 4), ("ipv6", 6)):
        if all(_ip_version(address) == version for address in addresses):
            return f"{family}:{','.join(addresses)}"
    return f"dns:///{addresses[0]}"


def _ip_version(address: str) -> int | None:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None
