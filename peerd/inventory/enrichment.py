"""What local databases say of addresses: autonomous system and country, from MMDB files. Absent without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import maxminddb
import structlog

from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx

_log = structlog.get_logger(__name__)
_HOSTS = 1000


class Enrichment:
    """Looks hosts up that are new. Files that are replaced are read when the daemon starts anew."""

    def __init__(self, store: Store, *, asn_database: str, country_database: str) -> None:
        """Raises INVALID_CONFIG for a file that is none."""
        self._store = store
        self._asn = _open(asn_database)
        self._country = _open(country_database)
        self._done = 0

    @property
    def configured(self) -> bool:
        """Whether there is anything to look up."""
        return self._asn is not None or self._country is not None

    async def keep_up(self) -> None:
        """Look up what came since; all of it the first time."""
        while self.configured:
            rows = await self._store.all(
                "SELECT id, address FROM inventory_hosts WHERE id > ? ORDER BY id LIMIT ?", (self._done, _HOSTS)
            )
            if not rows:
                return
            found = [(*self._look_up(row["address"]), row["id"]) for row in rows]

            def keep(tx: Tx, found: Sequence[Sequence[object]] = found) -> None:
                tx.executemany("UPDATE inventory_hosts SET asn = ?, as_name = ?, country = ? WHERE id = ?", found)

            await self._store.write(keep)
            self._done = int(rows[-1]["id"])

    def close(self) -> None:
        """Let go of the files."""
        for database in (self._asn, self._country):
            if database is not None:
                database.close()

    def _look_up(self, address: str) -> tuple[int | None, str | None, str | None]:
        of_asn, of_country = _get(self._asn, address), _get(self._country, address)
        number, name = of_asn.get("autonomous_system_number"), of_asn.get("autonomous_system_organization")
        country = of_country.get("country")
        code = country.get("iso_code") if isinstance(country, Mapping) else None
        return (
            number if isinstance(number, int) else None,
            name if isinstance(name, str) else None,
            code if isinstance(code, str) else None,
        )


def _open(path: str) -> maxminddb.Reader | None:
    if not path:
        return None
    try:
        return maxminddb.open_database(Path(path), maxminddb.MODE_MEMORY)
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise PeerdError(
            Reason.INVALID_CONFIG,
            f"[inventory] names {path}, which cannot be read: {error}",
            next_action="name an MMDB file, or leave it out",
        ) from error


def _get(database: maxminddb.Reader | None, address: str) -> Mapping[str, object]:
    if database is None:
        return {}
    try:
        found = database.get(address)
    except (
        ValueError,
        maxminddb.InvalidDatabaseError,
    ) as error:  # an IPv6 address and a file of IPv4, or a broken file
        _log.debug("inventory.not_looked_up", address=address, error=str(error))
        return {}
    return found if isinstance(found, Mapping) else {}
