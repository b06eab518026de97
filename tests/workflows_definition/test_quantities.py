"""Durations and sizes."""

from __future__ import annotations

import pytest

from peerd.workflows.quantities import parse_duration, parse_memory


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("90s", 90_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("1.5s", 1500),
        ("0.5h", 1_800_000),
        ("250ms", 250),
        ("5m250ms", 300_250),
        ("90", 90_000),
        ("1.5", 1500),
        ("0s", 0),
        ("366d", 366 * 86_400_000),
    ],
)
def test_durations(text: str, millis: int) -> None:
    assert parse_duration(text) == millis


@pytest.mark.parametrize(
    "text", ["", "s", "1x", "1s1h", "1m1m", "-1s", "1 h", "1,5s", "1e3", "\u0661s", "367d", "9" * 30, "5s\n"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is longer than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5G", 3 << 29),
        ("64K", 65536),
        ("1T", 1 << 40),
        ("1000", 1000),
        ("2GiB", 2 << 30),
        ("2GB", 2 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1 M", "1m", "0", "0.5", "9999999T", "1e3", "512M\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_memory(text)
