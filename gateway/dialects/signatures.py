"""Whose a signature is: a provider takes back only those that it made, and refuses all others with a 400.

A conversation may go on at another provider than the one that thought, and its client hands back what it got. So
Google's signatures carry a mark in events and calls, and with every client but Google's own; those without one are
Claude's, which are good at Anthropic and at Bedrock alike. In Google's dialect it is the other way round: there
Google's go as they are, and others, like the thoughts that only their provider can read, are wrapped in base64, since
clients decode what stands there.

=====================  ===============================================================================================
``sluice:g:…``         Google's, of a thought or a text
``sluice:c:…``         Google's, of a tool call: in Anthropic's dialect, where a call has no signature, it stands in a
                       thought without words before the call
=====================  ===============================================================================================

Source: Gemini API, guide "Thought signatures"; Anthropic, guide "Extended thinking"; both refuse what they did not sign
("Corrupted thought signature", "Invalid signature in thinking block").
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from gateway.dialects.responses_marks import MARK, Kind, marked, unmarked

GOOGLES: Final = MARK + "g:"
_CALLS: Final = MARK + "c:"
WRAPPED: Final = base64.b64encode(MARK[:6].encode()).decode()  # what a wrapped one begins with


def mark_googles(signature: str) -> str:
    """A signature of Google's, as events and calls have it; "" stays what it is."""
    return GOOGLES + signature if signature else ""


def googles(signature: str) -> str:
    """What Google signed; "" for others' signatures."""
    return signature.removeprefix(GOOGLES) if signature.startswith(GOOGLES) else ""


def mark_calls(signature: str) -> str:
    """The signature of a tool call, for a place that is not the call's own."""
    return _CALLS + signature


def calls(signature: str) -> str:
    """The signature of the tool call that follows; "" for others."""
    return signature.removeprefix(_CALLS) if signature.startswith(_CALLS) else ""


def is_googles(signature: str) -> bool:
    """Whether it is refused by everybody else."""
    return signature.startswith((GOOGLES, _CALLS))


def wrap(kind: Kind, value: str) -> str:
    """Somebody else's signature, or redacted thought, for a client of Google's."""
    return base64.b64encode(marked(kind, value).encode()).decode()


def is_wrapped(signature: str) -> bool:
    """Whether Google would refuse it."""
    return signature.startswith(WRAPPED)


def unwrap(signature: str) -> tuple[Kind | None, str]:
    """What somebody else has made and a client of Google's hands back; None if it is Google's own."""
    if not is_wrapped(signature):
        return None, signature
    try:
        kind, value = unmarked(base64.b64decode(signature, validate=True).decode())
    except (binascii.Error, ValueError):
        kind, value = None, signature
    return kind, value
