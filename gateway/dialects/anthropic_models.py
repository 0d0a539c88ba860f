"""What Claude models of each generation accept: the one table behind everything that is encoded by the model's name.

A request in another dialect says nothing of generations, and the API answers 400 where a model does not know a field or
no longer does. So the name is read, once per request, and decides:

===========================  ==========  =============  =========  ================  =======  ===========
generation                   thinking    sampling       schema     efforts           prefill  most output
===========================  ==========  =============  =========  ================  =======  ===========
Claude 3, Instant            none        yes            by a tool                    yes      4,096
Claude 3.5                   none        yes            by a tool                    yes      8,192
Claude 3.7                   budget      yes            by a tool                    yes      64,000
Opus 4                       budget      one of two     by a tool                    yes      32,000
Opus 4.1                     budget      one of two     yes                          yes      32,000
Sonnet 4                     budget      one of two     by a tool                    yes      64,000
all 4.5                      budget      one of two     yes                          yes      64,000
all 4.6                      adaptive    one of two     yes        no ``xhigh``      no       64,000
4.7 and later, 5, unknown    adaptive    no             yes        all               no       64,000
Fable, Mythos                always      no             yes        all               no       64,000
no Claude by its name        budget      yes            yes                          yes      64,000
===========================  ==========  =============  =========  ================  =======  ===========

*One of two*: ``temperature`` or ``top_p``. *Prefill*: it goes on from a last turn of the assistant's. *Most output* is
what a request without a limit may be given, not always all that the model can do. A name without a version
(``claude-haiku-latest``) is taken for the newest.

Source: Anthropic's model pages and migration guides (2026-11): "Adaptive thinking", "Effort", "Structured outputs",
"Prefill removal".
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

_NAME = re.compile(
    r"claude-(?:(?P<old>\d)(?:[-.](?P<old_minor>\d))?-)?(?P<family>[a-z]+)"
    r"(?:-(?P<major>\d{1,2})(?!\d)(?:[-.](?P<minor>\d{1,2})(?!\d))?)?"
)
_NEWEST = (99, 0)
_ALWAYS_THINK = ("fable", "mythos")
EFFORTS = ("low", "medium", "high", "xhigh", "max")


@frozen(kw_only=True, slots=True)
class Abilities:
    """What a model accepts.

    Attributes:
        thinking: ``none`` · ``budget`` (``enabled`` with ``budget_tokens``) · ``adaptive`` (with an effort) ·
            ``always`` (as adaptive, and cannot be turned off).
        sampling: Of ``temperature``, ``top_p`` and ``top_k``: ``all``, ``one`` (not both of the first two), ``none``.
        schema: ``output_config.format`` and strict tools.
        efforts: Values of ``output_config.effort``.
        prefill: It goes on from a last turn of the assistant's.
        most_output_tokens: What may be asked for at most where the client did not say.
    """

    thinking: Literal["none", "budget", "adaptive", "always"]
    sampling: Literal["all", "one", "none"]
    schema: bool
    efforts: tuple[str, ...] = ()
    prefill: bool = True
    most_output_tokens: int = 64_000


def abilities_of(model: str) -> Abilities:
    """What the model of that name accepts; see the table."""
    found = _NAME.search(model.lower())
    if found is None:
        return Abilities(thinking="budget", sampling="all", schema=True)
    family = found["family"]
    major, minor = found["old"] or found["major"], found["old_minor"] or found["minor"]
    version = (int(major), int(minor or 0)) if major else _NEWEST
    if version >= (4, 7):
        thinking: Literal["adaptive", "always"] = "always" if family in _ALWAYS_THINK else "adaptive"
        return Abilities(thinking=thinking, sampling="none", schema=True, efforts=EFFORTS, prefill=False)
    if version >= (4, 6):
        efforts = tuple(effort for effort in EFFORTS if effort != "xhigh")
        return Abilities(thinking="adaptive", sampling="one", schema=True, efforts=efforts, prefill=False)
    if version >= (4, 0):
        most = 32_000 if family == "opus" and version < (4, 5) else 64_000
        return Abilities(thinking="budget", sampling="one", schema=version >= (4, 1), most_output_tokens=most)
    if version >= (3, 7):
        return Abilities(thinking="budget", sampling="all", schema=False)
    most = 8_192 if version >= (3, 5) else 4_096
    return Abilities(thinking="none", sampling="all", schema=False, most_output_tokens=most)
