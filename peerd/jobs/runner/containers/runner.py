"""The daemon's side of containers: start a holder for each, wait for it, and remove what nobody knows.

As with processes, all that matters lies in the attempt's control directory, and whether a holder lives is asked of its
lock. A holder that died is replaced: the container it held is still there, or the engine tells what became of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

import peerd
from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import wrapper
from peerd.jobs.runner.containers import finding
from peerd.jobs.runner.containers.finding import Found
from peerd.jobs.runner.containers.ownership import give
from peerd.jobs.runner.containers.request import (
    CONTROL_LABEL,
    MARKER_LABEL,
    PEER_LABEL,
    Defaults,
    body,
    name_of,
    user_of,
)
from peerd.jobs.runner.containers.spec import ContainerSpec
from peerd.jobs.runner.runner import Lock, is_locked, read_exit, send_to
from peerd.jobs.runner.spec import Exit, Recovered, Recovery

_log = structlog.get_logger(__name__)
_HOLDER = "peerd.jobs.runner.containers.holder"
_POLL_SECONDS = 0.05
_HOLDERS = 5
"""For one attempt; one that kills five of them would kill the sixth."""
_ASK_AGAIN_SECONDS = 5.0


class ContainerRunner:
    """Runs containers of one peer on this machine's engine."""

    def __init__(self, configured: str, defaults: Defaults, *, owner: str) -> None:
        self._configured = configured
        self._defaults = defaults
        self._owner = owner
        self._children: dict[Path, asyncio.subprocess.Process] = {}
        self._listeners: list[Callable[[], None]] = []
        self.found: Found | None = None
        """The engine that answered last; it may be away now."""
        self.answers = False

    @property
    def version(self) -> str:
        """Such as ``podman 4.3.1``; empty while no engine answers."""
        return self.found.words if self.found is not None and self.answers else ""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this when an engine came or went."""
        self._listeners.append(listener)

    async def look(self) -> None:
        """See whether there is an engine now."""
        before = self.version
        if self.found is not None and self.answers and await finding.still_there(self.found):
            return
        found = await finding.find_engine(self._configured)
        self.found, self.answers = found or self.found, found is not None
        if self.version != before:
            _log.info("containers.engine", engine=self.version or "none")
            for listener in self._listeners:
                listener()

    async def start(self, control: Path, spec: ContainerSpec) -> None:
        """Start the attempt. Raises ENGINE_UNAVAILABLE, which passes, and ENGINE_REFUSED."""
        await self.look()
        if self.found is None or not self.answers:
            raise PeerdError(Reason.ENGINE_UNAVAILABLE, "no container engine answers on this machine")
        content, owner = self._content(control, spec, self.found)
        if owner is not None:
            await asyncio.to_thread(give, spec.job_directory, owner)
        await asyncio.to_thread(_write, control, content)
        await self._hold(control)

    async def wait(self, control: Path) -> Exit | None:
        """How the attempt ended, once it has; None when nobody knows (then nothing of it lives)."""
        for _ in range(_HOLDERS):
            child = self._children.get(control)
            if child is not None:
                await child.wait()
                self._children.pop(control, None)
            while is_locked(control):  # noqa: ASYNC110 - another process sets no event of ours
                await asyncio.sleep(_POLL_SECONDS)
            exit_ = read_exit(control)
            if exit_ is not None or (control / "lost").exists():
                return exit_
            _log.warning("containers.holder_died", control=str(control))
            await self._hold(control)
        return None

    async def recover(self, control: Path) -> Recovered:
        """What became of an attempt that an earlier daemon may have started."""
        exit_ = read_exit(control)
        if exit_ is not None:
            return Recovered(state=Recovery.FINISHED, exit=exit_)
        if not control.exists():
            return Recovered(state=Recovery.NEVER_STARTED)
        with Lock(control) as mine:
            if not mine:
                return Recovered(state=Recovery.RUNNING)
            exit_ = read_exit(control)
            if exit_ is not None:
                return Recovered(state=Recovery.FINISHED, exit=exit_)
            if (control / "lost").exists():
                return Recovered(state=Recovery.LOST)
            if not (control / "started.json").exists():
                # Under the lock: a holder that is only now getting to its first line will see this and stop.
                wrapper.keep(str(control), "abandoned", {})
                return Recovered(state=Recovery.NEVER_STARTED)
        await self._hold(control)  # it asks the engine what became of the container
        return Recovered(state=Recovery.RUNNING)

    async def stop(self, control: Path, grace_seconds: float) -> Exit | None:
        """End the attempt: TERM, the spec's grace, KILL. Returns when nothing of it lives."""
        del grace_seconds  # the holder knows it
        await asyncio.to_thread(wrapper.keep, str(control), "stop", {})
        waiting = asyncio.ensure_future(self.wait(control))
        try:
            while not waiting.done():
                send_to(_HOLDER, control, signal.SIGTERM)
                await asyncio.wait({waiting}, timeout=_ASK_AGAIN_SECONDS)
            return waiting.result()
        finally:
            waiting.cancel()

    async def sweep(self) -> None:
        """Look for the engine, and remove this peer's containers that belong to no attempt."""
        await self.look()
        if self.found is None or not self.answers:
            return
        try:
            from peerd.jobs.runner.containers.engine import Engine  # see finding

            async with Engine(self.found.socket) as engine:
                for container, labels in await engine.labelled(f"{PEER_LABEL}={self._owner}"):
                    if not await asyncio.to_thread(_is_known, labels):
                        await engine.remove(container, force=True)
                        _log.warning("containers.removed", container=container, marker=labels.get(MARKER_LABEL))
        except PeerdError as error:
            _log.warning("containers.not_swept", message=error.message)

    async def _hold(self, control: Path) -> None:
        folder = str(Path(peerd.__file__).parent.parent)
        with open(control / "wrapper.log", "ab") as log:
            self._children[control] = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", _HOLDER, str(control),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PYTHONPATH": folder}, start_new_session=True, cwd="/",
            )  # fmt: skip

    def _content(
        self, control: Path, spec: ContainerSpec, found: Found
    ) -> tuple[dict[str, Any], tuple[int, int] | None]:
        user = user_of(found.facts, (os.geteuid(), os.getegid()), spec.image.user or self._defaults.user)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        bound = min(value for value in (files, processes, resource.RLIM_INFINITY) if value >= 0)
        job = spec.job_directory
        writable = [job / "output", *(job / "mounts" / path for path, writable in spec.mounts if writable)]
        content: dict[str, Any] = {
            "kind": "container",
            "marker": spec.marker,
            "socket": str(found.socket),
            "name": name_of(spec.marker),
            "image": {"name": spec.image.image, "digest": spec.image.digest, "pull": spec.image.pull},
            "body": body(spec, user, tmp_bytes=self._defaults.tmp_bytes, control=control, files=bound),
            "limits": asdict(spec.limits),
            "writable": [str(path) for path in writable],
            "stdin_files": [str(path) for path in spec.stdin_files],
            "stdout_path": str(spec.stdout_path),
            "stderr_path": str(spec.stderr_path),
            "output_cap_bytes": spec.output_cap_bytes,
            "timeout_seconds": spec.timeout_seconds,
            "grace_seconds": spec.grace_seconds,
        }
        return content, user.owner

    def forget(self, control: Path) -> None:
        """Remove the control directory of an attempt whose end is recorded elsewhere."""
        shutil.rmtree(control, ignore_errors=True)


def is_container(control: Path) -> bool:
    """Whether the attempt of this control directory runs in a container."""
    try:
        content = json.loads((control / "spec.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(content.get("kind") == "container")


def _is_known(labels: Any) -> bool:
    """Whether a container belongs to an attempt that may still run, or whose end is only now being recorded."""
    control = Path(labels.get(CONTROL_LABEL, "/nowhere"))
    if (control / "abandoned").exists():
        return False
    try:
        marker = json.loads((control / "spec.json").read_text(encoding="utf-8"))["marker"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(marker == labels.get(MARKER_LABEL)) and (is_locked(control) or read_exit(control) is None)


def _write(control: Path, content: dict[str, Any]) -> None:
    control.mkdir(mode=0o700, parents=True, exist_ok=True)
    wrapper.keep(str(control), "spec.json", content)
