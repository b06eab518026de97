"""Named places where a test can kill the daemon.

``failpoint("job.result.before_commit")`` does nothing unless the environment variable ``PEERD_FAILPOINT`` names it:
``NAME`` ends the process with SIGKILL at the first hit, ``NAME@3`` at the third. Every name is listed in
:data:`FAILPOINTS` with what is true there, so that tests can walk them all; an unlisted name is a bug and says so.
"""

from __future__ import annotations

import os
import signal

FAILPOINTS: dict[str, str] = {
    # name: what has happened, and what has not
    "store.before_commit": "a batch of writes is applied but not committed",
    "store.after_commit": "a batch of writes is durable, nobody has been told",
    "mesh.sign.before_commit": "a member record is signed and written but not committed",
    "mesh.sign.after_commit": "a member record is durable, nobody else has heard of it",
    "mesh.merge.before_commit": "records from another peer are written but not committed",
    "mesh.merge.after_commit": "records from another peer are durable, nothing followed yet",
    "mesh.join.after_commit": "an invite is used up and its record durable, the joiner has not been told",
    "mesh.adopt.before_commit": "the records of a joined mesh are written but not committed",
    "mesh.push.before_send": "a changed document is durable, this peer has not sent it",
    "mesh.push.after_send": "a changed document has reached one peer",
    "backup.create.before_rename": "a backup is copied and verified, it has no name yet",
    "backup.stage.before_rename": "a restored store is copied and synced, the next start does not see it",
    "backup.stage.after_rename": "a restored store waits for the next start",
    "backup.swap.before_replace": "the old store is kept under another name, too; the restored one is not in its place",
    "backup.swap.without_journal": "the old store's journal is gone; the restored one is not in its place",
    "backup.swap.after_replace": "the restored store is in its place, nothing has opened it",
    "documents.put.before_commit": "a signed document is written but not committed",
    "registry.advert.before_commit": "an advert is written but not committed",
    "registry.advert.after_commit": "an advert is durable, nothing followed yet",
    "catalog.change.before_commit": "a change of the catalog is applied but not committed",
    "catalog.change.after_commit": "a change of the catalog is durable, the caller has not been told",
    "nodes.start.before_commit": "a node, its run and the run's execution are written but not committed",
    "nodes.apply.before_commit": "what a discovery or scan found is written but not committed",
    "nodes.apply.after_commit": "what a discovery or scan found is durable, nothing followed yet",
    "job.create.before_commit": "a new job is written but not committed",
    "job.create.after_commit": "a new job is durable, its orchestrator does not know its id",
    "job.start.before_commit": "a job's interfaces are written but not committed",
    "job.start.after_commit": "a job's interfaces are durable, its orchestrator has not been told",
    "job.run.before_commit": "an attempt is written but not committed: nothing was started",
    "job.spawn.before": "a job is durably running, its process was not started",
    "job.spawn.after": "the process of a job runs, nothing more was recorded",
    "job.reuse.after_link": "the files of an earlier job are linked to one that sends them again, nothing is recorded",
    "job.exit.before_commit": "a process has ended; its end, outputs and transfers are not committed",
    "job.exit.after_commit": "the end of a process is durable, nobody has been told",
    "job.cancel.before_commit": "the wish to cancel a job is written but not committed",
    "job.cancel.after_commit": "the wish to cancel a job is durable, nothing was stopped",
    "job.cancel.after_stop": "the processes of a cancelled job are gone, its end is not committed",
    "job.quota.before_commit": "the wish to end a job that exceeds a quota is written but not committed",
    "job.quota.after_commit": "the wish to end a job that exceeds a quota is durable, nothing was stopped",
    "job.quota.after_remove": "what a job made that exceeded a quota is removed, its end is not committed",
    "job.report.before_send": "reports wait in the outbox",
    "job.report.after_send": "the orchestrator has acknowledged reports, the outbox does not know",
    "job.release.before_commit": "that an execution is over is written but not committed",
    "job.release.after_commit": "that an execution is over is durable, its orchestrator was not told",
    "job.gc.after_condemn": "directories of jobs are condemned, none is deleted",
    "job.gc.after_remove": "directories of jobs are deleted, their rows say condemned",
    "sender.offer.before_send": "what is to be sent is known, nobody was asked",
    "sender.offer.after_send": "the receiver said what is missing, nothing was sent",
    "sender.push.after_block": "a 16 MiB block is on its way",
    "sender.delivered.before_commit": "the verdict has come and is not stored",
    "sender.delivered.after_commit": "the verdict is stored, nobody was told",
    "transfer.offer.before_answer": "what is missing is known, the sender is not told",
    "transfer.block.after_write": "a block is verified and written",
    "transfer.publish.before_rename": "all files are verified and synced, none is in its place",
    "transfer.publish.after_rename": "all files are in their places, nothing is recorded",
    "transfer.received.before_commit": "the record of a received transfer is about to be written",
    "transfer.received.after_commit": "the transfer is recorded, the sender has no verdict",
    "transfer.verdict.before_send": "all is done, the verdict is about to be sent",
    "workflow.run.before_commit": "an execution is written but not committed",
    "workflow.run.after_commit": "an execution is durable, nothing was done for it",
    "workflow.rerun.before_commit": "a rerun of an execution is written but not committed",
    "workflow.rerun.after_commit": "a rerun of an execution is durable, nothing was done for it",
    "workflow.turn.before_commit": "an execution has its turn in its group, not committed",
    "workflow.turn.after_commit": "an execution durably has its turn in its group, it does not know",
    "workflow.gate.before_commit": "whether jobs run or are skipped is decided, not committed",
    "workflow.gate.after_commit": "whether jobs run or are skipped is durable, nothing followed",
    "workflow.expand.before_commit": "the items of a map's list and its event are written but not committed",
    "workflow.expand.after_commit": "the items of a map's list and its event are durable, its runner was not told",
    "workflow.map.before_commit": "the jobs of a map are being made, or its failure, not committed",
    "workflow.map.after_commit": "the jobs of a map are durable, none has a peer",
    "workflow.timeout.before_commit": "a time-out of a job has passed, not committed",
    "workflow.timeout.after_commit": "a time-out of a job is durable, its executor was not told",
    "workflow.place.before_commit": "peers are chosen for jobs, not committed",
    "workflow.place.after_commit": "peers are chosen for jobs, none was asked",
    "workflow.create.before_send": "an executor is about to be asked to create a job",
    "workflow.create.after_send": "an executor has created a job, its id is not recorded",
    "workflow.create.before_commit": "the id of a job is written but not committed",
    "workflow.create.after_commit": "the id of a job is durable: between phase one and two",
    "workflow.start.before_send": "that a job is started is durable, its executor was not told",
    "workflow.start.after_send": "an executor has the interfaces of a job, that is not recorded",
    "workflow.start.before_commit": "a start, or its answer, is written but not committed",
    "workflow.start.after_commit": "a start, or its answer, is durable",
    "workflow.report.before_commit": "what an executor reported is written but not committed",
    "workflow.report.after_commit": "what an executor reported is durable, not acknowledged",
    "workflow.delivery.before_commit": "the arrival of files is being moved into the log, not committed",
    "workflow.delivery.after_commit": "the arrival of files is in the log",
    "workflow.finish.before_commit": "an execution has ended, not committed",
    "workflow.finish.after_commit": "the end of an execution is durable, nobody was told",
    "workflow.release.after_send": "an executor knows that an execution is over, that is not recorded",
    "workflow.gc.after_condemn": "files of executions are condemned, none is deleted",
    "workflow.gc.after_remove": "files of executions are deleted, their rows say condemned",
    "workflow.cancel_request.before_commit": "the wish to cancel an execution is written but not committed",
    "workflow.cancel_request.after_commit": "the wish to cancel an execution is durable, nothing was done for it",
    "workflow.cancel.before_commit": "a cancel, or an answer to it, is being moved into the log",
    "workflow.cancel.after_commit": "a cancel, or an answer to it, is in the log",
    "workflow.cancel.before_send": "an executor is about to be asked to cancel",
    "workflow.cancel.after_send": "an executor has cancelled, that is not recorded",
    "schedule.fire.before_commit": "what became of a planned time, and its execution, is written but not committed",
    "schedule.fire.after_commit": "what became of a planned time is durable, nothing was done for its execution",
    "schedule.missed.before_commit": "planned times that were missed are written but not committed",
    "schedule.missed.after_commit": "planned times that were missed are durable, a later one is to be caught up",
    "scans.piece.before_commit": "a piece of a scan that is streamed in is written but not committed",
    "scans.piece.after_commit": "a piece of a scan that is streamed in is durable, no job owns it",
    "scans.submit.before_commit": "a scan and its ingest job are written but not committed",
    "scans.submit.after_commit": "a scan and its ingest job are durable, nobody has been told",
    "scans.processing.before_commit": "that an ingest job is processed is written but not committed",
    "scans.processing.after_commit": "that an ingest job is processed is durable, nothing of it was read",
    "scans.chunk.before_commit": "some records of a scan are in the inventory, not committed",
    "scans.chunk.after_commit": "some records of a scan are durably in the inventory, with how far it was read",
    "scans.settle.before_commit": "what some hosts of a whole scan do not show any more is written but not committed",
    "scans.settle.after_commit": "what some hosts of a whole scan do not show any more is durable",
    "scans.complete.before_commit": "the end of an ingest job and its counts are written but not committed",
    "scans.complete.after_commit": "the end of an ingest job is durable, nobody has been told",
    "scans.failed.before_commit": "that an ingest job has failed is written but not committed",
    "scans.failed.after_commit": "that an ingest job has failed is durable, nobody has been told",
    "scans.postponed.before_commit": "that an ingest job is tried again later is written but not committed",
    "scans.postponed.after_commit": "that an ingest job is tried again later is durable",
    "scans.cancel.before_commit": "the cancelling of an ingest job is written but not committed",
    "scans.cancel.after_commit": "the cancelling of an ingest job is durable, nobody has been told",
    "scan_hand_in.send.before": "a job that scanned has durably ended, its scan was not sent to the collector",
    "scan_hand_in.send.after": "the collector has a scan, its sender has not recorded that",
    "scan_hand_in.done.before_commit": "that a collector has a scan is written but not committed",
    "scan_hand_in.done.after_commit": "that a collector has a scan is durable",
    "devices.initializing.before_commit": "a device is said to be looked at, not committed",
    "devices.initializing.after_commit": "a device is looked at, its port is not open",
    "devices.worker_started.after_commit": "a device was heard to start its worker",
    "devices.miner_started.after_commit": "a device was heard to start to compute",
    "devices.connected.after_commit": "a device was heard to have an address",
    "devices.dns_resolved.after_commit": "a device was heard to know its pool's address",
    "devices.subscribe.after_commit": "a device was heard to subscribe",
    "devices.authorize.after_commit": "a device was heard to authorize",
    "devices.mining.after_commit": "a device was heard to mine, its port is open",
    "devices.active.after_commit": "a miner is Active, its monitor has not opened the port",
    "devices.onboard.before_commit": "a device has become a miner, not committed",
    "devices.take_over.before_commit": "another peer has promised a miner, it is not ours yet",
    "devices.take_over.after_commit": "a miner of another peer is ours, it does not know",
    "devices.onboard.after_commit": "a device has become a miner, nobody was told",
}


class _Armed:
    def __init__(self, setting: str) -> None:
        self.name, _, nth = setting.partition("@")
        self.hits_left = int(nth or "1")


_armed = _Armed(os.environ.get("PEERD_FAILPOINT", ""))


def arm(setting: str) -> None:
    """Forget what the environment said, for NAME or NAME@N instead: a process that was forked has another one."""
    global _armed
    _armed = _Armed(setting)


def failpoint(name: str) -> None:
    """Die here with SIGKILL if the environment says so."""
    if name not in FAILPOINTS:
        raise LookupError(f"failpoint {name!r} is not listed in peerd.failpoints.FAILPOINTS")
    if name != _armed.name:
        return
    _armed.hits_left -= 1
    if _armed.hits_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
