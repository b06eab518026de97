"""Measures the data directory. Blocking; call it in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd import trees
from peerd.datadir import DataDir
from peerd.disk import Disk, Reserve

LARGEST = 20


@dataclass(frozen=True, kw_only=True)
class ExecutionUsage:
    """What one execution takes here."""

    orchestrator: str
    workflow_execution_id: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Bytes, by part of the data directory and by execution."""

    disk: Disk
    areas: dict[str, int]
    executions: tuple[ExecutionUsage, ...]
    """Largest first; all of them."""

    @property
    def by_orchestrator(self) -> dict[str, tuple[int, int]]:
        """Peer id -> (bytes, executions), largest first."""
        totals: dict[str, tuple[int, int]] = {}
        for entry in self.executions:
            total, count = totals.get(entry.orchestrator, (0, 0))
            totals[entry.orchestrator] = (total + entry.bytes, count + 1)
        return dict(sorted(totals.items(), key=lambda item: -item[1][0]))


def measure_usage(folder: DataDir, reserve: Reserve, scan_bytes: int) -> Usage:
    """Walk all of it. The bytes of scans lie in the store, and are told apart from what else does."""
    executions = sorted(_executions(folder.path / "workflows"), key=lambda entry: -entry.bytes)
    store = trees.measure(folder.store)
    scans = min(scan_bytes, store)  # some may still lie in the journal
    areas = {
        "workflows": sum(entry.bytes for entry in executions),
        "store": store - scans,
        "scans": scans,
        "journal": sum(trees.measure(folder.store.with_name(folder.store.name + end)) for end in ("-wal", "-shm")),
        "backups": trees.measure(folder.path / "backups"),
        "control": trees.measure(folder.control),
    }
    areas["other"] = max(0, trees.measure(folder.path) - sum(areas.values()))
    return Usage(disk=reserve.look(folder.path), areas=areas, executions=tuple(executions))


def _executions(root: Path) -> Iterator[ExecutionUsage]:
    for place in root.glob("*/*"):
        if place.name.isascii() and place.name.isdigit():
            yield ExecutionUsage(
                orchestrator=place.parent.name, workflow_execution_id=int(place.name), bytes=trees.measure(place)
            )
