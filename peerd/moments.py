"""Moments on the wire."""

from __future__ import annotations

from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


@overload
def moment(millis: int) -> Timestamp: ...


@overload
def moment(millis: int | None) -> Timestamp | None: ...


def moment(millis: int | None) -> Timestamp | None:
    """Milliseconds since 1970 as proto writes them; None stays unset."""
    return None if millis is None else Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)
