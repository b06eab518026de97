"""X.509 certificates that a scan brought along, from their DER form."""

from __future__ import annotations

from hashlib import sha256

from cryptography import x509
from cryptography.x509.oid import NameOID

from peerd.clock import Millis
from peerd.inventory.model import Certificate
from peerd.scans.formats.values import MAX_NAMES, text_of

MAX_DER = 64 * 1024


def read_certificate(der: bytes) -> Certificate | None:
    """What it says; only its digest where it cannot be parsed, None where it is too long or nothing."""
    if not der or len(der) > MAX_DER:
        return None
    digest = sha256(der).hexdigest()
    try:
        parsed = x509.load_der_x509_certificate(der)
        return Certificate(
            sha256=digest,
            common_name=_first(parsed.subject),
            subject_alternative_names=_alternatives(parsed),
            issuer=_first(parsed.issuer) or _first(parsed.issuer, NameOID.ORGANIZATION_NAME),
            not_before=Millis(int(parsed.not_valid_before_utc.timestamp() * 1000)),
            not_after=Millis(int(parsed.not_valid_after_utc.timestamp() * 1000)),
        )
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, Warning):
        return Certificate(sha256=digest)


def _first(name: x509.Name, oid: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> str:
    found = name.get_attributes_for_oid(oid)
    return text_of(found[0].value) if found else ""


def _alternatives(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    plain = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return tuple(dict.fromkeys(text_of(name).lower() for name in plain[:MAX_NAMES]))
