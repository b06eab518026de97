"""The SQL of the catalog. Nobody else touches the table ``services``.

A row stays when its service goes, so that a name keeps its id: a workflow that named id 3 never gets another service.
"""

from __future__ import annotations

import sqlite3

from peerd.catalog.declaration import to_declaration
from peerd.catalog.model import Service
from peerd.store import Tx
from peerd.v1 import catalog_pb2

OFFERED = (
    "SELECT id, name, iif(by_profile, 'profile', origin) AS origin, active, declaration FROM services WHERE offered = 1"
)


def to_service(row: sqlite3.Row) -> Service:
    """A row as a value."""
    declared = catalog_pb2.ServiceDeclaration.FromString(row["declaration"])
    return Service(
        service_id=row["id"], active=bool(row["active"]), origin=row["origin"], declaration=to_declaration(declared)
    )


def find(tx: Tx, name_or_id: str) -> sqlite3.Row | None:
    """The row of an offered service, by name or by the digits of its id."""
    if name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) <= 18:
        return tx.one(f"{OFFERED} AND id = ?", (int(name_or_id),))
    return tx.one(f"{OFFERED} AND name = ?", (name_or_id,))


def offered(tx: Tx) -> list[sqlite3.Row]:
    """All offered services in the order of their ids."""
    return tx.all(f"{OFFERED} ORDER BY id")


def put(tx: Tx, proto: catalog_pb2.ServiceDeclaration, origin: str) -> None:
    """Offer it under its name. Whether it is active survives, unless it was not offered any more."""
    by_profile = origin == "profile"
    tx.execute(
        "INSERT INTO services (name, origin, by_profile, offered, active, declaration, changed_at)"
        " VALUES (?, ?, ?, 1, 1, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET origin = excluded.origin, by_profile = excluded.by_profile, offered = 1, "
        "active = CASE offered WHEN 1 THEN active ELSE 1 END, declaration = excluded.declaration, "
        "changed_at = excluded.changed_at",
        (
            proto.name,
            "added" if by_profile else origin,
            by_profile,
            proto.SerializeToString(deterministic=True),
            tx.now,
        ),
    )


def withdraw(tx: Tx, service_id: int) -> None:
    """Offer it no longer."""
    tx.execute("UPDATE services SET offered = 0, changed_at = ? WHERE id = ?", (tx.now, service_id))


def set_active(tx: Tx, service_id: int, active: bool) -> None:
    """Let it be ordered, or not."""
    tx.execute("UPDATE services SET active = ?, changed_at = ? WHERE id = ?", (int(active), tx.now, service_id))
