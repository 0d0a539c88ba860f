"""Targets: providers of the configuration made ready to be called, and the routes that lead to them.

Everything about a request to a provider that does not change from call to call (origin, path, header blocks with the
keys, dialect with its quirks) is made once here, so that a call only adds its body. Nothing here knows how a provider
fares; that is ``upstream/health.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import asdict, evolve, frozen

from gateway import __version__, config
from gateway.core.errors import RequestError
from gateway.core.principal import Principal
from gateway.dialects.provider import ProviderDialect, Quirks
from gateway.dialects.voice import Asking
from gateway.upstream.head import HeaderBlock
from gateway.upstream.pool import Origin

LEAST_SECRET_CHARS = 8  # a shorter header value is no key, and taking it out would garble the text

Sign = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]  # (path, body) → headers of this request

# Imported when a provider of the dialect is configured: start-up is a feature.
_DIALECTS = {
    "openai": ("gateway.dialects.chat_provider", "OpenAIChat"),
    "openai-responses": ("gateway.dialects.responses_provider", "ResponsesProvider"),
    "anthropic": ("gateway.dialects.anthropic", "Anthropic"),
    "gemini": ("gateway.dialects.gemini", "Gemini"),
    "azure": ("gateway.dialects.azure", "AzureOpenAI"),
    "bedrock": ("gateway.dialects.bedrock", "BedrockConverse"),
}


@frozen(kw_only=True, slots=True)
class Provider:
    """Who answers: where, in which dialect, and with which headers.

    Attributes:
        keys: Header blocks, one per key; at least one.
        sign: For providers whose authorisation depends on each request.
        settings: As configured.
    """

    name: str
    origin: Origin
    base_path: bytes
    dialect: ProviderDialect
    keys: tuple[HeaderBlock, ...]
    sign: Sign | None
    max_connections: int
    drains: bool
    secrets: tuple[bytes, ...]
    settings: config.Provider

    def headers_for(self, key: int, path: bytes, asking: Asking) -> HeaderBlock:
        """The headers of one request."""
        block = self.keys[key]
        if asking.headers:
            block = block.plus(asking.headers)
        return block if self.sign is None else block.plus(self.sign(path, asking.body))

    def scrub(self, text: bytes) -> bytes:
        """``text`` without our keys and our headers' values, which some providers quote in their errors."""
        for secret in self.secrets:
            text = text.replace(secret, b"***")
        return text


@frozen(kw_only=True, slots=True)
class Target:
    """A provider and the name it knows the model by; ``name`` is ``provider/model``.

    Attributes:
        label: For metrics: the configured target, bounded even when the model's name comes from the client.
        weight: Its share among equals.
        context_tokens: Its window, 0 if nothing is known of it.
    """

    name: str
    label: str
    provider: Provider
    model: str
    weight: float = 1.0
    context_tokens: int = 0


@frozen(kw_only=True, slots=True)
class Route:
    """What a client's ``model`` leads to.

    Attributes:
        model: The configured model, whose rules hold for every target, those of its fallbacks too.
        stages: In order of preference; the targets of one stage are equals.
        timeouts: ``[timeouts]`` with the model's own.
        names: Of all targets.
        assistant: The assistant that feeds it, if the client asked for one.
    """

    model: config.Model
    stages: tuple[tuple[Target, ...], ...]
    timeouts: config.Timeouts
    names: tuple[str, ...]
    assistant: config.Assistant | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them, in order."""
        return tuple(target for stage in self.stages for target in stage)


def make_provider(settings: config.Provider) -> Provider:
    """A provider of the configuration, ready to be called."""
    url = urlsplit(settings.base_url)
    secure = url.scheme == "https"
    quirks = Quirks(**config.quirks_of(settings))
    dialect = make_dialect(settings, quirks)
    secrets = [key.reveal() for key in settings.keys]
    fixed = {
        b"user-agent": f"sluice/{__version__}".encode(),
        b"content-type": b"application/json",
        b"accept": b"application/json, text/event-stream",
        b"accept-encoding": b"identity",
    }
    own = {name.lower().encode(): value.encode() for name, value in settings.headers.items()}
    keys = tuple(HeaderBlock.of({**fixed, **dialect.headers(secret), **own}.items()) for secret in (secrets or [""]))
    origin = Origin(scheme=url.scheme, host=url.hostname or "", port=url.port or (443 if secure else 80))
    sign, more_secrets = _signer(settings)
    values = (value for value in settings.headers.values() if len(value) >= LEAST_SECRET_CHARS)
    on_disconnect = settings.on_disconnect or ("cancel" if quirks.stops_billing_on_abort else "drain")
    return Provider(
        name=settings.name,
        origin=origin,
        base_path=url.path.rstrip("/").encode(),
        dialect=dialect,
        keys=keys,
        sign=sign,
        max_connections=settings.max_connections,
        drains=on_disconnect == "drain",
        secrets=tuple(value.encode() for value in (*secrets, *more_secrets, *values) if value),
        settings=settings,
    )


def make_dialect(settings: config.Provider, quirks: Quirks) -> ProviderDialect:
    """The provider's dialect with its quirks."""
    module, name = _DIALECTS[settings.dialect]
    options: dict[str, Any] = {"quirks": quirks}
    if settings.dialect == "azure":
        options["api_version"] = settings.api_version
    return cast("ProviderDialect", getattr(import_module(module), name)(**options))


