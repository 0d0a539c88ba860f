"""Promise: what is set aside for a prompt follows its text; an image or a file counts as one, however large it is."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.estimate import BYTES_PER_TOKEN, TOKENS_PER_MEDIUM, tokens_of

DATA = base64.b64encode(bytes(range(256)) * 3_000).decode()  # a megabyte
TEXT = "How much is a token? " * 2_000


def by_bytes(document: bytes) -> int:
    return -(-len(document) // BYTES_PER_TOKEN)


@pytest.mark.parametrize("encode", [json.dumps, lambda value: json.dumps(value, separators=(",", ":"))])
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{DATA}"}},
        {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"inlineData": {"mimeType": "image/png", "data": DATA}},
    ],
)
def test_a_medium_of_each_dialect_is_one(part: Any, encode: Any) -> None:
    text = {"type": "text", "text": TEXT}
    without, whole = encode([text]).encode(), encode([text, part, part]).encode()
    assert 0 <= tokens_of(whole) - tokens_of(without) - 2 * TOKENS_PER_MEDIUM < 100


@pytest.mark.parametrize(
    "document",
    [
        json.dumps({"text": TEXT}),
        json.dumps({"source": {"type": "text", "media_type": "text/plain", "data": TEXT}}),
        json.dumps({"text": ";base64,", "more": TEXT}),
        json.dumps({"text": 'say "data": or ";base64,' + TEXT}),
        json.dumps({"data": [TEXT], "more": {"data": 5}}),
        ";base64," + TEXT.replace(" ", ""),
        '"data"' * 5_000,
    ],
)
def test_text_counts_by_its_bytes_whatever_it_says(document: str) -> None:
    assert tokens_of(document.encode()) == by_bytes(document.encode())


@given(
    st.binary(max_size=200), st.lists(st.sampled_from([b'"data"', b":", b'"', b";base64,", b"A" * 2_000, b" ", b"?"]))
)
def test_any_document_has_an_estimate(start: bytes, parts: list[bytes]) -> None:
    document = start + b"".join(parts) + b"x" * 8_192
    assert 0 < tokens_of(document) <= by_bytes(document) + TOKENS_PER_MEDIUM * len(parts)


@pytest.mark.parametrize(
    "document",
    [
        TEXT * 380,
        ";base64," * 2_000_000,
        (";base64," + "A" * 1_024) * 16_000,
        '"data":"' * 2_000_000,
        ('"data":"' + "A" * 1_024) * 16_000,
        '"data"' * 2_600_000,
    ],
)
def test_a_large_document_takes_a_moment(document: str) -> None:
    began = time.process_time()
    tokens_of(document.encode())
    assert len(document) > 15_000_000
    assert time.process_time() - began < 0.2
