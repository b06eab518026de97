"""Break real daemons in one way, print the verdict as JSON; exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from dataclasses import replace

from tests.faults.flood import flood_of
from tests.faults.plans import PLANS
from tests.faults.run import run


def main() -> int:
    """See the package."""
    kinds = "\n".join(f"  {name:<13}{plan.what}" for name, plan in PLANS.items())
    kinds += "\n  flood        13,000 executions at once"
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description=f"{__doc__}\n\n{kinds}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*PLANS, "flood"])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    for name, kind, words in (
        ("daemons", int, "how many"),
        ("workflows", int, "how many are handed in"),
        ("count", int, "how many faults, or executions of a flood"),
        ("seconds", float, "how long it is bad"),
        ("hold", float, "seconds of each cut"),
        ("spread", float, "hand the workflows in over so many seconds"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    parser.add_argument("--keep", action="store_true", help="leave the data directories for a look")
    options = parser.parse_args()
    if options.what == "flood":
        report = flood_of(options.count or 13_000)
        print(json.dumps(report, indent=2))
        return 0 if report["ok"] else 1
    wanted = {
        name: value
        for name in ("daemons", "workflows", "count", "seconds", "hold", "spread")
        if (value := getattr(options, name)) is not None
    }
    verdict, facts = asyncio.run(run(replace(PLANS[options.what], **wanted), options.seed, keep=options.keep))
    print(json.dumps({"nemesis": options.what, **facts, **verdict.as_json()}, indent=2))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
