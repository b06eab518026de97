"""What jobs brought home of the nodes that they probed: files from another machine, each read within its bounds."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from peerd.errors import PeerdError
from peerd.nodes.message_json import line_from_json
from peerd.nodes.messages import REPORT, RESULT, RESULTS
from peerd.transfers.paths import open_file

MAX_BYTES = 1024**2
"""Of a result, and of a report: both go into one answer to whoever asks for them."""
_MAX_BATCH_BYTES = 32 * 1024**2
"""Of the results of a batch."""


@dataclass(frozen=True, kw_only=True)
class Brought:
    """Of one node: a result, and of a scan a report, too."""

    result: bytes = b""
    report: bytes = b""
    problem: str = ""
    """Why there is neither; else empty."""


def read_brought(root: Path, job: str, node_ids: Collection[str]) -> Mapping[str, Brought]:
    """For each of these nodes, what a job left below the delivery directory. Blocks."""
    try:
        try:
            found = _lines(_read(root, [job, RESULTS], _MAX_BATCH_BYTES))
        except FileNotFoundError:
            return dict.fromkeys(node_ids, _alone(root, job))
    except (OSError, PeerdError) as error:
        return dict.fromkeys(node_ids, Brought(problem=str(error)))
    return {node_id: found.get(node_id, Brought(problem="it says nothing of this node")) for node_id in node_ids}


def _alone(root: Path, job: str) -> Brought:
    """Of a job for one node; or of a prober that could not read what it was asked, and that stands for all nodes."""
    result = _read(root, [job, RESULT], MAX_BYTES)
    try:
        report = _read(root, [job, REPORT], MAX_BYTES)
    except FileNotFoundError:
        report = b""
    return Brought(result=result, report=report)


def _lines(content: bytes) -> Mapping[str, Brought]:
    """By node; the first of two counts. What is no line of a node is of none."""
    found: dict[str, Brought] = {}
    for text in content.split(b"\n"):
        try:
            line = line_from_json(text)
            brought = Brought(result=line.result.encode(), report=line.report.encode())
        except ValueError:
            continue
        if max(len(brought.result), len(brought.report)) > MAX_BYTES:
            brought = Brought(problem=f"its result or report is larger than {MAX_BYTES} bytes")
        found.setdefault(line.node_id, brought)
    return found


def _read(root: Path, parts: list[str], most: int) -> bytes:
    descriptor = open_file(root, parts)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{parts[-1]} is larger than {most} bytes")
    return content
