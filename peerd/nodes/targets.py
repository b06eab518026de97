"""One spelling for one target: a host name or an address, with or without a port.

Two spellings of one machine must not become two nodes, and a spelling that programs read differently must not pass a
check as one address and be dialed as another. So everything is brought into one form, and what has several readings is
refused: IPv4 addresses with leading zeros (octal for some), hexadecimal or missing parts (RFC 6943 section 3.1.1), zone
ids (they mean something on one machine only), user names and paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import idna

from peerd.errors import PeerdError, Reason

_LONGEST = 400
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEMES = frozenset({"http", "https", "ws", "wss", "tcp"})
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER_LIKE = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_DOTTED = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", re.ASCII)

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, kw_only=True)
class ParsedTarget:
    """A target in its one spelling."""

    host: str
    """A name in lower-case ASCII, an IPv4 address with dots, or a compressed IPv6 address without brackets."""
    port: int | None
    address: Address | None
    """If the host is one."""

    @property
    def text(self) -> str:
        """The spelling that nodes are known by."""
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str) -> ParsedTarget:
    """The target, normalised. Raises INVALID_ARGUMENT that says what is wrong with it."""
    given = text.strip(" \t\r\n")
    if not given:
        raise _refused(text, "is empty")
    if len(given) > _LONGEST:
        raise _refused(text, f"is longer than {_LONGEST} characters")
    if any(character.isspace() or not character.isprintable() for character in given):
        raise _refused(text, "has a space or a control character in it")
    rest = _without_scheme(text, given)
    if "@" in rest:
        raise _refused(text, "has a user name in it", "leave out what stands before '@'")
    host, port = _split(text, rest)
    if host.startswith("["):
        address: Address | None = _ipv6(text, host[1:-1])
        name = str(address)
    else:
        name, address = _name_or_ipv4(text, host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
        name = str(address)
    if address is not None and (problem := _never(address)):
        raise _refused(text, problem)
    return ParsedTarget(host=name, port=port, address=address)


def _without_scheme(text: str, given: str) -> str:
    """``host[:port]`` of a URL; what is none, as it is."""
    match = _SCHEME.fullmatch(given)
    rest = given
    if match is not None:
        if match[1].lower() not in _SCHEMES:
            raise _refused(text, f"has the scheme {match[1]!r}", "name the host, or a URL of http, https, ws or wss")
        rest = match[2].removesuffix("/")
    if re.search(r"[/?#\\]", rest):
        raise _refused(text, "has a path, a query or a fragment in it", "name the host and the port alone")
    return rest


def _split(text: str, rest: str) -> tuple[str, int | None]:
    """Host and port; an IPv6 host comes back in brackets."""
    if rest.startswith("["):
        inside, bracket, behind = rest[1:].partition("]")
        if not bracket or (behind and not behind.startswith(":")):
            raise _refused(text, "has brackets that do not fit", "write an IPv6 address as [2001:db8::1]:9000")
        return f"[{inside}]", _port(text, behind[1:]) if behind else None
    if rest.count(":") > 1:
        return f"[{rest}]", None
    host, colon, port = rest.partition(":")
    return host, _port(text, port) if colon else None


def _port(text: str, port: str) -> int:
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise _refused(
            text, f"has {port[:20]!r} as its port", "a port is a number from 1 to 65535 without leading zeros"
        )
    return int(port)


def _ipv6(text: str, inside: str) -> IPv6Address:
    if "%" in inside:
        raise _refused(
            text, "has a zone id, which means something on one machine only", "use an address without '%ZONE'"
        )
    try:
        return IPv6Address(inside)
    except ValueError:
        raise _refused(text, "is not an IPv6 address", "write one as 2001:db8::1 or [2001:db8::1]:9000") from None


def _name_or_ipv4(text: str, host: str) -> tuple[str, IPv4Address | None]:
    name = _ascii(text, host).removesuffix(".")
    labels = name.split(".")
    if _NUMBER_LIKE.fullmatch(labels[-1]):
        if not _DOTTED.fullmatch(name) or any(int(label) > 255 for label in labels):
            raise _refused(
                text,
                "looks like an IPv4 address that programs read in different ways",
                "write it with four decimal numbers from 0 to 255, without leading zeros",
            )
        return name, IPv4Address(name)
    if len(name) > 253:
        raise _refused(text, "has a host name longer than 253 characters")
    for label in labels:
        if not _LABEL.fullmatch(label):
            shown = repr(label[:70]) if label else "an empty label"
            raise _refused(
                text, f"has {shown} in its host name", "labels have letters, digits and inner '-', at most 63, no '_'"
            )
    return name, None


def _ascii(text: str, host: str) -> str:
    """Lower-case ASCII: IDNA 2008 with the mapping of UTS 46, which also makes wide digits and dots ordinary ones."""
    if "%" in host:
        raise _refused(text, "has '%' in its host name")
    try:
        mapped = host.lower() if host.isascii() else idna.uts46_remap(host, std3_rules=True, transitional=False)
        labels = []
        for label in mapped.split("."):
            if label.startswith("xn--"):
                idna.ulabel(label)  # raises for one that is not what IDNA makes of its own Unicode form
                labels.append(label)
            else:
                labels.append(label if label.isascii() else idna.alabel(label).decode("ascii"))
    except (idna.IDNAError, UnicodeError) as error:
        raise _refused(text, f"has a host name that IDNA does not allow: {error}") from error
    return ".".join(labels)


_NEVER = (
    (ip_network("0.0.0.0/8"), "is an address of 'this network', which is no machine"),
    (ip_network("224.0.0.0/4"), "is a multicast address, which is no machine"),
    (ip_network("240.0.0.0/4"), "is a reserved or broadcast address, which is no machine"),
    (ip_network("::/128"), "is the unspecified address, which is no machine"),
    (ip_network("ff00::/8"), "is a multicast address, which is no machine"),
)


def _never(address: Address) -> str | None:
    for network, problem in _NEVER:
        if address.version == network.version and address in network:
            return problem
    return None


def parse_address(text: str) -> Address | None:
    """An address in any of its plain spellings; None for a name. Never raises."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _refused(text: str, problem: str, next_action: str | None = None) -> PeerdError:
    shown = text if len(text) <= 100 else f"{text[:99]}…"
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        f"target {shown!r} {problem}",
        next_action=next_action or "name a host, an address, or either with ':PORT'",
    )
