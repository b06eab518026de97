"""The handshake over transcripts: what it finds, whatever the pieces, and that no password comes through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.devices.events import Outcome, Rebooted, Recognised
from peerd.devices.handshake import (
    ANSWER_SECONDS,
    FIRST_BYTE_SECONDS,
    MINING_SECONDS,
    UNKNOWN_BYTES,
    Handshake,
)
from peerd.devices.model import Stage

from .console import ALL, end, heard, played, said, stages, whole

EVERY_STAGE = [stage for stage in Stage if stage is not Stage.BOOTING]


@pytest.mark.parametrize("name", ["new-device", "clone", "reconnect"])
def test_a_miner_goes_through_every_stage_once_and_mines(name: str) -> None:
    _, events = played(name)

    assert stages(events) == EVERY_STAGE
    assert end(events) is not None
    assert end(events).outcome is Outcome.MINING  # type: ignore[union-attr]
    assert said(events).configuration.pool_url == "public-pool.io:21496"
    assert said(events).configuration.wallet == "bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh.a1"
    assert said(events).configuration.firmware == "V1.8.3"


@pytest.mark.parametrize(
    ("name", "then", "outcome", "last"),
    [
        ("stall", MINING_SECONDS, Outcome.STALLED, Stage.SUBSCRIBE),
        ("no-wifi", MINING_SECONDS, Outcome.STALLED, Stage.MINER_STARTED),
        ("pool-message", MINING_SECONDS, Outcome.STALLED, Stage.WORKER_STARTED),
        ("refused", 0, Outcome.REFUSED, Stage.AUTHORIZE),
        ("portal", 0, Outcome.PORTAL, None),
        ("gps", 0, Outcome.NOT_A_MINER, None),
        ("modem", 0, Outcome.NOT_A_MINER, None),
        ("already-mining", 0, Outcome.MINING, Stage.MINING),
        ("oled", 0, Outcome.MINING, Stage.MINING),
        ("torn", 0, Outcome.MINING, Stage.MINING),
        ("sd-card", MINING_SECONDS, Outcome.STALLED, Stage.WORKER_STARTED),
    ],
)
def test_every_other_console_ends_as_it_must(name: str, then: float, outcome: Outcome, last: Stage | None) -> None:
    _, events = played(name, then)

    finished = end(events)
    assert finished is not None
    assert finished.outcome is outcome
    assert next(reversed(stages(events)), None) == last
    assert outcome in (Outcome.MINING, Outcome.NOT_A_MINER) or finished.next_action


def test_a_refused_authorize_is_not_mining_though_it_hashes() -> None:
    _, events = played("refused", 600)
    assert Stage.MINING not in stages(events)


def test_an_authorize_without_an_answer_is_not_mining() -> None:
    handshake = Handshake(0)
    handshake.feed(whole("stall") + b"[WORKER] ==> Autorize work\n", 0)

    events, deadline = handshake.feed(b"", ANSWER_SECONDS)

    assert end(events) is not None
    assert end(events).outcome is Outcome.STALLED  # type: ignore[union-attr]
    assert deadline is None


def test_another_boot_begins_the_stages_anew() -> None:
    _, events = played("reboot")

    assert [event.count for event in events if isinstance(event, Rebooted)] == [1]
    assert stages(events)[:2] == [Stage.WORKER_STARTED, Stage.CONNECTED]
    assert stages(events)[2:] == [Stage.WORKER_STARTED, Stage.AUTHORIZE, Stage.MINING]


def test_one_that_boots_again_and_again_says_so() -> None:
    handshake = Handshake(0)
    for at in (0, 40, 80):
        handshake.feed(b"ESP-ROM:esp32s3\nNerdMiner v2 starting......\n[WORKER] Started. Running\n", at)
    finished = end(handshake.feed(b"", MINING_SECONDS)[0])
    assert finished is not None
    assert finished.outcome is Outcome.STALLED
    assert "it booted 3 times" in finished.message
    assert "supply" in finished.next_action


def test_what_prints_nothing_is_left_alone_after_the_deadline() -> None:
    handshake = Handshake(5)
    assert handshake.feed(b"", 5) == ([], 5 + FIRST_BYTE_SECONDS)
    events, deadline = handshake.feed(b"", 5 + FIRST_BYTE_SECONDS)
    assert end(events).outcome is Outcome.SILENT  # type: ignore[union-attr]
    assert deadline is None


def test_noise_is_left_alone_after_some_kilobytes_and_never_kept() -> None:
    handshake = Handshake(0)
    noise = bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") * 4
    fed = 0
    while not handshake.finished:
        handshake.feed(noise, 0)
        fed += len(noise)
        assert fed <= UNKNOWN_BYTES + len(noise)


def test_settings_of_a_card_are_read() -> None:
    _, events = played("sd-card")
    configuration = said(events).configuration
    assert (configuration.pool_url, configuration.wallet) == ("solo.ckpool.org:3333", "bc1qcard.b2")
    assert configuration.firmware == "V1.7.0"


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_same_bytes_in_any_pieces_give_the_same_events(name: str, data: st.DataObject) -> None:
    content = whole(name)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=30)))

    def pieces(content: bytes) -> Iterator[bytes]:
        for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
            yield content[start:stop]

    assert heard(content, pieces) == heard(content)


@pytest.mark.parametrize("name", ALL)
def test_byte_by_byte_is_the_same(name: str) -> None:
    content = whole(name)
    assert heard(content, lambda data: (data[at : at + 1] for at in range(len(data)))) == heard(content)


@pytest.mark.parametrize("name", ["new-device", "torn", "reboot"])
def test_an_unplug_at_any_byte_leaves_no_mining_that_was_not(name: str) -> None:
    content = whole(name)
    accepted = content.find(
        b'"result":tr' if name == "torn" else b"true}" if name == "new-device" else b'"result":true'
    )
    accepted = content.find(b'"id":2') if accepted < 0 else accepted
    handshake = Handshake(0.0)
    # What it knows when it is pulled out is what it knew after that byte: another test shows that pieces do not matter.
    for at in range(accepted):
        assert Stage.MINING not in stages(handshake.feed(content[at : at + 1], 0.0)[0]), f"byte {at}"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 200))
def test_any_bytes_are_survived_in_any_pieces(noise: bytes, size: int) -> None:
    pieces = [noise[at : at + size] for at in range(0, len(noise), size)]
    assert heard(noise, lambda _: iter(pieces)) == heard(noise)


@pytest.mark.parametrize("name", ALL)
def test_what_is_passed_over_at_a_glance_would_have_said_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = whole(name)
    glanced = heard(content)
    monkeypatch.setattr("peerd.devices.handshake.may_say_something", lambda _: True)
    assert heard(content) == glanced


def test_a_miner_after_noise_is_recognised() -> None:
    events = heard(b"\xff\x00\x80" * 100 + b"\n" + whole("new-device"))
    assert Recognised() in events
    assert end(events).outcome is Outcome.MINING  # type: ignore[union-attr]


def test_hashing_between_boot_and_authorize_is_no_proof() -> None:
    line = b">>> Completed 0 share(s), 9 Khashes, avg. hashrate 5.00 KH/s\n"
    assert Stage.MINING not in stages(heard(b"[WORKER] Started. Running (Stratum) on core 1\n" + line))
    assert Stage.MINING in stages(heard(line))
