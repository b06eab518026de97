"""Refusals, limits and broken peers, on real connections."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc.channels import Channels, targets_of
from peerd.rpc.server import RpcServer
from peerd.rpc.status import DETAILS_KEY, from_rpc_error, remote_errors, to_status
from peerd.v1 import daemon_pb2, daemon_pb2_grpc, workflows_pb2, workflows_pb2_grpc
from tests.rpc.test_trust_on_the_wire import Node, Table, node, status_of
from tests.timing import quickest

BIG = 256 * 1024


class Troubled(workflows_pb2_grpc.WorkflowServiceServicer):
    """Refuses in many ways."""

    writes = 0

    async def GetExecution(self, request: Any, context: Any) -> Any:
        match request.workflow_execution_id:
            case 1:
                wrong = [Violation(field=f"jobs[{n}].name", message="m" * 200) for n in range(100)]
                raise PeerdError(Reason.INVALID_ARGUMENT, "too much is wrong", violations=wrong)
            case 2:
                raise PeerdError(Reason.INVALID_ARGUMENT, "a lone \ud800 surrogate, a \x07 bell and " + "x" * 5000)
            case 3:
                await asyncio.Event().wait()
            case 4:
                raise PeerdError(Reason.NOT_FOUND, "界" * 5000)
            case 5:
                raise PeerdError(Reason.NOT_FOUND, "gone", metadata={f"k{n}": "v" * 400 for n in range(40)})
            case 6:
                big = "\U0001f600" * 3000
                wrong = [Violation(field=big, message=big)] * 50
                raise PeerdError(Reason.INVALID_ARGUMENT, big, next_action=big, violations=wrong, metadata={"k": big})
            case 7:
                raise PeerdError(Reason.OVERLOADED, "later", retry_after_seconds=float("inf"))
        return workflows_pb2.GetExecutionResponse()

    async def WatchExecution(self, request: Any, context: Any) -> AsyncIterator[workflows_pb2.WatchExecutionResponse]:
        while True:
            execution = workflows_pb2.Execution(reason="x" * BIG)
            Troubled.writes += 1
            yield workflows_pb2.WatchExecutionResponse(resume_token=1, execution=execution)


troubled: Any = Troubled


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b", workflows=troubled()) as b:
        yield a, b


def workflows(a: Node, b: Node) -> workflows_pb2_grpc.WorkflowServiceAsyncStub:
    return workflows_pb2_grpc.WorkflowServiceStub(a.channels.channel(b.identity.peer_id))


async def refusal(a: Node, b: Node, number: int, timeout: float = 30) -> PeerdError:
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        await workflows(a, b).GetExecution(
            workflows_pb2.GetExecutionRequest(workflow_execution_id=number), timeout=timeout
        )
    return caught.value


def serving() -> int:
    """Handlers that grpc runs now, in any state: also those whose status does not get out."""
    return sum(task.get_coro().__qualname__ == "_handle_exceptions" for task in asyncio.all_tasks())  # type: ignore[union-attr]


async def stalled(a: Node, b: Node) -> Any:
    """A stream whose sender is held up by flow control."""
    stream = workflows(a, b).WatchExecution(workflows_pb2.WatchExecutionRequest())
    await stream.read()
    writes = -1
    async with asyncio.timeout(30):
        while writes != Troubled.writes:  # until a while passes without another one
            writes = Troubled.writes
            await asyncio.sleep(0.2)
    assert serving() == 1
    return stream


async def test_a_revoked_peer_that_does_not_read_is_rid_of_within_a_second_on_both_sides(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair

    async def attempt() -> float:
        stream = await stalled(a, b)
        began = asyncio.get_running_loop().time()
        assert b.server.calls.end_calls(a.identity.peer_id, PeerdError(Reason.REVOKED, "revoked")) == 1
        async with asyncio.timeout(30):
            while serving() or not stream.done():
                await asyncio.sleep(0.01)
        took = asyncio.get_running_loop().time() - began
        assert b.server.calls.end_calls(a.identity.peer_id, PeerdError(Reason.REVOKED, "again")) == 0
        await status_of(a.channels.channel(b.identity.peer_id))  # this table still lets it in, by another connection
        return took

    await quickest(1, attempt)


async def test_a_revoked_peer_that_reads_on_is_told_so(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def attempt() -> float:
        stream = await stalled(a, b)
        began = asyncio.get_running_loop().time()
        b.server.calls.end_calls(a.identity.peer_id, PeerdError(Reason.REVOKED, "revoked"))
        with pytest.raises(PeerdError) as caught, remote_errors("b"):
            async with asyncio.timeout(30):
                while True:
                    await stream.read()
        took = asyncio.get_running_loop().time() - began
        assert caught.value.reason is Reason.REVOKED
        async with asyncio.timeout(30):
            while serving():
                await asyncio.sleep(0.01)
        return took

    await quickest(1, attempt)


async def test_a_hundred_violations_arrive_as_many_as_fit(pair: tuple[Node, Node]) -> None:
    error = await refusal(*pair, 1)
    assert (error.reason, error.message) == (Reason.INVALID_ARGUMENT, "too much is wrong")
    assert len(error.violations) > 5
    assert error.violations[0].field == "jobs[0].name"
    assert error.violations[-1].message == f"and {100 - len(error.violations) + 1} more"


async def test_a_message_that_no_status_can_carry_is_made_fit(pair: tuple[Node, Node]) -> None:
    error = await refusal(*pair, 2)
    assert error.reason is Reason.INVALID_ARGUMENT
    assert error.message.startswith("a lone ? surrogate, a   bell and xxx")
    assert (error.message[-2:], 1400 < len(error.message) <= 1500) == ("x…", True)


@pytest.mark.parametrize(
    ("number", "reason", "begins"),
    [
        (4, Reason.NOT_FOUND, "界界"),
        (5, Reason.NOT_FOUND, "gone"),
        (6, Reason.INVALID_ARGUMENT, "\U0001f600"),
        (7, Reason.OVERLOADED, "later"),
    ],
    ids=["wide message", "many notes", "everything wide", "wait for ever"],
)
async def test_no_error_is_too_large_for_its_status(
    pair: tuple[Node, Node], number: int, reason: Reason, begins: str
) -> None:
    for _ in range(10):  # above the soft limit grpc refuses by chance
        error = await refusal(*pair, number)
        assert error.reason is reason
        assert error.message.startswith(begins)


@given(
    message=st.text(max_size=3000),
    next_action=st.text(max_size=3000),
    notes=st.dictionaries(st.text(max_size=40), st.text(max_size=2000), max_size=30),
    wrong=st.lists(st.builds(Violation, field=st.text(max_size=900), message=st.text(max_size=900)), max_size=60),
    wait=st.none() | st.floats(),
)
def test_whatever_is_said_fits_into_the_metadata(
    message: str, next_action: str, notes: dict[str, str], wrong: list[Violation], wait: float | None
) -> None:
    error = PeerdError(
        Reason.NOT_FOUND, message, next_action=next_action, metadata=notes, violations=wrong, retry_after_seconds=wait
    )
    code, text, metadata = to_status(error)
    details = metadata[0][1]
    assert isinstance(details, bytes)
    on_the_wire = len(quote(text, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))) + len(b64encode(details))
    assert on_the_wire < 7800
    back = from_rpc_error(plain(code, text, ((DETAILS_KEY, details),)), "b")
    assert (back.reason, back.message) == (Reason.NOT_FOUND, text)


async def test_a_message_that_is_too_large_is_permanent(pair: tuple[Node, Node]) -> None:
    a, b = pair
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        source = workflows_pb2.DefinitionSource(text="x" * (5 * 1024**2))
        await workflows(a, b).ValidateWorkflow(workflows_pb2.ValidateWorkflowRequest(source=source), timeout=30)
    assert (caught.value.reason, caught.value.retryable) == (Reason.TOO_LARGE, False)


async def test_more_calls_than_a_server_takes_is_overload_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peerd.rpc.server._MAX_CONCURRENT_RPCS", 1)
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b", workflows=troubled()) as b:
        waiting = workflows(a, b).GetExecution(workflows_pb2.GetExecutionRequest(workflow_execution_id=3))
        async with asyncio.timeout(30):
            while not serving():
                await asyncio.sleep(0.01)
        error = await refusal(a, b, 0)
        assert (error.reason, error.retryable) == (Reason.OVERLOADED, True)
        waiting.cancel()
        async with asyncio.timeout(30):
            while serving():
                await asyncio.sleep(0.01)
        await workflows(a, b).GetExecution(workflows_pb2.GetExecutionRequest(), timeout=30)


def plain(code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...] = ()) -> aio.AioRpcError:
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(*trailing), details=details)


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xff\xff", b"\x1a\x02\xff\xff", b"\x08\x05"])
def test_rubbish_in_the_details_is_no_worse_than_none(rubbish: bytes) -> None:
    error = from_rpc_error(plain(grpc.StatusCode.NOT_FOUND, "gone", ((DETAILS_KEY, rubbish),)), "b")
    assert error.reason is Reason.NOT_FOUND
    assert "gone" in error.message


def details(*more: Any, message: str = "no", reason: str = "overloaded") -> bytes:
    """What a peer may send that keeps to no rule."""
    packed = [AnyMessage() for _ in range(1 + len(more))]
    info = error_details_pb2.ErrorInfo(reason=reason, domain="peerd", metadata={"next_action": message})
    for one, content in zip(packed, (info, *more), strict=True):
        one.Pack(content)
    said: bytes = status_pb2.Status(code=8, message=message, details=packed).SerializeToString()
    return said


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 10**12, -1])
def test_a_wait_that_makes_no_sense_is_none_at_all(seconds: int) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = seconds
    error = from_rpc_error(plain(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", ((DETAILS_KEY, details(retry)),)), "b")
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after_seconds is None or 0 <= error.retry_after_seconds <= 86_400


def test_what_another_peer_says_does_not_steer_our_terminal() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="\x1b[2J", description="\u202e\x9b")
    said = details(bad, message="\x1b[2Jwiped")
    error = from_rpc_error(plain(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", ((DETAILS_KEY, said),)), "b")
    texts = [error.message, error.next_action, error.violations[0].field, error.violations[0].message]
    assert all(text.isprintable() for text in texts), texts
    bare = from_rpc_error(plain(grpc.StatusCode.NOT_FOUND, "\x1b[2Jwiped"), "b")
    assert bare.message.isprintable()


async def test_words_of_other_services_pass_through_the_socket_as_they_are(pair: tuple[Node, Node]) -> None:
    a, b = pair
    channel = aio.insecure_channel(f"unix:{a.socket}")
    stub: Any = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.Check(
            health_pb2.HealthCheckRequest(service="no.such"), metadata=(("peerd-peer", b.identity.peer_id),), timeout=30
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await channel.close()


async def test_a_file_at_the_sockets_place_is_not_deleted(tmp_path: Path) -> None:
    identity, table, clock = Identity.generate(), Table(), SystemClock()
    server = RpcServer(identity, table, Channels(identity, table, clock), clock, resolve=table.resolve)
    place = tmp_path / "run" / "s"
    place.parent.mkdir(mode=0o700)
    place.write_text("precious")
    with pytest.raises(PeerdError) as caught:
        await server.start(listen="127.0.0.1:0", socket=place)
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert place.read_text() == "precious"
    await server.stop(0)


async def test_one_who_takes_the_connection_and_says_nothing_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        identity, table, other = Identity.generate(), Table(), Identity.generate().peer_id
        table.places[other] = f"127.0.0.1:{mute.getsockname()[1]}"
        channels = Channels(identity, table, SystemClock())
        stub = daemon_pb2_grpc.DaemonServiceStub(channels.channel(other))
        with pytest.raises(PeerdError) as caught, remote_errors("mute"):
            async with asyncio.timeout(15):
                await stub.GetStatus(daemon_pb2.GetStatusRequest(), timeout=0.5)
        assert caught.value.retryable
        await channels.close()


# -- Several addresses


def test_addresses_of_one_family_share_a_target_and_the_order_stays() -> None:
    assert targets_of(["10.0.0.1:1", "10.0.0.2:1"]) == ["ipv4:10.0.0.1:1,10.0.0.2:1"]
    assert targets_of(["host:1", "10.0.0.1:1", "[::1]:2", "[::2]:2"]) == [
        "dns:///host:1",
        "ipv4:10.0.0.1:1",
        "ipv6:[::1]:2,[::2]:2",
    ]


class Places(Table):
    """A peer at several places."""

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        return tuple(self.places[peer_id].split())


async def test_a_peer_is_reached_by_its_second_address_of_another_kind(tmp_path: Path) -> None:
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b") as b:
        mute = socket.create_server(("127.0.0.1", 0))  # takes the connection, and never says a word
        places = Places(active=table.active)
        places.places[b.identity.peer_id] = f"[::1]:1 localhost:{mute.getsockname()[1]} 127.0.0.1:{b.port}"
        channels = Channels(a.identity, places, SystemClock())
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await status_of(channels.channel(b.identity.peer_id))
                    break
                except PeerdError as error:
                    assert error.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
                    await asyncio.sleep(0.02)
        assert answer.peer_id == a.identity.peer_id
        await channels.close()
        mute.close()


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS"])
def test_a_connection_that_ends_in_the_middle_is_no_failure_of_the_other_side(code: str) -> None:
    """A transfer that takes it for a verdict gives up for good."""
    error = from_rpc_error(plain(grpc.StatusCode[code], "Internal error from Core"), "b")
    assert (error.reason, error.retryable) == (Reason.CONNECTION_LOST, True)
    said = to_status(PeerdError(Reason.INTERNAL, "a bug"))
    details = said[2][0][1]
    assert isinstance(details, bytes)
    error = from_rpc_error(plain(said[0], said[1], ((DETAILS_KEY, details),)), "b")
    assert (error.reason, error.retryable) == (Reason.INTERNAL, False)
    error = from_rpc_error(plain(grpc.StatusCode.INTERNAL, "Exception deserializing response!"), "b")
    assert error.reason is Reason.INTERNAL
