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
from tests.faults import processes
from tests.faults.judge import Verdict, judge
from tests.faults.scene import NAMES, Scene, say
from tests.faults.workload import Shape, Workload

Nemesis = Callable[[Scene, argparse.Namespace], Awaitable[None]]

NEMESES: dict[str, tuple[str, Nemesis]] = {
    "kills": ("SIGKILL at random moments and at failpoints", lambda s, o: processes.kills(s, o.count)),
    "pauses": ("SIGSTOP for 0.5 to 8 s", lambda s, o: processes.pauses(s, o.count)),
    "restarts": ("SIGTERM and start, in any order", lambda s, o: processes.restarts(s, o.count)),
}


async def run(options: argparse.Namespace) -> tuple[Verdict, dict[str, object]]:
    """One run: a fresh fleet, the faults, the verdict."""
    rng = random.Random(options.seed)
    fleet = Fleet(NAMES[: options.daemons])
    began = time.monotonic()
    try:
        await asyncio.to_thread(fleet.found)
        workload = Workload(fleet, rng, Shape(seconds=options.job_seconds))
        scene = Scene(fleet=fleet, workload=workload, rng=rng)
        _, nemesis = NEMESES[options.nemesis]
        say(f"{options.nemesis}: seed {options.seed}, {options.daemons} daemons, {options.workflows} workflows")
        asked = workload.invent(options.workflows)
        await scene.hand_in_while(lambda: nemesis(scene, options), asked, options.spread or options.count * 0.6)
        say(f"healed after {time.monotonic() - began:.0f} s; waiting for everything to be final")
        verdict = await judge(fleet, workload, final_within=options.final_within)
        if not verdict.ok and options.keep:
            say(f"kept: {fleet.folder}")
    finally:
        if options.keep:
            fleet.kill()
        else:
            fleet.close()
    facts = {"faults": dict(scene.counts), "failpoints_hit": dict(scene.hit)}
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
