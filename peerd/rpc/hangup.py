"""Breaking one connection off, for a caller that was told to go and does not read.

A status goes out behind the data before it. A caller that reads nothing therefore holds the status up, the handler, and
one of our calls, for as long as it likes; and grpc's asyncio server can neither reset a stream nor close a connection.
So the connection is shut down below it: grpc sees what it sees when a peer vanishes, and ends whatever ran there.
Rejected: cancelling the handler alone, after which grpc waits for the caller to close.
"""

from __future__ import annotations

import os
import socket
from urllib.parse import unquote


def hang_up(peer: str) -> int:
    """Shut down the connection to what ``context.peer()`` calls so; returns how many, 0 for a unix socket."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        connection = _copy(int(name))
        if connection is None:
            continue
        with connection:
            if _peer_of(connection) == unquote(peer):
                connection.shutdown(socket.SHUT_RDWR)
                found += 1
    return found


def _copy(descriptor: int) -> socket.socket | None:
    """A copy, so that nobody closes it and reuses its number while we look; None for what is no socket."""
    try:
        copied = os.dup(descriptor)
    except OSError:  # closed meanwhile
        return None
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        return None


def _peer_of(connection: socket.socket) -> str | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        host, port = connection.getpeername()[:2]
    except OSError:  # it listens
        return None
    if host.startswith("::ffff:") and "." in host:
        return f"ipv4:{host.removeprefix('::ffff:')}:{port}"
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
