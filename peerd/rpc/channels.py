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

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import Leaf, anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.members import Addresses

_IN_HAND_SECONDS = 30.0
"""How long a replaced channel still takes new calls."""
_DRAIN_SECONDS = 600.0
"""How long calls on a replaced channel may go on."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    channel: aio.Channel
    target: str
    leaf: Leaf | None = None
    """What we show there; nothing on the unix socket."""


class Channels:
    """All connections of this peer to others."""

    def __init__(self, identity: Identity, addresses: Addresses, clock: Clock, *, socket: Path | None = None) -> None:
        self._identity = identity
        self._addresses = addresses
        self._clock = clock
        self._socket = socket
        self._leaf = issue_leaf(identity, clock)
        self._open: dict[tuple[PeerId, str], _Open] = {}
        self._closing: dict[asyncio.Task[None], aio.Channel] = {}

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
        for task, channel in list(self._closing.items()):
            task.cancel()
            await channel.close()

    def _channel(self, peer_id: PeerId, purpose: str) -> aio.Channel:
        targets = self._targets(peer_id)
        key = (peer_id, purpose)
        entry = self._open.get(key)
        if entry is None:
            return self._dial(key, targets[0])
        stands = entry.target in targets and (entry.leaf is None or not entry.leaf.due(self._clock.now()))
        failed = len(targets) > 1 and entry.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if stands and not failed:
            return entry.channel
        self._drain(entry.channel)
        # What cannot be reached one way is tried the next: a host name, or the other kind of address.
        position = targets.index(entry.target) + 1 if stands else 0
        return self._dial(key, targets[position % len(targets)])

    def _targets(self, peer_id: PeerId) -> list[str]:
        if peer_id == self._identity.peer_id and self._socket is not None:
            return [f"unix:{self._socket}"]
        addresses = self._addresses.addresses(peer_id)
        if not addresses:
            raise PeerdError(
                Reason.NOT_TRUSTED_OR_UNREACHABLE, f"no address of {peer_id} is known", metadata={"peer": peer_id}
            )
        return targets_of(addresses)

    def _dial(self, key: tuple[PeerId, str], target: str) -> aio.Channel:
        self._open[key] = self._connect(key[0], target, key[1])
        return self._open[key].channel

    def _connect(self, peer_id: PeerId, target: str, purpose: str) -> _Open:
        # A distinct argument keeps grpc from sharing one connection between the purposes.
        options = [*limits.CLIENT, ("peerd.purpose", purpose)]
        if target.startswith("unix:"):
            return _Open(channel=aio.insecure_channel(target, options), target=target)
        if self._leaf.due(self._clock.now()):
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
        return _Open(channel=channel, target=target, leaf=self._leaf)

    def _drain(self, channel: aio.Channel) -> None:
        task = asyncio.ensure_future(_close_later(channel))
        self._closing[task] = channel
        task.add_done_callback(lambda done: self._closing.pop(done, None))


async def _close_later(channel: aio.Channel) -> None:
    """Whoever has it in hand may still begin a call; on a closed channel that is an error of the program."""
    await asyncio.sleep(_IN_HAND_SECONDS)
    await channel.close(_DRAIN_SECONDS)


def targets_of(addresses: Sequence[str]) -> list[str]:
    """grpc targets, in the order of the addresses: neighbours that are IP addresses of one family share one."""
    targets: list[tuple[str, list[str]]] = []
    for address in addresses:
        version = _ip_version(address)
        kind = f"ipv{version}" if version else "dns"
        if version and targets and targets[-1][0] == kind:
            targets[-1][1].append(address)
        else:
            targets.append((kind, [address]))
    return [f"dns:///{some[0]}" if kind == "dns" else f"{kind}:{','.join(some)}" for kind, some in targets]


def _ip_version(address: str) -> int | None:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None
