"""The identity key: made once, kept in one file that only its owner can read, never sent anywhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId, peer_id_of


class Identity:
    """A peer that can sign: the only holder of its private key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.peer_id: PeerId = peer_id_of(private_key.public_key())

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """For signing certificates; nothing else needs it."""
        return self._private_key

    def sign(self, message: bytes) -> bytes:
        """64 bytes, Ed25519."""
        return self._private_key.sign(message)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def identity_from_seed(seed: bytes) -> Identity:
    """The identity of a 32-byte seed, as invites carry one."""
    return Identity(Ed25519PrivateKey.from_private_bytes(seed))


def create_identity(path: Path) -> Identity:
    """Make a key and write it durably. Raises ALREADY_INITIALIZED rather than replace one."""
    identity = Identity.generate()
    pem = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise PeerdError(Reason.ALREADY_INITIALIZED, f"{path} holds an identity already") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return identity


def load_identity(path: Path) -> Identity:
    """Read the key. Raises NOT_INITIALIZED, or KEY_EXPOSED when others could have read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise PeerdError(Reason.NOT_INITIALIZED, f"there is no identity at {path}") from error
    except OSError as error:
        raise PeerdError(Reason.KEY_EXPOSED, f"{path} cannot be opened as a plain file: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or mode & 0o077 or status.st_uid != os.geteuid():
            raise PeerdError(
                Reason.KEY_EXPOSED,
                f"{path} has mode {mode:04o} and owner {status.st_uid}; only its owner may read a key",
                next_action=f"chmod 600 {path}; if others could have copied it, revoke this peer and make a new one",
            )
        pem = file.read(16_384)
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise PeerdError(Reason.NOT_INITIALIZED, f"{path} is not a PKCS#8 private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PeerdError(Reason.NOT_INITIALIZED, f"{path} is not an Ed25519 key")
    return Identity(key)
