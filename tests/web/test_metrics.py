"""Every instrument follows the conventions of Prometheus, and labels stay few."""

from __future__ import annotations

import re

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from peerd import metrics
from peerd.clock import Millis
from peerd.daemon.measuring import collect
from peerd.identity.peer_id import PeerId
from peerd.registry.model import PeerStatus, PeerView
from peerd.v1.registry_pb2 import Sample

UNITS = ("hashes_per_second", "seconds", "bytes", "info", "ratio")
COUNTED_THINGS = {
    "peerd_peers",
    "peerd_jobs_running",
    "peerd_jobs_queued",
    "peerd_ingest_jobs",
    "peerd_transfers_active",
    "peerd_local_health",
    "peerd_miners",
    "peerd_miners_unwell",
    "peerd_devices_unconfigured",
    "process_open_fds",
    "process_max_fds",
}
"""Gauges that count things or are a plain number, so have no unit. A new one is added here with thought."""
LABELS = {"code", "direction", "grpc_code", "grpc_method", "grpc_service", "kind", "method", "result", "role", "route"}
LABELS |= {"status", "version", "le", "implementation", "major", "minor", "patchlevel"}


def families() -> list[Metric]:
    return list(text_string_to_metric_families(generate_latest(metrics.REGISTRY).decode()))


def test_names_have_base_units_and_counters_end_in_total() -> None:
    found = families()
    assert len(found) > 20
    for family in found:
        assert re.fullmatch(r"(peerd|grpc_server|process|python)(_[a-z0-9]+)+", family.name), family.name
        assert family.documentation.strip(), family.name
        assert not re.search(r"_(milliseconds|ms|minutes|kilobytes|kb|mb|percent)(_|$)", family.name), family.name
        if family.type == "counter":
            assert not family.name.endswith("_total"), "the parser takes it off; twice would be wrong"
        elif family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name
        else:
            assert family.type == "gauge", family.name
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name
            assert family.name.endswith(UNITS) or family.name in COUNTED_THINGS, family.name
        text = generate_latest(metrics.REGISTRY).decode()
        total = family.name + "_total" if family.type == "counter" else family.name
        assert f"# TYPE {total} {family.type}\n" in text


def test_there_is_no_label_whose_values_grow() -> None:
    for family in families():
        for sample in family.samples:
            assert sample.labels.keys() <= LABELS, (family.name, sample.labels)


def peer(name: str, roles: set[str], status: PeerStatus = PeerStatus.ONLINE, *, external: bool = False) -> PeerView:
    return PeerView(
        peer_id=PeerId(name),
        name=name,
        status=status,
        since=Millis(0),
        why="",
        roles=frozenset(roles),
        grants=frozenset(),
        labels=frozenset(),
        external=external,
    )


def test_peers_are_counted_by_role_and_status_and_made_up_roles_together() -> None:
    everyone = (
        peer("a", {"worker", "router"}),
        peer("b", {"worker"}, PeerStatus.OFFLINE),
        peer("c", set()),
        peer("d", {"worker"}, external=True),
        *(peer(f"x{number}", {f"made-up-{number}"}, external=True) for number in range(500)),
    )
    collect(everyone, Sample(), 0)
    [family] = [entry for entry in families() if entry.name == "peerd_peers"]
    counts = {(entry.labels["role"], entry.labels["status"]): entry.value for entry in family.samples}
    assert counts == {
        ("worker", "online"): 2,
        ("worker", "offline"): 1,
        ("router", "online"): 1,
        ("none", "online"): 1,
        ("external", "online"): 500,
    }
    collect((), Sample(), 0)
    assert not next(entry for entry in families() if entry.name == "peerd_peers").samples, "who is gone is not counted"
