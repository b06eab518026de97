"""TLS from identities: the identity key is the CA of its own short-lived P-256 leaf.

grpcio refuses Ed25519 leaf certificates, but verifies a P-256 leaf under an Ed25519 issuer. A trust anchor is made
from the 32 bytes of a peer id alone, signed by a throw-away key: the signature of a root is not checked, its key is.
NameConstraints keep an anchor from vouching for another peer's DNS name; that fence knows nothing of IP and URI
names, so who a caller is, is decided by :func:`verify_leaf` and nothing else.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peerd.clock import Clock, Millis, to_datetime
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id, public_key_of

MAX_LIFETIME = datetime.timedelta(days=30)
_BACKDATED = datetime.timedelta(days=7)
"""Boards without a battery boot in the past; their peers' certificates must already be valid for them."""

_HALF_MS = round(MAX_LIFETIME.total_seconds() * 500)
_MOST_LEFT_MS = round((MAX_LIFETIME + _BACKDATED / 2).total_seconds() * 1000)

_ANCHOR_FROM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_ANCHOR_UNTIL = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A certificate that acts as its identity, and its private key."""

    certificate_pem: bytes
    private_key_pem: bytes
    not_after: Millis

    def due(self, now: Millis) -> bool:
        """Whether to issue another: half of its life is over, or the clock was set back to where it hardly counts."""
        left = self.not_after - now
        return not _HALF_MS <= left <= _MOST_LEFT_MS


@functools.lru_cache(maxsize=4096)
def anchor_pem(peer_id: PeerId) -> bytes:
    """A root certificate that trusts exactly this peer. Raises INVALID_PEER_ID."""
    name = _name(peer_id)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key_of(peer_id))
        .serial_number(1)
        .not_valid_before(_ANCHOR_FROM)
        .not_valid_after(_ANCHOR_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(peer_id)], None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(_throw_away_key(), None)
    )
    return certificate.public_bytes(Encoding.PEM)


def issue_leaf(identity: Identity, clock: Clock, lifetime: datetime.timedelta = MAX_LIFETIME) -> Leaf:
    """A new key and certificate for TLS as this identity, both ways."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = to_datetime(clock.now())
    not_after = (now + min(lifetime, MAX_LIFETIME)).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(identity.peer_id))
        .issuer_name(_name(identity.peer_id))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity.peer_id)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(identity.private_key, None)
    )
    return Leaf(
        certificate_pem=certificate.public_bytes(Encoding.PEM),
        private_key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        not_after=Millis(int(not_after.timestamp() * 1000)),
    )


def verify_leaf(pem: bytes, now: Millis) -> PeerId:
    """Whose certificate this is: one P-256 leaf, SAN exactly [DNS:id], issuer CN = id, signed by that id's key.

    Raises NOT_AUTHENTICATED with what is wrong.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        if len(certificates) != 1:
            raise _refused(f"{len(certificates)} certificates were presented, not one")
        return _verify(certificates[0], now)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _refused("the certificate cannot be read as one of peerd's") from error
    except PeerdError as error:
        if error.reason is Reason.NOT_AUTHENTICATED:
            raise
        raise _refused(error.message) from error


def _verify(certificate: x509.Certificate, now: Millis) -> PeerId:
    moment = to_datetime(now)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise _refused("the certificate is not valid at this time")
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.DNSName):
        raise _refused("the certificate must name exactly one peer id, as a DNS name")
    peer_id = parse_peer_id(names[0].value)
    if certificate.issuer != _name(peer_id):
        raise _refused("the certificate names one peer and is issued by another")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("the certificate's key is not P-256")
    try:
        public_key_of(peer_id).verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature as error:
        raise _refused("the certificate is not signed by the peer it names") from error
    return peer_id


def _name(peer_id: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer_id)])


@functools.cache
def _throw_away_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _refused(message: str) -> PeerdError:
    return PeerdError(Reason.NOT_AUTHENTICATED, message)
