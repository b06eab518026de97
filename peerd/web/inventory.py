"""Questions about scanned hosts over HTTP, with the paths, fields and error codes of the source document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from peerd.clock import Clock, to_datetime
from peerd.errors import PeerdError, Reason
from peerd.filters import And
from peerd.inventory.facts import HostFacts, Line
from peerd.inventory.fields import FIELDS, Comparison, Expression
from peerd.inventory.inventory import MAX_DEPTH, Inventory
from peerd.inventory.lists import Question
from peerd.web.bodies import read_object

GRAPH = "/v1/query/graph"
"""Posted, and changes nothing: a token that may read is enough."""
_MAX_SAID_DEPTH = 5
_LIMIT, _MOST, _FARTHEST = 100, 1000, 10_000
_MAX_TEXT = 255
_CODES = {400: "invalid_request", 404: "not_found", 413: "payload_too_large", 500: "internal_error"}
_STATUS = {
    Reason.INVALID_PAGE_TOKEN: 400,
    Reason.NOT_FOUND: 404,
    Reason.TOO_LARGE: 413,
    Reason.INVALID_ARGUMENT: 400,
    Reason.INVALID_EXPRESSION: 400,
}

_log = structlog.get_logger(__name__)

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class InventoryPaths:
    """One method for each path."""

    def __init__(self, inventory: Inventory, clock: Clock) -> None:
        self._inventory = inventory
        self._clock = clock

    async def get_host(self, request: Request) -> Response:
        """One host: depth 0 alone, 1 with ports, 2 (the default) with services. peerd knows no vulnerabilities."""
        unknown = set(request.query_params) - {"depth", "limit", "page_token"}
        if unknown:
            raise _invalid(f"there is no parameter {sorted(unknown)[0][:40]!r}; there are depth, limit, page_token")
        limit = request.query_params.get("limit", str(_MOST))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= _MOST):
            raise _invalid(f"limit must be between 1 and {_MOST}")
        said = request.query_params.get("depth", "2")
        if not (said.isascii() and said.isdigit() and len(said) < 3 and int(said) <= _MAX_SAID_DEPTH):
            raise _invalid(f"depth must be between 0 and {_MAX_SAID_DEPTH}")
        depth = min(int(said), MAX_DEPTH)
        token = request.query_params.get("page_token", "")
        found = await self._inventory.around(request.path_params["ip"], depth=depth, size=int(limit), token=token)
        answer = _host(found.host)
        if depth >= 1:
            answer["ports"] = [_port(line, details=depth >= 2) for line in found.ports]
            answer["next_page_token"] = found.token or None
        if depth >= MAX_DEPTH:
            answer["related"] = [{"ip": address, "through": through} for address, through in found.related]
        return JSONResponse(answer)

    async def query_graph(self, request: Request) -> Response:
        """Hosts by system, country or service."""
        begun = self._clock.monotonic()
        body = await read_object(request)
        where = _question(body)
        limit = _number(body, "limit", _LIMIT, 1, _MOST)
        offset = _number(body, "offset", 0, 0, _FARTHEST)
        hosts = await self._hosts(where, offset + limit + 1)
        more = len(hosts) > offset + limit
        return JSONResponse(
            {
                "results": [_host(host) for host in hosts[offset : offset + limit]],
                "pagination": {
                    "limit": limit,
                    "offset": offset,
                    "has_more": more,
                    "next_offset": offset + limit if more else None,
                },
                "query_time_ms": round((self._clock.monotonic() - begun) * 1000, 3),
            }
        )

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/query/host/{ip}", self._told(self.get_host)),
            Route(GRAPH, self._told(self.query_graph), methods=["POST"]),
        ]

    async def _hosts(self, where: Expression, count: int) -> list[HostFacts]:
        found: list[HostFacts] = []
        token = ""
        while len(found) < count:
            page = await self._inventory.lists.hosts(
                Question(where=where), size=min(count - len(found), _MOST), token=token
            )
            found += page.items
            token = page.token
            if not token:
                break
        return found

    def _told(self, handler: Handler) -> Handler:
        """Refusals in the words of the source document."""

        @wraps(handler)
        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except PeerdError as error:
                status = getattr(error, "status", None) or _STATUS.get(error.reason, 500)
                return self._refusal(status, error)
            except Exception:  # noqa: BLE001 - a fault of ours: what it was stands in the log alone
                _log.exception("http.crashed", path=request.url.path)
                return self._refusal(500, PeerdError(Reason.INTERNAL, "this request failed inside the daemon"))

        return handle

    def _refusal(self, status: int, error: PeerdError) -> Response:
        message = "host not found" if error.reason is Reason.NOT_FOUND else error.message
        return JSONResponse(
            {
                "error": _CODES.get(status, "invalid_request"),
                "message": message,
                "next_action": error.next_action,
                "timestamp": _moment(self._clock.now()),
            },
            status_code=status,
        )


def _question(body: Mapping[str, Any]) -> Expression:
    """``{query_type, ...}`` as a filter. Raises INVALID_ARGUMENT, which names the field."""
    known: dict[str, tuple[str, ...]] = {
        "by_asn": ("asn",),
        "by_location": ("country", "city", "region"),
        "by_service": ("product", "service"),
    }
    kind = body.get("query_type")
    if kind == "by_vuln":
        raise _invalid("query_type by_vuln is not offered: peerd looks no vulnerabilities up")
    if not isinstance(kind, str) or kind not in known:
        raise _invalid(f"query_type must be one of {', '.join(known)}")
    fields = known[kind]
    unknown = sorted(set(body) - {"query_type", "limit", "offset", *fields})
    if unknown:
        raise _invalid(f"there is no field {unknown[0][:40]!r} with {kind}; there are {', '.join(fields)}")
    given = {name: body[name] for name in fields if body.get(name) not in (None, "")}
    if not given:
        raise _invalid(f"{' or '.join(fields[:1] if kind == 'by_location' else fields)} is required with {kind}")
    if kind == "by_location" and set(given) != {"country"}:
        raise _invalid("only the country is known of a host: leave city and region out")
    parts = tuple(_comparison(name, value) for name, value in given.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _comparison(name: str, value: object) -> Comparison:
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > _MAX_TEXT:
        raise _invalid(f"{name} must be a text of at most {_MAX_TEXT} characters")
    try:
        return Comparison(name, "=", str(value), FIELDS[name].read(str(value), 0))
    except ValueError as error:
        raise _invalid(f"{name} must be {error}") from None


def _number(body: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _invalid(f"{name} must be a number between {least} and {most}")
    return value


def _host(host: HostFacts) -> dict[str, Any]:
    """What is not known is left out."""
    known = {
        "asn": host.asn,
        "as_name": host.as_name,
        "country": host.country,
    }
    return {
        "ip": host.address,
        "up": host.up,
        "hostnames": list(host.hostnames),
        "organizations": list(host.organizations),
        "open_ports": host.open_ports,
        "first_seen": _moment(host.first_seen),
        "last_seen": _moment(host.last_seen),
        **{name: value for name, value in known.items() if value is not None},
    }


def _port(line: Line, *, details: bool) -> dict[str, Any]:
    port = line.port
    assert port is not None  # noqa: S101 - of lines of ports only
    answer: dict[str, Any] = {
        "number": port.number,
        "protocol": port.transport.value,
        "state": port.state,
        "first_seen": _moment(port.first_seen),
        "last_seen": _moment(port.last_seen),
        "scanners": len(port.scanners),
    }
    service, certificate = port.service, port.certificate
    if details and service is not None:
        answer["services"] = [
            {"name": service.name, "product": service.product, "version": service.version, "cpe": list(service.cpes)}
        ]
    if details and certificate is not None:
        answer["tls_cert"] = {
            "sha256": certificate.sha256,
            "cn": certificate.common_name,
            "sans": list(certificate.names),
            "not_before": None if certificate.not_before is None else _moment(certificate.not_before),
            "not_after": None if certificate.not_after is None else _moment(certificate.not_after),
        }
    return answer


def _invalid(message: str) -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT, message, next_action="mend what the message names; see docs/inventory.md"
    )


def _moment(millis: int) -> str:
    return to_datetime(millis).isoformat(timespec="milliseconds").replace("+00:00", "Z")
