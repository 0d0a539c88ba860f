"""The configuration as a frozen tree of values, one class per TOML table.

Every field has the default that is right in production and its unit in its name. The classes validate nothing
themselves: tests and the demo build them directly, and a file's faults are wanted all at once and with paths, which
validators that raise at the first one cannot give. :mod:`gateway.config.read` and :mod:`gateway.config.checks` do that.
Limits of numbers stand here, beside the field, as metadata: a number without any is at least 1, or above 0 with a
fraction; ``_limits`` and ``_fraction`` say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import asdict, field, frozen

Priority = Literal["high", "normal", "low"]
Dialect = Literal["openai", "openai-responses", "anthropic", "gemini", "azure", "bedrock"]
MASK = "***"
_PASSWORD = re.compile(r"(?<=://)([^@/?#]*?):[^@/?#]*@")
_USD: Mapping[str, float] = {"least": 0.0, "most": 1_000_000.0}
_FIXED_QUERY_VALUE = re.compile(r"(?<==)[^&#{}]+(?=[&#]|$)")


def _limits(default: int, *, least: int = 1, most: int | None = None) -> Any:
    return field(default=default, metadata={"least": least} if most is None else {"least": least, "most": most})


def _fraction(default: float, *, least: float | None = None, most: float | None = None) -> Any:
    limits = {"least": least, "most": most}
    return field(default=default, metadata={name: limit for name, limit in limits.items() if limit is not None})


def _without_end_slash(url: str) -> str:
    # A hole that a faulty file left (gateway.config.read) passes through unchanged.
    return url.rstrip("/") if isinstance(url, str) else url


def mask_values(headers: Mapping[str, object]) -> str:
    """Header names with their values hidden: any of them may be a key."""
    return repr(dict.fromkeys(headers, MASK))


def mask_query(url: str) -> str:
    """The URL with its password and the fixed values of its query hidden; placeholders stay."""
    path, mark, query = url.partition("?")
    return _PASSWORD.sub(rf"\1:{MASK}@", path) + mark + _FIXED_QUERY_VALUE.sub(MASK, query)


@frozen(repr=False)
class Secret:
    """A string that never shows itself: ``repr``, ``str`` and logs print ``***``. Read it with :meth:`reveal`."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


def _none_if_empty(secret: Secret | None) -> Secret | None:
    return secret or None


@frozen(kw_only=True)
class Server:
    """``[server]``: sockets and their limits."""

    bind: str = "127.0.0.1:8080"
    workers: int = _limits(1, most=256)  # processes; they share [admission] out among themselves
    drain_timeout_s: float = 30.0  # SIGTERM to the end of the process
    client_stall_s: float = 30.0  # a client that takes no byte for so long is dropped
    max_body_bytes: int = 16_777_216
    max_upload_bytes: int = 536_870_912  # instead of it, for what is passed through (provider.passthrough)
    body_timeout_s: float = 30.0  # from the end of the headers to the last byte of the request body
    header_timeout_s: float = 10.0  # from a request's first byte to the end of its headers
    max_header_bytes: int = 32_768
    keep_alive_s: float = 75.0  # an idle connection is closed after it
    max_connections: int = 10_000  # per process; beyond it new connections wait in the backlog
    backlog: int = _limits(2_048, most=65_535)
    tls_cert: str | None = None  # PEM files; both or none
    tls_key: str | None = None
    reload: bool = True  # read the file again when it changes; SIGHUP does so in any case

    @property
    def drain_grace_s(self) -> float:
        """The last part of ``drain_timeout_s``: streams that still run are told that they end, and do."""
        return min(2.0, self.drain_timeout_s / 5)


@frozen(kw_only=True)
class Admission:
    """``[admission]``: how much the whole instance takes on."""

    workers: int = 20  # requests worked on at the same time
    queue: int = _limits(100, least=0)  # requests that may wait for one of them
    max_wait_s: float = 5.0


@frozen(kw_only=True)
class Timeouts:
    """``[timeouts]``: what a provider may take."""

    connect_s: float = 5.0
    first_token_s: float = 30.0
    answer_s: float = 300.0  # all of an answer that is not streamed; where only first_token_s is set, that is it
    stall_s: float = 30.0
    keepalive_s: float = 120.0  # a stream that is kept alive without any content is given up after it
    total_s: float = 600.0


