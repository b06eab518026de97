"""What can be asked of the inventory: ``network=10.0.0.0/8 AND port<1024 AND product~nginx AND version<1.20``. Pure.

Each field has one meaning in two forms: a test of a :class:`Line`, and a condition in SQL over the tables ``h``
(hosts), ``p`` (ports), ``s`` (services) and ``c`` (certificates). Tests compare the two. What is not known
compares with nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from peerd.clock import DAY_MS, Millis
from peerd.errors import PeerdError
from peerd.filters import Expression as Tree
from peerd.filters import Token, fault, parse, quoted
from peerd.filters.sql import Sql, to_sql
from peerd.inventory.addresses import normalise_address
from peerd.inventory.details import HOSTNAME, MAC, ORGANIZATION, SYSTEM
from peerd.inventory.facts import Line
from peerd.inventory.keys import PORT_BITS, TRANSPORTS, key_of, network_range
from peerd.inventory.states import BY_WORD
from peerd.inventory.versions import version_key

_ORDER = ("=", "!=", "<", "<=", ">", ">=")
_EQUAL = ("=", "!=")
_TEXT = ("=", "!=", "~")
_AGO = re.compile(r"(\d{1,6})([smhdw])\Z", re.ASCII)
_AGO_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}

Value = Any
"""A number, a text, or the first and last key of a range: what the field's own ``read`` makes, and it alone uses."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that is asked."""

    name: str
    operator: str
    text: str
    value: Value

    def holds(self, line: Line, /) -> bool:
        """Whether the line has it."""
        return FIELDS[self.name].holds(self, line)

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{quoted(self.text)}"


Expression = Tree[Comparison]


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """How one name is compared."""

    operators: tuple[str, ...]
    read: Callable[[str, int], Value]
    """Raises ValueError with what is expected instead. The number is now, for times."""
    holds: Callable[[Comparison, Line], bool]
    sql: Callable[[Comparison], Sql]


def parse_filter(text: str, now: int) -> Expression:
    """Read a filter. Raises INVALID_EXPRESSION, which names the column."""
    try:
        return parse(text, _Fields(now))
    except PeerdError as error:
        raise PeerdError(
            error.reason,
            error.message,
            next_action="write it like 'network=10.0.0.0/8 AND port=443 AND product~nginx'; docs/inventory.md has all",
            violations=error.violations,
        ) from error


def filter_sql(expression: Expression) -> Sql:
    """The same as a condition."""
    return to_sql(expression, lambda comparison: FIELDS[comparison.name].sql(comparison))


def parse_moment(text: str, now: int) -> Millis:
    """``2026-11-21``, ``2026-11-21T10:00:00Z`` (UTC without a zone), or ``7d`` for so long ago. Raises ValueError."""
    if match := _AGO.match(text.strip().removeprefix("-")):
        return Millis(now - int(match[1]) * _AGO_MS[match[2]])
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("a time such as 2026-11-21, 2026-11-21T10:00:00Z, or 7d for seven days ago") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Millis(round(moment.timestamp() * 1000))


@dataclass(frozen=True, slots=True)
class _Fields:
    now: int

    def compared(self, name: Token, sign: Token, value: Token) -> Comparison:
        key = name.text.lower()
        field = FIELDS.get(key)
        if field is None:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FIELDS)}"
            raise fault(f"unknown name {name.text!r}; {hint}", name.column)
        if sign.text not in field.operators:
            raise fault(f"{key} takes {', '.join(field.operators)}, not {sign.text}", sign.column)
        try:
            return Comparison(key, sign.text, value.text, field.read(value.text, self.now))
        except ValueError as error:
            raise fault(f"{key} is compared with {error}, not with {value.text!r}", value.column) from None

    def alone(self, word: Token) -> Comparison:
        raise fault(f"{word.text!r} alone says nothing; write NAME=VALUE", word.column)


# -- Kinds of fields


def _ordered(operator: str, has: int | str | None, value: int | str) -> bool:
    if has is None:
        return False
    below, equal = has < value, has == value  # type: ignore[operator]  # both are of the kind of their field
    return {
        "=": equal,
        "!=": not equal,
        "<": below,
        "<=": below or equal,
        ">": not below and not equal,
        ">=": not below,
    }[operator]


def _ordered_field(read: Callable[[str, int], Value], has: Callable[[Line], int | str | None], column: str) -> Field:
    return Field(
        operators=_ORDER,
        read=read,
        holds=lambda asked, line: _ordered(asked.operator, has(line), asked.value),
        sql=lambda asked: Sql(f"{column} {asked.operator} ?", (asked.value,)),
    )


