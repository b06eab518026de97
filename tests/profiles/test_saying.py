"""What is said of a role over the wire counts once, and no word is lost under another."""

from __future__ import annotations

import asyncio

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.mesh import Mesh
from peerd.profiles.profile import ProfileKind
from peerd.profiles.servicer import ProfileServicer
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.store import Store
from peerd.v1 import profiles_pb2
from peerd.v1.profiles_pb2 import Profile, ProfileConfig


@pytest.fixture
async def servicer(store: Store, clock: FakeClock, identity: Identity) -> ProfileServicer:
    mesh = await Mesh.found(store, identity, clock)
    topic: DocumentTopic[Profile] = DocumentTopic(ProfileKind(), store, mesh, identity)
    return ProfileServicer(store, topic)


@pytest.fixture(autouse=True)
def caller(identity: Identity) -> None:
    current.set(Caller(peer_id=identity.peer_id, grants=ALL_GRANTS, local=True))


def put(label: str, expected: int | None = None, request_id: str = "") -> profiles_pb2.SetProfileRequest:
    config = ProfileConfig(labels=[label])
    return profiles_pb2.SetProfileRequest(
        role="worker", config=config, expected_version=expected, request_id=request_id
    )


async def test_a_deletion_that_is_asked_for_again_is_answered_as_before(servicer: ProfileServicer) -> None:
    """Regression: whoever had not heard the answer was told that there is no such profile."""
    await servicer.SetProfile(put("a"), None)
    request = profiles_pb2.DeleteProfileRequest(role="worker", request_id="one")
    first = await servicer.DeleteProfile(request, None)
    assert first.profile.deleted and await servicer.DeleteProfile(request, None) == first
    for role, request_id in (("worker", "two"), ("nobody", "three")):
        with pytest.raises(PeerdError) as caught:
            await servicer.DeleteProfile(profiles_pb2.DeleteProfileRequest(role=role, request_id=request_id), None)
        assert caught.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("before", [0, 3])
async def test_of_changes_to_one_version_in_one_moment_one_counts(servicer: ProfileServicer, before: int) -> None:
    """Regression: all of them were stored, the last over the others, though each expected what it had seen."""
    for number in range(before):
        await servicer.SetProfile(put(f"old{number}", number), None)
    said = await asyncio.gather(
        *(servicer.SetProfile(put(f"new{number}", before), None) for number in range(5)), return_exceptions=True
    )
    refusals = [one for one in said if isinstance(one, PeerdError)]
    (made,) = [one for one in said if isinstance(one, profiles_pb2.SetProfileResponse)]
    assert made.profile.version == before + 1
    assert [one.reason for one in refusals] == [Reason.STALE] * 4
    found = await servicer.GetProfile(profiles_pb2.GetProfileRequest(role="worker"), None)
    assert found.profile == made.profile
    await servicer.SetProfile(put("next", before + 1), None)
