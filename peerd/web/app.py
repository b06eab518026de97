"""The paths. What they answer is in :mod:`peerd.web.nodes`; who may ask in :mod:`peerd.web.gate`."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from peerd import metrics
from peerd.clock import to_datetime
from peerd.errors import PeerdError, Reason
from peerd.rpc.rates import Rates
from peerd.web import miners, nodes
from peerd.web.bodies import read_heartbeat, read_object, read_registration
from peerd.web.errors import on_failure, on_http_error, on_refusal
from peerd.web.gate import CALLER, STRANGER, Gate
from peerd.web.inventory import InventoryPaths
from peerd.web.scans import ScanPaths
from peerd.web.surroundings import Check, Surroundings

SERVICE = "peerd"


class Paths:
    """One method for each path."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def index(self, request: Request) -> Response:
        """What this is, and what can be asked."""
        return JSONResponse(
            {
                "service": SERVICE,
                "version": self._around.version,
                "peer_id": self._around.self_id,
                "paths": sorted({route.path for route in self.routes()}),
            }
        )

    async def livez(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether it can do its work, and what is in the way."""
        checks = await self._around.checks()
        failing = [check.name for check in checks if check.required and not check.ok]
        return JSONResponse(
            {
                "status": "failing" if failing else "ok",
                "failing": failing,
                "checks": [{"name": check.name, "ok": check.ok, **_message(request, check)} for check in checks],
            },
            status_code=503 if failing else 200,
        )

    async def health(self, request: Request) -> Response:
        """The source document's health."""
        database = dict(await self._around.database())
        return JSONResponse(
            {
                "status": "healthy" if database.get("connected") else "unhealthy",
                "service": SERVICE,
                "version": self._around.version,
                "database": database,
                "uptime_seconds": (self._around.clock.now() - self._around.started_at) / 1000,
            },
            status_code=200 if database.get("connected") else 503,
        )

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        self._around.collect()
        return Response(generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def list_nodes(self, request: Request) -> Response:
        """Peers, by role, label and status."""
        return JSONResponse(self._list(request, "role", "label", "status"))

    async def route_nodes(self, request: Request) -> Response:
        """As the router of the source document asks."""
        return JSONResponse(self._list(request, "role"))

    async def get_node(self, request: Request) -> Response:
        """One peer."""
        node_id = request.path_params["node_id"]
        found = nodes.find_node(self._around.peers, self._around.externals, node_id)
        if found is None:
            raise PeerdError(Reason.NOT_FOUND, f"Node not found: {node_id[:80]}")
        return JSONResponse(found)

    async def get_profile(self, request: Request) -> Response:
        """A role's profile."""
        role = request.path_params["role"]
        found = self._around.profile(role)
        if found is None:
            raise PeerdError(Reason.NOT_FOUND, f"Profile not found: {role[:80]}")
        return JSONResponse(nodes.profile_of(found))

    async def herd_data(self, request: Request) -> Response:
        """All miners and their sums, in the words of the source document."""
        return JSONResponse(miners.herd_data(await self._around.devices()))

    async def device_state(self, request: Request) -> Response:
        """Every device, with a name or without."""
        return JSONResponse(miners.device_state(await self._around.devices(), self._around.clock.now()))

    async def register(self, request: Request) -> Response:
        """A machine without peerd comes, or comes again."""
        asked = read_registration(await read_object(request))
        done = await self._around.externals.register(asked, caller=request.scope[CALLER])
        if done.created:
            metrics.registrations.labels("external").inc()
        found = nodes.find_node(self._around.peers, self._around.externals, done.node_id) or {}
        return JSONResponse(
            {**found, "success": True, "created": done.created}, status_code=201 if done.created else 200
        )

    async def heartbeat(self, request: Request) -> Response:
        """A machine without peerd is there."""
        node_id, status, measured = read_heartbeat(await read_object(request))
        at = await self._around.externals.beat(node_id, status=status, metrics=measured)
        moment = to_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return JSONResponse({"success": True, "node_id": node_id, "timestamp": moment, "message": "heartbeat received"})

    def _list(self, request: Request, *parameters: str) -> dict[str, Any]:
        return nodes.list_nodes(self._around.peers, self._around.externals, **_query(request, *parameters))

    def routes(self) -> list[Route]:
        """All paths."""
        return [
            Route("/", self.index),
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/nodes", self.route_nodes),
            Route("/api/v1/nodes", self.list_nodes),
            Route("/api/v1/nodes/register", self.register, methods=["POST"]),
            Route("/api/v1/nodes/heartbeat", self.heartbeat, methods=["POST"]),
            Route("/api/v1/nodes/{node_id}", self.get_node),
            Route("/api/herd_data", self.herd_data),
            Route("/api/device_state", self.device_state),
            Route("/api/v1/profiles/{role}", self.get_profile),
            *InventoryPaths(self._around.inventory, self._around.clock).routes(),
            *ScanPaths(self._around.scans, self._around.clock).routes(),
        ]


def application(around: Surroundings, *, rates: Rates, loopback: bool) -> Starlette:
    """The paths behind their gate. ``loopback``: only this machine reaches them."""
    return Starlette(
        routes=Paths(around).routes(),
        middleware=[Middleware(Gate, tokens=around.tokens, clock=around.clock, rates=rates, loopback=loopback)],
        exception_handlers={HTTPException: on_http_error, PeerdError: on_refusal, Exception: on_failure},
    )


def _message(request: Request, check: Check) -> dict[str, str]:
    """What a check says; strangers hear only whether it is passed."""
    return {} if request.scope.get(STRANGER) else {"message": check.message}


def _query(request: Request, *known: str) -> dict[str, str]:
    """The parameters of a query. Raises INVALID_ARGUMENT for unknown, repeated or unprintable ones."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise PeerdError(
                Reason.INVALID_ARGUMENT, f"there is no parameter {name[:40]!r}; there are {', '.join(known)}"
            )
        if name in found or len(value) > 200 or not value.isprintable():
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{name} must be given once, in at most 200 printable characters")
        found[name] = value
    return found
