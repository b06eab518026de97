"""Applies what discoveries and scans found: once for each, as its job ends, whenever this peer runs.

What is under way stands in the store, so a restart goes on where it was. The row of a run is ended in the transaction
that changes its node, and only one transaction can end it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import structlog

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.loops import run_every
from peerd.nodes import repository, runs
from peerd.nodes.definition import REPORT_FILE, RESULT_FILE, longest_seconds
from peerd.nodes.model import NodeEvent, Policy
from peerd.nodes.runs import Run
from peerd.nodes.verdict import BAD_RESULT, MAX_MESSAGE, Verdict, failed, judge, plain
from peerd.store import Store, Tx
from peerd.store.audit import note
from peerd.transfers.paths import open_file
from peerd.workflows.outcomes import JobOutcome, begun, delivery_directory, job_outcomes

_LOOK_SECONDS = 0.5
_MAX_BYTES = 1024**2
"""Of a result, and of a report: both go into one answer to whoever asks for them."""

_SLACK_SECONDS = 60
"""For its result to come home."""
_NO_WORD = "the peer that it ran on went away; what it says later does not count"

_PASSING = frozenset({Reason.OVERLOADED, Reason.DISK_LOW})
"""Of reasons why the inventory does not take a scan."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class NodeScan:
    """A scan that went well, as it is handed in."""

    run_id: int
    node_id: str
    organization: str
    """Its slug."""
    scanner_peer_id: str
    document: bytes
    """The prober's result.json."""


class ScanIntake(Protocol):
    """Where reports go from here: the inventory, through the signed scan path."""

    def hand_in(self, tx: Tx, scan: NodeScan) -> None:
        """Take a scan, in the transaction that ends it. Must be repeatable."""
        ...


class Executions(Protocol):
    """Where the jobs are; see peerd.workflows.lifecycle."""

    def give_up(self, tx: Tx, execution_id: int, job: str, waiting: str) -> None:
        """Nothing more is expected of that job: what waits for its end goes on."""
        ...


