"""Tree -> message, by the message's own descriptor: every field of a definition, and no other, has its place here.

This is the proto JSON mapping with people in mind. Field names in either spelling (``max_backoff``, ``maxBackoff``);
null is an absent field; a scalar given for a text field is taken as written, whatever YAML would make of it
(``x: no``, ``timeout: 90``). What does not fit is a problem, and reading goes on with the rest.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from peerd.v1 import workflows_pb2
from peerd.workflows.problems import MAX_PROBLEMS, FieldPath, Problem, ProblemReason
from peerd.workflows.tree import Mapping, Mark, Node, Scalar, Sequence, Tree

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_INTEGER = re.compile(r"\d{1,12}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
# Each comparison takes 0.1 ms, and nobody reads more suggestions than this.
_MAX_SUGGESTIONS = 100
# Zero cannot be told from "not given" once it is in a message, so it is refused where it is still text.
_NEVER_ZERO = (
    "peerd.v1.RetryDefinition.attempts",
    "peerd.v1.ResourcesDefinition.cpus",
    "peerd.v1.WorkflowDefinition.api_version",
    "peerd.v1.ScheduleDefinition.catch_up_limit",
    "peerd.v1.ConcurrencyDefinition.limit",
)


# Lists of messages for which a word alone may stand, as that field of the only entry.
_SHORT = {
    "peerd.v1.InputDefinition.rename": "to",
    "peerd.v1.DeliveryDefinition.rename": "to",
}

_OWNERS = {
    "JobDefinition": "a job",
    "Placement": "'on'",
    "Command": "a command",
    "InputDefinition": "an input",
    "DeliveryDefinition": "a delivery",
    "PackageFile": "a package file",
    "Rename": "a rename",
    "RetryDefinition": "'retry'",
    "ResourcesDefinition": "'resources'",
    "ParameterDefinition": "a parameter",
    "ScheduleDefinition": "'schedule'",
    "ConcurrencyDefinition": "'concurrency'",
    "MatrixAxis": "an axis",
}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    full_name: str
    repeated: bool
    is_map: bool
    # For messages and maps of them: their own fields by either spelling.
    fields: dict[str, _Field] | None
    # What people call that message.
    owner: str
    scalar: Callable[[Scalar], Any]
    expected: str
    oneof: str


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The definition as far as it could be understood, and what could not: at most one above MAX_PROBLEMS."""

    definition: workflows_pb2.WorkflowDefinition
    problems: tuple[Problem, ...]


def decode(tree: Tree) -> Decoded:
    """Read a tree as a WorkflowDefinition."""
    decoder = _Decoder(tree)
    values = decoder.message(tree.root, _fields(workflows_pb2.WorkflowDefinition.DESCRIPTOR), "a definition", ())
    return Decoded(definition=workflows_pb2.WorkflowDefinition(**values), problems=tuple(decoder.problems))


class _Decoder:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.problems: list[Problem] = []

    def message(self, node: Node, fields: dict[str, _Field], name: str, path: FieldPath) -> dict[str, Any]:
        """The node as keyword arguments of that message."""
        values: dict[str, Any] = {}
        if not isinstance(node, Mapping):
            self._wrong(node, path, f"expected the fields of {name}, found {_describe(node)}", _choices("it", fields))
            return values
        written: dict[str, Scalar] = {}
        for key, value in node.entries:
            field = fields.get(key.text)
            if field is None:
                self._unknown(key, fields, name, path)
                continue
            slot = field.oneof or field.name
            if slot in written:
                self._twice(key, written[slot], field, path)
                continue
            written[slot] = key
            if type(value) is Scalar and value.plain and value.text in _NULLS:
                # As in proto JSON: null, or nothing after the colon, is an absent field.
                if field.oneof:
                    del written[slot]
                continue
            decoded = self._field(value, field, (*path, field.name))
            if decoded is not None:
                values[field.name] = decoded
        return values

    def _field(self, node: Node, field: _Field, path: FieldPath) -> Any:
        if field.is_map:
            return self._map(node, field, path)
        if field.repeated:
            if isinstance(node, Scalar) and (short := _SHORT.get(field.full_name)):
                return [{short: node.text}]
            if not isinstance(node, Sequence):
                hint = "" if field.fields is None else "write '- ' before it; " + _choices("each item", field.fields)
                self._wrong(node, path, f"expected a list, found {_describe(node)}", hint)
                return None
            if field.fields is not None:
                # A bad item stays as an empty message: the places of the others must not move.
                return [
                    self.message(item, field.fields, field.owner, (*path, index))
                    for index, item in enumerate(node.items)
                ]
            items = [self._scalar(item, field, (*path, index)) for index, item in enumerate(node.items)]
            return ["" if item is None else item for item in items]
        if field.fields is not None:
            return self.message(node, field.fields, field.owner, path)
        return self._scalar(node, field, path)

    def _map(self, node: Node, field: _Field, path: FieldPath) -> dict[str, Any] | None:
        if not isinstance(node, Mapping):
            self._wrong(node, path, f"expected names with values, found {_describe(node)}")
            return None
        if (fields := field.fields) is not None:
            return {
                key.text: self.message(value, fields, field.owner, (*path, key.text)) for key, value in node.entries
            }
        values = {key.text: self._scalar(value, field, (*path, key.text)) for key, value in node.entries}
        return {key: value for key, value in values.items() if value is not None}

    def _scalar(self, node: Node, field: _Field, path: FieldPath) -> Any:
        if not isinstance(node, Scalar):
            self._wrong(node, path, f"expected {field.expected}, found {_describe(node)}")
            return None
        if node.plain and node.text in _NULLS:
            self._wrong(
                node,
                path,
                f"expected {field.expected}, found nothing" if not node.text else f"{node.text} is no value here",
                'write "" for an empty text' + (f', or "{node.text}" for that word' if node.text else ""),
            )
            return None
        try:
            value = field.scalar(node)
        except ValueError as error:
            self._wrong(node, path, f"expected {field.expected}, found {_describe(node)}", str(error))
            return None
        if not value and field.full_name in _NEVER_ZERO:
            self._add(ProblemReason.OUT_OF_RANGE, "must be more than 0", node.mark, path)
        return value

    def _unknown(self, key: Scalar, fields: dict[str, _Field], owner: str, path: FieldPath) -> None:
        near = (
            []
            if len(self.problems) >= _MAX_SUGGESTIONS
            else difflib.get_close_matches(_snake_case(key.text), _names(fields), n=1, cutoff=0.6)
        )
        if key.text == "<<":
            hint = "merge keys are not supported: write the fields out"
        elif near:
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = _choices("it", fields)
        self._add(
            ProblemReason.UNKNOWN_FIELD, f"{key.text!r} is not a field of {owner}", key.mark, (*path, key.text), hint
        )

    def _twice(self, key: Scalar, first: Scalar, field: _Field, path: FieldPath) -> None:
        if field.oneof:
            message = f"{key.text!r} and {first.text!r} exclude each other"
            self._add(ProblemReason.CHOOSE_ONE, message, key.mark, (*path, field.name))
        else:
            message = f"{key.text!r} and {first.text!r} are one field"
            self._add(ProblemReason.DUPLICATE_KEY, message, key.mark, (*path, field.name))

    def _wrong(self, node: Node, path: FieldPath, message: str, next_action: str = "") -> None:
        self._add(ProblemReason.WRONG_TYPE, message, node.mark, path, next_action)

    def _add(self, reason: ProblemReason, message: str, mark: Mark, path: FieldPath, next_action: str = "") -> None:
        if len(self.problems) > MAX_PROBLEMS:
            return
        line, column = self._tree.locate(mark)
        self.problems.append(
            Problem(reason=reason, message=message, path=path, line=line, column=column, next_action=next_action)
        )


