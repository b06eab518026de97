"""The mesh's tables: the mesh, member records, invites, address hints. All the SQL of this capability."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.mesh.invites import Invite
from peerd.mesh.membership import Membership, membership_of
from peerd.mesh.records import read_stored_record
from peerd.store import Tx

INVITE = "SELECT * FROM invites WHERE invite_id = ?"
INVITES_PAGE = "SELECT * FROM invites WHERE id > ? ORDER BY id LIMIT ?"


def find_mesh_id(tx: Tx) -> PeerId | None:
    """The mesh this peer belongs to."""
    row = tx.one("SELECT mesh_id FROM mesh")
    return PeerId(row["mesh_id"]) if row is not None else None


def set_mesh_id(tx: Tx, mesh_id: PeerId) -> None:
    """Belong to this mesh from now on, and to no other: what was of another mesh is deleted."""
    tx.execute("DELETE FROM mesh")
    tx.execute("DELETE FROM member_records")
    tx.execute("DELETE FROM invites")
    tx.execute("DELETE FROM address_hints")
    tx.execute("INSERT INTO mesh (one, mesh_id, since) VALUES (1, ?, ?)", (mesh_id, tx.now))


def next_sequence(tx: Tx) -> int:
    """Take the next signer sequence."""
    tx.execute("UPDATE mesh_signer SET sequence = sequence + 1")
    row = tx.one("SELECT sequence FROM mesh_signer")
    assert row is not None  # noqa: S101 - the migration made it
    return int(row["sequence"])


def load_membership(tx: Tx, mesh_id: PeerId) -> Membership:
    """All records, judged."""
    rows = tx.all("SELECT envelope FROM member_records")
    return membership_of(mesh_id, (read_stored_record(row["envelope"]) for row in rows))


def save_membership(tx: Tx, before: Membership, after: Membership) -> None:
    """Store what is new and delete what no longer matters."""
    tx.executemany(
        "DELETE FROM member_records WHERE digest = ?",
        [(entry,) for entry in before.records if entry not in after.records],
    )
    tx.executemany(
        "INSERT INTO member_records (digest, subject, version, envelope, stored_at) VALUES (?, ?, ?, ?, ?)",
        [
            (record.digest, record.subject, record.version, record.envelope, tx.now)
            for record in after.records.values()
            if record.digest not in before.records
        ],
    )


def insert_invite(tx: Tx, invite: Invite) -> None:
    """Store a new invite."""
    tx.execute(
        "INSERT INTO invites (invite_id, nonce, roles, grants, created_by, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            invite.invite_id,
            invite.nonce,
            json.dumps(sorted(invite.roles)),
            json.dumps(sorted(invite.grants)),
            invite.created_by,
            invite.created_at,
            invite.expires_at,
        ),
    )


def find_invite(tx: Tx, invite_id: str) -> Invite | None:
    """The invite with that public key."""
    row = tx.one(INVITE, (invite_id,))
    return invite_of(row) if row is not None else None


def mark_used(tx: Tx, invite: Invite, joiner: PeerId) -> None:
    """This joiner has it."""
    tx.execute(
        "UPDATE invites SET used_at = ?, joiner = ? WHERE id = ? AND joiner IS NULL", (tx.now, joiner, invite.number)
    )


def mark_revoked(tx: Tx, invite: Invite) -> None:
    """Nobody may use it any more."""
    tx.execute("UPDATE invites SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (tx.now, invite.number))


def load_invites(tx: Tx) -> list[Invite]:
    """All invites, oldest first."""
    return [invite_of(row) for row in tx.all("SELECT * FROM invites ORDER BY id")]


def invite_of(row: sqlite3.Row) -> Invite:
    """The invite in a row."""
    return Invite(
        number=row["id"],
        invite_id=PeerId(row["invite_id"]),
        nonce=row["nonce"],
        roles=frozenset(json.loads(row["roles"])),
        grants=frozenset(json.loads(row["grants"])),
        created_by=PeerId(row["created_by"]),
        created_at=Millis(row["created_at"]),
        expires_at=Millis(row["expires_at"]),
        revoked_at=row["revoked_at"],
        used_at=row["used_at"],
        joiner=PeerId(row["joiner"]) if row["joiner"] is not None else None,
    )


def set_hints(tx: Tx, peer_id: PeerId, addresses: Iterable[str]) -> None:
    """Where a peer is said to be; an empty list changes nothing."""
    rows = [(peer_id, position, address) for position, address in enumerate(addresses)]
    if rows:
        tx.execute("DELETE FROM address_hints WHERE peer_id = ?", (peer_id,))
        tx.executemany("INSERT INTO address_hints (peer_id, position, address) VALUES (?, ?, ?)", rows)


def load_hints(tx: Tx) -> dict[PeerId, tuple[str, ...]]:
    """All address hints, best first."""
    hints: dict[PeerId, tuple[str, ...]] = {}
    for row in tx.all("SELECT peer_id, address FROM address_hints ORDER BY peer_id, position"):
        peer_id = PeerId(row["peer_id"])
        hints[peer_id] = (*hints.get(peer_id, ()), row["address"])
    return hints