@frozen(kw_only=True)
class Store:
    """``[store]``: keys, budgets and the ledger; documents, profiles and conversations."""

    url: str = field(default="sqlite:///sluice.db", repr=lambda url: repr(mask_query(url)))  # or postgresql://…
    local_url: str = "sqlite:///sluice.db"  # with PostgreSQL: documents, profiles and conversations of this machine


@frozen(kw_only=True)
class LimitsKeeper:
    """``[limits]``: who keeps the limits that processes share, and what holds for all of them."""

    # redis://… for rates and concurrency; None: the store, which always keeps the budgets
    url: str | None = field(default=None, repr=lambda url: repr(url and mask_query(url)))
    lease_s: float = field(default=10.0, metadata={"least": 1, "most": 600})  # a crashed process loses its parts then
    on_failure: Literal["open", "closed"] = "open"  # while it is away and a process's part is used up
    stop_streams: bool = False  # for all limits, not only those that say so


@frozen(kw_only=True)
class Ledger:
    """``[ledger]``: one entry per request in the store, whatever its end."""

    retention_days: int = 400
    flush_s: float = field(default=0.5, metadata={"most": 60})  # what a killed process loses at most
    queue: int = 10_000  # entries in memory, of each process; beyond it they are spilled
    spill_dir: str = "sluice-ledger"  # entries wait there while the store is away
    spill_max_bytes: int = 1_073_741_824  # of each process; beyond it entries are lost, and counted


@frozen(kw_only=True)
class Price:
    """``[prices."provider/model"]``: what is paid, where it is not what genai-prices says. In USD per 10^6 tokens."""

    input_usd_per_mtok: float = field(metadata=_USD)
    output_usd_per_mtok: float = field(metadata=_USD)  # reasoning is output
    cached_usd_per_mtok: float | None = field(default=None, metadata=_USD)  # None: as input
    cache_write_usd_per_mtok: float | None = field(default=None, metadata=_USD)


@frozen(kw_only=True)
class Identity:
    """``[identity]``: keys that are made while the gateway runs, with ``sluice keys`` or the admin API."""

    # auto: as soon as there is a pepper, which `sluice keys create` makes beside an SQLite store, or a [[key]]
    virtual_keys: Literal["auto", "on", "off"] = "auto"
    # The same on all machines; with PostgreSQL there must be one.
    pepper: Secret | None = field(default=None, converter=_none_if_empty)
    grace_s: float = 3_600.0  # known keys work so long while the store is away
    refresh_s: float = field(default=1.0, metadata={"most": 60})  # a revoked key is refused after so long, everywhere


@frozen(kw_only=True)
class Admin:
    """``[admin]``: the API of operators, at ``/admin/api``; closed without a key."""

    key: Secret | None = field(default=None, converter=_none_if_empty)  # no client's; 16 characters at least
    rpm: int = 120  # calls in a minute, of each process
    audit_days: int = 400  # what was changed is remembered so long


@frozen(kw_only=True)
class Log:
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    requests: bool = True  # one line per request


@frozen(kw_only=True)
class ContextRules:
    """``[context]``: what loaders may reach."""

    allowed_hosts: tuple[str, ...] = ()  # "host" or "host:port", exact; http loaders go nowhere else


@frozen(kw_only=True)
class Quirks:
    """``provider.quirks``: how the provider differs from its dialect; None is as the dialect has it.

    A preset's come first, the file's own over them. See ``gateway.dialects.provider.Quirks``.
    """

    usage_in_stream: bool | None = None  # it understands stream_options.include_usage
    done_marker: bool | None = None  # its streams end with [DONE]
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    reasoning_field: str | None = None  # where its answers put thoughts; "" is nowhere
    reasoning_back: bool | None = None  # it wants that field back in the assistant's messages
    thinking_off: Literal["", "effort", "thinking"] | None = None  # how it is told not to think
    system_role: Literal["system", "developer"] | None = None
    developer_role: bool | None = None  # it takes that role in a client's messages, which else become the system's
    prefill: bool | None = None  # it goes on from a last message of the assistant
    prefill_field: str | None = None  # the field that says so in that message
    cache_marks: bool | None = None  # it takes cache_control on texts
    drops: tuple[str, ...] | None = None  # top-level fields that it refuses; they are left out
    message_drops: tuple[str, ...] | None = None  # the same for fields of messages
    seed_field: str | None = None  # what it calls the seed
    tool_call_id_chars: int | None = None  # its tool calls' ids have so many letters and digits; 0 is any
    stops_billing_on_abort: bool | None = None  # closing the connection ends the bill