def _describe(node: Node) -> str:
    match node:
        case Mapping():
            return "names with values"
        case Sequence():
            return "a list"
        case Scalar(text=text, plain=True) if text in _NULLS:
            return "nothing"
        case Scalar(text=text):
            return repr(text if len(text) <= 40 else text[:37] + "...")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1], name).lower()


def _text(node: Scalar) -> str:
    return node.text


def _bool(node: Scalar) -> bool:
    if node.plain and node.text in _TRUE:
        return True
    if node.plain and node.text in _FALSE:
        return False
    raise ValueError("write true or false, without quotes")


def _uint32(node: Scalar) -> int:
    if not _INTEGER.fullmatch(node.text) or int(node.text) >= 1 << 32:
        raise ValueError("write a whole number such as 3")
    return int(node.text)


def _int32(node: Scalar) -> int:
    if not _INTEGER.fullmatch(node.text.removeprefix("-")) or abs(int(node.text)) >= 1 << 31:
        raise ValueError("write a whole number such as 3 or -3")
    return int(node.text)


def _double(node: Scalar) -> float:
    if not _NUMBER.fullmatch(node.text):
        raise ValueError("write a number such as 0.5 or 2")
    return float(node.text)


def _bytes(node: Scalar) -> bytes:
    compact = "".join(node.text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("write the bytes in base64, or use text for text") from error


_SCALARS: dict[int, tuple[Callable[[Scalar], Any], str]] = {
    FieldDescriptor.TYPE_STRING: (_text, "text"),
    FieldDescriptor.TYPE_BOOL: (_bool, "true or false"),
    FieldDescriptor.TYPE_UINT32: (_uint32, "a whole number"),
    FieldDescriptor.TYPE_INT32: (_int32, "a whole number"),
    FieldDescriptor.TYPE_DOUBLE: (_double, "a number"),
    FieldDescriptor.TYPE_BYTES: (_bytes, "base64"),
}


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    """The fields of a message by both spellings. Definitions are not recursive, so this ends."""
    fields: dict[str, _Field] = {}
    for field in _described(descriptor.fields):
        fields[field.name] = field
        fields[descriptor.fields_by_name[field.name].json_name] = field
    return fields


def _described(descriptors: Iterable[FieldDescriptor]) -> Iterable[_Field]:
    for field in descriptors:
        entry = field.message_type
        is_map = entry is not None and entry.GetOptions().map_entry
        inner = entry.fields_by_name["value"] if entry is not None and is_map else field
        message = inner.message_type
        oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
        read, expected = _SCALARS.get(inner.type, (_text, ""))
        yield _Field(
            name=field.name,
            full_name=field.full_name,
            repeated=field.is_repeated and not is_map,
            is_map=is_map,
            fields=_fields(message) if message is not None else None,
            owner=_OWNERS.get(message.name, message.name) if message is not None else "",
            scalar=read,
            expected=expected,
            # An optional field is the only one in a oneof that protobuf makes for it.
            oneof="" if oneof.startswith("_") else oneof,
        )


def _names(fields: dict[str, _Field]) -> list[str]:
    return sorted({field.name for field in fields.values()})


def _choices(what: str, fields: dict[str, _Field]) -> str:
    return f"{what} may have: {', '.join(_names(fields))}"
