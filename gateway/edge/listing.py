"""What clients may ask for, in the shape that each dialect lists models in.

``GET /v1/models`` is OpenAI's and Anthropic's path: who sends ``anthropic-version`` gets Anthropic's shape.
``GET /v1beta/models`` is Gemini's. All is in one page, whatever page size was asked for.

Nobody here knows when a model was made: the gateway's start stands for it, as the type of that field allows no absence.

Source: OpenAI "List models"; Anthropic "List Models" (``ModelInfo`` of its Python SDK); Gemini API ``models.list``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

Row = tuple[str, str, str]  # name, kind, owner: as Routes.listing gives them
GEMINI_METHODS = ("generateContent", "streamGenerateContent")


def openai_list(rows: Iterable[Row], created_at: int) -> dict[str, Any]:
    """OpenAI's list, with what each name is under ``sluice``."""
    data = [openai_model(name, owner, created_at) | {"sluice": {"kind": kind}} for name, kind, owner in rows]
    return {"object": "list", "data": data}


def openai_model(name: str, owner: str, created_at: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created_at, "owned_by": owner}


def anthropic_list(rows: Iterable[Row], created_at: int) -> dict[str, Any]:
    """Anthropic's list: one page, which is the last."""
    data = [anthropic_model(name, created_at) for name, _, _ in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def anthropic_model(name: str, created_at: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": at, "lifecycle": "active"}


def gemini_list(rows: Iterable[Row]) -> dict[str, Any]:
    """Gemini's list, without a token for a next page."""
    return {"models": [gemini_model(name) for name, _, _ in rows]}


def gemini_model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": "1",
        "displayName": name,
        "supportedGenerationMethods": list(GEMINI_METHODS),
    }
