"""Every form in which boards say how they mine."""

from __future__ import annotations

import pytest

from peerd.devices.status_lines import Reading, parse_status

FORMS = {
    ">>> Completed 3 share(s), 1234 Khashes, avg. hashrate 55.10 KH/s": Reading(
        shares=3, total_khashes=1234, hash_rate_khs=55.1
    ),
    ">>> Valid blocks: 0": Reading(valid_blocks=0),
    ">>> Block templates: 12": Reading(block_templates=12),
    ">>> Best difficulty: 1.25K": Reading(best_difficulty=1250),
    ">>> 32Bit shares: 4": Reading(shares=4),
    ">>> Temperature: 51": Reading(temperature_celsius=51),
    ">>> Total MHashes: 77": Reading(total_khashes=77_000),
    ">>> Time mining: 2  03:04:05": Reading(mining_seconds=2 * 86400 + 3 * 3600 + 4 * 60 + 5),
    ">>> Hashrate: 345.20 KH/s | Shares: 12 | Best diff: 0.0034": Reading(
        hash_rate_khs=345.2, shares=12, best_difficulty=0.0034
    ),
    ">>> [i] Miner: newJob>true / inRun>false) - Client: connected>true / subscribed>false / wificonnected>true": (
        Reading(hash_rate_khs=0, connected=True, subscribed=False, wifi=True)
    ),
}


@pytest.mark.parametrize("line", FORMS)
def test_each_form_is_read(line: str) -> None:
    assert parse_status(line) == FORMS[line]


@pytest.mark.parametrize(
    "line",
    [
        "",
        ">>> ",
        "Completed 3 share(s), 1234 Khashes, avg. hashrate 55.10 KH/s",
        ">>> Completed 3 share(s), 12[MONITOR] started",
        ">>> Completed 3 share(s), 1234 Khashes, avg. hashrate nan KH/s",
        ">>> Temperature: 4747",
        ">>> Temperature: -",
        ">>> Time mining: 1  03:99:05",
        ">>> 32Bit shares: 12E>>> Temperature: 51",
        ">>> Valid blocks: 999999999999999E",
        ">>> Block templates: 10E",
        ">>> Best difficulty: " + "9" * 400,
    ],
)
def test_what_is_none_or_torn_says_nothing(line: str) -> None:
    found = parse_status(line)
    assert found is None or found == Reading(best_difficulty=999_999_999_999_999)


def test_later_values_replace_earlier_ones() -> None:
    merged = Reading(shares=1, hash_rate_khs=5).merged(Reading(shares=2))
    assert (merged.shares, merged.hash_rate_khs) == (2, 5)
