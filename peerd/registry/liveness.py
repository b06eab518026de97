"""Whether a peer is there, decided purely from when it was last heard and how often it failed to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from peerd.clock import Millis


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """Contact with one peer so far."""

    online: bool = False
    since: Millis
    """Of the present state."""
    why: str = "was not heard of since this daemon started"
    last_seen: Millis | None = None
    failures: int = 0
    running_jobs: int = 0


MAX_FAILURES = 3
"""Probes in a row without an answer before a peer counts as offline."""


def answered(state: Liveness, now: Millis, *, running_jobs: int | None = None) -> Liveness:
    """It was in contact."""
    return Liveness(
        online=True,
        since=state.since if state.online else now,
        why="answers",
        last_seen=now,
        running_jobs=state.running_jobs if running_jobs is None else running_jobs,
    )


def failed(state: Liveness, now: Millis, reason: str, *, offline_ms: int) -> Liveness:
    """A probe failed. It stays online until it has failed several times or for too long."""
    failures = state.failures + 1
    silent = state.last_seen is None or now - state.last_seen >= offline_ms
    if not state.online:
        return replace(state, failures=failures, why=reason)
    if failures < MAX_FAILURES and not silent:
        return replace(state, failures=failures)
    return replace(state, online=False, since=now, why=reason, failures=failures)
