"""Targets: a provider of the configuration made ready to be called.

Everything about a request to a provider that does not change from call to call (origin, path, header block with the
key) is made once here, so that a call only adds its body.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from attrs import frozen

from gateway import __version__, config
from gateway.core.errors import RequestError
from gateway.core.principal import Principal
from gateway.upstream.head import HeaderBlock
from gateway.upstream.pool import Origin

LEAST_SECRET_CHARS = 8  # a shorter header value is no key, and taking it out would garble the text


@frozen(kw_only=True, slots=True)
class Provider:
    """Who answers: where, and with which headers."""

    name: str
    origin: Origin
    base_path: bytes
    headers: HeaderBlock
    usage_in_stream: bool
    max_connections: int
    secrets: tuple[bytes, ...]

    def scrub(self, text: bytes) -> bytes:
        """``text`` without our key and our headers' values, which some providers quote in their errors."""
        for secret in self.secrets:
            text = text.replace(secret, b"***")
        return text


@frozen(kw_only=True, slots=True)
class Target:
    """A provider and the name it knows the model by; ``name`` is ``provider/model``."""

    name: str
    label: str  # for metrics: the configured target, bounded even when the model's name comes from the client
    provider: Provider
    model: str


@frozen(kw_only=True, slots=True)
class Route:
    """What a client's ``model`` leads to.

    Attributes:
        model: The configured model's name.
        targets: In order of preference.
        assistant: The assistant that feeds it, if the client asked for one.
    """

    model: str
    targets: tuple[Target, ...]
    assistant: config.Assistant | None = None


def make_provider(settings: config.Provider) -> Provider:
    url = urlsplit(settings.base_url)
    host = url.hostname or ""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    key = settings.api_key.reveal() if settings.api_key else ""
    headers = {
        b"user-agent": f"sluice/{__version__}".encode(),
        b"content-type": b"application/json",
        b"accept": b"application/json, text/event-stream",
        b"accept-encoding": b"identity",
    }
    if key:
        headers[b"authorization"] = b"Bearer " + key.encode()
    for name, value in settings.headers.items():
        headers[name.lower().encode()] = value.encode()
    values = (value for value in settings.headers.values() if len(value) >= LEAST_SECRET_CHARS)
    return Provider(
        name=settings.name,
        origin=Origin(scheme=url.scheme, host=host, port=port),
        base_path=url.path.rstrip("/").encode(),
        headers=HeaderBlock.of(headers.items()),
        usage_in_stream=settings.usage_in_stream,
        max_connections=settings.max_connections,
        secrets=tuple(value.encode() for value in (key, *values) if value),
    )


class Routes:
    """The configured models and assistants by the names clients use.

    Exact names win over wildcards, and longer wildcards over shorter ones.
    """

    def __init__(
        self,
        providers: Iterable[config.Provider],
        models: Iterable[config.Model],
        assistants: Iterable[config.Assistant],
    ) -> None:
        self._providers = {settings.name: make_provider(settings) for settings in providers}
        models = tuple(models)
        self._exact = {model.name: self._route(model, "") for model in models if not model.name.endswith("*")}
        self._wild = sorted((m for m in models if m.name.endswith("*")), key=lambda m: -len(m.name))
        self._assistants = {
            each.name: Route(model=each.model, targets=self._find_model(each.model).targets, assistant=each)
            for each in assistants
        }

    def resolve(self, asked: str, principal: Principal) -> Route:
        """Find where a request for ``asked`` goes.

        Raises:
            RequestError: 404 ``model_not_found``; 403 ``model_not_allowed`` for this key.
        """
        route = self._exact.get(asked) or self._assistants.get(asked) or self._find_model(asked)
        if not principal.may_use(asked):
            raise RequestError("model_not_allowed", 403, f"this key may not ask for the model {asked!r}", param="model")
        return route

    def _find_model(self, asked: str) -> Route:
        if asked in self._exact:
            return self._exact[asked]
        for model in self._wild:
            rest = model.match(asked)
            if rest is not None:
                return self._route(model, rest)
        raise RequestError(
            "model_not_found",
            404,
            f"no model or assistant is called {asked!r}; GET /v1/models lists them",
            param="model",
        )

    def _route(self, model: config.Model, rest: str) -> Route:
        targets = []
        for settings in model.targets:
            provider, name = self._providers[settings.provider], settings.model_for(rest)
            label = f"{provider.name}/{settings.model}"
            targets.append(Target(name=f"{provider.name}/{name}", label=label, provider=provider, model=name))
        return Route(model=model.name, targets=tuple(targets))

    @property
    def providers(self) -> tuple[Provider, ...]:
        return tuple(self._providers.values())

    def listing(self, principal: Principal) -> list[tuple[str, str, str]]:
        """The rows of :meth:`names` that ``principal`` may ask for."""
        return [row for row in self.names() if principal.may_use(row[0])]

    def names(self) -> list[tuple[str, str, str]]:
        """``(name, kind, owner)`` of everything by a name of its own; wildcards stand for no name and are left out."""
        rows = [(name, "model", route.targets[0].provider.name) for name, route in self._exact.items()]
        rows += [(name, "assistant", "sluice") for name in self._assistants]
        return rows
