"""Two peers, real TLS: what is sent arrives whole, once, where it is expected, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from peerd.disk import NOTHING_KEPT, Reserve
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS
from peerd.rpc.channels import Channels
from peerd.rpc.server import RpcServer
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx, open_store
from peerd.transfers import manifest, receiver, sender, wire
from peerd.transfers.manifest import BLOCK_BYTES, Scanned, scan
from peerd.transfers.model import Expectation, OutgoingTransfer, Received, Source, TransferKey
from peerd.transfers.receiver import Limits, Receiver
from peerd.transfers.sender import Sender
from peerd.transfers.servicer import TransferServicer
from peerd.transfers.staging import FOLDER, Staging
from peerd.v1 import transfers_pb2, transfers_pb2_grpc
from tests.mesh.nodes import ShiftedClock

T = TypeVar("T")


@dataclass
class World:
    """Who is trusted and where; the same for both peers."""

    peers: set[PeerId] = field(default_factory=set)
    places: dict[PeerId, str] = field(default_factory=dict)

    def anchors(self) -> frozenset[PeerId]:
        return frozenset(self.peers)

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        return ALL_GRANTS if peer_id in self.peers else None

    def is_invite(self, peer_id: PeerId) -> bool:
        return False

    def is_revoked(self, peer_id: PeerId) -> bool:
        return False

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        return (self.places[peer_id],)


class Ledger:
    """Stands for jobs at both ends: what is expected, and what was heard."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "job"
        self.expected: dict[int, TransferKey] = {}
        self.refuse: PeerdError | None = None
        self.room: int | None = None
        self.accepted_: list[tuple[int, int]] = []
        self.refused_: list[tuple[int, Reason]] = []
        self.received_: list[Received] = []
        self.may_record = threading.Event()
        self.may_record.set()
        self.delivered_: list[TransferKey] = []
        self.failed: list[tuple[str, str]] = []
        self.news = asyncio.Event()

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        if self.refuse is not None:
            raise self.refuse
        if self.expected.get(key.edge_id) != key:
            raise PeerdError(Reason.UNEXPECTED_TRANSFER, "no job expects this from this peer")
        return Expectation(
            directory=self.root / "input", root=self.root, room_bytes=self.room, was_refused=bool(self.refused_)
        )

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self.accepted_.append((key.edge_id, total_bytes))

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        self.refused_.append((key.edge_id, error.reason))

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        self.received_.append(received)
        assert self.may_record.wait(60)

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self.delivered_.append(key)
        tx.on_commit(self.news.set)

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        self.failed.append((reason, message))
        tx.on_commit(self.news.set)


@dataclass
class Peer:
    id: PeerId
    ledger: Ledger
    store: Store
    sender: Sender
    channels: Channels
    receiver: Receiver
    clock: ShiftedClock
    running: asyncio.Task[None]

    async def outcome(self) -> None:
        async with asyncio.timeout(60):
            await self.ledger.news.wait()
        self.ledger.news.clear()


@asynccontextmanager
async def peer(folder: Path, world: World, limits: Limits | None = None) -> AsyncIterator[Peer]:
    folder.mkdir(parents=True)
    identity, clock, ledger = Identity.generate(), ShiftedClock(), Ledger(folder)
    world.peers.add(identity.peer_id)
    store = await open_store(folder / "db", clock)
    channels = Channels(identity, world, clock, socket=folder / "s" / "s")
    sending = Sender(identity.peer_id, store, channels, ledger, clock)
    taking = Receiver(identity.peer_id, store, ledger, limits or Limits(reserve=NOTHING_KEPT))
    servicer = TransferServicer(identity.peer_id, store, taking, sending, clock)
    server = RpcServer(identity, world, channels, clock, resolve=PeerId)
    server.register(
        [("peerd.v1.TransferService", lambda s: transfers_pb2_grpc.add_TransferServiceServicer_to_server(servicer, s))]
    )
    port = await server.start(listen="127.0.0.1:0", socket=folder / "s" / "s")
    world.places[identity.peer_id] = f"127.0.0.1:{port}"
    running = asyncio.ensure_future(sending.run())
    try:
        yield Peer(identity.peer_id, ledger, store, sending, channels, taking, clock, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await channels.close()
        await server.stop(0)
        await store.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Peer, Peer]]:
    world = World()
    async with peer(tmp_path / "a", world) as a, peer(tmp_path / "b", world) as b:
        yield a, b


