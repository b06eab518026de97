"""Jobs that run nothing: they send again what an earlier job of the same orchestrator made here.

They have an id, interfaces, reports and a directory like any other, so that everything else treats them alike. The
files of the earlier job are linked into that directory; of data services they are sent from where they are offered.
While such a job is open, retention leaves the earlier one alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peerd import trees
from peerd.errors import PeerdError, Reason
from peerd.jobs import files
from peerd.jobs.ends import OUTPUT_TRUNCATED
from peerd.jobs.model import Job, JobFile, JobStatus
from peerd.jobs.paths import JobPlace
from peerd.jobs.repository import to_job
from peerd.store import Store

_RERUN_FROM_THERE = "run it again from that job, or from one further up"


@dataclass(frozen=True, kw_only=True)
class Reused:
    """Names a job whose files are wanted; who asks must be its orchestrator."""

    job_execution_id: int
    workflow_execution_id: int
    node_id: str


def reusable(job: Job | None, orchestrator: str, wanted: Reused) -> Job:
    """The job, if its files can be sent again for that peer. Raises NOT_FOUND, FILES_REMOVED.

    A job of another orchestrator is answered like one that never was.
    """
    known = job is not None and (job.key.orchestrator, job.key.workflow_execution_id, job.node_id) == (
        orchestrator,
        wanted.workflow_execution_id,
        wanted.node_id,
    )
    if job is None or not known or job.status is not JobStatus.COMPLETED:
        raise PeerdError(
            Reason.NOT_FOUND,
            f"this peer has no completed job execution {wanted.job_execution_id} of that execution",
            next_action=_RERUN_FROM_THERE,
        )
    if job.files != "present":
        raise PeerdError(
            Reason.FILES_REMOVED,
            f"the files of job execution {job.id} were removed by retention",
            next_action=_RERUN_FROM_THERE,
        )
    return job


async def missing(store: Store, orchestrator: str, wanted: Sequence[Reused]) -> list[int]:
    """Which of these jobs cannot be used again."""
    ids = json.dumps([one.job_execution_id for one in wanted])
    rows = await store.all("SELECT * FROM job_executions WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    jobs = {row["id"]: to_job(row) for row in rows}
    return [one.job_execution_id for one in wanted if not _can_be(jobs.get(one.job_execution_id), orchestrator, one)]


def _can_be(job: Job | None, orchestrator: str, wanted: Reused) -> bool:
    try:
        reusable(job, orchestrator, wanted)
    except PeerdError:
        return False
    return True


def stdout_truncated(job: Job) -> bool:
    """Whether its stdout is not whole, so that nobody may be sent it."""
    return job.reason == OUTPUT_TRUNCATED


def link_files(source: JobPlace, target: JobPlace) -> list[JobFile]:
    """Give ``target`` all that the job of ``source`` made; returns its files, synced. Blocking; may be repeated.

    Raises OSError.
    """
    trees.remove(target.directory, up_to=target.directory.parent)
    files.make_place(target, ())
    for before, after in ((source.output, target.output), (source.mounts, target.mounts), (source.logs, target.logs)):
        if before.is_dir() and not before.is_symlink():
            trees.open_all(before)
            _link_tree(before, after)
    mounts = [entry.name for entry in os.scandir(target.mounts)]
    return files.made_files(target, sorted(mounts))


def _link_tree(source: Path, target: Path) -> None:
    waiting = [(source, target)]
    while waiting:
        here, there = waiting.pop()
        there.mkdir(mode=0o700, exist_ok=True)
        for entry in os.scandir(here):
            to = there / entry.name
            if entry.is_dir(follow_symlinks=False):
                if max(len(os.fsencode(entry.path)), len(os.fsencode(to))) <= trees.LONGEST_PATH:
                    waiting.append((Path(entry.path), to))
            elif entry.is_file(follow_symlinks=False):
                _link(Path(entry.path), to)
            elif entry.is_symlink():
                to.symlink_to(os.readlink(entry.path))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Too many links, or a file of a container's user, which the kernel lets nobody else link.
        shutil.copy2(source, target, follow_symlinks=False)
