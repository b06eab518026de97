"""Nemesis of clocks: wall clocks are set ahead and back while daemons run, and around kills."""

from __future__ import annotations

import asyncio

from tests.faults.scene import Scene, say

_LONGEST_SECONDS = 12 * 3600.0
_DOWN_SECONDS = 1.5


async def steps(scene: Scene, count: int, *, every: float = 1.2) -> None:
    """Set clocks so many times, by seconds to hours; every third time around a kill. Then all are right again."""
    rng = scene.rng
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await asyncio.sleep(rng.uniform(0, 2 * every))
            if not scene.standing:
                continue
            daemon = rng.choice(scene.standing)
            clock = scene.clocks[daemon.name]
            ahead = 0.0 if rng.random() < 0.15 else rng.choice((-1, 1)) * _LONGEST_SECONDS ** rng.random()
            if number % 10 == 0:
                say(f"step {number + 1} of {count}: {daemon.name} is {ahead:+.0f} s ahead")
            scene.counts["forwards" if ahead > clock.ahead else "backwards"] += 1
            if rng.random() < 1 / 3:
                tasks.create_task(_step_around_a_kill(scene, daemon.name, ahead, rng.uniform(0, _DOWN_SECONDS)))
            else:
                clock.set(ahead)
    for clock in scene.clocks.values():
        clock.set(0)


async def _step_around_a_kill(scene: Scene, name: str, ahead: float, down: float) -> None:
    daemon = scene.fleet[name]
    with scene.breaking(daemon):
        scene.counts["kill"] += 1
        daemon.kill()
        scene.clocks[name].set(ahead)
        await asyncio.sleep(down)
        await scene.start(daemon)
