"""Whether every promise was kept. Knows what was acknowledged, the effect log, the disks and the process table."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.fleet import Daemon, Fleet
from tests.faults.processes import stop
from tests.faults.workload import Asked, Workload, executions, home_of

_ASKED_AGAIN = 10
_SETTLE_SECONDS = 30.0
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@dataclass(kw_only=True)
class Verdict:
    """What was found; every list is empty when all is well."""

    acknowledged: int = 0
    effects: int = 0
    seconds_to_final: float = 0.0
    not_final: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    bad_stores: list[str] = field(default_factory=list)
    stray_processes: list[str] = field(default_factory=list)
    stray_files: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    broken_promises: list[str] = field(default_factory=list)
    slow_exits: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing at all is wrong."""
        return not any(value for value in asdict(self).values() if isinstance(value, list))

    def as_json(self) -> dict[str, Any]:
        """Counts, and the first of each kind of finding."""
        said = {key: value[:8] if isinstance(value, list) else value for key, value in asdict(self).items()}
        return {"ok": self.ok, **said}


async def until_final(
    fleet: Fleet, workload: Workload, seconds: float, patience: Callable[[], float] = lambda: 1.0
) -> tuple[float, list[str]]:
    """Wait; returns how long it took and who is not final then, with the reason it gives.

    A daemon that does not answer is waited for, and so is an execution that its orchestrator does not list, unless
    somebody has seen it final before.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        known = {name: await executions(daemon) for name, daemon in fleet.daemons.items()}
        silent = [f"{name} does not answer" for name, found in known.items() if found is None]
        waiting = [
            asked
            for asked in workload.acknowledged
            if not asked.ended
            and (found := known[asked.orchestrator]) is not None
            and found.get(asked.execution_id or 0) not in FINAL
        ]
        passed = loop.time() - began
        if not (silent or waiting):
            return passed, []
        if passed > seconds * patience():
            return passed, silent + [explain(fleet[asked.orchestrator], asked) for asked in waiting[:20]]
        await asyncio.sleep(0.3)


def explain(daemon: Daemon, asked: Asked) -> str:
    """The execution as its orchestrator shows it, on one line."""
    shown = daemon.peerctl("executions", "show", str(asked.execution_id), code=None)
    return f"{asked.request_id} on {daemon.name}: " + " | ".join(shown.stdout.split("\n"))[:1500]


async def judge(
    fleet: Fleet,
    workload: Workload,
    *,
    final_within: float,
    patience: Callable[[], float],
    may_fail: bool = False,
    when_final: Callable[[], Awaitable[None]] | None = None,
) -> Verdict:
    """Wait until all is final, look, stop the daemons in order, look again. ``may_fail``: failures need only be told.

    All daemons must run. ``when_final`` is called while they still do.
    """
    verdict = Verdict(acknowledged=len(workload.acknowledged))
    verdict.seconds_to_final, verdict.not_final = await until_final(fleet, workload, final_within, patience)
    for name, daemon in fleet.daemons.items():
        known = await _answered(daemon)
        if known is None:
            verdict.lost.append(f"{name} does not answer")
            continue
        compare(verdict, fleet, [asked for asked in workload.asked if asked.orchestrator == name], known, may_fail)
    _count_effects(verdict, fleet, workload, may_fail)
    if when_final is not None:
        await when_final()
    await _settled(lambda: not any(stray_files(daemon.data) for daemon in fleet.daemons.values()))
    await asyncio.to_thread(_stop, verdict, fleet)
    for daemon in fleet.daemons.values():
        _check_disk(verdict, daemon)
    await _settled(lambda: not processes_below(fleet.folder))
    verdict.stray_processes = processes_below(fleet.folder)
    return verdict


async def _answered(daemon: Daemon) -> dict[int, str] | None:
    """Its executions; a call that takes too long on a busy machine is made again."""
    for _ in range(_ASKED_AGAIN):
        if (known := await executions(daemon)) is not None:
            return known
    return None


async def _settled(condition: Callable[[], bool]) -> None:
    """Leave it the time to become true: what is not needed any more goes a moment after all is final."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _SETTLE_SECONDS
    while not condition() and loop.time() < until:
        await asyncio.sleep(0.1)


