"""The program of a job that hands signed scans in to the collector on whose machine it runs, and waits for the end.

    python -m peerd.scans.handing_in INPUT OUTPUT URL

INPUT holds what :mod:`peerd.scans.scanner` signed (``*.signed.json``); the bytes are posted as they are. The job needs
no right of its own: the signature of a registered scanner is what counts. OUTPUT gets ``ingest.json``, the ingest jobs
as they ended. The URL is the owner's, in the declaration of the service.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from peerd.clock import Clock, SystemClock
from peerd.errors import PeerdError, Reason

T = TypeVar("T")

PATTERN = "*.signed.json"
REPORT = "ingest.json"
FINAL = ("completed", "failed", "cancelled")
_MAX_ANSWER = 1 << 20
_CALL_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_LATER_SECONDS = 2.0
_LONGEST_PAUSE = 60.0
_NOT_NOW = {429: Reason.RATE_LIMITED, 503: Reason.OVERLOADED}
"""Refusals that pass."""


class Collector:
    """The HTTP of one peer. No proxy is asked, and no redirection followed."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{url!r} is no http:// address")
        self._url = url.rstrip("/")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect()).open

    def submit(self, body: bytes) -> str:
        """The id of the ingest job. Raises PeerdError with what the collector said."""
        answer = self._call("/v1/mesh/ingest", body)
        if not isinstance(answer.get("job_id"), str):
            raise PeerdError(Reason.EXECUTION_FAILED, f"{self._url} answered without a job_id")
        return str(answer["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """An ingest job as it is now."""
        return self._call(f"/v1/jobs/{job_id}", None)

    def _call(self, path: str, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - checked to be HTTP
            self._url + path, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with self._open(request, timeout=_CALL_SECONDS) as answer:
                value = json.loads(answer.read(_MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                reason = _NOT_NOW.get(error.code, Reason.EXECUTION_FAILED)
                raise PeerdError(reason, _said(error), retry_after_seconds=_later(error)) from error
        except (OSError, ValueError) as error:
            raise PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, f"{self._url} does not answer: {error}") from error
        if not isinstance(value, dict):
            raise PeerdError(Reason.EXECUTION_FAILED, f"{self._url} answered with something else than an object")
        return value


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _later(error: urllib.error.HTTPError) -> float | None:
    """The ``Retry-After`` of an answer, in seconds."""
    text = str(error.headers.get("Retry-After", ""))
    return min(_LONGEST_PAUSE, float(text)) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _said(error: urllib.error.HTTPError) -> str:
    text = error.read(_MAX_ANSWER).decode("utf-8", "backslashreplace")
    try:
        value = json.loads(text)
        return f"{error.code} {value['error']}: {value['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code}: {text[:200]!a}"


def hand_in(
    files: Sequence[Path], collector: Collector, *, clock: Clock, pause: Callable[[float], None], seconds: float
) -> list[dict[str, Any]]:
    """The ingest jobs, once all of them have ended. Raises DEADLINE_EXCEEDED when that takes longer.

    A collector that is restarted meanwhile, or has too much to do, is asked again: the same bytes are the same scan.
    """
    if not files:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"there is no {PATTERN} among the inputs")
    until = clock.monotonic() + seconds

    def ask(call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except PeerdError as error:
                if not error.retryable or clock.monotonic() > until:
                    raise
                pause(error.retry_after_seconds or _LATER_SECONDS)

    ids = [ask(partial(collector.submit, file.read_bytes())) for file in files]
    ended: list[dict[str, Any]] = []
    for job_id in ids:
        while (job := ask(partial(collector.job, job_id))).get("state") not in FINAL:
            if clock.monotonic() > until:
                raise PeerdError(
                    Reason.DEADLINE_EXCEEDED, f"ingest job {job_id} did not end within {seconds:g} seconds"
                )
            pause(_PAUSE_SECONDS)
        ended.append(job)
    return ended


def main(argv: Sequence[str]) -> int:
    """Hand in; 0 if all was ingested, 1 if not, 2 with the refusal on stderr."""
    if len(argv) != 3:
        sys.stderr.write("usage: python -m peerd.scans.handing_in INPUT OUTPUT URL\n")
        return 2
    files = sorted(Path(argv[0]).rglob(PATTERN))
    try:
        jobs = hand_in(files, Collector(argv[2]), clock=SystemClock(), pause=time.sleep, seconds=600)
    except PeerdError as error:
        sys.stderr.write(f"{error}\n{error.next_action}\n")
        return 2
    Path(argv[1], REPORT).write_text(json.dumps({"jobs": jobs}, indent=2) + "\n", encoding="utf-8")
    for job in jobs:
        sys.stdout.write(f"{job.get('id')}: {job.get('state')}, {job.get('host_count')} hosts\n")
    return 0 if all(job.get("state") == "completed" for job in jobs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
