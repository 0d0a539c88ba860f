"""LiteLLM's ``router_settings``, ``litellm_settings`` and ``general_settings``: what holds for all models."""

from __future__ import annotations

from typing import Any, Literal

from attrs import define

from gateway.migrate.reading import Notes, Table

_BIND_WITH_KEY = "0.0.0.0:4000"  # where LiteLLM listens
_BIND = "127.0.0.1:4000"
_LEAST_LOADED = ("least-busy", "latency-based-routing")
_ENFORCING = ("usage-based-routing", "usage-based-routing-v2")
_ENFORCING_CHECK = "enforce_model_rate_limits"
_WEIGHTED = ("simple-shuffle", *_ENFORCING, "")
_SETTINGS = {
    "cache": "answers are not kept",
    "cache_params": "answers are not kept",
    "success_callback": "see [log] and /metrics for what is told here",
    "failure_callback": "see [log] and /metrics for what is told here",
    "callbacks": "see [log] and /metrics for what is told here",
    "content_policy_fallbacks": "a provider's refusal is passed on, not asked about elsewhere",
    "default_team_settings": "teams are [[team]] here, with limits but no callbacks",
    "default_internal_user_params": "there are no users apart from keys: sluice keys create NAME --budget-usd …",
    "max_internal_user_budget": "there are no users apart from keys: sluice keys create NAME --budget-usd …",
}
_ROUTER = {
    "content_policy_fallbacks": "a provider's refusal is passed on, not asked about elsewhere",
    "retry_policy": "retry = { max } holds for every failure that is worth it; others are not asked again",
    "allowed_fails_policy": "breaker = { … } counts every failure of the provider's alike",
    "provider_budget_config": "budgets are those of models, keys, teams and organisations",
    "enable_tag_filtering": "requests are not routed by tags",
    "redis_url": "write it into [limits] url",
}
_GENERAL = {
    "database_url": "the tables are others: write [store] url, and make the keys anew with sluice keys create",
    "store_model_in_db": "models stand in the file; it is read again when it changes",
    "enable_jwt_auth": "write an [[issuer]]",
    "litellm_jwtauth": "write an [[issuer]] with its claims",
    "alerting": "alert on /metrics",
    "pass_through_endpoints": 'write passthrough = ["/path/*"] into the provider',
    "max_request_size_mb": "write server.max_body_bytes",
    "allowed_ips": "keys have source networks: sluice keys create",
    "custom_auth": "keys and [[issuer]]s say who somebody is",
}
_PERIODS = {"1d": "day", "24h": "day", "30d": "month", "31d": "month", "1mo": "month", "": "total"}


@define(slots=True, kw_only=True)
class Settings:
    """Read and converted, as far as it is no model's.

    Attributes:
        balance: Of models with several targets.
        enforces: ``rpm`` and ``tpm`` of deployments refuse requests there, and do not only weigh.
        retries: None: our default.
        breaker: Of every provider.
        parallel: Default of ``max_parallel_requests``.
        fallbacks: By model, and where they stand; "*" is any without its own.
        windows: ``context_window_fallbacks``, likewise.
        aliases: Further names of models.
        access: ``[[key]]``, ``[[team]]``, ``[[organisation]]``.
    """

    server: dict[str, Any]
    admission: dict[str, Any]
    timeouts: dict[str, Any]
    limits: dict[str, Any]
    balance: Literal["weighted", "least_loaded"]
    enforces: bool
    retries: int | None
    breaker: dict[str, Any]
    parallel: int | None
    fallbacks: dict[str, tuple[str, list[str]]]
    windows: dict[str, tuple[str, list[str]]]
    aliases: dict[str, str]
    access: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, root: Table, notes: Notes) -> Settings:
        router, common = root.table("router_settings"), root.table("litellm_settings")
        general = root.table("general_settings")
        strategy = router.text("routing_strategy")
        if strategy not in (*_LEAST_LOADED, *_WEIGHTED):
            router.note("routing_strategy", f"{strategy!r} has no counterpart; the targets are weighted")
        checks = router.names("optional_pre_call_checks")
        for check in checks:
            if check != _ENFORCING_CHECK:
                router.note("optional_pre_call_checks", f"{check!r} has no counterpart")
        settings = cls(
            server={},
            admission=_without_none(workers=general.count("global_max_parallel_requests")),
            timeouts=_timeouts(router, common),
            limits=_redis(router),
            balance="least_loaded" if strategy in _LEAST_LOADED else "weighted",
            enforces=strategy in _ENFORCING or _ENFORCING_CHECK in checks,
            retries=_either(router.count("num_retries"), common.count("num_retries")),
            breaker=_breaker(router, common),
            parallel=_either(router.count("default_max_parallel_requests"), general.count("max_parallel_requests")),
            fallbacks=_fallbacks("fallbacks", router, common),
            windows=_fallbacks("context_window_fallbacks", router, common),
            aliases=_aliases(router),
            access=_access(general, common),
        )
        settings.server["bind"] = _BIND_WITH_KEY if settings.access else _BIND
        # These hold here anyway: what is dropped is told in a header, and logs are JSON.
        common.ignore("drop_params", "set_verbose", "json_logs", "telemetry")
        router.ignore("enable_pre_call_checks", "debug_level", "set_verbose")
        router.rest(_ROUTER)
        common.rest(_SETTINGS)
        general.rest(_GENERAL)
        return settings


