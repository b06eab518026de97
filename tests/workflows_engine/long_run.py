"""Runs the state machines of test_model.py with many examples and prints JSON; what diverges is shown, shrunk."""

from __future__ import annotations

import argparse
import json
import sys
import traceback

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .test_model import COUNTS, HOW, Faults, Gentle

PER_BATCH = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    divergences = batch = 0
    began_with: list[int] = []
    left = asked.examples
    while left > 0:
        examples, machine = min(left, PER_BATCH), Gentle if batch % 3 == 2 else Faults
        used = asked.seed * 1_000_000 + batch
        try:
            how = settings(HOW, max_examples=examples, database=None, print_blob=False)
            run_state_machine_as_test(seed(used)(type(machine.__name__, (machine,), {})), settings=how)
        except Exception:  # counted, shown, and the next batch is run
            traceback.print_exc()
            divergences += 1
            began_with.append(used)
        left -= examples
        batch += 1
        print(f"{asked.examples - left} of {asked.examples}, {divergences} divergences", file=sys.stderr)
    print(json.dumps({**COUNTS, "divergences": divergences, "seed": asked.seed, "diverging_batches": began_with}))
    return 1 if divergences else 0


if __name__ == "__main__":
    sys.exit(main())
