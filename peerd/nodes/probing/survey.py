"""Asks the ports of one address what they are, and keeps what they answer.

One port: a first look, a GET of a path that cannot exist, finds out whether it speaks HTTP and TLS, and is the control
that :mod:`peerd.nodes.probing.recognition` needs. Then come the queries, a few at a time; a port that says 429, or lets
two queries time out, is asked no more. What came until somebody cancels the survey is kept.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from peerd.nodes.probing.answers import Answer, Verdict, judge
from peerd.nodes.probing.dialer import Dialer, NoConnectionError
from peerd.nodes.probing.guard import Address
from peerd.nodes.probing.http_client import (
    MAX_BODY,
    MAX_METRICS_BODY,
    Endpoint,
    Exchange,
    HttpClient,
    TlsSeen,
    Transfer,
)
from peerd.nodes.probing.recognition import Answers
from peerd.nodes.protocols import Probe, Query, QueryKind

TLS_PORTS = frozenset({443, 2376, 8443, 9443})
"""Where TLS is tried first; elsewhere after plain text failed."""
BANNER_SECONDS = 2.0
AT_ONCE_PER_PORT = 4
MAX_TOTAL_BYTES = 12 * 1024 * 1024
"""Of all bodies of one host: what they say stays in memory, where it takes many times the room."""
GIVE_UP_AFTER = 2
"""Queries of one port that time out."""
_BANNER_BYTES = 512
_ALERT = b"\x15\x03"
"""How the answer of a TLS server to plain text begins: an alert (RFC 8446, 5.1)."""

BANNER = Query(kind=QueryKind.BANNER, path="")


@dataclass(frozen=True, kw_only=True)
class PortSeen:
    """What is known of one port."""

    address: str
    port: int
    open: bool
    http: bool = False
    tls: TlsSeen | None = None
    server: str = ""
    """The Server header."""
    banner: str = ""


def queries_by_port(probes: Iterable[Probe], only: int | None = None) -> dict[int, list[Query]]:
    """Which port is asked what, each thing once; with ``only``, everything goes to that port."""
    asked: dict[int, dict[Query, None]] = {}
    for probe in probes:
        for port in probe.ports if only is None else (only,):
            asked.setdefault(port, {})[probe.query] = None
    return {port: list(queries) for port, queries in asked.items()}


class Survey:
    """What one host answered."""

    def __init__(self, dialer: Dialer, host: str) -> None:
        self._dialer = dialer
        self._http = HttpClient(dialer)
        self._host = host
        self._asked: list[Answer] = []
        self._controls: list[Answer] = []
        self._bytes = 0
        self._timeouts: dict[tuple[str, int], int] = {}
        self._left_alone: set[tuple[str, int]] = set()
        self.ports: dict[tuple[str, int], PortSeen] = {}
        self._notes: dict[str, None] = {}

    @property
    def answers(self) -> Answers:
        """All answers until now."""
        return Answers(asked=tuple(self._asked), controls=tuple(self._controls))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, in order, each once."""
        return tuple(self._notes)

    @property
    def open_ports(self) -> tuple[PortSeen, ...]:
        """Those that took a connection."""
        return tuple(seen for _, seen in sorted(self.ports.items()) if seen.open)

    def note(self, sentence: str) -> None:
        """Keep a sentence for people."""
        self._notes[sentence] = None

    async def ask(self, address: Address, queries: Mapping[int, list[Query]]) -> None:
        """Send every port its queries, those that it was not sent before."""
        async with asyncio.TaskGroup() as group:
            for port, wanted in queries.items():
                group.create_task(self._ask_port(address, port, self._new(address, port, wanted)))

    def _new(self, address: Address, port: int, queries: list[Query]) -> list[Query]:
        done = {answer.query for answer in self._asked if (answer.address, answer.port) == (str(address), port)}
        return [query for query in queries if query not in done]

    async def _ask_port(self, address: Address, port: int, queries: list[Query]) -> None:
        over_http = [query for query in queries if query.kind is not QueryKind.BANNER]
        seen = self.ports.get((str(address), port))
        if over_http and (seen is None or not seen.http):
            seen = await self._look(address, port)
        if BANNER in queries and (seen is None or (seen.open and not seen.http and not seen.banner)):
            seen = await self._listen(address, port)
        if seen is None or not seen.open:
            return
        if seen.banner:
            self._keep(
                Answer(query=BANNER, address=str(address), port=port, verdict=Verdict.ANSWERED, banner=seen.banner)
            )
        if seen.http and over_http:
            endpoint = Endpoint(address=address, port=port, host=self._host, tls=seen.tls is not None)
            turns = asyncio.Semaphore(AT_ONCE_PER_PORT)
            async with asyncio.TaskGroup() as group:
                for query in over_http:
                    group.create_task(self._ask_one(endpoint, query, turns))
            await self._ask_controls(endpoint)

    async def _look(self, address: Address, port: int) -> PortSeen:
        """Whether a port speaks HTTP, and TLS."""
        path = f"/peerd-{secrets.token_hex(8)}"
        exchange = await self._first(address, port, path)
        opened = exchange.transfer not in (Transfer.REFUSED, Transfer.UNREACHABLE)
        http = exchange.transfer in (Transfer.REPLIED, Transfer.CUT) and exchange.status > 0
        seen = PortSeen(
            address=str(address),
            port=port,
            open=opened,
            http=http,
            tls=exchange.tls,
            server=_printable(exchange.header("server")) if http else "",
            banner="" if http or exchange.raw.startswith((_ALERT, b"HTTP/")) else _text(exchange.raw),
        )
        self.ports[str(address), port] = seen
        if opened:
            query = Query(kind=QueryKind.HTTP, path=path)
            control = judge(query, exchange, address=str(address), port=port)
            self._controls.append(control)
            if not seen.banner:
                self._note_of(control)
        return seen

    async def _first(self, address: Address, port: int, path: str) -> Exchange:
        plain = Endpoint(address=address, port=port, host=self._host)
        secure = Endpoint(address=address, port=port, host=self._host, tls=True)
        first, second = (secure, plain) if port in TLS_PORTS else (plain, secure)
        exchange = await self._http.get(first, path)
        if first is secure:
            other_way = exchange.transfer in (Transfer.TLS_FAILED, Transfer.CLOSED, Transfer.RESET)
        else:
            silent = exchange.transfer in (Transfer.CLOSED, Transfer.RESET) and not exchange.raw
            told = (
                exchange.transfer is Transfer.REPLIED and exchange.status == 400 and b"https" in exchange.body.lower()
            )
            other_way = silent or told or exchange.raw.startswith(_ALERT)
        if not other_way:
            return exchange
        again = await self._http.get(second, path)
        return again if again.transfer in (Transfer.REPLIED, Transfer.CUT) or again.tls is not None else exchange

    async def _listen(self, address: Address, port: int) -> PortSeen:
        """What a port says of itself without being asked."""
        raw, opened = b"", True
        try:
            async with self._dialer.connection(address, port, BANNER_SECONDS + 3) as (reader, _):
                async with asyncio.timeout(BANNER_SECONDS):
                    raw = await reader.read(_BANNER_BYTES)
        except NoConnectionError:
            opened = False
        except TimeoutError:
            pass
        except OSError as error:
            opened = isinstance(error, ConnectionResetError)
        seen = PortSeen(address=str(address), port=port, open=opened, banner=_text(raw))
        self.ports[str(address), port] = seen
        return seen

    async def _ask_one(self, endpoint: Endpoint, query: Query, turns: asyncio.Semaphore) -> None:
        place = str(endpoint.address), endpoint.port
        async with turns:
            if place in self._left_alone or self._bytes > MAX_TOTAL_BYTES:
                return
            answer = await self._query(endpoint, query)
            self._keep(answer)
            if answer.verdict is Verdict.LIMITED:
                self._leave_alone(place, "it limits how often it is asked")
            elif answer.verdict is Verdict.SILENT and answer.timed_out:
                self._timeouts[place] = self._timeouts.get(place, 0) + 1
                if self._timeouts[place] >= GIVE_UP_AFTER:
                    self._leave_alone(place, "it is too slow")

    def _leave_alone(self, place: tuple[str, int], why: str) -> None:
        """Ask a port no more."""
        self._left_alone.add(place)
        self.note(f"port {place[1]}: {why}, so not everything was asked")

    async def _ask_controls(self, endpoint: Endpoint) -> None:
        """Call a method that cannot exist, wherever another one was answered."""
        place = str(endpoint.address), endpoint.port
        paths = {
            answer.query.path
            for answer in self._asked
            if (answer.address, answer.port) == place
            and answer.query.kind is QueryKind.JSON_RPC
            and answer.verdict is Verdict.ANSWERED
        }
        asked = {
            control.query.path
            for control in self._controls
            if (control.address, control.port) == place and control.query.kind is QueryKind.JSON_RPC
        }
        for path in sorted(paths - asked):
            query = Query(kind=QueryKind.JSON_RPC, path=path, method=f"peerd_{secrets.token_hex(8)}")
            control = await self._query(endpoint, query)
            self._controls.append(control)
            if control.verdict is Verdict.ANSWERED:
                self.note(f"port {endpoint.port}: it answers any JSON-RPC method, so what it says does not count")

    async def _query(self, endpoint: Endpoint, query: Query) -> Answer:
        rpc_id = secrets.randbelow(2**31 - 1) + 1
        if query.kind is QueryKind.JSON_RPC:
            call = {"jsonrpc": "2.0", "id": rpc_id, "method": query.method, "params": json.loads(query.params)}
            exchange = await self._http.post_json(endpoint, query.path, json.dumps(call).encode())
        else:
            cap = MAX_METRICS_BODY if query.kind is QueryKind.METRICS else MAX_BODY
            exchange = await self._http.get(endpoint, query.path, cap=cap)
        self._bytes += len(exchange.body)
        if self._bytes > MAX_TOTAL_BYTES:
            self.note(f"it said more than {MAX_TOTAL_BYTES} bytes in all; what came after does not count")
            exchange = dataclasses.replace(exchange, transfer=Transfer.CUT, status=0, body=b"")
        return judge(query, exchange, address=str(endpoint.address), port=endpoint.port, rpc_id=rpc_id)

    def _keep(self, answer: Answer) -> None:
        self._asked.append(answer)
        self._note_of(answer)

    def _note_of(self, answer: Answer) -> None:
        if answer.verdict in (
            Verdict.UNAUTHORISED,
            Verdict.LIMITED,
            Verdict.REDIRECTED,
            Verdict.TOO_LARGE,
            Verdict.SILENT,
        ):
            self.note(f"port {answer.port}: {answer.detail}")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
