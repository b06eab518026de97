"""Who gets through, on real TLS connections: the interceptor, not any name in a certificate, decides."""

from __future__ import annotations

import asyncio
import datetime
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

import peerd.v1
from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.caller import Caller, current_caller
from peerd.rpc.channels import Channels
from peerd.rpc.rules import Rules
from peerd.rpc.server import RpcServer
from peerd.rpc.status import remote_errors
from peerd.v1 import (
    access_pb2,
    daemon_pb2,
    daemon_pb2_grpc,
    detector_pb2,
    detector_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)
from tests.timing import quickest

FILES = [
    importlib.import_module(f"peerd.v1.{module.name}")
    for module in pkgutil.iter_modules(peerd.v1.__path__)
    if module.name.endswith("_pb2")
]
"""All there are: a new one is not forgotten."""


@dataclass
class Table:
    """Members and addresses, as a test wants them."""

    active: dict[PeerId, frozenset[int]] = field(default_factory=dict)
    invites: set[PeerId] = field(default_factory=set)
    revoked: set[PeerId] = field(default_factory=set)
    places: dict[PeerId, str] = field(default_factory=dict)

    def anchors(self) -> frozenset[PeerId]:
        return frozenset(self.active) | frozenset(self.invites)

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        return self.active.get(peer_id)

    def is_invite(self, peer_id: PeerId) -> bool:
        return peer_id in self.invites

    def is_revoked(self, peer_id: PeerId) -> bool:
        return peer_id in self.revoked

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        return (self.places[peer_id],) if peer_id in self.places else ()

    def resolve(self, text: str) -> PeerId:
        if text not in self.places:
            raise PeerdError(Reason.NOT_FOUND, f"no peer {text}")
        return PeerId(text)


class Echo(daemon_pb2_grpc.DaemonServiceServicer):
    async def GetStatus(self, request: Any, context: Any) -> daemon_pb2.GetStatusResponse:
        return daemon_pb2.GetStatusResponse(
            peer_id=current_caller().peer_id, name="local" if current_caller().local else ""
        )


class Endless(workflows_pb2_grpc.WorkflowServiceServicer):
    async def WatchExecution(self, request: Any, context: Any) -> AsyncIterator[workflows_pb2.WatchExecutionResponse]:
        if request.workflow_execution_id == 404:
            raise PeerdError(Reason.NOT_FOUND, "no such execution", next_action="look again", metadata={"id": "404"})
        if request.workflow_execution_id == 500:
            raise ZeroDivisionError("secret detail")
        yield workflows_pb2.WatchExecutionResponse(resume_token=1)
        await asyncio.Event().wait()


class Pings(detector_pb2_grpc.DetectorServiceServicer):
    async def Ping(self, request: Any, context: Any) -> detector_pb2.PingResponse:
        return detector_pb2.PingResponse()


# The stubs call every method abstract; these serve only what a test calls.
pings: Any = Pings
echo: Any = Echo
endless: Any = Endless


@dataclass
class Node:
    identity: Identity
    table: Table
    server: RpcServer
    channels: Channels
    socket: Path
    port: int


@asynccontextmanager
async def node(folder: Path, table: Table, name: str, *, workflows: Any = None, **more: Any) -> AsyncIterator[Node]:
    identity, clock, socket = Identity.generate(), SystemClock(), folder / f"{name}.d" / "s"
    table.active[identity.peer_id] = frozenset({access_pb2.GRANT_OBSERVE})
    channels = Channels(identity, table, clock, socket=socket)
    server = RpcServer(identity, table, channels, clock, resolve=table.resolve, **more)
    served = workflows or endless()
    server.register(
        [
            ("peerd.v1.DaemonService", lambda s: daemon_pb2_grpc.add_DaemonServiceServicer_to_server(echo(), s)),
            (
                "peerd.v1.WorkflowService",
                lambda s: workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(served, s),
            ),
            ("peerd.v1.DetectorService", lambda s: detector_pb2_grpc.add_DetectorServiceServicer_to_server(pings(), s)),
        ]
    )
    port = await server.start(listen="127.0.0.1:0", socket=socket)
    table.places[identity.peer_id] = f"127.0.0.1:{port}"
    try:
        yield Node(identity, table, server, channels, socket, port)
    finally:
        await channels.close()
        await server.stop(0)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b") as b:
        yield a, b


async def status_of(channel: aio.Channel) -> daemon_pb2.GetStatusResponse:
    with remote_errors("callee"):
        return await daemon_pb2_grpc.DaemonServiceStub(channel).GetStatus(daemon_pb2.GetStatusRequest(), timeout=30)


async def test_a_caller_is_the_key_that_signed_its_certificate(pair: tuple[Node, Node]) -> None:
    a, b = pair
    assert (await status_of(a.channels.channel(b.identity.peer_id))).peer_id == a.identity.peer_id


