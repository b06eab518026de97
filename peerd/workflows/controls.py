"""Whether the conditions of a definition make sense: each ``when`` is read, and asks only what it may. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from peerd.errors import Violation
from peerd.v1 import workflows_pb2
from peerd.workflows.condition_answers import number_of
from peerd.workflows.condition_tokens import ConditionError
from peerd.workflows.conditions import Condition, parse_condition
from peerd.workflows.edges import parse_source
from peerd.workflows.parameters import normalised
from peerd.workflows.problems import FieldPath, Problem, ProblemReason, format_path


def condition_problems(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """What is wrong with the conditions of all jobs."""
    params = {**definition.params, **{name: _default(typed) for name, typed in definition.parameters.items()}}
    many = {job.name: "matrix" if job.matrix else "map" for job in definition.jobs if job.matrix or job.HasField("map")}
    for index, job in enumerate(definition.jobs):
        if not job.when:
            continue
        path = ("jobs", index, "when")
        try:
            condition = parse_condition(job.when)
        except ConditionError as error:
            yield Problem(reason=ProblemReason.BAD_EXPRESSION, message=str(error), path=path)
            continue
        yield from _params(condition, path, params)
        yield from _jobs(condition, path, job)
        for name in sorted(condition.jobs & many.keys()):
            message = f"jobs.{name}: {name!r} has a {many[name]}, so it does not end in one way"
            hint = "ask success() or failure(), which speak of all its instances"
            yield Problem(reason=ProblemReason.BAD_EXPRESSION, message=message, path=path, next_action=hint)


def _default(parameter: workflows_pb2.ParameterDefinition) -> str:
    """In the normal form of its type; empty if it has none, or one that is wrong and reported elsewhere."""
    try:
        return normalised(parameter, parameter.default) if parameter.HasField("default") else ""
    except ValueError:
        return ""


def param_violations(definition: workflows_pb2.WorkflowDefinition, params: Mapping[str, str]) -> Iterator[Violation]:
    """Values of a run that a condition compares with numbers, and that are none."""
    for index, job in enumerate(definition.jobs):
        if job.when:
            for name in sorted(parse_condition(job.when).numeric_params):
                if number_of(params[name]) is None:
                    place = format_path(("jobs", index, "when"))
                    yield Violation(field=f"params.{name}", message=f"{params[name][:80]!r} is no number: see {place}")


def _params(condition: Condition, path: FieldPath, params: Mapping[str, str]) -> Iterator[Problem]:
    for name in sorted(condition.params):
        if name not in params:
            near = difflib.get_close_matches(name, sorted(params), n=1) if len(params) <= 100 else []
            hint = f"did you mean {near[0]!r}?" if near else ""
            message = f"params.{name} refers to no parameter of this workflow"
            yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=path, next_action=hint)
        elif name in condition.numeric_params and params[name] and number_of(params[name]) is None:
            message = f"params.{name} is compared with a number, and its default {params[name][:80]!r} is none"
            yield Problem(reason=ProblemReason.BAD_EXPRESSION, message=message, path=path)


def _jobs(condition: Condition, path: FieldPath, job: workflows_pb2.JobDefinition) -> Iterator[Problem]:
    upstream = {*job.needs, *(parse_source(getattr(item, "from")).node_id for item in job.inputs)}
    if job.HasField("map"):
        upstream.add(parse_source(getattr(job.map, "from")).node_id)
    for name in sorted(condition.jobs - upstream):
        message = f"jobs.{name}: this job neither needs {name!r} nor takes files from it"
        hint = f"add 'needs: [{name}]', or correct the name"
        yield Problem(reason=ProblemReason.UNKNOWN_JOB, message=message, path=path, next_action=hint)
    if condition.asks_ends and not upstream:
        message = "it asks how other jobs ended, and this job has none before it"
        hint = "add 'needs: [JOB]'"
        yield Problem(reason=ProblemReason.BAD_EXPRESSION, message=message, path=path, next_action=hint)
