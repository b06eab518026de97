"""BLAKE3, the one digest of peerd: 32 bytes, for files, blocks, manifests, records and definitions."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

DIGEST_BYTES = 32


def digest(data: bytes) -> bytes:
    """BLAKE3 of the bytes."""
    return blake3(data).digest()


Hasher = blake3
"""Incremental form: ``hasher.update(data)``, ``hasher.digest()``."""


def digest_file(path: Path) -> bytes:
    """BLAKE3 of a file's contents."""
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(1024 * 1024):
            hasher.update(piece)
    return hasher.digest()
