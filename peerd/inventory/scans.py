"""The scans of which something is stored."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from peerd.errors import PeerdError, Reason
from peerd.inventory.model import Source
from peerd.inventory.scopes import Scope, parse_scope
from peerd.store import Tx


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """One of them. Its id is that of the ingest job."""

    scan_id: int
    name: str
    """As the scanner calls it."""
    viewpoint: int
    scanner: str
    vantage: str
    tool: str
    tool_version: str
    organization: str
    scope: Scope | None
    scope_text: str
    scanned_at: int
    completed_at: int | None
    transports: int
    thinned: bool


SELECT = "SELECT s.*, v.scanner, v.vantage FROM inventory_scans s JOIN inventory_viewpoints v ON v.id = s.viewpoint_id"


def open_scan(tx: Tx, source: Source) -> Scan:
    """The scan of an ingest job, written down when new. Raises INVALID_ARGUMENT for a scope that cannot be read."""
    row = tx.one(f"{SELECT} WHERE s.id = ?", (source.ingest_job_id,))
    if row is None:
        parse_scope(source.scope)
        tx.execute(
            "INSERT OR IGNORE INTO inventory_viewpoints (scanner, vantage) VALUES (?, ?)",
            (source.scanner, source.vantage),
        )
        tx.execute(
            "INSERT INTO inventory_scans "
            "(id, viewpoint_id, scan_id, tool, tool_version, organization, scope, scanned_at) "
            "SELECT ?, id, ?, ?, ?, ?, ?, ? FROM inventory_viewpoints WHERE scanner = ? AND vantage = ?",
            (
                source.ingest_job_id,
                source.scan_id,
                source.tool,
                source.tool_version,
                source.organization,
                source.scope.strip(),
                source.scanned_at,
                source.scanner,
                source.vantage,
            ),
        )
    return get_scan(tx, source.ingest_job_id)


def get_scan(tx: Tx, ingest_job_id: int) -> Scan:
    """Raises NOT_FOUND."""
    row = tx.one(f"{SELECT} WHERE s.id = ?", (ingest_job_id,))
    if row is None:
        raise PeerdError(Reason.NOT_FOUND, f"nothing is stored of ingest job {ingest_job_id}")
    return to_scan(row)


def to_scan(row: sqlite3.Row) -> Scan:
    """Of a row of :data:`SELECT`."""
    return Scan(
        scan_id=row["id"],
        name=row["scan_id"],
        viewpoint=row["viewpoint_id"],
        scanner=row["scanner"],
        vantage=row["vantage"],
        tool=row["tool"],
        tool_version=row["tool_version"],
        organization=row["organization"],
        scope=parse_scope(row["scope"]),
        scope_text=row["scope"],
        scanned_at=row["scanned_at"],
        completed_at=row["completed_at"],
        transports=row["transports"],
        thinned=bool(row["thinned"]),
    )
