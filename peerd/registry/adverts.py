"""Adverts: what each peer says of itself, signed by itself, the highest version wins.

An advert counts only for a member of the mesh; labels and names in it are hints, roles and grants come from member
records alone. One that is not signed by its subject, or is older than what is known, changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from google.protobuf.message import DecodeError

from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.envelope import DAMAGE, open_envelope, seal
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import check_name, to_timestamp
from peerd.store import Store, Tx
from peerd.store.quarantine import move_aside
from peerd.v1 import mesh_pb2
from peerd.v1.registry_pb2 import Advert, Location
from peerd.v1.signed_pb2 import Envelope

_log = structlog.get_logger(__name__)

ADVERT_TYPE = "application/vnd.peerd.advert.v1+protobuf"
MAX_BYTES = 32 * 1024
MAX_LABELS = 64
"""Of one peer, those of its profiles included."""
_MAX_ADDRESSES = 16
_MAX_TEXT = 256
"""Characters of a model name or path."""
_MAX_VERSION = 2**62
"""What a column of the store holds, with room to outrank it."""


def read_advert(envelope: Envelope) -> Advert:
    """Verify, then parse the same bytes. Raises INVALID_SIGNATURE, INVALID_RECORD or INVALID_NAME."""
    if len(envelope.payload) > MAX_BYTES:
        raise PeerdError(Reason.INVALID_RECORD, f"an advert of {len(envelope.payload)} bytes; at most {MAX_BYTES}")
    opened = open_envelope(envelope, ADVERT_TYPE)
    try:
        advert = Advert.FromString(opened.payload)
    except DecodeError as error:
        raise PeerdError(Reason.INVALID_RECORD, "the advert cannot be read") from error
    if parse_peer_id(advert.peer_id) != opened.signer:
        raise PeerdError(Reason.INVALID_SIGNATURE, "the advert is not signed by the peer it describes")
    check_advert(advert)
    return advert


def check_advert(advert: Advert) -> None:
    """Refuse names and labels that could not be shown or typed. Raises INVALID_NAME or INVALID_RECORD."""
    check_name(advert.name, "name")
    if is_peer_id(advert.name):
        raise PeerdError(Reason.INVALID_NAME, "a peer may not be named like a peer id")
    if len(advert.labels) > MAX_LABELS or len(advert.addresses) > _MAX_ADDRESSES or len(advert.groups) > MAX_LABELS:
        raise PeerdError(Reason.INVALID_RECORD, "the advert has too many labels, groups or addresses")
    if not 1 <= advert.version <= _MAX_VERSION:
        raise PeerdError(Reason.INVALID_RECORD, f"the advert has version {advert.version}")
    for label in advert.labels:
        for part in label.split("=", 1):
            check_name(part, "labels")
    for group in advert.groups:
        check_name(group, "groups")
    check_location(advert.location)
    for text in _free_texts(advert):
        if len(text) > _MAX_TEXT or not text.isprintable():
            raise PeerdError(Reason.INVALID_RECORD, f"{text[:80]!r} is too long or holds control characters")
    for address in advert.addresses:
        host, _, port = address.rpartition(":")
        if (
            not host
            or not port.isdigit()
            or not 0 < int(port) < 65536
            or len(address) > 260
            or not address.isprintable()
        ):
            raise PeerdError(Reason.INVALID_RECORD, f"{address[:80]!r} is not host:port")


def check_location(location: Location) -> None:
    """Refuse places that are not on this planet. Raises INVALID_NAME or INVALID_RECORD."""
    if location.region:
        check_name(location.region, "region")
    if location.HasField("latitude") != location.HasField("longitude"):
        raise PeerdError(Reason.INVALID_RECORD, "a latitude needs a longitude, and the other way round")
    if not (-90 <= location.latitude <= 90 and -180 <= location.longitude <= 180):  # refuses NaN, too
        raise PeerdError(Reason.INVALID_RECORD, f"{location.latitude:g}, {location.longitude:g} is no place on Earth")


def _free_texts(advert: Advert) -> Iterator[str]:
    """What a machine says of itself in words of others: models, paths, versions."""
    hardware = advert.hardware
    yield from (advert.platform, advert.peerd_version, advert.hostname, hardware.cpu_model)
    for disk in hardware.disks:
        yield from (disk.path, disk.filesystem)
    for gpu in hardware.gpus:
        yield from (gpu.vendor, gpu.model)
    for port in hardware.serial_ports:
        yield from (port.path, port.vendor_id, port.product_id, port.serial_number)
    for runner in hardware.runners:
        yield from (runner.name, runner.version)


def is_peer_id(text: str) -> bool:
    """Whether the text is the id of some peer."""
    try:
        parse_peer_id(text)
    except PeerdError:
        return False
    return True


class Adverts:
    """The newest advert of each peer. A gossip topic."""

    name = "advert"

    def __init__(self, store: Store, mesh: Mesh, identity: Identity) -> None:
        self._store = store
        self._mesh = mesh
        self._identity = identity
        self._known: dict[PeerId, tuple[Advert, Envelope]] = {}
        self._on_change: list[Callable[[frozenset[PeerId]], None]] = []

    async def load(self) -> None:
        """Read what the store knows."""
        for row in await self._store.all("SELECT peer_id, envelope FROM adverts"):
            try:
                envelope = Envelope.FromString(row["envelope"])
                advert = read_advert(envelope)
            except (PeerdError, DecodeError) as error:
                if isinstance(error, PeerdError) and error.reason not in DAMAGE:
                    # Stored by a version with other rules; its peer will send a new one.
                    _log.info("registry.stored_advert_ignored", message=error.message)
                    continue
                key, content = {"peer_id": row["peer_id"]}, row["envelope"]
                await self._store.write(
                    functools.partial(move_aside, source="adverts", key=key, content=content, error=error)
                )
                continue
            self._known[PeerId(advert.peer_id)] = (advert, envelope)

    def on_change(self, callback: Callable[[frozenset[PeerId]], None]) -> None:
        """Call this with the peers whose adverts changed; our own must then be pushed to the others."""
        self._on_change.append(callback)

    def find(self, peer_id: PeerId) -> Advert | None:
        """The newest advert of a peer."""
        entry = self._known.get(peer_id)
        return entry[0] if entry else None

    async def publish(self, content: Advert) -> bool:
        """Sign our own advert if it says anything new; its version is one more then. True if it did."""
        said = await self._store.write(lambda tx: self._say(tx, content))
        if said:
            failpoint("registry.advert.after_commit")
        return said

    def _say(self, tx: Tx, content: Advert | None, *, above: int = 0) -> bool:
        """Sign the content (None: what we said last) with a version later than that and ``above``; False if it is said.

        What was said last is read in the transaction: of two that are published at once the later one follows the other
        and does not come with the same version, which nobody takes.
        """
        own = self._identity.peer_id
        row = tx.one("SELECT version, envelope FROM adverts WHERE peer_id = ?", (own,))
        held = row["version"] if row is not None else 0
        last = _content(_read_again(row["envelope"])) if row is not None else Advert()
        advert = last if content is None else _content(content)
        if held >= max(above, 1) and advert == last:
            return False
        advert.peer_id, advert.version = own, max(held, above) + 1
        check_advert(advert)
        advert.issued_at.CopyFrom(to_timestamp(tx.now))
        self._keep(tx, advert, seal(self._identity, advert.SerializeToString(deterministic=True), ADVERT_TYPE))
        failpoint("registry.advert.before_commit")
        return True

    # -- The gossip topic

    def summary(self) -> list[mesh_pb2.DocumentVersion]:
        """Versions of what is known of members."""
        return [
            mesh_pb2.DocumentVersion(key=peer_id, version=advert.version, digest=digest(envelope.payload))
            for peer_id, (advert, envelope) in self._known.items()
            if self._mesh.grants(peer_id) is not None
        ]

    def lacking(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Members of which they hold a later version."""
        return [
            entry.key
            for entry in theirs
            if entry.version > self._version(entry.key) and self._mesh.grants(PeerId(entry.key)) is not None
        ]

    def newer(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Keys of which we hold a later version."""
        held = {entry.key: entry.version for entry in theirs}
        return [entry.key for entry in self.summary() if entry.version > held.get(entry.key, 0)]

    def documents(self, keys: Iterable[str]) -> Iterator[mesh_pb2.DocumentChain]:
        """Our envelopes of these keys."""
        for key in keys:
            entry = self._known.get(PeerId(key))
            if entry is not None:
                yield mesh_pb2.DocumentChain(topic=self.name, key=key, envelopes=[entry[1]])

    async def apply(self, chains: Sequence[mesh_pb2.DocumentChain], source: str) -> set[str]:
        """Take in adverts of members that are newer than ours; returns whose."""
        changed: set[str] = set()
        for chain in chains:
            try:
                for envelope in chain.envelopes[-1:]:
                    advert = read_advert(envelope)
                    if await self._take(advert, envelope):
                        changed.add(advert.peer_id)
            except PeerdError as error:
                _log.info("registry.advert_refused", source=source, peer=chain.key[:60], message=error.message)
        return changed

    async def _take(self, advert: Advert, envelope: Envelope) -> bool:
        peer_id = PeerId(advert.peer_id)
        if self._mesh.grants(peer_id) is None or advert.version <= self._version(peer_id):
            return False
        if peer_id == self._identity.peer_id and self.find(peer_id) is not None:
            # We said this before our store was lost or set back. What we say now must outrank it.
            return await self._store.write(lambda tx: self._say(tx, None, above=advert.version))
        await self._store.write(lambda tx: self._keep(tx, advert, envelope))
        return True

    def _version(self, peer_id: str) -> int:
        advert = self.find(PeerId(peer_id))
        return advert.version if advert is not None else 0

    def _keep(self, tx: Tx, advert: Advert, envelope: Envelope) -> None:
        """Store it; it counts from the commit on, whoever waits for that."""
        _save(tx, advert, envelope)
        tx.on_commit(lambda: self._install(advert, envelope))

    def _install(self, advert: Advert, envelope: Envelope) -> None:
        peer_id = PeerId(advert.peer_id)
        if advert.version <= self._version(peer_id):
            return  # a later one was stored meanwhile
        self._known[peer_id] = (advert, envelope)
        for callback in self._on_change:
            callback(frozenset({peer_id}))


def _content(advert: Advert) -> Advert:
    """What it says, without what signing adds."""
    content = Advert()
    content.CopyFrom(advert)
    for field in ("peer_id", "version", "issued_at"):
        content.ClearField(field)
    return content


def _read_again(stored: bytes) -> Advert:
    """An advert of ours that was read and verified before; an empty one if it was damaged since."""
    try:
        return Advert.FromString(Envelope.FromString(stored).payload)
    except DecodeError:
        return Advert()


def _save(tx: Tx, advert: Advert, envelope: Envelope) -> None:
    tx.execute(
        "INSERT INTO adverts (peer_id, version, digest, envelope, stored_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (peer_id) DO UPDATE SET version = excluded.version, digest = excluded.digest,"
        " envelope = excluded.envelope, stored_at = excluded.stored_at WHERE excluded.version > version",
        (advert.peer_id, advert.version, digest(envelope.payload), envelope.SerializeToString(), tx.now),
    )
