"""No secret shows in ``repr``, ``str``, faults or the printed configuration, which otherwise reads back as it is."""

from __future__ import annotations

import tomllib
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Assistant, Config, ConfigFaults, RetrievalLoader, Secret, advice, build, describe, load

HIDDEN = "hidden-0123456789"
TEXT = """
context.allowed_hosts = ["crm.example.com"]
[[provider]]
name = "a"
base_url = "https://a.example.com"
api_key = "${HIDDEN}"
headers = { api-key = "${HIDDEN}", "X.Y" = "hidden-0123456789" }
[[model]]
name = "m"
targets = [{ provider = "a", model = "b" }]
[[assistant]]
name = "s"
model = "m"
system = \"\"\"
Costs $${PRICE} "quoted" \\\\ {crm}\\u007f
\\ttab and
line ends\\r\\n\"\"\"
[[assistant.loader]]
name = "crm"
kind = "http"
url = "https://crm.example.com/{user}?q={input}&key=${HIDDEN}&v=hidden-0123456789#x"
headers = { Authorization = "Bearer ${HIDDEN}" }
method = "POST"
body = '{"q": {input}}'
[[key]]
name = "k"
secret = "hidden-0123456789"
"""


@pytest.fixture
def config() -> Config:
    return load(None, environ={"HIDDEN": HIDDEN}, text=TEXT)


def test_repr_and_str_show_no_secret(config: Config) -> None:
    assert HIDDEN not in repr(config) + str(config) + f"{config}"
    assert "***" in repr(config)
    assert config.key[0].secret.reveal() == HIDDEN
    assert (repr(config.key[0].secret), f"{config.key[0].secret}") == ("***", "***")


def test_the_printed_configuration_shows_no_secret(config: Config) -> None:
    printed = describe(config)
    assert HIDDEN not in printed
    assert 'url = "https://crm.example.com/{user}?q={input}&key=***&v=***#x"' in printed
    assert 'headers = { api-key = "***", "X.Y" = "***" }' in printed


def test_the_printed_configuration_reads_back_as_it_is(config: Config) -> None:
    document = tomllib.loads(describe(config))
    assert masked(build(document, environ={})) == masked(config)


def test_the_defaults_read_back_as_they_are() -> None:
    assert build(tomllib.loads(describe(Config())), environ={}) == Config()


def masked(config: Config) -> Any:
    """The configuration without what the printed one masks."""
    return attrs.evolve(
        config,
        provider=tuple(
            attrs.evolve(one, api_key=None, headers=dict.fromkeys(one.headers, "")) for one in config.provider
        ),
        assistant=tuple(
            attrs.evolve(
                one,
                loader=tuple(
                    attrs.evolve(each, url="", headers={}) if each.kind == "http" else each for each in one.loader
                ),
            )
            for one in config.assistant
        ),
        key=tuple(attrs.evolve(one, secret=Secret("")) for one in config.key),
    )


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_system_text_reads_back_as_it_is(system: str) -> None:
    config = Config(assistant=(Assistant(name="a", model="m", system=system, loader=(RetrievalLoader(name="x"),)),))
    printed = tomllib.loads(describe(config))["assistant"][0]["system"]
    assert printed.replace("$${", "${") == system


@pytest.mark.parametrize(
    "line",
    [
        'assistant = [{{ name = "s", model = "", loader = [{{ kind = "http", pointer = "{}", name = "x" }}] }}]',
        'server.bind = "{}"',
        'server.workers = "{}"',
        'log.level = "{}"',
        'store.url = "{}"',
        'context.allowed_hosts = ["{}/"]',
        'provider = [{{ name = "a", base_url = "https://me:{}@host/" }}]',
        'provider = [{{ name = "a", base_url = "{}" }}]',
        'provider = [{{ name = "é{}", base_url = "https://h" }}]',
        'provider = [{{ name = "a", base_url = "https://h", headers = {{ X = "{}\\n" }} }}]',
        'model = [{{ name = "m", targets = [{{ provider = "{}", model = "b" }}] }}]',
        'assistant = [{{ name = "s", model = "{}" }}]',
        'assistant = [{{ name = "s", model = "", system = "{{{}}}" }}]',
        'assistant = [{{ name = "s", model = "", loader = [{{ name = "x", kind = "http", url = "http://{}/" }}] }}]',
        'key = [{{ name = "k", secret = "{} " }}]',
        'key = [{{ name = "k", secret = "s", models = ["{}"] }}]',
        'key = [{{ name = "k", secret = "s", priority = "{}" }}]',
    ],
)
def test_a_fault_never_shows_what_came_out_of_a_variable(line: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(None, environ={"HIDDEN": "hidden_0123456789"}, text=line.format("${HIDDEN}"))
    assert "hidden_" not in str(caught.value) + repr(caught.value)


def test_what_is_odd_is_said(config: Config) -> None:
    assert advice(config) == ()
    assert advice(Config()) == (
        "no [[key]]: the gateway answers on loopback only, and everybody on this machine may use it",
        "no [[model]]: every request for a model is answered 404",
    )
    odd = attrs.evolve(
        config,
        server=attrs.evolve(config.server, bind="0.0.0.0:80"),
        provider=(attrs.evolve(config.provider[0], base_url="http://a.example.com", api_key=None, headers={}),),
        model=(),
        key=(attrs.evolve(config.key[0], secret=Secret("short")),),
        timeouts=attrs.evolve(config.timeouts, total_s=10.0),
        assistant=(attrs.evolve(config.assistant[0], context_budget_s=0.1),),
    )
    assert [sentence.partition(":")[0] for sentence in advice(odd)] == [
        "key[0].secret",
        "no [[model]]",
        "server.tls_cert",
        "provider[0]",
        "provider[0].api_key",
        "provider[0].base_url",
        "timeouts.first_token_s",
        "timeouts.stall_s",
        "assistant[0].loader[0].timeout_s",
    ]
