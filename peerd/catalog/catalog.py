"""The services of this peer: from its configuration, and added while it runs.

The configuration is the owner's file and wins: it is applied at each start, its services can be switched off but not
removed or replaced over the wire, and one that vanished from the file is offered no longer. The catalog's digest
stands in the peer's advert, so that others see a change without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from peerd.catalog import repository
from peerd.catalog.declaration import check_declaration, from_config
from peerd.catalog.model import Service
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store import Store, Tx
from peerd.store.quarantine import put_aside
from peerd.v1 import catalog_pb2


class Catalog:
    """What this peer offers. Reads and writes happen inside the caller's transaction."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self._store = store
        self._data_dir = data_dir
        self._digest = b""
        self._listeners: list[Callable[[], None]] = []

    @property
    def digest(self) -> bytes:
        """BLAKE3 over all offered services; for the advert."""
        return self._digest

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this, on the event loop, after each committed change."""
        self._listeners.append(listener)

    async def sync(self, configured: Sequence[Mapping[str, object]]) -> None:
        """Make the services of the configuration what it says now. Call once at start, before serving.

        Raises INVALID_CONFIG or INVALID_ARGUMENT naming service and field.
        """
        protos = [from_config(entry) for entry in configured]
        if len({proto.name for proto in protos}) != len(protos):
            raise PeerdError(Reason.INVALID_CONFIG, "two services of the configuration have the same name")
        await self._replace_all(protos, "config")
        await self._store.write(self._put_aside_damaged)

    def _put_aside_damaged(self, tx: Tx) -> None:
        """What cannot be read cannot be offered; its name keeps its id for the next who declares it."""
        damaged = False
        for row in repository.offered(tx):
            try:
                repository.to_service(row)
            except (DecodeError, ValueError, KeyError) as error:
                put_aside(tx, "services", {"id": row["id"], "name": row["name"]}, row["declaration"], error)
                repository.withdraw(tx, row["id"])
                damaged = True
        if damaged:
            self._changed(tx)

    async def follow(self, services: Sequence[catalog_pb2.ServiceDeclaration]) -> None:
        """Offer what the profiles of this peer's roles say, and nothing else of that origin.

        What the owner has configured or added under the same name stays as it is. Raises INVALID_ARGUMENT.
        """
        await self._replace_all(services, "profile")

    async def _replace_all(self, protos: Sequence[catalog_pb2.ServiceDeclaration], origin: str) -> None:
        for proto in protos:
            check_declaration(proto, data_dir=self._data_dir)
        names = {proto.name for proto in protos}

        def apply(tx: Tx) -> None:
            kept = set()
            for row in repository.offered(tx):
                if row["origin"] == origin and row["name"] not in names:
                    repository.withdraw(tx, row["id"])
                elif row["origin"] != origin and origin == "profile":
                    kept.add(row["name"])
            for proto in protos:
                if proto.name not in kept:
                    repository.put(tx, proto, origin)
            self._changed(tx)

        await self._store.write(apply)

    def find(self, tx: Tx, name_or_id: str) -> Service | None:
        """The offered service of that name or id."""
        row = repository.find(tx, name_or_id)
        return repository.to_service(row) if row is not None else None

    def get(self, tx: Tx, name_or_id: str) -> Service:
        """The same; raises SERVICE_NOT_FOUND."""
        service = self.find(tx, name_or_id)
        if service is None:
            raise PeerdError(Reason.SERVICE_NOT_FOUND, f"this peer offers no service {name_or_id!r}")
        return service

    def add(self, tx: Tx, proto: catalog_pb2.ServiceDeclaration, *, replace: bool) -> Service:
        """Offer a service. Raises INVALID_ARGUMENT, SERVICE_KIND_UNSUPPORTED, ALREADY_EXISTS."""
        check_declaration(proto, data_dir=self._data_dir)
        present = self.find(tx, proto.name)
        if present is not None and present.origin == "config":
            raise PeerdError(
                Reason.ALREADY_EXISTS,
                f"service {proto.name!r} comes from the configuration of this peer",
                next_action="change it in peerd.toml on that machine and restart peerd, or choose another name",
            )
        if present is not None and not replace:
            raise PeerdError(Reason.ALREADY_EXISTS, f"this peer offers a service {proto.name!r} already")
        repository.put(tx, proto, "added")
        self._changed(tx)
        return self.get(tx, proto.name)

    def set_active(self, tx: Tx, name_or_id: str, active: bool) -> Service:
        """Let a service be ordered or not; jobs that exist go on. Raises SERVICE_NOT_FOUND."""
        service = self.get(tx, name_or_id)
        repository.set_active(tx, service.service_id, active)
        self._changed(tx)
        return self.get(tx, str(service.service_id))

    def remove(self, tx: Tx, name_or_id: str) -> None:
        """Offer it no longer; jobs that exist go on. Raises SERVICE_NOT_FOUND, ILLEGAL_TRANSITION."""
        service = self.get(tx, name_or_id)
        if service.origin == "config":
            raise PeerdError(
                Reason.ILLEGAL_TRANSITION,
                f"service {service.name!r} comes from the configuration of this peer",
                next_action="delete it from peerd.toml and restart peerd, or deactivate it",
            )
        repository.withdraw(tx, service.service_id)
        self._changed(tx)

    def _changed(self, tx: Tx) -> None:
        """Compute the digest of what this transaction leaves; it becomes ours when that is durable."""
        content = b"".join(
            digest(b"%d %d " % (row["id"], row["active"]) + row["declaration"]) for row in repository.offered(tx)
        )
        new = digest(content)

        def publish() -> None:
            self._digest = new
            for listener in self._listeners:
                listener()

        failpoint("catalog.change.before_commit")
        tx.on_commit(publish)
