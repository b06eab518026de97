"""One job of a definition that stands for many: a value for each axis, in every combination. Pure.

``expanded`` writes them out, so that everything below - placement, edges, the engine - knows plain jobs only. The
instances of ``work`` are ``work.0``, ``work.1`` and so on, the last axis turning fastest. ``${each.AXIS}`` stands for
the value of an instance and ``${each.index}`` for its number. An edge from ``work`` takes the files of every instance;
who needs ``work`` needs every instance.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from peerd.v1 import workflows_pb2
from peerd.workflows.edges import parse_source
from peerd.workflows.problems import FieldPath

INDEX = "index"
"""``${each.index}``; no axis may have this name."""
MAX_AXES = 8
MAX_EACH_BYTES = 4096
"""Of one value: it may stand in many places, of many jobs."""

_REFERENCE = re.compile(r"\$\$\{|\$\{each\.([A-Za-z0-9_.-]*)(\}?)")
_MAX_DESCRIPTION = 200
_MAX_DIGITS = 9
_Edge = TypeVar("_Edge", workflows_pb2.InputDefinition, workflows_pb2.DeliveryDefinition)


def expanded(definition: workflows_pb2.WorkflowDefinition) -> workflows_pb2.WorkflowDefinition:
    """The same work as plain jobs; the definition itself when it has no matrix. It was validated."""
    counts = {job.name: instance_count(job) for job in definition.jobs if job.matrix}
    if not counts:
        return definition
    plain = workflows_pb2.WorkflowDefinition()
    plain.CopyFrom(definition)
    del plain.jobs[:]
    for job in definition.jobs:
        if job.name in counts:
            plain.jobs.extend(instance(job, index, values) for index, values in enumerate(_combinations(job)))
        else:
            plain.jobs.append(job)
    for job in plain.jobs:
        if any(parse_source(getattr(edge, "from")).node_id in counts for edge in job.inputs):
            inputs = [made for edge in job.inputs for made in _fanned_in(edge, counts)]
            del job.inputs[:]
            job.inputs.extend(inputs)
        if any(name in counts for name in job.needs):
            job.needs[:] = [one for name in job.needs for one in _instances(name, counts)]
    deliveries = [made for edge in definition.deliver for made in _fanned_in(edge, counts)]
    del plain.deliver[:]
    plain.deliver.extend(deliveries)
    return plain


def places_of(definition: workflows_pb2.WorkflowDefinition) -> dict[str, str]:
    """Of a definition that is written out: by instance, the job with ``max_parallel`` that it stood in.

    Only where there are more instances than may run at once.
    """
    found = {job.name: job.name.rpartition(".")[0] for job in definition.jobs if _bounded_instance(job)}
    counts = Counter(found.values())
    return {
        job.name: found[job.name]
        for job in definition.jobs
        if job.name in found and counts[found[job.name]] > job.max_parallel
    }


def _bounded_instance(job: workflows_pb2.JobDefinition) -> bool:
    return bool(job.max_parallel) and not job.HasField("map")


def instance_count(job: workflows_pb2.JobDefinition) -> int:
    """How many jobs it stands for."""
    count = 1
    for axis in job.matrix:
        count *= len(axis.values)
    return count


def instance_name(template: str, index: int) -> str:
    """Of an instance; also of the directory its files end in."""
    return f"{template}.{index}"


def is_index(text: str) -> bool:
    """Whether it is what :func:`instance_name` ends in."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and str(int(text)) == text


def instance(job: workflows_pb2.JobDefinition, index: int, values: Mapping[str, str]) -> workflows_pb2.JobDefinition:
    """The job with these values in place of ``each``."""
    made = workflows_pb2.JobDefinition()
    made.CopyFrom(job)
    made.ClearField("matrix")
    made.name = instance_name(job.name, index)
    made.description = instance_title(job, values)
    known = {**values, INDEX: str(index)}

    def value(found: re.Match[str]) -> str:
        # What is put in is not read again, so its own "${" must survive the substitution of params.
        return "$${" if found[0] == "$${" else known[found[1]].replace("${", "$${")

    _rewrite(made, lambda text, _: _REFERENCE.sub(value, text) if "${" in text else text)
    return made


def instance_title(job: workflows_pb2.JobDefinition, values: Mapping[str, str]) -> str:
    """What people read of an instance."""
    chosen = ", ".join(f"{name}={value}" for name, value in values.items())
    return f"{job.description or job.name} ({chosen})"[:_MAX_DESCRIPTION]


def each_references(text: str) -> Iterator[str | None]:
    """The names a text refers to with ``${each.``, in order; None for a reference that is not well formed."""
    for found in _REFERENCE.finditer(text):
        if found[0] != "$${":
            yield found[1] if found[1] and found[2] else None


def each_texts(job: workflows_pb2.JobDefinition) -> list[tuple[FieldPath, str]]:
    """Every text that may refer to ``each``, with its field."""
    found: list[tuple[FieldPath, str]] = []

    def note(text: str, field: FieldPath) -> str:
        found.append((field, text))
        return text

    copy = workflows_pb2.JobDefinition()
    copy.CopyFrom(job)
    _rewrite(copy, note)
    return found


def _combinations(job: workflows_pb2.JobDefinition) -> Iterator[dict[str, str]]:
    names = [axis.name for axis in job.matrix]
    for values in itertools.product(*(axis.values for axis in job.matrix)):
        yield dict(zip(names, values, strict=True))


def _rewrite(job: workflows_pb2.JobDefinition, change: Callable[[str, FieldPath], str]) -> None:
    """Put every text that may refer to ``each`` through ``change``."""
    if job.HasField("on"):
        job.on.peer = change(job.on.peer, ("on", "peer"))
        job.on.labels[:] = [change(label, ("on", "labels", at)) for at, label in enumerate(job.on.labels)]
    if job.HasField("run"):
        job.run.argv[:] = [change(element, ("run", "argv", at)) for at, element in enumerate(job.run.argv)]
    for name in list(job.env):
        job.env[name] = change(job.env[name], ("env", name))
    for name in list(job.params):
        job.params[name] = change(job.params[name], ("params", name))


def _instances(name: str, counts: Mapping[str, int]) -> list[str]:
    return [instance_name(name, index) for index in range(counts[name])] if name in counts else [name]


def _fanned_in(edge: _Edge, counts: Mapping[str, int]) -> list[_Edge]:
    """The edge from each instance of its source, each ending in a directory of its own."""
    source = parse_source(getattr(edge, "from"))
    if source.node_id not in counts:
        return [edge]
    made = []
    for index in range(counts[source.node_id]):
        one = type(edge)()
        one.CopyFrom(edge)
        name = instance_name(source.node_id, index)
        setattr(one, "from", f"{name}.{source.word}" + (f"/{source.path}" if source.path else ""))
        one.to = f"{edge.to}/{name}" if edge.to else name
        made.append(one)
    return made
