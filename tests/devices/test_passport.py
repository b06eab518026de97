"""Who a device is: by a serial number, by what else there is, or by nobody's word but the operator's."""

from __future__ import annotations

import pytest

from peerd.devices.passport import Passport, Verdict, make_passport, recognise, without_place

WALLET = "bc1qowner"


def clone(port: str, *, wallet: str = "", serial: str = "0001", token: str = "", mac: str = "") -> Passport:
    return make_passport(
        vendor_id="10C4", product_id="EA60", serial=serial, usb_path=port, wallet=wallet, token=token, mac=mac
    )


def test_a_serial_number_of_its_own_is_recognised_in_any_port() -> None:
    known = [("M1", clone("1-1", serial="A77")), ("M2", clone("1-2", serial="B88"))]
    assert recognise(clone("1-4", serial="B88"), known).match == "M2"


@pytest.mark.parametrize("serial", ["", "0001", "00000000", "N/A"])
def test_a_serial_number_of_a_batch_says_nothing(serial: str) -> None:
    known = [("M1", clone("1-1", serial=serial, wallet=f"{WALLET}.a"))]
    assert recognise(clone("1-4", serial=serial), known) == Verdict()


def test_a_serial_number_that_two_devices_have_says_nothing() -> None:
    known = [("M1", clone("1-1", serial="A77"))]
    twin = clone("1-9", serial="A77")
    assert recognise(clone("1-4", serial="A77"), known, present=[twin]).match == ""
    assert recognise(clone("1-4", serial="A77"), known).match == "M1"


def test_clones_are_told_apart_by_the_worker_in_their_wallet_when_swapped() -> None:
    known = [("M1", clone("1-1", wallet=f"{WALLET}.a")), ("M2", clone("1-2", wallet=f"{WALLET}.b"))]
    assert recognise(clone("1-2", wallet=f"{WALLET}.a"), known).match == "M1"
    assert recognise(clone("1-1", wallet=f"{WALLET}.b"), known).match == "M2"


def test_twins_that_could_have_been_swapped_wait_for_the_operator() -> None:
    known = [("M1", clone("1-1", wallet=WALLET)), ("M2", clone("1-2", wallet=WALLET))]
    verdict = recognise(clone("1-1", wallet=WALLET), known)
    assert verdict.match == ""
    assert set(verdict.candidates) == {"M1", "M2"}
    assert recognise(clone("1-1", wallet=WALLET), known, trust_ports=True).match == "M1"


def test_one_clone_in_its_port_is_recognised_and_in_another_is_asked_for() -> None:
    known = [("M1", clone("1-1", wallet=WALLET))]
    assert recognise(clone("1-1", wallet=WALLET), known).match == "M1"
    assert recognise(clone("1-3", wallet=WALLET), known) == Verdict(candidates=("M1",), score=25)


def test_twins_that_were_never_unplugged_stay_who_they_are() -> None:
    known = [("M1", clone("1-1", wallet=WALLET, token="b-4")), ("M2", clone("1-2", wallet=WALLET, token="b-5"))]
    assert recognise(clone("1-1", token="b-4"), known).match == "M1"
    assert recognise(clone("1-1", token="b-9", wallet=WALLET), known).match == ""


def test_a_mac_decides_over_port_and_wallet() -> None:
    known = [
        ("M1", clone("1-1", wallet=WALLET, mac="aa:bb:cc:00:00:01")),
        ("M2", clone("1-2", wallet=WALLET, mac="aa:bb:cc:00:00:02")),
    ]
    assert recognise(clone("1-1", wallet=WALLET, mac="AA-BB-CC-00-00-02"), known).match == "M2"


def test_a_serial_number_that_is_a_mac_counts_as_one() -> None:
    assert make_passport(serial="34:85:18:AC:00:01").mac == "348518ac0001"


def test_another_kind_of_chip_is_never_it() -> None:
    known = [("M1", make_passport(vendor_id="303a", serial="A77"))]
    assert recognise(make_passport(vendor_id="10c4", serial="A77"), known) == Verdict()


def test_the_wallet_itself_is_not_kept_and_places_can_be_taken_off() -> None:
    passport = clone("1-1", wallet=f"{WALLET}.a", token="t")
    assert WALLET not in repr(passport)
    assert (without_place(passport).usb_path, without_place(passport).token) == ("", "")
