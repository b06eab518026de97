"""One attempt of a process job, from its directories to the committed record of its end.

Whatever goes wrong here, the attempt is taken up again by what the runner finds out about it, just as after a restart:
an attempt that may have had effects is never started a second time. The processes outlive the daemon; stopping the
daemon only stops watching them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from peerd import trees
from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.jobs import files, gpus
from peerd.jobs.ends import Ending, Verdict
from peerd.jobs.model import Attempt
from peerd.jobs.places import Places
from peerd.jobs.recording import Begun, Recording
from peerd.jobs.runner import Exit, Limits, Outcome, ProcessSpec, Recovered, Recovery, Secrets
from peerd.jobs.runner.containers.spec import ContainerSpec
from peerd.jobs.secrets import Vault
from peerd.loops import Backoff
from peerd.store import Store

_log = structlog.get_logger(__name__)
POSTPONED = "postponed"
"""Outcome of an attempt that was not made, because what runs it is away for now."""
_OUTCOMES = {Outcome.TIMED_OUT: "timeout", Outcome.LIMITED: "limit", Outcome.POSTPONED: POSTPONED}
_ENGINE_AGAIN_MS = 10_000


class Runner(Protocol):
    """What runs attempts; :class:`peerd.jobs.runner.dispatch.Runners`, or a fake in tests."""

    async def start(self, control: Path, spec: ProcessSpec) -> None:
        """Start it."""
        ...

    async def wait(self, control: Path) -> Exit | None:
        """How it ended, once it has; None when nobody knows."""
        ...

    async def recover(self, control: Path) -> Recovered:
        """What became of one that an earlier daemon may have started."""
        ...

    async def stop(self, control: Path, grace_seconds: float) -> Exit | None:
        """End it; returns when nothing of it lives."""
        ...

    def forget(self, control: Path) -> None:
        """Its end is recorded."""
        ...

    def sweep(self, control_root: Path, wanted: Iterable[Path]) -> None:
        """End what is left of attempts that are no longer open."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of every process."""

    output_cap_bytes: int = 256 * 1024**2
    grace_seconds: float = 1.0
    """Between TERM and KILL."""


class AttemptWatch:
    """Runs one attempt and records its end."""

    def __init__(self, begun: Begun, *, fresh: bool) -> None:
        self.begun = begun
        self.fresh = fresh
        """Not yet handed to the runner; otherwise the runner is asked what became of it."""
        self.stop = asyncio.Event()
        if begun.job.stop is not None:
            self.stop.set()

    @property
    def attempt(self) -> Attempt:
        """The row that it is about."""
        job = self.begun.job
        return Attempt(
            id=self.begun.attempt_id,
            job_execution_id=job.id,
            attempt=job.attempt,
            outcome=None,
            exit_code=None,
            started_at=job.since,
            ended_at=None,
        )


