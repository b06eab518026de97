"""Keys and manifests as protobuf messages, and back, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.transfers.manifest import FileEntry, Manifest
from peerd.transfers.model import TransferKey
from peerd.v1 import transfers_pb2

_PART_BYTES = 512 * 1024
"""Manifest bytes in one message; well below the 4 MiB that a message may have."""


def key_to_proto(key: TransferKey, manifest_digest: bytes) -> transfers_pb2.TransferKey:
    """What names the transfer on the wire; sender and receiver are the two ends of the connection."""
    return transfers_pb2.TransferKey(
        orchestrator_peer_id=key.orchestrator,
        store_id=key.store_id,
        workflow_execution_id=key.workflow_execution_id,
        edge_id=key.edge_id,
        source_job_execution_id=key.source_job_execution_id,
        destination_job_execution_id=key.destination_job_execution_id,
        manifest_digest=manifest_digest,
    )


def key_from_proto(message: transfers_pb2.TransferKey, *, sender: PeerId, receiver: PeerId) -> TransferKey:
    """The key, between the authenticated sender and this peer. Raises INVALID_PEER_ID or INVALID_ARGUMENT."""
    if len(message.store_id) > 64 or not message.store_id:
        raise PeerdError(Reason.INVALID_ARGUMENT, "the transfer names no store")
    return TransferKey(
        orchestrator=parse_peer_id(message.orchestrator_peer_id),
        store_id=message.store_id,
        workflow_execution_id=message.workflow_execution_id,
        edge_id=message.edge_id,
        source_peer_id=sender,
        source_job_execution_id=message.source_job_execution_id,
        destination_peer_id=receiver,
        destination_job_execution_id=message.destination_job_execution_id,
    )


def offer_messages(key: TransferKey, manifest: Manifest) -> Iterator[transfers_pb2.OfferRequest]:
    """The header, then the files, as many a message as fit."""
    header = transfers_pb2.OfferHeader(
        key=key_to_proto(key, manifest.digest()), file_count=len(manifest.files), total_bytes=manifest.total_bytes
    )
    yield transfers_pb2.OfferRequest(header=header)
    part = transfers_pb2.OfferRequest()
    size = 0
    for entry in manifest.files:
        message = part.files.add(
            path=entry.path,
            size=entry.size,
            executable=entry.executable,
            digest=entry.digest,
            block_digests=entry.block_digests,
        )
        size += message.ByteSize()
        if size >= _PART_BYTES:
            yield part
            part, size = transfers_pb2.OfferRequest(), 0
    if part.files:
        yield part


def file_from_proto(message: transfers_pb2.ManifestFile) -> FileEntry:
    """One file; the manifest as a whole is checked afterwards."""
    return FileEntry(
        path=message.path,
        size=message.size,
        executable=message.executable,
        digest=message.digest,
        block_digests=tuple(message.block_digests),
    )


def missing_to_proto(
    missing: Iterable[tuple[int, int]], files: Sequence[FileEntry]
) -> Iterator[transfers_pb2.MissingFile]:
    """Runs of (file index, first missing byte) in order. Of a million files that are all missing it is one message.

    An empty file is never missing; it interrupts no run.
    """
    run: transfers_pb2.MissingFile | None = None
    following = 0
    for index, offset in missing:
        if run is not None and offset == 0 and all(files[at].size == 0 for at in range(following, index)):
            run.following = index - run.file_index
        else:
            if run is not None:
                yield run
            run = transfers_pb2.MissingFile(file_index=index, offset=offset)
        following = index + 1
    if run is not None:
        yield run


def missing_from_proto(parts: Iterable[transfers_pb2.MissingFile], files: Sequence[FileEntry]) -> list[tuple[int, int]]:
    """(File index, first missing byte), in order. Raises INVALID_ARGUMENT for what was not offered."""
    missing: list[tuple[int, int]] = []
    following = 0
    for part in parts:
        first, last = part.file_index, part.file_index + part.following
        if not following <= first <= last < len(files) or part.offset > files[first].size:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the answer to an offer asks for what was not offered")
        missing.append((first, part.offset))
        missing.extend((index, 0) for index in range(first + 1, last + 1) if files[index].size)
        following = last + 1
    return missing
