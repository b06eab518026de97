"""What is run: each nemesis with the size that its figures in docs/durability.md are for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults import network, processes, proxy, soak, stepping
from tests.faults.scene import Scene
from tests.faults.workload import Shape


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, but for its seed."""

    what: str
    nemesis: Callable[[Scene, Plan], Awaitable[None]]
    daemons: int = 5
    workflows: int = 50
    shape: Shape = field(default_factory=Shape)
    count: int = 0
    """Faults."""
    seconds: float = 0.0
    """How long it is bad."""
    hold: float = 8.0
    """Seconds of each cut."""
    spread: float = 120.0
    """The workflows are handed in over so many seconds."""
    final_within: float = 60.0
    """Seconds from the last healing in which all must be final."""
    most_pushed: float = 0.0
    """Bytes that may be pushed for each byte that was to be transferred; 0 when any number may."""
    on_a_wire: bool = False
    """Each daemon is a host in a network namespace of its own; needs root."""
    own_clocks: bool = False
    """Each daemon has a wall clock that can be set; needs libfaketime."""
    through_proxies: bool = False
    settings: str = ""
    """Of each daemon, as TOML."""


PLANS = {
    "kills": Plan(
        what="SIGKILL at random moments and at failpoints",
        nemesis=lambda scene, plan: processes.kills(scene, plan.count),
        count=200,
    ),
    "pauses": Plan(
        what="SIGSTOP for 0.5 to 8 s",
        nemesis=lambda scene, plan: processes.pauses(scene, plan.count),
        count=60,
        spread=60,
    ),
    "restarts": Plan(
        what="SIGTERM and start, in any order",
        nemesis=lambda scene, plan: processes.restarts(scene, plan.count),
        count=40,
        spread=60,
    ),
    "clock": Plan(
        what="wall clocks set ahead and back by seconds to hours, with kills",
        nemesis=lambda scene, plan: stepping.steps(scene, plan.count),
        shape=Shape(seconds=3.0, flaky=0.4),
        workflows=30,
        count=80,
        spread=90,
        final_within=120,
        own_clocks=True,
    ),
    "bipartitions": Plan(
        what="every cut of the fleet in two",
        nemesis=lambda scene, plan: network.bipartitions(scene, plan.hold),
        shape=Shape(seconds=6.0),
        workflows=40,
        spread=180,
        on_a_wire=True,
    ),
    "one-way": Plan(
        what="one host deaf to another",
        nemesis=lambda scene, plan: network.one_way_cuts(scene, plan.hold, plan.count),
        shape=Shape(seconds=4.0),
        workflows=40,
        count=20,
        hold=6,
        on_a_wire=True,
    ),
    "flapping": Plan(
        what="a link that is there for 5 s and gone for 5 s",
        nemesis=lambda scene, plan: network.flapping(scene, plan.seconds),
        shape=Shape(seconds=4.0),
        workflows=40,
        seconds=120,
        spread=110,
        on_a_wire=True,
    ),
    "loss": Plan(
        what="20% of packets lost",
        nemesis=lambda scene, plan: network.loss(scene, plan.seconds, 20),
        shape=Shape(seconds=2.0, megabytes=(5, 10, 15)),
        workflows=30,
        seconds=300,
        spread=240,
        final_within=300,
        most_pushed=1.3,
        on_a_wire=True,
    ),
    "proxy": Plan(
        what="calls repeated, delayed, reordered, lost",
        nemesis=lambda scene, plan: proxy.mischief(scene.proxies, plan.seconds),
        seconds=120,
        spread=100,
        through_proxies=True,
    ),
    "soak": Plan(
        what="work for long, with a kill every 30 s",
        nemesis=lambda scene, plan: soak.soak(scene, plan.seconds),
        workflows=0,
        seconds=3600,
        spread=0,
        final_within=120,
        settings=soak.SHORT_MEMORY,
    ),
}
