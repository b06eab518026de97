"""One run: a fresh fleet, the faults, the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.fleet import Fleet
from tests.e2e.wire import Wire
from tests.faults.clocks import wall_clocks
from tests.faults.judge import Verdict, judge
from tests.faults.plans import Plan
from tests.faults.processes import restart_all
from tests.faults.proxy import Proxies
from tests.faults.scene import NAMES, Scene, say
from tests.faults.volume import Volume, pushed, transferred
from tests.faults.workload import Workload


async def run(
    plan: Plan, seed: int, *, keep: bool = False, forked: bool = False, patience: Callable[[], float] = lambda: 1.0
) -> tuple[Verdict, dict[str, Any]]:
    """Returns the verdict and what was measured; with ``keep`` the data directories stay for a look.

    ``forked`` starts the daemons as :mod:`tests.e2e.forks` does, which is cheaper. ``patience`` is how many times as
    long as promised things may take, on a machine that does something else as well.
    """
    say(f"seed {seed}: {plan.what}; {plan.daemons} daemons")
    rng = random.Random(seed)
    fleet = Fleet(NAMES[: plan.daemons], forked=forked)
    wire = Wire() if plan.on_a_wire else None
    began = time.monotonic()
    try:
        scene = await _set(plan, fleet, wire, rng)
        scene.patience = patience
        sent_before = wire.bytes_sent() if wire else 0
        await scene.hand_in_while(lambda: plan.nemesis(scene, plan), scene.workload.invent(plan.workflows), plan.spread)
        say(f"healed after {time.monotonic() - began:.0f} s; waiting for everything to be final")
        pushed_bytes = 0

        async def count() -> None:
            nonlocal pushed_bytes
            pushed_bytes = sum([await asyncio.to_thread(pushed, daemon) for daemon in fleet.daemons.values()])

        counting = count if plan.most_pushed else None
        verdict = await judge(
            fleet, scene.workload, final_within=plan.final_within, patience=patience, when_final=counting
        )
        volume = Volume(asked=transferred(fleet), pushed=pushed_bytes)
        if plan.most_pushed and volume.ratio >= plan.most_pushed:
            scene.findings.append(
                f"{volume.ratio:.2f} bytes were pushed for each byte asked, not below {plan.most_pushed}"
            )
        verdict.broken_promises += scene.findings
        if scene.proxies is not None:
            await scene.proxies.close()
            scene.counts.update(scene.proxies.counts)
        facts: dict[str, Any] = {
            "seed": seed,
            "daemons": plan.daemons,
            "seconds": round(time.monotonic() - began, 1),
            "faults": dict(scene.counts),
            "failpoints_hit": dict(scene.hit),
            **scene.facts,
            "bytes_transferred": volume.asked,
        }
        if plan.most_pushed:
            facts |= {"bytes_pushed": volume.pushed, "bytes_pushed_for_each_asked": round(volume.ratio, 3)}
        if wire is not None:
            facts |= {"converged_seconds": scene.converged, "bytes_on_the_wire": wire.bytes_sent() - sent_before}
    finally:
        if keep:
            fleet.kill()
            say(f"kept: {fleet.folder}")
        else:
            fleet.close()
        if wire is not None:
            wire.close()
    return verdict, facts


async def _set(plan: Plan, fleet: Fleet, wire: Wire | None, rng: random.Random) -> Scene:
    if wire is not None:
        for number, daemon in enumerate(fleet.daemons.values(), 1):
            daemon.namespace = wire.host(number)
            daemon.host = wire.address(daemon.namespace)
    clocks = wall_clocks(fleet) if plan.own_clocks else {}
    await asyncio.to_thread(fleet.found, configure=dict.fromkeys(fleet.daemons, plan.settings))
    scene = Scene(fleet=fleet, workload=Workload(fleet, rng, plan.shape), rng=rng, network=wire, clocks=clocks)
    if plan.through_proxies:
        scene.proxies = Proxies(fleet=fleet, rng=rng)
        await scene.proxies.start()
        await restart_all(scene)
    return scene
