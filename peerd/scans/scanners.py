"""Keys that sign scans and are no peer's: added, revoked for good, rotated; each change is part of one transaction."""

from __future__ import annotations

import base64
import binascii
import re
import sqlite3

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import LENGTH, PeerId, parse_peer_id, peer_id_of, public_key_of
from peerd.scans.model import ScannerKey
from peerd.store import Store, Tx

MAX_KEYS = 10_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_MAX_REASON = 500
_MAX_KEY_TEXT = 4096
_KEY_BYTES = 32
_SELECT = (
    "SELECT *, (SELECT max(created_at) FROM ingest_jobs WHERE ingest_jobs.scanner = scanner_keys.scanner) AS last_used "
    "FROM scanner_keys"
)


def parse_key(text: str) -> PeerId:
    """An Ed25519 public key as a peer id, base64 or hexadecimal of its 32 bytes, or PEM. Raises INVALID_ARGUMENT."""
    text = text.strip()
    if len(text) > _MAX_KEY_TEXT:
        raise _no_key()
    if len(text) == LENGTH:
        try:
            return parse_peer_id(text)
        except PeerdError as error:
            raise _no_key() from error
    try:
        if text.startswith("-----BEGIN PUBLIC KEY-----"):
            key = load_pem_public_key(text.encode("ascii"))
            if not isinstance(key, Ed25519PublicKey):
                raise _no_key()
            return peer_id_of(key)
        raw = bytes.fromhex(text) if len(text) == 2 * _KEY_BYTES else base64.b64decode(text, validate=True)
        if len(raw) != _KEY_BYTES:
            raise _no_key()
        return peer_id_of(Ed25519PublicKey.from_public_bytes(raw))
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise _no_key() from error


def key_base64(scanner: str) -> str:
    """The same key as HTTP takes it."""
    return base64.b64encode(public_key_of(scanner).public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def add(tx: Tx, *, name: str, scanner: PeerId, created_by: str) -> ScannerKey:
    """Accept it. Raises INVALID_NAME, ALREADY_EXISTS, SCANNER_REVOKED or QUOTA_EXCEEDED."""
    if not _NAME.fullmatch(name):
        raise PeerdError(Reason.INVALID_NAME, f"{name[:80]!r} is no name of a scanner")
    known = find(tx, scanner)
    if known is not None and known.revoked_at is not None:
        raise PeerdError(Reason.SCANNER_REVOKED, f"that key was revoked, as {known.name}")
    if known is not None:
        raise PeerdError(Reason.ALREADY_EXISTS, f"that key is registered, as {known.name}")
    if tx.one("SELECT 1 FROM scanner_keys WHERE name = ? AND revoked_at IS NULL", (name,)) is not None:
        raise PeerdError(
            Reason.ALREADY_EXISTS,
            f"there is a scanner {name}",
            next_action=f"choose another name, or give it a new key: 'peerctl scanners rotate {name} KEY'",
        )
    count = tx.one("SELECT count(*) AS count FROM scanner_keys")
    if count is not None and count["count"] >= MAX_KEYS:
        raise PeerdError(Reason.QUOTA_EXCEEDED, f"there have been {MAX_KEYS} keys here", next_action="use another peer")
    tx.execute(
        "INSERT INTO scanner_keys (scanner, name, created_at, created_by) VALUES (?, ?, ?, ?)",
        (scanner, name, tx.now, created_by),
    )
    return get(tx, scanner)


def revoke(tx: Tx, name_or_key: str, *, reason: str, replaced_by: str = "") -> ScannerKey:
    """Never accept it again; one that is revoked stays what it is. Raises NOT_FOUND or INVALID_ARGUMENT."""
    if len(reason) > _MAX_REASON or not reason.isprintable():
        raise PeerdError(Reason.INVALID_ARGUMENT, f"a reason has at most {_MAX_REASON} printable characters")
    key = get(tx, name_or_key)
    tx.execute(
        "UPDATE scanner_keys SET revoked_at = ?, revoke_reason = ?, replaced_by = ? "
        "WHERE id = ? AND revoked_at IS NULL",
        (tx.now, reason, replaced_by, key.number),
    )
    return get(tx, key.scanner)


def rotate(tx: Tx, name_or_key: str, *, scanner: PeerId, created_by: str) -> ScannerKey:
    """Revoke a key and give its name to another one. Raises as :func:`add` and :func:`revoke` do."""
    old = get(tx, name_or_key)
    if old.revoked_at is not None:
        raise PeerdError(Reason.SCANNER_REVOKED, f"the key of {old.name} was revoked", next_action="add the new key")
    revoke(tx, old.scanner, reason="rotated", replaced_by=scanner)
    return add(tx, name=old.name, scanner=scanner, created_by=created_by)


def find(tx: Tx, scanner: str) -> ScannerKey | None:
    """By key."""
    row = tx.one(f"{_SELECT} WHERE scanner = ?", (scanner,))
    return None if row is None else _key(row)


def get(tx: Tx, name_or_key: str) -> ScannerKey:
    """By name, of which the one that is accepted counts, or by key in any spelling. Raises NOT_FOUND."""
    row = tx.one(
        f"{_SELECT} WHERE name = ? ORDER BY revoked_at IS NULL DESC, id DESC LIMIT 1",
        (name_or_key,),
    )
    if row is not None:
        return _key(row)
    try:
        found = find(tx, parse_key(name_or_key))
    except PeerdError:
        found = None
    if found is None:
        raise PeerdError(
            Reason.NOT_FOUND,
            f"there is no scanner {name_or_key[:80]!r} here",
            next_action="see 'peerctl scanners list'",
        )
    return found


async def page(store: Store, *, after: int, limit: int) -> list[ScannerKey]:
    """Some of all, oldest first."""
    rows = await store.all(f"{_SELECT} WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return [_key(row) for row in rows]


async def find_named(store: Store, text: str) -> str | None:
    """The key that has this name, or had it last, or that this spells; None for neither."""
    row = await store.one(
        "SELECT scanner FROM scanner_keys WHERE name = ? ORDER BY revoked_at IS NULL DESC, id DESC LIMIT 1", (text,)
    )
    if row is not None:
        return str(row["scanner"])
    try:
        return parse_key(text)
    except PeerdError:
        return None


def _key(row: sqlite3.Row) -> ScannerKey:
    return ScannerKey(
        number=row["id"],
        scanner=row["scanner"],
        name=row["name"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        revoked_at=row["revoked_at"],
        revoke_reason=row["revoke_reason"],
        replaced_by=row["replaced_by"],
        last_used_at=row["last_used"],
    )


def _no_key() -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        "that is no Ed25519 public key",
        next_action="give it as a peer id, as base64 or hexadecimal of its 32 bytes, or as PEM",
    )
