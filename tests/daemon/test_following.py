"""What the profiles of its roles say, a peer does, though not always at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from peerd.catalog.catalog import Catalog
from peerd.clock import FakeClock
from peerd.config import Config, PeerConfig
from peerd.daemon.advert import own_advert
from peerd.daemon.following import Following
from peerd.detector.prober import Prober
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.mesh import Mesh
from peerd.profiles.profile import ProfileKind
from peerd.registry.adverts import MAX_LABELS, Adverts
from peerd.store import Store
from peerd.v1.catalog_pb2 import SERVICE_KIND_PROCESS, ServiceDeclaration
from peerd.v1.profiles_pb2 import Profile, ProfileConfig
from peerd.v1.registry_pb2 import ISOLATION_LEVEL_NONE, LIMITS_LEVEL_RLIMITS, Hardware


class _Prober:
    def retime(self, timing: object) -> None:
        """Nothing probes here."""


async def _published() -> None:
    """Nobody hears it."""


async def test_services_that_the_store_could_not_take_are_offered_later(
    tmp_path: Path, store: Store, identity: Identity, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    topic: DocumentTopic[Profile] = DocumentTopic(ProfileKind(), store, mesh, identity)
    catalog = Catalog(store, tmp_path)
    config = Config(data_dir=tmp_path, socket=tmp_path / "s", peer=PeerConfig(accept_profile_services=True))
    following = Following(
        config, topic, lambda: ["worker"], catalog=catalog, prober=cast(Prober, _Prober()), changed=_published
    )
    echo = ServiceDeclaration(name="echo", kind=SERVICE_KIND_PROCESS, argv=["/bin/echo"])
    profile = Profile(role="worker", config=ProfileConfig(labels=["rack=3"], services=[echo]))
    await store.write(lambda tx: topic.put(tx, "worker", profile))

    async def refused(effect: Any) -> Any:
        raise PeerdError(Reason.DISK_LOW, "the disk is full")

    with monkeypatch.context() as full:
        full.setattr(store, "write", refused)
        await following.apply()
    assert following.followed.labels == {"rack=3"}, "all else counts"
    assert await store.write(lambda tx: catalog.find(tx, "echo")) is None
    await following.apply()
    assert await store.write(lambda tx: catalog.find(tx, "echo")) is not None


async def test_profiles_with_more_labels_than_an_advert_takes_keep_no_peer_from_starting(
    tmp_path: Path, store: Store, identity: Identity, clock: FakeClock
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    topic: DocumentTopic[Profile] = DocumentTopic(ProfileKind(), store, mesh, identity)
    adverts = Adverts(store, mesh, identity)
    config = Config(data_dir=tmp_path, socket=tmp_path / "s", peer=PeerConfig(name="desk", labels=("zone=1", "gpu")))

    async def publish() -> None:  # as the daemon does, also before it has started
        limits, isolation = LIMITS_LEVEL_RLIMITS, ISOLATION_LEVEL_NONE
        advert = own_advert(
            config, following.followed, Hardware(), port=1, isolation=isolation, limits=limits, catalog_digest=b""
        )
        await adverts.publish(advert)

    roles = ["one", "two", "three"]
    following = Following(
        config,
        topic,
        lambda: roles,
        catalog=Catalog(store, tmp_path),
        prober=cast(Prober, _Prober()),
        changed=publish,
    )
    for role in roles:
        profile = Profile(role=role, config=ProfileConfig(labels=[f"{role}-{number}" for number in range(32)]))
        await store.write(lambda tx, role=role, profile=profile: topic.put(tx, role, profile))  # type: ignore[misc]
    await following.apply()
    said = adverts.find(identity.peer_id)
    assert said is not None and len(said.labels) == MAX_LABELS
    assert {"zone=1", "gpu", "one-0"} < set(said.labels), "its own come first"
