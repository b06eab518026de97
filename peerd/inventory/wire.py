"""Values -> messages."""

from __future__ import annotations

from peerd.inventory.changes import Change
from peerd.inventory.diffs import Difference, Kind
from peerd.inventory.facts import CertificateFacts, HostFacts, Line, ServiceFacts
from peerd.inventory.graph import Edge
from peerd.inventory.splits import View
from peerd.moments import moment
from peerd.v1 import inventory_pb2

_KINDS = {
    Kind.APPEARED: inventory_pb2.INVENTORY_CHANGE_KIND_APPEARED,
    Kind.DISAPPEARED: inventory_pb2.INVENTORY_CHANGE_KIND_DISAPPEARED,
    Kind.CHANGED: inventory_pb2.INVENTORY_CHANGE_KIND_CHANGED,
}


def to_host(host: HostFacts) -> inventory_pb2.InventoryHost:
    """A host."""
    return inventory_pb2.InventoryHost(
        address=host.address,
        up=host.up,
        first_seen=moment(host.first_seen),
        last_seen=moment(host.last_seen),
        hostnames=host.hostnames,
        macs=host.macs,
        systems=host.systems,
        organizations=host.organizations,
        asn=host.asn,
        as_name=host.as_name or "",
        country=host.country or "",
        open_ports=host.open_ports,
    )


def to_port(line: Line, *, details: bool = True) -> inventory_pb2.InventoryPort:
    """A port; without ``details`` nothing of what answers there."""
    port = line.port
    assert port is not None  # noqa: S101 - of lines of ports only
    return inventory_pb2.InventoryPort(
        address=line.host.address,
        transport=port.transport.value,
        number=port.number,
        state=port.state,
        first_seen=moment(port.first_seen),
        last_seen=moment(port.last_seen),
        last_open=moment(port.last_open),
        service=to_service(port.service) if details and port.service is not None else None,
        certificate=to_certificate(port.certificate) if details and port.certificate is not None else None,
        banner=port.banner if details else b"",
        scanners=port.scanners,
        hostnames=line.host.hostnames,
    )


def to_service(service: ServiceFacts) -> inventory_pb2.InventoryServiceFacts:
    """What answers."""
    return inventory_pb2.InventoryServiceFacts(
        service_id=service.service_id,
        name=service.name,
        product=service.product,
        version=service.version,
        extra=service.extra,
        cpes=service.cpes,
        tls=service.tls,
        confidence=service.confidence,
    )


def to_certificate(certificate: CertificateFacts) -> inventory_pb2.InventoryCertificate:
    """A certificate."""
    return inventory_pb2.InventoryCertificate(
        sha256=certificate.sha256,
        common_name=certificate.common_name,
        subject_alternative_names=certificate.names,
        issuer=certificate.issuer,
        not_before=moment(certificate.not_before),
        not_after=moment(certificate.not_after),
    )


def to_view(view: View, line: Line) -> inventory_pb2.InventoryView:
    """The last word of one viewpoint on a port."""
    port = line.port
    assert port is not None  # noqa: S101 - of lines of ports only
    return inventory_pb2.InventoryView(
        transport=port.transport.value,
        number=port.number,
        scanner=view.scanner,
        vantage=view.vantage,
        tool=view.tool,
        state=view.state,
        seen_at=moment(view.seen_at),
        ingest_job_id=view.scan_id,
    )


def to_difference(one: Difference) -> inventory_pb2.InventoryDifference:
    """What became of a port."""
    return inventory_pb2.InventoryDifference(
        kind=_KINDS[one.kind],
        before=to_port(one.before) if one.before is not None else None,
        after=to_port(one.after) if one.after is not None else None,
        why=one.why,
    )


def to_change(change: Change) -> inventory_pb2.WatchInventoryResponse:
    """A change, as it became known."""
    return inventory_pb2.WatchInventoryResponse(
        change_id=change.change_id,
        kind=_KINDS[change.kind],
        at=moment(change.at),
        ingest_job_id=change.scan_id,
        address=change.host.address,
        transport=change.transport.value,
        number=change.number,
        state_before=change.state_before,
        state_after=change.state_after,
        service_before=to_service(change.service_before) if change.service_before is not None else None,
        service_after=to_service(change.service_after) if change.service_after is not None else None,
    )


def to_edge(edge: Edge) -> inventory_pb2.GraphEdge:
    """An edge."""
    return inventory_pb2.GraphEdge(
        left=str(edge.left),
        relation=edge.relation,
        right=str(edge.right),
        left_label=edge.left.label,
        right_label=edge.right.label,
    )