def _signer(settings: config.Provider) -> tuple[Sign | None, list[str]]:
    """For Bedrock with credentials: what signs its requests, and the secrets it does so with."""
    if settings.dialect != "bedrock" or settings.secret_access_key is None:
        return None, []
    from gateway.upstream.sigv4 import make_signer

    secrets = (settings.access_key_id, settings.secret_access_key, settings.session_token)
    return make_signer(settings), [secret.reveal() for secret in secrets if secret]


class Routes:
    """The configured models and assistants by the names clients use.

    Exact names win over wildcards, and longer wildcards over shorter ones.
    """

    def __init__(
        self,
        providers: Iterable[config.Provider],
        models: Iterable[config.Model],
        assistants: Iterable[config.Assistant],
        timeouts: config.Timeouts,
    ) -> None:
        self._providers = {settings.name: make_provider(settings) for settings in providers}
        self._models = {model.name: model for model in models}
        self._timeouts = timeouts
        self._exact = {name: self._route(model, "") for name, model in self._models.items() if not name.endswith("*")}
        wild = (model for model in self._models.values() if model.name.endswith("*"))
        self._wild = sorted(wild, key=lambda model: -len(model.name))
        self._assistants = {each.name: evolve(self._find_model(each.model), assistant=each) for each in assistants}

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
        stages = self._stages(model, rest)
        seen = [model.name]
        for name in model.fallback:
            self._add_fallback(name, seen, stages)
        own = {name: value for name, value in asdict(model.timeouts).items() if value is not None}
        names = tuple(target.name for stage in stages for target in stage)
        return Route(model=model, stages=tuple(stages), timeouts=evolve(self._timeouts, **own), names=names)

    def _add_fallback(self, name: str, seen: list[str], stages: list[tuple[Target, ...]]) -> None:
        """The stages of a fallback and then of its own fallbacks, each model once."""
        model = self._models.get(name)
        if model is None or name in seen:
            return
        seen.append(name)
        stages += self._stages(model, "")
        for further in model.fallback:
            self._add_fallback(further, seen, stages)

    def _stages(self, model: config.Model, rest: str) -> list[tuple[Target, ...]]:
        """A model's targets by rank: without ranks each is a stage of its own, or all are one if they are balanced."""
        stages: dict[int, list[Target]] = {}
        for position, settings in enumerate(model.targets):
            rank = settings.rank if settings.rank is not None else position if model.balance == "order" else 0
            stages.setdefault(rank, []).append(self._target(settings, rest))
        return [tuple(stages[rank]) for rank in sorted(stages)]

    def _target(self, settings: config.Target, rest: str) -> Target:
        provider, name = self._providers[settings.provider], settings.model_for(rest)
        return Target(
            name=f"{provider.name}/{name}",
            label=f"{provider.name}/{settings.model}",
            provider=provider,
            model=name,
            weight=settings.weight,
            context_tokens=settings.context_tokens or 0,
        )

    @property
    def providers(self) -> tuple[Provider, ...]:
        return tuple(self._providers.values())

    def provider(self, name: str) -> Provider | None:
        """The provider of that name."""
        return self._providers.get(name)

    def listing(self, principal: Principal) -> list[tuple[str, str, str]]:
        """The rows of :meth:`names` that ``principal`` may ask for."""
        return [row for row in self.names() if principal.may_use(row[0])]

    def names(self) -> list[tuple[str, str, str]]:
        """``(name, kind, owner)`` of everything by a name of its own; wildcards stand for no name and are left out."""
        rows = [(name, "model", route.stages[0][0].provider.name) for name, route in self._exact.items()]
        rows += [(name, "assistant", "sluice") for name in self._assistants]
        return rows
