"""Refusals over HTTP: one JSON shape, with the same reasons as everywhere."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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


class TooLargeError(Exception):
    """The body is longer than is read."""


def refusal(error: PeerdError) -> Response:
    """The answer to a request that was refused."""
    status = 413 if error.reason is Reason.TOO_LARGE else _STATUS.get(error.reason.code, 500)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="peerd"'
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return JSONResponse(
        {
            "detail": error.message,
            "reason": error.reason.text,
            "next_action": error.next_action,
            "violations": [{"field": entry.field, "message": entry.message} for entry in error.violations],
        },
        status_code=status,
        headers=headers,
    )


async def on_refusal(request: Request, error: Exception) -> Response:
    """For :class:`PeerdError`."""
    assert isinstance(error, PeerdError)  # noqa: S101 - registered for it alone
    return refusal(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """For what starlette itself refuses: no such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    reason = {404: Reason.NOT_FOUND, 405: Reason.UNIMPLEMENTED}.get(error.status_code, Reason.INVALID_ARGUMENT)
    return JSONResponse(
        {"detail": error.detail, "reason": reason.text, "next_action": "GET / lists the paths", "violations": []},
        status_code=error.status_code,
        headers=dict(error.headers or {}),
    )
