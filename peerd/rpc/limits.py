"""Channel and server arguments: what a connection may cost, and how soon a dead one is noticed.

``keepalive_timeout_ms`` alone does nothing in grpcio; ``http2.ping_timeout_ms`` is what counts (60 s by default).
Values: reference/security.md of the project, section 4, measured on grpcio 1.85.
"""

from __future__ import annotations

import resource

MAX_MESSAGE_BYTES = 4 * 1024**2
UNARY_SECONDS = 60.0
"""Longest a unary call may take, its request included, when the client set no nearer deadline."""
LONG_CALLS = ("/peerd.v1.BackupService/", "/peerd.v1.SpaceService/", "/peerd.v1.AuditService/VerifyAudit")
"""Their work grows with what a peer holds, and begins anew with each call: they may take :data:`LONG_SECONDS`."""
LONG_SECONDS = 3600.0
REQUEST_IDLE_SECONDS = 60.0
"""Longest a peer may leave us waiting for the next message of a stream of requests."""
MAX_SMALL_MESSAGE_BYTES = 1024**2
"""For what a stranger with an invite may send, and for health."""
MAX_CALLS_OF_A_PEER = 128
"""Calls of one peer at a time: what one connection may carry."""
MAX_PROBES_OF_A_PEER = 32
"""Calls besides that a peer may have open to the failure detector, so that it is not taken for dead when it is busy."""
_LEAST_CONNECTIONS = 512

_COMMON: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

_SERVER: list[tuple[str, int | str]] = [
    *_COMMON,
    ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_PEER),
    ("grpc.server_handshake_timeout_ms", 8_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.max_connection_age_ms", 3_600_000),  # grpc itself varies it by 10%
    ("grpc.max_connection_age_grace_ms", 600_000),
    ("grpc.so_reuseport", 0),  # a second daemon must fail to bind, not share the port
    ("grpc.tcp_read_chunk_size", 4 * 1024**2),
    ("grpc.http2.lookahead_bytes", 4 * 1024**2),
]

CLIENT: list[tuple[str, int | str]] = [
    *_COMMON,
    ("grpc.enable_http_proxy", 0),  # peers are never dialled through http_proxy
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Despite its name, how long an attempt to connect is given: TCP, TLS and HTTP/2 take four round trips.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # durable retry lives in the store, never hidden in a channel
    ("grpc.http2.lookahead_bytes", 4 * 1024**2),
    ("grpc.tcp_read_chunk_size", 4 * 1024**2),
]


def server(connections: int) -> list[tuple[str, int | str]]:
    """The arguments of a server that holds so many connections at most."""
    return [*_SERVER, ("grpc.max_allowed_incoming_connections", connections)]


def max_connections(peers: int) -> int:
    """Connections a listener takes, from strangers too; grpc fixes the number when it starts.

    Four for each peer and some besides, with room for a mesh to grow; but never more than half of the files this
    process may have open, for the store and the jobs need the others.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(_LEAST_CONNECTIONS, 4 * peers + 32)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files // 2))
