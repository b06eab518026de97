"""Stands between the daemon and one container; outlives the daemon and keeps how the container ended.

Run as ``python -m peerd.jobs.runner.containers.holder CONTROL`` in a session of its own. It feeds stdin, keeps stdout
and stderr up to their cap, ends the container when its time is over or the daemon wants it, and removes it when its
end is on the disk. CONTROL is a directory that the job cannot see, with the files that a process's wrapper has there
too (see :mod:`peerd.jobs.runner.wrapper`), and

    stop    written by the daemon: the container is to end, whichever holder reads this
    fed     written here: stdin was given to its end
    lost    written here: it may have run, and nobody knows how it ended. Nothing of it lives

A holder that dies loses nothing but what the container writes meanwhile: the next one finds the container by the id in
``started.json``. Whether that one ever ran is asked of the engine, which alone starts it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from aiodocker.stream import Stream

from peerd import trees
from peerd.errors import PeerdError
from peerd.jobs.runner.containers.cgroup_events import LimitEvents
from peerd.jobs.runner.containers.engine import Engine, EngineDownError, EngineRefusalError, State
from peerd.jobs.runner.containers.following import LOOK_SECONDS, Following, LostError
from peerd.jobs.runner.containers.images import find_image
from peerd.jobs.runner.containers.request import MARKER_LABEL
from peerd.jobs.runner.containers.streams import Output, feed
from peerd.jobs.runner.spec import Outcome
from peerd.jobs.runner.wrapper import keep, keep_at_last, now
from peerd.sizes import show_size

_TICK_SECONDS = 0.05
_DISK_MS = 1000
_KILL_AGAIN_MS = 1000
_DRAIN_SECONDS = 5.0
_REMOVE_SECONDS = 10.0
"""How long an engine that is away is waited for; the daemon removes what is left when it is back."""

Content = dict[str, object]


class Holder:
    """One container, from the request to its removal."""

    def __init__(self, control: Path, spec: dict[str, Any], engine: Engine, stop: asyncio.Event) -> None:
        self._control = control
        self._spec = spec
        self._engine = engine
        self._stop = stop
        self._started_at = now()
        self._output = Output(Path(spec["stdout_path"]), Path(spec["stderr_path"]), spec["output_cap_bytes"])
        self._events = LimitEvents(0)
        self._disk_hit = False

    async def run(self) -> None:
        """Carry it to its recorded end, and take it away."""
        async with AsyncExitStack() as stack:
            try:
                content = await self._carry(stack)
            except LostError:
                await self._remove(forever=True)
                if not self._stop.is_set():
                    keep(str(self._control), "lost", {})
                    return
                content = self._content(Outcome.KILLED, message="how it ended is not known")
        self._events.close()
        self._output.sync()
        keep_at_last(str(self._control), "exit.json", content)
        await self._remove(forever=False)

    async def _carry(self, stack: AsyncExitStack) -> Content:
        started = self._control / "started.json"
        if started.exists():
            content = json.loads(started.read_text(encoding="utf-8"))
            self._started_at = content["started_at"]
            following = self._follow(content["container"], stack)
            self._output.missed()
            self._output.ended.set()  # until it is listened to
            if self._spec["stdin_files"] and not (self._control / "fed").exists():
                raise LostError  # what it read of stdin was not all
            following.fed.set()
            with suppress(EngineDownError):
                await self._count(following.container)
            return await self._until_end(following)
        begun = await self._begin(stack)
        return await self._until_end(begun) if isinstance(begun, Following) else begun

    def _follow(self, container: str, stack: AsyncExitStack) -> Following:
        following = Following(self._engine, container, self._output, stack)
        stack.push_async_callback(following.close)
        return following

    # Start

    async def _begin(self, stack: AsyncExitStack) -> Following | Content:
        """Make it and let it run; what to record when it did not."""
        beginning = asyncio.create_task(self._start(stack))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({beginning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not (self._control / "started.json").exists() and not beginning.done():
            beginning.cancel()
        try:
            return await beginning
        except asyncio.CancelledError:
            return self._content(Outcome.KILLED, message="stopped before it started")
        except EngineDownError as error:
            return self._content(Outcome.POSTPONED, message=error.message, reason=error.reason.text)
        except EngineRefusalError as error:
            return self._content(Outcome.SPAWN_FAILED, message=f"could not be started: {error.message}")
        except PeerdError as error:
            return self._content(Outcome.REFUSED, message=error.message, reason=error.reason.text)

    async def _start(self, stack: AsyncExitStack) -> Following:
        image = await find_image(self._engine, **self._spec["image"])
        await self._remove(forever=False)  # of a holder that died before it could start it
        container = await self._engine.create({**self._spec["body"], "Image": image}, self._spec["name"])
        following = self._follow(container, stack)
        await following.listen()
        # Before it starts: podman makes a container anew, and runs it again, when one attaches after its end.
        stdin: Stream | None = None
        if self._spec["stdin_files"]:
            stdin = await stack.enter_async_context(self._engine.attached(container, stdin=True))
        # Podman has made its process by now, which waits to be let go: its control group can be opened in time.
        await self._count(container)
        self._started_at = now()
        keep(str(self._control), "started.json", {"container": container, "started_at": self._started_at})
        try:
            await self._engine.start(container)
        except EngineDownError as error:
            # Its state will tell; not that of an engine that was killed before it wrote down what it had done.
            following.may_have_run = error.asked
        else:
            following.may_have_run = True
            with suppress(EngineDownError):
                await self._count(container)  # docker has made it only now
        if stdin is not None:
            feeding = asyncio.create_task(self._feed(following, stdin))
            stack.callback(feeding.cancel)
        else:
            following.fed.set()
        return following

    async def _count(self, container: str) -> None:
        """Look at the counts of its control group, once there is one."""
        if self._events.found:
            return
        with suppress(EngineRefusalError):  # somebody has removed it: its end will tell
            self._events = LimitEvents((await self._engine.state(container)).pid)
            self._events.watch()

    async def _feed(self, following: Following, stdin: Stream) -> None:
        if await feed(stdin, map(Path, self._spec["stdin_files"])):
            keep(str(self._control), "fed", {})
            following.fed.set()

    # End

    async def _until_end(self, following: Following) -> Content:
        ending = asyncio.create_task(following.end())
        asked: Outcome | None = None
        kill_at = disk_at = 0.0
        while not ending.done():
            await asyncio.wait({ending}, timeout=_TICK_SECONDS)
            if self._spec["limits"]["disk_bytes"] and now() >= disk_at:
                await self._look_at_disk()
                disk_at = now() + _DISK_MS
            if asked is None:
                asked = self._wish()
                if asked is not None:
                    kill_at = now() + self._spec["grace_seconds"] * 1000
                    await self._signal(following, "SIGTERM")
            elif now() >= kill_at:
                kill_at = now() + _KILL_AGAIN_MS
                await self._signal(following, "SIGKILL")
        state = ending.result()
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._output.ended.wait()
        except TimeoutError:
            self._output.missed()
        if state is not None and not following.may_have_run:
            return self._content(Outcome.POSTPONED, message="the container engine went away before it was started")
        return self._verdict(asked, state)

    def _wish(self) -> Outcome | None:
        """Why it is to end now."""
        timeout = self._spec["timeout_seconds"]
        if self._stop.is_set():
            return Outcome.KILLED
        if timeout and now() >= self._started_at + timeout * 1000:
            return Outcome.TIMED_OUT
        return Outcome.LIMITED if self._disk_hit else None

    def _verdict(self, asked: Outcome | None, state: State | None) -> Content:
        limits, code = self._spec["limits"], state.exit_code if state is not None else None
        if asked is Outcome.LIMITED:
            words = f"wrote more than the {show_size(limits['disk_bytes'])} it may keep"
            return self._content(asked, code, message=words, limit="disk_limit")
        if asked is not None:
            return self._content(asked, code)
        if (self._events.memory or (state is not None and state.oom)) and code:
            words = f"needed more than its {show_size(limits['memory_bytes'])} of memory (exit code {code})"
            return self._content(Outcome.LIMITED, code, message=words, limit="memory_limit")
        if self._events.pids and code:
            words = f"needed more than its {limits['pids']} processes (exit code {code})"
            return self._content(Outcome.LIMITED, code, message=words, limit="pids_limit")
        if state is None:
            return self._content(Outcome.KILLED, message="somebody else removed its container")
        return self._content(Outcome.EXITED, code)

    async def _signal(self, following: Following, name: str) -> None:
        with suppress(EngineRefusalError, EngineDownError):  # it has ended, or is asked again
            await self._engine.kill(following.container, name)

    async def _look_at_disk(self) -> None:
        occupied = 0
        for path in self._spec["writable"]:
            occupied += await asyncio.to_thread(trees.measure, Path(path))
        self._disk_hit = self._disk_hit or occupied > self._spec["limits"]["disk_bytes"]

    async def _remove(self, *, forever: bool) -> None:
        """Take away whatever carries this attempt's marker."""
        until = now() + _REMOVE_SECONDS * 1000
        while forever or now() < until:
            try:
                for container, _ in await self._engine.labelled(f"{MARKER_LABEL}={self._spec['marker']}"):
                    await self._engine.remove(container, force=True)
            except PeerdError as error:
                sys.stderr.write(f"not removed yet: {error.message}\n")
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return

    def _content(
        self, outcome: Outcome, code: int | None = None, *, message: str = "", limit: str = "", reason: str = ""
    ) -> Content:
        return {
            "outcome": outcome.value,
            "exit_code": code,
            "message": message,
            "limit": limit,
            "reason": reason,
            "started_at": self._started_at,
            "ended_at": now(),
            "stdout_dropped": self._output.stdout.dropped,
            "stderr_dropped": self._output.stderr.dropped,
        }


async def hold(control: Path) -> None:
    """Hold the container of the attempt, if there is anything to hold."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    lock = os.open(control / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if any((control / name).exists() for name in ("abandoned", "exit.json", "lost")):
        return
    if (control / "stop").exists():
        stop.set()
    try:
        spec = json.loads((control / "spec.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # the attempt was given up and cleared away
        return
    engine = Engine(Path(spec["socket"]))
    try:
        await Holder(control, spec, engine, stop).run()
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
