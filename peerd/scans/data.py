"""The bytes of scans, in pieces in the store: written with their job, in every backup, read as a stream by a thread."""

from __future__ import annotations

import io
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from peerd.errors import PeerdError, Reason
from peerd.store import Tx
from peerd.store.copies import read_only

PIECE_BYTES = 256 * 1024
_FAST = 1
"""zlib's level: scans are text that shrinks to a tenth at any level."""


def compressed(data: bytes) -> list[bytes]:
    """The bytes as pieces for the store."""
    view = memoryview(data)
    return [zlib.compress(view[at : at + PIECE_BYTES], _FAST) for at in range(0, len(data), PIECE_BYTES)]


def begin(tx: Tx) -> int:
    """A place for bytes that no job owns yet."""
    return tx.insert("INSERT INTO scan_data (created_at) VALUES (?)", (tx.now,))


def append(tx: Tx, scan_data_id: int, first: int, pieces: Sequence[bytes]) -> None:
    """Write pieces, the first with that number."""
    tx.executemany(
        "INSERT INTO scan_pieces (scan_data_id, piece, content) VALUES (?, ?, ?)",
        ((scan_data_id, first + index, piece) for index, piece in enumerate(pieces)),
    )


def own(tx: Tx, scan_data_id: int) -> None:
    """A job owns them from now on."""
    tx.execute("UPDATE scan_data SET owned = 1 WHERE id = ?", (scan_data_id,))


def remove(tx: Tx, scan_data_id: int) -> None:
    """Delete them."""
    tx.execute("DELETE FROM scan_pieces WHERE scan_data_id = ?", (scan_data_id,))
    tx.execute("DELETE FROM scan_data WHERE id = ?", (scan_data_id,))


def remove_unowned(tx: Tx, scan_data_id: int | None = None) -> None:
    """What a stream has left that did not come to its end: of one, or at the start of all."""
    for row in tx.all("SELECT id FROM scan_data WHERE owned = 0 AND id = coalesce(?, id)", (scan_data_id,)):
        remove(tx, row["id"])


def open_data(store: Path, scan_data_id: int) -> BinaryIO:
    """The bytes as a file, read piece by piece over a connection of its own. Blocking; close it.

    It may be used by one thread after the other. Raises STORE_CORRUPT where a piece is damaged.
    """
    return io.BufferedReader(_Pieces(store, scan_data_id), buffer_size=PIECE_BYTES)


class _Pieces(io.RawIOBase):
    def __init__(self, store: Path, scan_data_id: int) -> None:
        self._connection = sqlite3.connect(read_only(store), uri=True, isolation_level=None, check_same_thread=False)
        self._scan_data_id = scan_data_id
        self._pieces = self._read()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._connection.close()
        super().close()

    def _read(self) -> Iterator[bytes]:
        """One query for each piece: a reading transaction that is open for long would let the journal grow."""
        piece = 0
        while True:
            row = self._connection.execute(
                "SELECT content FROM scan_pieces WHERE scan_data_id = ? AND piece = ?", (self._scan_data_id, piece)
            ).fetchone()
            if row is None:
                return
            try:
                yield zlib.decompress(row[0])
            except zlib.error as error:
                message = f"piece {piece} of the bytes of scan data {self._scan_data_id} is damaged: {error}"
                raise PeerdError(Reason.STORE_CORRUPT, message) from error
            piece += 1
