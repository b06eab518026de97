"""The client without ``await``: for scripts, and for notebooks that have no event loop of their own.

::

    with SyncClient() as peerd:
        run = peerd.run(wf)
        run.result()
        run.fetch("out")

The loop runs in a thread of its own; a call waits for its answer. Whatever :class:`~peerd.client.Client` can do,
``peerd.do(lambda client: client.peers())`` does here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from peerd.client.client import Client
from peerd.client.run import Run
from peerd.client.workflow import Workflow
from peerd.v1 import workflows_pb2

T = TypeVar("T")


class SyncClient:
    """One daemon. Use it as a context manager, or close it."""

    def __init__(self, *, socket: str | Path | None = None, peer: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="peerd-client", daemon=True)
        self._thread.start()

        async def connect() -> Client:
            return Client(socket=socket, peer=peer)  # its channel belongs to the loop that makes it

        self._client = self._wait(connect())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; a second time does nothing."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, call: Callable[[Client], Awaitable[T]]) -> T:
        """Any call of the asynchronous client."""
        return self._wait(call(self._client))

    def run(
        self, workflow: Workflow, *, params: Mapping[str, str] | None = None, request_id: str = "", keep: bool = False
    ) -> SyncRun:
        """Start an execution."""
        started = self.do(lambda peerd: peerd.run(workflow, params=params, request_id=request_id, keep=keep))
        return SyncRun(self, started)

    def handle(self, execution_id: int) -> SyncRun:
        """A handle on an execution that was started before."""
        return SyncRun(self, self.do(lambda peerd: peerd.handle(execution_id)))

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous stream, one after the other."""
        try:
            while True:
                try:
                    yield self._wait(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                self._wait(close())

    def _wait(self, awaitable: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await awaitable

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class SyncRun:
    """The handle of :class:`~peerd.client.run.Run` without ``await``."""

    def __init__(self, client: SyncClient, run: Run) -> None:
        self._client = client
        self._run = run

    @property
    def id(self) -> int:
        """The execution's id on its orchestrator."""
        return self._run.id

    @property
    def last(self) -> workflows_pb2.Execution:
        """The execution as it was last seen."""
        return self._run.last

    def refresh(self) -> workflows_pb2.Execution:
        """Look again."""
        return self._client.do(lambda _: self._run.refresh())

    def watch(self, *, timeout: float | None = None) -> Iterator[workflows_pb2.Execution]:
        """The whole execution after each change, until it is final."""
        return self._client.iterate(self._run.watch(timeout=timeout))

    def wait(self, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is final, however it ended."""
        return self._client.do(lambda _: self._run.wait(timeout=timeout))

    def result(self, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is completed. Raises EXECUTION_FAILED when it ends otherwise."""
        return self._client.do(lambda _: self._run.result(timeout=timeout))

    def fetch(self, directory: str | Path, *, files: Sequence[str] = ()) -> list[Path]:
        """Copy the delivered files here, verified; their paths."""
        return self._client.do(lambda _: self._run.fetch(directory, files=files))

    def logs(self, job: str, *, stream: str = "stdout") -> str:
        """What a job has written so far."""
        return self._client.do(lambda _: self._run.logs(job, stream=stream))

    def why(self, job: str) -> workflows_pb2.ExplainJobResponse:
        """All that is known of why a job is where it is."""
        return self._client.do(lambda _: self._run.why(job))

    def cancel(self, *, reason: str = "") -> None:
        """End it; returns when the wish is durable."""
        self._client.do(lambda _: self._run.cancel(reason=reason))

    def _repr_markdown_(self) -> str:
        return self._run._repr_markdown_()

    def _repr_html_(self) -> str:
        return self._run._repr_html_()

    def __repr__(self) -> str:
        return repr(self._run)
