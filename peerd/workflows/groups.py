"""Concurrency groups: which executions of a group have their turn, and which wait for it.

Everything follows from rows of ``workflow_executions``: the group and its limit are fixed when an execution is
requested, ``turn_at`` says that it may begin. Who came first begins first; of different limits the smallest counts,
as long as that execution runs. A waiting execution has its runner, so that
deadlines and cancels reach it, but decides nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.loops import run_every
from peerd.store import Store, Tx
from peerd.v1 import workflows_pb2
from peerd.workflows.automation import MAX_GROUP, MAX_GROUP_LIMIT
from peerd.workflows.model import Turn
from peerd.workflows.params import substitute

_LOOK_SECONDS = 5.0
"""An execution that was given up has no runner that tells of its end."""
_NAMED = 3
_OPEN = (
    "SELECT id, group_name, group_limit, turn_at, reason FROM workflow_executions"
    " WHERE group_name <> '' AND status IN ('pending', 'running')"
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """What the definition of an execution says, with its parameters in place."""

    name: str
    limit: int
    on_conflict: str


def group_of(definition: workflows_pb2.WorkflowDefinition, params: Mapping[str, str]) -> Group | None:
    """The group an execution with these parameters runs in. Raises INVALID_ARGUMENT for a name that is none."""
    if not definition.HasField("concurrency"):
        return None
    name = substitute(definition.concurrency.group, params)
    if not name.strip() or len(name) > MAX_GROUP or not name.isprintable():
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"concurrency.group: with these parameters it is {name[:80]!r}; a group has a name of up to {MAX_GROUP} "
            "printable characters",
        )
    concurrency = definition.concurrency
    return Group(name=name, limit=concurrency.limit or 1, on_conflict=concurrency.on_conflict or "queue")


def enter(tx: Tx, execution_id: int, group: Group, *, cancel: Callable[[int, str], None]) -> Turn | None:
    """Give a new execution its turn, or say what it waits for. Raises GROUP_BUSY for one that would not wait."""
    others = tx.all(f"{_OPEN} AND group_name = ? AND id <> ? ORDER BY id", (group.name, execution_id))
    begun = [row["id"] for row in others if row["turn_at"] is not None]
    waiting = [row["id"] for row in others if row["turn_at"] is None]
    limit = min([group.limit, *(row["group_limit"] for row in others if row["turn_at"] is not None)])
    has_turn = not waiting and len(begun) < limit
    turn = None if has_turn else _turn(group.name, limit, [*begun, *waiting])
    if turn is not None and group.on_conflict == "skip":
        raise PeerdError(Reason.GROUP_BUSY, f"it would have to wait: it {turn.message}, and on_conflict is skip")
    tx.execute(
        "UPDATE workflow_executions SET group_name = ?, group_limit = ?, turn_at = ?, reason = ?, next_action = ? "
        "WHERE id = ?",
        (
            group.name,
            group.limit,
            tx.now if has_turn else None,
            turn.message if turn else "",
            turn.next_action if turn else "",
            execution_id,
        ),
    )
    if turn is not None and group.on_conflict == "cancel_running":
        too_many = begun[: max(0, len(begun) - limit + 1)]
        for other in (*too_many, *waiting):
            cancel(other, f"execution {execution_id} takes its place in group {group.name}")
    return turn


class Gate:
    """Keeps who waits, and lets them begin when their turn comes."""

    def __init__(self, store: Store, clock: Clock, *, changed: Callable[[int], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._turns: dict[int, Turn] = {}
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Learn who waits; before any runner is made."""
        for place in _places(await self._store.all(f"{_OPEN} ORDER BY group_name, id")):
            self._turns[place.execution_id] = place.turn
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await run_every(self.look, seconds=_LOOK_SECONDS, clock=self._clock, name="workflows.groups", wake=self._wake)

    def turn(self, execution_id: int) -> Turn | None:
        """What an execution waits for before it may begin; None if it may."""
        return self._turns.get(execution_id)

    def add(self, execution_id: int, turn: Turn) -> None:
        """A new execution waits, durably."""
        self._turns[execution_id] = turn
        self._wake.set()

    def ended(self) -> None:
        """Some execution has ended: another may begin."""
        if self._turns:
            self._wake.set()

    async def look(self) -> None:
        """Give turns to whom they are due, and say anew what the others wait for."""
        if self._turns:
            await self._store.write(self._give_turns)

    def _give_turns(self, tx: Tx) -> None:
        waiting: dict[int, Turn] = {}
        news: list[tuple[object, ...]] = []
        begin = False
        for place in _places(tx.all(f"{_OPEN} ORDER BY group_name, id")):
            turn = place.turn
            if place.begins:
                begin = True
                news.append((tx.now, "", "", place.execution_id))
            else:
                waiting[place.execution_id] = turn
                if place.said != turn.message:
                    news.append((None, turn.message, turn.next_action, place.execution_id))
        tx.executemany(
            "UPDATE workflow_executions SET turn_at = ?, reason = ?, next_action = ?, version = version + 1 "
            "WHERE id = ?",
            news,
        )
        if begin:
            failpoint("workflow.turn.before_commit")
        tx.on_commit(lambda: self._given(waiting, begin=begin))

    def _given(self, waiting: dict[int, Turn], *, begin: bool) -> None:
        if begin:
            failpoint("workflow.turn.after_commit")
        before, self._turns = self._turns, waiting
        for execution_id, turn in before.items():
            if waiting.get(execution_id) != turn:
                self._changed(execution_id)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One that has not begun."""

    execution_id: int
    turn: Turn
    begins: bool
    # What its row says now.
    said: str


def _places(rows: Iterable[sqlite3.Row]) -> Iterator[_Place]:
    """Who has not begun, and whether it may now. The rows are sorted by group, then id."""
    for name, members in groupby(rows, key=lambda row: str(row["group_name"])):
        of_group = list(members)
        ahead = [row["id"] for row in of_group if row["turn_at"] is not None]
        at_once = min((row["group_limit"] for row in of_group if row["turn_at"] is not None), default=MAX_GROUP_LIMIT)
        for row in of_group:
            if row["turn_at"] is not None:
                continue
            at_once = min(at_once, row["group_limit"])
            turn = _turn(name, at_once, ahead)
            begins = len(ahead) < at_once
            yield _Place(execution_id=row["id"], turn=turn, begins=begins, said=row["reason"])
            ahead.append(row["id"])  # whether it begins or waits: nobody behind it overtakes it


def _turn(name: str, limit: int, ahead: list[int]) -> Turn:
    if not ahead:
        return Turn(group=name, message=f"waits for its turn in group {name}", next_action="nothing to do")
    named = ", ".join(map(str, ahead[:_NAMED])) + (f" and {len(ahead) - _NAMED} more" if len(ahead) > _NAMED else "")
    what = f"execution {named}" if len(ahead) == 1 else f"executions {named}"
    at_once = f", which runs {limit} at once" if limit > 1 else ""
    return Turn(
        group=name,
        message=f"waits for {what} of group {name}{at_once}",
        next_action=f"nothing to do, or end what it waits for: 'peerctl executions cancel {ahead[0]}'",
    )
