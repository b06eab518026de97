"""Errors on the wire: :class:`PeerdError` as ``google.rpc.Status`` with details, and back.

ErrorInfo carries the stable reason (domain ``peerd``) and the next action, BadRequest the fields, RetryInfo the delay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from peerd.errors import PeerdError, Reason, Violation

DOMAIN = "peerd"
DETAILS_KEY = "grpc-status-details-bin"
_CUT = "…"

# Trailing metadata holds 8 KiB (limits.py), and the message is in it twice: by itself, percent-encoded, and in the
# details, which travel in base64. These bounds together stay below, whatever is said in whatever script.
_MAX_MESSAGE = 1500
"""As percent-encoded."""
_MAX_DETAILS = 4400
_MAX_INFO = 1400
_MAX_NEXT_ACTION = 800
_MAX_FIELD = 200
_MAX_TEXT = 500
_ENVELOPES = 200
"""Type names and lengths around the parts of the details."""
_ENTRY_OVERHEAD = 64
_MAX_RETRY_SECONDS = 86_400.0

Metadata = tuple[tuple[str, str | bytes], ...]


def to_status(error: PeerdError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, message and trailing metadata for ``context.abort``; what does not fit is cut short or left out."""
    code = grpc.StatusCode[error.reason.code]
    message = fit_message(error.message)
    info = _error_info(error)
    details: list[AnyMessage] = [_pack(info)]
    if error.violations:
        room = _MAX_DETAILS - _ENVELOPES - info.ByteSize() - len(message.encode())
        details.append(_pack(_bad_request(error.violations, room)))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(_sane(error.retry_after_seconds) * 1000))
        details.append(_pack(retry))
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=message, details=details)
    return code, message, ((DETAILS_KEY, status.SerializeToString()),)


def _utf8(character: str) -> int:
    return len(character.encode())


def _percent_encoded(character: str) -> int:
    return 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())


def fit_text(text: str, limit: int, *, cost: Callable[[str], int] = _utf8) -> str:
    """The text as a status can carry it: whole characters only, no control ones but line ends, within so many bytes."""
    whole = text[: limit + 1].encode("utf-8", "replace").decode("utf-8")
    plain = "".join(character if character.isprintable() or character == "\n" else " " for character in whole)
    costs = [cost(character) for character in plain]
    if sum(costs) <= limit:
        return plain
    room = limit - cost(_CUT)
    return plain[: sum(end <= room for end in accumulate(costs))] + _CUT


def fit_message(text: str) -> str:
    """The text as the message of a status."""
    return fit_text(text, _MAX_MESSAGE, cost=_percent_encoded)


def _sane(seconds: float) -> float:
    """A wait of at most a day; of nobody's clock can more be said."""
    return min(max(seconds, 0.0), _MAX_RETRY_SECONDS) if seconds == seconds else 0.0


def _error_info(error: PeerdError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.text,
        domain=DOMAIN,
        metadata={"next_action": fit_text(error.next_action, _MAX_NEXT_ACTION)},
    )
    left = _MAX_INFO - info.ByteSize()
    for key, value in error.metadata.items():
        name, content = fit_text(key, _MAX_FIELD), fit_text(value, _MAX_TEXT)
        left -= len(name.encode()) + len(content.encode()) + _ENTRY_OVERHEAD
        if left < 0:
            break
        if name != "next_action":
            info.metadata[name] = content
    return info


def _bad_request(violations: Sequence[Violation], room: int) -> error_details_pb2.BadRequest:
    """As many as fit into so many bytes; the last says how many more there are."""
    bad = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=fit_text(violation.field, _MAX_FIELD), description=fit_text(violation.message, _MAX_TEXT)
        )
        if bad.ByteSize() + entry.ByteSize() + _ENTRY_OVERHEAD > room:
            bad.field_violations.add(field="", description=f"and {len(violations) - index} more")
            break
        bad.field_violations.append(entry)
    return bad


def from_rpc_error(error: aio.AioRpcError, callee: str) -> PeerdError:
    """What another peer answered, or why it did not."""
    code = error.code()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            rebuilt = _rebuild(value)
            if rebuilt is not None:
                return rebuilt
    detail = fit_message(error.details() or code.name)
    if code is grpc.StatusCode.UNAVAILABLE:
        # A stranger is refused inside TLS and sees no more than this; so we say what it may be.
        return PeerdError(
            Reason.NOT_TRUSTED_OR_UNREACHABLE,
            f"{callee} does not answer, or does not trust this peer",
            metadata={"peer": callee, "detail": detail[:300]},
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return PeerdError(Reason.DEADLINE_EXCEEDED, f"{callee} did not answer in time", metadata={"peer": callee})
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return PeerdError(Reason.UNIMPLEMENTED, f"{callee} does not know this call: {detail}")
    if code in _BROKEN and "serializ" not in detail:
        return PeerdError(Reason.CONNECTION_LOST, f"{callee} was lost in the middle of the call: {detail}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # grpc itself says this for messages and metadata that are too large, and when too many calls run.
        too_large = any(word in detail.lower() for word in ("larger than max", "metadata size", "too large"))
        return PeerdError(Reason.TOO_LARGE if too_large else Reason.OVERLOADED, f"{callee}: {detail}")
    return PeerdError(_PLAIN.get(code, Reason.INTERNAL), f"{callee}: {code.name.lower()}: {detail}")


_BROKEN = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
)
"""What grpc makes of a connection that ends while an answer is on its way ("Internal error from Core", RST_STREAM). A
peer's own failures come with a reason, whatever their code; our own cancelling is no status but a CancelledError."""

_PLAIN = {
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS: Reason.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.NOT_AUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION: Reason.ILLEGAL_TRANSITION,
    grpc.StatusCode.ABORTED: Reason.OVERLOADED,
}
"""For a status that some other service made, without a reason of ours."""


@contextmanager
def remote_errors(callee: str) -> Iterator[None]:
    """Turn what a call to that peer raises into a :class:`PeerdError`."""
    try:
        yield
    except aio.AioRpcError as error:
        raise from_rpc_error(error, callee) from error


def _pack(message: object) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def _rebuild(value: bytes) -> PeerdError | None:
    try:
        status = status_pb2.Status.FromString(value)
    except DecodeError:
        return None
    try:
        info, violations, retry_after = _unpack(status.details)
    except DecodeError:  # the right type, and rubbish inside
        return None
    if info is None:
        return None
    # Another peer's words: they are shown on our terminals, so they are made fit like our own.
    metadata = {fit_text(key, _MAX_FIELD): fit_text(value, _MAX_NEXT_ACTION) for key, value in info.metadata.items()}
    return PeerdError(
        Reason.from_text(info.reason),
        fit_message(status.message),
        next_action=metadata.pop("next_action", None),
        violations=violations,
        metadata=metadata,
        retry_after_seconds=retry_after,
    )


def _unpack(
    details: Sequence[AnyMessage],
) -> tuple[error_details_pb2.ErrorInfo | None, list[Violation], float | None]:
    info: error_details_pb2.ErrorInfo | None = None
    violations: list[Violation] = []
    retry_after: float | None = None
    for detail in details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            candidate = error_details_pb2.ErrorInfo()
            detail.Unpack(candidate)
            if candidate.domain == DOMAIN:
                info = candidate
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [
                Violation(field=fit_text(v.field, _MAX_FIELD), message=fit_text(v.description, _MAX_TEXT))
                for v in bad.field_violations
            ]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = _sane(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    return info, violations, retry_after
