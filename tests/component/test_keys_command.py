"""Promise: `sluice keys` makes keys that work, shows each once, lists and ends them, and says what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import sluice
from gateway.config import load
from gateway.core.errors import RequestError
from gateway.identity.directory import Directory
from gateway.store.keys import Keys
from gateway.store.sqlite import Store

CONFIG = """
[store]
url = "sqlite:///{folder}/sluice.db"
[[provider]]
name = "sim"
base_url = "http://127.0.0.1:1/v1"
[[model]]
name = "chat"
targets = [{{ provider = "sim", model = "sim" }}]
[[team]]
name = "search"
[[key]]
name = "static"
secret = "sk-0123456789abcdef"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sluice.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def keys(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(sluice, ["keys", *arguments, "--config", str(config)])


def made(config: Path, *arguments: str) -> dict[str, Any]:
    result = keys(config, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


async def directory(config: Path) -> Directory:
    read = load(config, environ={})
    async with Store.open(read.store.url) as store:
        found = Directory(read, Keys(store.sql))
        await found.refresh()
        return found


async def whose(config: Path, secret: str) -> str:
    return (await directory(config)).identify(b"Bearer " + secret.encode()).name


# The command runs a loop of its own, so these call it from a thread.
async def run(function: Any, *arguments: Any) -> Any:
    import trio

    return await trio.to_thread.run_sync(function, *arguments)


async def test_a_key_is_made_listed_rotated_and_revoked(config: Path) -> None:
    result = await run(keys, config, "create", "dev", "--team", "search", "--rpm", "600", "--budget-usd", "0.50")
    assert result.exit_code == 0
    secret = result.stdout.strip()  # alone, so that it can be piped
    assert secret.startswith("sk-sluice-")
    assert len(secret) == len("sk-sluice-") + 8 + 1 + 40
    assert "never again" in result.stderr
    assert "warning" not in result.stderr
    assert await whose(config, secret) == "dev"

    listed = await run(keys, config, "list")
    assert "dev" in listed.stdout
    assert "600 rpm, 0.5 usd/month" in listed.stdout
    assert secret[10:18] in listed.stdout
    assert secret[19:] not in listed.output

    second = (await run(made, config, "rotate", "dev", "--overlap", "1h"))["key"]
    assert await whose(config, second) == await whose(config, secret) == "dev"

    result = await run(keys, config, "revoke", second[10:18])  # by its prefix
    assert "'dev'" in result.stdout
    assert "revoked" in result.stdout
    with pytest.raises(RequestError, match="not known"):
        await whose(config, second)
    assert "no keys" in (await run(keys, config, "list")).stdout
    assert "revoked" in (await run(keys, config, "list", "--all")).stdout


async def test_every_option_reaches_the_store_exactly(config: Path) -> None:
    document = await run(
        made, config, "create", "dev", "--org", "acme", "--rpm", "1", "--rpd", "2", "--tpm", "3", "--tpd", "4",
        "--max-concurrent", "5", "--budget-usd", "$0.000001", "--period", "total", "--models", "chat, openai/*",
        "--assistants", "a,b", "--endpoints", "/v1/chat/completions", "--priority", "low",
        "--networks", "10.0.0.0/8,::1", "--expires", "2099-12-31",
    )  # fmt: skip
    [listed] = json.loads((await run(keys, config, "list", "--json")).stdout)
    assert {name: value for name, value in document.items() if name != "key"} == listed
    assert {name: listed[name] for name in ("org", "rpm", "rpd", "tpm", "tpd", "max_concurrent", "period")} == {
        "org": "acme", "rpm": 1, "rpd": 2, "tpm": 3, "tpd": 4, "max_concurrent": 5, "period": "total",
    }  # fmt: skip
    assert (listed["budget_micro_usd"], listed["priority"]) == (1, "low")
    assert (listed["models"], listed["assistants"]) == (["chat", "openai/*"], ["a", "b"])
    assert listed["networks"] == ["10.0.0.0/8", "::1/128"]
    assert listed["expires_s"] == 4_102_444_800.0  # the end of that day, UTC
    assert "digest" not in json.dumps(listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "static"], "'static' is the name of a [[key]]"),
        (["create", " dev"], "NAME: 1 to 200 printable characters"),
        (
            ["create", "dev", "--budget-usd", "ten"],
            "--budget-usd: 'ten' is no amount of dollars; write it as 25 or 0.50",
        ),
        (["create", "dev", "--budget-usd", "0.0000001"], "is no amount of dollars"),
        (["create", "dev", "--budget-usd", "nan"], "is no amount of dollars"),
        (["create", "dev", "--budget-usd", "1e99999999"], "is no amount of dollars"),
        (["create", "dev", "--expires", "soon"], "--expires: 'soon' is no time; write a date as 2027-01-31"),
        (["create", "dev", "--expires", "2020-01-01"], "--expires: 2020-01-02 00:00 UTC is over"),
        (["create", "dev", "--networks", "10.0.0.1/8"], "has host bits set; write 10.0.0.0/8"),
        (["create", "dev", "--rpm", "0"], "0 is not in the range 1<=x<="),
        (["create", "dev", "--rpm", "9" * 30], "is not in the range 1<=x<=1099511627776"),
        (["create", "dev", "--expires", "999999w"], "--expires: '999999w' is too far away"),
        (["create", "dev", "--expires", "9999-12-31"], "--expires: '9999-12-31' is too far away"),
        (["create", "dev", "--expires", "9999-12-31T23:59-10:00"], "is too far away; leave it out for what never"),
        (["rotate", "dev", "--overlap", "999999w"], "--overlap: a year at most"),
        (["rotate", "dev"], "no key called 'dev'"),
        (["rotate", "dev", "--overlap", "1 year"], "--overlap: '1 year' is no span of time; write a span as 90m"),
        (["revoke", "dev"], "no key called 'dev'"),
    ],
)
def test_what_cannot_be_is_said_with_the_fix(config: Path, arguments: list[str], message: str) -> None:
    result = keys(config, *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert json.loads(keys(config, "list", "--all", "--json").stdout) == []


async def test_names_that_are_sql_or_another_keys_id_name_what_they_say(config: Path) -> None:
    for name in ("x'; DROP TABLE virtual_key; --", "%s ? %%", '"; --'):
        secret = (await run(made, config, "create", name))["key"]
        assert await whose(config, secret) == name
    first = await run(made, config, "create", "first")
    await run(made, config, "create", first["id"])  # another one, that is called as the first one's id is
    await run(keys, config, "revoke", first["id"])
    left = {key["name"] for key in json.loads((await run(keys, config, "list", "--json")).stdout)}
    assert "first" not in left
    assert first["id"] in left
    assert len(left) == 4


async def test_a_network_of_mapped_addresses_is_the_ipv4_network(config: Path) -> None:
    document = await run(made, config, "create", "dev", "--networks", "::ffff:10.0.0.0/104")
    assert document["networks"] == ["10.0.0.0/8"]
    known = (await directory(config)).identify(b"Bearer " + document["key"].encode(), client="::ffff:10.1.2.3")
    assert known.name == "dev"


def test_what_is_probably_not_meant_is_a_warning(config: Path) -> None:
    result = keys(config, "create", "dev", "--team", "serach", "--models", "chatt", "--endpoints", "chat")
    assert result.exit_code == 0
    assert "no [[team]] called 'serach'" in result.stderr
    assert "no model or assistant is called 'chatt'" in result.stderr
    assert "no endpoint is called 'chat'" in result.stderr


def test_the_first_key_of_an_open_gateway_says_that_it_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "sluice.toml"
    path.write_text(CONFIG.format(folder=tmp_path).partition("[[key]]")[0])
    assert "now asks everybody for a key" in keys(path, "create", "dev").stderr
    assert "now asks everybody for a key" not in keys(path, "create", "other").stderr


def test_a_store_in_memory_or_without_a_pepper_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sluice.toml"
    path.write_text('store.url = "sqlite:///:memory:"')
    assert "a store in memory keeps no keys" in keys(path, "create", "dev").stderr
    path.write_text('store.url = "postgresql://127.0.0.1:1/x"')
    assert "identity.pepper is not set" in keys(path, "create", "dev").stderr
    result = keys(path, "list")
    assert result.exit_code == 1
    assert "postgresql://127.0.0.1:1/x: connection failed" in result.stderr


def test_help_costs_no_database() -> None:
    import subprocess

    code = "import sys; from gateway.cli import sluice; sluice(['--help'], standalone_mode=False); " + (
        "print([name for name in ('apsw', 'trio', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "keys" in done.stdout
