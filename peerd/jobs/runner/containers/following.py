"""From a container that was made to the state in which it ended, through an engine that may come and go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from peerd.jobs.runner.containers.engine import Engine, EngineDownError, EngineRefusalError, State
from peerd.jobs.runner.containers.streams import Output

LOOK_SECONDS = 0.5
"""Between two questions to an engine that is away."""
_PAUSE_SECONDS = 0.05
_MADE = ("created", "initialized", "configured")


class LostError(Exception):
    """It may have run, and how it ended cannot be known."""


class Following:
    """Listens to one container and waits for its end."""

    def __init__(self, engine: Engine, container: str, output: Output, stack: AsyncExitStack) -> None:
        self._engine = engine
        self.container = container
        self._output = output
        self._stack = stack
        self._pumps: list[asyncio.Task[None]] = []
        self._listening = False
        self.may_have_run = False
        self.fed = asyncio.Event()
        """Its stdin was given to the end, or it has none."""

    async def listen(self) -> None:
        """Take what it writes from now on."""
        stream = await self._stack.enter_async_context(self._engine.attached(self.container, stdin=False))
        self._output.ended.clear()
        self._pumps.append(asyncio.create_task(self._output.pump(stream)))
        self._listening = True

    async def close(self) -> None:
        """Stop listening."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def end(self) -> State | None:
        """Its last state; one in which it never ran if it did not and never will; None when somebody removed it.

        Raises LostError.
        """
        while True:
            try:
                state = await self._engine.state(self.container)
                if state.running or state.started or state.status not in _MADE:
                    # The last: podman that was killed while it let it run knows no moment of its start.
                    self.may_have_run = True
                if not state.running and not await self._runs_after_all(state):
                    return state
                if state.running and not self._listening:
                    await self.listen()
                await self._wait_a_little()
            except EngineDownError:
                await self._engine_went_away()
            except EngineRefusalError as error:
                if error.not_found:
                    return None
                await asyncio.sleep(LOOK_SECONDS)

    async def _runs_after_all(self, state: State) -> bool:
        """Whether one that was never let go cannot be taken away, because it was let go this moment."""
        if state.status not in _MADE:
            return False
        if self.may_have_run:
            raise LostError  # podman makes a container that has ended anew when somebody attaches to it
        try:
            await self._engine.remove(self.container, force=False)
        except EngineRefusalError as error:
            return not error.not_found
        return False

    async def _wait_a_little(self) -> None:
        """Until the engine says that it ended, or its output does, which is sooner with podman."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._engine.wait(self.container))]
        if not self._output.ended.is_set():
            waits.append(asyncio.create_task(self._output.ended.wait()))
        done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()
        await asyncio.sleep(_PAUSE_SECONDS)

    async def _engine_went_away(self) -> None:
        """What it says meanwhile is lost; what it was still to read as well, and then its result is worth nothing."""
        if not self.fed.is_set():
            raise LostError
        if self._listening:
            self._output.missed()
        self._listening = False
        await asyncio.sleep(LOOK_SECONDS)
