"""Pages in the Prometheus text format (https://prometheus.io/docs/instrumenting/exposition_formats/), read leniently.

A line that is no sample is skipped: one bad exporter does not hide what the others say. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_SAMPLES = 50_000
_MAX_LINE = 4096
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+([^ \t]+)(?:[ \t]+-?\d+)?[ \t]*\r?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One value of one metric."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Metrics = Mapping[str, tuple[Sample, ...]]
"""Name -> samples."""


def read_metrics(text: str, *, whole: bool = True) -> Metrics:
    """The samples of a page; of one that was cut off (``whole`` is false) without its last line."""
    lines = text.split("\n")
    if not whole:
        lines.pop()
    found: dict[str, list[Sample]] = {}
    count = 0
    for line in lines:
        if not line or line[0] == "#" or len(line) > _MAX_LINE:
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            continue
        name, labels, number = match.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        sample = Sample(value=value, labels=_labels(labels)) if labels else Sample(value=value)
        found.setdefault(name, []).append(sample)
        count += 1
        if count >= MAX_SAMPLES:
            break
    return {name: tuple(samples) for name, samples in found.items()}


def finite(value: float) -> bool:
    """Whether a value is a number: NaN and infinity are none."""
    return math.isfinite(value)


def _labels(text: str) -> dict[str, str]:
    return {name: _ESCAPED.sub(_unescape, value) for name, value in _LABEL.findall(text)}


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