@frozen(kw_only=True)
class RetryBudget:
    """``provider.retry_budget``: extra attempts are this share of recent successes, and a few in hand."""

    ratio: float = _fraction(0.2, least=0.0, most=1.0)
    floor: int = _limits(10, least=0)  # in hand at the start, and at most, without any success
    floor_per_s: float = _fraction(0.1, least=0.0)  # they come back so fast


@frozen(kw_only=True)
class Breaker:
    """``provider.breaker``: when a target that fails is left alone, and for how long."""

    enabled: bool = True
    consecutive: int = 5  # failures in a row that open it
    ratio: float = _fraction(0.5, most=1.0)  # share of failures in the window that opens it, …
    min_requests: int = 20  # … of at least so many results
    window_s: float = 30.0
    open_s: float = 5.0  # the first time; then twice as long each time, …
    max_open_s: float = 15.0  # … up to this
    auth_open_s: float = 300.0  # after a 401 or 403: our key is not taken


@frozen(kw_only=True)
class Concurrency:
    """``provider.concurrency``: attempts at the same time, per target, found out between these limits."""

    floor: int = 1
    ceiling: int = 100
    start: int = 20


@frozen(kw_only=True)
class Retry:
    """``model.retry``: asking the same target again, after a random part of ``base_s``, 2 · ``base_s``, …"""

    max: int = _limits(2, least=0)  # times per target
    base_s: float = 0.25
    max_s: float = 8.0  # also the longest Retry-After that is waited for, where no other target is left


@frozen(kw_only=True)
class Hedge:
    """``model.hedge``: a second target beside a first one that is slower than it usually is."""

    quantile: float = _fraction(0.95, least=0.5, most=0.999)  # of its recent first-token times
    min_delay_s: float = 0.05
    min_samples: int = _limits(20, most=256)  # before so many, nothing is hedged
    delay_s: float | None = None  # fixed, instead of the quantile


@frozen(kw_only=True)
class ModelTimeouts:
    """``model.timeouts``: what differs from ``[timeouts]``."""

    first_token_s: float | None = None
    answer_s: float | None = None
    stall_s: float | None = None
    total_s: float | None = None


@frozen(kw_only=True)
class Provider:
    """``[[provider]]``: who answers.

    A file may leave out ``base_url`` and ``dialect`` if ``preset`` names a provider of ``presets.toml``, or
    ``base_url`` if the dialect has an address of its own; :mod:`gateway.config.presets` fills them in.
    """

    name: str
    preset: str = ""
    dialect: Dialect = "openai"
    base_url: str = field(converter=_without_end_slash)  # the dialect's paths go below it, e.g. /chat/completions
    api_key: Secret | None = field(default=None, converter=_none_if_empty)  # "" is none, as in "${VAR:-}"
    api_keys: tuple[Secret, ...] = ()  # further ones, used in turn with it
    api_version: str = ""  # azure: of the dated API; "" is its v1 API
    region: str = ""  # bedrock
    access_key_id: Secret | None = field(default=None, converter=_none_if_empty)  # bedrock
    secret_access_key: Secret | None = field(default=None, converter=_none_if_empty)
    session_token: Secret | None = field(default=None, converter=_none_if_empty)
    headers: dict[str, str] = field(factory=dict, repr=mask_values)  # sent with every request, e.g. OpenAI-Organization
    quirks: Quirks = field(factory=Quirks)
    max_connections: int = 1_000  # of each process
    passthrough: tuple[str, ...] = ()  # paths below base_url that clients may ask for as /v1/…, e.g. "/files/*"
    on_disconnect: Literal["cancel", "drain"] | None = None  # None: drain if closing the connection saves nothing
    drain_max_s: float = 30.0
    drain_max_tokens: int = 4_096
    drain_max_streams: int = 10  # at the same time
    retry_budget: RetryBudget = field(factory=RetryBudget)
    breaker: Breaker = field(factory=Breaker)
    concurrency: Concurrency | None = None  # none: no limit but max_connections

    @property
    def keys(self) -> tuple[Secret, ...]:
        """All keys that are not empty; they are used in turn."""
        return tuple(key for key in (self.api_key, *self.api_keys) if key)


