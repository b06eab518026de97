"""What answers at an open port: what it said of itself first, else what usually listens there. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from peerd.nodes.messages import OpenPort
from peerd.nodes.probing.recognition import Answers, said_at
from peerd.nodes.probing.survey import PortSeen
from peerd.nodes.protocols import Protocol
from peerd.nodes.protocols.values import shown
from peerd.nodes.scanning.ports import SERVICES

_SSH = "SSH-2.0-"


def describe(seen: PortSeen, protocols: Sequence[Protocol], answers: Answers) -> OpenPort:
    """An open port with what is known of its service: a protocol's name, ``ssh``, or at least ``http``."""
    name, product, version = SERVICES.get(seen.port, ""), "", ""
    if seen.banner.startswith(_SSH):
        name, (product, _, version) = "ssh", seen.banner.strip()[len(_SSH) :].partition(" ")[0].partition("_")
    elif seen.http:
        name = "https" if seen.tls is not None else "http"
        product, _, version = seen.server.partition(" ")[0].partition("/")
        for protocol in protocols:
            signatures, said_version = said_at(protocol, answers, seen.address, seen.port)
            if signatures:
                name = signatures[0] if protocol.fallback else protocol.name
                product, version = (protocol.display_name if not protocol.fallback else ""), said_version or version
                break
    return OpenPort(
        number=seen.port,
        address=seen.address,
        service=name,
        product=shown(product),
        version=shown(version),
        tls=seen.tls is not None,
        banner=shown(seen.banner.strip()),
    )
