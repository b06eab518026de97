"""One peer that takes scans: a real store, a clock that moves when told, a small reader and inventory of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from peerd.clock import FakeClock
from peerd.config import ScansConfig
from peerd.disk import NOTHING_KEPT
from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.inventory.addresses import normalise_address
from peerd.inventory.model import Port, Record, Source
from peerd.moments import moment
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.scans import repository
from peerd.scans.assembly import Scans
from peerd.scans.model import IngestJob
from peerd.scans.statement import PROTOBUF_TYPE
from peerd.scans.told import Told
from peerd.store import Store, Tx, open_store
from peerd.v1 import scans_pb2
from peerd.v1.signed_pb2 import Envelope

MESH = Identity.generate().peer_id


class Counts(NamedTuple):
    hosts: int
    ports: int


@dataclass(frozen=True)
class Bad:
    line: int
    reason: str
    excerpt: str


def read_lines(stream: BinaryIO, format: str) -> Iterator[Record | Bad]:  # noqa: A002
    """naabu's JSON Lines, as far as these tests need them."""
    for number, line in enumerate(stream, start=1):
        if line.startswith(b"!"):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"line {number} cannot be passed over")
        try:
            found = json.loads(line)
            address = normalise_address(found["ip"])
            assert address is not None
            yield Record(address=address, seen_at=found.get("at"), port=Port(number=found["port"]))
        except (ValueError, KeyError, AssertionError, TypeError):
            yield Bad(number, "malformed", line.decode("utf-8", "replace").strip())


class Lines:
    """The reading of one scan, and what a test has its file say."""

    def __init__(self, stream: BinaryIO, format: str, told: Told) -> None:  # noqa: A002
        self._items = read_lines(stream, format)
        self._told = told

    def __iter__(self) -> Iterator[Record | Bad]:
        return self._items

    def told(self) -> Told:
        return self._told


