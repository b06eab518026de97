"""Peer ids: a peer's Ed25519 public key as text. Knowing the id is enough to verify its owner."""

from __future__ import annotations

import base64
import binascii
from typing import NewType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from peerd.errors import PeerdError, Reason

PeerId = NewType("PeerId", str)
"""52 characters: the 32 bytes of the key, lower-case base32 (RFC 4648) without padding."""

LENGTH = 52


def parse_peer_id(text: str) -> PeerId:
    """The id that the text spells. Raises INVALID_PEER_ID.

    52 characters of base32 hold 260 bits for 256: sixteen spellings decode to one key. Only the one that encodes back
    to itself is an id, so that ids can be compared as text.
    """
    try:
        raw = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError):
        raw = b""
    if len(text) != LENGTH or _encode(raw) != text:
        raise PeerdError(Reason.INVALID_PEER_ID, f"{text[:64]!r} is not a peer id")
    return PeerId(text)


def peer_id_of(key: Ed25519PublicKey) -> PeerId:
    """The id of a public key."""
    return PeerId(_encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)))


def public_key_of(peer_id: str) -> Ed25519PublicKey:
    """The key that an id is. Raises INVALID_PEER_ID."""
    raw = base64.b32decode(parse_peer_id(peer_id).upper() + "====")
    return Ed25519PublicKey.from_public_bytes(raw)


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
