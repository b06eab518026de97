"""totals(devices): what the miners of each peer do together, and all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from peerd.v1 import devices_pb2


def totals(devices: Iterable[devices_pb2.Device]) -> devices_pb2.GetFlockResponse:
    """Of the miners among these."""
    answer = devices_pb2.GetFlockResponse(totals=devices_pb2.FlockTotals())
    of_peer: dict[str, devices_pb2.FlockTotals] = {}
    for device in devices:
        if not device.name:
            continue
        peer = of_peer.setdefault(
            device.peer_id, devices_pb2.FlockTotals(peer_id=device.peer_id, peer_name=device.peer_name)
        )
        for total in (answer.totals, peer):
            _add(total, device)
    answer.peers.extend(of_peer[peer_id] for peer_id in sorted(of_peer))
    return answer


def _add(total: devices_pb2.FlockTotals, device: devices_pb2.Device) -> None:
    total.miners += 1
    if device.status != devices_pb2.DEVICE_STATUS_ACTIVE:
        return
    total.active += 1
    total.healthy += device.health == "ok"
    total.hash_rate_khs += device.reading.hash_rate_khs
    total.shares += device.reading.shares
    total.best_difficulty = max(total.best_difficulty, device.reading.best_difficulty)
