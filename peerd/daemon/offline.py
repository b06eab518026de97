"""What is done to a data directory while no daemon holds it: make an identity, found a mesh, join one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from peerd.clock import SystemClock
from peerd.config import Config
from peerd.datadir import DataDir
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity, create_identity, load_identity
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.invites import parse_token
from peerd.mesh.joining import join_as_admitted, join_with_token
from peerd.mesh.mesh import Mesh
from peerd.mesh.refounding import refound
from peerd.profiles.profile import ProfileKind
from peerd.registry.adverts import Adverts
from peerd.registry.notes import Notes
from peerd.store import Store, open_store
from peerd.store.restore import prepare, stage, swap_staged


def ensure_identity(config: Config) -> Identity:
    """The identity of this data directory, made if there is none. Raises KEY_EXPOSED."""
    folder = DataDir(config.data_dir)
    folder.create()
    return load_identity(folder.identity_key) if folder.initialized else create_identity(folder.identity_key)


async def found(config: Config) -> PeerId:
    """Make an identity and begin a mesh of one. Raises ALREADY_INITIALIZED."""
    folder = DataDir(config.data_dir)
    if folder.initialized and folder.store.exists():
        raise PeerdError(Reason.ALREADY_INITIALIZED, f"{config.data_dir} holds a peer already")
    async with _held(config) as (identity, store):
        await Mesh.found(store, identity, SystemClock())
        return identity.peer_id


async def join_invited(config: Config, token: str) -> PeerId:
    """Join with an invite; returns the id of the mesh. Raises an INVITE_ reason or ALREADY_A_MEMBER."""
    parsed = parse_token(token)
    async with _held(config) as (identity, store):
        await join_with_token(store, identity, SystemClock(), parsed)
    return parsed.mesh_id


async def refound_mesh(config: Config) -> tuple[PeerId, int, str]:
    """Found anew with all members but the lost founder; returns our id, how many were admitted, and our address.

    Raises NOT_INITIALIZED, ALREADY_INITIALIZED or DAEMON_RUNNING.
    """
    async with _held(config) as (identity, store):
        clock = SystemClock()
        mesh, old_founder = await refound(store, identity, clock)
        notes = Notes(store, mesh, identity).topic
        profiles = DocumentTopic(ProfileKind(), store, mesh, identity)
        adverts = Adverts(store, mesh, identity)
        await notes.load()
        await notes.adopt(old_founder)
        await profiles.load()
        await profiles.adopt(old_founder)
        await adverts.load()
        advert = adverts.find(identity.peer_id)
        address = advert.addresses[0] if advert is not None and advert.addresses else config.peer.listen
        return identity.peer_id, len(mesh.others()), address


async def join_admitted(config: Config, mesh_id: str, address: str, member: str, *, replace: bool = False) -> PeerId:
    """Join a mesh that has admitted this peer by its id, leaving another if told; returns the id of the mesh."""
    mesh = parse_peer_id(mesh_id)
    async with _held(config) as (identity, store):
        clock = SystemClock()
        await join_as_admitted(
            store,
            identity,
            clock,
            mesh_id=mesh,
            member=parse_peer_id(member),
            address=address,
            replace=replace,
        )
    return mesh


def restore_offline(config: Config, file: Path, *, allow_other_identity: bool) -> Path | None:
    """Take the store of a backup; returns where the one it replaces is kept.

    Raises NOT_INITIALIZED, DAEMON_RUNNING, NOT_FOUND, INVALID_BACKUP, STORE_TOO_NEW, OTHER_IDENTITY or DISK_LOW.
    """
    folder = DataDir(config.data_dir)
    if not folder.initialized:
        raise PeerdError(
            Reason.NOT_INITIALIZED,
            f"there is no peer in {config.data_dir}, and no backup holds a key",
            next_action="put the peer's identity.key back first; for a new peer: 'peerd identity'",
        )
    folder.check_mode()
    self_id, now = load_identity(folder.identity_key).peer_id, SystemClock().now()
    with folder.lock():
        prepare(file, folder.store, peer_id=self_id, allow_other_identity=allow_other_identity, now=now)
        stage(folder.store)
        return swap_staged(folder.store, backup_dir=folder.store.parent / "backups", peer_id=self_id, now=now)


@asynccontextmanager
async def _held(config: Config) -> AsyncIterator[tuple[Identity, Store]]:
    """Identity and store, with the directory locked against a daemon."""
    identity = ensure_identity(config)
    folder = DataDir(config.data_dir)
    with folder.lock():
        # A restore that waits for a start would otherwise take away what is done now.
        swap_staged(
            folder.store,
            backup_dir=folder.store.parent / "backups",
            peer_id=identity.peer_id,
            now=SystemClock().now(),
        )
        store = await open_store(folder.store, SystemClock(), peer_id=identity.peer_id)
        try:
            yield identity, store
        finally:
            await store.close()
