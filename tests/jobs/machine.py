"""One machine and its orchestrator in a process that a test kills: ``machine.py DATA_DIR EFFECT_LOG run|cancel``.

Drives job 27 to its end, repeating every call as an orchestrator does that heard nothing. Real store, real processes,
real gRPC for the reports; only the sender is replaced, by a table in the same store.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from grpc import aio

from peerd.catalog.catalog import Catalog
from peerd.clock import SystemClock
from peerd.config import JobsConfig
from peerd.disk import NOTHING_KEPT
from peerd.jobs.assembly import JobFloor, Surroundings, assemble
from peerd.jobs.runner import ProcessRunner
from peerd.store import Tx, open_store
from peerd.transfers.model import OutgoingTransfer, TransferKey
from peerd.v1 import jobs_pb2, jobs_pb2_grpc

from .harness import EXECUTOR, ORCHESTRATOR, calling, create_request, interface, job_key, receiver_at

FINAL = {jobs_pb2.JOB_STATUS_COMPLETED, jobs_pb2.JOB_STATUS_CANCELLED, jobs_pb2.JOB_STATUS_FAILED}


class TableOfSends:
    """Orders to send, as durable as the sender's own."""

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        tx.execute("INSERT INTO test_sends VALUES (?)", (transfer.key.edge_id,))

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        raise AssertionError("nothing is withdrawn here")

    def progress(self, key: TransferKey) -> tuple[int, int]:
        return 0, 0


class Reports(jobs_pb2_grpc.JobReportServiceServicer):
    async def ReportJobs(self, request: jobs_pb2.ReportJobsRequest, context: Any) -> jobs_pb2.ReportJobsResponse:
        stored = [jobs_pb2.AcknowledgedReport(key=entry.key, revision=entry.revision) for entry in request.reports]
        return jobs_pb2.ReportJobsResponse(acknowledged=stored)


class Loopback:
    def __init__(self, port: int) -> None:
        self._channel = aio.insecure_channel(f"127.0.0.1:{port}")

    def channel(self, peer_id: str) -> aio.Channel:
        return self._channel

    async def close(self) -> None:
        await self._channel.close()


async def main(data_dir: Path, log: Path, mode: str) -> str:
    clock = SystemClock()
    store = await open_store(data_dir / "peerd.db", clock)
    await store.write(lambda tx: tx.execute("CREATE TABLE IF NOT EXISTS test_sends (edge_id INTEGER)"))
    server = aio.server()
    jobs_pb2_grpc.add_JobReportServiceServicer_to_server(Reports(), server)
    wire = Loopback(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    catalog = Catalog(store, data_dir)
    seconds = "0.3" if mode == "run" else "60"
    script = f"echo start >> {log}; sleep {seconds}; echo made > output/made.txt; echo done >> {log}"
    await catalog.sync([{"name": "work", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/sh", "-c", script]}])
    floor = JobFloor(data_dir=data_dir, control_root=data_dir / "control", peer_id=EXECUTOR, name_of=str)
    runner = ProcessRunner(None)
    around = Surroundings(
        store=store,
        clock=clock,
        catalog=catalog,
        channels=wire,  # type: ignore[arg-type]
        sends=TableOfSends(),
        runner=runner,
        isolation=runner.isolation,
        roles_of=lambda peer_id: frozenset(),
        reserve=NOTHING_KEPT,
    )
    jobs = assemble(floor, around, JobsConfig())
    tasks = [asyncio.ensure_future(jobs.executor.run()), asyncio.ensure_future(jobs.reporter.run())]
    try:
        return await drive(jobs.servicer, store, log, mode)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await wire.close()
        await server.stop(None)
        await store.close()


async def drive(servicer: Any, store: Any, log: Path, mode: str) -> str:
    with calling(ORCHESTRATOR):
        job_id = (await servicer.CreateJob(create_request(), None)).job_execution_id
        start = jobs_pb2.StartJobRequest(
            key=job_key(), job_execution_id=job_id, generation=1, interfaces=[interface("output", receiver_at(5))]
        )
        await servicer.StartJob(start, None)
        while True:
            (report,) = (await servicer.SyncJobs(jobs_pb2.SyncJobsRequest(keys=[job_key()]), None)).reports
            (row,) = await store.all("SELECT revision - acknowledged_revision AS untold FROM job_executions")
            if report.status in FINAL and row["untold"] == 0:
                break
            if mode == "cancel" and log.exists():
                await servicer.CancelJob(jobs_pb2.CancelJobRequest(key=job_key()), None)
            await asyncio.sleep(0.02)
    print(f"{report.reason}: {report.message}", file=sys.stderr)
    (sends,) = await store.all("SELECT count(*) AS orders FROM test_sends")
    return f"{jobs_pb2.JobStatus.Name(report.status)} attempt={report.attempt} sends={sends['orders']}"


if __name__ == "__main__":
    print(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
