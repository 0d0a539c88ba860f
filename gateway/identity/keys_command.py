"""``sluice keys``: make, list, rotate and revoke virtual keys in the configured store.

A new key is printed once, alone on standard output, so that it can be piped; all that is said about it goes to standard
error. Running gateways see a change about a second later (``identity.refresh_s``), without a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, TypeVar

import click
import trio
from attrs import asdict

from gateway.config import Config, asks_for_keys
from gateway.identity.pepper import Pepper, PepperError, make_pepper, new_key, pepper_file
from gateway.identity.spans import moment_s, span_s, written
from gateway.store.keys import PERIODS, KeyRefused, Keys, StoredKey
from gateway.store.sqlite import Store, StoreError, database_path, is_postgresql

T = TypeVar("T")

_NAME_CHARS = 200
_MICRO = 1_000_000
_MAPPED_BITS = 96  # before the IPv4 part of ::ffff:10.0.0.1
_MOST_USD = 1_000_000_000
_MOST_UNITS = 2**40  # of a limit, as in a configuration
_MOST_OVERLAP_S = 366 * 86_400


def create(config: Config, name: str, *, as_json: bool, **options: Any) -> None:
    """Make a key and show it, once.

    Args:
        options: As of the command: ``team``, ``rpm``, ``budget_usd``, ``models`` …; strings as they were written.

    Raises: click.ClickException.
    """
    _check_name(config, name)
    key = _stored(name, options)
    first = not asks_for_keys(config) and not _has_pepper(config)
    pepper = _pepper(config)
    secret, prefix = new_key()
    digest = pepper.digest(secret.encode()).hex()
    made = _in_store(config, lambda keys: keys.create(key, digest=digest, prefix=prefix, pepper_check=pepper.check))
    _show(secret, made, as_json=as_json)
    for sentence in _doubts(config, made):
        click.echo(f"warning: {sentence}", err=True)
    if first:
        click.echo("The gateway now asks everybody for a key; until now it let in everybody on this machine.", err=True)


def rotate(config: Config, name: str, *, overlap: str, as_json: bool) -> None:
    """Give a key a new secret and show it, once. Raises: click.ClickException."""
    try:
        overlap_s = span_s(overlap)
    except ValueError as error:
        raise click.ClickException(f"--overlap: {error}") from error
    if overlap_s > _MOST_OVERLAP_S:
        raise click.ClickException("--overlap: a year at most")
    pepper = _pepper(config)
    secret, prefix = new_key()
    digest = pepper.digest(secret.encode()).hex()
    made = _in_store(
        config,
        lambda keys: keys.rotate(name, digest=digest, prefix=prefix, pepper_check=pepper.check, overlap_s=overlap_s),
    )
    _show(secret, made, as_json=as_json)
    for old in made.secrets[1:]:
        click.echo(f"{old.prefix}… works until {written(old.ends_s)}", err=True)


def revoke(config: Config, name: str, *, as_json: bool) -> None:
    """End a key with all its secrets. Raises: click.ClickException."""
    key = _in_store(config, lambda keys: keys.revoke(name))
    if as_json:
        click.echo(json.dumps({"id": key.id, "name": key.name, "revoked": True}))
    else:
        seconds = f"{config.identity.refresh_s + 1:g} s"
        click.echo(f"'{key.name}' ({key.id}) is revoked; every process refuses it within {seconds}")


def show_all(config: Config, *, as_json: bool, revoked: bool) -> None:
    """List the keys, without their secrets, which nobody has. Raises: click.ClickException."""
    found = _in_store(config, lambda keys: keys.list())
    shown = [key for key in found if revoked or key.revoked_s is None]
    if as_json:
        click.echo(json.dumps([public(key) for key in shown], indent=2))
        return
    if not shown:
        click.echo("no keys; `sluice keys create NAME` makes one")
        return
    _print_table(shown)


def public(key: StoredKey) -> dict[str, Any]:
    """What may be known of a key, as JSON: no digest."""
    document = asdict(key, filter=lambda attribute, value: attribute.name not in ("secrets", "digest"))
    document["secrets"] = [
        {"prefix": secret.prefix, "created_s": secret.created_s, "ends_s": secret.ends_s} for secret in key.secrets
    ]
    return document


def state_of(key: StoredKey, now_s: float) -> str:
    """``active``, ``expired`` or ``revoked``."""
    if key.revoked_s is not None:
        return "revoked"
    return "expired" if key.expires_s is not None and key.expires_s <= now_s else "active"


def _in_store(config: Config, work: Callable[[Keys], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Store.open(config.store.url, local_url=config.store.local_url) as store:
            return await work(Keys(store.sql))

    try:
        if not is_postgresql(config.store.url) and database_path(config.store.url) == ":memory:":
            raise click.ClickException("store.url: a store in memory keeps no keys; name a file")
        return trio.run(run)
    except (StoreError, KeyRefused) as error:
        raise click.ClickException(str(error)) from error


def _pepper(config: Config) -> Pepper:
    try:
        return make_pepper(config)
    except (PepperError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _has_pepper(config: Config) -> bool:
    path = None if is_postgresql(config.store.url) else pepper_file(config)
    return path is None or path.exists()


def _check_name(config: Config, name: str) -> None:
    if not name or name != name.strip() or not name.isprintable() or len(name) > _NAME_CHARS:
        raise click.ClickException(f"NAME: 1 to {_NAME_CHARS} printable characters without spaces at the ends")
    if any(name == key.name for key in config.key):
        raise click.ClickException(f"'{name}' is the name of a [[key]] in the configuration; choose another")


def _stored(name: str, options: dict[str, Any]) -> StoredKey:
    """The key that the options describe."""
    budget, expires = options.pop("budget_usd"), options.pop("expires")
    for field in ("models", "assistants", "endpoints", "networks"):
        options[field] = _names(options[field])
    try:
        options["networks"] = tuple(_network(one) for one in options["networks"])
        return StoredKey(
            name=name,
            budget_micro_usd=None if budget is None else micro_usd(budget),
            expires_s=None if expires is None else _future(expires),
            **options,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def micro_usd(text: str) -> int:
    """Dollars as micro-dollars, exactly. Raises: ValueError, with what to write."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
        whole = amount * _MICRO
        exact = amount.is_finite() and whole == int(whole)
    except (ArithmeticError, ValueError):
        exact = False
    if not exact or not 0 < amount <= _MOST_USD:
        raise ValueError(f"--budget-usd: '{text}' is no amount of dollars; write it as 25 or 0.50")
    return int(whole)


