"""One spelling for one address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def normalise_address(text: str) -> str | None:
    """The address in its one spelling; None when the text is none.

    IPv4 dotted without leading zeros (which some read as octal: they are refused), IPv6 compressed as RFC 5952 says
    and without a zone, which means something on one machine only; an IPv4 address mapped into IPv6 is the IPv4 address.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address)))
    return str(address)
