"""Protocol files: TOML text to a :class:`Protocol`, or a refusal that names file, key and reason.

Everything is checked when it is read, so that nothing wrong is met in the middle of a scan: keys that are not known,
patterns, ports, weights, references to probes, and that every probe is used.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from peerd.nodes.messages import Severity
from peerd.nodes.protocols.model import (
    HealthCheck,
    Probe,
    Protocol,
    Query,
    QueryKind,
    SensitiveCall,
    Signature,
    VersionSource,
)
from peerd.nodes.protocols.table import EXPECTATION_KEYS, Table, refusal
from peerd.nodes.protocols.values import TYPE_NAMES, Expectation
from peerd.patterns import pattern_flaw

MAX_FILE_BYTES = 64 * 1024
MAX_PROBES = 32

_PATH = re.compile(r"/[!-~]{0,255}")
_METHOD = re.compile(r"[A-Za-z0-9_.]{1,100}")


def read_protocol(text: str, source: str) -> Protocol:
    """The protocol of a file. Raises PeerdError(INVALID_CONFIG) with the source, the key and the reason."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise refusal(source, "", f"larger than {MAX_FILE_BYTES} bytes")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise refusal(source, "", f"not TOML: {error}") from error
    top = Table(source, "", document)
    probes = {probe.name: probe for probe in map(_probe, top.tables("probes"))}
    if len(probes) != len(document.get("probes", [])):
        raise top.wrong("probes", "two have the same name")
    if not 1 <= len(probes) <= MAX_PROBES:
        raise top.wrong("probes", f"there must be 1 to {MAX_PROBES}")
    protocol = Protocol(
        name=top.name("name"),
        display_name=top.text("display_name"),
        category=top.text("category", ""),
        description=top.text("description", ""),
        ports=top.ports("ports"),
        allowed_ports=top.ports("allowed_ports", ()),
        fallback=top.flag("fallback"),
        probes=probes,
        signatures=tuple(_signature(table, probes) for table in top.tables("signatures")),
        versions=tuple(_version(table, probes) for table in top.tables("versions")),
        metrics_words=top.words("metrics_words"),
        health=tuple(_health(table, probes) for table in top.tables("health")),
        sensitive=tuple(_sensitive(table, probes) for table in top.tables("sensitive")),
        source=source,
    )
    top.done()
    _check_whole(top, protocol)
    return protocol


def _check_whole(top: Table, protocol: Protocol) -> None:
    if not protocol.signatures:
        raise top.wrong("signatures", "there must be at least one")
    for key, names in (
        ("signatures", [item.name for item in protocol.signatures]),
        ("health", [item.name for item in protocol.health]),
        ("sensitive", [item.name for item in protocol.sensitive]),
    ):
        if len(set(names)) != len(names):
            raise top.wrong(key, "two have the same name")
    used = {probe.name for probe in (*protocol.discovery_probes, *protocol.health_probes, *protocol.sensitive_probes)}
    for name in protocol.probes:
        if name not in used:
            raise top.wrong("probes", f"nothing uses {name!r}")
    if protocol.metrics_words and not any(probe.query.kind is QueryKind.METRICS for probe in protocol.probes.values()):
        raise top.wrong("metrics_words", "there is no probe of kind metrics")


def _probe(table: Table) -> Probe:
    kind = QueryKind(table.one_of("kind", [kind.value for kind in QueryKind]))
    query = Query(kind=kind)
    match kind:
        case QueryKind.JSON_RPC:
            query = Query(
                kind=kind,
                path=table.matching("path", _PATH, "a path from / on", "/"),
                method=table.matching("method", _METHOD, "the name of a method"),
                params=json.dumps(table.params("params"), separators=(",", ":")),
            )
        case QueryKind.HTTP | QueryKind.METRICS:
            default = "/metrics" if kind is QueryKind.METRICS else None
            query = Query(kind=kind, path=table.matching("path", _PATH, "a path from / on", default))
        case QueryKind.BANNER:
            query = Query(kind=kind, path="")
    probe = Probe(name=table.name("name"), query=query, ports=table.ports("ports"))
    table.done()
    return probe


