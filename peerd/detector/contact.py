"""What contact with one peer has shown so far."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.clock import Millis
from peerd.detector.model import State
from peerd.identity.peer_id import PeerId
from peerd.v1.registry_pb2 import Sample

_MOST = 2**60


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One probe of one peer."""

    peer_id: PeerId
    at: Millis
    latency_ms: float | None
    """Round trip; None when there was no answer."""
    clock_offset_ms: float | None = None
    """Its clock minus ours, by the middle of the round trip (as NTP does it)."""
    sample: Sample | None = None


@dataclass(frozen=True, kw_only=True)
class Contact:
    """Where we stand with a peer."""

    state: State = State.UNKNOWN
    since: Millis
    accusers: tuple[PeerId, ...] = ()
    last_seen: Millis | None = None
    latency_ms: float | None = None
    clock_offset_ms: float | None = None
    sample: Sample | None = None
    sample_at: Millis | None = None
    duplicate: bool = False
    """Two machines speak with this identity."""


def believed(sample: Sample) -> Sample:
    """What another peer says of its load; nothing of what cannot be, which no store and no page could hold."""
    may_be = (
        0 <= sample.cpu_percent <= 100  # False for NaN, too
        and 0 <= sample.requests_per_second <= _MOST
        and sample.memory_available_bytes <= sample.memory_total_bytes <= _MOST
        and sample.disk_free_bytes <= sample.disk_total_bytes <= _MOST
    )
    return sample if may_be else Sample()
