"""What one caller may hold, on servers in this process whose bounds are small."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from peerd.errors import PeerdError, Reason
from peerd.rpc import accepting, limits
from peerd.rpc.status import remote_errors
from peerd.rpc.swarms import check_entries, most_entries
from peerd.v1 import daemon_pb2, daemon_pb2_grpc, detector_pb2, detector_pb2_grpc, jobs_pb2
from tests.hostile.attacks import STATUS
from tests.hostile.wire import Connection, Member, data, grpc_message, open_call
from tests.rpc import test_trust_on_the_wire as trust
from tests.rpc.test_trust_on_the_wire import Node, Table, node, status_of

WATCH = b"/peerd.v1.WorkflowService/WatchExecution"


@contextlib.asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    table = Table()
    async with node(folder, table, "a") as a, node(folder, table, "b") as b:
        yield a, b


async def connected(a: Node, b: Node, *pairs: tuple[int, int]) -> Connection:
    """A hand-written connection from a to b."""
    made = await asyncio.to_thread(Member(a.identity, b.identity.peer_id).connect, b.port)
    await asyncio.to_thread(made.greet, *pairs)
    return made


async def ends_of(connection: Connection, *streams: int, seconds: float = 30) -> dict[int, bytes]:
    """The statuses of those calls, which have to end."""
    assert not await asyncio.to_thread(connection.answered, set(streams), seconds)
    return {stream: connection.statuses[stream] for stream in streams}


async def test_a_call_whose_request_never_comes_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: grpcio waits for the message of a call for ever, and such a call held a place."""
    monkeypatch.setattr(limits, "UNARY_SECONDS", 0.3)
    async with two(tmp_path) as (a, b):
        with await connected(a, b) as connection:
            connection.send(open_call(1, STATUS) + open_call(3, WATCH))
            assert await ends_of(connection, 1, 3) == {1: b"4", 3: b"4"}
            connection.send(open_call(5, STATUS) + data(5, grpc_message(b"abc", length=1000), end=False))
            assert await ends_of(connection, 5) == {5: b"4"}


