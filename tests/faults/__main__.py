"""Run one nemesis and print the verdict as JSON; exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

from tests.e2e.fleet import Fleet
from tests.e2e.wire import Wire
from tests.faults import network, processes, proxy, soak
from tests.faults.judge import Verdict, judge, transferred
from tests.faults.proxy import Proxies
from tests.faults.scene import NAMES, Scene, say
from tests.faults.workload import Shape, Workload

Nemesis = Callable[[Scene, argparse.Namespace], Awaitable[None]]

NEMESES: dict[str, tuple[str, Nemesis]] = {
    "kills": ("SIGKILL at random moments and at failpoints", lambda s, o: processes.kills(s, o.count)),
    "pauses": ("SIGSTOP for 0.5 to 8 s", lambda s, o: processes.pauses(s, o.count)),
    "bipartitions": ("every cut of the fleet in two", lambda s, o: network.bipartitions(s, o.hold)),
    "one-way": ("one host deaf to another", lambda s, o: network.one_way_cuts(s, o.hold, o.count)),
    "flapping": ("a link that comes and goes every 5 s", lambda s, o: network.flapping(s, o.seconds)),
    "loss": ("20% of packets lost", lambda s, o: network.loss(s, o.seconds, 20)),
    "soak": ("work for long, with a kill every 30 s", lambda s, o: soak.soak(s, o.seconds)),
    "proxy": ("calls repeated, delayed, reordered, lost", lambda s, o: proxy.mischief(s.proxies, o.seconds)),
    "restarts": ("SIGTERM and start, in any order", lambda s, o: processes.restarts(s, o.count)),
}


ON_A_WIRE = frozenset({"bipartitions", "one-way", "flapping", "loss"})
"""Nemeses that need root: each daemon is a host in a network namespace of its own."""


async def run(options: argparse.Namespace) -> tuple[Verdict, dict[str, object]]:
    """One run: a fresh fleet, the faults, the verdict."""
    rng = random.Random(options.seed)
    fleet = Fleet(NAMES[: options.daemons])
    wire = Wire() if options.nemesis in ON_A_WIRE else None
    began = time.monotonic()
    try:
        if wire is not None:
            for number, daemon in enumerate(fleet.daemons.values(), 1):
                daemon.namespace = wire.host(number)
                daemon.host = wire.address(daemon.namespace)
        settings = dict.fromkeys(fleet.daemons, soak.SHORT_MEMORY) if options.nemesis == "soak" else None
        await asyncio.to_thread(fleet.found, configure=settings)
        workload = Workload(fleet, rng, Shape(seconds=options.job_seconds, megabytes=tuple(options.megabytes)))
        scene = Scene(fleet=fleet, workload=workload, rng=rng, network=wire)
        _, nemesis = NEMESES[options.nemesis]
        say(f"{options.nemesis}: seed {options.seed}, {options.daemons} daemons, {options.workflows} workflows")
        if options.nemesis == "proxy":
            scene.proxies = Proxies(fleet=fleet, rng=rng)
            await scene.proxies.start()
            await processes.restart_all(scene)
        asked = workload.invent(options.workflows if options.nemesis != "soak" else 0)
        sent_before = wire.bytes_sent() if wire else 0
        await scene.hand_in_while(lambda: nemesis(scene, options), asked, options.spread or options.count * 0.6)
        say(f"healed after {time.monotonic() - began:.0f} s; waiting for everything to be final")
        verdict = await judge(fleet, workload, final_within=options.final_within)
        verdict.broken_promises += scene.findings
        if scene.proxies is not None:
            await scene.proxies.close()
            scene.counts.update(scene.proxies.counts)
        facts: dict[str, object] = {**scene.facts, "faults": dict(scene.counts), "failpoints_hit": dict(scene.hit)}
        if wire is not None:
            facts |= {"converged_seconds": scene.converged, "bytes_on_the_wire": wire.bytes_sent() - sent_before}
        facts["bytes_asked"] = transferred(fleet)
        if not verdict.ok and options.keep:
            say(f"kept: {fleet.folder}")
    finally:
        if options.keep:
            fleet.kill()
        else:
            fleet.close()
        if wire is not None:
            wire.close()
    return verdict, {**facts, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """See the package."""
    kinds = "\n".join(f"  {name:<12}{what}" for name, (what, _) in NEMESES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description=f"{__doc__}\n\n{kinds}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nemesis", choices=NEMESES)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--daemons", type=int, default=5)
    parser.add_argument("--workflows", type=int, default=50)
    parser.add_argument("--count", type=int, default=200, help="how many faults")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the network is bad")
    parser.add_argument("--hold", type=float, default=8.0, help="seconds of each cut")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[0, 0, 0, 1, 2, 6], help="sizes of what jobs make")
    parser.add_argument("--job-seconds", type=float, default=1.0, help="longest run of a job")
    parser.add_argument("--spread", type=float, default=0.0, help="hand the workflows in over so many seconds")
    parser.add_argument("--final-within", type=float, default=60.0, help="seconds from the last healing")
    parser.add_argument("--keep", action="store_true", help="leave the data directories for a look")
    options = parser.parse_args()
    verdict, facts = asyncio.run(run(options))
    print(json.dumps({"nemesis": options.nemesis, "seed": options.seed, **facts, **verdict.as_json()}, indent=2))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
