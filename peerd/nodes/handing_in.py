"""Scans of nodes go into the inventory as every scan does: as signed bytes, with an ingest job of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from peerd.identity.peer_id import PeerId
from peerd.inventory.addresses import normalise_address
from peerd.inventory.scopes import MAX_LENGTH
from peerd.moments import moment
from peerd.nodes.ending import NodeScan
from peerd.nodes.message_json import result_from_json
from peerd.nodes.messages import ProbeResult
from peerd.scans import data
from peerd.scans.receiving import Receiving, stored
from peerd.scans.signing import Signer
from peerd.scans.statement import open_statement
from peerd.store import Tx
from peerd.v1.scans_pb2 import ScanStatement

TOOL = "peerd-prober"


class HandingIn:
    """The intake of :class:`peerd.nodes.applying.Applying`. This peer signs: it asked for the scan, and judged it."""

    def __init__(self, self_id: PeerId, signer: Signer, receiving: Receiving) -> None:
        self._self_id = self_id
        self._signer = signer
        self._receiving = receiving

    def hand_in(self, tx: Tx, scan: NodeScan) -> None:
        """In the transaction that ends the scan. Raises OVERLOADED while too many wait: then the scan ends later."""
        result = result_from_json(scan.document)
        content = b"".join(_lines(result))
        if not content:
            return  # no address is known that answered
        draft = ScanStatement(
            scan_id=f"node-scan-{scan.run_id}",
            format="naabu",
            tool=TOOL,
            organization=scan.organization,
            vantage=scan.scanner_peer_id,
            scope=_scope(result),
            data_sha256=hashlib.sha256(content).digest(),
            data_size=len(content),
            scanned_at=moment(tx.now),
        )
        envelope, _ = self._signer.sign(draft)
        claim = open_statement(envelope)
        pieces = data.compressed(content)
        self._receiving.accept(
            tx,
            claim,
            lambda tx: stored(tx, pieces),
            job_uuid=self._receiving.new_uuid(),
            submitted_by=self._self_id,
        )


def _lines(result: ProbeResult) -> Iterator[bytes]:
    """JSON Lines as naabu writes them: the ports of the addresses that the host has, and those that have none."""
    addresses = _addresses(result)
    ports = result.scan.ports if result.scan is not None else ()
    shown = [(port, normalise_address(port.address)) for port in ports if port.state == "open"]
    for port, address in shown:
        if address in addresses:
            yield _line(
                ip=address,
                port=port.number,
                protocol=port.transport,
                tls=port.tls,
                name=port.service,
                product=port.product,
                version=port.version,
            )
    dialed = {normalise_address(connect.address) for connect in result.connects}
    for address in sorted(addresses & dialed - {address for _, address in shown}):
        yield _line(ip=address, port=0)


def _addresses(result: ProbeResult) -> set[str]:
    return {address for text in result.addresses if (address := normalise_address(text)) is not None}


def _scope(result: ProbeResult) -> str:
    """What was dialed; nothing when that is too much to say, or the addresses were not asked for the same ports."""
    dialed: dict[str, set[int]] = {}
    for connect in result.connects:
        if (address := normalise_address(connect.address)) is not None:
            dialed.setdefault(address, set()).add(connect.port)
    ports = set[int]().union(*dialed.values())
    if not dialed or any(asked != ports for asked in dialed.values()):
        return ""
    text = f"{','.join(sorted(dialed))} tcp:{','.join(map(str, sorted(ports)))}"
    return text if len(text) <= MAX_LENGTH else ""


def _line(**fields: object) -> bytes:
    return json.dumps({key: value for key, value in fields.items() if value not in ("", False)}).encode() + b"\n"
