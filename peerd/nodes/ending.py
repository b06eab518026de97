"""Ends a discovery or scan: its row, its node, the audit log and the inventory, all in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import structlog

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.nodes import keeping, repository, runs
from peerd.nodes.homecoming import Brought
from peerd.nodes.model import NodeEvent
from peerd.nodes.runs import Run
from peerd.nodes.verdict import BAD_RESULT, MAX_MESSAGE, Verdict, plain
from peerd.store import Tx
from peerd.store.audit import note

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


class Ending:
    """Ends runs, each once."""

    def __init__(self, own_peer_id: PeerId, intake: ScanIntake | None = None) -> None:
        self._own_peer_id = own_peer_id
        self._intake = intake

    def end(
        self, tx: Tx, run: Run, verdict: Verdict, *, slug: str, executor: str = "", brought: Brought | None = None
    ) -> bool:
        """False if it was ended before: then nothing is written. Raises OVERLOADED, DISK_LOW: then it ends later."""
        brought = brought or Brought()
        columns: dict[str, object] = {
            "peer_id": executor,
            "reason": verdict.reason,
            "message": verdict.message,
            "version": verdict.version,
        }
        if verdict.reason != BAD_RESULT:  # else nobody can read it, or should
            columns |= keeping.columns(brought.result.decode(errors="replace"), _lines_of(brought.report))
        if verdict.scan is not None:
            columns |= {"score": verdict.scan.score, "risk": verdict.scan.risk}
        if not run.protocol and verdict.protocol:
            columns["protocol"] = verdict.protocol
        if not runs.end(tx, run.run_id, runs.OK if verdict.ok else runs.FAILED, columns):
            return False
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
        keeping.prune(tx, org_id=run.org_id, node_id=run.node_id)
        target = {"run_id": run.run_id, "node_id": run.node_id, "kind": run.kind, "ok": verdict.ok}
        note(tx, "EndNodeRun", caller=self._own_peer_id, target={**target, "reason": verdict.reason})
        if verdict.scan is not None:
            scan = NodeScan(
                run_id=run.run_id,
                node_id=run.node_id,
                organization=slug,
                scanner_peer_id=executor,
                document=brought.result,
            )
            self._hand_in(tx, scan)
        tx.on_commit(lambda: _say(run, verdict))
        return True

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


def _lines_of(report: bytes) -> str:
    """A text of others, for a terminal."""
    return "\n".join(plain(line, len(line)) for line in report.decode(errors="replace").split("\n"))


def _say(run: Run, verdict: Verdict) -> None:
    _log.info(
        "nodes.run_ended", run=run.run_id, node=run.node_id, kind=run.kind.value, ok=verdict.ok, reason=verdict.reason
    )
