"""Requests that are answered once: the answer is stored in the same transaction as its effect.

A caller that heard nothing repeats its request with the same id and gets the same answer; nothing happens twice.
Answers are kept for :data:`KEPT_DAYS`, far longer than any client repeats a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Never, Protocol, TypeVar
from weakref import WeakKeyDictionary

from google.protobuf.message import Message

from peerd.clock import DAY_MS
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.store.audit import note, record
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
    target: dict[str, object] | None = None,
) -> M:
    """The stored answer if this caller's request was answered before, else what ``effect`` returns, stored.

    An empty id asks for no protection. The first time, the audit log gets a row, too; ``target`` is what it says of a
    request that does not tell by its plain fields. Raises REQUEST_ID_REUSED when the id came with a different request.
    """

    def keep() -> None:
        if target is None:
            record(tx, request, caller=caller)
        else:
            method = request.DESCRIPTOR.name.removesuffix("Request")
            note(tx, method, caller=caller, target=target, request_id=request_id)

    if not request_id:
        answer = effect()
        keep()
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
    keep()
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
    """The same for work that is no transaction, such as handling files; a kill in between lets it be done again.

    It goes on though whoever asked goes away, and who asks again with that id meanwhile waits for the same.
    """

    async def whole() -> M:
        known = await answered(store, caller=caller, request_id=request_id, request=request, answer_type=answer_type)
        if known is not None:
            return known
        answer = await work()
        return await store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request_id,
                request=request,
                answer_type=answer_type,
                effect=lambda: answer,
            )
        )

    others = _under_way.setdefault(store, {})
    key: object = (caller, request_id, request.SerializeToString(deterministic=True)) if request_id else object()
    running = others.get(key)
    if running is None:
        running = others[key] = asyncio.ensure_future(whole())
        running.add_done_callback(lambda ended: _over(others, key, ended))
    return await asyncio.shield(running)


def _over(others: dict[object, asyncio.Future[Any]], key: object, ended: asyncio.Future[Any]) -> None:
    del others[key]
    if not ended.cancelled():
        ended.exception()  # else asyncio logs it, if whoever asked went away


async def answered(store: Writes, *, caller: str, request_id: str, request: Message, answer_type: type[M]) -> M | None:
    """The stored answer of a request that was answered before: for whoever must look around before the effect.

    Raises REQUEST_ID_REUSED.
    """
    try:
        return await store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request_id,
                request=request,
                answer_type=answer_type,
                effect=_not_yet,
            )
        )
    except _NotYetError:
        return None


_under_way: WeakKeyDictionary[Writes, dict[object, asyncio.Future[Any]]] = WeakKeyDictionary()
"""By store: the work that :func:`once_outside` does now."""


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
