"""``HOST:PORT``, and whether that is this machine only."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

_BIND = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]\s/@]*)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}")


@frozen(kw_only=True, slots=True)
class Address:
    """A host (IPv6 without its brackets) and a port; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """``127.0.0.1:8080`` or ``[::1]:8080``.

    Raises:
        ValueError: With a message that says how to write it.
    """
    match = _BIND.fullmatch(text)
    if match is None:
        raise ValueError("expected HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080")
    port = int(match["port"])
    if port > 65_535:
        raise ValueError(f"the port {port} is above 65535")
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise ValueError("the brackets hold no IPv6 address; expected [::1]:8080") from None
        return Address(host=match["ipv6"], port=port)
    if not match["host"]:
        raise ValueError(f"the host is missing; 127.0.0.1:{port} is this machine only, 0.0.0.0:{port} every interface")
    if not _HOST_NAME.fullmatch(match["host"]):
        raise ValueError("the host holds a character that host names do not have")
    return Address(host=match["host"], port=port)