Test = Callable[[str], str]
"""From a column to a condition on it."""


def _texts(has: Callable[[Line], tuple[str, ...] | None], sql: Callable[[Test, tuple[object, ...]], Sql]) -> Field:
    """A set of texts; None when there is nothing that could have them."""

    def holds(asked: Comparison, line: Line) -> bool:
        texts, value = has(line), str(asked.value)
        if texts is None:
            return False
        if asked.operator == "~":
            return any(_lower(value) in _lower(text) for text in texts)
        pattern = _glob(value)
        return any(pattern.fullmatch(text) for text in texts) == (asked.operator == "=")

    def condition(asked: Comparison) -> Sql:
        value = str(asked.value)
        if asked.operator == "~":
            return sql(lambda column: f"instr(lower({column}), ?) > 0", (_lower(value),))
        if "*" in value or "?" in value:
            found = sql(lambda column: f"{column} GLOB ?", (value.replace("[", "[[]"),))
        else:
            found = sql(lambda column: f"{column} = ?", (value,))
        return found if asked.operator == "=" else Sql(f"NOT ({found.text})", found.params)

    return Field(operators=_TEXT, read=lambda text, _: text, holds=holds, sql=condition)


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    """``*`` is any text, ``?`` one character."""
    pieces = {"*": ".*", "?": "."}
    return re.compile("".join(pieces.get(character) or re.escape(character) for character in pattern), re.DOTALL)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _lower(text: str) -> str:
    """As SQLite does it: ASCII letters only."""
    return text.translate(_ASCII_LOWER)


def _column(name: str, present: str) -> Callable[[Test, tuple[object, ...]], Sql]:
    """A text in a column of a row that may be absent; nothing when it is."""
    return lambda test, params: Sql(f"iif({present} IS NULL, NULL, {test(name)})", params)


def _named(kind: int) -> Callable[[Test, tuple[object, ...]], Sql]:
    """A name of the host."""
    return lambda test, params: Sql(
        f"EXISTS (SELECT 1 FROM inventory_names n WHERE n.host_id = h.id AND n.kind = ? AND {test('n.value')})",
        (kind, *params),
    )


def _in_list(columns: str, present: str) -> Callable[[Test, tuple[object, ...]], Sql]:
    """A text in a JSON list."""
    return lambda test, params: Sql(
        f"iif({present} IS NULL, NULL, EXISTS (SELECT 1 FROM json_each({columns}) j WHERE {test('j.value')}))", params
    )


_SAID_BY = (
    "EXISTS (SELECT 1 FROM inventory_scans n JOIN inventory_viewpoints v ON v.id = n.viewpoint_id WHERE {test} AND "
    "iif(p.id IS NULL, n.id IN (SELECT scan_id FROM inventory_sightings WHERE host_id = h.id), "
    "n.id IN (SELECT scan_id FROM inventory_observations WHERE port_id = p.id)))"
)


def _said_by(test: Test, params: tuple[object, ...]) -> Sql:
    return Sql(_SAID_BY.format(test=test("v.scanner")), params)


def _choice(words: Mapping[str, int], has: Callable[[Line], str | None], column: str) -> Field:
    def read(text: str, _: int) -> Value:
        if text.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text.lower()

    return Field(
        operators=_EQUAL,
        read=read,
        holds=lambda asked, line: has(line) is not None and (has(line) == asked.value) == (asked.operator == "="),
        sql=lambda asked: Sql(f"{column} {asked.operator} ?", (words[str(asked.value)],)),
    )


def _range(read: Callable[[str, int], Value]) -> Field:
    def holds(asked: Comparison, line: Line) -> bool:
        low, high = asked.value
        return bool(low <= line.host.key <= high) == (asked.operator == "=")

    def sql(asked: Comparison) -> Sql:
        word = "" if asked.operator == "=" else "NOT "
        return Sql(f"h.key {word}BETWEEN ? AND ?", asked.value)

    return Field(operators=_EQUAL, read=read, holds=holds, sql=sql)


# -- Reading values


def _read_address(text: str, _: int) -> Value:
    address = normalise_address(text)
    if address is None:
        raise ValueError("an address")
    return key_of(address), key_of(address)


