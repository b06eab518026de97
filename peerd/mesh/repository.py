"""The mesh's tables: the mesh, member records, invites, address hints. All the SQL of this capability."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.invites import Invite
from peerd.mesh.membership import Membership, membership_of
from peerd.mesh.model import Record, RecordDigest
from peerd.mesh.records import read_stored_record
from peerd.store import Tx
from peerd.store.quarantine import move_aside

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


def load_membership(tx: Tx, mesh_id: PeerId, *, verify: bool = False) -> Membership:
    """All records, judged. One that is damaged is put aside, with all of that subject.

    It might have ended a membership, and what was before it must not count again. Other members have them still.
    """
    read: list[Record] = []
    damaged: set[str] = set()
    for row in tx.all("SELECT digest, subject, envelope FROM member_records"):
        try:
            record = read_stored_record(row["envelope"], verify=verify)
            if record.digest != row["digest"]:
                raise PeerdError(Reason.INVALID_RECORD, "its content is not what was stored")
        except (PeerdError, DecodeError, IndexError) as error:
            move_aside(tx, "member_records", {"digest": row["digest"]}, row["envelope"], error)
            damaged.add(row["subject"])
        else:
            read.append(record)
    whole: dict[RecordDigest, Record] = {}
    for record in sorted(read, key=lambda record: record.version):
        if record.subject not in damaged and (record.previous is None or record.previous in whole):
            whole[record.digest] = record
        else:
            beside = PeerdError(Reason.INVALID_RECORD, "another record of the same subject is damaged or gone")
            move_aside(tx, "member_records", {"digest": record.digest}, record.envelope, beside)
    return membership_of(mesh_id, whole.values())


def save_membership(tx: Tx, before: Membership, after: Membership) -> None:
    """Store what is new and delete what no longer matters."""
    tx.executemany(
        "DELETE FROM member_records WHERE digest = ?",
        [(entry,) for entry in before.records if entry not in after.records],
    )
    tx.executemany(
        "INSERT OR REPLACE INTO member_records (digest, subject, version, envelope, stored_at) VALUES (?, ?, ?, ?, ?)",
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
    invites = []
    for row in tx.all("SELECT * FROM invites ORDER BY id"):
        try:
            invites.append(invite_of(row))
        except (ValueError, TypeError) as error:  # nobody can use it; a new one does the same
            content = json.dumps([row["invite_id"], row["roles"], row["grants"], row["joiner"]]).encode()
            move_aside(tx, "invites", {"id": row["id"]}, content, error)
    return invites


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
