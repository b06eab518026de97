"""Lines of consoles: whole, bounded, fit for a terminal, without passwords."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.devices.dump import read_configuration
from peerd.devices.handshake import Handshake
from peerd.devices.lines import MAX_LINE, LineAssembler
from peerd.devices.simulator.firmware import Board, boot

from .console import ALL, whole

SECRET = "hush7"


def lines(data: bytes) -> list[str]:
    return LineAssembler().feed(data)


def test_a_line_that_never_ends_is_cut_and_counted() -> None:
    assembler = LineAssembler()
    found = assembler.feed(b"x" * (3 * MAX_LINE) + b"\n")
    assert [len(line) for line in found] == [MAX_LINE]
    assert assembler.dropped_bytes == 2 * MAX_LINE


def test_noise_is_not_kept() -> None:
    """By the bytes that Python holds; scripts/noise looks at the whole process, over a gigabyte."""
    handshake, assembler = Handshake(0), LineAssembler()
    handshake.feed(b"NerdMiner v2 starting......\n", 0)  # recognised: it listens on
    noise = bytes(range(1, 256)) * 64
    tracemalloc.start()
    try:
        for _ in range(3):
            handshake.feed(noise, 0)
            assembler.feed(noise)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(12):
            handshake.feed(noise, 0)
            assembler.feed(noise)
        assert tracemalloc.get_traced_memory()[0] - before < len(noise)
    finally:
        tracemalloc.stop()


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert lines(b"a\x1b[31mred\x1b[0m\x07\x00\xff\n") == ["ared\\x07\\x00\\xff"]


@pytest.mark.parametrize(
    "text",
    [
        '  "poolPassword": "hush7",',
        '{"SSID":"home","WifiPW":"hush7","PoolUrl":"p","PoolPassword":"hush7"}',
        '  "poolPassword": "hush7',
        '  "poolPassword":\n  "hush7",',
        '  "poolPassword": "hush7 with \\" and , in it",',
        '  "poolPassword": "hu\nhush7",',
        "poolPassword: hush7",
        "poolPassword: hush7 and more hush7",
        '  Sending  : {"params": ["wallet", "hush7"], "id": 2, "method": "mining.authorize"}',
        '  Sending  : {"params": ["wallet", "hush7"hush7"], "id": 2, "method": "mining.authorize"}',
        '  Sending  : {"params": ["wallet", "hu\nhush7"], "id": 2, "method": "mining.authorize"}',
        '  Sending  : {"params": ["wallet", "hu\n[MONITOR] started\nhush7"], "id": 2}',
        '  Sending  : {"params": ["wallet", "hu[MONITOR] started\nhush7"], "id": 2}',
        '  Sen[MONITOR] startedding  : {"params": ["wallet", "hush7"], "id": 2, "method": "mining.autho',
        '  Sending  : {"params": ["wallet", "hush7", "x"], "id": 2, "method": "mining.authorize"}',
        "DEBUG: Raw flash data: 'hush7'",
        "DEBUG: Raw flash data: 'hu\nhush7'",
        "*wm:[2] password: hush7",
    ],
)
def test_no_password_comes_through(text: str) -> None:
    found = lines(text.encode() + b"\nafter\nafter\n")
    assert SECRET not in "\n".join(found)
    assert found[-1] == "after"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=5, max_size=30))
def test_no_password_of_a_whole_boot_comes_through(secret: str) -> None:
    board = Board(password=f"Zq{secret}")
    content = b"".join(data for _, data in boot(board))
    assert board.password not in "\n".join(lines(content))
    handshake = Handshake(0)
    assert board.password not in repr(handshake.feed(content, 0))


@pytest.mark.parametrize("name", ALL)
def test_no_password_of_a_transcript_comes_through(name: str) -> None:
    handshake = Handshake(0)
    events = handshake.feed(whole(name), 0)
    shown = "\n".join(lines(whole(name))) + repr(events) + repr(vars(handshake))
    assert "hush" not in shown


def test_other_lists_of_the_pool_are_left_as_they_are() -> None:
    line = '  Receiving: {"id":null,"method":"mining.notify","params":["64f2","0000","01",[],true]}'
    assert lines(line.encode() + b"\n") == [line]


def test_what_a_device_escapes_in_its_settings_does_not_reach_a_terminal() -> None:
    found = read_configuration('{"poolString": "a\\u001b[2Jb", "btcString": "w\\n1", "nmVersion": "V\\u0007"}')
    assert found is not None
    assert (found.pool, found.wallet, found.firmware) == ("a[2Jb", "w1", "V")
    long = read_configuration('{"poolString": "p", "nmVersion": "' + "9" * 200 + '"}')
    assert long is not None
    assert len(long.firmware) == 40, "cards of two hundred miners are one document"


DUMP = b'SPIFS: Mounted\n{\r\n  "poolPassword": "hush7",\r\n  "gmtZone": 2\r\n}\npoolPassword: hush7\nafter\n'


@pytest.mark.parametrize("start", range(DUMP.index(b"after")))
def test_no_rest_of_a_password_comes_through_when_listening_begins_late(start: int) -> None:
    found = LineAssembler(torn=True).feed(DUMP[start:])
    assert not any(SECRET[-length:] in line for line in found for length in range(2, len(SECRET) + 1))
    assert found[-1] in ("after", "***")
    late = LineAssembler()
    late.feed(b"SPIFS: Mounted\n")
    late.tear()
    assert late.feed(DUMP[start:]) == found


def test_a_line_that_begins_as_lines_do_is_shown_though_it_is_the_first() -> None:
    line = ">>> Completed 1 share(s), 2 Khashes, avg. hashrate 3.00 KH/s"
    assert LineAssembler(torn=True).feed(line.encode() + b"\n") == [line]