def quirks_of(provider: Provider) -> dict[str, Any]:
    """What is known of a provider's quirks, by the names of ``gateway.dialects.provider.Quirks``."""
    return {name: value for name, value in asdict(provider.quirks).items() if value is not None}


@frozen(kw_only=True)
class Target:
    """One entry of ``model.targets``: a provider and the name it knows the model by.

    A ``*`` at the end of ``model`` stands for what the ``*`` in the model's own name stood for.
    """

    provider: str
    model: str
    weight: float = _fraction(1.0, least=0.0)  # its share among equals; 0: only when the others fail
    rank: int | None = field(default=None, metadata={"least": 0})  # targets of the same rank are equals, 0 comes first
    context_tokens: int | None = None  # its window: a prompt that is too long for another goes to a larger one

    def model_for(self, rest: str) -> str:
        """The name to send to the provider; ``rest`` comes from :meth:`Model.match`."""
        return self.model[:-1] + rest if self.model.endswith("*") else self.model


@frozen(kw_only=True)
class Limits:
    """What somebody may use; None is no limit. Of key, team and organisation every limit holds."""

    rpm: int | None = None  # requests in any minute
    rpd: int | None = None  # requests in any 24 hours
    tpm: int | None = None  # tokens in any minute
    tpd: int | None = None
    max_concurrent: int | None = None
    budget_usd: float | None = field(default=None, metadata={"most": 1_000_000_000.0})
    period: Literal["day", "month", "total"] = "month"  # of the budget; from 0:00 UTC
    on_budget: Literal["refuse", "warn"] = "refuse"  # when it is spent; warn: in a header, and the request goes on
    stop_streams: bool = False  # end a stream whose reservation is used up, if nothing is left
    on_failure: Literal["open", "closed"] | None = None  # while the keeper of the limits is away; None: [limits]


@frozen(kw_only=True)
class Model(Limits):
    """``[[model]]``: a name clients ask for. Targets stand in order of preference.

    ``name`` may end in one ``*``, which stands for one or more characters: ``name = "openai/*"`` with the target model
    ``"*"`` passes every model of that provider through, so ``openai/gpt-4o`` asks it for ``gpt-4o``.
    """

    name: str
    targets: tuple[Target, ...]
    fallback: tuple[str, ...] = ()  # other models, by name: their targets follow on these
    midstream: Literal["error", "restart", "continue"] = "continue"  # what happens when a stream breaks off
    balance: Literal["order", "weighted", "least_loaded"] = "order"  # who of equals is asked first
    retry: Retry = field(factory=Retry)
    max_attempts: int = 6  # per request, retries, hedges and failovers together
    hedge: Hedge | None = None
    timeouts: ModelTimeouts = field(factory=ModelTimeouts)

    def match(self, asked: str) -> str | None:
        """What ``*`` stands for if a client asks for ``asked``: "" for a name without one, None for another model."""
        if not self.name.endswith("*"):
            return "" if asked == self.name else None
        prefix = self.name[:-1]
        return asked[len(prefix) :] if asked.startswith(prefix) and len(asked) > len(prefix) else None


@frozen(kw_only=True)
class LoaderRules:
    """What every loader has, whatever its kind."""

    name: str  # also its place in the system template: {name}
    required: bool = False  # a failure fails the request; otherwise the answer goes on without it and says so
    timeout_s: float = 0.5
    max_chars: int = 8_000  # what it may add to the prompt


@frozen(kw_only=True)
class RetrievalLoader(LoaderRules):
    """``kind = "retrieval"``: best passages of an indexed folder, by bm25."""

    kind: Literal["retrieval"] = "retrieval"
    collection: str = "default"  # what ``sluice index --collection`` named it
    top_k: int = 4


@frozen(kw_only=True)
class ProfileLoader(LoaderRules):
    """``kind = "profile"``: the row of the profile table for the request's ``user``."""

    kind: Literal["profile"] = "profile"


@frozen(kw_only=True)
class ConversationLoader(LoaderRules):
    """``kind = "context"``: earlier turns of the request's conversation."""

    kind: Literal["context"] = "context"
    max_turns: int = 10


