"""The messages of a prober as JSON, read with every size and type checked: they come from another machine. Pure."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from peerd.nodes.messages import (
    MAX_AT_ONCE,
    MAX_BATCH,
    BatchLine,
    BatchRequest,
    Owner,
    ProbeRequest,
    ProbeResult,
)

MAX_RESULT_BYTES = 4 * 1024**2
_MAX_TEXT = 64 * 1024
_MAX_ITEMS = 10_000

T = TypeVar("T")


def to_json(message: ProbeRequest | BatchRequest | Owner | ProbeResult | BatchLine) -> str:
    """Compact JSON, with every field."""
    return json.dumps(dataclasses.asdict(message), ensure_ascii=False, separators=(",", ":"))


def request_from_json(text: str | bytes) -> ProbeRequest | BatchRequest:
    """Raises ValueError that names the field."""
    loaded = _load(text)
    if not isinstance(loaded, dict) or "nodes" not in loaded:
        return _decode(ProbeRequest, loaded, "request")
    batch = _decode(BatchRequest, loaded, "request")
    if not 1 <= len(batch.nodes) <= MAX_BATCH:
        raise ValueError(f"request.nodes: {len(batch.nodes)} is not between 1 and {MAX_BATCH}")
    if len({node.node_id for node in batch.nodes}) < len(batch.nodes):
        raise ValueError("request.nodes: two have the same node_id")
    if not 1 <= batch.at_once <= MAX_AT_ONCE:
        raise ValueError(f"request.at_once: {batch.at_once} is not between 1 and {MAX_AT_ONCE}")
    return batch


def owner_from_json(text: str | bytes) -> Owner:
    """Raises ValueError that names the field."""
    return _decode(Owner, _load(text), "owner")


def result_from_json(text: str | bytes) -> ProbeResult:
    """From another machine: sizes and types are checked. Raises ValueError that names the field."""
    if len(text) > MAX_RESULT_BYTES:
        raise ValueError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
    result = _decode(ProbeResult, _load(text), "result")
    if result.scan is not None and not 0 <= result.scan.score <= 100:
        raise ValueError(f"result.scan.score: {result.scan.score} is not between 0 and 100")
    if any(not 0 <= found.confidence <= 1 for found in result.recognitions):
        raise ValueError("result.recognitions: a confidence is not between 0 and 1")
    for field, port in _ports(result):
        if not 0 <= port <= 65535:
            raise ValueError(f"result.{field}: {str(port)[:20]} is no port")
    return result


def line_from_json(text: str | bytes) -> BatchLine:
    """One line of a batch's results; what the result in it says is not looked at yet. Raises ValueError."""
    loaded = _load(text)
    if not isinstance(loaded, dict) or set(loaded) != {field.name for field in dataclasses.fields(BatchLine)}:
        raise ValueError("a line of the results is not one of a node")
    if not all(isinstance(value, str) for value in loaded.values()):
        raise ValueError("a line of the results has something else than texts")
    return BatchLine(**loaded)


def _ports(result: ProbeResult) -> Iterator[tuple[str, int]]:
    """Every port that is named; 0 stands for none."""
    for connect in result.connects:
        yield "connects", connect.port
    for found in result.recognitions:
        yield "recognitions", found.port
    if result.scan is not None:
        for port in result.scan.ports:
            yield "scan.ports", port.number
        for finding in result.scan.findings:
            yield "scan.findings", finding.port


def _load(text: str | bytes) -> object:
    def no_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(cls: type[T], value: object, path: str) -> T:
    """A dataclass of this module; a field that is left out has its default, one that is unknown is refused."""
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not an object")  # noqa: TRY004 - one kind of error for whoever reads
    hints = _hints(cls)  # type: ignore[arg-type]
    if unknown := set(value) - set(hints):
        raise ValueError(f"{path}: unknown field {min(unknown)!r}")
    given = {name: _value(hints[name], item, f"{path}.{name}") for name, item in value.items()}
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def _value(wanted: Any, value: object, path: str) -> object:
    origin = typing.get_origin(wanted)
    if origin is types.UnionType:  # X | None
        (inner,) = (arm for arm in typing.get_args(wanted) if arm is not types.NoneType)
        return None if value is None else _value(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise ValueError(f"{path}: not a list of at most {_MAX_ITEMS}")
        inner = typing.get_args(wanted)[0]
        return tuple(_value(inner, item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None:  # Mapping[str, str]
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            raise ValueError(f"{path}: not an object of at most {_MAX_ITEMS}")
        return {_value(str, key, path): _value(str, item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _decode(wanted, value, path)
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise ValueError(f"{path}: {value!r} is none of {', '.join(wanted)}")
        return wanted(str(value))
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted or (isinstance(value, str) and len(value) > _MAX_TEXT):
        raise ValueError(f"{path}: not a {wanted.__name__}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{path}: half a character, which no store and no message can hold")
    return value
