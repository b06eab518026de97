"""How often a peer may call, and what is counted, on real connections."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from peerd.errors import PeerdError, Reason
from peerd.rpc import rates as rates_module
from peerd.rpc.caller import Caller
from peerd.rpc.rates import Bucket, Rates
from peerd.v1 import access_pb2, detector_pb2, detector_pb2_grpc, workflows_pb2, workflows_pb2_grpc
from tests.rpc.test_trust_on_the_wire import Table, node, status_of


def test_a_bucket_gives_a_burst_and_then_a_steady_rate() -> None:
    bucket = Bucket(tokens=3, filled_at=0.0)
    assert [bucket.take(0.0, per_second=2, burst=3) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.5, per_second=2, burst=3) == 0
    assert bucket.take(0.5, per_second=2, burst=3) == pytest.approx(0.5)
    assert [bucket.take(100.0, per_second=2, burst=3) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


class Seen:
    """What an observer is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def handled(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method.rpartition("/")[2], code))

    def refused(self, method: str, caller: Caller, request: object, error: PeerdError) -> None:
        self.calls.append((caller.peer_id, error.reason.text))


async def test_one_caller_is_limited_and_told_how_long_and_others_are_not(tmp_path: Path) -> None:
    table, seen = Table(), Seen()
    rates = Rates(per_second=0.01, burst=3)
    async with (
        node(tmp_path, table, "a") as a,
        node(tmp_path, table, "c") as c,
        node(tmp_path, table, "b", rates=rates, observer=seen) as b,
    ):
        channel = a.channels.channel(b.identity.peer_id)
        for _ in range(3):
            await status_of(channel)
        with pytest.raises(PeerdError) as caught:
            await status_of(channel)
        assert (caught.value.reason, caught.value.retryable) == (Reason.RATE_LIMITED, True)
        assert caught.value.retry_after_seconds == pytest.approx(100, abs=5)
        await status_of(c.channels.channel(b.identity.peer_id))
        local = aio.insecure_channel(f"unix:{b.socket}")
        for _ in range(5):
            await status_of(local)
        await local.close()
    assert seen.calls.count(("GetStatus", "OK")) == 9
    assert seen.calls.count(("GetStatus", "RESOURCE_EXHAUSTED")) == 1
    assert (a.identity.peer_id, "rate_limited") in seen.calls


def test_the_table_of_buckets_is_bounded_and_who_calls_on_stays_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MAX_CALLERS", 3)
    rates = Rates(per_second=0.001, burst=2)
    rates.check("busy", 0.0)
    for n in range(50):
        rates.check(f"passer-by {n}", 0.0)
        if n == 1:
            rates.check("busy", 0.0)
    assert len(rates._buckets) == 3
    with pytest.raises(PeerdError):
        for _ in range(3):
            rates.check("passer-by 49", 0.0)


@pytest.mark.parametrize("per_second", [0, -1])
def test_a_rate_of_zero_limits_nobody(per_second: float) -> None:
    rates = Rates(per_second=per_second, burst=1)
    for _ in range(100):
        rates.check("a", 0.0)


async def test_probes_are_answered_also_when_the_bucket_is_empty(tmp_path: Path) -> None:
    table = Table()
    async with (
        node(tmp_path, table, "a") as a,
        node(tmp_path, table, "b", rates=Rates(per_second=0.001, burst=1)) as b,
    ):
        channel = a.channels.channel(b.identity.peer_id)
        await status_of(channel)
        with pytest.raises(PeerdError) as caught:
            await status_of(channel)
        assert caught.value.reason is Reason.RATE_LIMITED
        stub = detector_pb2_grpc.DetectorServiceStub(channel)
        for _ in range(5):
            await stub.Ping(detector_pb2.PingRequest(), timeout=30)


async def test_every_end_of_a_call_is_counted_once_as_grpc_spells_it(tmp_path: Path) -> None:
    table, seen = Table(), Seen()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b", observer=seen) as b:
        channel = a.channels.channel(b.identity.peer_id)
        watch = workflows_pb2_grpc.WorkflowServiceStub(channel).WatchExecution
        health: Any = health_pb2_grpc.HealthStub(channel)
        await status_of(channel)
        with pytest.raises(aio.AioRpcError):
            await watch(workflows_pb2.WatchExecutionRequest(workflow_execution_id=404)).read()
        with pytest.raises(aio.AioRpcError):
            await watch(workflows_pb2.WatchExecutionRequest(workflow_execution_id=500)).read()
        with pytest.raises(aio.AioRpcError):
            await health.Check(health_pb2.HealthCheckRequest(service="no.such"))
        await health.Check(health_pb2.HealthCheckRequest())
        left = watch(workflows_pb2.WatchExecutionRequest())
        await left.read()
        left.cancel()
        async with asyncio.timeout(30):
            while ("WatchExecution", "CANCELLED") not in seen.calls:
                await asyncio.sleep(0.01)
        b.table.active[a.identity.peer_id] = frozenset({access_pb2.GRANT_EXECUTE})
        with pytest.raises(PeerdError):
            await status_of(channel)
    assert sorted(call for call in seen.calls if call[0] != a.identity.peer_id) == sorted(
        [
            ("GetStatus", "OK"),
            ("WatchExecution", "NOT_FOUND"),
            ("WatchExecution", "INTERNAL"),
            ("Check", "NOT_FOUND"),
            ("Check", "OK"),
            ("WatchExecution", "CANCELLED"),
            ("GetStatus", "PERMISSION_DENIED"),
        ]
    )
