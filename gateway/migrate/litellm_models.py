"""LiteLLM's ``model_list`` as our models: deployments of one name become the targets of one model."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

from gateway.migrate.litellm_providers import Providers
from gateway.migrate.litellm_settings import Settings, budget_of
from gateway.migrate.reading import Notes, Table

_PRICES = {
    "input_cost_per_token": "input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "cache_read_input_token_cost": "cached_usd_per_mtok",
    "cache_creation_input_token_cost": "cache_write_usd_per_mtok",
}
_TOKENS_PER_PRICE = 1_000_000
_SERVED_MODES = ("", "chat", "completion", "embedding", "responses")
_DEFAULTS = ("temperature", "max_tokens", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
_PARAMS = {
    **dict.fromkeys(_DEFAULTS, "defaults of requests have no counterpart; clients send it"),
    "azure_ad_token": "tokens of Entra ID expire, and nothing here renews them; use api_key",
    "aws_profile_name": "give access_key_id and secret_access_key, or a Bedrock api_key",
    "aws_role_name": "give access_key_id and secret_access_key, or a Bedrock api_key",
    "mock_response": "use `sluice sim` as a provider",
    "tags": "requests are not routed by tags",
}


@define(slots=True)
class Deployment:
    """One entry of ``model_list``, its target and what it says of the model."""

    params: Table
    target: dict[str, Any]
    shares: dict[str, float]  # weight, rpm, tpm: as far as they are given
    total_s: float | None
    stream_s: float | None
    budget: dict[str, Any]


@define(slots=True)
class Models:
    """The models, and with them providers and prices."""

    settings: Settings
    notes: Notes
    providers: Providers
    prices: dict[str, Any] = Factory(dict)
    tables: list[dict[str, Any]] = Factory(list)

    @classmethod
    def of(cls, root: Table, settings: Settings, notes: Notes) -> Models:
        shared = {"breaker": settings.breaker} if settings.breaker else {}
        models = cls(settings, notes, Providers(notes, shared))
        credentials = _credentials(root)
        groups: dict[str, list[Deployment]] = {}
        for entry in root.tables("model_list"):
            name, deployment = entry.text("model_name"), models._deployment(entry, credentials)
            entry.rest({})
            if deployment is not None and models._fits(name, entry, deployment):
                groups.setdefault(name, []).append(deployment)
        for values in credentials.values():
            values.rest({}, "no model names these credentials")
        for name, deployments in groups.items():
            models.tables.append(models._table(name, deployments))
        models._add_aliases()
        models._add_fallbacks()
        return models

    def _deployment(self, entry: Table, credentials: dict[str, Table]) -> Deployment | None:
        params = _with_credentials(entry.table("litellm_params"), credentials)
        info = entry.table("model_info")
        mode = info.text("mode")
        if mode not in _SERVED_MODES:
            info.note("mode", f"{mode!r} is not translated; passthrough = […] of a provider proxies its paths")
            params.ignore(*params.fields)
            info.ignore(*info.fields)
            return None
        if self.settings.parallel and "max_parallel_requests" not in params.fields:
            params.fields = {**params.fields, "max_parallel_requests": self.settings.parallel}
        found = self.providers.add(params)
        if found is None:
            params.ignore(*params.fields)
            info.ignore(*info.fields)
            return None
        target: dict[str, Any] = {"provider": found[0], "model": found[1]}
        window, rank = info.count("max_input_tokens"), params.count("order")
        target |= {} if rank is None else {"rank": rank}
        target |= {"context_tokens": window} if window else {}
        self._add_price(target, params, info)
        shares = {name: params.number(name) for name in ("weight", "rpm", "tpm")}
        total_s, stream_s, budget = params.number("timeout"), params.number("stream_timeout"), budget_of(params)
        params.ignore("drop_params", "model", "use_in_pass_through")
        params.rest(_PARAMS)
        self._note_base_model(target, info)
        info.ignore("id", "mode", "description", "max_tokens", "max_output_tokens", "version")
        info.ignore(*(name for name in info.fields if name.startswith("supports_")))
        info.rest({"access_groups": "keys name the models they may ask for"})
        given = {name: share for name, share in shares.items() if share is not None}
        return Deployment(params, target, given, total_s, stream_s, budget)

    def _fits(self, name: str, entry: Table, deployment: Deployment) -> bool:
        """Whether the names can stand in our file: one ``*`` each, at the end, and both or only the model's."""
        theirs = deployment.target["model"]
        if not name or "*" in name[:-1] or "*" in theirs[:-1] or (theirs.endswith("*") and not name.endswith("*")):
            entry.note("model_name", f"{name!r} → {theirs!r}: a name may hold one '*', at its end")
            return False
        return True

    def _add_price(self, target: dict[str, Any], params: Table, info: Table) -> None:
        price: dict[str, float] = {}
        for theirs, ours in _PRICES.items():
            per_token = params.number(theirs)
            per_token = info.number(theirs) if per_token is None else per_token
            if per_token is not None:
                price[ours] = round(per_token * _TOKENS_PER_PRICE, 9)
        if "input_usd_per_mtok" in price and "output_usd_per_mtok" in price:
            self.prices[f"{target['provider']}/{target['model']}"] = price
        elif price:
            params.note("input_cost_per_token", "a price here is that of input and output; only one of them is given")

    def _note_base_model(self, target: dict[str, Any], info: Table) -> None:
        """Whose price LiteLLM takes; ours goes by the deployment's own name, or by ``[prices]``."""
        base, deployed = info.text("base_model"), f"{target['provider']}/{target['model']}"
        if base and base.rpartition("/")[2] != target["model"] and deployed not in self.prices:
            info.note("base_model", f'prices go by the deployment\'s name: write [prices."{deployed}"] = …')

    def _table(self, name: str, deployments: list[Deployment]) -> dict[str, Any]:
        table: dict[str, Any] = {"name": name}
        by = next((by for by in ("weight", "rpm", "tpm") if any(by in one.shares for one in deployments)), "")
        several = len(deployments) > 1
        last = max((one.target.get("rank", 0) for one in deployments), default=0)
        ranked = any("rank" in one.target for one in deployments)
        for one in deployments:
            if several and by and any(each.shares.get(by) for each in deployments):
                one.target["weight"] = one.shares.get(by, 0.0)
            if ranked:
                one.target.setdefault("rank", last + 1)
        table["targets"] = [one.target for one in deployments]
        if several:
            table["balance"] = self.settings.balance
        if self.settings.retries is not None:
            table["retry"] = {"max": self.settings.retries}
        table["timeouts"] = _timeouts(deployments)
        self._add_limits(table, deployments)
        return table

    def _add_limits(self, table: dict[str, Any], deployments: list[Deployment]) -> None:
        for name in ("rpm", "tpm"):
            given = [one.shares[name] for one in deployments if name in one.shares]
            if given and self.settings.enforces and len(given) == len(deployments):
                table[name] = int(sum(given)) or 1
                continue
            for one in deployments:
                if name in one.shares:
                    weighs = "it weighs the target; " if len(deployments) > 1 and "weight" not in one.shares else ""
                    one.params.note(name, f"{weighs}nothing is refused by it: write {name} = … into the [[model]]")
        budgets = [one.budget for one in deployments if one.budget]
        if budgets and len(deployments) == 1:
            table.update(budgets[0])
        elif budgets:
            deployments[0].params.note("max_budget", "budgets are those of models, not of single targets")

    def _add_aliases(self) -> None:
        by_name = {table["name"]: table for table in self.tables}
        for alias, name in self.settings.aliases.items():
            path = f"router_settings.model_group_alias.{alias}"
            if name not in by_name:
                self.notes.add(path, f"no model is called {name!r}")
            elif alias in by_name:
                self.notes.add(path, "is a model's name, too, which comes first here")
            else:
                self.tables.append({**by_name[name], "name": alias})

    def _add_fallbacks(self) -> None:
        by_name = {table["name"]: table for table in self.tables}
        windows = {name for name, table in by_name.items() if all("context_tokens" in one for one in table["targets"])}
        given = self.settings.fallbacks
        for name, (path, others) in given.items():
            if name not in by_name and name != "*":
                self.notes.add(path, "no model is called that")
            for each in (name, *(alias for alias, model in self.settings.aliases.items() if model == name)):
                for other in others if each in by_name else ():
                    self._add_fallback(by_name[each], other, path, by_name, quiet=False)
        path, others = given.get("*", ("", []))
        for name, table in by_name.items():
            for other in others if self.settings.aliases.get(name, name) not in given else ():
                self._add_fallback(table, other, path, by_name, quiet=True)
        for name, (path, others) in self.settings.windows.items():
            for other in others:
                if name in by_name and other in windows:
                    self._add_fallback(by_name[name], other, path, by_name, quiet=False)
                    self.notes.add(path, f"{other!r} became a fallback for every failure, long prompts among them")
                else:
                    why = f"give the targets of {other!r} their context_tokens, and fallback = [{other!r}] to {name!r}"
                    self.notes.add(path, why)

    def _add_fallback(
        self, table: dict[str, Any], other: str, path: str, by_name: dict[str, dict[str, Any]], *, quiet: bool
    ) -> None:
        """``other`` after the model's others, if that makes no circle.

        Args:
            quiet: It holds for all models, so that it does not for this one needs no telling.
        """
        name = table["name"]
        if other not in by_name or other.endswith("*"):
            self.notes.add(path, f"{other!r} is no model's name; a fallback to one deployment has no counterpart")
        elif other == name or _reaches(other, name, by_name):
            if not quiet:
                self.notes.add(path, f"{name!r} → {other!r} would close a circle")
        elif other not in table.setdefault("fallback", []):
            table["fallback"].append(other)


