"""What files say of themselves: the tool, the ports that were tried, and whether they are whole."""

from __future__ import annotations

import io

import pytest

from peerd.clock import Millis
from peerd.scans.formats.reading import read_scan
from peerd.scans.told import Told, told_by

NMAP = (
    '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun scanner="nmap" version="7.93" start="1800000000">'
    '<scaninfo type="connect" protocol="tcp" numservices="2" services="22,80"/>%s'
    '<host><status state="up"/><address addr="192.0.2.1" addrtype="ipv4"/><ports>'
    '<port protocol="tcp" portid="22"><state state="open"/></port></ports></host></nmaprun>'
)
ONE = '{"ip":"192.0.2.1","port":80,"protocol":"tcp"}\n'


def told(text: str) -> Told:
    reading = read_scan(io.BytesIO(text.encode()))
    for _ in reading:
        pass
    return told_by(reading.notes)


def test_nmap_says_its_version_and_the_ports_that_it_tried() -> None:
    assert told(NMAP % "") == Told(
        tool="nmap", tool_version="7.93", scope="shown tcp:22,80", started_at=Millis(1_800_000_000_000)
    )
    udp = '<scaninfo type="udp" protocol="udp" numservices="1" services="53"/>'
    assert told(NMAP % udp).scope == "shown tcp:22,80,udp:53"


@pytest.mark.parametrize("more", ["1,x", ",".join(map(str, range(1, 3000, 2)))])
def test_ports_that_are_none_or_too_many_to_say_are_not_said(more: str) -> None:
    assert told(NMAP % f'<scaninfo protocol="tcp" services="{more}"/>').scope == ""
    assert told(NMAP % '<scaninfo protocol="ip" services="1-9"/>').scope == ""


def test_the_others_say_their_names() -> None:
    assert told(ONE) == Told(tool="naabu")
    assert told('[\n{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","status":"open"}]}\n]').tool == "masscan"
    assert told("192.0.2.1:80\n") == Told()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (NMAP % "", True),
        (NMAP % "" + "<again/>", True),  # nonsense behind the end
        ((NMAP % "")[:-4], False),
        ((NMAP % "")[:-30], False),
        ((NMAP % "<a></b>"), False),
        (ONE + ONE, True),
        (ONE + ONE[:-1], True),
        (ONE + ONE[:-9], False),
        (ONE + ONE[:-9] + "\n" + ONE, True),  # a bad line in the middle
        (ONE + "5", True),
        ('[{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","status":"open"}]},{"ip":"19', False),
    ],
)
def test_a_file_that_ends_in_the_middle_is_known(text: str, whole: bool) -> None:
    assert told(text).whole is whole
