"""The pages people look at, as finished HTTP answers.

Sans I/O and sans framework: the edge asks for a page and gets status, headers and bytes, so that the security headers
of a page stand next to the page and no web framework can lose one of them.

Everything under ``static/`` is read once, when :class:`Pages` is made. Its files are served under names that hold one
hash over all of them (``playground.3f9c….js``): a browser may keep them for ever, and after an upgrade it asks for new
names. The scripts are plain ES modules without a build step; the only thing done to them is that the names in their
``import … from "./sse.js"`` lines become the hashed ones. A name with an old hash is not found: a page that still asks
for it belongs to another version, and mixing the two would be worse than a reload.

Limits: a few dozen kilobytes held in memory, uncompressed. The content security policy forbids everything but the
page's own files; it also switches on Trusted Types, so that a script which assigned text to ``innerHTML`` would fail
in the browser instead of rendering what a model said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from jinja2 import Environment, FileSystemLoader, StrictUndefined

Headers = list[tuple[bytes, bytes]]

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@frozen(kw_only=True, slots=True)
class Page:
    """One answer, ready to be sent. Header names are lower-case; ``content-length`` is the server's business."""

    status: int
    headers: Headers
    body: bytes


class Pages:
    """Holds the template and the static files; cheap to ask, safe to share, never changes.

    Raises:
        OSError: A file of the package is missing.
    """

    def __init__(self) -> None:
        here = Path(__file__).parent
        files = {path.name: path.read_bytes() for path in sorted((here / "static").iterdir()) if path.is_file()}
        self._release = _digest(*files.values())
        self._names = {name: self._hashed(name) for name in files}
        self._static = {self._names[name]: self._linked(body) for name, body in files.items()}
        self._templates = Environment(
            loader=FileSystemLoader(here / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def playground(
        self,
        *,
        demo: bool,
        version: str,
        needs_key: bool,
        users: Sequence[str] = (),
        questions: Sequence[str] = (),
        if_none_match: bytes | None = None,
    ) -> Page:
        """The playground.

        Args:
            demo: Show the provider's counters (from ``GET /demo/provider``), the sample users and questions.
            version: Of the gateway; shown in the head of the page.
            needs_key: Ask for a key at once instead of waiting for the first 401.
            users: Offered in the user field, in the demo only.
            questions: Offered under the prompt, in the demo only.
            if_none_match: The request's header of that name, for a 304.
        """
        body = (
            self._templates.get_template("playground.html")
            .render(
                demo=demo,
                version=version,
                needs_key=needs_key,
                users=users if demo else (),
                questions=questions if demo else (),
                asset={name: f"/static/{hashed}" for name, hashed in self._names.items()},
            )
            .encode()
        )
        return _page(body, "text/html; charset=utf-8", caching="no-cache", if_none_match=if_none_match)

    def static(self, name: str, *, if_none_match: bytes | None = None) -> Page | None:
        """A static file by its hashed name, the part of the path after ``/static/``; None when there is none."""
        body = self._static.get(name)
        if body is None:
            return None
        content_type = CONTENT_TYPES[Path(name).suffix]
        return _page(body, content_type, caching="public, max-age=31536000, immutable", if_none_match=if_none_match)

    def _hashed(self, name: str) -> str:
        stem, _, suffix = name.rpartition(".")
        return f"{stem}.{self._release}.{suffix}"

    def _linked(self, body: bytes) -> bytes:
        for name, hashed in self._names.items():
            body = body.replace(f'"./{name}"'.encode(), f'"./{hashed}"'.encode())
        return body


def _page(body: bytes, content_type: str, *, caching: str, if_none_match: bytes | None) -> Page:
    etag = f'"{_digest(body)}"'.encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"cache-control", caching.encode()),
        (b"etag", etag),
        (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    if if_none_match is not None and _matches(etag, if_none_match):
        return Page(status=304, headers=headers, body=b"")
    return Page(status=200, headers=headers, body=body)


def _matches(etag: bytes, if_none_match: bytes) -> bool:
    """Weak comparison, as RFC 9110 §13.1.2 asks for; a proxy that compresses may have put ``W/`` before our tag."""
    candidates = (part.strip().removeprefix(b"W/") for part in if_none_match.split(b","))
    return any(candidate in (etag, b"*") for candidate in candidates)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
