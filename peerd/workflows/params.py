"""Parameters of a run: checked values over defaults, and ``${params.NAME}`` in argv, env and params of jobs.

Substitution is text for text within one element: it never splits an argument, is not repeated on what it inserted,
and knows no other variables: ``${HOME}`` stays as it is. ``$${`` stands for the characters ``${``. Sizes are checked
before anything is built, because one short reference may stand for a long value many times.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from peerd.errors import PeerdError, Reason, Violation
from peerd.v1 import workflows_pb2
from peerd.workflows.controls import param_violations
from peerd.workflows.parameters import normalised, type_of
from peerd.workflows.problems import FieldPath, format_path

# Linux takes 128 KiB for one argument or variable, its name included; half of it leaves room on both sides.
MAX_VALUE_BYTES = 64 * 1024
# All argv, env and params of one job after substitution; the kernel's own limit is near 2 MiB.
MAX_JOB_BYTES = 1024 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{params\.([A-Za-z0-9_.-]*)(\}?)")


def references(text: str) -> Iterator[str | None]:
    """The parameter names a text refers to, in order; None for a reference that is not well formed."""
    for found in _REFERENCE.finditer(text):
        if found[0] != "$${":
            yield found[1] if found[1] and found[2] else None


def run_params(definition: workflows_pb2.WorkflowDefinition, given: Mapping[str, str]) -> dict[str, str]:
    """Defaults overridden by what was given, each in the normal form of its type.

    INVALID_ARGUMENT for a parameter the definition does not declare, one that is missing, a value that its type does
    not allow, with NUL or above the limits, or values that make a job's argv, env and params too large.
    """
    names = sorted({*definition.params, *definition.parameters})
    declared = ", ".join(names) or "none"
    violations = [
        Violation(field=f"params.{name}", message=f"unknown parameter{_nearest(name, names)}; there are: {declared}")
        for name in sorted(given)
        if name not in names
    ]
    violations += [
        Violation(field=f"params.{name}", message=flaw)
        for name in sorted(given)
        if (flaw := value_flaw(given[name])) is not None
    ]
    if violations:
        raise _refused(violations, definition)
    params = {name: given.get(name, default) for name, default in definition.params.items()}
    for name in sorted(definition.parameters):
        try:
            params[name] = _typed(definition.parameters[name], given.get(name))
        except ValueError as error:
            violations.append(Violation(field=f"params.{name}", message=str(error)))
    if violations:
        raise _refused(violations, definition)
    lengths = {name: len(value.encode()) for name, value in params.items()}
    for index, job in enumerate(definition.jobs):
        total = 0
        for field, text in job_texts(job):
            length = _substituted_length(text, lengths)
            total += length
            if length > MAX_VALUE_BYTES:
                message = f"longer than {MAX_VALUE_BYTES} bytes after substitution"
                violations.append(Violation(field=format_path(("jobs", index, *field)), message=message))
        if total > MAX_JOB_BYTES:
            message = f"argv, env and params take more than {MAX_JOB_BYTES} bytes after substitution"
            violations.append(Violation(field=f"jobs[{index}]", message=message))
    violations += param_violations(definition, params)
    if violations:
        raise _refused(violations[:100], definition)
    return params


def _typed(parameter: workflows_pb2.ParameterDefinition, given: str | None) -> str:
    """The value of a parameter with a type. Raises ValueError."""
    if given is None and parameter.required:
        described = f" ({parameter.description})" if parameter.description else ""
        raise ValueError(f"must be given: a value of type {type_of(parameter)}{described}")
    if given is None and parameter.HasField("default"):
        return normalised(parameter, parameter.default)
    if not given and not parameter.required and not parameter.HasField("default"):
        return ""  # not given, also when an execution is run again with what it had
    return normalised(parameter, given or "")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name[:255], names, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def substitute(text: str, params: Mapping[str, str]) -> str:
    """The text with every reference replaced. The definition was validated: each parameter exists."""
    if "${" not in text:
        return text
    return _REFERENCE.sub(lambda found: "${" if found[0] == "$${" else params[found[1]], text)


def substituted(job: workflows_pb2.JobDefinition, params: Mapping[str, str]) -> workflows_pb2.JobDefinition:
    """A copy of the job as it runs with these parameters."""
    copy = workflows_pb2.JobDefinition()
    copy.CopyFrom(job)
    if copy.HasField("run"):
        copy.run.argv[:] = [substitute(element, params) for element in job.run.argv]
    for name, value in job.env.items():
        copy.env[name] = substitute(value, params)
    for name, value in job.params.items():
        copy.params[name] = substitute(value, params)
    return copy


def job_texts(job: workflows_pb2.JobDefinition) -> Iterator[tuple[FieldPath, str]]:
    """Every text of a job that may refer to parameters, with its field."""
    if job.HasField("run"):
        for index, element in enumerate(job.run.argv):
            yield ("run", "argv", index), element
    for name, value in job.env.items():
        yield ("env", name), value
    for name, value in job.params.items():
        yield ("params", name), value


def value_flaw(value: str) -> str | None:
    """What keeps a text from being an argument or variable of a process, or None."""
    if "\0" in value:
        return "contains a NUL character, which no argument or variable can hold"
    if len(value) > MAX_VALUE_BYTES or len(value.encode()) > MAX_VALUE_BYTES:
        return f"is longer than {MAX_VALUE_BYTES} bytes"
    return None


def _substituted_length(text: str, lengths: Mapping[str, int]) -> int:
    length = len(text.encode())
    if "${" in text:
        for found in _REFERENCE.finditer(text):
            length += -1 if found[0] == "$${" else lengths[found[1]] - len(found[0])
    return length


def _refused(violations: list[Violation], definition: workflows_pb2.WorkflowDefinition) -> PeerdError:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        f"{first.field}: {first.message}{more}",
        next_action="correct it: 'parameters' of the definition say what is taken, and 'peerctl workflows show NAME'"
        if definition.parameters
        else None,
        violations=violations,
    )
