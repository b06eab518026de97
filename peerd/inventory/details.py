"""Services, banners, certificates and names: each is stored once, and ports point at it."""

from __future__ import annotations

import hashlib
import json

from peerd.inventory.gathering import Said, Seen, Spoken
from peerd.inventory.model import Certificate, Service, Source
from peerd.inventory.versions import version_key
from peerd.store import Tx

SAMPLE_BYTES = 2048
HOSTNAME, MAC, SYSTEM, ORGANIZATION = 1, 2, 3, 4


class Resolver:
    """From what is said to its number, for one chunk."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._services: dict[Service, int] = {}
        self._banners: dict[bytes, int] = {}
        self._certificates: dict[Certificate, int] = {}

    @property
    def used(self) -> bool:
        """Whether it was asked for anything."""
        return bool(self._services or self._banners or self._certificates)

    def numbers(self, spoken: Spoken) -> Said:
        """The same with numbers in place of services, banners and certificates."""
        at, state, service, banner, certificate = spoken
        return (
            at,
            state,
            self._service(service) if service is not None and service != _NOTHING else None,
            self._banner(banner) if banner else None,
            self._certificate(certificate) if certificate is not None else None,
        )

    def _service(self, one: Service) -> int:
        number = self._services.get(one)
        if number is None:
            natural = (
                one.name,
                one.product,
                one.version,
                one.extra,
                json.dumps(one.cpes),
                int(one.tls),
                one.confidence,
            )
            row = self._tx.one(
                "SELECT id FROM inventory_services WHERE name = ? AND product = ? AND version = ? AND extra = ? "
                "AND cpes = ? AND tls = ? AND confidence = ?",
                natural,
            )
            number = self._services[one] = (
                row["id"]
                if row is not None
                else self._tx.insert(
                    "INSERT INTO inventory_services "
                    "(name, product, version, extra, cpes, tls, confidence, version_key) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*natural, version_key(one.version)),
                )
            )
        return number

    def _banner(self, banner: bytes) -> int:
        number = self._banners.get(banner)
        if number is None:
            digest = hashlib.sha256(banner).digest()
            row = self._tx.one("SELECT id FROM inventory_banners WHERE digest = ?", (digest,))
            number = self._banners[banner] = (
                row["id"]
                if row is not None
                else self._tx.insert(
                    "INSERT INTO inventory_banners (digest, sample) VALUES (?, ?)", (digest, banner[:SAMPLE_BYTES])
                )
            )
        return number

    def _certificate(self, one: Certificate) -> int:
        """What one scan leaves out another one adds."""
        number = self._certificates.get(one)
        if number is None:
            self._tx.execute(
                "INSERT INTO inventory_certificates (sha256, common_name, names, issuer, not_before, not_after) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "common_name = coalesce(nullif(common_name, ''), excluded.common_name), "
                "names = iif(names = '[]', excluded.names, names), "
                "issuer = coalesce(nullif(issuer, ''), excluded.issuer), "
                "not_before = coalesce(not_before, excluded.not_before), "
                "not_after = coalesce(not_after, excluded.not_after)",
                (
                    one.sha256,
                    one.common_name,
                    json.dumps(one.subject_alternative_names),
                    one.issuer,
                    one.not_before,
                    one.not_after,
                ),
            )
            row = self._tx.one("SELECT id FROM inventory_certificates WHERE sha256 = ?", (one.sha256,))
            number = self._certificates[one] = row["id"] if row is not None else 0
        return number


_NOTHING = Service()


def write_names(tx: Tx, hosts: dict[int, Seen], source: Source) -> None:
    """Host names, hardware addresses, systems, and whom the hosts belong to."""
    rows = []
    for host_id, seen in hosts.items():
        rows += [(host_id, HOSTNAME, value, seen.first, seen.last) for value in seen.hostnames]
        rows += [(host_id, MAC, value, seen.first, seen.last) for value in seen.macs]
        rows += [(host_id, SYSTEM, value, seen.first, seen.last) for value in seen.systems]
        if source.organization:
            rows.append((host_id, ORGANIZATION, source.organization, seen.first, seen.last))
    tx.executemany(
        "INSERT INTO inventory_names (host_id, kind, value, first_seen, last_seen) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET first_seen = min(first_seen, excluded.first_seen), "
        "last_seen = max(last_seen, excluded.last_seen)",
        rows,
    )
