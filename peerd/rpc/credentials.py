"""The server's TLS side: its own leaf, and as roots the anchors of everybody who may connect now.

``fetch`` runs at each handshake on a thread of grpc's: it reads a snapshot and returns a prepared configuration, or
None for unchanged. A changed configuration also ends the use of old session tickets.
"""

from __future__ import annotations

import threading
from typing import Any

import grpc
import structlog

from peerd.clock import Clock
from peerd.identity.certificates import Leaf, anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc.members import Members

_log = structlog.get_logger(__name__)


class ServerCredentials:
    """Keeps the TLS configuration of the peer port equal to the member table."""

    def __init__(self, identity: Identity, members: Members, clock: Clock) -> None:
        self._identity = identity
        self._members = members
        self._clock = clock
        self._lock = threading.Lock()
        self._leaf: Leaf = issue_leaf(identity, clock)
        self._anchors: frozenset[PeerId] = frozenset()

    def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``."""
        self._anchors = self._wanted()
        fetch: Any = self._fetch  # the stubs do not know that None means unchanged
        return grpc.dynamic_ssl_server_credentials(self._configuration(), fetch, require_client_authentication=True)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            try:
                wanted = self._wanted()
                due = self._leaf.due(self._clock.now())
                if wanted == self._anchors and not due:
                    return None
                if due:
                    self._leaf = issue_leaf(self._identity, self._clock)
                self._anchors = wanted
                return self._configuration()
            except Exception:  # noqa: BLE001 - an exception on grpc's thread would be lost; keep the last good state
                _log.exception("tls.configuration_failed")
                return None

    def _wanted(self) -> frozenset[PeerId]:
        return self._members.anchors() | {self._identity.peer_id}

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        roots = b"".join(anchor_pem(peer_id) for peer_id in sorted(self._anchors))
        pair = (self._leaf.private_key_pem, self._leaf.certificate_pem)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)
