"""Request bodies: JSON objects of known fields and types, read no further than they may be long."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from peerd.errors import PeerdError, Reason, Violation
from peerd.v1.registry_pb2 import ExternalPeer
from peerd.web.errors import HttpRefusalError

MAX_BODY_BYTES = 64 * 1024
_BODY_SECONDS = 10.0
_MAX_TEXT = 255
_MAX_METRICS = 64
_STATUSES = ("online", "offline", "maintenance", "degraded")


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises TOO_LARGE or INVALID_ARGUMENT, the latter for one that is too slow, too."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HttpRefusalError(415, "the body must be JSON", next_action="send Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise PeerdError(Reason.TOO_LARGE, f"the body is longer than {MAX_BODY_BYTES} bytes")
    except TimeoutError as error:
        message = f"the body did not come within {_BODY_SECONDS:g} s"
        raise HttpRefusalError(408, message, next_action="send it faster") from error
    try:
        content = json.loads(bytes(body), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise PeerdError(Reason.INVALID_ARGUMENT, "the body must be a JSON object")
    return content


def read_registration(content: Mapping[str, Any]) -> ExternalPeer:
    """``{hostname, ip, role, labels, node_id?, metadata?}``. Raises INVALID_ARGUMENT with every field that is wrong."""
    fields = _Fields(content, known={"hostname", "ip", "role", "labels", "node_id", "metadata"})
    labels = fields.texts("labels")
    external = ExternalPeer(
        hostname=fields.text("hostname"),
        ip=fields.text("ip"),
        role=fields.text("role"),
        node_id=fields.text("node_id", required=False),
        labels=sorted(set(labels)),
    )
    metadata = fields.mapping("metadata")
    if metadata:
        external.metadata = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    fields.raise_if_wrong()
    return external


def read_heartbeat(content: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    """``{node_id, status?, metrics?}``: the three. Raises INVALID_ARGUMENT with every field that is wrong."""
    fields = _Fields(content, known={"node_id", "status", "metrics"})
    node_id = fields.text("node_id")
    status = fields.text("status", required=False) or "online"
    if status not in _STATUSES:
        fields.wrong("status", f"must be one of {', '.join(_STATUSES)}")
    metrics: dict[str, float] = {}
    given = fields.mapping("metrics")
    if len(given) > _MAX_METRICS:
        fields.wrong("metrics", f"has {len(given)} entries; at most {_MAX_METRICS} are allowed")
    for name, value in list(given.items())[:_MAX_METRICS]:
        if name == "timestamp":
            continue  # the gateway's own clock counts
        number = _finite(value)
        if len(name) > 64 or not name.isprintable():
            fields.wrong("metrics", "has a name that is too long or holds control characters")
        elif number is None:
            fields.wrong(f"metrics.{name}", "must be a finite number")
        else:
            metrics[name] = number
    fields.raise_if_wrong()
    return node_id, status, metrics


class _Fields:
    def __init__(self, content: Mapping[str, Any], *, known: set[str]) -> None:
        self._content = content
        self._wrong: list[Violation] = []
        for name in sorted(content.keys() - known):
            shown = name[:80] if name.isprintable() else ascii(name[:80])
            self.wrong(shown, f"is unknown; there are {', '.join(sorted(known))}")

    def wrong(self, field: str, message: str) -> None:
        self._wrong.append(Violation(field=field, message=message))

    def text(self, name: str, *, required: bool = True) -> str:
        value = self._content.get(name)
        if value is None:
            if required:
                self.wrong(name, "is required")
            return ""
        return self._checked(name, value)

    def texts(self, name: str) -> list[str]:
        value = self._content.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(name, "must be a list of texts")
            return []
        return [self._checked(f"{name}[{index}]", entry) for index, entry in enumerate(value)]

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._content.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(name, "must be an object")
            return {}
        return value

    def raise_if_wrong(self) -> None:
        if self._wrong:
            said = "; ".join(f"{entry.field} {entry.message}" for entry in self._wrong[:5])
            raise PeerdError(Reason.INVALID_ARGUMENT, said, violations=self._wrong[:50])

    def _checked(self, field: str, value: object) -> str:
        if not isinstance(value, str):
            self.wrong(field, f"must be a text, not {type(value).__name__}")
            return ""
        if len(value) > _MAX_TEXT or not value.isprintable():
            self.wrong(field, f"must have at most {_MAX_TEXT} characters and no control ones")
            return ""
        return value


def _finite(value: object) -> float | None:
    """As a number, if it is one that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