class Rows:
    """An inventory that is one table, and fails when told to."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.applied = 0
        self.sources: list[Source] = []
        self.completed: list[tuple[int, int]] = []
        self.steps = 1

    def apply(self, tx: Tx, source: Source, records: Sequence[Record]) -> None:
        self.applied += 1
        self.sources.append(source)
        tx.executemany(
            "INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(source.ingest_job_id, r.address, r.port.number if r.port else 0) for r in records],
        )
        if self.errors:
            raise self.errors.pop(0)

    def complete(self, tx: Tx, ingest_job_id: int, after: int) -> int | None:
        """In as many steps as a test says."""
        self.completed.append((ingest_job_id, after))
        return after + 1 if after + 1 < self.steps else None

    def counts(self, tx: Tx, ingest_job_id: int) -> Counts:
        row = tx.one(
            "SELECT count(DISTINCT address) AS hosts, count(*) AS ports FROM seen WHERE job = ?", (ingest_job_id,)
        )
        assert row is not None
        return Counts(row["hosts"], row["ports"])


class Mesh:
    """Who is a member, with which grants."""

    def __init__(self) -> None:
        self.mesh_id = MESH
        self.members: dict[str, frozenset[int]] = {}
        self.revoked: set[str] = set()

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        return self.members.get(peer_id)

    def is_revoked(self, peer_id: PeerId) -> bool:
        return peer_id in self.revoked


class Desk:
    """The peer. :meth:`restart` is what a kill and a start leave of it."""

    def __init__(self, folder: Path, clock: FakeClock, config: ScansConfig | None = None) -> None:
        self.path = folder / "peerd.db"
        self.clock = clock
        self.config = config or ScansConfig(submissions_per_minute=0, keep_jobs_days=400)
        self.me = Identity.generate()
        self.mesh = Mesh()
        self.rows = Rows()
        self.told = Told()
        self.caller = Caller(peer_id=self.me.peer_id, grants=ALL_GRANTS, local=True)
        self.store: Store
        self.scans: Scans

    async def start(self) -> None:
        self.store = await open_store(self.path, self.clock)
        await self.store.write(
            lambda tx: tx.execute("CREATE TABLE IF NOT EXISTS seen (job, address, port, UNIQUE (job, address, port))")
        )
        self.scans = Scans(
            self.store,
            self.path,
            self.clock,
            self.config,
            self.me,
            trust=self.mesh,
            disk=lambda: NOTHING_KEPT.look(self.path.parent),
            inventory=self.rows,
            reader=lambda stream, name: Lines(stream, name, self.told),
            name_of=lambda peer_id: peer_id[:8],
            resolve=lambda name: PeerId(name),
        )
        await self.scans.load()

    async def restart(self) -> None:
        await self.store.close()
        await self.start()

    def statement(self, raw: bytes, signer: Identity, **fields: Any) -> scans_pb2.ScanStatement:
        """A sound one, but for what a test says."""
        statement = scans_pb2.ScanStatement(
            audience=self.me.peer_id,
            scanner=signer.peer_id,
            scan_id="scan-1",
            issued_at=moment(self.clock.now()),
            nonce=hashlib.sha256(repr((sorted(fields), fields, raw[:99], len(raw))).encode()).digest(),
            data_sha256=hashlib.sha256(raw).digest(),
            data_size=len(raw),
        )
        for name, value in fields.items():
            if name in ("issued_at", "scanned_at"):
                getattr(statement, name).CopyFrom(moment(value))
            else:
                setattr(statement, name, value)
        return statement

    def sealed(self, raw: bytes, signer: Identity | None = None, **fields: Any) -> Envelope:
        """The same in its envelope."""
        signer = signer or self.me
        return seal(signer, self.statement(raw, signer, **fields).SerializeToString(), PROTOBUF_TYPE)

    async def submit(
        self, raw: bytes, signer: Identity | None = None, *, request_id: str = "", **fields: Any
    ) -> scans_pb2.SubmitResponse:
        return await self.hand_in(self.sealed(raw, signer, **fields), raw, request_id=request_id)

    async def hand_in(self, envelope: Envelope, raw: bytes, *, request_id: str = "") -> scans_pb2.SubmitResponse:
        """As a call of :attr:`caller`, over the unix socket unless a test says otherwise."""
        request = scans_pb2.SubmitRequest(request_id=request_id, envelope=envelope, data=raw)
        return await self.call("Submit", request)  # type: ignore[no-any-return]

    async def stream(self, envelope: Envelope, *pieces: bytes, request_id: str = "") -> scans_pb2.SubmitStreamResponse:
        async def messages() -> Any:
            yield scans_pb2.SubmitStreamRequest(request_id=request_id, envelope=envelope)
            for piece in pieces:
                yield scans_pb2.SubmitStreamRequest(data=piece)

        return await self.call("SubmitStream", messages())  # type: ignore[no-any-return]

    async def call(self, method: str, request: Any) -> Any:
        token = current.set(self.caller)
        try:
            return await getattr(self.scans.servicer, method)(request, None)
        finally:
            current.reset(token)

    async def work(self) -> None:
        """Process what is due, to the end."""
        while found := await repository.due(self.store, self.clock.steady(), limit=1):
            await self.scans.ingest.process(found[0])

    async def job(self, number: int = 1) -> IngestJob:
        return await repository.read(self.store, number)

    async def seen(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.store.all("SELECT * FROM seen ORDER BY job, address, port")]

    async def rows_of(self, table: str) -> int:
        row = await self.store.one(f"SELECT count(*) FROM {table}")
        return int(row[0]) if row is not None else -1


def lines(hosts: int, ports: int = 2, network: int = 10) -> bytes:
    """So many hosts with so many ports each."""
    return b"".join(
        b'{"ip": "%d.0.%d.%d", "port": %d}\n' % (network, host // 250, host % 250 + 1, 80 + port)
        for host in range(hosts)
        for port in range(ports)
    )


async def until(condition: Any, seconds: float = 30) -> None:
    """Let the loop run until that holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.005)
