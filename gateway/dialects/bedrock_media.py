"""Images, documents, sound and video of a :class:`Call` as Bedrock's Converse API wants them.

It takes data, and addresses in S3 (``s3://…``, with the rights of the gateway's credentials); it fetches nothing from
the web, and a refusal says so. A format is one of a list, found from the media type, then from the data's first bytes
or the name's ending. A document's name is shown to the model and has to be unique and of few characters: others become
spaces.

Source: Amazon Bedrock API reference, "ImageBlock", "DocumentBlock", "AudioBlock", "VideoBlock".
"""

from __future__ import annotations

import re
from typing import Any

from gateway.core.errors import RequestError
from gateway.dialects.anthropic_turns import unsupported
from gateway.dialects.call import Media

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    _WORD: "docx",
    "application/vnd.ms-excel": "xls",
    _EXCEL: "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_AUDIO = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "mp4",
    "audio/webm": "webm",
}
_VIDEO = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_FORMATS = {"image": _IMAGES, "document": _DOCUMENTS, "audio": _AUDIO, "video": _VIDEO}
_MAGIC = {  # the first characters of a file in base64
    "iVBORw0KGgo": "png",
    "/9j/": "jpeg",
    "R0lGOD": "gif",
    "UklGR": "webp",
    "JVBERi0": "pdf",
}
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9\-()\[\]]+")
_MOST_NAME_CHARS = 100


def media_block(part: Media, param: str, names: set[str]) -> dict[str, Any]:
    """The content block.

    Args:
        param: Where it stands in the client's request.
        names: Of the documents so far; the new one's is added.

    Raises:
        RequestError: 400, naming what this API does not take.
    """
    kind: str = part.kind
    if kind == "file":
        kind = "image" if part.mime.startswith("image/") else "document"
    found = _format(part, kind)
    if not found:
        said = f"of type {part.mime}" if part.mime else "whose type is not said"
        raise unsupported(param, f"{_a(kind)} {said} is none that Bedrock takes")
    block: dict[str, Any] = {"format": found, "source": _source(part, kind, param)}
    if kind == "document":
        block["name"] = _unique(part.name, names)
    return {kind: block}


def _format(part: Media, kind: str) -> str:
    formats = _FORMATS[kind]
    known = formats.get(part.mime.partition(";")[0].strip().lower(), "")
    if known or part.mime:
        return known
    seen = next((form for magic, form in _MAGIC.items() if part.data.startswith(magic)), "")
    ending = (part.name or part.url).rpartition(".")[2].lower()
    guesses = (seen, {"jpg": "jpeg"}.get(ending, ending), "pdf" if kind == "document" and part.data else "")
    return next((guess for guess in guesses if guess in formats.values()), "")


def _source(part: Media, kind: str, param: str) -> dict[str, Any]:
    if part.data:
        return {"bytes": part.data}
    if part.url.startswith("s3://"):
        return {"s3Location": {"uri": part.url}}
    if part.url:
        raise unsupported(param, f"Bedrock fetches no {kind} from the web; send its data, or an address s3://…")
    if part.file_id:
        raise unsupported(
            param, f"the file {part.file_id!r} is another provider's; send its data, or an address s3://…"
        )
    raise RequestError("invalid_request", 400, f"{param}: {_a(kind)} without data", param=param)


def _unique(name: str, names: set[str]) -> str:
    stem = _NOT_IN_NAME.sub(" ", name.rpartition(".")[0] or name).strip()[:_MOST_NAME_CHARS] or "document"
    made, count = stem, 1
    while made in names:
        count += 1
        made = f"{stem} {count}"
    names.add(made)
    return made


def _a(kind: str) -> str:
    return f"an {kind}" if kind in ("image", "audio") else f"a {kind}"
