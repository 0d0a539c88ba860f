"""Who is asking: what identity found out about a request's key."""

from __future__ import annotations

import enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from attrs import frozen

from gateway.core.limits import LimitRule


class Priority(enum.IntEnum):
    """A place class in the admission line; the lower number is served more often."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@frozen(kw_only=True, slots=True)
class Principal:
    """The owner of a request.

    Attributes:
        name: The key's name; safe for logs and metrics, never the secret.
        priority: The best priority this key may ask for.
        models: Models and assistants it may ask for, ``openai/*`` style prefixes too; empty means all.
        key_id: What names the key for good, also when its name is given to another: ``key_…`` for a virtual key,
            ``jwt:issuer#principal`` for a token's; "" for a key of the configuration.
        team, org: What it belongs to; "" for nothing.
        assistants: Assistants it may ask for beside ``models``; empty adds none.
        ceilings: What its team and its organisation allow; each that is not empty must allow a model, too.
        endpoints: Endpoints it may use (``Record.endpoint``); empty means all.
        networks: Where it may come from; empty means anywhere.
        limits: All that hold for it: of the key, its team, its organisation.
        expires_at: Seconds since the epoch; None for never.
    """

    name: str
    priority: Priority = Priority.NORMAL
    models: frozenset[str] = frozenset()
    key_id: str = ""
    team: str = ""
    org: str = ""
    assistants: tuple[str, ...] = ()
    ceilings: tuple[frozenset[str], ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    limits: tuple[LimitRule, ...] = ()
    expires_at: float | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may ask for this model or assistant."""
        own = not (self.models or self.assistants) or model in self.assistants or _allows(self.models, model)
        return own and (not self.ceilings or all(not one or _allows(one, model) for one in self.ceilings))

    def may_ask(self, endpoint: str) -> bool:
        """Whether it may use this endpoint, by its name in the facts."""
        return not self.endpoints or endpoint in self.endpoints

    def may_come_from(self, client: str | None) -> bool:
        """Whether it may be used from this IP address; None is an address nobody knows."""
        if not self.networks:
            return True
        try:
            address = ip_address(client or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.networks)


def _allows(models: frozenset[str], model: str) -> bool:
    return model in models or any(name.endswith("*") and model.startswith(name[:-1]) for name in models)


ANONYMOUS = Principal(name="anonymous")
