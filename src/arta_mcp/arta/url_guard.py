"""Which hosts are where; no I/O happens here."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name, all of 127.0.0.0/8 included.

    No name but `localhost` is: what another resolves to may change between look and use.
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
