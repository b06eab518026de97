"""Parameters with types: what a definition may say of them, and a given text -> the normal form of its type.

``${params.NAME}`` gives the normal form, and a normal form is its own: what was stored with an execution can be given
again. Everything raises ValueError with a sentence fit to show, which says what was given and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType

from peerd.patterns import matches, pattern_flaw
from peerd.v1 import workflows_pb2
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.quantities import parse_duration, parse_memory

MAX_CHOICES = 1000
MAX_INTEGER = (1 << 63) - 1
_INTEGER = re.compile(r"[-+]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?", re.ASCII)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def _text(value: str) -> str:
    return value


def _integer(value: str) -> str:
    if not _INTEGER.fullmatch(value) or abs(int(value)) > MAX_INTEGER:
        raise ValueError("a whole number such as 3 or -20")
    return str(int(value))


def _number(value: str) -> str:
    number = float(value) if _NUMBER.fullmatch(value) else float("inf")
    if abs(number) == float("inf"):
        raise ValueError("a number such as 0.5 or 2e6")
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _boolean(value: str) -> str:
    if value.lower() in _TRUE:
        return "true"
    if value.lower() in _FALSE:
        return "false"
    raise ValueError("true or false (also yes, no, on, off, 1, 0)")


def _duration(value: str) -> str:
    try:
        millis = parse_duration(value)
    except ValueError as error:
        raise ValueError('a duration such as "90s", "10m" or "1h30m", up to 366 days') from error
    return f"{millis // 1000}" + (f".{millis % 1000:03}".rstrip("0") if millis % 1000 else "")


def _size(value: str) -> str:
    try:
        return str(parse_memory(value))
    except ValueError as error:
        raise ValueError('a size such as "512M" or "2G", at least 1 byte') from error


def _list(value: str) -> str:
    """A JSON list of texts, or texts between commas."""
    if value.lstrip().startswith("["):
        try:
            texts = json.loads(value)
        except (ValueError, RecursionError):
            texts = None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('texts between commas, or a JSON list of texts such as ["a", "b"]')
    else:
        texts = [text.strip() for text in value.split(",")] if value.strip() else []
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":"))


_NORMAL: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "text": _text,
        "integer": _integer,
        "number": _number,
        "boolean": _boolean,
        "choice": _text,
        "duration": _duration,
        "size": _size,
        "list": _list,
    }
)
TYPES = tuple(_NORMAL)
# What min and max are compared with, and how they are written themselves.
_MEASURES: Mapping[str, tuple[Callable[[str], Decimal | int], str]] = MappingProxyType(
    {
        "text": (len, "integer"),
        "integer": (int, "integer"),
        "number": (Decimal, "number"),
        "duration": (Decimal, "duration"),
        "size": (int, "size"),
        "list": (lambda normal: len(items(normal)), "integer"),
    }
)
_UNITS = {"text": " characters", "list": " texts"}


def type_of(parameter: workflows_pb2.ParameterDefinition) -> str:
    """Its type, named or not."""
    return parameter.type or "text"


def items(normal: str) -> list[str]:
    """The texts of a list in normal form."""
    found: list[str] = json.loads(normal)
    return found


def normalised(parameter: workflows_pb2.ParameterDefinition, given: str) -> str:
    """The normal form of what was given. Raises ValueError: a sentence with both what was given and what is allowed."""
    kind = type_of(parameter)
    try:
        normal = _NORMAL[kind](given)
    except ValueError as error:
        raise ValueError(f"{_shown(given)} is not {error}") from error
    if parameter.choices:
        for text in items(normal) if kind == "list" else [normal]:
            if text not in parameter.choices:
                near = difflib.get_close_matches(text[:255], parameter.choices, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{_shown(text)} is not one of {', '.join(parameter.choices)}{hint}")
    if parameter.pattern:
        for text in items(normal) if kind == "list" else [normal]:
            if not matches(parameter.pattern, text):
                raise ValueError(f"{_shown(text)} does not match {parameter.pattern}")
    if parameter.min or parameter.max:
        measure, form = _MEASURES[kind]
        least, most = (Decimal(_NORMAL[form](bound)) if bound else None for bound in (parameter.min, parameter.max))
        size = measure(normal)
        if (least is not None and size < least) or (most is not None and size > most):
            raise ValueError(f"{_shown(given)} is not {bounds(parameter)}")
    return normal


def bounds(parameter: workflows_pb2.ParameterDefinition) -> str:
    """The limits in words, such as "from 1 to 10" or "at least 1M"; empty without any."""
    unit = _UNITS.get(type_of(parameter), "")
    if parameter.min and parameter.max:
        return f"from {parameter.min} to {parameter.max}{unit}"
    if parameter.min:
        return f"at least {parameter.min}{unit}"
    return f"at most {parameter.max}{unit}" if parameter.max else ""


def parameter_problems(parameter: workflows_pb2.ParameterDefinition, path: FieldPath) -> Iterator[Problem]:
    """Everything wrong with one declaration."""
    found = list(_declaration_problems(parameter, path))
    yield from found
    if parameter.HasField("default") and not found:
        if parameter.required:
            message = "it must be given each time, so the default would never be used"
            hint = "remove 'default', or 'required'"
            yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, "default"), next_action=hint)
            return
        try:
            normalised(parameter, parameter.default)
        except ValueError as error:
            yield Problem(reason=ProblemReason.BAD_DEFAULT, message=str(error), path=(*path, "default"))


def _declaration_problems(parameter: workflows_pb2.ParameterDefinition, path: FieldPath) -> Iterator[Problem]:
    kind = type_of(parameter)
    if kind not in TYPES:
        near = difflib.get_close_matches(kind[:255], TYPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        message = f"{_shown(kind)} is not one of {', '.join(TYPES)}"
        yield Problem(reason=ProblemReason.BAD_CHOICE, message=message, path=(*path, "type"), next_action=hint)
        return
    if kind == "choice" and not parameter.choices:
        message = "a choice needs its choices"
        yield Problem(reason=ProblemReason.MISSING, message=message, path=(*path, "choices"))
    if len(parameter.choices) > MAX_CHOICES:
        message = f"{len(parameter.choices)} choices are more than {MAX_CHOICES}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "choices"))
    for field, written, kinds in (
        ("choices", parameter.choices, ("choice", "list")),
        ("pattern", parameter.pattern, ("text", "list")),
        ("min", parameter.min, tuple(_MEASURES)),
        ("max", parameter.max, tuple(_MEASURES)),
    ):
        if written and kind not in kinds:
            message = f"{field} means nothing for the type {kind}; it is for {', '.join(kinds)}"
            yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, field))
    if parameter.pattern and (flaw := pattern_flaw(parameter.pattern)):
        yield Problem(reason=ProblemReason.BAD_PARAMETER_PATTERN, message=flaw, path=(*path, "pattern"))
    if kind in _MEASURES:
        yield from _bound_problems(parameter, _MEASURES[kind][1], path)


def _bound_problems(parameter: workflows_pb2.ParameterDefinition, form: str, path: FieldPath) -> Iterator[Problem]:
    found: list[Decimal] = []
    for field, bound in (("min", parameter.min), ("max", parameter.max)):
        try:
            found += [Decimal(_NORMAL[form](bound))] if bound else []
        except ValueError as error:
            message = f"{_shown(bound)} is not {error}"
            yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, field))
    if len(found) == 2 and found[0] > found[1]:
        message = f"min {parameter.min} is more than max {parameter.max}: nothing would be allowed"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "min"))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
