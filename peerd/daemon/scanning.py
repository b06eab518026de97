"""Scans, with the formats they are read in and the inventory they go into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from peerd.clock import Clock
from peerd.config import Config, ScansConfig
from peerd.daemon.neighbours import Neighbours
from peerd.datadir import DataDir
from peerd.identity.key import Identity
from peerd.inventory import settling, writing
from peerd.inventory.model import Record, Source
from peerd.scans.assembly import Scans
from peerd.scans.collaborators import Counts
from peerd.scans.formats.items import Format, Limits, Skipped
from peerd.scans.formats.reading import Reading, read_scan
from peerd.scans.told import Told, told_by
from peerd.store import Store, Tx


def build_scans(config: Config, clock: Clock, identity: Identity, store: Store, neighbours: Neighbours) -> Scans:
    """All of it."""
    registry = neighbours.registry
    return Scans(
        store,
        DataDir(config.data_dir).store,
        clock,
        config.scans,
        identity,
        trust=neighbours.mesh,
        disk=lambda: config.transfers.reserve.look(config.data_dir),
        inventory=_Inventory(),
        reader=_Reader(config.scans, clock),
        name_of=registry.name_of,
        resolve=registry.resolve,
    )


class _Inventory:
    """See :class:`peerd.scans.collaborators.Inventory`."""

    def apply(self, tx: Tx, source: Source, records: Sequence[Record]) -> None:
        writing.apply(tx, source, records)

    def complete(self, tx: Tx, ingest_job_id: int, after: int) -> int | None:
        return settling.complete(tx, ingest_job_id, after)

    def counts(self, tx: Tx, ingest_job_id: int) -> Counts:
        return writing.counts(tx, ingest_job_id)


class _Reader:
    """See :class:`peerd.scans.collaborators.Reader`."""

    def __init__(self, config: ScansConfig, clock: Clock) -> None:
        self._limits = Limits(total_bytes=config.max_bytes, records=config.max_records + 1, seconds=config.max_seconds)
        self._clock = clock

    def __call__(self, stream: BinaryIO, format: str) -> _Read:  # noqa: A002 - the user's noun
        return _Read(read_scan(stream, Format(format) if format else None, self._limits, clock=self._clock))


class _Read:
    """See :class:`peerd.scans.collaborators.Reading`."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __iter__(self) -> Iterator[Record | Skipped]:
        return self._reading

    def told(self) -> Told:
        return told_by(self._reading.notes)
