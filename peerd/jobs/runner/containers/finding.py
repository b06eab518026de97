"""Which container engine answers on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd.errors import PeerdError
from peerd.jobs.runner.containers.facts import EngineFacts

OFF = "none"
"""``[containers] socket`` for: use no engine, even if there is one."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An engine that answered."""

    socket: Path
    facts: EngineFacts

    @property
    def words(self) -> str:
        """Such as ``podman 4.3.1``."""
        return f"{self.facts.name} {self.facts.version}"


async def still_there(found: Found) -> bool:
    """Whether the engine answers."""
    from peerd.jobs.runner.containers.engine import Engine  # only machines that have one pay for it

    try:
        async with Engine(found.socket):
            return True
    except PeerdError:
        return False


async def find_engine(configured: str) -> Found | None:
    """The engine at the configured socket, or the first that answers where engines usually listen."""
    if configured == OFF:
        return None
    sockets = [socket for socket in ([Path(configured)] if configured else _usual()) if socket.is_socket()]
    if not sockets:
        return None
    from peerd.jobs.runner.containers.engine import Engine

    for socket in sockets:
        try:
            async with Engine(socket) as engine:
                return Found(socket=socket, facts=await engine.facts())
        except PeerdError:
            continue
    return None


def _usual() -> Iterator[Path]:
    """Rootless first: less can go wrong there."""
    user = os.geteuid()
    if user != 0:
        yield Path(f"/run/user/{user}/podman/podman.sock")
        yield Path(f"/run/user/{user}/docker.sock")
    yield Path("/run/podman/podman.sock")
    yield Path("/run/docker.sock")
