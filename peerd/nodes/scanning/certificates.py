"""What a client would say of a server's certificate. Pure.

Whether an authority is known is not judged: that depends on whose list of authorities one takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509

from peerd.clock import Millis
from peerd.nodes.messages import Finding
from peerd.nodes.probing.http_client import TlsSeen
from peerd.nodes.scanning.scoring import Rule

_OLD = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})


def certificate_findings(seen: TlsSeen, *, host: str, port: int, now: Millis) -> Iterator[Finding]:
    """What is wrong with the TLS of a port."""
    if seen.version in _OLD:
        yield Rule.TLS_OLD.finding(port=port, detail=seen.version)
    try:
        certificate = x509.load_der_x509_certificate(seen.certificate)
        names = _names(certificate)
    except ValueError as error:
        yield Rule.CERTIFICATE_SELF_SIGNED.finding(
            id="certificate-unreadable", port=port, title="The certificate cannot be read", detail=str(error)[:200]
        )
        return
    moment = datetime.fromtimestamp(now / 1000, UTC)
    if moment > certificate.not_valid_after_utc:
        detail = f"since {certificate.not_valid_after_utc:%Y-%m-%d}"
        yield Rule.CERTIFICATE_EXPIRED.finding(port=port, title="The certificate has expired", detail=detail)
    elif moment < certificate.not_valid_before_utc:
        detail = f"from {certificate.not_valid_before_utc:%Y-%m-%d} on"
        yield Rule.CERTIFICATE_EXPIRED.finding(port=port, title="The certificate is not valid yet", detail=detail)
    if certificate.issuer == certificate.subject:
        yield Rule.CERTIFICATE_SELF_SIGNED.finding(port=port)
    if not any(_covers(name, host) for name in names):
        shown = ", ".join(names[:5]) or "no name at all"
        yield Rule.CERTIFICATE_WRONG_NAME.finding(port=port, detail=f"it is for {shown}"[:300])


def _names(certificate: x509.Certificate) -> list[str]:
    """The names and addresses it is for; the common name, which no client looks at any more, does not count."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [*(name.lower().removesuffix(".") for name in names), *(str(address) for address in addresses)]


def _covers(name: str, host: str) -> bool:
    """Whether a name of a certificate is one for the host; ``*`` stands for one label (RFC 6125, 6.4.3)."""
    try:
        return ip_address(name) == ip_address(host)
    except ValueError:
        pass
    if name.startswith("*."):
        first, dot, rest = host.partition(".")
        return bool(first and dot) and rest == name.removeprefix("*.")
    return name == host
