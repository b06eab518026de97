"""When two registrations are of one machine, and what may be registered."""

from __future__ import annotations

import pytest

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.externals.external import Known, check_external, is_node_id, match, view_of
from peerd.identity.peer_id import PeerId
from peerd.registry.model import PeerStatus
from peerd.v1.registry_pb2 import ExternalPeer

GATEWAY, OTHER = PeerId("g" * 52), PeerId("o" * 52)
NOW, OFFLINE = Millis(1_000_000), 300


def known(number: int, hostname: str = "h", ip: str = "192.0.2.1", *, seen: int = 0, **more: object) -> Known:
    external = ExternalPeer(node_id=f"ext-{number:016x}", hostname=hostname, ip=ip, role="r", online=True, **more)  # type: ignore[arg-type]
    return Known(external=external, gateway=GATEWAY, version=1, last_heartbeat=Millis(NOW - seen))


def found(everyone: list[Known], *, node_id: str = "", hostname: str = "h", ip: str = "192.0.2.1") -> str | None:
    entry = match(everyone, node_id=node_id, hostname=hostname, ip=ip, now=NOW, offline_ms=OFFLINE)
    return entry.external.node_id[-1] if entry else None


def test_which_machine_registers_again() -> None:
    here, silent = known(1), known(2, "s", seen=1000)
    assert found([here], hostname="h", ip="192.0.2.1") == "1"
    assert found([here], hostname="h", ip="192.0.2.99") is None, "it still beats: another machine of that name"
    assert found([silent], hostname="s", ip="192.0.2.99") == "2", "it was silent: it has moved"
    assert found([here], hostname="x", ip="192.0.2.1") is None, "an address alone is no machine"
    assert found([here, silent], node_id="ext-0000000000000002", hostname="new", ip="::1") == "2"
    assert found([here], node_id="ext-00000000000000ff") is None
    assert found([known(3, removed=True)]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": ""},
        {"hostname": "-x"},
        {"hostname": "a b"},
        {"hostname": "x" * 300},
        {"ip": ""},
        {"ip": "1.2.3"},
        {"ip": "host"},
        {"role": ""},
        {"role": "a/b"},
        {"labels": ["a b"]},
        {"labels": ["x"] * 65},
        {"labels": ["="]},
    ],
)
def test_what_could_not_be_shown_is_refused(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"hostname": "h", "ip": "::1", "role": "r", **change}
    with pytest.raises(PeerdError) as caught:
        check_external(ExternalPeer(**fields))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.violations[0].field.split("[")[0] in change


def test_an_id_is_never_a_peers() -> None:
    assert is_node_id("ext-0123456789abcdef")
    for text in ("ext-0123", "ext-0123456789ABCDEF", "a" * 52, "ext-0123456789abcdef\n", ""):
        assert not is_node_id(text)


@pytest.mark.parametrize(
    ("self_id", "online", "present", "seen", "status"),
    [
        (GATEWAY, True, True, 0, PeerStatus.ONLINE),
        (GATEWAY, True, True, 1000, PeerStatus.OFFLINE),  # computed when read
        (OTHER, True, True, 1000, PeerStatus.ONLINE),  # the gateway knows better
        (OTHER, False, True, 0, PeerStatus.OFFLINE),
        (OTHER, True, False, 0, PeerStatus.OFFLINE),
    ],
)
def test_its_status_is_its_gateways_word(
    self_id: PeerId, online: bool, present: bool, seen: int, status: PeerStatus
) -> None:
    entry = known(1, seen=seen)
    entry.external.online = online
    view = view_of(entry, self_id=self_id, gateway_present=present, gateway_name="gate", now=NOW, offline_ms=OFFLINE)
    assert (view.status, view.external, view.via, view.grants) == (status, True, GATEWAY, frozenset())
    assert view.why
