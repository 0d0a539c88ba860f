"""What keys, teams and organisations may do together: their limits all hold, and each may narrow the models."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_network

from gateway.config import Config, Key, Limits, Organisation, Team
from gateway.core.limits import LimitKind, LimitRule, Scope
from gateway.core.principal import Principal, Priority
from gateway.store.keys import StoredKey

_KINDS: tuple[tuple[str, LimitKind], ...] = (
    ("rpm", "rpm"), ("rpd", "rpd"), ("tpm", "tpm"), ("tpd", "tpd"), ("max_concurrent", "concurrent"),
)  # fmt: skip
_ID_CHARS = 12


class Belonging:
    """The teams and organisations of a configuration."""

    def __init__(self, teams: Iterable[Team] = (), organisations: Iterable[Organisation] = ()) -> None:
        self.teams = {team.name: team for team in teams}
        self._organisations = {one.name: one for one in organisations}

    @classmethod
    def of(cls, config: Config) -> Belonging:
        return cls(config.team, config.organisation)

    def static(self, key: Key) -> Principal:
        """The principal of a key of the configuration; its limits go by its name."""
        return self.principal(
            name=key.name,
            priority=Priority[key.priority.upper()],
            models=frozenset(key.models),
            team=key.team,
            limits=rules("key", key.name, key),
        )

    def virtual(self, key: StoredKey) -> Principal:
        """The principal of a stored key. Its limits go by name and id: the next key of that name begins anew."""
        owner = f"{key.name}#{key.id.removeprefix('key_')[:_ID_CHARS]}"
        budget = key.budget_micro_usd
        limits = Limits(
            rpm=key.rpm,
            rpd=key.rpd,
            tpm=key.tpm,
            tpd=key.tpd,
            max_concurrent=key.max_concurrent,
            period=key.period,  # type: ignore[arg-type]
        )
        return self.principal(
            name=key.name,
            priority=Priority[key.priority.upper()],
            models=frozenset(key.models),
            key_id=key.id,
            team=key.team,
            org=key.org,
            assistants=key.assistants,
            endpoints=key.endpoints,
            networks=tuple(ip_network(one) for one in key.networks),
            limits=rules("key", owner, limits, budget),
            expires_at=key.expires_s,
        )

    def principal(
        self, *, team: str = "", org: str = "", limits: tuple[LimitRule, ...] = (), **fields: object
    ) -> Principal:
        """A principal with what its team and organisation add. ``org`` is the team's if the team says one."""
        its_team = self.teams.get(team)
        if its_team is not None:
            org = its_team.org or org
            limits += rules("team", team, its_team)
        its_org = self._organisations.get(org)
        if its_org is not None:
            limits += rules("org", org, its_org)
        ceilings = tuple(frozenset(one.models) for one in (its_team, its_org) if one is not None and one.models)
        return Principal(team=team, org=org, limits=limits, ceilings=ceilings, **fields)  # type: ignore[arg-type]


def rules(scope: Scope, owner: str, limits: Limits, budget_micro_usd: int | None = None) -> tuple[LimitRule, ...]:
    """The limits that are set, as rules. ``budget_micro_usd`` stands for ``limits.budget_usd`` where it is exact."""
    rule = partial(
        LimitRule,
        scope=scope,
        owner=owner,
        stop_streams=limits.stop_streams,
        on_failure=limits.on_failure or "",
    )
    found = [rule(kind=kind, amount=amount) for name, kind in _KINDS if (amount := getattr(limits, name)) is not None]
    if budget_micro_usd is None and limits.budget_usd is not None:
        budget_micro_usd = round(limits.budget_usd * 1_000_000)
    if budget_micro_usd is not None:
        hard = limits.on_budget == "refuse"
        found.append(rule(kind="usd", amount=budget_micro_usd, period=limits.period, hard=hard))
    return tuple(found)
