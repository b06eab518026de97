"""How an Active miner is, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peerd.devices.health import Vitals, assess
from peerd.devices.status_lines import Reading

WELL = Vitals(now=1000, watched_since=0, last_line_at=999, last_hashing_at=998, reading=Reading(hash_rate_khs=5))


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        (WELL, "ok"),
        (Vitals(now=10, watched_since=0, last_line_at=9), "no_data_yet"),
        (Vitals(now=61, watched_since=0), "silent"),
        (replace(WELL, last_line_at=900), "silent"),
        (replace(WELL, last_hashing_at=900), "not_hashing"),
        (replace(WELL, last_hashing_at=900, reading=Reading(wifi=False)), "no_wifi"),
        (replace(WELL, last_hashing_at=900, reading=Reading(wifi=True, connected=False)), "no_pool"),
        (replace(WELL, last_hashing_at=900, reading=Reading(connected=True, subscribed=False)), "not_subscribed"),
        (replace(WELL, reboots=(500, 700, 990)), "rebooting"),
        (replace(WELL, reboots=(1, 2, 990)), "ok"),
        (replace(WELL, pool_error="Unauthorized worker"), "refused"),
        (replace(WELL, portal=True), "portal"),
        (replace(WELL, pool="a:1", expected_pool="b:1"), "wrong_pool"),
        (replace(WELL, pool="", expected_pool="b:1"), "ok"),
        (replace(WELL, wallet="x", expected_wallet="y"), "wrong_pool"),
        (replace(WELL, reading=Reading(temperature_celsius=90)), "hot"),
    ],
)
def test_the_gravest_thing_is_named(vitals: Vitals, reason: str) -> None:
    health = assess(vitals)
    assert health.reason == reason
    assert bool(health.next_action) == (reason not in ("ok", "no_data_yet"))