def _timeouts(router: Table, common: Table) -> dict[str, Any]:
    stream_s = _either(router.number("stream_timeout"), common.number("stream_timeout"))
    total_s = _either(router.number("timeout"), common.number("request_timeout"))
    total_s, stream_s = total_s or None, stream_s or None
    return _without_none(total_s=total_s, answer_s=total_s, first_token_s=stream_s, stall_s=stream_s)


def _redis(router: Table) -> dict[str, Any]:
    host, port = router.text("redis_host"), router.text("redis_port")
    password, database = router.text("redis_password"), router.text("redis_db")
    if not host:
        return {}
    credentials = f":{password}@" if password else ""
    return {"url": f"redis://{credentials}{host}:{port or 6379}" + (f"/{database}" if database else "")}


def _breaker(router: Table, common: Table) -> dict[str, Any]:
    fails = _either(router.count("allowed_fails"), common.count("allowed_fails"))
    cooldown_s = _either(router.number("cooldown_time"), common.number("cooldown_time"))
    if router.flag("disable_cooldowns"):
        return {"enabled": False}
    made = _without_none(consecutive=None if fails is None else fails + 1, open_s=cooldown_s or None)
    if cooldown_s and cooldown_s > 15:
        made["max_open_s"] = cooldown_s
    return made


def _fallbacks(name: str, *tables: Table) -> dict[str, tuple[str, list[str]]]:
    """By model, the first table's over the second's: ``[{"a": ["b", "c"]}]``."""
    found: dict[str, tuple[str, list[str]]] = {}
    for table in tables:
        for row in table.tables(name):
            for model in row.fields:
                found.setdefault(model, (row.at(model), row.names(model)))
        if name == "fallbacks":
            defaults = table.names("default_fallbacks")
            if defaults:
                found.setdefault("*", (table.at("default_fallbacks"), defaults))
    return found


def _aliases(router: Table) -> dict[str, str]:
    given = router.table("model_group_alias")
    found: dict[str, str] = {}
    for alias, model in given.fields.items():
        name = model.get("model") if isinstance(model, dict) else model
        if isinstance(model, dict) and model.get("hidden"):
            given.note(alias, "is listed as any other model; which keys see it is up to their models = […]")
        if isinstance(name, str):
            found[alias] = name
        else:
            given.note(alias, "expected a model's name")
    return found


def _access(general: Table, common: Table) -> dict[str, list[dict[str, Any]]]:
    """The master key, and the proxy's own budget as that of an organisation that the key belongs to."""
    master, budget = general.text("master_key"), budget_of(common)
    if not master:
        if budget:
            common.note("max_budget", "there is no master_key: make keys, and give their team the budget")
        return {}
    key: dict[str, Any] = {"name": "master", "secret": master}
    if not budget:
        return {"key": [key]}
    return {
        "key": [{**key, "team": "proxy"}],
        "team": [{"name": "proxy", "org": "proxy"}],
        "organisation": [{"name": "proxy", **budget}],
    }


def budget_of(table: Table) -> dict[str, Any]:
    """``max_budget`` and ``budget_duration`` as ``budget_usd`` and ``period``; empty if there is none."""
    usd, duration = table.number("max_budget"), table.text("budget_duration")
    if usd is None:
        return {}
    if duration not in _PERIODS:
        table.note("budget_duration", f"{duration!r} is no day, month or total; the budget became that of a month")
    return {"budget_usd": usd, "period": _PERIODS.get(duration, "month")}


def _either(first: Any, second: Any) -> Any:
    return second if first is None else first


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
