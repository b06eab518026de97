"""External machines of this peer and of all others: registration, heartbeats, going stale, removal."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.externals.external import ExternalKind, Known, check_external, match, view_of
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh.documents import Document, DocumentTopic
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import from_timestamp, to_timestamp
from peerd.registry.model import PeerView
from peerd.store import Store, Tx
from peerd.store.audit import note
from peerd.uninterrupted import uninterrupted
from peerd.v1.registry_pb2 import ExternalPeer

MAX_EXTERNALS = 2000


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What came of a registration."""

    node_id: str
    created: bool


@dataclass(frozen=True, kw_only=True)
class Details:
    """What an external machine tells of itself beyond what every peer has."""

    said: str
    """degraded, maintenance or offline; empty when all is well."""
    metadata: Mapping[str, Any]
    metrics: Mapping[str, float]
    """Of its last heartbeat; known to its gateway alone."""


class Externals:
    """All external machines this peer knows."""

    def __init__(self, store: Store, mesh: Mesh, identity: Identity, clock: Clock, *, offline_seconds: float) -> None:
        self.topic: DocumentTopic[ExternalPeer] = DocumentTopic(ExternalKind(), store, mesh, identity)
        self._store = store
        self._self_id = identity.peer_id
        self._clock = clock
        self._offline_ms = round(offline_seconds * 1000)
        self._heartbeats: dict[str, tuple[Millis, str]] = {}
        """When the last one came, by the steady clock, and what it said."""
        self._registering = asyncio.Lock()

    async def load(self) -> None:
        """Read what the store knows."""
        await self.topic.load()
        for row in await self._store.all("SELECT node_id, at, metrics FROM external_heartbeats"):
            self._heartbeats[row["node_id"]] = (row["at"], row["metrics"])

    def known(self) -> list[Known]:
        """All that are not removed."""
        return [self._known(entry) for entry in self.topic.current() if not entry.value.removed]

    def views(self, *, is_present: Callable[[PeerId], bool], name_of: Callable[[str], str]) -> list[PeerView]:
        """As peers; their status is that of this moment."""
        now = self._clock.now()
        return [
            view_of(
                entry,
                self_id=self._self_id,
                gateway_present=is_present(entry.gateway),
                gateway_name=name_of(entry.gateway),
                now=now,
                offline_ms=self._offline_ms,
            )
            for entry in self.known()
        ]

    def details(self, node_id: str) -> Details | None:
        """Of one external machine, if it is known."""
        document = self.topic.find(node_id)
        if document is None or document.value.removed:
            return None
        known = self._known(document)
        metadata = json.loads(known.external.metadata) if known.external.metadata else {}
        return Details(said=known.external.said, metadata=metadata, metrics=json.loads(known.metrics))

    async def register(self, asked: ExternalPeer, *, caller: str) -> Registered:
        """List a machine, or bring what is known of it up to date.

        Raises INVALID_ARGUMENT, NOT_FOUND, QUOTA_EXCEEDED.
        """
        check_external(asked)

        def write(tx: Tx) -> Registered:
            everyone = self.known()
            found = match(
                everyone,
                node_id=asked.node_id,
                hostname=asked.hostname,
                ip=asked.ip,
                now=tx.now,
                offline_ms=self._offline_ms,
            )
            if found is None and asked.node_id:
                raise _unknown(asked.node_id, "register without a node_id, and keep the one in the answer")
            if found is None and len(everyone) >= MAX_EXTERNALS:
                raise PeerdError(
                    Reason.QUOTA_EXCEEDED,
                    f"{MAX_EXTERNALS} external machines are listed",
                    next_action="forget some first: peerctl peers forget NODE_ID",
                )
            external = ExternalPeer()
            external.CopyFrom(asked)
            external.node_id = found.external.node_id if found else f"ext-{secrets.token_hex(8)}"
            first = found.external.registered_at if found else to_timestamp(tx.now)
            external.registered_at.CopyFrom(first)
            external.online = True
            if found is None or found.gateway != self._self_id or _said(external) != _said(found.external):
                external.last_heartbeat_at.CopyFrom(to_timestamp(tx.now))
                self.topic.put(tx, external.node_id, external)
            self._beat(tx, external.node_id, "online", "{}")
            note(
                tx,
                "RegisterExternal",
                caller=caller,
                target={"node_id": external.node_id, "hostname": external.hostname, "ip": external.ip},
            )
            return Registered(node_id=external.node_id, created=found is None)

        # One after the other: what is known is so from the commit on, and a machine that asks again, since it had no
        # answer, would be another one beside its first registration.
        async with self._registering:
            return await uninterrupted(self._store.write(write))

    async def beat(self, node_id: str, *, status: str, metrics: Mapping[str, float]) -> Millis:
        """A heartbeat came; returns its time. Raises NOT_FOUND."""

        def write(tx: Tx) -> Millis:
            document = self.topic.find(node_id)
            if document is None or document.value.removed:
                raise _unknown(node_id)
            self._beat(tx, node_id, status, json.dumps(dict(metrics)))
            said = "" if status == "online" else status
            if not document.value.online or document.signer != self._self_id or document.value.said != said:
                self._say(tx, document.value, online=True, said=said, at=tx.now)
            return tx.now

        return await self._store.write(write)

    def forget(self, tx: Tx, view: PeerView) -> None:
        """Remove one; it may register again. Raises NOT_FOUND."""
        document = self.topic.find(view.peer_id)
        if document is None or document.value.removed:
            raise _unknown(view.peer_id)
        gone = ExternalPeer()
        gone.CopyFrom(document.value)
        gone.removed = True
        self.topic.put(tx, gone.node_id, gone)
        tx.execute("DELETE FROM external_heartbeats WHERE node_id = ?", (gone.node_id,))
        tx.on_commit(lambda: self._heartbeats.pop(gone.node_id, None) and None)

    async def sweep(self) -> None:
        """Tell the other peers of machines of ours that have fallen silent."""
        now = self._clock.now()
        silent = [
            entry
            for entry in self.known()
            if entry.gateway == self._self_id and entry.external.online and entry.stale(now, self._offline_ms)
        ]
        for entry in silent:
            await self._store.write(lambda tx, node_id=entry.external.node_id: self._fell_silent(tx, node_id))  # type: ignore[misc]

    def _fell_silent(self, tx: Tx, node_id: str) -> None:
        """Say so, if it still is: with many of them it takes a while until it is the turn of the last."""
        document = self.topic.find(node_id)
        if document is None or document.value.removed or not document.value.online:
            return
        known = self._known(document)
        if known.gateway == self._self_id and known.stale(tx.now, self._offline_ms):
            self._say(tx, known.external, online=False, said="", at=known.last_heartbeat)

    def _known(self, document: Document[ExternalPeer]) -> Known:
        known = Known(
            external=document.value,
            gateway=document.signer,
            version=document.version,
            last_heartbeat=from_timestamp(document.value.last_heartbeat_at),
        )
        beat = self._heartbeats.get(document.key) if document.signer == self._self_id else None
        if beat is None:
            return known
        ago = self._clock.steady() - beat[0]  # whatever the clock on the wall was set to since
        return replace(known, last_heartbeat=Millis(self._clock.now() - ago), metrics=beat[1])

    def _say(self, tx: Tx, external: ExternalPeer, *, online: bool, said: str, at: Millis) -> None:
        anew = ExternalPeer()
        anew.CopyFrom(external)
        anew.online, anew.said = online, said
        anew.last_heartbeat_at.CopyFrom(to_timestamp(at))
        self.topic.put(tx, anew.node_id, anew)

    def _beat(self, tx: Tx, node_id: str, status: str, metrics: str) -> None:
        tx.execute(
            "INSERT INTO external_heartbeats (node_id, at, status, metrics) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (node_id) DO UPDATE SET at = excluded.at, status = excluded.status,"
            " metrics = excluded.metrics",
            (node_id, tx.steady, status, metrics),
        )
        at = tx.steady
        tx.on_commit(lambda: self._heartbeats.update({node_id: (at, metrics)}))


def _said(external: ExternalPeer) -> bytes:
    """What a machine says of itself, without what changes by itself."""
    said = ExternalPeer()
    said.CopyFrom(external)
    for field in ("version", "issued_at", "last_heartbeat_at"):
        said.ClearField(field)
    return said.SerializeToString(deterministic=True)


def _unknown(node_id: str, next_action: str = "register first: POST /api/v1/nodes/register") -> PeerdError:
    return PeerdError(Reason.NOT_FOUND, f"Node not found: {node_id[:80]}", next_action=next_action)