class Attempts:
    """Carries attempts to their recorded end."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        recording: Recording,
        places: Places,
        clock: Clock,
        bounds: Bounds,
        vault: Vault,
    ) -> None:
        self._store = store
        self._runner = runner
        self._recording = recording
        self._places = places
        self._clock = clock
        self._bounds = bounds
        self._vault = vault

    async def forget_others(self, open_attempts: Iterable[int]) -> None:
        """Remove what a daemon that died just after recording an end had no time to remove."""
        wanted = {self._places.control(attempt_id) for attempt_id in open_attempts}
        for control in await asyncio.to_thread(lambda: list(self._places.control_root.glob("*"))):
            if control not in wanted:
                await asyncio.to_thread(self._runner.forget, control)
        await asyncio.to_thread(self._runner.sweep, self._places.control_root, wanted)

    async def carry(self, watch: AttemptWatch) -> Verdict | None:
        """Return when the end is committed, and what was decided then (None: it runs anew, or was recorded before)."""
        backoff = Backoff(1, 30)
        while True:
            try:
                return await self._follow(watch)
            except PeerdError as error:  # the disk is full, most likely
                _log.warning("attempt.not_recorded", job=watch.begun.job.id, reason=error.reason.text)
            except Exception:  # noqa: BLE001 - the attempt must be carried to its end; the traceback goes to the log
                _log.exception("attempt.failed_to_follow", job=watch.begun.job.id)
            await self._clock.sleep(backoff.next())

    async def _follow(self, watch: AttemptWatch) -> Verdict | None:
        control = self._places.control(watch.begun.attempt_id)
        if watch.fresh:
            watch.fresh = False
            ending = await self._launch(watch, control)
        else:
            recovered = await self._runner.recover(control)
            if recovered.state is Recovery.NEVER_STARTED:
                await self._store.write(lambda tx: self._recording.never_started(tx, watch.attempt))
                await asyncio.to_thread(self._runner.forget, control)
                return None
            ending = _ending(recovered.exit) if recovered.state is not Recovery.RUNNING else None
        if ending is None:
            ending = await self._until_end(watch, control)
        return await self._record(watch, control, ending)

    async def _launch(self, watch: AttemptWatch, control: Path) -> Ending | None:
        """Start the process; an ending when it could not be."""
        begun, place = watch.begun, self._places.of(watch.begun.job)
        if watch.stop.is_set():
            return Ending(outcome="exit")
        try:
            declared = [mount.path for mount in begun.job.work.mounts]
            written = {*begun.out_mounts, *(mount.path for mount in begun.job.work.mounts if mount.writable)}
            await asyncio.to_thread(files.make_place, place, [*begun.mounts, *declared])
            await asyncio.to_thread(files.empty_outputs, place, sorted(written), begun.received)
            failpoint("job.spawn.before")
            secrets = await asyncio.to_thread(self._vault.open, begun.job)
            await self._runner.start(control, self._spec(begun, secrets))
        except OSError as error:
            return Ending(outcome="exit", message=f"could not be started: {error}")
        except PeerdError as error:
            if error.reason is Reason.ENGINE_UNAVAILABLE:
                return Ending(outcome=POSTPONED, message=error.message)
            hidden = error.reason in (Reason.INVALID_ARGUMENT, Reason.ISOLATION_INSUFFICIENT)
            refused = "refused" if hidden else error.reason.text
            return Ending(outcome=refused, message=error.message)
        failpoint("job.spawn.after")
        return None

    def _spec(self, begun: Begun, secrets: Secrets) -> ProcessSpec:
        job, place = begun.job, self._places.of(begun.job)
        spec = ProcessSpec(
            # With the store: after a restore, attempts are counted anew while older processes may still run.
            marker=f"{self._places.executor}/{self._store.store_id}/{begun.attempt_id}",
            argv=job.work.argv,
            env={**job.work.env, **gpus.variables(job.gpu_indices)},
            job_directory=place.directory,
            stdin_files=tuple(place.directory / path for path in begun.stdin),
            stdout_path=place.stdout,
            stderr_path=place.stderr,
            output_cap_bytes=self._bounds.output_cap_bytes,
            timeout_seconds=job.timeout_seconds,
            grace_seconds=self._bounds.grace_seconds,
            read_only_paths=tuple(map(Path, job.work.read_only_paths)),
            writable_paths=tuple(map(Path, job.work.writable_paths)),
            network=job.work.network,
            secrets=secrets,
            limits=to_limits(job.limits),
        )
        if job.work.container is None:
            return spec
        return ContainerSpec(**spec.__dict__, image=job.work.container, mounts=job.work.mounts)

    async def _until_end(self, watch: AttemptWatch, control: Path) -> Ending:
        """Wait for the process, or for the wish to stop it and then for its end."""
        waiting = asyncio.ensure_future(self._runner.wait(control))
        stopping = asyncio.ensure_future(watch.stop.wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return _ending(waiting.result())
        finally:
            waiting.cancel()
            stopping.cancel()
        ended = await self._runner.stop(control, self._bounds.grace_seconds)
        failpoint("job.cancel.after_stop")
        return _ending(ended)

    async def _record(self, watch: AttemptWatch, control: Path, ending: Ending) -> Verdict | None:
        if ending.outcome == POSTPONED:
            await self._store.write(
                lambda tx: self._recording.postponed(tx, watch.attempt, ending.message, _ENGINE_AGAIN_MS)
            )
            await asyncio.to_thread(self._runner.forget, control)
            return None
        made = []
        if ending.outcome == "exit" and ending.exit_code == 0:
            made = await asyncio.to_thread(files.made_files, self._places.of(watch.begun.job), watch.begun.out_mounts)
        await self._free(watch)
        ended_at = ending.ended_at if ending.ended_at is not None else self._clock.now()
        occupied = await asyncio.to_thread(trees.measure, self._places.of(watch.begun.job).directory, opening=True)
        verdict = await self._store.write(
            lambda tx: self._recording.end(tx, watch.attempt, ending, made, Millis(ended_at), disk_bytes=occupied)
        )
        failpoint("job.exit.after_commit")
        await asyncio.to_thread(self._runner.forget, control)
        return verdict

    async def _free(self, watch: AttemptWatch) -> None:
        """Remove what a job made that is ended for exceeding a quota, so that others of its orchestrator can go on."""
        if not watch.stop.is_set():
            return
        received = await self._store.write(lambda tx: self._recording.over_quota(tx, watch.attempt))
        if received is None:
            return
        try:
            await asyncio.to_thread(files.remove_made, self._places.of(watch.begun.job), received)
        except OSError:
            # Its end must be told all the same; what is left is counted until retention takes it.
            _log.exception("attempt.not_freed", job=watch.begun.job.id)
        failpoint("job.quota.after_remove")


def to_limits(stored: Mapping[str, float]) -> Limits:
    """The limits that were decided when the attempt began."""
    return Limits(
        memory_bytes=int(stored.get("memory_bytes", 0)),
        cpus=stored.get("cpus", 0.0),
        pids=int(stored.get("pids", 0)),
        disk_bytes=int(stored.get("disk_bytes", 0)),
    )


def _ending(ended: Exit | None) -> Ending:
    """The runner's words in ours."""
    if ended is None:
        return Ending(outcome="lost")
    return Ending(
        outcome=ended.reason if ended.outcome is Outcome.REFUSED else _OUTCOMES.get(ended.outcome, "exit"),
        exit_code=ended.exit_code,
        limit=ended.limit if ended.outcome is Outcome.LIMITED else "",
        message=ended.message if ended.outcome is not Outcome.EXITED else "",
        stdout_truncated=ended.stdout_truncated,
        ended_at=ended.ended_at,
    )
