"""Probing a loopback host the way a prober does, with everything that leaves it recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from peerd.clock import SystemClock
from peerd.nodes.examining import Outside, probe
from peerd.nodes.messages import Kind, Owner, ProbeRequest, ProbeResult, Special, Target
from peerd.nodes.probing.dialer import Streams, connect
from peerd.nodes.probing.guard import Address

LOOPBACK = ("127.0.0.0/8", "::1/128")
OWNER = Owner(allowed_networks=LOOPBACK, allow_special=(Special.LOOPBACK,), connects_per_second=5000)


def request(host: str, port: int | None = None, **changes: object) -> ProbeRequest:
    """A discovery on loopback; ``changes`` replace fields."""
    fields: dict[str, object] = {
        "kind": Kind.DISCOVER,
        "target": Target(host=host, port=port),
        "allowed_networks": LOOPBACK,
        "allow_special": (Special.LOOPBACK,),
        "deadline_seconds": 30.0,
        "connects_per_second": 5000.0,
    }
    return ProbeRequest(**{**fields, **changes})  # type: ignore[arg-type]


class Recorder:
    """A resolver and a connector that write down what they are asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.resolved: list[str] = []
        self.connected: list[tuple[str, int]] = []

    async def resolve(self, host: str) -> Sequence[str]:
        """The next of the answers; the last one again and again."""
        self.resolved.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def connect(self, address: Address, port: int) -> Streams:
        self.connected.append((str(address), port))
        return await connect(address, port)


async def run(request: ProbeRequest, owner: Owner = OWNER, recorder: Recorder | None = None) -> ProbeResult:
    """What a prober answers, without nmap."""
    outside = Outside(
        clock=SystemClock(),
        resolver=recorder.resolve if recorder is not None else None,
        connector=recorder.connect if recorder is not None else None,
        nmap="",
    )
    async with asyncio.timeout(60):
        return await probe(request, owner, outside)
