"""The audit log: one row for each state-changing call, chained by digests, in the transaction of the call's effect.

A method changes state if its request carries a ``request_id``. What the row says of the request are its plain fields;
bytes, and fields that name secrets, are left out. Rows are pruned from the front alone, and the anchor tells what the
oldest kept one follows, so that a log whose beginning was taken away is not one that was pruned.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from peerd.digest import digest
from peerd.store.writer import Tx

OK = "ok"
_MAX_TARGET = 300
_MAX_REQUEST_ID = 128
_BEHIND_ALL = 2**62
_SECRET = ("token", "secret", "password", "private")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row, without its place in the chain."""

    at: int
    caller: str
    method: str
    target: str
    result: str
    request_id: str


def changes_state(request: object) -> bool:
    """Whether a call with this request is one that the log keeps."""
    return isinstance(request, Message) and "request_id" in request.DESCRIPTOR.fields_by_name


def record(tx: Tx, request: Message, *, caller: str, result: str = OK) -> None:
    """Append a row for a call."""
    request_id: str = getattr(request, "request_id", "")
    entry = Entry(
        at=tx.now,
        caller=caller,
        method=request.DESCRIPTOR.name.removesuffix("Request"),
        target=describe(request),
        result=result,
        request_id=request_id[:_MAX_REQUEST_ID],
    )
    append(tx, entry)


def note(tx: Tx, method: str, *, caller: str, target: dict[str, object], request_id: str = "") -> None:
    """Append a row for a call whose message is not at hand any more."""
    entry = Entry(
        at=tx.now,
        caller=caller,
        method=method,
        target=_short(target),
        result=OK,
        request_id=request_id[:_MAX_REQUEST_ID],
    )
    append(tx, entry)


def append(tx: Tx, entry: Entry) -> None:
    """Put a row at the end of the chain."""
    last = tx.one("SELECT digest FROM audit_log ORDER BY id DESC LIMIT 1") or tx.one("SELECT digest FROM audit_anchor")
    assert last is not None  # noqa: S101 - the migration makes the anchor
    previous = last["digest"]
    tx.execute(
        "INSERT INTO audit_log (at, caller, method, target, result, request_id, previous, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.at,
            entry.caller,
            entry.method,
            entry.target,
            entry.result,
            entry.request_id,
            previous,
            link(previous, entry),
        ),
    )


def link(previous: bytes, entry: Entry) -> bytes:
    """The digest of a row that follows one with that digest."""
    said = [
        entry.at,
        entry.caller,
        entry.method,
        entry.target,
        entry.result,
        entry.request_id,
    ]
    return digest(previous + json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode())


def entry_of(row: sqlite3.Row) -> Entry:
    """A row as a value."""
    return Entry(
        at=row["at"],
        caller=row["caller"],
        method=row["method"],
        target=row["target"],
        result=row["result"],
        request_id=row["request_id"],
    )


def prune(tx: Tx, *, before: int) -> int:
    """Delete the rows older than that up to the first that is not; returns how many.

    A row that is older and comes later, because the clock was set wrong, stays until those before it go.
    """
    kept = tx.one("SELECT id FROM audit_log WHERE at >= ? ORDER BY id LIMIT 1", (before,))
    first_kept = kept["id"] if kept is not None else _BEHIND_ALL
    last = tx.one("SELECT id, digest FROM audit_log WHERE id < ? ORDER BY id DESC LIMIT 1", (first_kept,))
    if last is None:
        return 0
    tx.execute("UPDATE audit_anchor SET id = ?, digest = ?", (last["id"], last["digest"]))
    return tx.execute("DELETE FROM audit_log WHERE id < ?", (first_kept,)).rowcount


def describe(request: Message) -> str:
    """The plain fields of a request, in the order of the proto, as short JSON."""
    return _short(dict(_plain(request)))


def _short(fields: dict[str, object]) -> str:
    text = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))
    plain = "".join(character if character.isprintable() else " " for character in text)  # it is shown on terminals
    return plain if len(plain) <= _MAX_TARGET else f"{plain[: _MAX_TARGET - 1]}…"


def _plain(request: Message) -> Iterator[tuple[str, object]]:
    for field, value in request.ListFields():
        if field.name == "request_id" or _is_secret(field.name):
            continue
        if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP):
            continue
        if field.message_type is not None:
            named = getattr(value, "name", None)
            if isinstance(named, str) and named:
                yield field.name, named
            continue
        words = [_word(field, one) for one in (value if field.is_repeated else (value,))]
        yield field.name, words if field.is_repeated else words[0]


def _is_secret(name: str) -> bool:
    return not name.endswith("_id") and any(word in name for word in _SECRET)


def _word(field: FieldDescriptor, value: object) -> object:
    """A value as people read it: of an enum, its name."""
    if field.enum_type is None or not isinstance(value, int):
        return value
    known = field.enum_type.values_by_number.get(value)
    return known.name if known is not None else value
