"""Python values -> the tree that a YAML file becomes, so that the very same reader takes both.

``None`` is an absent field; numbers, truth values and :class:`~datetime.timedelta` are written as a file has them;
bytes become base64.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from peerd.errors import PeerdError, Reason

if TYPE_CHECKING:
    from peerd.v1 import workflows_pb2
    from peerd.workflows.problems import FieldPath, Problem
    from peerd.workflows.tree import Node


def read_values(values: Mapping[str, Any], *, list_name: str = "", index: int = 0) -> workflows_pb2.WorkflowDefinition:
    """Values as a definition, each by the rules of its field. Raises INVALID_DEFINITION naming every field.

    With ``list_name`` they are one entry of that list, at that index.
    """
    from dataclasses import replace

    from peerd.workflows.decode import decode
    from peerd.workflows.problems import invalid_definition
    from peerd.workflows.tree import Tree

    content: Mapping[str, Any] = {list_name: [values]} if list_name else values
    decoded = decode(Tree(root=_node(content), locate=lambda mark: (0, 0)))

    def moved(problem: Problem) -> Problem:
        path: FieldPath = problem.path
        return replace(problem, path=(list_name, index, *path[2:]) if list_name and len(path) > 1 else path)

    if decoded.problems:
        raise invalid_definition([moved(problem) for problem in decoded.problems])
    return decoded.definition


def _node(value: object) -> Node:
    from peerd.workflows.tree import Mapping as MappingNode
    from peerd.workflows.tree import Scalar, Sequence

    match value:
        case None:
            return Scalar("null", plain=True, mark=None)
        case bool():
            return Scalar("true" if value else "false", plain=True, mark=None)
        case int() | float():
            return Scalar(repr(value), plain=True, mark=None)
        case timedelta():
            return Scalar(f"{value.total_seconds():.3f}s", plain=False, mark=None)
        case str() | PurePath():
            return Scalar(str(value), plain=False, mark=None)
        case bytes():
            return Scalar(base64.b64encode(value).decode(), plain=False, mark=None)
        case Mapping():
            entries = [(Scalar(str(key), plain=False, mark=None), _node(inner)) for key, inner in value.items()]
            return MappingNode(entries, mark=None)
        case Iterable():
            return Sequence([_node(inner) for inner in value], mark=None)
        case _:
            raise PeerdError(
                Reason.INVALID_ARGUMENT,
                f"{type(value).__name__} has no place in a definition",
                next_action="use text, numbers, truth values, bytes, lists and mappings",
            )
