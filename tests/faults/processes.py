"""Nemeses of processes: killed, stopped, told to end, killed at named places."""

from __future__ import annotations

import asyncio
import signal

from peerd.failpoints import FAILPOINTS
from tests.e2e.fleet import Daemon
from tests.faults.scene import Scene, say

_DOWN_SECONDS = 1.5
_PAUSE_SECONDS = (0.5, 8.0)


async def kills(scene: Scene, count: int, *, every: float = 0.6, failpoints: float = 0.25) -> None:
    """SIGKILL at random moments, so many times; some come back with a failpoint armed at which they die again."""
    rng = scene.rng
    async with asyncio.TaskGroup() as tasks:
        while scene.counts["kill"] < count:
            await asyncio.sleep(rng.uniform(0, 2 * every))
            await scene.bring_back_the_dead()
            if len(scene.standing) <= len(scene.fleet.daemons) // 2:
                continue
            victim = rng.choice(scene.standing)
            armed = f"{rng.choice(sorted(FAILPOINTS))}@{rng.randint(1, 3)}" if rng.random() < failpoints else ""
            tasks.create_task(_kill(scene, victim.name, rng.uniform(0, _DOWN_SECONDS), armed))
            if scene.counts["kill"] % 20 == 0:
                say(f"{scene.counts['kill']} kills, {sum(scene.hit.values())} deaths at failpoints")
            scene.counts["kill"] += 1


async def _kill(scene: Scene, name: str, down: float, armed: str) -> None:
    daemon = scene.fleet[name]
    with scene.breaking(daemon):
        daemon.kill()
        await asyncio.sleep(down)
        await scene.start(daemon, armed)


async def pauses(scene: Scene, count: int) -> None:
    """SIGSTOP for a while, as a machine that swaps, or a laptop that sleeps."""
    rng = scene.rng
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            await asyncio.sleep(rng.uniform(0, 2))
            if scene.standing:
                tasks.create_task(_pause(scene, rng.choice(scene.standing).name, rng.uniform(*_PAUSE_SECONDS)))


async def _pause(scene: Scene, name: str, seconds: float) -> None:
    daemon = scene.fleet[name]
    with scene.breaking(daemon):
        daemon.signal(signal.SIGSTOP)
        scene.counts["pause"] += 1
        await asyncio.sleep(seconds)
        daemon.signal(signal.SIGCONT)


def stop(daemon: Daemon) -> int:
    """SIGTERM, and the exit code: it lets jobs end, and on a busy machine that takes a while."""
    daemon.signal(signal.SIGTERM)
    return daemon.wait(90)


async def restarts(scene: Scene, count: int) -> None:
    """SIGTERM, and a start some time later, in any order; now and then everybody at once."""
    rng = scene.rng
    for _ in range(count):
        await asyncio.sleep(rng.uniform(0, 1.5))
        names = [daemon.name for daemon in scene.standing]
        chosen = names if rng.random() < 0.2 else rng.sample(names, k=min(len(names), rng.randint(1, 2)))
        rng.shuffle(chosen)
        await asyncio.gather(*(_restart(scene, name, rng.uniform(0, _DOWN_SECONDS)) for name in chosen))


async def _restart(scene: Scene, name: str, down: float) -> None:
    daemon = scene.fleet[name]
    with scene.breaking(daemon):
        scene.counts["restart"] += 1
        code = await asyncio.to_thread(stop, daemon)
        if code != 0:
            raise AssertionError(f"{name} ended with {code} when it was told to stop:\n{daemon.tail()}")
        await asyncio.sleep(down)
        await scene.start(daemon)


async def restart_all(scene: Scene) -> None:
    """Everybody at once, so that new settings count."""
    await asyncio.gather(*(asyncio.to_thread(stop, daemon) for daemon in scene.fleet.daemons.values()))
    await asyncio.gather(*(scene.start(daemon) for daemon in scene.fleet.daemons.values()))
    await asyncio.to_thread(scene.fleet.wait_until_all_see_all, 60)