def key_of(a: Peer, b: Peer, edge: int = 1) -> TransferKey:
    key = TransferKey(
        orchestrator=a.id,
        store_id="store",
        workflow_execution_id=100,
        edge_id=edge,
        source_peer_id=a.id,
        source_job_execution_id=12,
        destination_peer_id=b.id,
        destination_job_execution_id=13,
    )
    b.ledger.expected[edge] = key
    return key


def fill(folder: Path, **files: bytes) -> Source:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Source(root=folder)


async def send(a: Peer, key: TransferKey, source: Source) -> None:
    await a.store.write(lambda tx: a.sender.enqueue(tx, OutgoingTransfer(key=key, source=source)))
    await a.outcome()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_tree_arrives_whole_with_its_modes(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    big = os.urandom(2 * BLOCK_BYTES + 777)
    source = fill(tmp_path / "out", one=b"1", deep__er__two=b"", three=big, run=b"#!/bin/sh\n")
    os.chmod(tmp_path / "out" / "run", 0o4777)
    await send(a, key_of(a, b), source)
    assert b.ledger.accepted_ == [], "who sets no limit is not asked to count"
    assert a.ledger.delivered_ and not a.ledger.failed
    assert contents(b.ledger.root / "input") == contents(tmp_path / "out")
    assert (b.ledger.root / "input" / "run").stat().st_mode & 0o7777 == 0o755
    assert not (b.ledger.root / FOLDER).exists()


async def test_an_empty_tree_and_many_small_files_arrive(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    (tmp_path / "none").mkdir()
    await send(a, key_of(a, b, 1), Source(root=tmp_path / "none"))
    many = fill(tmp_path / "many", **{f"d{n % 7}__f{n}": str(n).encode() for n in range(1500)})
    await send(a, key_of(a, b, 2), many)
    assert contents(b.ledger.root / "input") == contents(tmp_path / "many")
    assert [received.file_count for received in b.ledger.received_] == [0, 1500]


async def test_an_offer_of_many_files_has_more_time_to_be_heard(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr("peerd.transfers.sender._OFFER_SECONDS", 0.001)  # too little for any
    await send(a, key_of(a, b), fill(tmp_path / "many", **{f"f{n}": b"" for n in range(3000)}))
    assert [received.file_count for received in b.ledger.received_] == [3000] and a.ledger.failed == []


async def test_one_file_of_a_directory_is_sent_under_its_name(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    fill(tmp_path / "logs", stdout=b"said", stderr=b"not this")
    await send(a, key_of(a, b), Source(root=tmp_path / "logs", only="stdout"))
    assert contents(b.ledger.root / "input") == {"stdout": b"said"}


async def test_what_nobody_expects_is_refused_and_leaves_nothing(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    key = key_of(a, b)
    b.ledger.expected.clear()
    await send(a, key, fill(tmp_path / "out", f=b"x"))
    assert a.ledger.failed[0][0] == "unexpected_transfer"
    assert not b.ledger.root.exists()


@pytest.mark.parametrize("set_by", [0, -7200], ids=["right clock", "clock set back"])
async def test_a_job_without_interfaces_yet_is_waited_for(
    pair: tuple[Peer, Peer], tmp_path: Path, set_by: float
) -> None:
    a, b = pair
    key, source = key_of(a, b), fill(tmp_path / "out", f=b"x")
    b.ledger.refuse = PeerdError(Reason.NOT_YET_EXPECTED, "soon")
    await a.store.write(lambda tx: a.sender.enqueue(tx, OutgoingTransfer(key=key, source=source)))
    async with asyncio.timeout(30):
        while not (await a.store.all("SELECT 1 FROM outgoing_transfers WHERE reason = 'not_yet_expected'")):
            await asyncio.sleep(0.01)
    a.clock.wrong_by = set_by
    local = transfers_pb2_grpc.TransferServiceStub(a.channels.channel(a.id))
    (listed,) = (await local.ListTransfers(transfers_pb2.ListTransfersRequest(), timeout=60)).transfers
    assert abs(listed.next_try_at.ToMilliseconds() - a.clock.now()) < 60_000, "people read it by the clock on the wall"
    b.ledger.refuse = None
    await a.outcome()
    assert contents(b.ledger.root / "input") == {"f": b"x"}


async def test_what_waits_for_its_peer_is_not_read_again_at_each_try(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: all of it was read again every five seconds, for as long as a peer was away."""
    a, b = pair
    key, source = key_of(a, b), fill(tmp_path / "out", kept=b"as it was", changing=b"first")
    read: list[str] = []
    digests = manifest._digests

    def counted(descriptor: int, size: int, path: str, given_up: manifest.GivenUp) -> tuple[bytes, tuple[bytes, ...]]:
        read.append(path)
        return digests(descriptor, size, path, given_up)

    monkeypatch.setattr(manifest, "_digests", counted)
    b.ledger.refuse = PeerdError(Reason.NOT_YET_EXPECTED, "soon")
    await a.store.write(lambda tx: a.sender.enqueue(tx, OutgoingTransfer(key=key, source=source)))
    async with asyncio.timeout(60):
        while not (await a.store.all("SELECT 1 FROM outgoing_transfers WHERE tries >= 3")):
            await asyncio.sleep(0.01)
        assert sorted(read) == ["changing", "kept"]
        (tmp_path / "new").write_bytes(b"then another")
        (tmp_path / "new").replace(tmp_path / "out" / "changing")  # at once, so that it is read once
        while "changing" not in read[2:]:
            await asyncio.sleep(0.01)
    b.ledger.refuse = None
    await a.outcome()
    assert contents(b.ledger.root / "input") == {"kept": b"as it was", "changing": b"then another"}
    assert sorted(read) == ["changing", "changing", "kept"]
    await until(lambda: a.sender._scans == {})


async def test_what_was_read_for_many_that_wait_does_not_fill_the_memory(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MAX_HELD_FILES", 3)
    a, b = pair
    source = fill(tmp_path / "out", f=b"x", g=b"y")
    b.ledger.refuse = PeerdError(Reason.NOT_YET_EXPECTED, "soon")
    for edge in (1, 2, 3):
        order = OutgoingTransfer(key=key_of(a, b, edge), source=source)
        await a.store.write(lambda tx, order=order: a.sender.enqueue(tx, order))  # type: ignore[misc]
    async with asyncio.timeout(60):
        while len(await a.store.all("SELECT 1 FROM outgoing_transfers WHERE tries >= 2")) < 3:
            assert len(a.sender._scans) <= 1
            await asyncio.sleep(0.01)
    b.ledger.refuse = None
    await until(lambda: len(b.ledger.received_) == 3)


async def test_an_offer_is_looked_through_beside_the_loop(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: one of many files kept a daemon from answering pings for seconds."""
    a, b = pair
    threads: list[threading.Thread] = []

    def noted(files: Sequence[manifest.FileEntry]) -> manifest.Manifest:
        threads.append(threading.current_thread())
        return manifest.check_manifest(files)

    monkeypatch.setattr(receiver, "check_manifest", noted)
    await send(a, key_of(a, b), fill(tmp_path / "out", f=b"x"))
    assert threads and threading.main_thread() not in threads


async def offer(a: Peer, b: Peer, key: TransferKey, scanned: Any) -> transfers_pb2.OfferResponse:
    stub = transfers_pb2_grpc.TransferServiceStub(a.channels.channel(b.id))
    with remote_errors("b"):
        return await stub.Offer(wire.offer_messages(key, scanned.manifest), timeout=60)


async def push(a: Peer, b: Peer, key: TransferKey, digest: bytes, pieces: list[tuple[int, int, bytes]]) -> None:
    async def messages() -> AsyncIterator[transfers_pb2.PushRequest]:
        yield transfers_pb2.PushRequest(key=wire.key_to_proto(key, digest))
        for index, offset, data in pieces:
            yield transfers_pb2.PushRequest(file_index=index, offset=offset, data=data)

    stub = transfers_pb2_grpc.TransferServiceStub(a.channels.channel(b.id))
    with remote_errors("b"):
        await stub.Push(messages(), timeout=60)


async def again(call: Awaitable[T]) -> T | None:
    """Its answer; None when the peer said to ask once more."""
    try:
        return await call
    except PeerdError as error:
        assert error.retryable, error
        return None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def pieces_of(content: bytes, start: int = 0, stop: int | None = None) -> list[tuple[int, int, bytes]]:
    end = len(content) if stop is None else stop
    return [(0, offset, content[offset : min(end, offset + 2**20)]) for offset in range(start, end, 2**20)]


async def test_a_broken_stream_goes_on_where_it_broke(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    content = os.urandom(3 * BLOCK_BYTES + 5)
    scanned = scan(fill(tmp_path / "out", f=content))
    key, digest = key_of(a, b), scanned.manifest.digest()
    await offer(a, b, key, scanned)
    with pytest.raises(PeerdError) as caught:
        await push(a, b, key, digest, pieces_of(content, 0, 2 * BLOCK_BYTES + 4 * 2**20 + 99))
    assert caught.value.retryable
    b.receiver._sessions.clear()  # what a restart does
    with pytest.raises(PeerdError) as caught:
        await push(a, b, key, digest, [])
    assert caught.value.reason is Reason.OFFER_FIRST
    (missing,) = (await offer(a, b, key, scanned)).missing
    assert missing.offset == 2 * BLOCK_BYTES + 4 * 2**20 + 99
    await push(a, b, key, digest, pieces_of(content, missing.offset))
    assert contents(b.ledger.root / "input") == {"f": content}


async def test_what_has_come_whole_is_finished_although_its_sender_went_away(
    pair: tuple[Peer, Peer], tmp_path: Path
) -> None:
    a, b = pair
    content = os.urandom(2**20)
    scanned = scan(fill(tmp_path / "out", f=content))
    key, digest = key_of(a, b), scanned.manifest.digest()
    await offer(a, b, key, scanned)
    b.ledger.may_record.clear()
    pushing = asyncio.ensure_future(push(a, b, key, digest, pieces_of(content)))
    await until(lambda: b.ledger.received_ != [])
    pushing.cancel()
    await asyncio.sleep(0.3)  # b hears that the stream was given up
    assert not pushing.done() or pushing.cancelled()
    b.ledger.may_record.set()
    await until(lambda: not (b.ledger.root / FOLDER).exists())
    assert (await offer(a, b, key, scanned)).complete
    assert contents(b.ledger.root / "input") == {"f": content} and len(b.ledger.received_) == 1


async def test_verifying_what_is_there_may_take_longer_than_an_offer_waits(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    content = os.urandom(2**20)
    scanned = scan(fill(tmp_path / "out", f=content))
    key, digest = key_of(a, b), scanned.manifest.digest()
    begun, may_end = [], threading.Event()
    prepare = Staging.prepare

    def slow(staging: Staging) -> list[tuple[int, int]]:
        begun.append(staging)
        assert may_end.wait(60)
        return prepare(staging)

    monkeypatch.setattr(Staging, "prepare", slow)
    impatient = asyncio.ensure_future(offer(a, b, key, scanned))
    await until(lambda: begun != [])
    impatient.cancel()
    await asyncio.sleep(0.3)  # b hears that the call was given up
    with pytest.raises(PeerdError) as caught:
        await offer(a, b, key, scanned)
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retryable
    may_end.set()
    async with asyncio.timeout(60):
        while (answer := await again(offer(a, b, key, scanned))) is None:
            await asyncio.sleep(0.02)
    assert [missing.offset for missing in answer.missing] == [0] and len(begun) == 1, "it was read through once"
    await push(a, b, key, digest, pieces_of(content))
    assert contents(b.ledger.root / "input") == {"f": content}


async def broken_off(pair: tuple[Peer, Peer], scanned: Scanned, content: bytes, after: int, damaged: int) -> int:
    """Break a transfer off, change one byte of what is on the disk, offer again; returns what is missing then."""
    a, b = pair
    key, digest = key_of(a, b), scanned.manifest.digest()
    await offer(a, b, key, scanned)
    with pytest.raises(PeerdError):
        await push(a, b, key, digest, pieces_of(content, 0, after))
    (partial,) = (path for path in (b.ledger.root / FOLDER).rglob("0"))
    changed = bytearray(partial.read_bytes())
    changed[damaged] ^= 1
    partial.write_bytes(changed)
    (missing,) = (await offer(a, b, key, scanned)).missing
    return missing.offset


async def test_partial_files_are_not_believed(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    content = os.urandom(2 * BLOCK_BYTES)
    scanned = scan(fill(tmp_path / "out", f=content))
    assert await broken_off(pair, scanned, content, BLOCK_BYTES + 2**20, damaged=5) == 0


async def test_what_came_of_a_block_counts_for_nothing_until_all_of_it_is_right(
    pair: tuple[Peer, Peer], tmp_path: Path
) -> None:
    a, b = pair
    content = os.urandom(2 * BLOCK_BYTES)
    scanned = scan(fill(tmp_path / "out", f=content))
    offset = await broken_off(pair, scanned, content, BLOCK_BYTES + 2**21, damaged=BLOCK_BYTES + 5)
    assert offset == BLOCK_BYTES + 2**21
    key, digest = key_of(a, b), scanned.manifest.digest()
    with pytest.raises(PeerdError) as caught:
        await push(a, b, key, digest, pieces_of(content, offset))
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    (missing,) = (await offer(a, b, key, scanned)).missing
    assert missing.offset == BLOCK_BYTES, "what was wrong is thrown away, and only that"
    await push(a, b, key, digest, pieces_of(content, missing.offset))
    assert contents(b.ledger.root / "input") == {"f": content}


async def test_no_byte_is_skipped(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    content = os.urandom(2 * BLOCK_BYTES)
    scanned = scan(fill(tmp_path / "out", f=content))
    key, digest = key_of(a, b), scanned.manifest.digest()
    await offer(a, b, key, scanned)
    with pytest.raises(PeerdError) as caught:
        await push(a, b, key, digest, pieces_of(content, BLOCK_BYTES, BLOCK_BYTES + 1))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert not (b.ledger.root / "input").exists()


@pytest.mark.parametrize("wrong", ["bit", "order", "too long", "unknown file"])
async def test_wrong_bytes_are_noticed_and_nothing_is_published(
    pair: tuple[Peer, Peer], tmp_path: Path, wrong: str
) -> None:
    a, b = pair
    content = os.urandom(2**20 * 3)
    scanned = scan(fill(tmp_path / "out", f=content))
    key, digest = key_of(a, b), scanned.manifest.digest()
    await offer(a, b, key, scanned)
    pieces = pieces_of(content)
    if wrong == "bit":
        pieces[1] = (0, pieces[1][1], b"\0" + pieces[1][2][1:])
    elif wrong == "order":
        pieces.reverse()
    elif wrong == "too long":
        pieces.append((0, len(content), b"more"))
    else:
        pieces[0] = (7, 0, b"x")
    with pytest.raises(PeerdError):
        await push(a, b, key, digest, pieces)
    assert not (b.ledger.root / "input").exists()
    await send(a, key, Source(root=tmp_path / "out"))
    assert contents(b.ledger.root / "input") == {"f": content}


async def test_offering_again_what_was_received_is_answered_at_once(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    key, source = key_of(a, b), fill(tmp_path / "out", f=b"x")
    await send(a, key, source)
    assert (await offer(a, b, key, scan(source))).complete
    assert len(b.ledger.received_) == 1


async def test_offers_of_many_files_that_nobody_went_on_with_are_not_held(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MAX_HELD_FILES", 5)
    a, b = pair
    scanned = scan(fill(tmp_path / "out", f=b"x", g=b"y"))
    digest, pieces = scanned.manifest.digest(), [(0, 0, b"x"), (1, 0, b"y")]
    keys = [key_of(a, b, edge) for edge in (1, 2, 3)]
    for key in keys:
        await offer(a, b, key, scanned)
    with pytest.raises(PeerdError) as caught:
        await push(a, b, keys[0], digest, pieces)
    assert caught.value.reason is Reason.OFFER_FIRST
    await push(a, b, keys[1], digest, pieces)
    await offer(a, b, keys[0], scanned)
    await push(a, b, keys[0], digest, pieces)
    assert len(b.ledger.received_) == 2


async def test_another_peer_cannot_send_in_its_place(tmp_path: Path) -> None:
    world = World()
    async with peer(tmp_path / "a", world) as a, peer(tmp_path / "b", world) as b, peer(tmp_path / "m", world) as m:
        key = key_of(a, b)
        with pytest.raises(PeerdError) as caught:
            await offer(m, b, key, scan(fill(tmp_path / "out", f=b"x")))
        assert caught.value.reason is Reason.UNEXPECTED_TRANSFER


async def test_what_does_not_fit_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    world = World()
    small, full = Limits(max_bytes=10, reserve=NOTHING_KEPT), Limits(reserve=Reserve(min_free_bytes=2**60))
    async with (
        peer(tmp_path / "a", world) as a,
        peer(tmp_path / "b", world, small) as b,
        peer(tmp_path / "d", world, full) as d,
    ):
        scanned = scan(fill(tmp_path / "out", f=b"x" * 11))
        for other, reason in ((b, Reason.QUOTA_EXCEEDED), (d, Reason.DISK_LOW)):
            with pytest.raises(PeerdError) as caught:
                await offer(a, other, key_of(a, other), scanned)
            assert caught.value.reason is reason
            assert not (other.ledger.root / FOLDER).exists()


async def test_what_exceeds_its_room_waits_until_there_is_some(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    b.ledger.room = 10
    key = key_of(a, b)
    source = fill(tmp_path / "out", f=b"x" * 11)
    await a.store.write(lambda tx: a.sender.enqueue(tx, OutgoingTransfer(key=key, source=source)))

    async with asyncio.timeout(30):
        while (row := await a.store.one("SELECT * FROM outgoing_transfers WHERE reason != ''")) is None:
            await asyncio.sleep(0.02)
    assert (row["status"], row["reason"]) == ("waiting", "storage_quota") and "11 bytes do not fit: 10" in row[
        "message"
    ]
    assert set(b.ledger.refused_) == {(1, Reason.STORAGE_QUOTA)}
    assert not (b.ledger.root / FOLDER).exists() and b.ledger.accepted_ == [], "not a byte was sent"
    b.ledger.room = 11
    await a.outcome()
    assert a.ledger.failed == [] and contents(b.ledger.root / "input") == {"f": b"x" * 11}
    assert b.ledger.accepted_ == [(1, 11)]


async def test_who_was_refused_for_the_disk_hears_when_it_is_taken(tmp_path: Path) -> None:
    world = World()
    full = Limits(reserve=Reserve(min_free_bytes=2**60))
    async with peer(tmp_path / "a", world) as a, peer(tmp_path / "b", world, full) as b:
        scanned = scan(fill(tmp_path / "out", f=b"x"))
        for _ in range(2):
            with pytest.raises(PeerdError):
                await offer(a, b, key_of(a, b), scanned)
        assert b.ledger.refused_ == [(1, Reason.DISK_LOW)] * 2
        b.receiver._limits = Limits(reserve=NOTHING_KEPT)
        await offer(a, b, key_of(a, b), scanned)
        assert b.ledger.accepted_ == [(1, 1)]


async def test_a_source_that_is_gone_or_special_is_given_up_with_its_name(
    pair: tuple[Peer, Peer], tmp_path: Path
) -> None:
    a, b = pair
    await send(a, key_of(a, b, 1), Source(root=tmp_path / "nowhere"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "link").symlink_to("/etc/passwd")
    await send(a, key_of(a, b, 2), Source(root=tmp_path / "odd"))
    assert [reason for reason, _ in a.ledger.failed] == ["source_changed", "not_a_regular_file"]
    assert "link" in a.ledger.failed[1][1]


async def test_a_file_that_changes_while_it_is_sent_is_given_up_with_its_name(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    source, scans = fill(tmp_path / "out", grows=b"x" * 2**21), []

    def scan_and_grow(*args: Any, **more: Any) -> Scanned:
        scans.append(scan(*args, **more))
        with open(tmp_path / "out" / "grows", "ab") as file:
            file.write(b"more")
        return scans[-1]

    monkeypatch.setattr("peerd.transfers.sender.scan", scan_and_grow)
    await send(a, key_of(a, b), source)
    ((reason, message),) = a.ledger.failed
    assert reason == "source_changed" and "'grows'" in message
    assert len(scans) == 1 and a.ledger.delivered_ == [] and b.ledger.received_ == []


async def test_sending_goes_on_when_there_is_room_for_the_record_again(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr("peerd.transfers.sender._LONGEST_PAUSE_MS", 50)
    write, refused = a.store.write, []

    async def full(function: Callable[[Tx], T]) -> T:
        refused.append(function)
        raise PeerdError(Reason.DISK_LOW, "the disk is full: nothing was stored")

    source = fill(tmp_path / "out", f=b"x")
    await a.store.write(lambda tx: a.sender.enqueue(tx, OutgoingTransfer(key=key_of(a, b), source=source)))
    monkeypatch.setattr(a.store, "write", full)
    await until(lambda: len(refused) > 4 or a.running.done())
    assert not a.running.done()
    monkeypatch.setattr(a.store, "write", write)
    await a.outcome()
    assert contents(b.ledger.root / "input") == {"f": b"x"} and a.ledger.failed == []


async def test_a_look_that_fails_does_not_end_the_sender(
    pair: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    tables, failed = a.store.all, []

    async def unreadable(*args: Any) -> Any:
        failed.append(args)
        raise PeerdError(Reason.DISK_FAILED, "cannot read")

    monkeypatch.setattr(a.store, "all", unreadable)
    await until(lambda: bool(failed) or a.running.done())
    assert not a.running.done()
    monkeypatch.setattr(a.store, "all", tables)
    await send(a, key_of(a, b), fill(tmp_path / "out", f=b"x"))
    assert a.ledger.delivered_ and not a.running.done()


@pytest.mark.parametrize("stored", ["{", '{"path": "x"}'])  # damaged; as a version with other fields wrote it
async def test_an_order_that_cannot_be_read_is_given_up_and_the_others_are_carried_out(
    pair: tuple[Peer, Peer], tmp_path: Path, stored: str
) -> None:
    a, b = pair
    source = fill(tmp_path / "source", f=b"x")
    bad, good = key_of(a, b, 1), key_of(a, b, 2)

    def order(tx: Tx) -> None:
        for key in (bad, good):
            a.sender.enqueue(tx, OutgoingTransfer(key=key, source=source))
        tx.execute("UPDATE outgoing_transfers SET selection = ? WHERE edge_id = ?", (stored, bad.edge_id))

    await a.store.write(order)
    async with asyncio.timeout(30):
        while not (a.ledger.delivered_ and a.ledger.failed):
            await a.outcome()
    assert a.ledger.delivered_ == [good] and a.ledger.failed[0][0] == "store_corrupt"


async def test_nothing_is_read_on_for_a_sender_that_has_ended(pair: tuple[Peer, Peer], tmp_path: Path) -> None:
    a, b = pair
    fill(tmp_path / "out", f=b"")
    os.truncate(tmp_path / "out" / "f", 2**40)  # a hole: hours to hash, nothing to store
    order = OutgoingTransfer(key=key_of(a, b), source=Source(root=tmp_path / "out"))
    await a.store.write(lambda tx: a.sender.enqueue(tx, order))
    await until(lambda: reading() == 1)
    a.running.cancel()
    await until(lambda: reading() == 0)
    os.truncate(tmp_path / "out" / "f", 5)
    next_time = asyncio.ensure_future(a.sender.run())
    await a.outcome()
    next_time.cancel()
    sent = await a.store.one("SELECT * FROM outgoing_transfers")
    assert sent is not None
    assert (sent["tries"], sent["bytes_total"], sent["file_count"]) == (2, 5, 1), "known although the first try was not"


def reading() -> int:
    """Threads that hash what is to be sent."""
    frames = (traceback.extract_stack(frame) for frame in sys._current_frames().values())
    return sum(any(entry.name == "_digests" for entry in frame) for frame in frames)
