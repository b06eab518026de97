"""What is written when a device is plugged in and says who it is."""

from __future__ import annotations

import pytest

from peerd.devices import onboarding, repository
from peerd.devices.dump import Configuration
from peerd.devices.model import Device, Miner, Port, Status
from peerd.devices.plugging import learn, plug
from peerd.store import Store, Tx
from peerd.v1 import devices_pb2

SAID = Configuration(pool="p", port=1, wallet="w")
MAC, OTHER_MAC = "aa:bb:cc:00:00:01", "aa:bb:cc:00:00:02"


def port(token: str) -> Port:
    return Port(path=f"/dev/tty{token}", usb_path="1-1", vendor_id="10c4", serial="ONE-FOR-ALL", token=token)


def plugged(tx: Tx, token: str, mac: str) -> Device | Miner | None:
    """In, listened to, and it says its MAC."""
    what = plug(tx, port(token), (), trust_ports=False)
    repository.lease(tx, port(token).path, "discovery")
    repository.set_status(tx, what, Status.INITIALIZING, "Booting", {})
    return learn(tx, port(token), (), SAID, mac, trust_ports=False)


@pytest.mark.parametrize(("mac", "is_it"), [(MAC, True), (OTHER_MAC, False)])
async def test_another_mac_is_another_device_though_the_serial_number_is_the_same(
    store: Store, mac: str, *, is_it: bool
) -> None:
    def named(tx: Tx) -> None:
        plugged(tx, "A", MAC)
        onboarding.onboard(
            tx, devices_pb2.OnboardDeviceRequest(device=port("A").path, name="M1", currency="BTC"), taken=""
        )
        repository.unplug(tx, port("A").path)

    await store.write(named)
    what = await store.write(lambda tx: plugged(tx, "B", mac))

    miner = await store.write(lambda tx: repository.find_miner(tx, "M1"))
    assert miner is not None
    assert isinstance(what, Miner) == is_it == miner.plugged
    assert miner.mac == MAC, "its own MAC is not overwritten"
    assert what is not None
    assert what.status is Status.INITIALIZING, "discovery goes on with it"
    assert what.mac == mac
    leases = await store.all("SELECT dev_path, owner FROM device_leases")
    assert [tuple(row) for row in leases] == [("/dev/ttyB", "discovery")]
    if not is_it:
        assert miner.status is Status.INACTIVE
        assert await store.write(lambda tx: repository.occupant(tx, port("B").path)) == what
