"""An inventory that scans are written into by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peerd.clock import DAY_MS, FakeClock, Millis
from peerd.inventory.diffs import Difference, Diffs
from peerd.inventory.facts import Line
from peerd.inventory.inventory import Inventory
from peerd.inventory.lists import Page, Question
from peerd.inventory.model import Certificate, Port, PortState, Record, Service, Source, Transport
from peerd.inventory.settling import complete
from peerd.inventory.writing import Counts, apply, counts
from peerd.store import Store, open_store

T0 = 1_800_000_000_000
DAY = DAY_MS


def record(
    address: str,
    number: int = 0,
    state: str = "open",
    *,
    transport: str = "tcp",
    product: str = "",
    version: str = "",
    service: str = "",
    at: int | None = None,
    certificate: Certificate | None = None,
    banner: bytes = b"",
    **host: Any,
) -> Record:
    """One record; of the host alone with port 0."""
    said = Service(name=service, product=product, version=version) if service or product or version else None
    port = Port(
        number=number,
        transport=Transport(transport),
        state=PortState(state),
        service=said,
        certificate=certificate,
        banner=banner,
    )
    return Record(address=address, seen_at=None if at is None else Millis(at), port=port if number else None, **host)


class Book:
    """The store, and short ways to it."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.inventory = Inventory(store, clock)
        self.diffs = Diffs(store)
        self._jobs = 0

    @classmethod
    async def open(cls, path: Path) -> Book:
        clock = FakeClock(T0 + 30 * DAY)
        return cls(await open_store(path, clock), clock)

    def source(self, at: int = T0, *, job: int = 0, **more: Any) -> Source:
        if not job:
            self._jobs += 1
            job = self._jobs
        facts: dict[str, Any] = {"scanner": "key-a", "tool": "naabu", **more}
        return Source(ingest_job_id=job, scan_id=f"scan-{job}", scanned_at=Millis(at), **facts)

    async def scan(
        self, at: int, *records: Record, chunk: int = 100, whole: bool = True, job: int = 0, **more: Any
    ) -> int:
        """Ingest a scan; returns its job."""
        source = self.source(at, job=job, **more)
        for start in range(0, len(records), chunk):
            await self.apply(source, records[start : start + chunk])
        if whole:
            await self.complete(source.ingest_job_id)
        return source.ingest_job_id

    async def complete(self, job: int) -> int:
        """As ingest does it, step by step; returns how many there were."""
        after: int | None = 0
        steps = 0
        while after is not None:
            after = await self.store.write(lambda tx, a=after: complete(tx, job, a))  # type: ignore[misc]
            steps += 1
        return steps

    async def apply(self, source: Source, records: Sequence[Record]) -> None:
        await self.store.write(lambda tx: apply(tx, source, records))

    async def counts(self, job: int) -> Counts:
        return await self.store.write(lambda tx: counts(tx, job))

    async def lines(self, where: str = "", at: int | None = None, *, size: int = 100) -> list[Line]:
        """All ports that are so, page by page."""
        question = self.inventory.question(where, at)
        found: list[Line] = []
        token = ""
        while True:
            page = await self.inventory.lists.ports(question, size=size, token=token)
            found += page.items
            token = page.token
            if not token:
                return found

    async def ports(self, where: str = "", at: int | None = None, *, size: int = 100) -> list[str]:
        """As ``address/transport/number state``."""
        return [shown(line) for line in await self.lines(where, at, size=size)]

    async def hosts(self, where: str = "", at: int | None = None, *, size: int = 100) -> list[str]:
        question: Question = self.inventory.question(where, at)
        found: list[str] = []
        token = ""
        while True:
            page = await self.inventory.lists.hosts(question, size=size, token=token)
            found += [host.address for host in page.items]
            token = page.token
            if not token:
                return found

    async def diff(self, earlier: int, later: int, *, size: int = 100, where: str = "") -> list[str]:
        """Between two moments."""
        return told(await self._all(self.diffs.between_moments, earlier, later, size, where))

    async def diff_jobs(self, earlier: int, later: int, *, size: int = 100, where: str = "") -> list[str]:
        return told(await self._all(self.diffs.between_scans, earlier, later, size, where))

    async def _all(self, ask: Any, earlier: int, later: int, size: int, where: str) -> list[Difference]:
        found: list[Difference] = []
        token = ""
        while True:
            page: Page[Difference] = await ask(
                earlier, later, where=self.inventory.where(where), size=size, token=token
            )
            found += page.items
            token = page.token
            if not token:
                return found


def shown(line: Line) -> str:
    assert line.port is not None
    return f"{line.host.address}/{line.port.transport.value}/{line.port.number} {line.port.state}"


def told(differences: Iterable[Difference]) -> list[str]:
    found = []
    for one in differences:
        line = one.after or one.before
        assert line is not None
        found.append(f"{one.kind.name.lower()} {shown(line)}{f' ({one.why})' if one.why else ''}")
    return found
