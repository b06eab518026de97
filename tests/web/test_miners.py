"""The dashboard's JSON: sums over miners, and one word for each device."""

from __future__ import annotations

import pytest

from peerd.v1 import devices_pb2
from peerd.v1.devices_pb2 import DEVICE_STATUS_ACTIVE, DEVICE_STATUS_INACTIVE, DEVICE_STATUS_INITIALIZING, Device
from peerd.web.miners import STALE_SECONDS, device_state, display_status, herd_data

NOW = 10_000_000
HASHING = devices_pb2.MinerReading(hash_rate_khs=50.5, shares=3, block_templates=2, best_difficulty=1.5)


def test_sums_are_of_active_miners_only() -> None:
    found = herd_data(
        [
            Device(name="A", status=DEVICE_STATUS_ACTIVE, reading=HASHING),
            Device(name="B", status=DEVICE_STATUS_ACTIVE, reading=HASHING),
            Device(name="C", status=DEVICE_STATUS_INACTIVE),
            Device(device_id=4),
        ]
    )
    assert found["herd_stats"] == {
        "total_miners": 3,
        "online_miners": 2,
        "total_hash_khs": 101,
        "total_shares": 6,
        "total_block_templates": 4,
        "best_difficulty": 1.5,
    }
    assert [miner["miner_id"] for miner in found["miners_list"]] == ["A", "B", "C"]
    assert found["btc_price_data"] == {"price_usd": None, "change_24h": None}


@pytest.mark.parametrize(
    ("device", "word"),
    [
        (Device(device_id=1), "Unconfigured"),
        (Device(device_id=1, pool_url="p:1"), "Unconfigured (Captured)"),
        (Device(name="A", status=DEVICE_STATUS_ACTIVE), "Online"),
        (Device(name="A", status=DEVICE_STATUS_ACTIVE, health_reason="silent"), "Stale"),
        (Device(name="A", status=DEVICE_STATUS_INITIALIZING), "Initializing"),
        (Device(name="A", status=DEVICE_STATUS_INACTIVE, dev_path="/dev/ttyUSB0"), "Inactive"),
        (Device(name="A", status=DEVICE_STATUS_INACTIVE), "Offline"),
    ],
)
def test_each_device_has_one_word(device: Device, word: str) -> None:
    device.last_seen_at.FromMilliseconds(NOW - (STALE_SECONDS + 1) * 1000)
    assert display_status(device, NOW) == word
    assert device_state([device], NOW)["devices"][0]["display_status"] == word
