"""One ``<port>`` of nmap's or masscan's XML: its state, what answers, its banner and its certificate."""

from __future__ import annotations

import base64
import binascii
import re

from peerd.inventory.model import Certificate, Port, PortState, Service
from peerd.scans.formats.certificates import read_certificate
from peerd.scans.formats.items import SkipReason
from peerd.scans.formats.masscan import HOST_ONLY, certificate_of, service_of
from peerd.scans.formats.values import (
    MAX_NAMES,
    TRANSPORTS,
    confidence_of,
    millis_of_rfc3339,
    text_of,
    unescaped_banner,
)

_STATES = {str(state): state for state in PortState}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,100000})-----END CERTIFICATE-----")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ALTERNATIVES = "X509v3 Subject Alternative Name"
_WANTED = (
    "pem",
    "sha256",
    "subject/commonName",
    "issuer/commonName",
    "issuer/organizationName",
    "validity/notBefore",
    "validity/notAfter",
)
"""What is kept of the tables of nmap's ``ssl-cert`` script."""


class PortReader:
    """Collects what stands between ``<port>`` and ``</port>``."""

    def __init__(self, attributes: dict[str, str], *, masscan: bool) -> None:
        self._masscan = masscan
        self._number = attributes.get("portid", "")
        self._protocol = attributes.get("protocol", "")
        self._state = ""
        self._service: dict[str, str] | None = None
        self._cpes: list[str] = []
        self._banner = b""
        self._script = ""
        self._tables: list[str] = []
        self._key = ""
        self._fields: dict[str, str] = {}
        self._extension = ""
        self.os = ""
        """The operating system that the service names."""
        self.hostname = ""
        """The name that the service gives itself."""

    @property
    def shown(self) -> str:
        """What it is called in lists of skipped records."""
        return f"port {self._number[:20]}/{self._protocol[:20]} {self._state[:20]}"

    def start(self, tag: str, attributes: dict[str, str]) -> bool:
        """An element begins; whether its text is wanted."""
        if tag == "state":
            self._state = attributes.get("state", "")
        elif tag == "service":
            self._service = attributes
            self.os = text_of(attributes.get("ostype"))
            self.hostname = attributes.get("hostname", "")
        elif tag == "cpe":
            return self._service is not None
        elif tag == "script":
            self._script = attributes.get("id", "")
            if self._script == "banner":
                self._banner = unescaped_banner(attributes.get("output", ""))
        elif tag == "table":
            if len(self._tables) < 8:
                self._tables.append(attributes.get("key", ""))
        elif tag == "elem" and self._script == "ssl-cert":
            self._key = "/".join((*self._tables, attributes.get("key", "")))
            return self._key in _WANTED or self._tables[:1] == ["extensions"]
        return False

    def end(self, tag: str, text: str) -> None:
        """An element ends that held this text."""
        if tag == "cpe":
            if (cpe := text_of(text)) and cpe not in self._cpes and len(self._cpes) < MAX_NAMES:
                self._cpes.append(cpe)
        elif tag == "script":
            self._script = ""
            self._tables.clear()
        elif tag == "table":
            if self._tables:
                self._tables.pop()
        elif tag == "elem" and self._script == "ssl-cert":
            if self._key in _WANTED:
                self._fields[self._key] = text
            elif self._key.endswith("/name"):
                self._extension = text.strip()
            elif self._key.endswith("/value") and self._extension == _ALTERNATIVES:
                self._fields["alternatives"] = text

    def result(self) -> Port | SkipReason | None:
        """The port, why it is none, or None for what says only that the host is there."""
        if self._masscan and self._protocol in HOST_ONLY:
            return None
        if not self._number:
            return SkipReason.MISSING_FIELD
        digits = self._number
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
            return SkipReason.INVALID_PORT
        transport = TRANSPORTS.get(self._protocol.lower())
        if transport is None:
            return SkipReason.INVALID_PROTOCOL
        state = _STATES.get(self._state)
        if state is None:
            return SkipReason.INVALID_STATE
        certificate = self._certificate()
        service, banner = self._answer(certificate)
        if self._masscan and self._service is not None and self._service.get("name") == "X509":
            certificate = certificate_of(self._service.get("banner"))
        return Port(
            number=int(digits),
            transport=transport,
            state=state,
            service=service,
            banner=banner,
            certificate=certificate,
        )

    def _answer(self, certificate: Certificate | None) -> tuple[Service | None, bytes]:
        said = self._service
        if said is None:
            return (Service(tls=True) if certificate else None), self._banner
        if self._masscan:
            kind = text_of(said.get("name"))
            banner = b"" if kind in ("X509", "X509CA") else unescaped_banner(said.get("banner", ""))
            return service_of(kind), banner
        service = Service(
            name=text_of(said.get("name")),
            product=text_of(said.get("product")),
            version=text_of(said.get("version")),
            extra=text_of(said.get("extrainfo")),
            cpes=tuple(self._cpes),
            tls=said.get("tunnel") == "ssl" or certificate is not None,
            confidence=confidence_of(said.get("conf")),
        )
        return service, self._banner

    def _certificate(self) -> Certificate | None:
        fields = self._fields
        if found := _PEM.search(fields.get("pem", "")):
            try:
                return read_certificate(base64.b64decode(found[1]))
            except binascii.Error:
                return None
        digest = fields.get("sha256", "").replace(":", "").replace(" ", "").lower()
        if not _SHA256.fullmatch(digest):
            return None
        names = [part.strip() for part in fields.get("alternatives", "").split(",")[:MAX_NAMES]]
        plain = [part.partition(":")[2] for part in names if part.startswith(("DNS:", "IP Address:"))]
        return Certificate(
            sha256=digest,
            common_name=text_of(fields.get("subject/commonName")),
            subject_alternative_names=tuple(dict.fromkeys(text_of(name).lower() for name in plain)),
            issuer=text_of(fields.get("issuer/commonName")) or text_of(fields.get("issuer/organizationName")),
            not_before=millis_of_rfc3339(fields.get("validity/notBefore")),
            not_after=millis_of_rfc3339(fields.get("validity/notAfter")),
        )
