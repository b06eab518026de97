"""What an exchange says: whether it is an answer of the asked form, and the values in it. Pure.

A JSON-RPC answer counts only with version 2.0, the id that was sent, in the same type, and a result; HTTP only with
status 200. A page in HTML is no value. Whoever answers 401, 403 or 429 is there, and said nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol as Shape

from peerd.nodes.probing.http_client import Exchange, Transfer
from peerd.nodes.probing.metrics_page import Metrics, finite, read_metrics
from peerd.nodes.protocols import Query, QueryKind
from peerd.nodes.protocols.values import Expectation, Json, field_of
from peerd.patterns import matches

_MAX_TEXT = 4096
_ABSENT = object()


class Verdict(StrEnum):
    """What an exchange is worth."""

    ANSWERED = "answered"  # of the asked form: its values count
    OTHER = "other"  # something else: an error, HTML, another id
    UNAUTHORISED = "unauthorised"  # 401, 403, 407
    LIMITED = "limited"  # 429
    REDIRECTED = "redirected"  # never followed
    TOO_LARGE = "too large"
    SILENT = "silent"  # no whole reply: timed out, reset, closed
    ABSENT = "absent"  # nothing listens there


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one query to one port brought."""

    query: Query
    address: str
    port: int
    tls: bool = False
    verdict: Verdict
    status: int = 0
    detail: str = ""
    """One sentence for people."""
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Json | object = _ABSENT
    """The result of a JSON-RPC call, or the body of an HTTP reply, a text if it is not JSON."""
    metrics: Metrics = field(default_factory=dict)
    banner: str | None = None
    timed_out: bool = False

    @property
    def reachable(self) -> bool:
        """Whether something is there."""
        return self.verdict is not Verdict.ABSENT

    def values(self, expect: Expectation) -> list[Json]:
        """The values that an expectation is about; none if the answer has none."""
        if expect.header:
            return [self.headers[expect.header]] if expect.header in self.headers else []
        if self.verdict is not Verdict.ANSWERED:
            return []
        if expect.metric:
            return [
                (sample.labels.get(expect.label) if expect.label else sample.value)
                for name, samples in self.metrics.items()
                if matches(expect.metric, name)
                for sample in samples
                if (expect.label in sample.labels if expect.label else finite(sample.value))
            ]
        if self.banner is not None:
            return [self.banner]
        if self.json is _ABSENT:
            return []
        there, value = field_of(self.json, expect.field)  # type: ignore[arg-type]  # _ABSENT is no Json
        return [value] if there else []


class _Build(Shape):
    def __call__(self, verdict: Verdict, detail: str = "", **more: object) -> Answer: ...


def judge(query: Query, exchange: Exchange, *, address: str, port: int, rpc_id: int = 0) -> Answer:
    """The answer that an exchange over HTTP is."""

    def answer(verdict: Verdict, detail: str = "", **more: object) -> Answer:
        return Answer(
            query=query,
            address=address,
            port=port,
            tls=exchange.tls is not None,
            verdict=verdict,
            status=exchange.status,
            detail=detail,
            headers={name: value[:_MAX_TEXT] for name, value in reversed(exchange.headers)},
            **more,  # type: ignore[arg-type]  # json and metrics
        )

    match exchange.transfer:
        case Transfer.REFUSED | Transfer.UNREACHABLE:
            return answer(Verdict.ABSENT, exchange.transfer.value)
        case Transfer.CUT:
            if query.kind is QueryKind.METRICS and exchange.status == 200:
                return _metrics(answer, exchange, whole=False)
            return answer(Verdict.TOO_LARGE, "a body that is too large")
        case Transfer.REPLIED:
            pass
        case _:
            timed_out = exchange.transfer is Transfer.TIMED_OUT
            return answer(Verdict.SILENT, f"{exchange.transfer.value} {exchange.detail}".strip(), timed_out=timed_out)
    match exchange.status:
        case 401 | 403 | 407:
            return answer(Verdict.UNAUTHORISED, f"HTTP {exchange.status}: it wants credentials")
        case 429:
            return answer(Verdict.LIMITED, "HTTP 429: it limits how often it is asked")
        case status if 300 <= status < 400:
            to = exchange.header("location")[:200]
            clean = "".join(letter if letter.isprintable() else "?" for letter in to)
            return answer(Verdict.REDIRECTED, f"HTTP {status}: it redirects to {clean or 'nowhere'}, not followed")
        case status if status != 200:
            return answer(Verdict.OTHER, f"HTTP {status}")
    if query.kind is QueryKind.METRICS:
        return _metrics(answer, exchange, whole=True)
    text = exchange.body.decode("utf-8", errors="replace")
    value = _json(text)
    if query.kind is QueryKind.JSON_RPC:
        flaw = _rpc_flaw(value, rpc_id)
        if flaw is not None or not isinstance(value, dict):
            return answer(Verdict.OTHER, flaw or "not JSON-RPC")
        return answer(Verdict.ANSWERED, json=value["result"])
    if value is _ABSENT:
        if _is_html(exchange, text):
            return answer(Verdict.OTHER, "a page in HTML")
        value = text.strip()[:_MAX_TEXT]
    return answer(Verdict.ANSWERED, json=value)


def _metrics(answer: _Build, exchange: Exchange, *, whole: bool) -> Answer:
    text = exchange.body.decode("utf-8", errors="replace")
    if _is_html(exchange, text):
        return answer(Verdict.OTHER, "a page in HTML")
    metrics = read_metrics(text, whole=whole)
    return answer(Verdict.ANSWERED, metrics=metrics) if metrics else answer(Verdict.OTHER, "no page of metrics")


def _rpc_flaw(value: Json | object, rpc_id: int) -> str | None:
    """Why a body is no answer with a result to the call of that id; None if it is."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return "not JSON-RPC 2.0"
    echoed = value.get("id")
    if isinstance(echoed, bool) or not isinstance(echoed, int) or echoed != rpc_id:
        return "a JSON-RPC answer with an id that was not sent"
    error = value.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        return f"JSON-RPC error {code}" if isinstance(code, int) else "JSON-RPC error"
    return None if "result" in value else "a JSON-RPC answer without a result"


def _json(text: str) -> Json | object:
    def no_constant(name: str) -> Json:
        raise ValueError(name)

    try:
        value: Json = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return _ABSENT
    return value


def _is_html(exchange: Exchange, text: str) -> bool:
    return "html" in exchange.header("content-type").lower() or text.lstrip()[:1] == "<"