def _reaches(start: str, goal: str, by_name: dict[str, dict[str, Any]]) -> bool:
    seen, ahead = {start}, [start]
    while ahead:
        for name in by_name[ahead.pop()].get("fallback", ()):
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                ahead.append(name)
    return False


def _timeouts(deployments: list[Deployment]) -> dict[str, float]:
    """Those of a model: the longest of its deployments', if all have one."""
    total_s = _longest("timeout", [(one.params, one.total_s) for one in deployments])
    stream_s = _longest("stream_timeout", [(one.params, one.stream_s) for one in deployments])
    made = {"total_s": total_s, "answer_s": total_s, "first_token_s": stream_s, "stall_s": stream_s}
    return {name: seconds for name, seconds in made.items() if seconds}


def _longest(name: str, given: list[tuple[Table, float | None]]) -> float | None:
    """The longest if there is one for each; those that it is not are noted."""
    known = [seconds for _, seconds in given if seconds]
    longest = max(known) if len(known) == len(given) else None
    for params, seconds in given:
        if seconds and seconds != longest:
            what = "the longest of them holds" if longest else "not every deployment has one, so none holds"
            params.note(name, f"deployments of one name have their timeouts in common here; {what}")
    return longest


def _credentials(root: Table) -> dict[str, Table]:
    found: dict[str, Table] = {}
    for row in root.tables("credential_list"):
        row.ignore("credential_info")
        found[row.text("credential_name")] = row.table("credential_values")
        row.rest({})
    return found


def _with_credentials(params: Table, credentials: dict[str, Table]) -> Table:
    """The parameters over the credentials that they name."""
    name = params.text("litellm_credential_name")
    if not name:
        return params
    if name not in credentials:
        params.note("litellm_credential_name", f"no credentials are called {name!r}")
        return params
    credentials[name].ignore(*credentials[name].fields)
    params.fields = {**credentials[name].fields, **params.fields}
    return params
