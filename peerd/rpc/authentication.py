"""From a connection to a caller: TLS 1.3, one certificate, the key that signed it, the live member table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peerd.clock import Clock
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import verify_leaf
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS, Caller
from peerd.rpc.members import Members

_CACHE_SIZE = 1024
_CACHE_MS = 600_000
"""A verified certificate is looked at again after ten minutes, so that one that expires is noticed."""


class LocalAuthentication:
    """The unix socket: whoever may open the file acts as this peer."""

    def __init__(self, self_id: PeerId) -> None:
        self._caller = Caller(peer_id=self_id, grants=ALL_GRANTS, local=True)

    def caller(self, auth_context: Mapping[str, Sequence[bytes]]) -> Caller:
        """Always this peer itself."""
        return self._caller


class TlsAuthentication:
    """The peer port. Names in certificates are never identity: the key that signed the leaf is."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self._verified: dict[bytes, tuple[PeerId, int]] = {}

    def caller(self, auth_context: Mapping[str, Sequence[bytes]]) -> Caller:
        """Who that is, by the member table as it is at this moment.

        Raises NOT_AUTHENTICATED, REVOKED or NOT_A_MEMBER.
        """
        peer_id = self._peer_id(auth_context)
        grants = self._members.grants(peer_id)
        if grants is not None:
            return Caller(peer_id=peer_id, grants=grants)
        if self._members.is_revoked(peer_id):
            raise PeerdError(Reason.REVOKED, f"{peer_id} was revoked")
        if self._members.is_invite(peer_id):
            return Caller(peer_id=peer_id, grants=frozenset(), invite=True)
        raise PeerdError(Reason.NOT_A_MEMBER, f"{peer_id} is not a member of this mesh")

    def _peer_id(self, auth_context: Mapping[str, Sequence[bytes]]) -> PeerId:
        if auth_context.get("ssl_tls_version") != [b"TLSv1.3"]:
            raise PeerdError(Reason.NOT_AUTHENTICATED, "only TLS 1.3 is spoken here")
        chain = b"".join(auth_context.get("x509_pem_cert_chain", ()))
        if chain.count(b"-----BEGIN CERTIFICATE-----") > 1:
            raise PeerdError(Reason.NOT_AUTHENTICATED, "more than one certificate was presented")
        pems = auth_context.get("x509_pem_cert", ())
        if len(pems) != 1:
            raise PeerdError(Reason.NOT_AUTHENTICATED, "no certificate was presented")
        key = digest(pems[0])
        now = self._clock.now()
        known = self._verified.get(key)
        if known is not None and now < known[1]:
            return known[0]
        peer_id = verify_leaf(pems[0], now)
        if len(self._verified) >= _CACHE_SIZE:
            self._verified.clear()
        self._verified[key] = (peer_id, now + _CACHE_MS)
        return peer_id
