"""Reading what was delivered to Local Peer: the files of complete edges, by paths below ``input/``.

Every file is hashed before the first byte of any leaves, so that whoever reads can tell that it has all of it; one that
changes meanwhile ends the stream.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from peerd.errors import PeerdError, Reason, Violation
from peerd.jobs.paths import JobPlace
from peerd.store import Store
from peerd.transfers.manifest import READ_BYTES, GivenUp, Manifest, Pin, Scanned, scan, scan_in_thread
from peerd.transfers.model import Source
from peerd.transfers.paths import open_file
from peerd.transfers.selection import MAX_PATTERNS, Selection, matches, pattern_flaw
from peerd.v1 import workflows_pb2
from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.model import EdgeStatus
from peerd.workflows.repository import no_such_execution
from peerd.workflows.views import Viewer


async def read_delivered(
    store: Store, viewer: Viewer, request: workflows_pb2.ReadDeliveredRequest
) -> AsyncIterator[workflows_pb2.FileChunk]:
    """File by file. Raises NOT_FOUND, FILES_REMOVED, NO_FILES_MATCH, SOURCE_CHANGED."""
    _check(request.files)
    execution_id = request.workflow_execution_id
    row = await store.one("SELECT files FROM workflow_executions WHERE id = ?", (execution_id,))
    if row is None:
        raise no_such_execution(execution_id)
    if row["files"] != "present":
        raise PeerdError(Reason.FILES_REMOVED, f"retention has taken the files of execution {execution_id}")
    edges = await store.all(
        "SELECT directory FROM execution_edges WHERE workflow_execution_id = ? AND destination_node_id = ?"
        " AND status = ?",
        (execution_id, LOCAL_PEER, EdgeStatus.DELIVERED.value),
    )
    place = JobPlace(
        data_dir=viewer.data_dir,
        orchestrator=viewer.own_peer_id,
        workflow_execution_id=execution_id,
        executor=viewer.own_peer_id,
        job_execution_id=0,
    )
    directories, patterns = [edge["directory"] for edge in edges], tuple(request.files)
    scanned = await scan_in_thread(lambda given_up: _scan(place.input, directories, patterns, given_up))
    for index in range(len(scanned.paths)):
        async for chunk in _file(scanned, index):
            yield chunk


def _check(patterns: Iterable[str]) -> None:
    for index, pattern in enumerate(patterns):
        flaw = pattern_flaw(pattern) if index < MAX_PATTERNS else f"there are more than {MAX_PATTERNS} patterns"
        if flaw:
            field = f"files[{index}]"
            raise PeerdError(
                Reason.INVALID_ARGUMENT, f"{field}: {flaw}", violations=[Violation(field=field, message=flaw)]
            )


def _scan(root: Path, directories: list[str], patterns: tuple[str, ...], given_up: GivenUp) -> Scanned:
    there: list[str] = []

    def complete(path: str) -> bool:
        if not any(not directory or path.startswith(f"{directory}/") for directory in directories):
            return False
        there.append(path)
        return not patterns or any(matches(pattern, path) for pattern in patterns)

    if not directories or not root.is_dir():  # nothing was delivered, so nobody made it
        scanned = Scanned(root=root, manifest=Manifest(files=()), pins=(), paths=())
    else:
        scanned = scan(Source(root=root), wanted=complete, given_up=given_up)
    if patterns and not scanned.paths:
        raise Selection(files=patterns).nothing_found(sorted(there), more=False)
    return scanned


async def _file(scanned: Scanned, index: int) -> AsyncIterator[workflows_pb2.FileChunk]:
    entry, pin, path = scanned.manifest.files[index], scanned.pins[index], scanned.paths[index]
    header = workflows_pb2.FileHeader(
        path=entry.path, size=entry.size, executable=entry.executable, digest=entry.digest
    )
    yield workflows_pb2.FileChunk(file=header)
    try:
        descriptor = await asyncio.to_thread(open_file, scanned.root, path.split("/"))
    except FileNotFoundError as error:
        raise _changed(path) from error
    try:
        for offset in range(0, entry.size, READ_BYTES):
            yield workflows_pb2.FileChunk(data=os.pread(descriptor, READ_BYTES, offset))
        if Pin.of(descriptor) != pin:
            raise _changed(path)
    finally:
        os.close(descriptor)


def _changed(path: str) -> PeerdError:
    return PeerdError(Reason.SOURCE_CHANGED, f"{path!r} is not the file any more that was listed")