async def test_the_socket_is_this_peer_itself_and_closed_to_others(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    answer = await status_of(a.channels.channel(a.identity.peer_id))
    assert (answer.peer_id, answer.name) == (a.identity.peer_id, "local")
    assert a.socket.stat().st_mode & 0o077 == 0
    assert a.socket.parent.stat().st_mode & 0o077 == 0


async def test_a_stranger_learns_nothing_and_is_told_what_it_may_be(pair: tuple[Node, Node]) -> None:
    a, b = pair
    stranger = Channels(Identity.generate(), b.table, SystemClock())
    with pytest.raises(PeerdError) as caught:
        await status_of(stranger.channel(a.identity.peer_id))
    assert caught.value.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
    assert "members of one mesh" in caught.value.next_action
    await stranger.close()


async def test_a_peer_that_answers_with_another_key_is_not_believed(pair: tuple[Node, Node]) -> None:
    a, b = pair
    c = Identity.generate()
    a.table.places[c.peer_id] = f"127.0.0.1:{b.port}"
    with pytest.raises(PeerdError) as caught:
        await status_of(a.channels.channel(c.peer_id))
    assert caught.value.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE


async def test_a_revoked_peer_is_out_on_an_open_channel_and_its_streams_end(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def attempt() -> float:
        channel = a.channels.channel(b.identity.peer_id)
        await status_of(channel)
        stream = workflows_pb2_grpc.WorkflowServiceStub(channel).WatchExecution(workflows_pb2.WatchExecutionRequest())
        first: Any = await stream.read()
        assert first.resume_token == 1
        grants = b.table.active.pop(a.identity.peer_id)
        b.table.revoked.add(a.identity.peer_id)
        began = asyncio.get_running_loop().time()
        assert b.server.calls.end_calls(a.identity.peer_id, PeerdError(Reason.REVOKED, "revoked")) == 1
        with pytest.raises(PeerdError) as caught, remote_errors("b"):
            async with asyncio.timeout(30):
                await stream.read()
        took = asyncio.get_running_loop().time() - began
        assert caught.value.reason is Reason.REVOKED
        with pytest.raises(PeerdError) as caught:
            await status_of(channel)
        assert caught.value.reason is Reason.REVOKED
        b.table.active[a.identity.peer_id] = grants
        b.table.revoked.clear()
        return took

    await quickest(1, attempt)


async def test_errors_cross_the_wire_whole_and_crashes_do_not_leak(pair: tuple[Node, Node]) -> None:
    a, b = pair
    stub = workflows_pb2_grpc.WorkflowServiceStub(a.channels.channel(b.identity.peer_id))
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        await stub.WatchExecution(workflows_pb2.WatchExecutionRequest(workflow_execution_id=404)).read()
    assert (caught.value.reason, caught.value.next_action) == (Reason.NOT_FOUND, "look again")
    assert caught.value.metadata == {"id": "404"}
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        await stub.WatchExecution(workflows_pb2.WatchExecutionRequest(workflow_execution_id=500)).read()
    assert caught.value.reason is Reason.INTERNAL
    assert "secret" not in caught.value.message


async def test_health_can_be_watched_like_any_stream(pair: tuple[Node, Node]) -> None:
    a, b = pair
    stub: Any = health_pb2_grpc.HealthStub(a.channels.channel(b.identity.peer_id))
    with remote_errors("b"):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="peerd.v1.DaemonService"))
        first: Any = await watch.read()
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_the_socket_passes_calls_on_to_any_peer_with_their_errors(pair: tuple[Node, Node]) -> None:
    a, b = pair
    channel = aio.insecure_channel(f"unix:{a.socket}")
    metadata = (("peerd-peer", b.identity.peer_id),)
    stub = daemon_pb2_grpc.DaemonServiceStub(channel)
    answer = await stub.GetStatus(daemon_pb2.GetStatusRequest(), metadata=metadata)
    assert answer.peer_id == a.identity.peer_id
    watch = workflows_pb2_grpc.WorkflowServiceStub(channel).WatchExecution
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        await watch(workflows_pb2.WatchExecutionRequest(workflow_execution_id=404), metadata=metadata).read()
    assert caught.value.next_action == "look again"
    with pytest.raises(PeerdError) as caught, remote_errors("b"):
        await stub.GetStatus(daemon_pb2.GetStatusRequest(), metadata=(("peerd-peer", "nobody"),))
    assert caught.value.reason is Reason.NOT_FOUND
    await channel.close()


