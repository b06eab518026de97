"""Invites: the token, and what may be done with an invite when. Pure.

A token is all a new machine needs: whom to join, whom to ask and where, and the seed of a key that is let in for that
one question. The inviter keeps the public half only. The seed is derived from the inviter's identity key and a stored
nonce, so that a repeated request can be answered with the same token although no token is stored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from peerd.clock import Millis
from peerd.digest import digest
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.key import Identity, identity_from_seed
from peerd.identity.peer_id import PeerId, peer_id_of, public_key_of
from peerd.mesh.model import ADMIN, format_grants
from peerd.v1 import mesh_pb2

PREFIX = "peerd1."

DEFAULT_TTL_SECONDS = 15 * 60
MAX_TTL_SECONDS = 7 * 24 * 3600

EXPLAIN_MILLIS = 24 * 3600 * 1000
"""How long after its end an invite's key may still connect, only to be told why it is refused. Without this a used-up
or late invite would look like a network fault, because a stranger is refused inside TLS."""

NONCE_BYTES = 16

_KEY_BYTES = 32
_CHECKSUM_BYTES = 4
_MAX_ADDRESSES = 8
_SEED_DOMAIN = b"peerd invite seed v1\0"


class InviteStatus(Enum):
    """Where an invite is. Only PENDING leads elsewhere."""

    PENDING = mesh_pb2.INVITE_STATUS_PENDING  # admits one machine
    USED = mesh_pb2.INVITE_STATUS_USED  # has admitted one; the same one may ask again until it expires
    EXPIRED = mesh_pb2.INVITE_STATUS_EXPIRED  # nobody used it in time
    REVOKED = mesh_pb2.INVITE_STATUS_REVOKED  # an admin withdrew it


@dataclass(frozen=True, kw_only=True)
class Invite:
    """An invite as the inviter keeps it."""

    number: int
    """Row id: for paging."""
    invite_id: PeerId
    nonce: bytes
    roles: frozenset[str]
    grants: frozenset[int]
    created_by: PeerId
    created_at: Millis
    expires_at: Millis
    revoked_at: Millis | None = None
    used_at: Millis | None = None
    joiner: PeerId | None = None

    def status(self, now: int) -> InviteStatus:
        """Where it is at that time."""
        if self.joiner is not None:
            return InviteStatus.USED
        if self.revoked_at is not None:
            return InviteStatus.REVOKED
        return InviteStatus.EXPIRED if now >= self.expires_at else InviteStatus.PENDING

    @property
    def connects_until(self) -> int:
        """Until when its key may connect."""
        return self.expires_at + EXPLAIN_MILLIS


@dataclass(frozen=True, kw_only=True)
class Token:
    """What an invite's token says."""

    mesh_id: PeerId
    inviter: PeerId
    addresses: tuple[str, ...]
    seed: bytes

    def __repr__(self) -> str:
        return f"Token(mesh_id={self.mesh_id!r}, inviter={self.inviter!r}, seed=***)"


def check_use(invite: Invite | None, joiner: PeerId, now: int) -> bool:
    """Whether this joiner uses the invite up (True) or repeats its own use of it (False).

    Raises INVITE_INVALID, INVITE_USED, INVITE_EXPIRED or INVITE_REVOKED.
    """
    if invite is None:
        raise PeerdError(Reason.INVITE_INVALID, "there is no such invite here")
    status = invite.status(now)
    if status is InviteStatus.REVOKED:
        raise PeerdError(Reason.INVITE_REVOKED, "an admin withdrew this invite")
    if status is InviteStatus.USED and invite.joiner != joiner:
        raise PeerdError(Reason.INVITE_USED, "another machine has joined with this invite")
    if now >= invite.expires_at:
        raise PeerdError(Reason.INVITE_EXPIRED, "this invite has expired")
    return status is InviteStatus.PENDING


def check_ttl(seconds: int) -> int:
    """The life of an invite in seconds, the default for 0. Raises INVALID_ARGUMENT."""
    if not 0 <= seconds <= MAX_TTL_SECONDS:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"an invite lives from 1 to {MAX_TTL_SECONDS} seconds (7 days), not {seconds}",
            violations=[Violation(field="ttl_seconds", message=f"use 1..{MAX_TTL_SECONDS}, or 0 for 15 minutes")],
        )
    return seconds or DEFAULT_TTL_SECONDS


def check_invite_grants(grants: frozenset[int], *, held: frozenset[int]) -> None:
    """Refuse what an invite may not carry: admin, and what the inviter does not hold. Raises PERMISSION_DENIED."""
    if ADMIN in grants:
        raise PeerdError(
            Reason.PERMISSION_DENIED,
            "an invite never grants admin: whoever sees the token could use it",
            next_action="invite it without admin, then let the founder run 'peerctl peers admit ID --grants ...,admin'",
        )
    if grants - held:
        raise PeerdError(Reason.PERMISSION_DENIED, f"the inviter does not hold {format_grants(grants - held)} itself")


def invite_seed(identity: Identity, nonce: bytes) -> bytes:
    """The seed of the invite with that nonce. Only the holder of the identity key can tell it."""
    return digest(identity.sign(_SEED_DOMAIN + nonce))


def invite_id_of(seed: bytes) -> PeerId:
    """The public half of an invite's key."""
    return identity_from_seed(seed).peer_id


def format_token(token: Token) -> str:
    """One printable word."""
    parts = [_key_bytes(token.mesh_id), _key_bytes(token.inviter), token.seed]
    for address in token.addresses[:_MAX_ADDRESSES]:
        text = address.encode()
        parts += [bytes([len(text)]), text]
    body = b"".join(parts)
    return PREFIX + base64.urlsafe_b64encode(body + digest(body)[:_CHECKSUM_BYTES]).decode().rstrip("=")


def parse_token(text: str) -> Token:
    """What a pasted token says; white space in it is ignored. Raises INVITE_INVALID, naming the damage."""
    compact = "".join(text.split())
    if not compact.startswith(PREFIX):
        raise _invalid(f"an invite begins with {PREFIX!r}", "paste the whole word that 'peerctl invite' printed")
    encoded = compact[len(PREFIX) :]
    mangled = _invalid(
        f"this invite is damaged: its {len(compact)} characters do not match their checksum",
        "copy it again, whole; a character is missing or changed",
    )
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise mangled from error
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if len(body) < 3 * _KEY_BYTES or digest(body)[:_CHECKSUM_BYTES] != checksum:
        raise mangled
    return Token(
        mesh_id=_peer_id(body[:_KEY_BYTES]),
        inviter=_peer_id(body[_KEY_BYTES : 2 * _KEY_BYTES]),
        seed=body[2 * _KEY_BYTES : 3 * _KEY_BYTES],
        addresses=tuple(_addresses(body[3 * _KEY_BYTES :])),
    )


def _addresses(raw: bytes) -> Iterable[str]:
    while raw:
        length = raw[0]
        yield raw[1 : 1 + length].decode(errors="replace")
        raw = raw[1 + length :]


def _key_bytes(peer_id: PeerId) -> bytes:
    return public_key_of(peer_id).public_bytes_raw()


def _peer_id(raw: bytes) -> PeerId:
    return peer_id_of(Ed25519PublicKey.from_public_bytes(raw))


def _invalid(message: str, next_action: str) -> PeerdError:
    return PeerdError(Reason.INVITE_INVALID, message, next_action=next_action)
