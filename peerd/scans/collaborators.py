"""What ingest works with: who reads the bytes of a scan, and where records go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from peerd.inventory.model import Record, Source
from peerd.scans.told import Told
from peerd.store import Tx


class Skipped(Protocol):
    """What a reader could not use."""

    @property
    def line(self) -> int: ...

    @property
    def reason(self) -> str: ...

    @property
    def excerpt(self) -> str: ...


class Reading(Protocol):
    """One scan that is read."""

    def __iter__(self) -> Iterator[Record | Skipped]:
        """Once: items in an order that depends on the bytes alone. Raises PeerdError where it cannot go on."""
        ...

    def told(self) -> Told:
        """What the file itself says, as far as it was read."""
        ...


class Reader(Protocol):
    """Reads the bytes of a scan; see peerd.scans.formats."""

    def __call__(self, stream: BinaryIO, format: str) -> Reading: ...  # noqa: A002


class Counts(Protocol):
    """Of one scan, each once."""

    @property
    def hosts(self) -> int: ...

    @property
    def ports(self) -> int: ...


class Inventory(Protocol):
    """Where records go; see peerd.inventory."""

    def apply(self, tx: Tx, source: Source, records: Sequence[Record]) -> None:
        """Store what they say. The same again changes nothing."""
        ...

    def complete(self, tx: Tx, ingest_job_id: int, after: int) -> int | None:
        """All records are stored: do a part of what follows from that, beginning with 0.

        Returns where to go on, None at the end. The same again changes nothing.
        """
        ...

    def counts(self, tx: Tx, ingest_job_id: int) -> Counts:
        """Distinct hosts and ports of an ingest job."""
        ...
