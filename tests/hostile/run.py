"""``scripts/hostile``: seeded hostile traffic at both sockets of one real daemon, and what became of it, as JSON."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.hostile.attacks import HangError, bombs, doors, mixture, rapid_resets, warm_up
from tests.hostile.caller import GoodCaller
from tests.hostile.target import Target, target
from tests.hostile.wire import Connection

_SETTLE_SECONDS = 60.0


def hold_idle(victim: Target, count: int) -> list[Connection]:
    """Connections of a stranger that never says a word."""
    held = []
    for _ in range(count):
        try:
            held.append(victim.as_stranger())
        except OSError:
            continue
    return held


def settled(victim: Target, rss: int, fds: int) -> None:
    """Wait until memory and descriptors are back, or it takes too long; the figures tell."""
    until = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < until and victim.alive and (victim.rss() > 1.2 * rss or victim.fds() > fds + 5):
        time.sleep(0.2)


def run(*, messages: int, seed: int) -> dict[str, object]:
    """One daemon, one attack."""
    rng = random.Random(seed)
    sent: Counter[str] = Counter()
    hangs: list[str] = []
    with target() as victim:
        caller = GoodCaller(victim)
        warm_up(victim, max(200, messages // 10))
        rss, fds, pid = victim.rss(), victim.fds(), victim.pid
        victim.forget_peak()
        begun = time.monotonic()
        with caller:
            for attack, number in _guarded(victim, rng, messages, hangs):
                sent[attack] += number
            for door in doors(victim) if victim.alive else ():
                sent["rapid_resets"] += rapid_resets(victim, door, rng, count=messages // 4)
                sent["bombs"] += bombs(victim, door, rng, count=max(1, messages // 200))
            idle = hold_idle(victim, max(100, messages // 10)) if victim.alive else []
            sent["idle"] += len(idle)
            for connection in idle:
                if not connection.closed_within(20):
                    hangs.append("an idle connection is held for ever")
                connection.close()
        seconds, peak = time.monotonic() - begun, victim.peak() if victim.alive else 0
        settled(victim, rss, fds)
        after, fds_after = (victim.rss(), victim.fds()) if victim.alive else (0, 0)
        crashed = Counter(victim.crashed())
        died = not victim.alive
        if died:
            print(victim.daemon.tail(), file=sys.stderr)
        lost = victim.log().count("rpc.listener_failed")
        assert not victim.alive or victim.pid == pid
    return {
        "messages": sum(sent.values()) - sent["rapid_resets"] - sent["idle"],
        "sent": dict(sorted(sent.items())),
        "crashes": int(died),
        "handlers_that_broke_down": dict(crashed),
        "hangs": len(hangs),
        "what_hung": hangs[:10],
        "good_caller": {
            "calls": caller.calls,
            "failed": caller.failed,
            "p99_ms": caller.p99_ms,
            "longest_ms": caller.longest_ms,
        },
        "rss_before": rss,
        "rss_peak": peak,
        "rss_after": after,
        "rss_ratio": round(after / rss, 3),
        "fds_before": fds,
        "fds_after": fds_after,
        "listeners_that_broke_down": lost,
        "seconds": round(seconds, 1),
        "seed": seed,
    }


def _guarded(victim: Target, rng: random.Random, messages: int, hangs: list[str]) -> Iterator[tuple[str, int]]:
    left = messages
    while left > 0 and victim.alive and len(hangs) < 10:
        try:
            for attack, number in mixture(victim, rng, left):
                left -= number
                yield attack, number
        except HangError as error:
            hangs.append(str(error))


def main() -> None:
    """Print the figures; the exit status says whether they are good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    figures = run(messages=options.messages, seed=seed)
    print(json.dumps(figures, indent=2))
    bad = (
        figures["crashes"]
        or figures["handlers_that_broke_down"]
        or figures["hangs"]
        or float(str(figures["rss_ratio"])) > 1.2
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
