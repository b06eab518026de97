"""``peerctl orgs``: members are kept by what does not change."""

from __future__ import annotations

import pytest

from peerd.v1 import nodes_pb2, registry_pb2
from tests.cli.conftest import Peerctl
from tests.cli.fake_daemon import FakeDaemon

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
