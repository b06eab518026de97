"""The outbox against a real gRPC server that plays the orchestrator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from peerd.identity.peer_id import PeerId
from peerd.jobs.model import JobStatus
from peerd.jobs.reporter import Reporter
from peerd.v1 import jobs_pb2, jobs_pb2_grpc

from .harness import ORCHESTRATOR, OTHER, Host, ended, job_key


class Orchestrator(jobs_pb2_grpc.JobReportServiceServicer):
    """Stores what it is told; may refuse, or lose its answer."""

    def __init__(self) -> None:
        self.reports: list[jobs_pb2.JobReport] = []
        self.away = 0
        self.told = asyncio.Condition()

    async def ReportJobs(self, request: jobs_pb2.ReportJobsRequest, context: Any) -> jobs_pb2.ReportJobsResponse:
        if self.away:
            self.away -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        async with self.told:
            self.reports += request.reports
            self.told.notify_all()
        return jobs_pb2.ReportJobsResponse(
            acknowledged=[
                jobs_pb2.AcknowledgedReport(key=report.key, revision=report.revision) for report in request.reports
            ]
        )

    async def heard(self, status: jobs_pb2.JobStatus.ValueType, job_id: int) -> jobs_pb2.JobReport:
        def found() -> list[jobs_pb2.JobReport]:
            return [r for r in self.reports if r.status == status and r.job_execution_id == job_id]

        async with asyncio.timeout(30), self.told:
            await self.told.wait_for(lambda: bool(found()))
        return found()[0]


class Wire:
    """Channels to the servers of this test."""

    def __init__(self) -> None:
        self.ports: dict[PeerId, int] = {}
        self.open: list[aio.Channel] = []

    def channel(self, peer_id: PeerId) -> aio.Channel:
        channel = aio.insecure_channel(f"127.0.0.1:{self.ports[peer_id]}")
        self.open.append(channel)
        return channel


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    yield made
    for channel in made.open:
        await channel.close()


@pytest.fixture
async def orchestrator(wire: Wire) -> AsyncIterator[Orchestrator]:
    servicer = Orchestrator()
    server = aio.server()
    jobs_pb2_grpc.add_JobReportServiceServicer_to_server(servicer, server)
    wire.ports[ORCHESTRATOR] = server.add_insecure_port("127.0.0.1:0")
    wire.ports[OTHER] = 1  # nobody listens there
    await server.start()
    yield servicer
    await server.stop(None)


@pytest.fixture
async def reporter(host: Host, wire: Wire) -> AsyncIterator[Reporter]:
    made = Reporter(host.store, host.floor.repository, host.jobs.servicer._views, wire, host.clock)  # type: ignore[arg-type]
    made.listen(host.floor.changes)
    task = asyncio.ensure_future(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def acknowledged(host: Host, job_id: int) -> None:
    """Until the outbox is empty for that job."""
    async with asyncio.timeout(30):
        while (job := await host.job(job_id)).acknowledged_revision < job.revision:
            await asyncio.sleep(0)


async def test_every_state_reaches_the_orchestrator_and_is_told_once(
    host: Host, orchestrator: Orchestrator, reporter: Reporter
) -> None:
    job_id = await host.create()
    assert not await reporter.tell(ORCHESTRATOR)
    assert orchestrator.reports == [], "its own answer told the orchestrator that the job exists"
    await host.start(job_id)
    await orchestrator.heard(jobs_pb2.JOB_STATUS_RUNNING, job_id)
    await host.runner.finish(await host.runner.started(), ended(0))
    report = await orchestrator.heard(jobs_pb2.JOB_STATUS_COMPLETED, job_id)
    assert (report.key, report.exit_code, report.attempt) == (job_key(), 0, 1)
    await acknowledged(host, job_id)
    told = [entry.revision for entry in orchestrator.reports]
    assert told == sorted(set(told))


async def test_news_wait_while_the_orchestrator_is_away(
    host: Host, orchestrator: Orchestrator, reporter: Reporter
) -> None:
    orchestrator.away = 3
    job_id = await host.create()
    await host.start(job_id)
    await host.runner.finish(await host.runner.started(), ended(4))
    await host.until(job_id, JobStatus.FAILED)
    while not orchestrator.reports:
        host.clock.advance(1)
        await asyncio.sleep(0)
    await orchestrator.heard(jobs_pb2.JOB_STATUS_FAILED, job_id)
    await acknowledged(host, job_id)


async def test_one_orchestrator_that_is_away_holds_up_nobody_else(
    host: Host, orchestrator: Orchestrator, reporter: Reporter
) -> None:
    away = await host.create(caller=OTHER)
    await host.start(away, caller=OTHER)
    mine = await host.create()
    await host.start(mine)
    await orchestrator.heard(jobs_pb2.JOB_STATUS_RUNNING, mine)
    job = await host.job(away)
    assert job.acknowledged_revision < job.revision


async def test_the_outbox_survives_a_restart(host: Host, orchestrator: Orchestrator, wire: Wire) -> None:
    job_id = await host.create()
    await host.start(job_id)
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    await host.restart()
    reporter = Reporter(host.store, host.floor.repository, host.jobs.servicer._views, wire, host.clock)  # type: ignore[arg-type]
    task = asyncio.ensure_future(reporter.run())
    await orchestrator.heard(jobs_pb2.JOB_STATUS_COMPLETED, job_id)
    await acknowledged(host, job_id)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_acknowledged_report_renews_the_lease(
    host: Host, orchestrator: Orchestrator, reporter: Reporter
) -> None:
    job_id = await host.create()
    host.clock.advance(30)
    await host.start(job_id)
    host.clock.advance(20)
    await host.runner.finish(await host.runner.started(), ended(0))
    await orchestrator.heard(jobs_pb2.JOB_STATUS_COMPLETED, job_id)
    await acknowledged(host, job_id)
    assert (await host.job(job_id)).contact_at == host.clock.now()


async def test_an_acknowledgement_of_what_does_not_exist_yet_silences_nothing(
    host: Host, orchestrator: Orchestrator, reporter: Reporter
) -> None:
    job_id = await host.create()
    key = (await host.job(job_id)).key
    await host.store.write(lambda tx: host.floor.repository.acknowledge(tx, key, 1_000_000))
    await host.start(job_id)
    await orchestrator.heard(jobs_pb2.JOB_STATUS_RUNNING, job_id)
