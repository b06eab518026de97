"""Requests that are answered once: the answer is stored in the same transaction as its effect.

A caller that heard nothing repeats its request with the same id and gets the same answer; nothing happens twice.
Answers are kept for :data:`KEPT_DAYS`, far longer than any client repeats a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Never, Protocol, TypeVar

from google.protobuf.message import Message

from peerd.clock import DAY_MS
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.store.audit import record
from peerd.store.writer import Tx

M = TypeVar("M", bound=Message)

KEPT_DAYS = 7
_MAX_ID_LENGTH = 128


def once(
    tx: Tx,
    *,
    caller: str,
    request_id: str,
    request: Message,
    answer_type: type[M],
    effect: Callable[[], M],
) -> M:
    """The stored answer if this caller's request was answered before, else what ``effect`` returns, stored.

    An empty id asks for no protection. The first time, the audit log gets a row, too. Raises REQUEST_ID_REUSED
    when the id came with a different request.
    """
    if not request_id:
        answer = effect()
        record(tx, request, caller=caller)
        return answer
    if len(request_id) > _MAX_ID_LENGTH:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"request_id is longer than {_MAX_ID_LENGTH} characters")
    fingerprint = digest(request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True))
    row = tx.one("SELECT digest, answer FROM requests WHERE caller = ? AND request_id = ?", (caller, request_id))
    if row is not None:
        if row["digest"] != fingerprint:
            raise PeerdError(Reason.REQUEST_ID_REUSED, f"request id {request_id!r} came before with another request")
        return answer_type.FromString(row["answer"])
    answer = effect()
    record(tx, request, caller=caller)
    tx.execute(
        "INSERT INTO requests (caller, request_id, digest, answer, answered_at) VALUES (?, ?, ?, ?, ?)",
        (caller, request_id, fingerprint, answer.SerializeToString(), tx.steady),
    )
    return answer


async def once_outside(
    store: Writes,
    *,
    caller: str,
    request_id: str,
    request: Message,
    answer_type: type[M],
    work: Callable[[], Awaitable[M]],
) -> M:
    """The same for work that is no transaction, such as handling files; a kill in between lets it be done again."""

    def ask(effect: Callable[[], M]) -> Callable[[Tx], M]:
        return lambda tx: once(
            tx, caller=caller, request_id=request_id, request=request, answer_type=answer_type, effect=effect
        )

    try:
        return await store.write(ask(_not_yet))
    except _NotYetError:
        answer = await work()
        return await store.write(ask(lambda: answer))


class Writes(Protocol):
    """What of a store is needed here."""

    async def write(self, function: Callable[[Tx], M]) -> M:
        """Run the function in a transaction."""
        ...


class _NotYetError(Exception):
    """A request was not answered before."""


def _not_yet() -> Never:
    raise _NotYetError


def forget_old_answers(tx: Tx) -> int:
    """Delete answers older than :data:`KEPT_DAYS`; returns how many."""
    return tx.execute("DELETE FROM requests WHERE answered_at < ?", (tx.steady - KEPT_DAYS * DAY_MS,)).rowcount
