"""The one signed envelope (DSSE): a signature over the exact bytes and their type.

Verify, then parse those same bytes; nothing is ever serialised again to check a signature, because protobuf promises
no canonical form. https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id, public_key_of
from peerd.v1.signed_pb2 import Envelope, Signature

_SIGNATURE_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A payload whose signature holds, and who signed it."""

    payload: bytes
    signer: PeerId


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(identity: Identity, payload: bytes, payload_type: str) -> Envelope:
    """Sign the bytes as that type."""
    signature = identity.sign(pre_authentication_encoding(payload_type, payload))
    return Envelope(
        payload=payload,
        payload_type=payload_type,
        signatures=[Signature(peer_id=identity.peer_id, signature=signature)],
    )


DAMAGE = (Reason.INVALID_SIGNATURE, Reason.INVALID_PEER_ID)
"""What :func:`open_envelope` says of one that was whole and is not any more."""


def open_envelope(envelope: Envelope, payload_type: str) -> Opened:
    """Check type and signature. Exactly one signature is accepted. Raises INVALID_SIGNATURE."""
    if envelope.payload_type != payload_type:
        raise _invalid(f"the envelope holds {envelope.payload_type[:80]!r}, not {payload_type!r}")
    if len(envelope.signatures) != 1:
        raise _invalid(f"the envelope has {len(envelope.signatures)} signatures, not one")
    (signature,) = envelope.signatures
    signer = parse_peer_id(signature.peer_id)
    if len(signature.signature) != _SIGNATURE_BYTES:
        raise _invalid("the signature does not have 64 bytes")
    try:
        public_key_of(signer).verify(signature.signature, pre_authentication_encoding(payload_type, envelope.payload))
    except InvalidSignature as error:
        raise _invalid(f"the signature of {signer} does not hold") from error
    return Opened(payload=envelope.payload, signer=signer)


def _invalid(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_SIGNATURE, message)
