"""Whether a definition makes sense: its jobs here, their values in :mod:`value_problems`, its edges in :mod:`graph`,
their ends in :mod:`destinations`.

Pure, and complete: every problem is found in one reading. It asks nothing of the world - whether a peer or a service
exists is seen when a job is placed.
"""

from __future__ import annotations

from collections.abc import Iterator

from peerd.errors import PeerdError
from peerd.registry.expression import parse_expression
from peerd.v1 import workflows_pb2
from peerd.workflows.automation import concurrency_problems, schedule_problems
from peerd.workflows.controls import condition_problems
from peerd.workflows.destinations import collisions
from peerd.workflows.edges import INTERFACE_WORDS
from peerd.workflows.graph import Graph
from peerd.workflows.map_problems import map_problems
from peerd.workflows.matrix import instance_count
from peerd.workflows.matrix_problems import fanned_in, matrix_problems
from peerd.workflows.package_problems import package_problems, package_sizes
from peerd.workflows.params import job_texts
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.value_problems import (
    NAME,
    choice_problems,
    declared_problems,
    duration_problems,
    env_problems,
    params_problems,
    references_problems,
    resources_problems,
    retry_problems,
    secrets_problems,
    shown,
    value_problems,
    word_problems,
)

MAX_JOBS = 20_000
MAX_ARGV = 1024

_CONSTRAINTS = ("inputs_ready", "none")
_POLICIES = ("finish", "stop")
MAX_PRIORITY = 100


def validate(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """Everything wrong with a definition, without positions. Nothing when it may run."""
    yield from _name(definition.name, ("name",), "the workflow")
    yield from params_problems(definition.params, ("params",))
    yield from declared_problems(definition)
    if not definition.jobs:
        yield Problem(reason=ProblemReason.NO_JOBS, message="the workflow has no jobs", path=("jobs",))
    if len(definition.jobs) > MAX_JOBS:
        message = f"{len(definition.jobs)} jobs are more than {MAX_JOBS}"
        yield Problem(reason=ProblemReason.TOO_MANY_JOBS, message=message, path=("jobs",))
        return
    yield from _unique_names(definition)
    params = frozenset(definition.params) | frozenset(definition.parameters)
    for index, job in enumerate(definition.jobs):
        yield from _job(job, ("jobs", index), params)
    if definition.HasField("schedule"):
        yield from schedule_problems(definition.schedule, ("schedule",), params)
    if definition.HasField("concurrency"):
        yield from concurrency_problems(definition.concurrency, ("concurrency",), params)
    yield from package_sizes(definition)
    yield from condition_problems(definition)
    too_many = False
    for problem in matrix_problems(definition, MAX_JOBS):
        too_many |= problem.reason in (ProblemReason.TOO_MANY_JOBS, ProblemReason.TOO_MANY_EDGES)
        yield problem
    if too_many:
        return
    yield from map_problems(definition, MAX_JOBS)
    graph = Graph(definition)
    yield from graph.problems
    counts = {job.name: instance_count(job) for job in definition.jobs if job.matrix or job.HasField("map")}
    for links in graph.incoming:
        yield from collisions(fanned_in(links, counts) if counts else links)


def _job(job: workflows_pb2.JobDefinition, path: FieldPath, params: frozenset[str]) -> Iterator[Problem]:
    yield from _name(job.name, (*path, "name"), "a job")
    yield from _work(job, path)
    if job.HasField("on"):
        yield from _placement(job.on, (*path, "on"))
    if job.package:
        yield from package_problems(job, path)
    yield from params_problems(job.params, (*path, "params"))
    yield from env_problems(job.env, (*path, "env"))
    if job.secrets or job.secret_files:
        yield from secrets_problems(job, path)
    for field, text in job_texts(job):
        if "${" in text:
            yield from references_problems(text, (*path, *field), params)
    yield from duration_problems(job.timeout, (*path, "timeout"), positive=True)
    yield from duration_problems(job.deadline, (*path, "deadline"), positive=True)
    for limit in ("queue_timeout", "start_timeout", "transfer_timeout"):
        yield from duration_problems(getattr(job, limit), (*path, limit), positive=True)
    if job.HasField("retry"):
        yield from retry_problems(job.retry, (*path, "retry"))
    yield from choice_problems(job.execution_constraint, _CONSTRAINTS, (*path, "execution_constraint"))
    yield from choice_problems(job.partition_policy, _POLICIES, (*path, "partition_policy"))
    if abs(job.priority) > MAX_PRIORITY:
        message = f"{job.priority} is not between {-MAX_PRIORITY} and {MAX_PRIORITY}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "priority"))
    if job.HasField("resources"):
        yield from resources_problems(job.resources, (*path, "resources"))


def _name(name: str, path: FieldPath, of: str) -> Iterator[Problem]:
    if not name:
        yield Problem(reason=ProblemReason.MISSING, message=f"{of} needs a name", path=path)
    elif not NAME.fullmatch(name):
        message = f"{shown(name)} is no name: it becomes part of paths"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path)
    elif name.rpartition(".")[2] in INTERFACE_WORDS and "." in name:
        message = f"{name!r} reads like an interface of {name.rpartition('.')[0]!r}"
        hint = f"end it in something other than {', '.join('.' + word for word in INTERFACE_WORDS)}"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path, next_action=hint)


def _unique_names(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, job in enumerate(definition.jobs):
        first = seen.setdefault(job.name.casefold(), index)
        if job.name and first != index:
            other = definition.jobs[first].name
            message = f"jobs[{first}] is already named {other!r}"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=("jobs", index, "name"))


def _work(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    if job.service and job.HasField("run"):
        message = "a job has either a service or a command in 'run', not both"
        yield Problem(reason=ProblemReason.CHOOSE_ONE, message=message, path=(*path, "run"))
    if job.service:
        yield from word_problems(job.service, (*path, "service"))
        return
    if not job.HasField("run"):
        hint = "add 'service: NAME', or 'run: {argv: [...]}' where the executor allows commands"
        message = "a job needs a service or a command"
        yield Problem(reason=ProblemReason.MISSING, message=message, path=path, next_action=hint)
        return
    argv = (*path, "run", "argv")
    if not job.run.argv or not job.run.argv[0]:
        hint = "write the program and its arguments as a list: [sort, -u]"
        yield Problem(reason=ProblemReason.MISSING, message="a command needs a program", path=argv, next_action=hint)
    if len(job.run.argv) > MAX_ARGV:
        message = f"{len(job.run.argv)} arguments are more than {MAX_ARGV}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=argv)
    for index, element in enumerate(job.run.argv):
        yield from value_problems(element, (*argv, index))
    if job.params:
        hint = "declare it under the workflow's params and write ${params.NAME} in argv or env"
        message = "params of a job are for the service it orders; a command has none"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, "params"), next_action=hint)


def _placement(on: workflows_pb2.Placement, path: FieldPath) -> Iterator[Problem]:
    for field, word in (("peer", on.peer), ("role", on.role), ("group", on.group), ("region", on.region)):
        if word:
            yield from word_problems(word, (*path, field))
    for index, label in enumerate(on.labels):
        if label:
            yield from word_problems(label, (*path, "labels", index))
        else:
            yield Problem(reason=ProblemReason.MISSING, message="a label is empty", path=(*path, "labels", index))
    if on.where:
        try:
            parse_expression(on.where)
        except PeerdError as error:
            hint = error.next_action
            yield Problem(
                reason=ProblemReason.BAD_VALUE, message=error.message, path=(*path, "where"), next_action=hint
            )
