"""The configuration: a frozen tree of values, one class per TOML table.

Every field has the default that is right in production and its unit in its name. Reading a file, expanding
``${VAR}`` and finding every fault at once happens in :func:`load`; nothing here opens a socket.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

Priority = Literal["high", "normal", "low"]


@frozen(repr=False)
class Secret:
    """A string that never shows itself: ``repr``, ``str`` and logs print ``***``. Read it with :meth:`reveal`."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@frozen(kw_only=True)
class Server:
    """``[server]``: sockets and their limits."""

    bind: str = "127.0.0.1:8080"
    workers: int = 1  # processes; they share [admission] out among themselves
    drain_timeout_s: float = 30.0  # SIGTERM to the end of the last stream
    client_stall_s: float = 30.0  # a client that takes no byte for so long is dropped
    max_body_bytes: int = 16_777_216
    body_timeout_s: float = 30.0  # from the end of the headers to the last byte of the request body
    header_timeout_s: float = 10.0  # from a request's first byte to the end of its headers
    max_header_bytes: int = 32_768
    keep_alive_s: float = 75.0  # an idle connection is closed after it
    max_connections: int = 10_000  # per process; beyond it new connections wait in the backlog
    backlog: int = 2_048
    tls_cert: str | None = None  # PEM files; both or none
    tls_key: str | None = None


@frozen(kw_only=True)
class Admission:
    """``[admission]``: how much the whole instance takes on."""

    workers: int = 20  # requests worked on at the same time
    queue: int = 100  # requests that may wait for one of them
    max_wait_s: float = 5.0


@frozen(kw_only=True)
class Timeouts:
    """``[timeouts]``: what a provider may take."""

    connect_s: float = 5.0
    first_token_s: float = 30.0
    stall_s: float = 30.0
    total_s: float = 600.0


@frozen(kw_only=True)
class Store:
    """``[store]``: documents, profiles and conversations."""

    url: str = "sqlite:///sluice.db"


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
class Provider:
    """``[[provider]]``: who answers."""

    name: str
    dialect: Literal["openai"] = "openai"
    base_url: str
    api_key: Secret | None = None
    headers: dict[str, str] = field(factory=dict)  # sent with every request, e.g. OpenAI-Organization
    usage_in_stream: bool = True  # it understands stream_options.include_usage
    max_connections: int = 1_000


@frozen(kw_only=True)
class Target:
    """One entry of ``model.targets``: a provider and the name it knows the model by."""

    provider: str
    model: str


@frozen(kw_only=True)
class Model:
    """``[[model]]``: a name clients ask for. Targets stand in order of preference."""

    name: str
    targets: tuple[Target, ...]


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
    url: str  # may hold {input}, {user}, {conversation}; values are percent-encoded
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
class Key:
    """``[[key]]``: a static client key."""

    name: str
    secret: Secret
    priority: Priority = "normal"
    models: tuple[str, ...] = ()  # models and assistants it may ask for; empty: all


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