def mint(
    signer: Identity, names: list[x509.GeneralName], *, issuer: str, subject: str = "x", key: Any = None
) -> tuple[bytes, bytes]:
    """A leaf that claims what it likes, signed by a trusted key."""
    leaf_key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(leaf_key.public_key())
        .serial_number(5)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer.private_key, None)
    pem = certificate.public_bytes(Encoding.PEM)
    return pem, leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def claims(liar: Identity, victim: PeerId) -> Iterator[tuple[str, bytes, bytes]]:
    """Every way to present another's name."""
    import ipaddress

    mine, theirs = x509.DNSName(liar.peer_id), x509.DNSName(victim)
    uri, ip = x509.UniformResourceIdentifier(f"spiffe://{victim}"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    yield "dns", *mint(liar, [theirs], issuer=liar.peer_id)
    yield "dns, victim as issuer", *mint(liar, [theirs], issuer=victim)
    yield "both", *mint(liar, [mine, theirs], issuer=liar.peer_id)
    yield "ip", *mint(liar, [ip], issuer=liar.peer_id)
    yield "uri", *mint(liar, [uri], issuer=liar.peer_id)
    yield "mine and uri", *mint(liar, [mine, uri], issuer=liar.peer_id)
    yield "cn alone", *mint(liar, [], issuer=liar.peer_id, subject=victim)
    yield "ed25519 leaf", *mint(liar, [mine], issuer=liar.peer_id, key=Ed25519PrivateKey.generate())
    yield "p-384 leaf", *mint(liar, [mine], issuer=liar.peer_id, key=ec.generate_private_key(ec.SECP384R1()))
    mine_pem, mine_key = mint(liar, [theirs], issuer=liar.peer_id)
    yield "chain", mine_pem + anchor_pem(liar.peer_id), mine_key


async def test_no_name_in_a_certificate_makes_a_peer_another_one(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for what, pem, key in claims(a.identity, b.identity.peer_id):
        credentials = grpc.ssl_channel_credentials(anchor_pem(b.identity.peer_id), key, pem)
        options = [*limits.CLIENT, ("grpc.default_authority", b.identity.peer_id), ("case", what)]
        async with aio.secure_channel(f"127.0.0.1:{b.port}", credentials, options) as channel:
            with pytest.raises(PeerdError) as caught:
                await status_of(channel)
            refused = {Reason.NOT_AUTHENTICATED, Reason.NOT_TRUSTED_OR_UNREACHABLE}
            assert caught.value.reason in refused, what


async def test_an_expired_certificate_is_refused(pair: tuple[Node, Node]) -> None:
    a, b = pair

    class Earlier(SystemClock):
        def now(self) -> Any:
            return super().now() - 60 * 86_400_000

    leaf = issue_leaf(a.identity, Earlier())
    credentials = grpc.ssl_channel_credentials(
        anchor_pem(b.identity.peer_id), leaf.private_key_pem, leaf.certificate_pem
    )
    options = [*limits.CLIENT, ("grpc.default_authority", b.identity.peer_id)]
    async with aio.secure_channel(f"127.0.0.1:{b.port}", credentials, options) as channel:
        with pytest.raises(PeerdError):
            await status_of(channel)


def methods() -> Iterator[tuple[str, access_pb2.Access]]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method.GetOptions().Extensions[access_pb2.access]


def test_every_method_has_exactly_one_rule() -> None:
    listed = dict(methods())
    assert len(listed) > 60
    for name, rule in listed.items():
        assert [bool(rule.any_of), rule.member, rule.invite, rule.local].count(True) == 1, name


def test_every_method_is_refused_without_its_grant_and_passed_with_it() -> None:
    rules, me = Rules(), Identity.generate().peer_id
    every = [grant for grant in access_pb2.Grant.values() if grant]
    for name, rule in methods():
        for grant in every:
            allowed = grant in rule.any_of or rule.member
            assert passes(rules, name, Caller(peer_id=me, grants=frozenset({grant}))) is allowed, (name, grant)
        assert passes(rules, name, Caller(peer_id=me, grants=frozenset())) is rule.member, name
        assert passes(rules, name, Caller(peer_id=me, grants=frozenset(), invite=True)) is rule.invite, name
        assert passes(rules, name, Caller(peer_id=me, grants=frozenset(every), local=True)), name
    assert not passes(rules, "/peerd.v1.Nothing/Known", Caller(peer_id=me, grants=frozenset(every)))


def passes(rules: Rules, name: str, caller: Caller) -> bool:
    try:
        rules.check(name, caller)
    except PeerdError as error:
        assert error.reason in {Reason.PERMISSION_DENIED, Reason.NOT_A_MEMBER, Reason.LOCAL_ONLY}
        return False
    return True


async def test_a_call_without_the_grant_is_refused_on_the_wire(pair: tuple[Node, Node]) -> None:
    a, b = pair
    b.table.active[a.identity.peer_id] = frozenset({access_pb2.GRANT_EXECUTE})
    with pytest.raises(PeerdError) as caught:
        await status_of(a.channels.channel(b.identity.peer_id))
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert caught.value.metadata["grant"] == "observe"
