"""A job with a map: the list that an earlier job made becomes jobs. Pure.

The job itself never runs. It waits like any gated job for what it builds on; then its list is read here, and for each
item there is an instance - ``resize.0``, ``resize.1`` and so on - that runs at once, as all it takes is there. The job
has completed when its instances exist; who builds on it builds on all of them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from peerd.v1 import workflows_pb2
from peerd.workflows.edges import Edge
from peerd.workflows.matrix import INDEX, MAX_EACH_BYTES, each_references, each_texts, instance, instance_name
from peerd.workflows.params import MAX_JOB_BYTES, MAX_VALUE_BYTES, value_flaw
from peerd.workflows.problems import format_path

ITEM = "item"
"""What ``as`` is when it is not given."""
MAX_LIST_BYTES = 4 * 1024 * 1024
MAX_MAP_EDGES = 100_000
"""Of all instances of one map."""
MAX_MAP_WAITS = 1_000_000
"""Of all instances of one map: how often one of them is waited for by a job that builds on it."""

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

Values = Mapping[str, str]
"""What ``${each.NAME}`` stands for in one instance; ``index`` is not among them."""


class ListError(ValueError):
    """What is wrong with a list, for people."""


def name_of(mapped: workflows_pb2.MapDefinition) -> str:
    """What its items are called in ``${each.NAME}``."""
    return getattr(mapped, "as") or ITEM


def read_list(content: bytes, job: workflows_pb2.JobDefinition, *, limit: int) -> list[Values]:
    """The instances' values. Raises ListError, also when the job asks for values that an item does not have."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ListError(f"the list is no UTF-8 text: byte {error.start} cannot be read") from error
    items = _json(text) if text.lstrip().startswith(("[", "{")) else _lines(text)
    if len(items) > limit:
        raise ListError(f"the list has {len(items)} items; there is room for {limit} more jobs")
    name = name_of(job.map)
    found = [_values(name, index, item) for index, item in enumerate(items)]
    _check_references(job, found)
    _check_lengths(job, found)
    return found


def instance_edges(
    node: str, templates: Sequence[Edge], counts: Mapping[str, int], first_edge_id: int
) -> Iterator[Edge]:
    """The edges of all instances of a job, instance by instance; ``counts``: of all maps whose lists are known."""
    numbers = itertools.count(first_edge_id)
    for index in range(counts[node]):
        name = instance_name(node, index)
        for edge in templates:
            if edge.source == node:
                yield replace(edge, edge_id=next(numbers), source=name, directory=_below(edge.directory, name))
            elif edge.source not in counts:
                yield replace(edge, edge_id=next(numbers), destination=name)
            else:
                for number in range(counts[edge.source]):
                    source = instance_name(edge.source, number)
                    directory = _below(edge.directory, source)
                    yield replace(edge, edge_id=next(numbers), source=source, destination=name, directory=directory)


def edge_count(node: str, templates: Iterable[Edge], counts: Mapping[str, int]) -> int:
    """How many :func:`instance_edges` makes."""
    return counts[node] * sum(1 if edge.source == node else counts.get(edge.source, 1) for edge in templates)


def mapped_instance(job: workflows_pb2.JobDefinition, index: int, values: Values) -> workflows_pb2.JobDefinition:
    """The definition of one instance: a plain job, whose conditions were decided for all of them together."""
    made = instance(job, index, values)
    for field in ("map", "when", "needs", "inputs"):
        made.ClearField(field)
    return made


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _lines(text: str) -> list[object]:
    """Only a line feed ends a line: others that Python knows may stand in the name of a file."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def _json(text: str) -> list[object]:
    def no_number(word: str) -> object:
        raise ListError(f"the list holds {word}, which is no number in JSON")

    try:
        # Numbers stay as they are written.
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise ListError(f"the list is no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ListError("the list is nested too deeply; items are texts, numbers, or objects of these") from error
    if not isinstance(found, list):
        raise ListError("the list is a JSON object; it must be an array: [ ... ]")
    return found


def _values(name: str, index: int, item: object) -> Values:
    if isinstance(item, dict):
        # A key of other characters cannot be asked for.
        asked = {key: value for key, value in item.items() if _KEY.fullmatch(key)}
        return {f"{name}.{key}": _text(value, f"item {index}, {key!r}") for key, value in asked.items()}
    return {name: _text(item, f"item {index}")}


def _text(value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        kind = {dict: "an object", list: "an array", type(None): "null"}.get(type(value), "something else")
        raise ListError(f"{where} is {kind}; texts, numbers, true and false are taken")
    if _SURROGATE.search(value):
        raise ListError(f"{where}: the value holds half a character (an unpaired surrogate)")
    flaw = value_flaw(value)
    if flaw is None and len(value.encode()) > MAX_EACH_BYTES:
        flaw = f"is longer than {MAX_EACH_BYTES} bytes"
    if flaw:
        raise ListError(f"{where}: the value {flaw}")
    return value


def _check_references(job: workflows_pb2.JobDefinition, items: Sequence[Values]) -> None:
    wanted = {
        name: format_path(field)
        for field, text in each_texts(job)
        if "${" in text
        for name in each_references(text)
        if name is not None and name != INDEX
    }
    for index, values in enumerate(items):
        for name, field in wanted.items():
            if name not in values:
                has = ", ".join(f"${{each.{key}}}" for key in list(values)[:5]) or "nothing"
                raise ListError(f"item {index} has no ${{each.{name}}}, which {field} asks for; it has {has}")
        if job.on.peer and not instance_peer(job, index, values):
            raise ListError(f"item {index} leaves the name of the peer empty")


def _check_lengths(job: workflows_pb2.JobDefinition, items: Sequence[Values]) -> None:
    """One short reference may stand for a long value many times."""
    texts = [
        (format_path(field), len(text.encode()), Counter(each_references(text)))
        for field, text in each_texts(job)
        if "${" in text
    ]
    for index, values in enumerate(items):
        lengths = {name: len(value.encode()) for name, value in values.items()}
        total = 0
        for field, length, names in texts:
            for name, times in names.items():
                if name in lengths:
                    length += times * (lengths[name] - len("${each.}" + name))
            total += length
            if length > MAX_VALUE_BYTES:
                raise ListError(f"item {index} makes {field} longer than {MAX_VALUE_BYTES} bytes")
        if total > MAX_JOB_BYTES:
            raise ListError(f"item {index} makes argv, env and params take more than {MAX_JOB_BYTES} bytes")


def instance_peer(job: workflows_pb2.JobDefinition, index: int, values: Values) -> str:
    """The peer that an instance names."""
    known = {**values, INDEX: str(index)}
    text = job.on.peer
    for name in list(each_references(text)):
        if name is not None:
            text = text.replace(f"${{each.{name}}}", known[name])
    return text