@frozen(kw_only=True)
class HttpLoader(LoaderRules):
    """``kind = "http"``: a part of a JSON document from a host named in ``[context] allowed_hosts``."""

    kind: Literal["http"] = "http"
    url: str = field(repr=mask_query)  # may hold {input}, {user}, {conversation}; values are percent-encoded
    method: Literal["GET", "POST"] = "GET"
    headers: dict[str, Secret] = field(factory=dict)
    body: str | None = None  # POST: a JSON template; placeholders become JSON strings
    pointer: str = ""  # RFC 6901; "" is the whole answer
    max_bytes: int = 262_144


Loader = RetrievalLoader | ProfileLoader | ConversationLoader | HttpLoader


@frozen(kw_only=True)
class Assistant:
    """``[[assistant]]``: a model plus the context that feeds it; clients ask for it as a model, too."""

    name: str
    model: str
    system: str = ""
    context_budget_s: float = 0.8  # for all loaders together
    loader: tuple[Loader, ...] = ()


@frozen(kw_only=True)
class Key(Limits):
    """``[[key]]``: a static client key."""

    name: str
    secret: Secret
    priority: Priority = "normal"
    models: tuple[str, ...] = ()  # models and assistants it may ask for, "openai/*" too; empty: all
    team: str = ""


@frozen(kw_only=True)
class Team(Limits):
    """``[[team]]``: keys that share limits. Keys name it; one that is not here has no limits of its own."""

    name: str
    org: str = ""
    models: tuple[str, ...] = ()  # what its keys may ask for, whatever they themselves allow; empty: all


@frozen(kw_only=True)
class Organisation(Limits):
    """``[[organisation]]``: teams that share limits."""

    name: str
    models: tuple[str, ...] = ()


@frozen(kw_only=True)
class Claims:
    """``issuer.claims``: where a token says what; a dot leads into an object. "" is nowhere."""

    principal: str = "sub"
    team: str = "team"
    models: str = ""  # an array of strings, or one string with spaces between the names
    endpoints: str = ""  # the same, as /v1/chat/completions
    priority: str = ""  # high | normal | low


@frozen(kw_only=True)
class Issuer:
    """``[[issuer]]``: whose JSON Web Tokens are taken for keys (OpenID Connect)."""

    url: str = field(converter=_without_end_slash)  # the tokens' iss, with or without a slash at its end
    audience: str
    jwks_url: str | None = None  # where its keys are; None: as {url}/.well-known/openid-configuration says
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"], ...] = (
        "RS256",
        "ES256",
    )
    leeway_s: float = field(default=30.0, metadata={"most": 600})  # clocks may differ by so much
    claims: Claims = field(factory=Claims)
    org: str = ""
    team: str = ""  # of tokens that name none
    teams: tuple[str, ...] = ()  # teams that a token may name; empty: those of [[team]]
    models: tuple[str, ...] = ()  # of tokens that name none


@frozen(kw_only=True)
class Config:
    """The whole file."""

    server: Server = field(factory=Server)
    admission: Admission = field(factory=Admission)
    timeouts: Timeouts = field(factory=Timeouts)
    store: Store = field(factory=Store)
    log: Log = field(factory=Log)
    context: ContextRules = field(factory=ContextRules)
    provider: tuple[Provider, ...] = ()
    model: tuple[Model, ...] = ()
    assistant: tuple[Assistant, ...] = ()
    key: tuple[Key, ...] = ()
    identity: Identity = field(factory=Identity)
    team: tuple[Team, ...] = ()
    organisation: tuple[Organisation, ...] = ()
    issuer: tuple[Issuer, ...] = ()
    ledger: Ledger = field(factory=Ledger)
    prices: dict[str, Price] = field(factory=dict)  # by "provider/model", as the provider knows the model
    limits: LimitsKeeper = field(factory=LimitsKeeper)
    admin: Admin = field(factory=Admin)

    def find_model(self, asked: str) -> tuple[Model, str] | None:
        """The model a client means and what its ``*`` stands for; the exact name wins, then the longest prefix.

        Cost: one pass over the models; keep the answer rather than asking again.
        """
        found = [(model, rest) for model in self.model if (rest := model.match(asked)) is not None]
        return max(found, key=lambda pair: (not pair[1], len(pair[0].name)), default=None)
