"""``peerctl orgs``: members are kept by what does not change."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

from peerd.errors import Reason
from peerd.v1 import nodes_pb2, registry_pb2
from tests.cli.conftest import Peerctl
from tests.cli.fake_daemon import FakeDaemon, refuse

BETA = "b" * 52


@pytest.fixture(autouse=True)
def answers(daemon: FakeDaemon) -> None:
    peers = [
        registry_pb2.Peer(peer_id=BETA, name="beta", roles=["scanners"]),
        registry_pb2.Peer(peer_id="c" * 52, name="scanners"),
    ]
    daemon.on("RegistryService.ListPeers", registry_pb2.ListPeersResponse(peers=peers))
    organization = nodes_pb2.Organization(slug="acme", org_id="1")
    daemon.on("OrganizationService.GetOrganization", nodes_pb2.GetOrganizationResponse(organization=organization))
    daemon.on("OrganizationService.AddOrganization", nodes_pb2.AddOrganizationResponse(organization=organization))
    daemon.on("OrganizationService.UpdateOrganization", nodes_pb2.UpdateOrganizationResponse(organization=organization))


def test_a_member_that_is_a_peers_name_is_kept_by_its_id_and_a_role_as_it_is(
    peerctl: Peerctl, daemon: FakeDaemon
) -> None:
    assert peerctl("orgs", "add", "acme", "--member", "beta", "--member", "operators").exit_code == 0
    assert peerctl("orgs", "set", "acme", "--member", BETA).exit_code == 0
    (added,) = daemon.requests("OrganizationService.AddOrganization")
    assert list(added.policy.members) == [BETA, "operators"]
    (changed,) = daemon.requests("OrganizationService.UpdateOrganization")
    assert list(changed.policy.members) == [BETA]


def test_a_member_that_may_be_either_is_refused(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    outcome = peerctl("orgs", "add", "acme", "--member", "scanners")
    assert outcome.exit_code != 0
    assert "a peer and a role" in outcome.err
    assert "c" * 52 in outcome.err
    assert not daemon.requests("OrganizationService.AddOrganization")


def test_a_change_takes_nothing_back_that_somebody_else_changes_in_the_same_moment(
    peerctl: Peerctl, daemon: FakeDaemon
) -> None:
    stored = nodes_pb2.OrganizationPolicy(max_level=2)

    def get(request: nodes_pb2.GetOrganizationRequest, context: grpc.ServicerContext) -> Message:
        organization = nodes_pb2.Organization(slug="acme", policy=stored)
        answer = nodes_pb2.GetOrganizationResponse.FromString(
            nodes_pb2.GetOrganizationResponse(organization=organization).SerializeToString()
        )
        stored.blocked_hosts[:] = ["10.0.0.5"]  # by another operator, once this one has read it
        return answer

    def update(request: nodes_pb2.UpdateOrganizationRequest, context: grpc.ServicerContext) -> Message:
        if request.policy_before != stored:
            refuse(context, Reason.STALE, "changed meanwhile")
        stored.CopyFrom(request.policy)
        return nodes_pb2.UpdateOrganizationResponse(organization=nodes_pb2.Organization(slug="acme", policy=stored))

    daemon.on("OrganizationService.GetOrganization", get)
    daemon.on("OrganizationService.UpdateOrganization", update)
    assert peerctl("orgs", "set", "acme", "--max-level", "1").exit_code == 0
    assert (stored.max_level, list(stored.blocked_hosts)) == (1, ["10.0.0.5"])
