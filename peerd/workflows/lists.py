"""Lists of maps as files and rows: where they come to lie, how they are read, and what is kept of them.

A list is read once. What its items are is stored in the transaction that leaves the event for the execution's runner
and reserves the numbers of its jobs; the file is not needed any more then.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from peerd.failpoints import failpoint
from peerd.jobs.paths import JobPlace
from peerd.store import Store, Tx
from peerd.v1 import workflows_pb2
from peerd.workflows import events as e
from peerd.workflows.damage import unreadable
from peerd.workflows.maps import MAX_LIST_BYTES, MAX_MAP_EDGES, MAX_MAP_WAITS, ListError, Values, edge_count, read_list
from peerd.workflows.model import ExecutionStatus
from peerd.workflows.state import ExecutionState
from peerd.workflows.validation import MAX_JOBS

Post = Callable[[Tx, int, e.Event], None]
"""Orchestrator.post."""
Learned = Callable[[str, Sequence[Values]], None]
"""Told of the items of a map, once they are durable and before the event is."""


def list_folder(home: JobPlace, node: str) -> Path:
    """Where the list of a job with a map comes to lie; ``home`` is Local Peer's place of the execution."""
    return home.directory / "lists" / node


class Lists:
    """Reads lists."""

    def __init__(self, store: Store, post: Post) -> None:
        self._store = store
        self._post = post

    async def expand(
        self, state: ExecutionState, job: workflows_pb2.JobDefinition, home: JobPlace, learned: Learned
    ) -> None:
        """Read the list of that job, which has arrived, and leave what follows for the runner. Once, or again."""
        try:
            room = MAX_JOBS - len(state.jobs)
            items = await asyncio.to_thread(_read, list_folder(home, job.name), job, room)
            check_size(state, job.name, len(items))
        except ListError as error:
            await self._store.write(functools.partial(self._refuse, state=state, node=job.name, message=str(error)))
            return
        await self._store.write(
            functools.partial(self._record, state=state, node=job.name, items=items, learned=learned)
        )
        failpoint("workflow.expand.after_commit")

    def _refuse(self, tx: Tx, *, state: ExecutionState, node: str, message: str) -> None:
        self._post(tx, state.spec.execution_id, e.MapFailed(node=node, message=message, at=tx.now))

    def _record(self, tx: Tx, *, state: ExecutionState, node: str, items: Sequence[Values], learned: Learned) -> None:
        execution_id = state.spec.execution_id
        row = tx.one("SELECT status FROM workflow_executions WHERE id = ?", (execution_id,))
        known = tx.all(
            "SELECT node_id, json_array_length(items) AS count FROM workflow_maps WHERE workflow_execution_id = ?",
            (execution_id,),
        )
        if row is None or ExecutionStatus(row["status"]).final or any(one["node_id"] == node for one in known):
            return  # nobody needs it any more, or its event is on its way
        if len(state.spec.jobs) + sum(one["count"] for one in known) + len(items) > MAX_JOBS:
            message = f"with the {len(items)} items of its list these are more than {MAX_JOBS} jobs"
            self._refuse(tx, state=state, node=node, message=message)
            return
        last = tx.one("SELECT seq FROM sqlite_sequence WHERE name = 'workflow_jobs'")
        assert last is not None  # noqa: S101 - this execution has jobs
        # The numbers are nobody else's from here on; their rows come with the event.
        tx.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'workflow_jobs'", (len(items),))
        tx.execute(
            "INSERT INTO workflow_maps (workflow_execution_id, node_id, items) VALUES (?, ?, ?)",
            (execution_id, node, json.dumps(items, separators=(",", ":"), ensure_ascii=False)),
        )
        tx.on_commit(lambda: learned(node, items))
        event = e.MapExpanded(node=node, count=len(items), first_workflow_job_id=1 + last["seq"], at=tx.now)
        self._post(tx, execution_id, event)
        failpoint("workflow.expand.before_commit")


async def read_items(store: Store, execution_id: int) -> dict[str, Sequence[Values]]:
    """By job with a map, what its list held. Raises STORE_CORRUPT."""
    rows = await store.all("SELECT node_id, items FROM workflow_maps WHERE workflow_execution_id = ?", (execution_id,))
    try:
        return {row["node_id"]: json.loads(row["items"]) for row in rows}
    except ValueError as error:
        raise unreadable("the list of a map", error) from error


def _read(folder: Path, job: workflows_pb2.JobDefinition, room: int) -> list[Values]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if len(files) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in files[:3]) or "none"
        raise ListError(
            f"{getattr(job.map, 'from')} holds {len(files)} files ({names}{', ...' if len(files) > 3 else ''}); "
            "a list is one file: name it in 'from'"
        )
    with files[0].open("rb") as file:
        content = file.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise ListError(f"the list is larger than {MAX_LIST_BYTES >> 20} MiB")
    return read_list(content, job, limit=room)


def check_size(state: ExecutionState, node: str, count: int) -> None:
    """Raises ListError when that many instances would have too many edges, or be waited for too often."""
    mapped = state.jobs[node].spec.mapped
    assert mapped is not None  # noqa: S101 - only jobs with a map have lists
    counts = {**{name: one.count for name, one in state.maps.items()}, node: count}
    edges = edge_count(node, mapped.edges, counts)
    if edges > MAX_MAP_EDGES:
        raise ListError(f"its {count} instances would have {edges} edges, more than {MAX_MAP_EDGES}")
    waits = count * len(state.jobs[node].awaited_by)
    if waits > MAX_MAP_WAITS:
        raise ListError(f"its {count} instances would be waited for {waits} times in all, more than {MAX_MAP_WAITS}")
