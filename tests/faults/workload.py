"""What an operator asks for while things break: workflows with transfers, and the record of what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerd.client import Client
from peerd.errors import PeerdError
from peerd.v1 import workflows_pb2
from tests.e2e.fleet import Daemon, Fleet
from tests.e2e.workflow import definition, job

ASK_SECONDS = 5.0
_AGAIN_SECONDS = 0.2


@dataclass(kw_only=True)
class Asked:
    """One workflow that somebody wants."""

    request_id: str
    orchestrator: str
    content: dict[str, Any]
    steps: tuple[str, ...]
    """What the effect log calls its jobs."""
    delivered: tuple[str, ...]
    """Steps whose files come home."""
    execution_id: int | None = None
    """None until it was acknowledged."""
    ended: str = ""
    """Its last status, once somebody has seen it final."""
    answers: set[int] = field(default_factory=set)
    """Every id that was ever given for the request."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large workflows are."""

    jobs: tuple[int, int] = (2, 5)
    seconds: float = 1.0
    """Longest run of a job."""
    megabytes: tuple[int, ...] = (0, 0, 0, 1, 2, 6)
    flaky: float = 0.0
    """How many of the jobs, from 0 to 1, fail at first and are tried again some seconds later."""


class Workload:
    """Makes workflows from a seed and hands them in until each is acknowledged."""

    def __init__(self, fleet: Fleet, rng: random.Random, shape: Shape | None = None) -> None:
        self._fleet = fleet
        self._rng = rng
        self._shape = shape or Shape()
        self.asked: list[Asked] = []

    def invent(self, count: int = 1) -> list[Asked]:
        """The next workflows of the seed."""
        made = [self._invent(len(self.asked) + number) for number in range(count)]
        self.asked += made
        return made

    def _invent(self, number: int) -> Asked:
        rng, shape = self._rng, self._shape
        names = [f"j{index}" for index in range(rng.randint(*shape.jobs))]
        peers = list(self._fleet.daemons)
        jobs: list[dict[str, Any]] = []
        feeds: set[str] = set()
        for index, name in enumerate(names):
            sources = rng.sample(names[:index], k=min(index, rng.choice((0, 1, 1, 2))))
            feeds.update(sources)
            params = {
                "name": f"w{number}-{name}",
                "seconds": f"{rng.uniform(0, shape.seconds):.2f}",
                "write_mb": str(rng.choice(shape.megabytes)),
            }
            more: dict[str, Any] = {}
            if shape.flaky and rng.random() < shape.flaky:
                params["fail_first"] = "1"
                more["retry"] = {"attempts": 3, "backoff": "3s"}
            inputs = [f"{source}.output" for source in sources]
            jobs.append(job(name, rng.choice(peers), inputs, params=params, **more))
        home = [name for name in names if name not in feeds]
        return Asked(
            request_id=f"fault-{number}",
            orchestrator=rng.choice(peers),
            content=definition(f"w{number}", *jobs, deliver=[f"{name}.output" for name in home]),
            steps=tuple(f"w{number}-{name}" for name in names),
            delivered=tuple(f"w{number}-{name}" for name in home),
        )

    async def hand_in(self, asked: Asked, *, twice: bool = False) -> None:
        """Ask until it is acknowledged, always with the same request id; ``twice`` asks once more afterwards."""
        daemon = self._fleet[asked.orchestrator]
        while True:
            try:
                async with Client(socket=daemon.socket, timeout=ASK_SECONDS) as client:
                    source = workflows_pb2.DefinitionSource(file_name="w.json", text=json.dumps(asked.content))
                    answer = await client.run(source, request_id=asked.request_id)
            except PeerdError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            asked.answers.add(answer.workflow_execution_id)
            asked.execution_id = answer.workflow_execution_id
            if not twice:
                return
            twice = False

    @property
    def acknowledged(self) -> list[Asked]:
        """Those that somebody was promised."""
        return [asked for asked in self.asked if asked.execution_id is not None]


async def executions(daemon: Daemon) -> dict[int, str] | None:
    """Id -> status of every execution that it knows; None while it does not answer."""
    try:
        async with Client(socket=daemon.socket, timeout=ASK_SECONDS) as client:
            found = await client.executions()
    except PeerdError:
        return None
    name = workflows_pb2.ExecutionStatus.Name
    return {entry.workflow_execution_id: name(entry.status).removeprefix("EXECUTION_STATUS_") for entry in found}


def home_of(daemon: Daemon, execution_id: int) -> Path:
    """Where deliveries to Local Peer 0 lie."""
    return daemon.data.joinpath("workflows", daemon.peer_id, str(execution_id), "jobs", daemon.peer_id, "0", "input")
