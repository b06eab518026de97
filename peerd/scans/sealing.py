"""A scan signed with a scanner's key, as HTTP takes it: the body of ``POST /v1/mesh/ingest``.

What is signed is the time in seconds, in decimal, followed by the bytes of the scan. Who takes it knows the key.
"""

from __future__ import annotations

import base64
import json

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason


def seal_scan(key_pem: bytes, data: bytes, now: Millis) -> bytes:
    """The body. Raises INVALID_ARGUMENT for a key that is not Ed25519; the message never holds a piece of it."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _no_key() from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key()
    seconds = now // 1000
    fields = {
        "data_base64": data,
        "public_key": key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        "signature": key.sign(str(seconds).encode("ascii") + data),
    }
    body = {name: base64.b64encode(value).decode("ascii") for name, value in fields.items()}
    return json.dumps({**body, "timestamp": seconds}).encode("ascii")


def _no_key() -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        "the scanner's key is no Ed25519 key in PEM without a password",
        next_action="make one: openssl genpkey -algorithm ed25519 -out scanner.pem",
    )
