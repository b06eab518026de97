"""A definition as it comes in -> one that may run, or everything that is wrong with it.

Reading is pure: no store, no other peer. Whether a peer, service or file exists is placement's question
(:mod:`peerd.workflows.placement`) and changes with time; whether the definition makes sense does not.

**Canonical form and digest.** The canonical form of a definition is the message itself; its digest is BLAKE3 over
the deterministic protobuf encoding (fields by number, map entries by key), which is also what the store keeps, byte
for byte. Names, order of jobs and edges, and defaults written out are part of it: two files that differ only in
layout, comments, quoting or field order have one digest.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from peerd.digest import digest
from peerd.v1 import workflows_pb2
from peerd.workflows.decode import decode
from peerd.workflows.json_source import looks_like_json, parse_json
from peerd.workflows.problems import MAX_PROBLEMS, Problem, ProblemReason, invalid_definition
from peerd.workflows.tree import MAX_TEXT_BYTES, SourceError
from peerd.workflows.validation import validate
from peerd.workflows.versions import too_new
from peerd.workflows.yaml_source import parse_yaml


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came out of reading: a valid definition with its digest, or problems."""

    problems: tuple[Problem, ...] = ()
    definition: workflows_pb2.WorkflowDefinition | None = None
    # Deterministic encoding: what to store. decode_stored() gives the definition back.
    encoded: bytes = b""
    digest: bytes = b""


def read_definition(source: workflows_pb2.DefinitionSource) -> Reading:
    """Parse and validate. Never raises for what is wrong with the definition.

    Takes about a second for 10,000 jobs: call it in a thread.
    """
    with _collector_paused():
        match source.WhichOneof("source"):
            case "text":
                return _read_text(source.text)
            case "definition":
                return _read_message(source.definition)
            case _:
                return Reading(problems=(Problem(reason=ProblemReason.MISSING, message="there is no definition"),))


def accept_definition(source: workflows_pb2.DefinitionSource) -> Reading:
    """A valid reading (definition is set), or INVALID_DEFINITION with all problems as violations."""
    reading = read_definition(source)
    if reading.problems:
        raise invalid_definition(reading.problems, source.file_name)
    return reading


def decode_stored(encoded: bytes) -> workflows_pb2.WorkflowDefinition:
    """The definition whose ``Reading.encoded`` this is."""
    return workflows_pb2.WorkflowDefinition.FromString(encoded)


def _read_text(text: str) -> Reading:
    if len(text) > MAX_TEXT_BYTES or len(text.encode()) > MAX_TEXT_BYTES:
        message = f"the text is larger than {MAX_TEXT_BYTES >> 20} MiB"
        return Reading(problems=(Problem(reason=ProblemReason.TOO_LARGE, message=message),))
    try:
        tree = parse_json(text) if looks_like_json(text) else parse_yaml(text)
    except SourceError as error:
        return Reading(problems=(error.problem,))
    decoded = decode(tree)
    if (newer := too_new(decoded.definition)) is not None:
        line, column = tree.place_of(newer.path)
        return Reading(problems=(replace(newer, line=line, column=column),))
    if len(decoded.problems) > MAX_PROBLEMS:
        return _reading(decoded.definition, list(decoded.problems))
    found = [
        replace(problem, line=line, column=column)
        for problem in _unobscured(validate(decoded.definition), decoded.problems)
        for line, column in [tree.place_of(problem.path)]
    ]
    problems = sorted([*decoded.problems, *found], key=lambda problem: (problem.line, problem.column))
    return _reading(decoded.definition, problems)


def _read_message(message: workflows_pb2.WorkflowDefinition) -> Reading:
    if (size := message.ByteSize()) > MAX_TEXT_BYTES:
        what = f"the definition is larger than {MAX_TEXT_BYTES >> 20} MiB"
        return Reading(problems=(Problem(reason=ProblemReason.TOO_LARGE, message=what),))
    if (newer := too_new(message)) is not None:
        return Reading(problems=(newer,))
    definition = workflows_pb2.WorkflowDefinition()
    definition.CopyFrom(message)
    definition.DiscardUnknownFields()
    problems = list(islice(validate(definition), MAX_PROBLEMS + 1))
    if definition.ByteSize() != size:
        # Running it without what they say would be running something else.
        what = "it has fields that this version of peerd does not know"
        hint = "leave them out, or update peerd here"
        problems.insert(0, Problem(reason=ProblemReason.UNKNOWN_FIELD, message=what, next_action=hint))
    return _reading(definition, problems)


def _reading(definition: workflows_pb2.WorkflowDefinition, problems: list[Problem]) -> Reading:
    if problems:
        if len(problems) > MAX_PROBLEMS:
            message = f"there are more than {MAX_PROBLEMS} problems; the rest is not listed"
            problems[MAX_PROBLEMS:] = [Problem(reason=ProblemReason.MORE_PROBLEMS, message=message)]
        return Reading(problems=tuple(problems))
    encoded = definition.SerializeToString(deterministic=True)
    return Reading(definition=definition, encoded=encoded, digest=digest(encoded))


def _unobscured(found: Iterable[Problem], unread: tuple[Problem, ...]) -> list[Problem]:
    """The problems that are not mere consequences of what could not be read.

    What could not be read is not in the message, so validation would call it missing, or a reference to it unknown.
    """
    if not unread:
        return list(islice(found, MAX_PROBLEMS + 1))
    paths = {problem.path for problem in unread}
    around = {path[:length] for path in paths for length in range(len(path) + 1)}
    jobs_unclear = any(path[:1] == ("jobs",) and (len(path) < 3 or path[2] == "name") for path in paths)
    params_unclear = any(path[:1] in (("params",), ("parameters",)) for path in paths)
    whole_unclear = () in paths

    def consequence(problem: Problem) -> bool:
        return (
            whole_unclear
            or problem.path in around
            or any(problem.path[:length] in paths for length in range(len(problem.path)))
            or (jobs_unclear and problem.reason is ProblemReason.UNKNOWN_JOB)
            or (params_unclear and problem.reason is ProblemReason.UNKNOWN_PARAM)
        )

    return [problem for problem in islice(found, MAX_PROBLEMS + 1) if not consequence(problem)]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking a growing tree that holds no cycles.

    It would take two thirds of the time for a large definition **[ran]**. Of two readings at once in two threads the
    first to end switches it on again; the other is only slower.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
