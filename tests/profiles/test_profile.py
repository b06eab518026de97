"""What a profile may say, and what follows of several."""

from __future__ import annotations

import pytest

from peerd.errors import PeerdError, Reason
from peerd.profiles.profile import check_profile, follow
from peerd.v1.catalog_pb2 import SERVICE_KIND_PROCESS, ServiceDeclaration
from peerd.v1.profiles_pb2 import Profile, ProfileConfig, ProfileLimits


def echo(name: str = "echo", **more: object) -> ServiceDeclaration:
    return ServiceDeclaration(name=name, kind=SERVICE_KIND_PROCESS, **{"argv": ["/bin/echo"], **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ProfileConfig(labels=["a b"]), "labels[0]"),
        (ProfileConfig(labels=["ok", "x\x07"]), "labels[1]"),
        (ProfileConfig(labels=["x" * 64]), "labels[0]"),
        (ProfileConfig(labels=[f"l{number}" for number in range(33)]), "labels"),
        (ProfileConfig(heartbeat_seconds=0.01), "heartbeat_seconds"),
        (ProfileConfig(heartbeat_seconds=1e9), "heartbeat_seconds"),
        (ProfileConfig(heartbeat_seconds=float("nan")), "heartbeat_seconds"),
        (ProfileConfig(services=[echo(argv=[])]), "services[0]"),
        (ProfileConfig(services=[echo(), echo()]), "services[1]"),
        (ProfileConfig(services=[echo(name="../x")]), "services[0]"),
    ],
)
def test_what_no_peer_could_follow_is_refused_with_its_field(config: ProfileConfig, field: str) -> None:
    with pytest.raises(PeerdError) as caught:
        check_profile("worker", config, "")
    assert caught.value.reason is Reason.INVALID_PROFILE
    assert field in [violation.field for violation in caught.value.violations]


def test_a_role_and_a_comment_must_be_fit_to_be_shown() -> None:
    with pytest.raises(PeerdError):
        check_profile("a/b", ProfileConfig(), "")
    with pytest.raises(PeerdError):
        check_profile("a", ProfileConfig(), "line\nline")
    check_profile("a", ProfileConfig(labels=["rack=3"], heartbeat_seconds=2, services=[echo()]), "fine")


def test_a_peer_of_several_roles_follows_all_and_the_smallest_limit() -> None:
    worker = Profile(
        role="worker",
        version=2,
        config=ProfileConfig(
            labels=["a"], limits=ProfileLimits(max_running_jobs=4), heartbeat_seconds=5, services=[echo()]
        ),
    )
    scanner = Profile(
        role="scanner",
        version=3,
        config=ProfileConfig(labels=["b"], limits=ProfileLimits(max_running_jobs=2, max_queued_jobs=9)),
    )
    gone = Profile(role="gone", version=9, deleted=True, config=ProfileConfig(labels=["c"]))
    followed = follow([worker, scanner, gone])
    assert followed.labels == {"a", "b"}
    assert (followed.max_running_jobs, followed.max_queued_jobs, followed.heartbeat_seconds) == (2, 9, 5)
    assert [service.name for service in followed.services] == ["echo"]
    assert followed.version == 5
    assert follow([]).version == 0
