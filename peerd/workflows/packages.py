"""Package files: what a definition brings along, from Local Peer (job execution id 0) to the jobs that declare it.

They lie in the store inside the definition, and are written out as ordinary files when an execution is taken up, so
that they travel like everything else; written again after a crash, they are the same. A job gets them once its
executor has its interfaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.store import Tx
from peerd.transfers.model import OutgoingTransfer, Source, TransferKey
from peerd.v1 import workflows_pb2
from peerd.workflows.repository import ExecutionRecord
from peerd.workflows.state import ExecutionState, JobState


class SendQueue(Protocol):
    """The sender of transfers."""

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        """Order a transfer; the same order again changes nothing."""
        ...

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        """Take an order back, if it is not over."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shipments:
    """What a commit orders."""

    queue: SendQueue
    send: Sequence[OutgoingTransfer] = ()
    withdraw: Sequence[TransferKey] = field(default=())
    ordered: Callable[[], None] = lambda: None
    """Called once that is durable."""

    def order(self, tx: Tx) -> None:
        """In the transaction of the events that made it due."""
        for key in self.withdraw:
            self.queue.withdraw(tx, key)
        for transfer in self.send:
            self.queue.enqueue(tx, transfer)
        tx.on_commit(self.ordered)


class Packages:
    """Writes package files and has them sent."""

    def __init__(self, queue: SendQueue, *, data_dir: Path, own_peer_id: PeerId, store_id: str) -> None:
        self._queue = queue
        self._data_dir = data_dir
        self._own_peer_id = own_peer_id
        self._store_id = store_id
        # Orders that are under way, durably, by execution and edge.
        self._ordered: dict[tuple[int, int], TransferKey] = {}

    async def write(self, record: ExecutionRecord) -> None:
        """Put the package files of all jobs in their places, unless they are there."""
        jobs = [job for job in record.definition.jobs if job.package]
        if jobs:
            folder = self._place(record.spec.execution_id).package
            await asyncio.to_thread(_write_all, folder, jobs)

    def due(self, state: ExecutionState, nodes: Iterable[str]) -> Shipments:
        """What these jobs are to be sent, or not any more."""
        send: dict[tuple[int, int], OutgoingTransfer] = {}
        withdraw: dict[tuple[int, int], TransferKey] = {}
        for node in nodes:
            job = state.jobs[node]
            for edge_id in job.inputs:
                if state.edges[edge_id].package:
                    self._ship(state, job, edge_id, send, withdraw)

        def ordered() -> None:
            for name in withdraw:
                self._ordered.pop(name, None)
            self._ordered.update({name: transfer.key for name, transfer in send.items()})

        return Shipments(
            queue=self._queue, send=tuple(send.values()), withdraw=tuple(withdraw.values()), ordered=ordered
        )

    def _ship(
        self,
        state: ExecutionState,
        job: JobState,
        edge_id: int,
        send: dict[tuple[int, int], OutgoingTransfer],
        withdraw: dict[tuple[int, int], TransferKey],
    ) -> None:
        name = (state.spec.execution_id, edge_id)
        settled = state.edges[edge_id].settled
        wanted = self._key(state, job, edge_id) if job.acknowledged and job.remote_id and not job.final else None
        ordered = self._ordered.get(name)
        if ordered is not None and (settled or ordered != wanted):
            withdraw[name] = ordered
        if wanted is not None and wanted != ordered and not settled:
            folder = self._place(state.spec.execution_id).package / (job.spec.instance_of or job.spec.node_id)
            send[name] = OutgoingTransfer(key=wanted, source=Source(root=folder))

    def _key(self, state: ExecutionState, job: JobState, edge_id: int) -> TransferKey:
        return TransferKey(
            orchestrator=self._own_peer_id,
            store_id=self._store_id,
            workflow_execution_id=state.spec.execution_id,
            edge_id=edge_id,
            source_peer_id=self._own_peer_id,
            source_job_execution_id=0,
            destination_peer_id=PeerId(job.peer),
            destination_job_execution_id=job.remote_id,
        )

    def _place(self, execution_id: int) -> JobPlace:
        return JobPlace(
            data_dir=self._data_dir,
            orchestrator=self._own_peer_id,
            workflow_execution_id=execution_id,
            executor=self._own_peer_id,
            job_execution_id=0,
        )


def _write_all(folder: Path, jobs: Sequence[workflows_pb2.JobDefinition]) -> None:
    for job in jobs:
        for file in job.package:
            content = file.text.encode() if file.WhichOneof("body") == "text" else file.content
            _write(folder.joinpath(job.name, *file.path.split("/")), content, 0o700 if file.executable else 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Nothing above the daemon's own directories is written by others, and the paths were validated."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    beside.replace(path)
