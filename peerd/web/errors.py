"""Refusals over HTTP: one JSON shape, with the same reasons as everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from peerd.errors import PeerdError, Reason

_STATUS = {
    "INVALID_ARGUMENT": 422,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNIMPLEMENTED": 501,
}


_STATUS_OF_REASON = {Reason.TOO_LARGE: 413, Reason.DISK_LOW: 503, Reason.QUOTA_EXCEEDED: 503, Reason.OVERLOADED: 503}
"""Where the reason says more than its gRPC code."""


class HttpRefusalError(PeerdError):
    """A refusal that only HTTP knows, with its own status."""

    def __init__(self, status: int, message: str, *, next_action: str) -> None:
        super().__init__(Reason.INVALID_ARGUMENT, message, next_action=next_action)
        self.status = status


def refusal(error: PeerdError) -> Response:
    """The answer to a request that was refused."""
    status = _STATUS_OF_REASON.get(error.reason) or _STATUS.get(error.reason.code, 500)
    if isinstance(error, HttpRefusalError):
        status = error.status
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="peerd"'
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return _json(
        {
            "detail": error.message,
            "reason": error.reason.text,
            "next_action": error.next_action,
            "violations": [{"field": entry.field, "message": entry.message} for entry in error.violations],
        },
        status,
        headers,
    )


async def on_refusal(request: Request, error: Exception) -> Response:
    """For :class:`PeerdError`."""
    assert isinstance(error, PeerdError)  # noqa: S101 - registered for it alone
    return refusal(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """For what starlette itself refuses: no such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    reason = {404: Reason.NOT_FOUND, 405: Reason.UNIMPLEMENTED}.get(error.status_code, Reason.INVALID_ARGUMENT)
    return _json(
        {"detail": error.detail, "reason": reason.text, "next_action": "GET / lists the paths", "violations": []},
        error.status_code,
        dict(error.headers or {}),
    )


async def on_failure(request: Request, error: Exception) -> Response:
    """For a fault of ours: what it was stands in the log alone."""
    return refusal(PeerdError(Reason.INTERNAL, "this request failed inside the daemon"))


def _json(content: Mapping[str, object], status: int, headers: Mapping[str, str]) -> Response:
    """In ASCII: a refusal may quote what no encoding takes."""
    return Response(json.dumps(content), status_code=status, headers=headers, media_type="application/json")