class Applying:
    """Looks at what is under way."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        data_dir: Path,
        own_peer_id: PeerId,
        known: Collection[str],
        executions: Executions,
        intake: ScanIntake | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._data_dir = data_dir
        self._own_peer_id = own_peer_id
        self._known = known
        self._executions = executions
        self._running: dict[int, float] = {}
        """Since when, by a clock that nobody sets, each run has been seen to have begun."""
        self._intake = intake

    async def run(self) -> None:
        """Until cancelled."""
        await run_every(self.look, seconds=_LOOK_SECONDS, clock=self._clock, name="nodes")

    async def look(self) -> None:
        """Apply what has ended."""
        by_execution = sorted(await runs.all_open(self._store), key=lambda run: run.workflow_execution_id)
        is_open = {run.run_id for run in by_execution}
        self._running = {run_id: since for run_id, since in self._running.items() if run_id in is_open}
        for execution_id, group in groupby(by_execution, key=lambda run: run.workflow_execution_id):
            await self._apply(execution_id, list(group))

    async def _apply(self, execution_id: int, open_runs: Sequence[Run]) -> None:
        by_job = {run.job: run for run in open_runs}
        ended = dict(await job_outcomes(self._store, execution_id, by_job))
        owed = await begun(self._store, execution_id, by_job) if len(ended) < len(by_job) else {}
        now = self._clock.monotonic()
        for job, executor in owed.items():
            run = by_job.get(job)
            if run is None or job in ended:
                continue
            if now - self._running.setdefault(run.run_id, now) > longest_seconds(run.level) + _SLACK_SECONDS:
                ended[job] = _overdue(executor)
        await asyncio.gather(*(self._try(by_job[job], outcome) for job, outcome in ended.items()))

    async def _try(self, run: Run, outcome: JobOutcome) -> None:
        """End it; one that cannot be ended now keeps nobody else waiting, and is tried again."""
        try:
            await self._end(run, outcome)
        except PeerdError as error:
            _log.info("nodes.run_waits", run=run.run_id, reason=error.reason.text, message=error.message)
        except Exception:  # noqa: BLE001 - a mistake of ours in one must not hold up all
            _log.exception("nodes.run_not_ended", run=run.run_id, node=run.node_id)

    async def _end(self, run: Run, outcome: JobOutcome) -> None:
        document, report = b"", b""
        refusal: Verdict | None = None
        if not outcome.delivered:
            refusal = failed(run, outcome.reason, outcome.message)
        else:
            try:
                document, report = await asyncio.to_thread(self._read, run)
            except (OSError, PeerdError) as error:
                refusal = failed(run, BAD_RESULT, f"the prober's answer cannot be read: {error}")

        def apply(tx: Tx) -> None:
            row = repository.find_organization(tx, run.org_id)
            assert row is not None  # noqa: S101 - organizations are never removed
            policy = repository.to_organization(row).policy
            verdict = refusal or self._judge(run, document, policy)
            self._write(tx, run, verdict, outcome, document, report, slug=row["slug"])

        await self._store.write(apply)
        failpoint("nodes.apply.after_commit")

    def _judge(self, run: Run, document: bytes, policy: Policy) -> Verdict:
        return judge(run, document, policy, self._known)

    def _read(self, run: Run) -> tuple[bytes, bytes]:
        """What was delivered: a result, and of a scan a report, too."""
        root = delivery_directory(self._data_dir, self._own_peer_id, run.workflow_execution_id)
        document = _read_file(root, [run.job, RESULT_FILE], _MAX_BYTES)
        try:
            report = _read_file(root, [run.job, REPORT_FILE], _MAX_BYTES)
        except FileNotFoundError:
            report = b""
        return document, report

    def _write(
        self, tx: Tx, run: Run, verdict: Verdict, outcome: JobOutcome, document: bytes, report: bytes, *, slug: str
    ) -> None:
        columns: dict[str, object] = {
            "peer_id": outcome.executor,
            "reason": verdict.reason,
            "message": verdict.message,
            "version": verdict.version,
        }
        if verdict.reason != BAD_RESULT:  # else nobody can read it, or should
            columns |= {"result": document.decode(errors="replace"), "report": _lines_of(report)}
        if verdict.scan is not None:
            columns |= {"score": verdict.scan.score, "risk": verdict.scan.risk}
        if not run.protocol and verdict.protocol:
            columns["protocol"] = verdict.protocol
        if not runs.end(tx, run.run_id, runs.OK if verdict.ok else runs.FAILED, columns):
            return
        if outcome == _overdue(outcome.executor):
            self._executions.give_up(tx, run.workflow_execution_id, run.job, _NO_WORD)
        for event in verdict.events:
            repository.change_node(
                tx,
                run.node_id,
                event,
                caller=run.caller,
                run_id=run.run_id,
                detail=verdict.message or verdict.protocol,
                columns=_changes(tx, run, verdict, event),
            )
        runs.prune(tx, run.node_id)
        target = {"run_id": run.run_id, "node_id": run.node_id, "kind": run.kind, "ok": verdict.ok}
        note(tx, "EndNodeRun", caller=self._own_peer_id, target={**target, "reason": verdict.reason})
        if verdict.scan is not None:
            scan = NodeScan(
                run_id=run.run_id,
                node_id=run.node_id,
                organization=slug,
                scanner_peer_id=outcome.executor,
                document=document,
            )
            self._hand_in(tx, scan)
        failpoint("nodes.apply.before_commit")
        tx.on_commit(lambda: _say(run, verdict))

    def _hand_in(self, tx: Tx, scan: NodeScan) -> None:
        """What passes is waited for; what the inventory never takes is said, and the node is scanned all the same."""
        if self._intake is None:
            return
        try:
            self._intake.hand_in(tx, scan)
        except PeerdError as error:
            if error.reason in _PASSING:
                raise
            runs.remark(tx, scan.run_id, f"not in the inventory: {error.message}"[:MAX_MESSAGE])


def _overdue(executor: str) -> JobOutcome:
    """The prober and its executor end a job long before; then the peer that runs it has gone."""
    return JobOutcome(executor=executor, delivered=False, reason="lost", message=_NO_WORD)


def _changes(tx: Tx, run: Run, verdict: Verdict, event: NodeEvent) -> dict[str, object]:
    match event:
        case NodeEvent.DISCOVERED:
            return {"protocol": verdict.protocol, "version": verdict.version}
        case NodeEvent.SCANNED:
            assert verdict.scan is not None  # noqa: S101 - what the event says
            return {
                **({"version": verdict.version} if verdict.version else {}),
                "score": verdict.scan.score,
                "risk": verdict.scan.risk,
                "scanned_at": tx.now,
                "scan_run_id": run.run_id,
            }
        case _:
            return {"reason": verdict.reason, "message": verdict.message}


def _read_file(root: Path, parts: list[str], most: int) -> bytes:
    descriptor = open_file(root, parts)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{parts[-1]} is larger than {most} bytes")
    return content


def _lines_of(report: bytes) -> str:
    """A text of others, for a terminal."""
    return "\n".join(plain(line, len(line)) for line in report.decode(errors="replace").split("\n"))


def _say(run: Run, verdict: Verdict) -> None:
    _log.info(
        "nodes.run_ended", run=run.run_id, node=run.node_id, kind=run.kind.value, ok=verdict.ok, reason=verdict.reason
    )
