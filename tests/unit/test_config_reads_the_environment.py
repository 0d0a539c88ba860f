"""``${VAR}`` in the file, and a configuration out of provider keys alone."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Config, ConfigFaults, Target, from_environment, known_variables, load
from gateway.config.presets import presets


def store_url(text: str, **environ: str) -> str:
    return load(None, environ=environ, text=f"store.url = 'sqlite:///{text}'").store.url.removeprefix("sqlite:///")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "db"),
        ("a-${NAME}-${NAME}", "a-db-db"),
        ("${NAME:-other}", "db"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("x${NONE:-}", "x"),
        ("x${EMPTY}", "x"),
        ("$${NAME}", "${NAME}"),
        ("$NAME $", "$NAME $"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NESTED}", "${NAME}"),
    ],
)
def test_variables_are_filled_in(text: str, value: str) -> None:
    assert store_url(text, NAME="db", EMPTY="", NESTED="${NAME}") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", "the environment variable NONE is not set; set it or write ${NONE:-default}"),
        ("${}", "'${' is not followed by a variable's name and '}'; write '$${' for a literal '${'"),
        ("${A B}", "'${' is not followed by a variable's name and '}'; write '$${' for a literal '${'"),
        ("${NAME", "'${' is not followed by a variable's name and '}'; write '$${' for a literal '${'"),
        ("${BYTES}", "the environment variable BYTES is not valid UTF-8"),
    ],
)
def test_what_cannot_be_filled_in_is_a_fault(text: str, message: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        store_url(text, BYTES="\udcff")
    assert str(caught.value) == f"store.url: {message}"


def test_a_value_cannot_bring_in_fields_of_its_own() -> None:
    config = load(None, environ={"URL": 'sqlite:///a"\n[server]\nworkers = 9 #'}, text='store.url = "${URL}"')
    assert config.store.url == 'sqlite:///a"\n[server]\nworkers = 9 #'
    assert config.server.workers == 1


def test_one_variable_is_read_as_the_type_of_its_field() -> None:
    text = """
    server.workers = "${W}"
    timeouts.stall_s = "${S:-2.5}"
    timeouts.total_s = "${W}"
    log.requests = "${R}"
    """
    config = load(None, environ={"W": "4", "R": "false"}, text=text)
    assert (config.server.workers, config.timeouts.stall_s, config.log.requests) == (4, 2.5, False)
    assert isinstance(config.timeouts.total_s, float)


@pytest.mark.parametrize(
    ("line", "value", "message"),
    [
        ("server.workers", "many", "the value of ${V} is not a whole number"),
        ("server.workers", "2.0", "the value of ${V} is not a whole number"),
        ("server.workers", "9" * 5000, "the value of ${V} is not a whole number"),
        ("server.workers", "0", "must be at least 1"),
        ("timeouts.stall_s", "", "the value of ${V} is not a number"),
        ("timeouts.stall_s", "nan", "must be a finite number"),
        ("log.requests", "yes", "the value of ${V} is not true or false"),
        ("log.level", "noise", "the value of ${V} is not known here; known: 'debug', 'info', 'warning', 'error'"),
    ],
)
def test_a_variable_of_the_wrong_type_is_a_fault_that_does_not_show_it(line: str, value: str, message: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(None, environ={"V": value}, text=f'{line} = "${{V}}"')
    assert str(caught.value) == f"{line}: {message}"


def test_a_number_is_not_put_together_from_a_variable_and_text() -> None:
    with pytest.raises(ConfigFaults, match=r"^server\.workers: expected a whole number, got a string$"):
        load(None, environ={"V": "1"}, text='server.workers = "1${V}"')


def test_the_finished_configuration_holds_plain_strings() -> None:
    text = '[[provider]]\nname = "${N}"\nbase_url = "http://${N}/"\nheaders = { X = "${N}" }\napi_key = "${N}"'
    provider = load(None, environ={"N": "local"}, text=text).provider[0]
    assert provider.api_key is not None
    strings = [provider.name, provider.base_url, provider.headers["X"], provider.api_key.reveal()]
    assert [type(string) for string in strings] == [str] * 4


def routed(config: Config | None, asked: str) -> Any:
    assert config is not None
    found = config.find_model(asked)
    return None if found is None else [(one.provider, one.model_for(found[1])) for one in found[0].targets]


def test_without_any_key_there_is_no_configuration() -> None:
    assert from_environment({"PATH": "/bin", "OPENAI_API_KEY": "", "SLUICE_KEY": "x"}) is None


def test_each_key_found_becomes_a_provider_that_can_be_asked_for_any_model() -> None:
    config = from_environment({"OPENAI_API_KEY": "sk-1", "GROQ_API_KEY": "gsk-1"})
    assert config is not None
    assert [provider.name for provider in config.provider] == ["openai", "groq"]
    assert routed(config, "chat") == [("openai", "gpt-4o-mini"), ("groq", "openai/gpt-oss-20b")]
    assert routed(config, "openai/o3") == [("openai", "o3")]
    assert routed(config, "gpt-4.1") == [("openai", "gpt-4.1")]
    assert routed(config, "groq/openai/gpt-oss-120b") == [("groq", "openai/gpt-oss-120b")]
    assert routed(config, "claude-opus-4-6") is None
    assert config.key == ()


def test_every_preset_with_a_variable_is_served_and_its_default_model_asked_by_name() -> None:
    known = [preset for preset in presets().values() if preset.env]
    environ = {variable: "key" for preset in known for variable in (preset.env, *preset.env_fields.values())}
    config = from_environment(environ | {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com"})
    assert config is not None
    assert set(known_variables()) == {preset.env for preset in known}
    assert [(one.name, one.dialect) for one in config.provider] == [(one.name, one.dialect) for one in known]
    for preset in known:
        assert routed(config, f"{preset.name}/x") == [(preset.name, "x")]
        if preset.model:
            assert routed(config, f"{preset.name}/{preset.model}") == [(preset.name, preset.model)]
    assert config.model[0].targets[0] == Target(provider="openai", model="gpt-4o-mini")


def test_providers_that_need_more_than_a_key_are_served_once_all_of_it_is_there() -> None:
    assert from_environment({"AZURE_OPENAI_API_KEY": "k"}) is None
    config = from_environment({"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"})
    assert config is not None
    assert config.provider[0].base_url == "https://mine.openai.azure.com"
    assert [model.name for model in config.model] == ["azure/*"]  # deployments have names of their users' own
    bedrock = from_environment({"AWS_BEARER_TOKEN_BEDROCK": "k", "AWS_REGION": "eu-central-1"})
    assert bedrock is not None
    assert bedrock.provider[0].base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"


def test_sluice_key_becomes_a_key_and_opens_other_addresses() -> None:
    overrides = {"server": {"bind": "0.0.0.0:80"}}
    with pytest.raises(ConfigFaults, match=r"^server\.bind: .* without a \[\[key\]\]"):
        from_environment({"OPENAI_API_KEY": "k"}, overrides=overrides)
    config = from_environment({"OPENAI_API_KEY": "k", "SLUICE_KEY": "sk-mine"}, overrides=overrides)
    assert config is not None
    assert [(key.name, key.secret.reveal()) for key in config.key] == [("env", "sk-mine")]


def test_a_key_with_a_line_break_is_a_fault_and_is_not_shown() -> None:
    with pytest.raises(ConfigFaults, match=r"^provider\[0\]\.api_key: holds .* a line break") as caught:
        from_environment({"OPENAI_API_KEY": "sk-hidden\n"})
    assert "sk-hidden" not in str(caught.value)
