"""Where no key is asked for: whose page is it that asks through its reader's browser.

A gateway without keys answers whoever is on its machine, and so does a browser that shows a stranger's page there. What
such a page can send unasked (a POST of a ``Blob``, which has no content type) costs money, although the page cannot
read the answer; one whose name was made to resolve to 127.0.0.1 (DNS rebinding) can read it, too. Both show in headers
that a page cannot write: ``Origin`` names the page's site, ``Host`` the name it believes to ask.

Limits: a program that is no browser writes what it likes, and may: it is on this machine. Behind a proxy that passes a
public ``Host`` on, a gateway without keys answers nobody; it needs a key there.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gateway.core.errors import RequestError

_FIX: Final = "a gateway without a [[key]] in its configuration serves no other site's pages; give it a key"


def check_site(host: bytes | None, origin: bytes | None) -> None:
    """Let pass who asks this machine by a name of this machine, from no page or from one of our own.

    Args:
        host: The ``Host`` header; None for programs that send none.
        origin: The ``Origin`` header.

    Raises:
        RequestError: 403 ``foreign_host`` or ``foreign_origin``.
    """
    if host is not None and not _is_this_machine(host):
        raise RequestError("foreign_host", 403, f"the Host header names another machine; {_FIX}")
    if origin is not None and (host is None or origin.lower().partition(b"://")[2] != host.lower()):
        raise RequestError("foreign_origin", 403, f"the Origin header names another site; {_FIX}")


def _is_this_machine(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
