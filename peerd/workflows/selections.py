"""What an edge of a definition takes of an output: read from its message, and judged. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from peerd.transfers.selection import EVERYTHING, MAX_PATTERNS, Rename, Selection, pattern_flaw, rename_flaw
from peerd.v1 import workflows_pb2
from peerd.workflows.problems import FieldPath, Problem, ProblemReason

EdgeDefinition = workflows_pb2.InputDefinition | workflows_pb2.DeliveryDefinition


def selection_of(item: EdgeDefinition, path: str) -> Selection:
    """The selection of a valid edge; ``path`` is the part of the output that its ``from`` names."""
    if not (path or item.files or item.rename or item.optional):
        return EVERYTHING
    return Selection(path=path, files=tuple(item.files), rename=_rules(item), optional=item.optional)


def selection_problems(item: EdgeDefinition, field: FieldPath, *, log: bool) -> Iterator[Problem]:
    """What is wrong with ``files``, ``rename`` and ``optional``; ``log`` for an edge that takes stdout or stderr."""
    if log and item.files:
        hint = "leave it out; 'rename' gives the file another name"
        message = "stdout and stderr are one file each: there is nothing to choose"
        yield Problem(reason=ProblemReason.BAD_PATTERN, message=message, path=(*field, "files"), next_action=hint)
    for name, count in (("files", len(item.files)), ("rename", len(item.rename))):
        if count > MAX_PATTERNS:
            message = f"{count} entries are more than {MAX_PATTERNS}"
            yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*field, name))
            return
    for index, pattern in enumerate(item.files):
        if flaw := pattern_flaw(pattern):
            yield Problem(reason=ProblemReason.BAD_PATTERN, message=flaw, path=(*field, "files", index))
    for index, rule in enumerate(_rules(item)):
        where = (*field, "rename", index)
        if flaw := rename_flaw(rule):
            yield Problem(reason=ProblemReason.BAD_RENAME, message=flaw, path=where)
        elif not rule.origin and len(item.rename) > 1:
            message = "a rename without 'from' is for the only file, and there are other renames beside it"
            yield Problem(reason=ProblemReason.BAD_RENAME, message=message, path=where)


def _rules(item: EdgeDefinition) -> tuple[Rename, ...]:
    return tuple(Rename(origin=getattr(rule, "from"), to=rule.to) for rule in item.rename)
