"""The configuration: TOML to a frozen tree, all faults at once.

``tree`` holds the values everybody else imports; ``presets`` knows providers by name; ``read`` and ``checks`` find what
is wrong with a file; ``expand`` fills in ``${VAR}``; ``environment`` makes a configuration out of provider keys when
there is no file; ``source`` is either, to be read again; ``describe`` prints one with its secrets masked. Imports
nothing of the gateway but itself, and neither trio nor httpx.
"""

from gateway.config.address import Address, parse_address
from gateway.config.describe import advice, describe
from gateway.config.environment import from_environment, known_variables
from gateway.config.faults import ConfigFaults, Fault
from gateway.config.identity_checks import asks_for_keys
from gateway.config.load import build, load
from gateway.config.source import Source
from gateway.config.tree import (
    Admission,
    Assistant,
    Breaker,
    Claims,
    Concurrency,
    Config,
    ContextRules,
    ConversationLoader,
    Hedge,
    HttpLoader,
    Identity,
    Issuer,
    Key,
    Ledger,
    Limits,
    Loader,
    LoaderRules,
    Log,
    Model,
    ModelTimeouts,
    Organisation,
    Price,
    Priority,
    ProfileLoader,
    Provider,
    Quirks,
    RetrievalLoader,
    Retry,
    RetryBudget,
    Secret,
    Server,
    Store,
    Target,
    Team,
    Timeouts,
    quirks_of,
)

__all__ = [
    "Address",
    "Admission",
    "Assistant",
    "Breaker",
    "Claims",
    "Concurrency",
    "Config",
    "ConfigFaults",
    "ContextRules",
    "ConversationLoader",
    "Fault",
    "Hedge",
    "HttpLoader",
    "Identity",
    "Issuer",
    "Key",
    "Ledger",
    "Limits",
    "Loader",
    "LoaderRules",
    "Log",
    "Model",
    "ModelTimeouts",
    "Organisation",
    "Price",
    "Priority",
    "ProfileLoader",
    "Provider",
    "Quirks",
    "RetrievalLoader",
    "Retry",
    "RetryBudget",
    "Secret",
    "Server",
    "Source",
    "Store",
    "Target",
    "Team",
    "Timeouts",
    "advice",
    "asks_for_keys",
    "build",
    "describe",
    "from_environment",
    "known_variables",
    "load",
    "parse_address",
    "quirks_of",
]
