"""Asking another target for the rest of an answer that broke off; see ``dialects/resumed.py`` for how it is joined."""

from __future__ import annotations

from attrs import evolve

from gateway.core.errors import RequestError
from gateway.dialects import pairing
from gateway.dialects.answer import Answer, ReasoningBlock, TextBlock
from gateway.dialects.call import Message, Text
from gateway.dialects.resumed import ResumedStream
from gateway.dialects.voice import Asking, Request, Voice
from gateway.upstream.targets import Target


def can_be_joined(so_far: Answer, request: Request) -> bool:
    """Whether the rest of another answer can follow: one choice, of text alone. Tool calls are never gone on with."""
    if not set(so_far.choices) <= {0}:
        return False
    if not all(isinstance(block, TextBlock | ReasoningBlock) for block in so_far.first.blocks):
        return False
    try:
        return pairing.call_of(request).n == 1  # the other choices may only not have begun
    except RequestError:
        return False  # it means something in its own dialect alone, and cannot be said again in other words


def ask_for_the_rest(
    way: str, voice: Voice, request: Request, target: Target, so_far: Answer, *, tokens_before: int
) -> Asking:
    """What to send to ``target``, and the stream that joins its answer to what the client has.

    Args:
        way: ``continue``: the partial answer is given to it to go on from, and of the tokens that the client allows
            what is left. ``restart``: it is asked as if for the first time.
        tokens_before: What the client has, counted.

    Raises:
        RequestError: The target has no counterpart for something in the request.
    """
    dialect = target.provider.dialect
    call = pairing.call_of(request)
    if way == "continue":
        partial = Message(role="assistant", parts=(Text(text=so_far.first.text.rstrip()),))
        left = call.max_tokens and max(call.max_tokens - tokens_before, 1)
        call = evolve(call, messages=(*call.messages, partial), prefill=True, max_tokens=left)
    encoded = pairing.encode(call, dialect, target.model)
    stream = ResumedStream(
        dialect.reader(),
        voice.writer(request),
        so_far,
        repeats=way == "restart",
        tokens_before=tokens_before,
    )
    path = dialect.path(target.model, stream=True)
    return Asking(path=path, body=encoded.body, dropped=encoded.dropped, stream=stream)
