"""How much of what discoveries and scans found is kept: results and reports go, the oldest first; scores stay."""

from __future__ import annotations

from collections.abc import Mapping

from peerd.store import Tx

KEPT_RESULTS = 20
"""Of one node."""
NODE_BYTES = 4 * 1024**2
"""Of the results and reports of one node."""
ORGANIZATION_BYTES = 256 * 1024**2
"""Of those of all nodes of an organization."""
_ROOM = 16
"""When that is reached, so many-th of it is freed at once: to look for the oldest takes a while."""

_CLEARED = "UPDATE node_runs SET result = '', report = '', kept_bytes = 0"
_OF_NEWEST_SCAN = "EXISTS (SELECT 1 FROM nodes n WHERE n.node_id = r.node_id AND n.scan_run_id = r.id)"
"""What 'peerctl nodes report' shows; this goes last."""


def columns(result: str, report: str) -> Mapping[str, object]:
    """What the row of a run has of these."""
    return {"result": result, "report": report, "kept_bytes": len(result.encode()) + len(report.encode())}


def prune(tx: Tx, *, org_id: str, node_id: str) -> None:
    """Keep within all bounds, after something was kept for that node."""
    kept = tx.all(
        f"SELECT id, kept_bytes, {_OF_NEWEST_SCAN} AS shown FROM node_runs r WHERE node_id = ? AND kept_bytes > 0"  # noqa: S608 - ours
        " ORDER BY shown DESC, id DESC",
        (node_id,),
    )
    total = 0
    for number, row in enumerate(kept):
        total += row["kept_bytes"]
        if number and (total > NODE_BYTES or number > KEPT_RESULTS):
            tx.execute(f"{_CLEARED} WHERE id = ?", (row["id"],))
            total -= row["kept_bytes"]
    _prune_organization(tx, org_id)


def _prune_organization(tx: Tx, org_id: str) -> None:
    found = tx.one("SELECT kept_bytes FROM organizations WHERE org_id = ?", (org_id,))
    if found is None or found["kept_bytes"] <= ORGANIZATION_BYTES:
        return
    too_much = found["kept_bytes"] - ORGANIZATION_BYTES + ORGANIZATION_BYTES // _ROOM
    for row in tx.all(
        f"SELECT id, kept_bytes FROM node_runs r WHERE org_id = ? AND kept_bytes > 0 ORDER BY {_OF_NEWEST_SCAN}, id",  # noqa: S608 - ours
        (org_id,),
    ):
        tx.execute(f"{_CLEARED} WHERE id = ?", (row["id"],))
        too_much -= row["kept_bytes"]
        if too_much <= 0:
            return
