"""Scans over HTTP, with the paths, fields and error codes of the source document."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeAlias

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from peerd import metrics
from peerd.clock import Clock, to_datetime
from peerd.errors import PeerdError, Reason
from peerd.scans.model import IngestJob, IngestState
from peerd.scans.plain import PlainScans
from peerd.scans.scanners import key_base64
from peerd.web.errors import HttpRefusalError
from peerd.web.scan_bodies import InvalidJsonError, parse_submission, read_body

INGEST = "/v1/mesh/ingest"
"""Open without a token: the signature of a registered scanner is what admits."""
_IN_A_THREAD = 64 * 1024
_MOST_JOBS = 500
_LARGEST = 10**12

_ERRORS: dict[Reason, tuple[int, str]] = {
    Reason.INVALID_ARGUMENT: (400, "invalid_request"),
    Reason.SCAN_DATA_MISMATCH: (400, "invalid_request"),
    Reason.TOO_LARGE: (413, "payload_too_large"),
    Reason.NOT_FOUND: (404, "not_found"),
    Reason.RATE_LIMITED: (429, "rate_limit_exceeded"),
    Reason.OVERLOADED: (503, "overloaded"),
    Reason.DISK_LOW: (503, "disk_low"),
    Reason.SHUTTING_DOWN: (503, "shutting_down"),
    **dict.fromkeys(
        (
            Reason.INVALID_SIGNATURE,
            Reason.INVALID_PEER_ID,
            Reason.UNKNOWN_SCANNER,
            Reason.SCANNER_REVOKED,
            Reason.REVOKED,
            Reason.CLOCK_SKEW,
            Reason.STATEMENT_EXPIRED,
        ),
        (401, "invalid_signature"),
    ),
}
"""What is not here is a fault of ours: 500."""

_log = structlog.get_logger(__name__)

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class ScanPaths:
    """One method for each path."""

    def __init__(self, scans: PlainScans, clock: Clock) -> None:
        self._scans = scans
        self._clock = clock

    async def ingest(self, request: Request) -> Response:
        """Take a scan in: 202, and the id of its job."""
        address = request.client.host if request.client else ""
        self._scans.admit(address)
        body = await read_body(request, self._scans.max_bytes)
        envelope = (
            parse_submission(body) if len(body) < _IN_A_THREAD else await asyncio.to_thread(parse_submission, body)
        )
        accepted = await self._scans.submit(envelope, address)
        message = "this scan was handed in before" if accepted.repeated else "the scan waits to be processed"
        return JSONResponse(
            {
                "job_id": accepted.job.job_uuid,
                "status": "accepted",
                "message": message,
                "timestamp": _moment(self._clock.now()),
            },
            status_code=202,
        )

    async def get_job(self, request: Request) -> Response:
        """One job by its UUID."""
        return JSONResponse(_job(await self._scans.job(request.path_params["job_id"])))

    async def list_jobs(self, request: Request) -> Response:
        """Jobs, newest first unless asked otherwise."""
        asked = _Query(request)
        limit, offset = asked.number("limit", 50, 1, _MOST_JOBS), asked.number("offset", 0, 0, _LARGEST)
        order = asked.word("order_by", "created_at", ("created_at", "updated_at"))
        newest = asked.word("order_desc", "true", ("true", "false")) == "true"
        state = asked.word("state", "", ("", *(state.value for state in IngestState)))
        scanner = asked.text("scanner_key").replace(" ", "+")  # base64 that nobody encoded for a query
        asked.check_all_known()
        jobs, total = await self._scans.jobs(
            offset=offset,
            limit=limit,
            state=IngestState(state) if state else None,
            scanner=scanner,
            by_update=order == "updated_at",
            newest=newest,
        )
        more = offset + len(jobs) < total
        return JSONResponse(
            {
                "jobs": [_job(job) for job in jobs],
                "total": total,
                "limit": limit,
                "offset": offset,
                "has_more": more,
                "next_offset": offset + len(jobs) if more else None,
            }
        )

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(INGEST, self._told(self.ingest), methods=["POST"], name="ingest"),
            Route("/v1/jobs", self._told(self.list_jobs)),
            Route("/v1/jobs/{job_id}", self._told(self.get_job)),
        ]

    def _told(self, handler: Handler) -> Handler:
        """Refusals in the words of the source document."""

        @wraps(handler)
        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except PeerdError as error:
                return self._refusal(request, error)
            except Exception:  # noqa: BLE001 - a fault of ours: what it was stands in the log alone
                _log.exception("http.crashed", path=request.url.path)
                return self._refusal(request, PeerdError(Reason.INTERNAL, "this request failed inside the daemon"))

        return handle

    def _refusal(self, request: Request, error: PeerdError) -> Response:
        status, code = _ERRORS.get(error.reason, (500, "internal_error"))
        if isinstance(error, InvalidJsonError):
            status, code = 400, "invalid_json"
        elif isinstance(error, HttpRefusalError):
            status, code = error.status, "invalid_request"
        if request.method == "POST":
            metrics.scan_submissions.labels(code).inc()
        headers = {}
        if error.retry_after_seconds is not None:
            headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        if error.reason is Reason.RATE_LIMITED:
            headers |= {"X-RateLimit-Limit": f"{self._scans.per_minute:g}", "X-RateLimit-Window": "60"}
        content = {
            "error": code,
            "message": ascii(error.message)[1:-1] if not error.message.isprintable() else error.message,
            "timestamp": _moment(self._clock.now()),
            "reason": error.reason.text,
            "next_action": error.next_action,
        }
        return JSONResponse(content, status_code=status, headers=headers)


class _Query:
    """The parameters of a request, each once."""

    def __init__(self, request: Request) -> None:
        self._given: dict[str, str] = {}
        self._known: list[str] = []
        for name, value in request.query_params.multi_items():
            if name in self._given or len(value) > 200 or not value.isprintable():
                raise _bad(f"{name[:40]!a} must be given once, in at most 200 printable characters")
            self._given[name] = value

    def text(self, name: str, default: str = "") -> str:
        self._known.append(name)
        return self._given.get(name, default)

    def word(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        found = self.text(name, default)
        if found not in choices:
            raise _bad(f"{name} must be one of {', '.join(word for word in choices if word)}")
        return found

    def number(self, name: str, default: int, least: int, most: int) -> int:
        found = self.text(name, str(default))
        if not (found.isascii() and found.isdigit() and len(found) < 14 and least <= int(found) <= most):
            raise _bad(f"{name} must be a whole number from {least} to {most}")
        return int(found)

    def check_all_known(self) -> None:
        for name in self._given:
            if name not in self._known:
                raise _bad(f"there is no parameter {name[:40]!a}; there are {', '.join(self._known)}")


def _bad(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_ARGUMENT, message)


def _job(job: IngestJob) -> dict[str, Any]:
    return {
        "id": job.job_uuid,
        "ingest_job_id": job.ingest_job_id,
        "state": job.state.value,
        "scanner_key": key_base64(job.scanner),
        "scan_id": job.scan_id,
        "error_message": job.message if job.state is IngestState.FAILED else None,
        "reason": job.reason or None,
        "created_at": _moment(job.created_at),
        "updated_at": _moment(job.updated_at),
        "completed_at": None if job.completed_at is None else _moment(job.completed_at),
        "host_count": job.hosts,
        "port_count": job.ports,
        "record_count": job.records,
        "skipped_count": job.skipped,
    }


def _moment(millis: int) -> str:
    return to_datetime(millis).isoformat(timespec="milliseconds").replace("+00:00", "Z")
