"""The body of a scan's submission, cut apart without being understood: what was signed are bytes.

Any JSON library would read ``data`` and write it differently. So only the outermost object is walked, the slice of
``data`` is found by its brackets, and not a value of it is built before its signature holds.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # it is there, and without a stub

from starlette.requests import Request

from peerd.errors import PeerdError, Reason
from peerd.scans.plain import PlainEnvelope
from peerd.web.errors import HttpRefusalError

BODY_SECONDS = 30.0
_MOST_DEEP = 500
_BLANKS = re.compile(r"[ \t\n\r]*")
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_TO_BRACKET = re.compile(rf'(?:[^"\[\]{{}}]++|{_STRING})*+[\[\]{{}}]', re.DOTALL)
_MOST_BRACKETS = 1_000_000
"""A body of ten megabytes of what scanners write has some hundred thousand."""
_SCALAR = re.compile(r"[-+.0-9A-Za-z]{1,400}")
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_FIELDS = ("data", "data_base64", "public_key", "signature", "timestamp")


class InvalidJsonError(PeerdError):
    """The body is no JSON object, or not one that this takes."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INVALID_ARGUMENT, message, next_action="send one JSON object; docs/scans.md shows one")


async def read_body(request: Request, most: int) -> bytes:
    """All of it. Raises TOO_LARGE, or a refusal with status 408 for one that is too slow."""
    stated = request.headers.get("content-length", "")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if stated.isascii() and stated.isdigit() and int(stated) > most:
                raise _too_large(most)
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError as error:
        message = f"the body did not come within {BODY_SECONDS:g} s"
        raise HttpRefusalError(408, message, next_action="send it faster") from error
    return bytes(body)


def parse_submission(body: bytes) -> PlainEnvelope:
    """Raises :class:`InvalidJsonError`, INVALID_ARGUMENT (no data), or INVALID_SIGNATURE (the rest)."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJsonError("the body is not UTF-8") from error
    fields = _slices(text)
    for name in fields:
        if name not in _FIELDS:
            raise PeerdError(
                Reason.INVALID_ARGUMENT, f"there is no field {name[:40]!r}; there are {', '.join(_FIELDS)}"
            )
    signed, content = _data(fields)
    timestamp = fields.get("timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise PeerdError(Reason.INVALID_SIGNATURE, "timestamp must be there: seconds since 1970, a whole number")
    return PlainEnvelope(
        signed_data=signed,
        content=content,
        public_key=_binary(fields, "public_key"),
        signature=_binary(fields, "signature"),
        timestamp=int(timestamp),
    )


def _data(fields: dict[str, str]) -> tuple[bytes, bytes]:
    """What was signed, and the scan."""
    if ("data" in fields) == ("data_base64" in fields):
        raise PeerdError(Reason.INVALID_ARGUMENT, "exactly one of data and data_base64 must be there")
    if "data_base64" in fields:
        raw = _decoded(_text(fields["data_base64"]))
        if raw is None:
            raise PeerdError(Reason.INVALID_ARGUMENT, "data_base64 is not base64")
        return _some(raw), raw
    piece = fields["data"]
    signed = piece.encode()
    if not piece.startswith('"'):
        return signed, signed
    try:
        return signed, _some(_text(piece).encode())
    except UnicodeEncodeError as error:
        raise InvalidJsonError("data holds half of a character") from error


def _some(raw: bytes) -> bytes:
    if not raw:
        raise PeerdError(Reason.INVALID_ARGUMENT, "data is empty")
    return raw


def _binary(fields: dict[str, str], name: str) -> bytes:
    raw = _decoded(_text(fields[name])) if fields.get(name, "").startswith('"') else None
    if raw is None:
        raise PeerdError(Reason.INVALID_SIGNATURE, f"{name} must be there, in base64")
    return raw


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _text(piece: str) -> str:
    try:
        value = json.loads(piece)
    except ValueError as error:
        raise InvalidJsonError(f"the body is not JSON: {error}") from error
    return value if isinstance(value, str) else ""


def _slices(text: str) -> dict[str, str]:
    """Name -> its value as it stands there, of the outermost object."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise InvalidJsonError("the body must be a JSON object")
    found: dict[str, str] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return _ended(text, at, found)
    while True:
        if text[at : at + 1] != '"':
            raise _broken(at, "a name")
        try:
            name, at = scanstring(text, at + 1, True)
        except ValueError as error:
            raise InvalidJsonError(f"the body is not JSON: {error}") from error
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _broken(at, "a colon")
        begin = _skip(text, at + 1)
        end = _value_end(text, begin)
        if name in found:
            raise InvalidJsonError(f"the name {name[:40]!r} comes twice")
        found[name] = text[begin:end]
        at = _skip(text, end)
        match text[at : at + 1]:
            case ",":
                at = _skip(text, at + 1)
            case "}":
                return _ended(text, at, found)
            case _:
                raise _broken(at, "a comma; JSON Lines go into data as one JSON string, or into data_base64")


def _ended(text: str, at: int, found: dict[str, str]) -> dict[str, str]:
    at = _skip(text, at + 1)
    if at != len(text):
        raise _broken(at, "the end")
    return found


def _value_end(text: str, begin: int) -> int:
    """Where the value that begins there ends."""
    first = text[begin : begin + 1]
    if first not in ("{", "[") or not first:
        scalar = (_WHOLE_STRING if first == '"' else _SCALAR).match(text, begin)
        if scalar is None:
            raise _broken(begin, "a value")
        return scalar.end()
    depth = 0
    for count, bracket in enumerate(_TO_BRACKET.finditer(text, begin)):
        end = bracket.end()
        if text[end - 1] in "[{":
            depth += 1
            if depth > _MOST_DEEP or count > _MOST_BRACKETS:
                raise InvalidJsonError(f"data is nested more than {_MOST_DEEP} deep, or has a million brackets")
        else:
            depth -= 1
            if not depth:
                return end
    raise InvalidJsonError("the body is not JSON: it ends within a value")


def _skip(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks is not None else at


def _broken(at: int, wanted: str) -> InvalidJsonError:
    return InvalidJsonError(f"the body is not JSON: at character {at} there should be {wanted}")


def _too_large(most: int) -> PeerdError:
    return PeerdError(
        Reason.TOO_LARGE, f"the body is longer than {most} bytes", next_action="hand it in with 'peerctl scans submit'"
    )
