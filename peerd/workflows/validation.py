"""Whether a definition makes sense: its values here, its edges in :mod:`graph`, their ends in :mod:`destinations`.

Pure, and complete: every problem is found in one reading. It asks nothing of the world - whether a peer or a service
exists is seen when a job is placed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping

from peerd.errors import PeerdError
from peerd.registry.expression import parse_expression
from peerd.v1 import workflows_pb2
from peerd.workflows.automation import concurrency_problems, schedule_problems
from peerd.workflows.controls import condition_problems
from peerd.workflows.destinations import collisions
from peerd.workflows.edges import INTERFACE_WORDS
from peerd.workflows.graph import Graph, path_flaw
from peerd.workflows.matrix import instance_count
from peerd.workflows.matrix_problems import fanned_in, matrix_problems
from peerd.workflows.parameters import parameter_problems
from peerd.workflows.params import job_texts, references, value_flaw
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.quantities import parse_duration, parse_exit_codes, parse_memory

MAX_JOBS = 20_000
# Package files travel inside the definition, which is stored whole and sent in one message.
MAX_PACKAGE_BYTES = 2 * 1024 * 1024
MAX_ATTEMPTS = 100
MAX_EXIT_CODES = 64
MAX_CPUS = 4096
MAX_ARGV = 1024
# Parameters of a workflow or job, variables of a job.
MAX_ENTRIES = 1000
# Of one job; an executor takes no more.
MAX_SECRETS = 100
# A label, role, group, peer or service; longer than any that can exist.
MAX_WORD = 255

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONSTRAINTS = ("inputs_ready", "none")
_POLICIES = ("finish", "stop")
_RETRY_ON = ("exit", "timeout", "limit", "lost")
MAX_PRIORITY = 100


def validate(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """Everything wrong with a definition, without positions. Nothing when it may run."""
    yield from _name(definition.name, ("name",), "the workflow")
    yield from _params(definition.params, ("params",))
    yield from _parameters(definition)
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
    yield from _package_sizes(definition)
    yield from condition_problems(definition)
    too_many = False
    for problem in matrix_problems(definition, MAX_JOBS):
        too_many |= problem.reason is ProblemReason.TOO_MANY_JOBS
        yield problem
    if too_many:
        return
    graph = Graph(definition)
    yield from graph.problems
    counts = {job.name: instance_count(job) for job in definition.jobs if job.matrix}
    for links in graph.incoming:
        yield from collisions(fanned_in(links, counts) if counts else links)


def _job(job: workflows_pb2.JobDefinition, path: FieldPath, params: frozenset[str]) -> Iterator[Problem]:
    yield from _name(job.name, (*path, "name"), "a job")
    yield from _work(job, path)
    if job.HasField("on"):
        yield from _placement(job.on, (*path, "on"))
    if job.package:
        yield from _package(job, path)
    yield from _params(job.params, (*path, "params"))
    yield from _env(job.env, (*path, "env"))
    if job.secrets or job.secret_files:
        yield from _secrets(job, path)
    for field, text in job_texts(job):
        if "${" in text:
            yield from _references(text, (*path, *field), params)
    yield from _duration(job.timeout, (*path, "timeout"), positive=True)
    yield from _duration(job.deadline, (*path, "deadline"), positive=True)
    for limit in ("queue_timeout", "start_timeout", "transfer_timeout"):
        yield from _duration(getattr(job, limit), (*path, limit), positive=True)
    if job.HasField("retry"):
        yield from _retry(job.retry, (*path, "retry"))
    yield from _choice(job.execution_constraint, _CONSTRAINTS, (*path, "execution_constraint"))
    yield from _choice(job.partition_policy, _POLICIES, (*path, "partition_policy"))
    if abs(job.priority) > MAX_PRIORITY:
        message = f"{job.priority} is not between {-MAX_PRIORITY} and {MAX_PRIORITY}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "priority"))
    if job.HasField("resources"):
        yield from _resources(job.resources, (*path, "resources"))


def _name(name: str, path: FieldPath, of: str) -> Iterator[Problem]:
    if not name:
        yield Problem(reason=ProblemReason.MISSING, message=f"{of} needs a name", path=path)
    elif not _NAME.fullmatch(name):
        message = f"{_shown(name)} is no name: it becomes part of paths"
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
        yield from _word(job.service, (*path, "service"))
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
        yield from _value(element, (*argv, index))
    if job.params:
        hint = "declare it under the workflow's params and write ${params.NAME} in argv or env"
        message = "params of a job are for the service it orders; a command has none"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, "params"), next_action=hint)


def _placement(on: workflows_pb2.Placement, path: FieldPath) -> Iterator[Problem]:
    for field, word in (("peer", on.peer), ("role", on.role), ("group", on.group), ("region", on.region)):
        if word:
            yield from _word(word, (*path, field))
    for index, label in enumerate(on.labels):
        if label:
            yield from _word(label, (*path, "labels", index))
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


def _package(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    files: dict[str, int] = {}
    for index, file in enumerate(job.package):
        here = (*path, "package", index)
        if not file.path:
            yield Problem(reason=ProblemReason.MISSING, message="a package file needs a path", path=(*here, "path"))
            continue
        if flaw := path_flaw(file.path):
            yield Problem(reason=ProblemReason.BAD_PATH, message=flaw, path=(*here, "path"))
            continue
        first = files.setdefault(file.path.casefold(), index)
        if first != index:
            message = f"package[{first}] is already at {job.package[first].path!r}"
            yield Problem(reason=ProblemReason.DUPLICATE_PATH, message=message, path=(*here, "path"))
        body = file.WhichOneof("body")
        if body is None:
            hint = "add 'text', 'content' (base64), or 'source' with a file beside the definition"
            message = f"{file.path!r} has no content"
            yield Problem(reason=ProblemReason.MISSING, message=message, path=here, next_action=hint)
        elif body == "source":
            message = f"{file.source!r} is a file of whoever wrote the definition, which this daemon does not read"
            yield Problem(reason=ProblemReason.UNRESOLVED_SOURCE, message=message, path=(*here, "source"))
    for file_path, index in files.items():
        parts = file_path.split("/")
        for depth in range(1, len(parts)):
            if (other := files.get("/".join(parts[:depth]))) is not None:
                message = f"package[{other}] is a file where this needs a directory"
                where = (*path, "package", index, "path")
                yield Problem(reason=ProblemReason.DUPLICATE_PATH, message=message, path=where)
                break


def _package_sizes(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    total = 0
    for index, job in enumerate(definition.jobs):
        for at, file in enumerate(job.package):
            total += len(file.content) or len(file.text.encode())
            if total > MAX_PACKAGE_BYTES:
                message = f"package files are larger than {MAX_PACKAGE_BYTES >> 20} MiB in all, from this one on"
                hint = "offer large files as a data service and take them as input"
                path = ("jobs", index, "package", at)
                yield Problem(reason=ProblemReason.TOO_LARGE, message=message, path=path, next_action=hint)
                return


def _params(entries: Mapping[str, str], path: FieldPath) -> Iterator[Problem]:
    if len(entries) > MAX_ENTRIES:
        yield _too_many(entries, path)
        return
    for name, value in entries.items():
        if not _NAME.fullmatch(name):
            message = f"{_shown(name)} is no name of a parameter"
            yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=(*path, name))
        yield from _value(value, (*path, name))


def _parameters(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    if len(definition.parameters) > MAX_ENTRIES:
        yield _too_many(definition.parameters, ("parameters",))
        return
    for name, parameter in definition.parameters.items():
        path = ("parameters", name)
        if not _NAME.fullmatch(name):
            message = f"{_shown(name)} is no name of a parameter"
            yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path)
        if name in definition.params:
            message = f"{name!r} stands under 'params', too"
            hint = "keep one of them: 'params' takes any text, 'parameters' checks it"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=path, next_action=hint)
        yield from parameter_problems(parameter, path)
        for field in ("default", "description"):
            yield from _value(getattr(parameter, field), (*path, field))


def _env(entries: Mapping[str, str], path: FieldPath) -> Iterator[Problem]:
    if len(entries) > MAX_ENTRIES:
        yield _too_many(entries, path)
        return
    for name, value in entries.items():
        yield from _env_name(name, (*path, name))
        yield from _value(value, (*path, name))


def _env_name(name: str, path: FieldPath) -> Iterator[Problem]:
    if not _ENV_NAME.fullmatch(name) or len(name) > MAX_WORD:
        message = f"{_shown(name)} is no name of an environment variable"
        yield Problem(reason=ProblemReason.BAD_ENV_NAME, message=message, path=path)
    elif name.startswith(("PEERD_", "LD_")):
        message = f"{name} cannot be set: PEERD_ is peerd's own, and LD_ loads foreign code"
        hint = "choose another name"
        yield Problem(reason=ProblemReason.BAD_ENV_NAME, message=message, path=path, next_action=hint)


def _secrets(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    if len(job.secrets) + len(job.secret_files) > MAX_SECRETS:
        message = f"{len(job.secrets) + len(job.secret_files)} secrets are more than {MAX_SECRETS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "secrets"))
        return
    for variable, name in job.secrets.items():
        here = (*path, "secrets", variable)
        yield from _env_name(variable, here)
        yield from _secret_name(name, here)
        if variable in job.env:
            message = f"{_shown(variable)} stands under 'env', too"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=here)
    seen: set[str] = set()
    for index, name in enumerate(job.secret_files):
        here = (*path, "secret_files", index)
        yield from _secret_name(name, here)
        if name in seen:
            message = f"{_shown(name)} is listed twice"
            yield Problem(reason=ProblemReason.DUPLICATE_NAME, message=message, path=here)
        seen.add(name)


def _secret_name(name: str, path: FieldPath) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        message = f"{_shown(name)} is no name of a secret: it names one of the executor's, and is not the secret"
        yield Problem(reason=ProblemReason.BAD_NAME, message=message, path=path)


def _too_many(entries: Mapping[str, object], path: FieldPath) -> Problem:
    message = f"{len(entries)} entries are more than {MAX_ENTRIES}"
    return Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=path)


def _value(value: str, path: FieldPath) -> Iterator[Problem]:
    if flaw := value_flaw(value):
        yield Problem(reason=ProblemReason.BAD_VALUE, message=f"the value {flaw}", path=path)


def _references(text: str, path: FieldPath, params: frozenset[str]) -> Iterator[Problem]:
    for name in references(text):
        if name is None:
            message = f"{_shown(text)} holds a reference without a name or its closing brace"
            yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=path)
        elif name not in params:
            near = difflib.get_close_matches(name[:MAX_WORD], sorted(params), n=1) if len(params) <= 100 else []
            hint = f"did you mean {near[0]!r}?" if near else ""
            message = f"${{params.{name}}} refers to no parameter of this workflow"
            yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=path, next_action=hint)


def _duration(text: str, path: FieldPath, *, positive: bool) -> Iterator[Problem]:
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


def _retry(retry: workflows_pb2.RetryDefinition, path: FieldPath) -> Iterator[Problem]:
    if retry.attempts > MAX_ATTEMPTS:
        message = f"{retry.attempts} attempts are not between 1 and {MAX_ATTEMPTS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "attempts"))
    yield from _duration(retry.backoff, (*path, "backoff"), positive=False)
    yield from _duration(retry.max_backoff, (*path, "max_backoff"), positive=False)
    for index, word in enumerate(retry.on):
        yield from _choice(word or "nothing", _RETRY_ON, (*path, "on", index))
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


def _resources(resources: workflows_pb2.ResourcesDefinition, path: FieldPath) -> Iterator[Problem]:
    # 0 is "not given" in a message; in a text it is refused while it can be told apart.
    if not math.isfinite(resources.cpus) or not 0 <= resources.cpus <= MAX_CPUS:
        message = f"{resources.cpus:g} cpus are not between 0 and {MAX_CPUS}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "cpus"))
    for name in ("memory", "disk"):
        try:
            parse_memory(getattr(resources, name) or "1")
        except ValueError as error:
            yield Problem(reason=ProblemReason.BAD_MEMORY, message=str(error), path=(*path, name))


def _choice(word: str, choices: tuple[str, ...], path: FieldPath) -> Iterator[Problem]:
    if word and word not in choices:
        message = f"{_shown(word)} is not one of {', '.join(choices)}"
        near = difflib.get_close_matches(word[:MAX_WORD], choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        yield Problem(reason=ProblemReason.BAD_CHOICE, message=message, path=path, next_action=hint)


def _word(word: str, path: FieldPath) -> Iterator[Problem]:
    if _CONTROL.search(word) or len(word) > MAX_WORD or word != word.strip():
        message = f"{_shown(word)} has control characters, surrounding space, or more than {MAX_WORD} characters"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=path)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
