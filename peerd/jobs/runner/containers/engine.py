"""The few calls of the Docker API that peerd makes, over a unix socket: podman's or docker's.

Every failure is one of two: the engine is not there (:class:`EngineDownError`, which passes), or it was asked and
refused (:class:`EngineRefusalError`). No other program is started, and no shell reads anything.
https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner.containers.facts import EngineFacts

_NOT_CONNECTED = 900
"""What aiodocker says instead of an HTTP status when there is no connection."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)


class EngineDownError(PeerdError):
    """Nobody answers at the socket."""

    def __init__(self, socket: Path, cause: object, *, asked: bool = True) -> None:
        super().__init__(Reason.ENGINE_UNAVAILABLE, f"the container engine at {socket} does not answer: {cause}")
        self.asked = asked
        """Whether the request may have reached it all the same."""


class EngineRefusalError(PeerdError):
    """The engine answered, and did not do it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(Reason.ENGINE_REFUSED, f"the container engine says: {message}")
        self.status = status

    @property
    def not_found(self) -> bool:
        """There is no such container or image."""
        return self.status == 404


@dataclass(frozen=True, kw_only=True)
class State:
    """How a container is."""

    status: str
    running: bool
    pid: int
    exit_code: int
    oom: bool
    started: bool
    """Whether its first process was ever let go."""

    @property
    def ended(self) -> bool:
        """It ran, and runs no more."""
        return self.started and not self.running


class Engine:
    """One connection pool to one engine."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._docker = Docker(url=f"unix://{socket}", timeout=_TIMEOUT)
        self._known = False
        self._server = ""

    async def __aenter__(self) -> Engine:
        try:
            await self.ping()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._docker.close()

    async def ping(self) -> None:
        """Return if somebody answers; what is spoken from then on is the engine's own version of the API.

        aiodocker would ask for the version, for which podman runs a package manager: a second or more.
        """
        async with self._asking(greet=False), self._docker._query("_ping", versioned_api=False) as response:
            self._docker.api_version = f"v{response.headers.get('Api-Version', '1.41')}"
            self._server = response.headers.get("Server", "")
            self._known = True

    async def facts(self) -> EngineFacts:
        """Who answers."""
        async with self._asking():
            info = await self._docker.system.info()
        # "Libpod/4.3.1 (linux)" or "Docker/20.10.24 (linux)"
        product, _, version = self._server.partition(" ")[0].partition("/")
        options = [str(option) for option in info.get("SecurityOptions") or ()]
        return EngineFacts(
            name="podman" if product == "Libpod" else product.lower() or "docker",
            version=version,
            rootless=any("name=rootless" in option for option in options),
            remapped=any("name=userns" in option for option in options),
            limits_memory=bool(info.get("MemoryLimit", True)),
        )

    # Images

    async def image(self, name: str) -> dict[str, Any]:
        """What the engine's storage says of an image."""
        async with self._asking():
            return dict(await self._docker.images.inspect(name))

    async def pull(self, name: str) -> None:
        """Fetch an image from its registry. Raises EngineRefusalError when that fails, also in the middle."""
        async with self._asking():
            async for line in self._docker.images.pull(name, stream=True, timeout=None):
                if "error" in line:
                    raise EngineRefusalError(500, str(line["error"]))

    # Containers

    async def create(self, body: Mapping[str, Any], name: str) -> str:
        """A container that does not run yet; its id."""
        async with self._asking():
            return str((await self._docker.containers.create(body, name=name)).id)

    async def start(self, container: str) -> None:
        """Let it run."""
        async with self._asking():
            await self._docker.containers.container(container).start()

    async def kill(self, container: str, signal: str) -> None:
        """Signal its first process."""
        async with self._asking():
            await self._docker.containers.container(container).kill(signal=signal)

    async def wait(self, container: str) -> None:
        """Return when it does not run."""
        async with self._asking():
            await self._docker.containers.container(container).wait()

    async def state(self, container: str) -> State:
        """How it is."""
        async with self._asking():
            state = dict((await self._docker.containers.container(container).show())["State"])
        return State(
            status=str(state["Status"]),
            running=bool(state["Running"]) or bool(state.get("Paused")) or state["Status"] == "stopping",
            pid=int(state.get("Pid") or 0),
            exit_code=int(state["ExitCode"]),
            oom=bool(state.get("OOMKilled")),
            started=not str(state["StartedAt"]).startswith("0001-"),
        )

    async def remove(self, container: str, *, force: bool) -> None:
        """Take it away with its anonymous volumes; without ``force`` only if it does not run."""
        if force:
            # Podman would ask it to end and wait for ten seconds.
            with suppress(EngineRefusalError):
                await self.kill(container, "SIGKILL")
        async with self._asking():
            await self._docker.containers.container(container).delete(force=force, v=True)

    async def labelled(self, label: str) -> list[tuple[str, Mapping[str, str]]]:
        """(id, labels) of every container that carries the label, running or not."""
        async with self._asking():
            found = await self._docker.containers.list(all=True, filters=json.dumps({"label": [label]}))
        return [(str(container.id), dict(container["Labels"] or {})) for container in found]

    @asynccontextmanager
    async def attached(self, container: str, *, stdin: bool) -> AsyncIterator[Stream]:
        """Its stdin, or else its stdout and stderr; closing the first closes the container's stdin."""
        async with self._asking():
            stream = self._docker.containers.container(container).attach(
                stdin=stdin, stdout=not stdin, stderr=not stdin
            )
            try:
                await stream._init()  # the only way to be attached before anything is read or written
            except AssertionError as error:
                raise EngineDownError(self.socket, "the connection was closed") from error
        try:
            yield stream
        finally:
            await close(stream)

    @asynccontextmanager
    async def _asking(self, *, greet: bool = True) -> AsyncIterator[None]:
        try:
            if greet and not self._known:
                await self.ping()
            yield
        except DockerError as error:
            if error.status == _NOT_CONNECTED:
                asked = not isinstance(error.__cause__, aiohttp.ClientConnectorError)
                raise EngineDownError(self.socket, error.message, asked=asked) from error
            raise EngineRefusalError(error.status, str(error.message)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise EngineDownError(self.socket, str(error) or type(error).__name__) from error


async def close(stream: Stream) -> None:
    """Close a stream whose connection may be gone."""
    response = stream._resp
    if response is not None and response.connection is None:
        stream._closed = True  # aiodocker would fail on it
        response.close()
        return
    await stream.close()