def _future(text: str) -> float:
    now_s = time.time()
    try:
        at_s = moment_s(text, now_s)
    except ValueError as error:
        raise ValueError(f"--expires: {error}") from error
    if at_s <= now_s:
        raise ValueError(f"--expires: {written(at_s)} is over")
    return at_s


def _network(text: str) -> str:
    try:
        return network(text)
    except ValueError as error:
        raise ValueError(f"--networks: {error}; write 10.0.0.0/8 or 192.0.2.7") from error


def network(text: str) -> str:
    """A network as it is compared with addresses, where IPv4 written as IPv6 is IPv4. Raises: ValueError."""
    found = ip_network(text)
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= _MAPPED_BITS:
        found = ip_network((mapped, found.prefixlen - _MAPPED_BITS))
    return str(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def _doubts(config: Config, key: StoredKey) -> Iterable[str]:
    """What is allowed but probably not meant."""
    if config.identity.virtual_keys == "off":
        yield 'identity.virtual_keys is "off"; the gateway will not know this key'
    if key.team and key.team not in {team.name for team in config.team}:
        yield f"there is no [[team]] called '{key.team}'; the key has its own limits only"
    if key.org and key.org not in {one.name for one in config.organisation}:
        yield f"there is no [[organisation]] called '{key.org}'; the key has its own limits only"
    for path in key.endpoints:
        if not path.startswith("/v1") and path != "passthrough":
            yield f"no endpoint is called '{path}'; write it as /v1/chat/completions"
    for name in (*key.models, *key.assistants):
        assistants = {assistant.name for assistant in config.assistant}
        if name not in assistants and not name.endswith("*") and config.find_model(name) is None:
            yield f"no model or assistant is called '{name}'"


def _show(secret: str, key: StoredKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": secret, **public(key)}, indent=2))
        return
    click.echo(secret)
    click.echo(f"This is the key of '{key.name}' ({key.id}). It is shown now and never again.", err=True)


def _print_table(keys: list[StoredKey]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "prefix", "team", "limits", "may use", "expires", "state"):
        table.add_column(title, overflow="fold")
    now_s = time.time()
    for key in keys:
        prefixes = ", ".join(one.prefix for one in key.secrets if one.ends_s is None or one.ends_s > now_s)
        belongs = "/".join(part for part in (key.org, key.team) if part)
        scopes = ", ".join((*key.models, *key.assistants, *key.endpoints, *key.networks)) or "all"
        state = state_of(key, now_s)
        row = (key.name, prefixes, belongs, limits_of(key), scopes, written(key.expires_s) or "never", state)
        table.add_row(*map(Text, row), style="" if state == "active" else "dim")
    console = Console()
    if not console.is_terminal:  # a pipe has no width; nothing is folded
        console.width = 400
    console.print(table)


def limits_of(key: StoredKey) -> str:
    """The limits in one line: ``600 rpm, 50 usd/month``."""
    parts = [f"{amount} {name}" for name in ("rpm", "rpd", "tpm", "tpd") if (amount := getattr(key, name)) is not None]
    if key.max_concurrent is not None:
        parts.append(f"{key.max_concurrent} at once")
    if key.budget_micro_usd is not None:
        dollars = f"{Decimal(key.budget_micro_usd) / _MICRO:f}"
        parts.append(f"{dollars} usd" if key.period == "total" else f"{dollars} usd/{key.period}")
    return ", ".join(parts) or "none"


def group(find_config: Callable[[Any], Config], config_option: Callable[[Any], Any]) -> click.Group:
    """The command ``keys`` with its commands.

    Args:
        find_config: The configuration that ``--config`` means.
        config_option: Adds ``--config``, as parameter ``file``.
    """
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    count = click.IntRange(min=1, max=_MOST_UNITS)

    keys = click.Group("keys")

    @keys.command("create", short_help="Make a key; it is shown once.")
    @click.argument("name")
    @click.option("--team", default="", help="Team, whose limits hold, too.")
    @click.option("--org", default="", help="Organisation; by default the team's.")
    @click.option("--rpm", type=count, metavar="N", help="Requests in any minute.")
    @click.option("--rpd", type=count, metavar="N", help="Requests in any 24 hours.")
    @click.option("--tpm", type=count, metavar="N", help="Tokens in any minute.")
    @click.option("--tpd", type=count, metavar="N", help="Tokens in any 24 hours.")
    @click.option("--max-concurrent", type=count, metavar="N", help="Requests at the same time.")
    @click.option("--budget-usd", metavar="X", help="Dollars per period.")
    @click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True, help="Of the budget.")
    @click.option("--models", default="", metavar="A,B", help="Models and assistants it may ask for; openai/* too.")
    @click.option("--assistants", default="", metavar="A,B", help="Assistants it may ask for, beside --models.")
    @click.option("--endpoints", default="", metavar="A,B", help="Paths it may POST to; passthrough: others.")
    @click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
    @click.option("--networks", default="", metavar="A,B", help="Where it may come from, as 10.0.0.0/8.")
    @click.option("--expires", metavar="WHEN", help="30d, 12h, or a date: 2027-01-31.")
    @as_json
    @config_option
    def create_command(name: str, file: Any, as_json: bool, **options: Any) -> None:
        """Make a key; it is shown once."""
        create(find_config(file), name, as_json=as_json, **options)

    @keys.command("list", short_help="List keys.")
    @click.option("--all", "revoked", is_flag=True, help="Revoked ones, too.")
    @as_json
    @config_option
    def list_command(file: Any, as_json: bool, revoked: bool) -> None:
        """List keys; a key itself cannot be shown again."""
        show_all(find_config(file), as_json=as_json, revoked=revoked)

    @keys.command("rotate", short_help="Give a key a new secret.")
    @click.argument("name")
    @click.option("--overlap", default="24h", show_default=True, metavar="SPAN", help="How long the old one works on.")
    @as_json
    @config_option
    def rotate_command(name: str, file: Any, as_json: bool, overlap: str) -> None:
        """Give the key called NAME (or with this id or prefix) a new secret; limits and budget go on."""
        rotate(find_config(file), name, overlap=overlap, as_json=as_json)

    @keys.command("revoke", short_help="End a key, for good.")
    @click.argument("name")
    @as_json
    @config_option
    def revoke_command(name: str, file: Any, as_json: bool) -> None:
        """End the key called NAME (or with this id or prefix) with all its secrets, for good."""
        revoke(find_config(file), name, as_json=as_json)

    return keys
