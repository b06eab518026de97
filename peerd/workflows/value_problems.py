"""What can be wrong with single values of a definition: parameters, variables, secrets, durations, retries. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping

from peerd.v1 import workflows_pb2
from peerd.workflows.parameters import parameter_problems
from peerd.workflows.params import references, value_flaw
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.quantities import parse_duration, parse_exit_codes, parse_memory

MAX_ATTEMPTS = 100
MAX_EXIT_CODES = 64
MAX_CPUS = 4096
# Parameters of a workflow or job, variables of a job.
MAX_ENTRIES = 1000
# Of one job; an executor takes no more.
MAX_SECRETS = 100
# A label, role, group, peer or service; longer than any that can exist.
MAX_WORD = 255
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RETRY_ON = ("exit", "timeout", "limit", "lost")


def params_problems(entries: Mapping[str, str], path: FieldPath) -> Iterator[Problem]:
    """What is wrong with names and values of parameters."""
    if len(entries) > MAX_ENTRIES:
        yield _too_many(entries, path)
        return
    for name, value in entries.items():
        if not NAME.fullmatch(name):
            message = f"{shown(name)} is no name of a parameter"
            yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*path, name))
        yield from value_problems(value, (*path, name))


def declared_problems(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """The same of parameters with types."""
    if len(definition.parameters) > MAX_ENTRIES:
        yield _too_many(definition.parameters, ("parameters",))
        return
    for name, parameter in definition.parameters.items():
        path = ("parameters", name)
        if not NAME.fullmatch(name):
            message = f"{shown(name)} is no name of a parameter"
            yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path)
        if name in definition.params:
            message = f"{name!r} stands under 'params', too"
            hint = "keep one of them: 'params' takes any text, 'parameters' checks it"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=path, next_action=hint)
        yield from parameter_problems(parameter, path)
        for field in ("default", "description"):
            yield from value_problems(getattr(parameter, field), (*path, field))


def env_problems(entries: Mapping[str, str], path: FieldPath) -> Iterator[Problem]:
    """The same of environment variables."""
    if len(entries) > MAX_ENTRIES:
        yield _too_many(entries, path)
        return
    for name, value in entries.items():
        yield from _env_name(name, (*path, name))
        yield from value_problems(value, (*path, name))


def _env_name(name: str, path: FieldPath) -> Iterator[Problem]:
    if not _ENV_NAME.fullmatch(name) or len(name) > MAX_WORD:
        message = f"{shown(name)} is no name of an environment variable"
        yield Problem(reason=ProblemReason.BAD_ENV_NAME, message=message, path=path)
    elif name.startswith(("PEERD_", "LD_")):
        message = f"{name} cannot be set: PEERD_ is peerd's own, and LD_ loads foreign code"
        hint = "choose another name"
        yield Problem(reason=ProblemReason.BAD_ENV_NAME, message=message, path=path, next_action=hint)


def secrets_problems(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    """The same of what asks for secrets."""
    if len(job.secrets) + len(job.secret_files) > MAX_SECRETS:
        message = f"{len(job.secrets) + len(job.secret_files)} secrets are more than {MAX_SECRETS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "secrets"))
        return
    for variable, name in job.secrets.items():
        here = (*path, "secrets", variable)
        yield from _env_name(variable, here)
        yield from _secret_name(name, here)
        if variable in job.env:
            message = f"{shown(variable)} stands under 'env', too"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=here)
    seen: set[str] = set()
    for index, name in enumerate(job.secret_files):
        here = (*path, "secret_files", index)
        yield from _secret_name(name, here)
        if name in seen:
            message = f"{shown(name)} is listed twice"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=here)
        seen.add(name)


def _secret_name(name: str, path: FieldPath) -> Iterator[Problem]:
    if not NAME.fullmatch(name):
        message = f"{shown(name)} is no name of a secret: it names one of the executor's, and is not the secret"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path)


def _too_many(entries: Mapping[str, object], path: FieldPath) -> Problem:
    message = f"{len(entries)} entries are more than {MAX_ENTRIES}"
    return Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=path)


def value_problems(value: str, path: FieldPath) -> Iterator[Problem]:
    """Whether a process could be given it."""
    if flaw := value_flaw(value):
        yield Problem(reason=ProblemReason.BAD_VALUE, message=f"the value {flaw}", path=path)


def references_problems(text: str, path: FieldPath, params: frozenset[str]) -> Iterator[Problem]:
    """Whether each parameter that a text refers to is declared."""
    for name in references(text):
        if name is None:
            message = f"{shown(text)} holds a reference without a name or its closing brace"
            yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=path)
        elif name not in params:
            near = difflib.get_close_matches(name[:MAX_WORD], sorted(params), n=1) if len(params) <= 100 else []
            hint = f"did you mean {near[0]!r}?" if near else ""
            message = f"${{params.{name}}} refers to no parameter of this workflow"
            yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=path, next_action=hint)


def duration_problems(text: str, path: FieldPath, *, positive: bool) -> Iterator[Problem]:
    """Whether it is a duration; nothing is one that is not given."""
    if not text:
        return
    try:
        millis = parse_duration(text)
    except ValueError as error:
        yield Problem(reason=ProblemReason.BAD_DURATION, message=str(error), path=path)
    else:
        if positive and not millis:
            hint = "leave it out for no limit"
            message = f"{path[-1]} must be longer than nothing"
            yield Problem(reason=ProblemReason.BAD_DURATION, message=message, path=path, next_action=hint)


def retry_problems(retry: workflows_pb2.RetryDefinition, path: FieldPath) -> Iterator[Problem]:
    """What is wrong with what is tried again."""
    if retry.attempts > MAX_ATTEMPTS:
        message = f"{retry.attempts} attempts are not between 1 and {MAX_ATTEMPTS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "attempts"))
    yield from duration_problems(retry.backoff, (*path, "backoff"), positive=False)
    yield from duration_problems(retry.max_backoff, (*path, "max_backoff"), positive=False)
    for index, word in enumerate(retry.on):
        yield from choice_problems(word or "nothing", _RETRY_ON, (*path, "on", index))
    if not 0 <= retry.jitter <= 1:  # also what is no number
        message = f"a jitter of {retry.jitter:g} is not between 0 and 1"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "jitter"))
    if retry.exit_codes and retry.on and "exit" not in retry.on:
        message = "exit codes are looked at only where 'on' lists exit"
        hint = "add exit to 'on', or leave exit_codes out"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, "exit_codes"), next_action=hint)
    if len(retry.exit_codes) > MAX_EXIT_CODES:
        message = f"{len(retry.exit_codes)} entries are more than {MAX_EXIT_CODES}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "exit_codes"))
    for index, text in enumerate(retry.exit_codes):
        try:
            parse_exit_codes(text)
        except ValueError as error:
            where = (*path, "exit_codes", index)
            yield Problem(reason=ProblemReason.BAD_EXIT_CODES, message=str(error), path=where)


def resources_problems(resources: workflows_pb2.ResourcesDefinition, path: FieldPath) -> Iterator[Problem]:
    """What is wrong with what is reserved."""
    # 0 is "not given" in a message; in a text it is refused while it can be told apart.
    if not math.isfinite(resources.cpus) or not 0 <= resources.cpus <= MAX_CPUS:
        message = f"{resources.cpus:g} cpus are not between 0 and {MAX_CPUS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "cpus"))
    for name in ("memory", "disk"):
        try:
            parse_memory(getattr(resources, name) or "1")
        except ValueError as error:
            yield Problem(reason=ProblemReason.BAD_MEMORY, message=str(error), path=(*path, name))


def choice_problems(word: str, choices: tuple[str, ...], path: FieldPath) -> Iterator[Problem]:
    """Whether it is one of some words."""
    if word and word not in choices:
        message = f"{shown(word)} is not one of {', '.join(choices)}"
        near = difflib.get_close_matches(word[:MAX_WORD], choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        yield Problem(reason=ProblemReason.BAD_CHOICE, message=message, path=path, next_action=hint)


def word_problems(word: str, path: FieldPath) -> Iterator[Problem]:
    """Whether it can be the name of something outside the definition."""
    if _CONTROL.search(word) or len(word) > MAX_WORD or word != word.strip():
        message = f"{shown(word)} has control characters, surrounding space, or more than {MAX_WORD} characters"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=path)


def shown(text: str) -> str:
    """As a message shows it."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
