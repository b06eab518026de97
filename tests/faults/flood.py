"""Thousands of executions at once: each is accepted or refused with a reason, and other callers hardly notice."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from typing import Any

from peerd.client import Client
from peerd.errors import PeerdError
from peerd.v1 import workflows_pb2
from tests.e2e.fleet import Fleet
from tests.e2e.workflow import definition

PATIENCE_MS = 250.0
"""What the second caller's calls may take, 99 of 100."""
_AT_ONCE = 500
_PAUSE_SECONDS = 0.02
_ROOT = Path(__file__).parents[2]


async def flood(fleet: Fleet, count: int, *, away: bool) -> dict[str, Any]:
    """Hand in so many executions as fast as it goes, watched by a second caller; ``away``: for a peer that is down.

    Returns what became of them and the latencies of the second caller's calls, in ms.
    """
    daemon = fleet.founder
    target = list(fleet.daemons)[-1]
    if away:
        fleet[target].kill()
    work = {"name": "w", "service": "step", "params": {"name": "flood"}, "on": {"peer": target}}
    text = json.dumps(definition("flood", work))
    outcomes: Counter[str] = Counter()
    ids: set[int] = set()
    numbers = iter(range(count))
    began = time.monotonic()

    async def submitter(client: Client) -> None:
        for number in numbers:
            source = workflows_pb2.DefinitionSource(file_name="w.json", text=text)
            try:
                answer = await client.run(source, request_id=f"flood-{number}")
            except PeerdError as error:
                outcomes[error.reason.text] += 1
            else:
                outcomes["accepted"] += 1
                ids.add(answer.workflow_execution_id)

    # Another process: clients of one process share a connection, and so their places in its queue.
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.flood", str(daemon.socket), stdin=PIPE, stdout=PIPE, cwd=_ROOT
    )
    async with Client(socket=daemon.socket, timeout=300) as client:
        await asyncio.gather(*(submitter(client) for _ in range(min(count, _AT_ONCE))))
    seconds = time.monotonic() - began
    await asyncio.sleep(5)  # they are being worked on now, which must not be noticed either
    said, _ = await second.communicate(b"enough")
    latencies = sorted(json.loads(said))
    async with Client(socket=daemon.socket, timeout=300) as client:
        known = {entry.workflow_execution_id for entry in await client.executions()}
    return {
        "count": count,
        "outcomes": dict(outcomes),
        "seconds": round(seconds, 1),
        "executions_per_second": round(outcomes["accepted"] / seconds, 1),
        "acknowledged_and_lost": len(ids - known),
        "doubled": outcomes["accepted"] - len(ids),
        "second_caller": {
            "calls": len(latencies),
            "p50_ms": round(latencies[len(latencies) // 2], 1),
            "p99_ms": round(latencies[int(len(latencies) * 0.99)], 1),
            "max_ms": round(latencies[-1], 1),
        },
    }


async def _second_caller(socket: str) -> list[float]:
    """Ask this and that, one call after the other with pauses, until something comes on stdin."""
    latencies = []
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, done.set)
    async with Client(socket=socket, timeout=300) as client:
        await client.status()
        while not done.is_set():
            for ask in (client.status, client.peers, lambda: client.executions(limit=10)):
                began = time.monotonic()
                await ask()
                latencies.append((time.monotonic() - began) * 1000)
                await asyncio.sleep(_PAUSE_SECONDS)
    return latencies


def flood_of(count: int, *, away: bool = True) -> dict[str, Any]:
    """The same on a fleet of two made for it; ``ok`` when every promise held."""
    fleet = Fleet(("c", "a"), forked=False)
    try:
        fleet.found()
        report = asyncio.run(flood(fleet, count, away=away))
    finally:
        fleet.close()
    polite = {"accepted", "overloaded", "disk_low"}
    kept = not report["acknowledged_and_lost"] and not report["doubled"] and set(report["outcomes"]) <= polite
    return {**report, "ok": kept and report["second_caller"]["p99_ms"] < PATIENCE_MS}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_second_caller(sys.argv[1]))))
