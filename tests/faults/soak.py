"""Hours of ordinary work with a kill now and then: nothing may grow."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerd.trees import measure
from tests.e2e.fleet import Daemon
from tests.faults.judge import FINAL
from tests.faults.scene import Scene, say
from tests.faults.workload import Asked, executions

KILL_EVERY = 30.0
_SAMPLE_EVERY = 15.0
_WORKFLOW_EVERY = 2.0
_LOOK_EVERY = 10.0
_DAY = 86_400

SHORT_MEMORY = "\n[retention]\n" + "".join(
    f"{key} = {seconds / _DAY}\n"
    for key, seconds in {"executions_days": 60, "jobs_days": 60, "history_days": 120, "abandoned_days": 600}.items()
)
"""Retention of a minute instead of a month, so that an hour shows what would take years."""
SHORT_MEMORY += "collect_minutes = 0.25\n[audit]\nretention_days = 0.002\n[mesh]\nhistory_days = 0.002\n"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one daemon takes at one moment."""

    memory: int
    """Resident bytes; without what is shared with files."""
    descriptors: int
    threads: int
    journal: int
    """Bytes of the write-ahead log."""
    store: int
    disk: int
    """Bytes of all workflows' directories."""
    rows: int


async def soak(scene: Scene, seconds: float) -> None:
    """Work, kill, and measure; the founder is never killed, so that what it holds can be seen to be flat."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    samples: list[Sample] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_work(scene, until))
        tasks.create_task(_kill(scene, until))
        tasks.create_task(_note_ends(scene, until))
        while loop.time() < until:
            await asyncio.sleep(_SAMPLE_EVERY)
            samples.append(await asyncio.to_thread(sample, scene.fleet.founder))
            if len(samples) % 8 == 0:
                say(f"{samples[-1]} after {len(scene.workload.acknowledged)} workflows")
    scene.facts["soak"] = judge_samples(samples, scene.findings)


async def _work(scene: Scene, until: float) -> None:
    async def one(asked: Asked) -> None:
        await scene.workload.hand_in(asked)

    async with asyncio.TaskGroup() as tasks:
        while asyncio.get_running_loop().time() < until:
            (asked,) = scene.workload.invent(1)
            tasks.create_task(one(asked))
            await asyncio.sleep(scene.rng.uniform(0, 2 * _WORKFLOW_EVERY))


async def _note_ends(scene: Scene, until: float) -> None:
    """See each execution final before retention takes its row."""
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_LOOK_EVERY)
        for name, daemon in scene.fleet.daemons.items():
            known = await executions(daemon) or {}
            for asked in scene.workload.acknowledged:
                status = known.get(asked.execution_id or 0, "")
                if asked.orchestrator == name and status in FINAL:
                    asked.ended = status


async def _kill(scene: Scene, until: float) -> None:
    while (left := until - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(min(left, KILL_EVERY))
        victims = [daemon for daemon in scene.standing if daemon is not scene.fleet.founder]
        victim = scene.rng.choice(victims)
        with scene.breaking(victim):
            victim.kill()
            scene.counts["kill"] += 1
            await asyncio.sleep(scene.rng.uniform(0, 3))
            await scene.start(victim)


def sample(daemon: Daemon) -> Sample:
    """Look at a running daemon from outside."""
    assert daemon.process is not None
    proc = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    with sqlite3.connect(f"file:{daemon.data / 'peerd.db'}?mode=ro", uri=True) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # Answers are kept for a week, whatever retention says.
        counted = [name for name in tables if name != "requests"]
        rows = sum(store.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in counted)
    return Sample(
        memory=int(status["RssAnon"].split()[0]) * 1024,
        descriptors=len(os.listdir(proc / "fd")),
        threads=int(status["Threads"]),
        journal=_size(daemon.data / "peerd.db-wal"),
        store=_size(daemon.data / "peerd.db"),
        disk=measure(daemon.data / "workflows"),
        rows=rows,
    )


def judge_samples(samples: Sequence[Sample], findings: list[str]) -> dict[str, Any]:
    """Compare the median of the second quarter with that of the last; what grew is a finding."""
    quarter = len(samples) // 4
    if quarter < 2:
        return {"samples": len(samples)}
    report: dict[str, Any] = {"samples": len(samples)}
    for name, most, floor in (
        ("memory", 1.1, 8 << 20),
        ("descriptors", 1.1, 8),
        ("threads", 1.1, 4),
        ("journal", 1.5, 8 << 20),
        ("store", 1.5, 4 << 20),
        ("disk", 2.0, 64 << 20),
        ("rows", 1.5, 2000),
    ):
        early = statistics.median(getattr(entry, name) for entry in samples[quarter : 2 * quarter])
        late = statistics.median(getattr(entry, name) for entry in samples[-quarter:])
        highest = max(getattr(entry, name) for entry in samples)
        report[name] = {"early": round(early), "late": round(late), "highest": highest}
        if late > most * early + floor:
            findings.append(f"{name} grew from {early:.0f} to {late:.0f}")
    return report


def _size(path: Path) -> int:
    try:
        information = path.lstat()
    except FileNotFoundError:
        return 0
    return information.st_size if not path.is_dir() else 0