def _read_network(text: str, _: int) -> Value:
    try:
        return network_range(text)
    except ValueError:
        raise ValueError("a network such as 10.0.0.0/8 or 2001:db8::/32") from None


def _number(most: int) -> Callable[[str, int], Value]:
    def read(text: str, _: int) -> Value:
        digits = text.upper().removeprefix("AS") if most > 65535 else text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= most):
            raise ValueError(f"a number up to {most}")
        return int(digits)

    return read


def _read_version(text: str, _: int) -> Value:
    key = version_key(text)
    if not key:
        raise ValueError("a version such as 1.18.0")
    return key


# -- All of them


def _version(line: Line) -> str | None:
    return (line.port.service.version_key or None) if line.port is not None and line.port.service is not None else None


def _of_service(attribute: str) -> Callable[[Line], tuple[str, ...] | None]:
    return lambda line: (
        (getattr(line.port.service, attribute),) if line.port is not None and line.port.service is not None else None
    )


def _of_certificate(attribute: str) -> Callable[[Line], tuple[str, ...] | None]:
    return lambda line: (
        (getattr(line.port.certificate, attribute),)
        if line.port is not None and line.port.certificate is not None
        else None
    )


def _cpes(line: Line) -> tuple[str, ...] | None:
    return line.port.service.cpes if line.port is not None and line.port.service is not None else None


def _sans(line: Line) -> tuple[str, ...] | None:
    return line.port.certificate.names if line.port is not None and line.port.certificate is not None else None


def _expires(line: Line) -> int | None:
    return line.port.certificate.not_after if line.port is not None and line.port.certificate is not None else None


_last_seen = _ordered_field(
    parse_moment, lambda line: (line.port or line.host).last_seen, "ifnull(p.last_seen, h.last_seen)"
)

FIELDS: Mapping[str, Field] = {
    "address": _range(_read_address),
    "network": _range(_read_network),
    "port": _ordered_field(_number(65535), lambda line: line.port.number if line.port else None, "(p.id & 65535)"),
    "transport": _choice(
        {transport.value: code for code, transport in enumerate(TRANSPORTS, 1)},
        lambda line: line.port.transport.value if line.port else None,
        "(p.id >> 16 & 3)",
    ),
    "state": _choice(
        {word: int(state) for word, state in BY_WORD.items()},
        lambda line: line.port.state if line.port else None,
        "p.state",
    ),
    "service": _texts(_of_service("name"), _column("s.name", "s.id")),
    "product": _texts(_of_service("product"), _column("s.product", "s.id")),
    "version": _ordered_field(_read_version, _version, "nullif(s.version_key, '')"),
    "cpe": _texts(_cpes, _in_list("s.cpes", "s.id")),
    "hostname": _texts(lambda line: line.host.hostnames, _named(HOSTNAME)),
    "mac": _texts(lambda line: line.host.macs, _named(MAC)),
    "os": _texts(lambda line: line.host.systems, _named(SYSTEM)),
    "organization": _texts(lambda line: line.host.organizations, _named(ORGANIZATION)),
    "cn": _texts(_of_certificate("common_name"), _column("c.common_name", "c.id")),
    "san": _texts(_sans, _in_list("c.names", "c.id")),
    "sha256": _texts(_of_certificate("sha256"), _column("c.sha256", "c.id")),
    "issuer": _texts(_of_certificate("issuer"), _column("c.issuer", "c.id")),
    "expires": _ordered_field(parse_moment, _expires, "c.not_after"),
    "asn": _ordered_field(_number(2**32 - 1), lambda line: line.host.asn, "h.asn"),
    "country": _texts(
        lambda line: (line.host.country,) if line.host.country else None, _column("h.country", "h.country")
    ),
    "scanner": _texts(lambda line: line.scanners, _said_by),
    "seen": _last_seen,
    "last_seen": _last_seen,
    "first_seen": _ordered_field(
        parse_moment, lambda line: (line.port or line.host).first_seen, "ifnull(p.first_seen, h.first_seen)"
    ),
}
"""By name."""

LINES = (
    "FROM inventory_hosts h {join} inventory_ports p "
    f"ON p.id >= h.id << {PORT_BITS} AND p.id < (h.id + 1) << {PORT_BITS} "
    "LEFT JOIN inventory_services s ON s.id = p.service_id "
    "LEFT JOIN inventory_certificates c ON c.id = p.certificate_id"
)
"""What the conditions are about. ``join``: JOIN for ports, LEFT JOIN for hosts as well that have none."""
