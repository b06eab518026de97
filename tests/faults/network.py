"""Nemeses of the network: cut in two, deaf on one side, flapping, lossy."""

from __future__ import annotations

import asyncio
from itertools import combinations

from peerd.client import Client
from peerd.errors import PeerdError
from peerd.v1 import registry_pb2
from tests.e2e.fleet import Daemon
from tests.faults.scene import Scene, say

CONVERGED_SECONDS = 10.0
_ASK_SECONDS = 3.0


async def bipartitions(scene: Scene, hold: float) -> None:
    """Every way to cut the fleet in two, for so many seconds each; in between all must see all again."""
    hosts = scene.wire.hosts
    first, *others = hosts
    sides = [{first, *more} for size in range(len(others)) for more in combinations(others, size)]
    scene.rng.shuffle(sides)
    for number, side in enumerate(sides, 1):
        say(f"cut {number} of {len(sides)}: {_names(scene, side)} from the others")
        scene.wire.split(side)
        scene.counts["bipartition"] += 1
        await asyncio.sleep(hold)
        await _heal_and_converge(scene, f"cut of {_names(scene, side)}")


async def one_way_cuts(scene: Scene, hold: float, count: int) -> None:
    """Some host does not hear some other, which hears it."""
    pairs = [(deaf, to) for deaf in scene.wire.hosts for to in scene.wire.hosts if deaf != to]
    scene.rng.shuffle(pairs)
    for number, (deaf, to) in enumerate(pairs[:count], 1):
        what = f"{_names(scene, {deaf})} is deaf to {_names(scene, {to})}"
        say(f"one-way cut {number} of {min(count, len(pairs))}: {what}")
        scene.wire.deafen(deaf, [to])
        scene.counts["one-way cut"] += 1
        await asyncio.sleep(hold)
        await _heal_and_converge(scene, what)


async def flapping(scene: Scene, seconds: float) -> None:
    """A link that is there for 5 s and gone for 5 s, between two halves that change each time."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        side = set(scene.rng.sample(scene.wire.hosts, k=scene.rng.randint(1, len(scene.wire.hosts) // 2)))
        scene.wire.split(side)
        scene.counts["flap"] += 1
        await asyncio.sleep(5)
        scene.wire.heal()
        await asyncio.sleep(5)
    await _heal_and_converge(scene, "the flapping link")


async def loss(scene: Scene, seconds: float, percent: int) -> None:
    """So many of a hundred packets are lost everywhere, for so many seconds."""
    scene.wire.lose(percent)
    scene.counts["loss"] += 1
    say(f"{percent}% of packets are lost for {seconds:g} s")
    await asyncio.sleep(seconds)
    await _heal_and_converge(scene, f"{percent}% loss")


async def _heal_and_converge(scene: Scene, after: str) -> None:
    scene.wire.heal()
    loop = asyncio.get_running_loop()
    healed = loop.time()
    while True:
        blind = [
            name
            for name, daemon in scene.fleet.daemons.items()
            if not await _sees_all(daemon, len(scene.fleet.daemons))
        ]
        passed = loop.time() - healed
        if not blind:
            break
        if passed > 6 * CONVERGED_SECONDS:
            break
        await asyncio.sleep(0.2)
    scene.converged.append(round(passed, 1))
    if passed > CONVERGED_SECONDS * scene.patience():
        scene.findings.append(f"after {after}: all saw all only after {passed:.1f} s; blind: {blind}")


async def _sees_all(daemon: Daemon, count: int) -> bool:
    try:
        async with Client(socket=daemon.socket, timeout=_ASK_SECONDS) as client:
            seen = await client.peers()
    except PeerdError:
        return False
    return sum(peer.status == registry_pb2.PEER_STATUS_ONLINE for peer in seen) == count


def _names(scene: Scene, hosts: set[str]) -> str:
    return "".join(name for name, daemon in scene.fleet.daemons.items() if daemon.namespace in hosts)
