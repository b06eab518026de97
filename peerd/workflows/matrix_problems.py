"""What can be wrong with a matrix. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from peerd.v1 import workflows_pb2
from peerd.workflows.edges import parse_source
from peerd.workflows.graph import Link
from peerd.workflows.matrix import (
    INDEX,
    MAX_AXES,
    MAX_EACH_BYTES,
    each_references,
    each_texts,
    instance_count,
    instance_name,
    is_index,
)
from peerd.workflows.params import MAX_VALUE_BYTES, value_flaw
from peerd.workflows.problems import FieldPath, Problem, ProblemReason

MAX_NAME = 63
MAX_MADE_EDGES = 100_000
"""Of all edges that a matrix multiplies, at either end."""
MAX_MADE_NEEDS = 1_000_000
MAX_MADE_BYTES = 256 * 1024 * 1024
"""Of all instances as they are written out; they lie in memory while an execution runs."""
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


def matrix_problems(definition: workflows_pb2.WorkflowDefinition, max_jobs: int) -> Iterator[Problem]:
    """Everything wrong with its axes, and with what refers to them."""
    total = 0
    names = {job.name.casefold(): index for index, job in enumerate(definition.jobs)}
    for index, job in enumerate(definition.jobs):
        path: FieldPath = ("jobs", index)
        if not job.matrix:
            total += 1
            continue
        yield from _axes(job, (*path, "matrix"))
        count = instance_count(job)
        total += count
        if total > max_jobs:
            message = f"with the instances of {job.name!r} ({count}) these are more than {max_jobs} jobs"
            yield Problem(reason=ProblemReason.TOO_MANY_JOBS, message=message, path=(*path, "matrix"))
            return
        yield from _names(job, count, names, path)
        yield from _references(job, path)
        yield from _lengths(job, path)
    yield from _products(definition)


def fanned_in(links: Sequence[Link], counts: Mapping[str, int]) -> list[Link]:
    """The links as they are between instances; ``counts``: of the jobs that have a matrix."""
    made: list[Link] = []
    for link in links:
        if link.source.node_id not in counts:
            made.append(link)
            continue
        for index in range(counts[link.source.node_id]):
            name = instance_name(link.source.node_id, index)
            made.append(replace(link, to=f"{link.to}/{name}" if link.to else name))
    return made


def _axes(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    if len(job.matrix) > MAX_AXES:
        message = f"{len(job.matrix)} axes are more than {MAX_AXES}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=path)
    seen: set[str] = set()
    for at, axis in enumerate(job.matrix):
        here = (*path, at)
        if not axis.name:
            yield Problem(reason=ProblemReason.MISSING, message="an axis needs a name", path=(*here, "name"))
        elif not _AXIS.fullmatch(axis.name) or axis.name == INDEX:
            message = f"{axis.name[:80]!r} is no name of an axis"
            hint = "use letters, digits, '-' and '_'; 'index' is the number of the instance"
            yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*here, "name"), next_action=hint)
        elif axis.name in seen:
            message = f"there is another axis {axis.name!r}"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=(*here, "name"))
        seen.add(axis.name)
        if not axis.values:
            message = "an axis without values makes no jobs"
            yield Problem(reason=ProblemReason.MISSING, message=message, path=(*here, "values"))
        for number, value in enumerate(axis.values):
            flaw = value_flaw(value)
            if flaw is None and len(value.encode()) > MAX_EACH_BYTES:
                flaw = f"is longer than {MAX_EACH_BYTES} bytes"
            if flaw:
                where = (*here, "values", number)
                yield Problem(reason=ProblemReason.BAD_VALUE, message=f"the value {flaw}", path=where)


def _names(
    job: workflows_pb2.JobDefinition, count: int, names: Mapping[str, int], path: FieldPath
) -> Iterator[Problem]:
    longest = instance_name(job.name, max(0, count - 1))
    if len(job.name) <= MAX_NAME < len(longest):
        message = f"its instances are called {longest!r}, which is longer than {MAX_NAME} characters"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*path, "name"))
    start = f"{job.name.casefold()}."
    for name, other in names.items():
        number = name.removeprefix(start) if name.startswith(start) else ""
        if is_index(number) and int(number) < count:
            message = f"an instance of {job.name!r} has the name of this job"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=("jobs", other, "name"))


def _longest(job: workflows_pb2.JobDefinition) -> list[tuple[FieldPath, int, int]]:
    """Every text that may refer to ``each``, with its bytes now and with the longest values."""
    lengths = {axis.name: max((len(value.encode()) for value in axis.values), default=0) for axis in job.matrix}
    found = []
    for field, text in each_texts(job):
        length = len(text.encode())
        names = [name for name in each_references(text) if name in lengths] if "${" in text else []
        found.append((field, length, length + sum(lengths[name] - len("${each.}" + name) for name in names)))
    return found


def _lengths(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    for field, _, longest in _longest(job):
        if longest > MAX_VALUE_BYTES:
            message = f"with its longest values this is longer than {MAX_VALUE_BYTES} bytes"
            yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, *field))


def _products(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """What a few lines become when they are written out: many instances take from many."""
    counts = {job.name: instance_count(job) for job in definition.jobs if job.matrix}
    edges = needs = size = 0
    for index, job in enumerate(definition.jobs):
        path: FieldPath = ("jobs", index)
        mine = counts.get(job.name, 1)
        made = [mine * counts.get(parse_source(getattr(edge, "from")).node_id, 1) for edge in job.inputs]
        edges += sum(number for number in made if number > 1)
        needs += sum(number for name in job.needs if (number := mine * counts.get(name, 1)) > 1)
        if edges > MAX_MADE_EDGES or needs > MAX_MADE_NEEDS:
            what, most = ("edges", MAX_MADE_EDGES) if edges > MAX_MADE_EDGES else ("needs", MAX_MADE_NEEDS)
            message = f"with those of {job.name!r} the instances of all matrices have more than {most} {what}"
            where = (*path, "inputs" if what == "edges" else "needs")
            yield Problem(reason=ProblemReason.TOO_MANY_EDGES, message=message, path=where)
            return
        size += mine * _bytes(job) if job.matrix else 0
        if size > MAX_MADE_BYTES:
            message = f"with those of {job.name!r} all instances take more than {MAX_MADE_BYTES >> 20} MiB"
            yield Problem(reason=ProblemReason.TOO_LARGE, message=message, path=(*path, "matrix"))
            return
    for at, delivery in enumerate(definition.deliver):
        made_here = counts.get(parse_source(getattr(delivery, "from")).node_id, 1)
        edges += made_here if made_here > 1 else 0
        if edges > MAX_MADE_EDGES:
            message = f"with this delivery the instances of all matrices have more than {MAX_MADE_EDGES} edges"
            yield Problem(reason=ProblemReason.TOO_MANY_EDGES, message=message, path=("deliver", at))
            return


def _bytes(job: workflows_pb2.JobDefinition) -> int:
    """At most so much for one instance; its axes are not in it."""
    grown = sum(max(0, longest - length) for _, length, longest in _longest(job))
    return job.ByteSize() - sum(axis.ByteSize() for axis in job.matrix) + grown


def _references(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    known = [axis.name for axis in job.matrix] + [INDEX]
    for field, text in each_texts(job):
        for name in each_references(text) if "${" in text else ():
            if name is None:
                message = f"{text[:80]!r} holds a reference without a name or its closing brace"
                yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=(*path, *field))
            elif name not in known:
                message = f"${{each.{name}}} refers to no axis of this job's matrix"
                hint = f"it has {', '.join(known)}"
                where = (*path, *field)
                yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=where, next_action=hint)