def _signature(table: Table, probes: Mapping[str, Probe]) -> Signature:
    probe, expect = _expected(table, probes)
    item = Signature(name=table.name("name"), probe=probe.name, expect=expect, weight=table.weight("weight"))
    table.done()
    return item


def _version(table: Table, probes: Mapping[str, Probe]) -> VersionSource:
    probe, expect = _expected(table, probes)
    item = VersionSource(probe=probe.name, expect=expect, prefix=table.text("prefix", ""))
    table.done()
    return item


def _health(table: Table, probes: Mapping[str, Probe]) -> HealthCheck:
    probe, expect = _expected(table, probes)
    item = HealthCheck(
        name=table.name("name"),
        probe=probe.name,
        expect=expect,
        severity=Severity(table.one_of("severity", [one.value for one in Severity])),
        failed=table.text("failed"),
    )
    table.done()
    return item


def _sensitive(table: Table, probes: Mapping[str, Probe]) -> SensitiveCall:
    probe, expect = _expected(table, probes)
    item = SensitiveCall(
        name=table.name("name"),
        probe=probe.name,
        expect=expect,
        severity=Severity(table.one_of("severity", [one.value for one in Severity])),
        title=table.text("title"),
    )
    table.done()
    return item


def _expected(table: Table, probes: Mapping[str, Probe]) -> tuple[Probe, Expectation]:
    """The probe and the expectation of a table: both, because which selectors there are depends on the kind."""
    probe = probes[table.one_of("probe", list(probes))]
    kind = probe.query.kind
    given = {key: table.take(key) for key in EXPECTATION_KEYS if key in table.values}
    allowed = {
        QueryKind.JSON_RPC: ("field",),
        QueryKind.HTTP: ("field", "header"),
        QueryKind.METRICS: ("metric", "label"),
        QueryKind.BANNER: (),
    }[kind]
    for key in ("field", "header", "metric", "label"):
        if key in given and key not in allowed:
            raise table.wrong(key, f"a probe of kind {kind.value} has none")
    if "field" in given and "header" in given:
        raise table.wrong("header", "a value has a field or a header, not both")
    if kind is QueryKind.METRICS and not given.get("metric"):
        raise table.wrong("metric", "missing: which metric of the page")
    numeric_metric = kind is QueryKind.METRICS and not given.get("label")
    given.setdefault("type", "number" if numeric_metric else "string")
    _check_types(table, given)
    expect = Expectation(**given)
    if numeric_metric and expect.type != "number":
        raise table.wrong("type", "the value of a metric is a number; name a label to take its text")
    if expect.header:
        expect = Expectation(**{**given, "header": expect.header.lower()})
    if expect.type == "string" and not expect.pattern and expect.equals is None:
        raise table.wrong("pattern", "missing: any text at all says nothing")
    return probe, expect


def _check_types(table: Table, given: Mapping[str, Any]) -> None:
    for key in ("field", "header", "metric", "label", "type", "pattern"):
        if not isinstance(given.get(key, ""), str):
            raise table.wrong(key, "must be a text")
    if given["type"] not in TYPE_NAMES:
        raise table.wrong("type", f"must be one of {', '.join(TYPE_NAMES)}")
    for key in ("pattern", "metric"):
        flaw = pattern_flaw(given[key]) if given.get(key) else None
        if flaw is not None:
            raise table.wrong(key, flaw)
    for key in ("minimum", "maximum"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int | float)):
            raise table.wrong(key, "must be a number")
    for key in ("min_length", "max_length"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int) or given[key] < 0):
            raise table.wrong(key, "must be a whole number from 0 on")
    if "equals" in given and not isinstance(given["equals"], str | int | float | bool):
        raise table.wrong("equals", "must be a text, a number or true or false")
