"""The configuration: TOML to a frozen tree, all faults at once.

``tree`` holds the values everybody else imports; ``read`` and ``checks`` find what is wrong with a file; ``expand``
fills in ``${VAR}``; ``environment`` makes a configuration out of provider keys when there is no file; ``describe``
prints one with its secrets masked. Imports nothing of the gateway but itself, and neither trio nor httpx.
"""

from gateway.config.address import Address, parse_address
from gateway.config.describe import advice, describe
from gateway.config.environment import KNOWN_PROVIDERS, from_environment
from gateway.config.faults import ConfigFaults, Fault
from gateway.config.load import build, load
from gateway.config.tree import (
    Admission,
    Assistant,
    Breaker,
    Concurrency,
    Config,
    ContextRules,
    ConversationLoader,
    Hedge,
    HttpLoader,
    Key,
    Loader,
    LoaderRules,
    Log,
    Model,
    ModelTimeouts,
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
    Timeouts,
    quirks_of,
)

__all__ = [
    "KNOWN_PROVIDERS",
    "Address",
    "Admission",
    "Assistant",
    "Breaker",
    "Concurrency",
    "Config",
    "ConfigFaults",
    "ContextRules",
    "ConversationLoader",
    "Fault",
    "Hedge",
    "HttpLoader",
    "Key",
    "Loader",
    "LoaderRules",
    "Log",
    "Model",
    "ModelTimeouts",
    "Priority",
    "ProfileLoader",
    "Provider",
    "Quirks",
    "RetrievalLoader",
    "Retry",
    "RetryBudget",
    "Secret",
    "Server",
    "Store",
    "Target",
    "Timeouts",
    "advice",
    "build",
    "describe",
    "from_environment",
    "load",
    "parse_address",
    "quirks_of",
]
