"""Scans made to hurt are refused quickly and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.scans.formats.hostile import CASES

SECONDS = 2.0
MEBIBYTES = 64.0
RECORDS = {"1 GB of spaces, lines": 1, "10,000 deep inside, naabu": 1, "million-digit number, nmap": 1}
"""What stands before the trap counts; nmap's million digits stand in a host that is there."""
INVALID = {
    "billion laughs", "billion laughs, named", "quadratic blow-up", "external entity", "external document type",
    "external parameter entity", "defaults of attributes", "utf-7",
}  # fmt: skip
SKIPPED_ONLY = {
    "10,000 deep inside, naabu", "million-digit number, naabu", "million-digit number, masscan",
    "million-digit number, nmap", "million-digit number, lines", "million-digit fraction, naabu",
    "NUL bytes in lines, naabu", "NUL bytes, nmap", "quotes, masscan",
}  # fmt: skip
"""Where only a record is at fault, or where the file ends in nonsense, the rest of it counts."""


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What each case cost, in a process that did nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scans.formats.hostile"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_scan_is_refused_in_two_seconds(name: str, told: dict[str, dict[str, Any]]) -> None:
    case = told[name]
    assert case["seconds"] < SECONDS
    assert case["records"] == RECORDS.get(name, 0)
    if name in SKIPPED_ONLY:
        assert (case["refused"], case["skipped"] > 0) == ("", True)
    elif name in INVALID:
        assert case["refused"] == "invalid_scan"
    else:
        assert case["refused"] in ("scan_limit", "unknown_scan_format")


def test_all_hostile_scans_together_need_less_than_64_mib(told: dict[str, dict[str, Any]]) -> None:
    assert sum(case["mib"] for case in told.values()) < MEBIBYTES
