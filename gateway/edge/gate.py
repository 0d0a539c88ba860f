"""The gate: says no at the end of a request's headers, before anything was spent on it.

A refusal under overload has to be the cheapest thing the server does, so it is decided by one synchronous call with the
headers in hand: no task is started, no framework is entered, no byte of the body is read. Who is admitted is none of
this module's business; it is only the hole in the wall between the server and the admission rules behind it.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from gateway.core.values import value
from gateway.edge.http1_head import Refusal


@value(slots=True)
class Reply:
    """A whole answer that needs no app.

    Attributes:
        status: 200 to 599.
        headers: Names in lower case. ``content-length``, ``connection`` and ``date`` are the server's to write.
        body: Sent as it is, left out for HEAD.
        lines: More headers, written out and checked by who made them; only our own server sends them.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    lines: bytes = b""


@frozen(kw_only=True, slots=True)
class BodyRules:
    """What holds for the body of one request instead of ``server.max_body_bytes`` and ``server.body_timeout_s``.

    Attributes:
        max_bytes: More is a 413.
        max_field: The configuration's name for that limit.
        whole_in_time: ``body_timeout_s`` is for the whole body; otherwise each part of it has as long.
    """

    max_bytes: int
    max_field: str
    whole_in_time: bool


class Gate(Protocol):
    """Asked once for each request, in the order of arrival, as soon as its headers are complete."""

    def knock(self, scope: dict[str, Any]) -> Reply | None:
        """Let the request in, or say what to answer instead.

        Args:
            scope: The ASGI scope (type ``http``) the app will get. What the gate puts into ``scope["state"]`` (say,
                a permit) reaches the app.

        Returns:
            None to let it in: the app is then called in every case, even if the client has left meanwhile, so that what
            was taken here can be given back there. A reply to refuse: the app never hears of the request.

        Cost: on the path of every request; must not block.
        """
        ...


@runtime_checkable
class KnowingGate(Gate, Protocol):
    """A gate that knows its endpoints: they differ in what bodies they take, and in how they word an error."""

    def body_rules(self, scope: dict[str, Any]) -> BodyRules | None:
        """What holds for the body of this request, if not the server's own limits; asked before :meth:`knock`.

        *Cost*: on the path of every request with a body; must not block.
        """
        ...

    def wording(self, scope: dict[str, Any], refusal: Refusal) -> Reply | None:
        """What a client of this endpoint is told of the server's own refusal; None for OpenAI's error shape."""
        ...
