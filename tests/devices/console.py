"""Transcripts for tests: their bytes, and what the handshake makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from peerd.devices.events import Advanced, Described, Event, Finished
from peerd.devices.handshake import Handshake
from peerd.devices.model import Stage
from peerd.devices.simulator.recording import replay

TRANSCRIPTS = Path(__file__).parent / "transcripts"
ALL = sorted(path.stem for path in TRANSCRIPTS.glob("*.txt"))


def steps(name: str) -> list[tuple[float, bytes]]:
    """(pause, bytes)."""
    with (TRANSCRIPTS / f"{name}.txt").open() as file:
        return list(replay(file))


def whole(name: str) -> bytes:
    """All of its bytes."""
    return b"".join(data for _, data in steps(name))


def heard(data: bytes, cut: Callable[[bytes], Iterator[bytes]] = lambda data: iter([data])) -> list[Event]:
    """The events of these bytes, all at one time."""
    handshake = Handshake(0.0)
    return [event for piece in cut(data) for event in handshake.feed(piece, 0.0)[0]]


def played(name: str, then: float = 0.0) -> tuple[Handshake, list[Event]]:
    """A transcript at its own speed, and then so many seconds of silence."""
    handshake, now, events = Handshake(0.0), 0.0, list[Event]()
    for pause, data in steps(name):
        now += pause
        events += handshake.feed(data, now)[0]
    until = now + then
    while (deadline := handshake.feed(b"", now)[1]) is not None and deadline <= until:
        now = deadline
        events += handshake.feed(b"", now)[0]
    return handshake, events


def stages(events: list[Event]) -> list[Stage]:
    """Those it reached, in order."""
    return [event.stage for event in events if isinstance(event, Advanced)]


def end(events: list[Event]) -> Finished | None:
    """How it ended, if it did."""
    return next((event for event in events if isinstance(event, Finished)), None)


def said(events: list[Event]) -> Described:
    """What it said of itself at last."""
    return [event for event in events if isinstance(event, Described)][-1]
