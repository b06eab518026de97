"""Who is calling: decided once per call by the interceptor, read by handlers that check relationships."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from peerd.identity.peer_id import PeerId
from peerd.v1.access_pb2 import Grant

ALL_GRANTS = frozenset(value for value in Grant.values() if value != Grant.GRANT_UNSPECIFIED)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The authenticated peer behind a call, and what it may do here."""

    peer_id: PeerId
    grants: frozenset[int]
    """Values of peerd.v1.Grant."""
    local: bool = False
    """Over the unix socket: file mode is the whole check, and the call counts as this peer's own."""
    invite: bool = False
    """The key of a pending invite, which may join and do nothing else."""


current: ContextVar[Caller] = ContextVar("peerd_caller")


def current_caller() -> Caller:
    """The caller of the RPC that runs now. Raises LookupError outside of one."""
    return current.get()
