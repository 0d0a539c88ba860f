"""A preset gives a provider its dialect, its address and its quirks; the file's own words come first."""

from __future__ import annotations

import typing
from typing import Any

import attrs
import pytest

from gateway.config import ConfigFaults, Provider, describe, load, quirks_of
from gateway.config.presets import Preset, presets
from gateway.config.tree import Dialect
from gateway.config.tree import Quirks as Overrides
from gateway.dialects.provider import Quirks

REQUIRED = {
    "azure": 'base_url = "https://mine.openai.azure.com"\napi_key = "k"',
    "bedrock": 'region = "eu-central-1"\napi_key = "k"',
}


def provider(fields: str, **environ: str) -> Provider:
    return load(None, environ=environ, text=f'[[provider]]\nname = "p"\n{fields}').provider[0]


def test_the_configuration_and_the_dialects_name_the_same_quirks() -> None:
    assert list(attrs.fields_dict(Overrides)) == list(attrs.fields_dict(Quirks))


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_every_preset_makes_a_provider_with_known_quirks_and_a_source(preset: Preset) -> None:
    made = provider(f'preset = "{preset.name}"\n' + REQUIRED.get(preset.name, ""))
    assert made.dialect == preset.dialect
    assert preset.dialect in typing.get_args(Dialect)
    assert quirks_of(made) == {name: tuple(v) if isinstance(v, list) else v for name, v in preset.quirks.items()}
    Quirks(**quirks_of(made))
    assert preset.source.startswith("https://")
    assert "{" not in made.base_url
    assert "/" not in preset.name


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_no_quirk_of_a_preset_only_repeats_the_dialects_default(preset: Preset) -> None:
    same = attrs.asdict(Quirks())
    stated_on_purpose = {"reasoning_field"}  # where the provider's own documentation names the field
    assert [n for n, v in preset.quirks.items() if same[n] == v and n not in stated_on_purpose] == []


def test_what_the_file_says_comes_first_quirk_by_quirk() -> None:
    made = provider(
        'preset = "mistral"\nbase_url = "https://proxy.example.com/v1"\n'
        'quirks = { usage_in_stream = true, drops = ["seed"] }'
    )
    assert made.base_url == "https://proxy.example.com/v1"
    known = quirks_of(made)
    assert (known["usage_in_stream"], known["drops"]) == (True, ("seed",))
    assert (known["prefill"], known["prefill_field"]) == (True, "prefix")


def test_a_dialect_without_a_preset_has_its_own_address_and_quirks() -> None:
    made = provider('dialect = "gemini"')
    assert (made.preset, made.base_url) == ("", presets()["gemini"].base_url)
    assert quirks_of(made) == {"stops_billing_on_abort": False}
    assert provider('dialect = "openai"').base_url == "https://api.openai.com/v1"


def test_a_server_of_ones_own_has_no_quirks_but_its_own() -> None:
    made = provider('base_url = "http://127.0.0.1:1/v1"\nquirks = { max_tokens_field = "max_tokens" }')
    assert (made.dialect, quirks_of(made)) == ("openai", {"max_tokens_field": "max_tokens"})


def test_bedrocks_address_is_that_of_the_region() -> None:
    made = provider('preset = "bedrock"\nregion = "${REGION}"\napi_key = "k"', REGION="us-west-2")
    assert made.base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"


def test_a_preset_may_come_out_of_the_environment() -> None:
    assert provider('preset = "${WHO:-groq}"').base_url == presets()["groq"].base_url
    assert provider('preset = "${WHO:-groq}"', WHO="xai").base_url == presets()["xai"].base_url
    with pytest.raises(ConfigFaults) as caught:
        provider('preset = "${WHO}"')
    assert [fault.path for fault in caught.value.faults] == ["provider[0].preset"]


def test_several_keys_are_used_in_turn_the_first_one_first() -> None:
    made = provider('preset = "groq"\napi_key = "k1"\napi_keys = ["k2", "k3", ""]')
    assert [key.reveal() for key in made.keys] == ["k1", "k2", "k3"]


@pytest.mark.parametrize("field", ["api_key", "access_key_id", "secret_access_key", "session_token"])
def test_secrets_of_a_provider_are_masked_when_it_is_printed(field: str) -> None:
    hidden: dict[str, Any] = {"HIDDEN": "hidden-0123456789"}
    others = "".join(
        f'{name} = "other"\n' for name in ("access_key_id", "secret_access_key") if field != "api_key" and name != field
    )
    text = f'[[provider]]\nname = "p"\npreset = "bedrock"\nregion = "us-east-1"\n{others}{field} = "${{HIDDEN}}"'
    printed = describe(load(None, environ=hidden, text=text))
    assert f'{field} = "***"' in printed
    assert "hidden" not in printed + repr(load(None, environ=hidden, text=text))


def test_further_keys_are_masked_when_they_are_printed() -> None:
    text = '[[provider]]\nname = "p"\npreset = "groq"\napi_keys = ["hidden-0123456789"]'
    printed = describe(load(None, environ={}, text=text))
    assert 'api_keys = ["***"]' in printed
    assert "hidden" not in printed
