"""Where this executor keeps things: the directories of jobs, and the private ones of their attempts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peerd.catalog.model import InterfaceKind
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import Edge, Job
from peerd.jobs.paths import STDERR, STDOUT, JobPlace
from peerd.transfers.model import OutgoingTransfer, Source, TransferKey


@dataclass(frozen=True, kw_only=True)
class Places:
    """Paths and transfer keys of jobs on one executor. Pure."""

    data_dir: Path
    control_root: Path
    """Outside the sight of jobs: what the daemon and the wrappers of attempts tell each other."""
    executor: PeerId

    def of(self, job: Job) -> JobPlace:
        """The job's directory."""
        return JobPlace(
            data_dir=self.data_dir,
            orchestrator=job.key.orchestrator,
            workflow_execution_id=job.key.workflow_execution_id,
            executor=self.executor,
            job_execution_id=job.id,
        )

    def control(self, attempt_id: int) -> Path:
        """The private directory of an attempt; row ids are never used again, so it is always fresh."""
        return self.control_root / str(attempt_id)

    def receiving(self, job: Job, edge: Edge) -> Path:
        """Where the files of an incoming edge land."""
        place = self.of(job)
        if edge.kind is InterfaceKind.MOUNT:
            root = place.mount(edge.path)
        elif edge.kind is InterfaceKind.PACKAGE:
            root = place.package
        else:
            root = place.input
        return root.joinpath(*edge.destination.split("/")) if edge.destination else root

    def transfer(self, job: Job, edge: Edge) -> OutgoingTransfer:
        """What an outgoing edge sends, and to whom."""
        return OutgoingTransfer(key=self.transfer_key(job, edge), source=self._source(job, edge))

    def transfer_key(self, job: Job, edge: Edge) -> TransferKey:
        """Names what an outgoing edge sends."""
        return TransferKey(
            orchestrator=job.key.orchestrator,
            store_id=job.key.store_id,
            workflow_execution_id=job.key.workflow_execution_id,
            edge_id=edge.edge_id,
            source_peer_id=self.executor,
            source_job_execution_id=job.id,
            destination_peer_id=edge.peer_id,
            destination_job_execution_id=edge.peer_job_execution_id,
        )

    def received_key(self, job: Job, edge: Edge) -> TransferKey:
        """Names what comes along an incoming edge."""
        return TransferKey(
            orchestrator=job.key.orchestrator,
            store_id=job.key.store_id,
            workflow_execution_id=job.key.workflow_execution_id,
            edge_id=edge.edge_id,
            source_peer_id=edge.peer_id,
            source_job_execution_id=edge.peer_job_execution_id,
            destination_peer_id=self.executor,
            destination_job_execution_id=job.id,
        )

    def _source(self, job: Job, edge: Edge) -> Source:
        place = self.of(job)
        if job.work.is_data:
            return Source(root=Path(job.work.path), selection=edge.selection)
        if edge.kind is InterfaceKind.STDOUT:
            return Source(root=place.logs, only=STDOUT, selection=edge.selection)
        if edge.kind is InterfaceKind.STDERR:
            return Source(root=place.logs, only=STDERR, selection=edge.selection)
        if edge.kind is InterfaceKind.MOUNT:
            return Source(root=place.mount(edge.path), selection=edge.selection)
        return Source(root=place.output, selection=edge.selection)
