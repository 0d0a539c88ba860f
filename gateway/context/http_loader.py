"""Load context from somebody's JSON API, without becoming a way into the network behind the gateway.

What protects: the host stands in the configuration and in ``[context] allowed_hosts``, values reach only the path, the
query and the body (see ``template.py``), the final address is checked once more as the client will read it, redirects
are answers and not orders, proxies and credentials of the environment play no part (the client's matter), the body is
read piece by piece and never beyond ``max_bytes``, and compressed answers are neither asked for nor taken, so that a
few bytes cannot become many.

An entry ``host`` of ``allowed_hosts`` allows every port of that host, ``host:port`` only that one. Names are not
resolved and compared with private ranges: a host that the operator named may well be a private one.

Its errors say what is wrong with the answer and never show the address, which may hold a key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from gateway.config import ContextRules, HttpLoader
from gateway.context.load import LoaderError
from gateway.context.template import TemplateError, check_json, compile_pointer, fill_json, fill_url
from gateway.core.ask import Ask, Item

if TYPE_CHECKING:
    import httpx

_PORTS = {"http": 80, "https": 443}
_NO_TIMEOUTS = {"timeout": {"connect": None, "read": None, "write": None, "pool": None}}


class Http:
    """One request per ask, to one configured API.

    Args:
        rules: The loader's configuration.
        client: Takes no proxies or credentials from the environment. Its time limits are not used, the loader has its
            own; neither are its cookies, which would be other users'.
        allowed: What may be reached.

    Raises:
        TemplateError: The address, body or pointer of ``rules`` is not usable.
    """

    def __init__(self, rules: HttpLoader, client: httpx.AsyncClient, allowed: ContextRules) -> None:
        self.rules = rules
        self._client = client
        self._allowed = frozenset(host.lower() for host in allowed.allowed_hosts)
        self._follow = compile_pointer(rules.pointer)
        _check_address(rules.url)
        if rules.body is not None:
            check_json(rules.body)
        self._headers = {"accept": "application/json", "accept-encoding": "identity"}
        if rules.body is not None:
            self._headers["content-type"] = "application/json"
        self._headers.update({name: value.reveal() for name, value in rules.headers.items()})

    async def load(self, ask: Ask) -> Sequence[Item]:
        """The part of the answer at ``pointer``: a list gives one item per element, anything else a single one.

        Raises: LoaderError.
        *Cancellation*: the connection is closed at once.
        """
        import httpx

        try:
            request = self._request(ask)
        except (TemplateError, httpx.InvalidURL) as error:
            raise LoaderError(str(error) if isinstance(error, TemplateError) else "the address is invalid") from None
        try:
            body = await self._fetch(request)
        except httpx.HTTPError as error:
            raise LoaderError(f"the API could not be reached ({type(error).__name__})") from error
        return _items(self._part(body), f"{request.url.scheme}://{request.url.netloc.decode()}{request.url.path}")

    def _request(self, ask: Ask) -> httpx.Request:
        import httpx

        body = None if self.rules.body is None else fill_json(self.rules.body, ask)
        # Not the client's build_request: that would add the cookies of other users' answers.
        request = httpx.Request(
            self.rules.method,
            fill_url(self.rules.url, ask),
            headers=self._headers,
            content=body,
            extensions=_NO_TIMEOUTS,  # timeout_s holds for all of it, the fan-out sees to that
        )
        if not is_allowed(request.url, self._allowed):
            raise LoaderError("this host is not in [context] allowed_hosts")
        return request

    async def _fetch(self, request: httpx.Request) -> bytes:
        response = await self._client.send(request, stream=True, follow_redirects=False)
        async with aclosing(response):
            if response.is_redirect:
                raise LoaderError(f"the API answered {response.status_code}, and redirects are not followed")
            if not response.is_success:
                raise LoaderError(f"the API answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise LoaderError("the API sent a compressed answer that nobody asked for")
            return await _limited(response, self.rules.max_bytes)

    def _part(self, body: bytes) -> Any:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise LoaderError("the API's answer is not JSON") from None
        try:
            return self._follow(document)
        except LookupError:
            raise LoaderError(f"the API's answer has nothing at pointer '{self.rules.pointer}'") from None


def is_allowed(url: httpx.URL, allowed: Iterable[str]) -> bool:
    """Whether ``url``, as the client reads it, leads to one of the ``allowed`` hosts and nowhere else."""
    if url.scheme not in _PORTS or url.userinfo:
        return False
    host = url.raw_host.decode("ascii").lower()
    name = f"[{host}]" if ":" in host else host
    port = url.port or _PORTS[url.scheme]
    return bool({host, name, f"{name}:{port}"} & set(allowed))


def _check_address(template: str) -> None:
    parts = urlsplit(template)
    if parts.scheme not in _PORTS or not parts.netloc or "@" in parts.netloc or "{" in parts.netloc:
        raise TemplateError("url must begin with http:// or https:// and a host without user, password or placeholder")
    fill_url(template, Ask(input="x", user="x", conversation="x"))


async def _limited(response: httpx.Response, max_bytes: int) -> bytes:
    too_large = f"the API's answer is larger than {max_bytes} bytes (max_bytes)"
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise LoaderError(too_large)
    body = bytearray()
    # The bound stream under aiter_raw, because leaving two nested generators early would leave the inner one unclosed.
    stream = cast("AsyncGenerator[bytes, None]", aiter(cast("httpx.AsyncByteStream", response.stream)))
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > max_bytes:
                raise LoaderError(too_large)
    return bytes(body)


def _items(part: Any, source: str) -> list[Item]:
    parts = part if isinstance(part, list) else [part]
    texts = [one if isinstance(one, str) else orjson.dumps(one).decode() for one in parts if one not in (None, "", {})]
    return [Item(text=text, source=source) for text in texts]
