"""Servers on loopback addresses that answer like nodes of each protocol, and like what only pretends to be one.

A site is a function of what is asked; connections are served by hand, one request each, because half of the servers
have to be wrong on purpose.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, kw_only=True)
class Page:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    body: bytes
    host: str


Site = Callable[[Asked], Page]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

NOT_FOUND = Page(status=404, body=b"not found", content_type="text/plain")
HTML = Page(body=b"<!doctype html><title>version 1.2.3</title>", content_type="text/html")


def as_json(value: Any) -> Page:
    return Page(body=json.dumps(value).encode())


def text(body: str) -> Page:
    return Page(body=body.encode(), content_type="text/plain")


def rpc(results: Mapping[str, Any], *, paths: tuple[str, ...] = ("/",)) -> Site:
    """JSON-RPC 2.0: the methods that there are, an error for any other, 405 for a GET."""

    def site(asked: Asked) -> Page:
        if asked.path not in paths:
            return NOT_FOUND
        if asked.method != "POST":
            return Page(status=405, body=b"POST is required", content_type="text/plain")
        call = json.loads(asked.body)
        answer = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] in results:
            return as_json(answer | {"result": results[call["method"]]})
        return as_json(answer | {"error": {"code": -32601, "message": "Method not found"}})

    return site


def pages(of: Mapping[str, Page]) -> Site:
    return lambda asked: of.get(asked.path, NOT_FOUND) if asked.method == "GET" else NOT_FOUND


def either(*sites: Site) -> Site:
    """The first that does not say 404 or 405."""

    def site(asked: Asked) -> Page:
        page = NOT_FOUND
        for one in sites:
            page = one(asked)
            if page.status not in (404, 405):
                return page
        return page

    return site


async def head(reader: asyncio.StreamReader) -> bytes:
    """The head of a request; whoever speaks TLS to a server that does not is hung up on."""
    first = await reader.readexactly(1)
    if first == b"\x16":
        raise EOFError
    return first + await reader.readuntil(b"\r\n\r\n")


def http(site: Site, requests: list[Asked] | None = None) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await head(reader)).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method=method, path=path, body=body, host=headers.get("host", ""))
        if requests is not None:
            requests.append(asked)
        page = site(asked)
        extra = "".join(f"{name}: {value}\r\n" for name, value in page.headers.items())
        writer.write(
            f"HTTP/1.1 {page.status} X\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n{extra}Connection: close\r\n\r\n".encode()
            + page.body
        )
        await writer.drain()

    return serve


def banner(line: bytes) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        await writer.drain()
        await reader.read(1024)

    return serve


class Servers:
    """Servers that run until the end of a test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.accepted: list[tuple[str, int]] = []

    async def start(self, address: str, port: int, handler: Handler, tls: ssl.SSLContext | None = None) -> int:
        """Serve; port 0 takes a free one. Returns the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted.append(writer.get_extra_info("sockname")[:2])
            try:
                await handler(reader, writer)
            except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(serve, address, port, ssl=tls)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield Servers(stack)


# What nodes of each protocol answer.

SUI = rpc(
    {
        "sui_getChainIdentifier": "35834a8a",
        "rpc.discover": {"openrpc": "1.2.6", "info": {"title": "Sui JSON-RPC", "version": "1.38.2"}, "methods": []},
        "sui_getLatestCheckpointSequenceNumber": "102345678",
    }
)
SUI_METRICS = pages(
    {
        "/metrics": text(
            "# HELP sui_node_build_info Build\n# TYPE sui_node_build_info gauge\n"
            'sui_node_build_info{commit="abc",version="1.38.2-4f1e"} 1\n'
            "sui_validator_total_transactions 12\nnarwhal_round 4\n"
        )
    }
)
ETHEREUM = rpc(
    {
        "eth_chainId": "0x1",
        "web3_clientVersion": "Geth/v1.13.14-stable-2bd6bd01/linux-amd64/go1.21.7",
        "eth_syncing": False,
        "eth_blockNumber": "0x12a05f2",
        "net_peerCount": "0x32",
    }
)
FILECOIN = rpc(
    {
        "Filecoin.Version": {"Version": "1.26.3+mainnet+git.8c6bbdd6c", "APIVersion": 131840, "BlockDelay": 30},
        "Filecoin.ChainHead": {
            "Cids": [{"/": "bafy2bzacecnamqgqmifpluoeldx7zzglxcljo6oja4vrmtj7432rphldpdmm2"}],
            "Blocks": [],
            "Height": 3741234,
        },
        "Filecoin.NetPeers": [{"ID": "12D3KooW", "Addrs": []}],
        "Filecoin.SyncState": {"ActiveSyncs": [{"WorkerID": 1, "Stage": 4, "Height": 3741234}]},
    },
    paths=("/rpc/v0", "/rpc/v1"),
)
ARWEAVE = pages(
    {
        "/info": as_json(
            {
                "network": "arweave.N.1",
                "version": 5,
                "release": 69,
                "height": 1400123,
                "current": "a" * 64,
                "blocks": 1400123,
                "peers": 433,
            }
        ),
        "/height": text("1400123"),
        "/peers": as_json(["127.0.0.1:1984"]),
    }
)
HELIUM = pages(
    {
        "/v1/status": as_json(
            {"name": "helium-gateway", "version": "1.1.0", "region": "EU868", "key": "1" + "3" * 50, "uptime": 12}
        ),
        "/v1/blocks/height": as_json({"data": {"height": 1471625}}),
        "/health": as_json({"status": "ok"}),
    }
)
RENDER = pages(
    {
        "/node/info": as_json(
            {
                "name": "render-node",
                "version": "2.4.1",
                "gpus": [{"model": "NVIDIA GeForce RTX 4090", "vram_mb": 24564}],
            }
        ),
        "/status": as_json({"service": "render-node", "status": "idle"}),
    }
)
WALRUS = pages(
    {
        "/v1/health": as_json(
            {
                "success": {
                    "code": 200,
                    "data": {
                        "uptime": {"secs": 1042, "nanos": 7},
                        "epoch": 5,
                        "publicKey": "0x" + "ab" * 48,
                        "nodeStatus": "Active",
                    },
                }
            }
        )
    }
)
WALRUS_METRICS = pages({"/metrics": text('walrus_build_info{version="1.8.0-57f9"} 1\nwalrus_blobs_stored 4\n')})
SOLANA = rpc(
    {
        "getVersion": {"solana-core": "1.18.22", "feature-set": 4215500110},
        "getGenesisHash": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
        "getHealth": "ok",
        "getSlot": 287654321,
    }
)
PROMETHEUS = pages(
    {
        "/api/v1/status/buildinfo": as_json(
            {"status": "success", "data": {"version": "2.53.0", "revision": "x", "goVersion": "go1.22.4"}}
        ),
        "/metrics": text("prometheus_http_requests_total 4\n"),
    }
)