async def test_work_that_grows_with_what_a_peer_holds_may_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: however long its caller would have waited, it was ended, and began anew with each call."""

    class Slow(daemon_pb2_grpc.DaemonServiceServicer):
        async def GetStatus(self, request: Any, context: Any) -> daemon_pb2.GetStatusResponse:
            await asyncio.sleep(1.5)  # the work itself
            return daemon_pb2.GetStatusResponse(name="done")

    monkeypatch.setattr(trust, "echo", Slow)
    monkeypatch.setattr(limits, "UNARY_SECONDS", 0.3)
    async with two(tmp_path) as (a, b):
        with pytest.raises(PeerdError) as caught:
            await status_of(a.channels.channel(b.identity.peer_id))
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        monkeypatch.setattr(limits, "LONG_CALLS", ("/peerd.v1.DaemonService/",))
        assert (await status_of(a.channels.channel(b.identity.peer_id))).name == "done"
        with await connected(a, b) as connection:
            connection.send(open_call(1, STATUS))
            assert await ends_of(connection, 1) == {1: b"4"}, "its request must come as soon as any"


def test_the_calls_that_may_take_longer_are_there() -> None:
    served = {
        f"/{service.full_name}/{method.name}"
        for file in trust.FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    for start in limits.LONG_CALLS:
        assert any(method.startswith(start) for method in served), start


async def test_a_call_without_a_request_is_told_so(tmp_path: Path) -> None:
    """Regression: it got no answer at all."""
    async with two(tmp_path) as (a, b):
        with await connected(a, b) as connection:
            connection.send(open_call(1, STATUS) + data(1, b""))
            assert await ends_of(connection, 1) == {1: b"3"}


async def test_one_peer_cannot_take_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CALLS_OF_A_PEER", 3)
    monkeypatch.setattr(limits, "MAX_PROBES_OF_A_PEER", 1)
    async with two(tmp_path) as (a, b):
        good = b.channels.channel(b.identity.peer_id)
        with await connected(a, b) as connection:
            connection.send(b"".join(open_call(stream, STATUS) for stream in (1, 3, 5, 7, 9)))
            assert await ends_of(connection, 7, 9) == {7: b"8", 9: b"8"}
            with pytest.raises(PeerdError) as caught:
                await status_of(a.channels.channel(b.identity.peer_id))
            assert (caught.value.reason, caught.value.retryable) == (Reason.OVERLOADED, True)
            with remote_errors("b"):
                stub = detector_pb2_grpc.DetectorServiceStub(a.channels.probe_channel(b.identity.peer_id))
                await stub.Ping(detector_pb2.PingRequest(), timeout=30)
            await status_of(good)
        await answered_again(a, b)


async def test_an_answer_that_nobody_takes_is_an_open_call_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CALLS_OF_A_PEER", 3)
    async with two(tmp_path) as (a, b):
        with await connected(a, b, (4, 0)) as connection:  # INITIAL_WINDOW_SIZE
            connection.send(
                b"".join(open_call(stream, STATUS) + data(stream, grpc_message(b"")) for stream in (1, 3, 5))
            )
            connection.send(open_call(7, STATUS) + data(7, grpc_message(b"")))
            assert await ends_of(connection, 7) == {7: b"8"}
        await answered_again(a, b)


async def answered_again(a: Node, b: Node) -> None:
    """The places are free again once the connection is gone."""
    async with asyncio.timeout(60):
        while True:
            try:
                await status_of(a.channels.channel(b.identity.peer_id))
            except PeerdError as error:
                assert error.reason is Reason.OVERLOADED
                await asyncio.sleep(0.02)
            else:
                return


async def test_a_listener_takes_so_many_connections_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "max_connections", lambda peers: 2)
    async with two(tmp_path) as (a, b):
        first, second = await connected(a, b), await connected(a, b)
        with first, second:
            with pytest.raises(OSError), await connected(a, b) as third:
                if await asyncio.to_thread(third.closed_within, 30):
                    raise ConnectionResetError
            first.send(open_call(1, STATUS) + data(1, grpc_message(b"")))
            assert await ends_of(first, 1) == {1: b"0"}


def test_connections_leave_half_of_the_files_to_the_store_and_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"soft": 100_000}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files["soft"], 100_000))
    assert [limits.max_connections(peers) for peers in (1, 120, 1000)] == [512, 512, 4032]
    files["soft"] = 256
    assert limits.max_connections(1000) == 128
    files["soft"] = resource.RLIM_INFINITY
    assert limits.max_connections(1000) == 4032


async def test_another_daemon_cannot_share_the_port(tmp_path: Path) -> None:
    table = Table()
    async with node(tmp_path, table, "a") as a:
        with pytest.raises(PeerdError) as caught:
            await a.server.start(listen=f"127.0.0.1:{a.port}", socket=tmp_path / "other" / "s")
        assert caught.value.reason is Reason.INVALID_CONFIG
        await status_of(a.channels.channel(a.identity.peer_id))


@pytest.mark.parametrize("small", [True, False])
async def test_health_takes_a_megabyte_and_others_four(tmp_path: Path, small: bool) -> None:
    async with two(tmp_path) as (a, b):
        path = "/grpc.health.v1.Health/Check" if small else "/peerd.v1.DetectorService/Ping"
        call: Any = a.channels.channel(b.identity.peer_id).unary_unary(path)
        padding = b"\xfa\x07" + b"\x80\x80\x48" + bytes(72 * 2**14)  # a field that nobody knows, of 1.1 MiB
        if small:
            with pytest.raises(aio.AioRpcError) as caught:
                await call(padding, timeout=30)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            await call(padding, timeout=30)


def test_entries_are_counted_on_all_levels_and_only_then_refused() -> None:
    method = "/peerd.v1.JobService/SyncJobs"
    most = most_entries(method)
    for count in (most, most + 1):
        request = jobs_pb2.SyncJobsRequest(keys=[jobs_pb2.JobKey(store_id="x")] * count)
        if count > most:
            with pytest.raises(PeerdError) as caught:
                check_entries(method, request.DESCRIPTOR, request.SerializeToString())
            assert caught.value.reason is Reason.TOO_LARGE
        else:
            check_entries(method, request.DESCRIPTOR, request.SerializeToString())
    deep = detector_pb2.PingRequest()
    for _ in range(2):
        suspicions = deep.updates.add().suspicions
        for _ in range(6000):
            suspicions.add()
    with pytest.raises(PeerdError):
        check_entries("/peerd.v1.DetectorService/Ping", deep.DESCRIPTOR, deep.SerializeToString())


async def test_a_listener_that_breaks_down_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the accept loop of grpcio as it is, which a path that is no text breaks."""
    monkeypatch.setattr(accepting, "_NEEDED", ("what no grpcio has",))
    async with two(tmp_path) as (a, b):
        with await connected(a, b) as connection:
            connection.send(open_call(1, b"/\xff") + data(1, grpc_message(b"")))
            assert await asyncio.to_thread(connection.closed_within, 60)
        async with asyncio.timeout(60):
            while True:
                try:
                    await status_of(a.channels.channel(b.identity.peer_id))
                except PeerdError as error:
                    assert error.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
                    await asyncio.sleep(0.02)
                else:
                    break
