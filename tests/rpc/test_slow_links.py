"""A link that is slow, not broken: a handshake of several round trips is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.rpc.channels import Channels
from tests.rpc.test_trust_on_the_wire import Table, node, status_of
from tests.timing import ATTEMPTS, quickest

ONE_WAY_SECONDS = 0.3
"""As over a satellite, or a telephone in a cellar."""


@asynccontextmanager
async def slow_link(port: int) -> AsyncIterator[int]:
    """A port that leads to another one of this machine, each way after a while."""
    carrying: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            asyncio.get_running_loop().call_later(ONE_WAY_SECONDS, sink.write, data)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pump(reader, beyond_writer), pump(beyond_reader, writer))
        finally:
            for each in (writer, beyond_writer):
                each.transport.abort()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying.add(asyncio.create_task(carry(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def test_a_peer_behind_a_slow_link_answers_the_first_call(tmp_path: Path) -> None:
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b") as b, slow_link(b.port) as port:
        table.places[b.identity.peer_id] = f"127.0.0.1:{port}"
        for attempts_left in reversed(range(ATTEMPTS)):  # a handshake that this machine held up proves nothing
            channels = Channels(a.identity, table, SystemClock())
            try:
                answer = await status_of(channels.channel(b.identity.peer_id))
                break
            except PeerdError:
                if not attempts_left:
                    raise
            finally:
                await channels.close()
    assert answer.peer_id == a.identity.peer_id


async def test_a_peer_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    table = Table()
    async with node(tmp_path, table, "a") as a, node(tmp_path, table, "b") as b:
        table.places[b.identity.peer_id] = "127.0.0.1:1"

        async def attempt() -> float:
            channels = Channels(a.identity, table, SystemClock())
            began = asyncio.get_running_loop().time()
            with pytest.raises(PeerdError) as caught:
                await status_of(channels.channel(b.identity.peer_id))
            took = asyncio.get_running_loop().time() - began
            assert caught.value.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
            await channels.close()
            return took

        await quickest(3, attempt)
