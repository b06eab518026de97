"""What can be wrong with a map, and with ``max_parallel``. Pure; where the list comes from is the graph's business."""

from __future__ import annotations

import re
from collections.abc import Iterator

from peerd.v1 import workflows_pb2
from peerd.workflows.edges import parse_source
from peerd.workflows.maps import name_of
from peerd.workflows.matrix import INDEX, each_references, each_texts, instance_name, is_index
from peerd.workflows.problems import FieldPath, Problem, ProblemReason

MAX_NAME = 63
_ITEM = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


def map_problems(definition: workflows_pb2.WorkflowDefinition, max_jobs: int) -> Iterator[Problem]:
    """Everything wrong with maps, with what refers to their items, and with bounds on parallel instances."""
    many = {job.name for job in definition.jobs if job.matrix or job.HasField("map")}
    for index, job in enumerate(definition.jobs):
        path: FieldPath = ("jobs", index)
        if job.max_parallel:
            yield from _bound(job, path, max_jobs)
        if job.HasField("map"):
            yield from _map(job, path, many)
            yield from _names(job, path, definition, max_jobs)
            yield from _references(job, path)


def _bound(job: workflows_pb2.JobDefinition, path: FieldPath, max_jobs: int) -> Iterator[Problem]:
    here = (*path, "max_parallel")
    if not job.matrix and not job.HasField("map"):
        message = "max_parallel is for the instances of a matrix or map; this job is one"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=here)
    elif job.max_parallel > max_jobs:
        message = f"{job.max_parallel} is more than {max_jobs}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=here)


def _map(job: workflows_pb2.JobDefinition, path: FieldPath, many: set[str]) -> Iterator[Problem]:
    if job.matrix:
        message = "a job has either a matrix or a map, not both"
        yield Problem(reason=ProblemReason.CHOOSE_ONE, message=message, path=(*path, "map"))
    name = name_of(job.map)
    if not _ITEM.fullmatch(name) or name == INDEX:
        message = f"{name[:80]!r} is no name of an item"
        hint = "use letters, digits, '-' and '_'; 'index' is the number of the instance"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*path, "map", "as"), next_action=hint)
    source = parse_source(getattr(job.map, "from")).node_id
    if source in many and source != job.name:
        message = f"{source!r} stands for many jobs, and the list is made by one"
        hint = "let a job take their files and make the list"
        yield Problem(
            reason=ProblemReason.BAD_REFERENCE, message=message, path=(*path, "map", "from"), next_action=hint
        )


def _names(
    job: workflows_pb2.JobDefinition,
    path: FieldPath,
    definition: workflows_pb2.WorkflowDefinition,
    max_jobs: int,
) -> Iterator[Problem]:
    longest = instance_name(job.name, max_jobs - 1)
    if len(job.name) <= MAX_NAME < len(longest):
        message = f"its instances may be called {longest!r}, which is longer than {MAX_NAME} characters"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*path, "name"))
    start = f"{job.name.casefold()}."
    for other, one in enumerate(definition.jobs):
        number = one.name.casefold().removeprefix(start) if one.name.casefold().startswith(start) else ""
        if is_index(number):
            message = f"an instance of {job.name!r} may have the name of this job"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=("jobs", other, "name"))


def _references(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    item = name_of(job.map)
    for field, text in each_texts(job):
        for name in each_references(text) if "${" in text else ():
            where = (*path, *field)
            if name is None:
                message = f"{text[:80]!r} holds a reference without a name or its closing brace"
                yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=where)
            elif name != INDEX and name != item and not name.startswith(f"{item}."):
                message = f"${{each.{name}}} refers to nothing of this job's map"
                hint = f"write ${{each.{item}}}, ${{each.{item}.KEY}} or ${{each.index}}"
                yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=where, next_action=hint)
