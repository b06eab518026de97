"""Against swarms: a message of 4 MiB may hold two million empty ones, which cost their reader a minute and a gigabyte.

What a call may hold is bounded by the number of entries in its repeated fields, all levels together, and counted on the
wire: parsing alone would take hundreds of megabytes. The bounds are well above what a fleet of a thousand peers, or a
workflow that fits into a message, has to say.
"""

from __future__ import annotations

import functools

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from peerd.errors import PeerdError, Reason

_MOST = 100_000
_MOST_OF = {
    # Between machines, all the time, and open to every member.
    "/peerd.v1.DetectorService/": 10_000,
    "/peerd.v1.JobReportService/": 25_000,
    "/peerd.v1.JobService/": 25_000,
    "/peerd.v1.MeshService/": 25_000,
}


def most_entries(method: str) -> int:
    """How many entries a message of that method may hold."""
    return next((most for service, most in _MOST_OF.items() if method.startswith(service)), _MOST)


def check_entries(method: str, descriptor: Descriptor, raw: bytes) -> None:
    """Raises TOO_LARGE when the message holds more, DecodeError when it is no message."""
    most = most_entries(method)
    if len(raw) <= most:  # an entry takes at least a byte
        return
    try:
        many = _more_than(most, descriptor, raw)
    except IndexError as error:
        raise DecodeError("it ends within a field") from error
    if many:
        raise PeerdError(Reason.TOO_LARGE, f"{method} takes messages of at most {most} entries")


_STEPS = 4
"""Fields of any kind to an entry, at most; without it a swarm of single numbers would be walked to its end."""


def _more_than(most: int, descriptor: Descriptor, raw: bytes) -> bool:
    entries, steps, waiting = 0, 0, [(0, len(raw), descriptor)]
    while waiting:
        position, end, kind = waiting.pop()
        known = _known(kind)
        while position < end:
            steps += 1
            tag, position = _varint(raw, position)
            repeated, inner = known.get(tag >> 3, (0, None))
            match tag & 7:
                case 2:
                    size, position = _varint(raw, position)
                    if position + size > end:
                        raise IndexError
                    if inner is not None:
                        waiting.append((position, position + size, inner))
                    entries += size if repeated == _PACKED else repeated
                    position += size
                case 0:
                    _, position = _varint(raw, position)
                    entries += repeated != 0
                case 1:
                    position += 8
                case 5:
                    position += 4
            if entries > most or steps > _STEPS * most:
                return True
    return False


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    byte = raw[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = raw[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
        if shift > 63:
            raise IndexError


_SINGLE, _REPEATED, _PACKED = 0, 1, 2


@functools.cache
def _known(descriptor: Descriptor) -> dict[int, tuple[int, Descriptor | None]]:
    """For each field number: whether it is repeated, and what it holds if that is a message."""
    whole = (FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_STRING)
    return {
        field.number: (
            (_REPEATED if field.cpp_type in whole else _PACKED) if field.is_repeated else _SINGLE,
            field.message_type,
        )
        for field in descriptor.fields
    }
