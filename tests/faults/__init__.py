"""Daemons under faults: a seeded workload, somebody who breaks things, a judge who knows what was acknowledged.

    python -m tests.faults kills --seed 1 --count 200

Every random choice comes from the seed, which is printed first; the clock of the machine is not ours, so a seed gives
the same faults in the same order, not the same microseconds.
"""
