"""Which addresses are this machine's, a private network's, or public.

Light on imports: settings are checked with it before a host gets its first answer.
"""

from __future__ import annotations

import ipaddress

from arta_mcp.errors import ProtocolError, Unavailable
from arta_mcp.redaction import sanitize

TRANSLATED_NETWORKS = ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
"""IPv6 addresses that a gateway turns into an IPv4 one, of any kind; no picture lies there"""


def is_loopback(host: str) -> bool:
    """Whether the host of an address is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_inside(host: str) -> bool:
    """Whether a host is, with no name to resolve, an address in a private network."""
    host = host.lower().rstrip(".")
    if host == "localhost":
        return True
    try:
        return not is_public(host)
    except ValueError:
        pass
    import socket  # only this: 127.1 and 0x7f.1 are addresses for it and for every resolver

    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return False


def is_public(address: str) -> bool:
    """Whether an address is in no private network, itself or by the IPv4 address inside it.

    Raises ValueError for what is no address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_multicast or not found.is_global:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return True
    networks = map(ipaddress.IPv6Network, TRANSLATED_NETWORKS)
    return not found.is_site_local and not any(found in network for network in networks)


async def resolve_public(host: str, port: int) -> str:
    """The first address of a host, after checking that none of them is inside this network.

    The connection goes to this very address: a name may resolve otherwise the next time (DNS
    rebinding). Raises Unavailable without an address, ProtocolError for one inside.
    """
    import socket

    import anyio  # here, like socket: neither is for the settings

    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise Unavailable(f"the picture's host {sanitize(host, 80)} has no address") from exc
    addresses = [str(entry[4][0]) for entry in found]
    if not all(map(is_public, addresses)):
        raise ProtocolError(f"the picture's host {sanitize(host, 80)} is inside this network")
    return addresses[0]