def compare(
    verdict: Verdict, fleet: Fleet, asked_there: Sequence[Asked], known: dict[int, str], may_fail: bool
) -> None:
    """What one orchestrator lists against what was asked of it."""
    for asked in asked_there:
        if asked.execution_id is None:
            continue
        if len(asked.answers) > 1:
            verdict.doubled.append(f"{asked.request_id} was answered with {sorted(asked.answers)}")
        status = known.pop(asked.execution_id, None)
        if asked.ended:  # it was seen to be over, and retention may have taken it since
            if asked.ended != "COMPLETED":
                verdict.failed.append(f"{asked.request_id} was {asked.ended}")
        elif status is None:
            verdict.lost.append(f"{asked.request_id}: execution {asked.execution_id} is not there")
        elif status not in FINAL:
            if not any(said.startswith(f"{asked.request_id} on ") for said in verdict.not_final):
                verdict.not_final.append(explain(fleet[asked.orchestrator], asked))
        elif status != "COMPLETED" and not may_fail:
            verdict.failed.append(explain(fleet[asked.orchestrator], asked))
        elif status == "COMPLETED":
            verdict.lost += _missing_at_home(fleet[asked.orchestrator], asked)
    unacknowledged = sum(asked.execution_id is None for asked in asked_there)
    if len(known) > unacknowledged:
        verdict.doubled.append(f"executions nobody asked for: {sorted(known)}")


def _missing_at_home(daemon: Daemon, asked: Asked) -> list[str]:
    home = home_of(daemon, asked.execution_id or 0)
    there = {path.name: path for path in home.rglob("*.txt")}
    return [
        f"{asked.request_id}: {step}.txt did not come home"
        for step in asked.delivered
        if f"{step}.txt" not in there or there[f"{step}.txt"].read_text() != f"made by {step}\n"
    ]


def _count_effects(verdict: Verdict, fleet: Fleet, workload: Workload, may_fail: bool) -> None:
    effects = fleet.effects_seen()
    for asked in workload.asked:
        for step in asked.steps:
            done = effects[f"done {step}"]
            verdict.effects += done
            if done > 1:
                verdict.doubled.append(f"{step} was done {done} times")
            elif done == 0 and asked.execution_id is not None and not may_fail:
                verdict.lost.append(f"{step} was never done (started {effects[f'start {step}']} times)")


def _stop(verdict: Verdict, fleet: Fleet) -> None:
    for daemon in fleet.daemons.values():
        if daemon.alive and stop(daemon) != 0:
            verdict.slow_exits.append(f"{daemon.name} did not end in order: {daemon.tail(3)}")


def _check_disk(verdict: Verdict, daemon: Daemon) -> None:
    store = sqlite3.connect(daemon.data / "peerd.db")
    try:
        (said,) = store.execute("PRAGMA integrity_check").fetchone()
        broken = store.execute("PRAGMA foreign_key_check").fetchall()
        waiting = store.execute("SELECT count(*) FROM job_attempts WHERE outcome IS NULL").fetchone()[0]
    finally:
        store.close()
    if said != "ok" or broken:
        verdict.bad_stores.append(f"{daemon.name}: {said} {broken[:3]}")
    if waiting:
        verdict.bad_stores.append(f"{daemon.name}: {waiting} attempts never ended")
    verdict.stray_files += [
        f"{daemon.name}: {path.relative_to(daemon.data)}" for path in stray_files(daemon.data) if path.exists()
    ]
    log = daemon.log.read_text(errors="replace")
    if "Traceback" in log:
        lines = [line for line in log.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line.strip("│ "))]
        verdict.tracebacks += [f"{daemon.name}: {line[:200]}" for line in lines[:3]] or [f"{daemon.name}: see its log"]


def stray_files(data: Path) -> list[Path]:
    """Temporary files, staged transfers and control directories that nobody needs any more."""
    found = list(data.rglob("*.tmp"))
    found += [path for folder in data.rglob(".incoming") for path in folder.rglob("*") if path.is_file()]
    found += list((data / "control").glob("*"))
    return found


def processes_below(folder: Path) -> list[str]:
    """Processes whose command names that folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in command:
            found.append(f"{entry.name}: {command[:200]}")
    return found
