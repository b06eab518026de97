"""The audit log: one row for each state-changing call, chained by digests, in the transaction of the call's effect.

A method changes state if its request carries a ``request_id``. What the row says of the request are its plain fields;
bytes, and fields that name secrets, are left out.
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
START = b"\0" * 32
"""What the first row of a log follows."""
_MAX_TARGET = 300
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
        request_id=request_id[:128],
    )
    append(tx, entry)


def note(tx: Tx, method: str, *, caller: str, target: dict[str, object]) -> None:
    """Append a row for a call whose message is not at hand any more."""
    text = json.dumps(target, ensure_ascii=False, separators=(", ", ": "))
    append(tx, Entry(at=tx.now, caller=caller, method=method, target=text[:_MAX_TARGET], result=OK, request_id=""))


def append(tx: Tx, entry: Entry) -> None:
    """Put a row at the end of the chain."""
    last = tx.one("SELECT digest FROM audit_log ORDER BY id DESC LIMIT 1")
    previous = last["digest"] if last is not None else START
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
    """Delete rows older than that; the chain goes on from the first that is kept."""
    return tx.execute("DELETE FROM audit_log WHERE at < ?", (before,)).rowcount


def describe(request: Message) -> str:
    """The plain fields of a request, in the order of the proto, as short JSON."""
    fields = dict(_plain(request))
    text = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))
    return text if len(text) <= _MAX_TARGET else f"{text[: _MAX_TARGET - 1]}…"


def _plain(request: Message) -> Iterator[tuple[str, object]]:
    for field, value in request.ListFields():
        if field.name == "request_id" or any(word in field.name for word in _SECRET):
            continue
        if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP):
            continue
        if field.message_type is not None:
            named = getattr(value, "name", None)
            if isinstance(named, str) and named:
                yield field.name, named
            continue
        yield field.name, list(value) if field.is_repeated else value
