"""The answers that need no model: moderations, rankings, uploaded files, speech.

They are what a gateway only passes on, so they show what a test of passing needs: that every byte arrived (an upload's
length and SHA-256), that answers depend on the request, that a body which is not text streams with every fault.

Source: OpenAI API reference, "Moderations", "Files", "Audio"; Jina's and Cohere's "Rerank".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson
from attrs import frozen

from gateway.sim.answers import estimate_tokens
from gateway.sim.behaviour import MAX_TOKENS, Behaviour
from gateway.sim.errors import ApiError
from gateway.sim.fields import missing, optional, wrong
from gateway.sim.request import text_of

SPEECH_BYTES = 512
"""Of sound, for each token of the text."""

_CATEGORIES = ("harassment", "hate", "self-harm", "sexual", "violence")
_WORD = re.compile(r"\w{3,}")


def moderation(body: Mapping[str, Any], request_id: str) -> bytes:
    """A judgement of each input: nothing is wrong with it.

    Raises:
        ApiError: 400, there is no input.
    """
    given = body.get("input")
    if given is None:
        raise missing("input")
    many = given if isinstance(given, list) else [given]
    fine = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.001),
    }
    model = body.get("model", "sim")
    return orjson.dumps({"id": f"modr-{request_id}", "model": model, "results": [fine] * len(many)})


def ranking(body: Mapping[str, Any], request_id: str) -> bytes:
    """The documents in the order of how many of the query's words they have.

    Raises:
        ApiError: 400, naming the field at fault.
    """
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str):
        raise missing("query") if query is None else wrong("query", "a string", query)
    if not isinstance(documents, list) or not documents:
        raise missing("documents") if not documents else wrong("documents", "an array", documents)
    texts = [one if isinstance(one, str) else text_of([one]) for one in documents]
    words = set(_WORD.findall(query.lower()))
    scores = [len(words.intersection(_WORD.findall(text.lower()))) / (len(words) or 1) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-scores[index], index))
    most = optional(body, "top_n", int, "an integer")
    results = [{"index": index, "relevance_score": scores[index]} for index in order[: most or len(order)]]
    usage = {"total_tokens": estimate_tokens([query, *texts])}
    return orjson.dumps({"id": request_id, "model": body.get("model"), "results": results, "usage": usage})


def uploaded(received_bytes: int, digest: str, request_id: str, created_s: int) -> bytes:
    """A file object. ``bytes`` and ``sha256`` are of the whole multipart body, not only of the file in it."""
    named = {"id": f"file-{request_id}", "object": "file", "created_at": created_s, "filename": "upload"}
    return orjson.dumps({**named, "purpose": "user_data", "bytes": received_bytes, "sha256": digest})


@frozen(kw_only=True, slots=True)
class Speech:
    """Bytes that depend on the text and are as good as sound; a :class:`~gateway.sim.telling.Telling`."""

    text: str
    each: int
    choices: ClassVar[int] = 1
    stream: ClassVar[bool] = True
    content_type: ClassVar[str] = "audio/mpeg"
    ping: ClassVar[bytes] = b""

    @property
    def tokens(self) -> int:
        return self.each

    def opening(self) -> bytes:
        return b""

    def events(self) -> Iterator[tuple[bytes, int]]:
        for number in range(self.each):
            yield hashlib.shake_256(b"%d %b" % (number, self.text.encode())).digest(SPEECH_BYTES), 1

    def finish(self) -> bytes:
        return b""

    def end_mark(self) -> bytes:
        return b""

    def failure(self, error: ApiError) -> bytes:
        """No event can be in the middle of sound: a document there is garbage to whoever plays it."""
        return orjson.dumps(error.document)

    def document(self) -> bytes:
        return b"".join(data for data, _ in self.events())


def speech(body: Mapping[str, Any], behaviour: Behaviour) -> Speech:
    """The sound of a text.

    Raises:
        ApiError: 400, there is no text.
    """
    text = optional(body, "input", str, "a string")
    if not text:
        raise missing("input")
    length = estimate_tokens([text]) if behaviour.tokens is None else behaviour.tokens
    return Speech(text=text, each=min(length, MAX_TOKENS))
