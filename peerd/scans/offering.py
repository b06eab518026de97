"""The services by which a peer scans ports for others, and takes in what others scanned, if its owner says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import peerd
from peerd.config import ScansConfig
from peerd.scans.scanner import KEY_VARIABLE
from peerd.scans.targets import parse_allowed

SERVICE = "port-scan"
COLLECTOR_SERVICE = "scan-ingest"


def scan_services(config: ScansConfig) -> tuple[Mapping[str, object], ...]:
    """What the configuration of this peer asks for. Raises INVALID_CONFIG."""
    scanner = scanner_service(
        config.allowed_networks,
        allowed_roles=config.scan_roles,
        seconds=config.scan_seconds,
        hand_in_to=config.hand_in_to,
    )
    collector = collector_service(config.ingest_url)
    return tuple(declared for declared in (scanner, collector) if declared is not None)


def scanner_service(
    allowed_networks: Sequence[str],
    *,
    allowed_roles: Sequence[str] = (),
    seconds: float = 600,
    hand_in_to: str = "",
) -> Mapping[str, object] | None:
    """A declaration as in the configuration; None where no network is allowed. Raises INVALID_CONFIG.

    The owner's part stands in the service's own arguments, where no order can change it.
    """
    if not allowed_networks:
        return None
    # A scan signed by this peer is what its jobs cannot make, as they never see the key.
    signed = {"hand_in": {"to": hand_in_to, "format": "nmap_xml", "files": ["*.xml"]}} if hand_in_to else {}
    networks = [str(parse_allowed(text)) for text in allowed_networks]
    return {
        "name": SERVICE,
        "kind": "SERVICE_KIND_PROCESS",
        "description": f"scans ports inside {', '.join(networks)}",
        "argv": [
            *(sys.executable, "-m", "peerd.scans.scanner", "${request}", "output"),
            *("--owner", json.dumps({"allowed_networks": networks, "seconds": seconds})),
        ],
        "params": [{"name": "request", "description": "targets, ports and options as JSON"}],
        "job_env": [KEY_VARIABLE],
        **_around("OUTPUT", "STDOUT", "STDERR"),
        "allowed_roles": list(allowed_roles),
        "max_concurrent": 2,
        **signed,
    }


def collector_service(url: str, *, allowed_roles: Sequence[str] = ()) -> Mapping[str, object] | None:
    """The declaration of what hands signed scans in to this peer's HTTP; None where it does not listen."""
    if not url:
        return None
    return {
        "name": COLLECTOR_SERVICE,
        "kind": "SERVICE_KIND_PROCESS",
        "description": "hands in the scans that it is sent, each signed by a registered scanner",
        "argv": [sys.executable, "-m", "peerd.scans.handing_in", "input", "output", url],
        **_around("INPUT", "OUTPUT", "STDOUT", "STDERR"),
        "allowed_roles": list(allowed_roles),
    }


def _around(*interfaces: str) -> dict[str, object]:
    package = Path(peerd.__file__).parent
    return {
        "interfaces": [{"kind": f"INTERFACE_KIND_{kind}"} for kind in interfaces],
        "env": {"PYTHONPATH": str(package.parent)},
        "read_only_paths": [str(package)],
        "network": True,
    }
