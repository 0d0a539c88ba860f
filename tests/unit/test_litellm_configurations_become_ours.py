"""``sluice import litellm``: documented configurations of LiteLLM's proxy become ours, and what does not is listed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gateway.cli import sluice
from gateway.config import Config, load
from gateway.migrate.command import faults_of
from gateway.migrate.litellm import Imported, import_litellm

ENVIRON = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant"}


def imported(text: str) -> Imported:
    made = import_litellm(yaml.safe_load(text))
    assert faults_of(made, {}) == []  # what `sluice check` says, once the variables are set
    return made


def config_of(text: str, **environ: str) -> Config:
    made = imported(text)
    samples = {name: f"sample-{name.lower()}" for name in made.variables}
    return load(None, environ={**samples, **environ}, text=made.text)


def left_of(text: str) -> dict[str, str]:
    return {left.path: left.why for left in imported(text).left}


def one(params: str, more: str = "") -> str:
    """A configuration with one deployment."""
    return f"model_list:\n  - model_name: m\n    litellm_params: {{{params}}}\n{more}"


LOAD_BALANCED = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://europe.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_EU
      api_version: "2024-10-21"
      rpm: 6
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ca
      api_base: https://canada.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_CA
      rpm: 18
  - model_name: claude
    litellm_params:
      model: anthropic/claude-haiku-4-5
  - model_name: local
    litellm_params:
      model: openai/facebook/opt-125m
      api_base: http://0.0.0.0:8001/v1
      api_key: none
litellm_settings:
  num_retries: 3
  request_timeout: 10
  fallbacks: [{"gpt-4o": ["claude", "local"]}]
  allowed_fails: 3
  cooldown_time: 30
router_settings:
  model_group_alias: {"gpt-4": "gpt-4o"}
  num_retries: 2
  timeout: 40
general_settings:
  master_key: sk-1234
"""


def test_deployments_of_one_name_become_targets_of_one_model() -> None:
    config = config_of(LOAD_BALANCED, AZURE_API_KEY_EU="key-eu")
    models = {model.name: model for model in config.model}
    assert list(models) == ["gpt-4o", "claude", "local", "gpt-4"]
    gpt = models["gpt-4o"]
    assert [(t.provider, t.model, t.weight) for t in gpt.targets] == [
        ("azure", "gpt-4o-eu", 6.0),
        ("azure-2", "gpt-4o-ca", 18.0),
    ]
    assert (gpt.balance, gpt.fallback, gpt.retry.max) == ("weighted", ("claude", "local"), 2)
    assert (models["gpt-4"].targets, models["gpt-4"].fallback) == (gpt.targets, gpt.fallback)
    assert (config.timeouts.total_s, config.timeouts.answer_s) == (40.0, 40.0)
    assert config.server.bind == "0.0.0.0:4000"


def test_providers_have_their_preset_address_key_and_breaker() -> None:
    config = config_of(LOAD_BALANCED, AZURE_API_KEY_EU="key-eu", ANTHROPIC_API_KEY="key-ant")
    azure, _, claude, local = config.provider
    assert (azure.dialect, azure.base_url, azure.api_version) == (
        "azure",
        "https://europe.openai.azure.com",
        "2024-10-21",
    )
    assert [key.reveal() for key in (*azure.keys, *claude.keys)] == ["key-eu", "key-ant"]
    assert (claude.base_url, local.base_url) == ("https://api.anthropic.com/v1", "http://0.0.0.0:8001/v1")
    assert (local.dialect, local.keys) == ("openai", ())
    assert {(each.breaker.consecutive, each.breaker.open_s) for each in config.provider} == {(4, 30.0)}


def test_the_master_key_is_a_clients_key() -> None:
    [key] = config_of(LOAD_BALANCED).key
    assert (key.name, key.secret.reveal()) == ("master", "sk-1234")
    assert config_of(one("model: gpt-4o")).server.bind == "127.0.0.1:4000"


def test_equal_deployments_share_one_provider() -> None:
    text = """
model_list:
  - {model_name: a, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: b, litellm_params: {model: gpt-4o-mini}}
  - {model_name: c, litellm_params: {model: gpt-4o-mini, api_key: sk-other}}
"""
    config = config_of(text)
    assert [provider.name for provider in config.provider] == ["openai", "openai-2"]
    assert [model.targets[0].provider for model in config.model] == ["openai", "openai", "openai-2"]


@pytest.mark.parametrize(
    ("params", "preset", "base_url", "model"),
    [
        ("model: gemini/gemini-2.5-flash", "gemini", None, "gemini-2.5-flash"),
        ("model: groq/llama-3.3-70b-versatile", "groq", None, "llama-3.3-70b-versatile"),
        ("model: together_ai/meta-llama/Llama-3-8b", "together", None, "meta-llama/Llama-3-8b"),
        ("model: openrouter/openai/gpt-4o", "openrouter", None, "openai/gpt-4o"),
        ("model: claude-haiku-4-5", "anthropic", None, "claude-haiku-4-5"),
        ("model: mistral-tiny, custom_llm_provider: mistral", "mistral", None, "mistral-tiny"),
        ("model: ollama/mistral, api_base: 'http://box:11434'", "ollama", "http://box:11434/v1", "mistral"),
        ("model: ollama_chat/qwen3", "ollama", "http://localhost:11434/v1", "qwen3"),
        ("model: hosted_vllm/opt, api_base: 'http://box:8000/v1'", "vllm", "http://box:8000/v1", "opt"),
        ("model: anthropic/c, api_base: 'https://proxy.example.com'", "anthropic", "https://proxy.example.com/v1", "c"),
        (
            "model: openai/x, api_base: 'https://host.example.com/v1', api_key: k",
            "",
            "https://host.example.com/v1",
            "x",
        ),
        ("model: openai/x, api_base: 'https://api.openai.com/v1'", "openai", "https://api.openai.com/v1", "x"),
    ],
)
def test_prefixes_are_presets(params: str, preset: str, base_url: str | None, model: str) -> None:
    config = config_of(one(params))
    [provider] = config.provider
    assert provider.preset == preset
    assert base_url in (None, provider.base_url)
    assert config.model[0].targets[0].model == model


@pytest.mark.parametrize(
    ("params", "region", "access_key"),
    [
        ("model: bedrock/anthropic.claude-v2, aws_region_name: us-east-1", "us-east-1", "sample-aws_access_key_id"),
        (
            "model: bedrock/converse/us-west-2/anthropic.claude-v2, aws_access_key_id: AKID, "
            "aws_secret_access_key: os.environ/SECRET",
            "us-west-2",
            "AKID",
        ),
        ("model: bedrock/anthropic.claude-v2, api_key: k, aws_region_name: eu-west-1", "eu-west-1", None),
    ],
)
def test_bedrock_has_a_region_and_credentials(params: str, region: str, access_key: str | None) -> None:
    config = config_of(one(params))
    [provider] = config.provider
    assert (provider.dialect, provider.region, config.model[0].targets[0].model) == (
        "bedrock",
        region,
        "anthropic.claude-v2",
    )
    assert (provider.access_key_id and provider.access_key_id.reveal()) == access_key


def test_named_credentials_are_filled_in() -> None:
    text = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: azure/gpt-4o, litellm_credential_name: default_azure_credential}
credential_list:
  - credential_name: default_azure_credential
    credential_values:
      api_key: os.environ/AZURE_API_KEY
      api_base: os.environ/AZURE_API_BASE
      api_version: "2023-05-15"
    credential_info: {description: Production credentials for EU region}
"""
    assert left_of(text) == {}
    [provider] = config_of(text, AZURE_API_BASE="https://a.openai.azure.com", AZURE_API_KEY="k").provider
    assert (provider.base_url, provider.api_version) == ("https://a.openai.azure.com", "2023-05-15")
    assert left_of(one("model: gpt-4o, litellm_credential_name: other")) == {
        "model_list[0].litellm_params.litellm_credential_name": "no credentials are called 'other'"
    }


def test_wildcards_stand_at_the_end() -> None:
    text = """
model_list:
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*"}}
  - {model_name: "*-mini", litellm_params: {model: openai/gpt-4o-mini}}
  - {model_name: exact, litellm_params: {model: "openai/*"}}
"""
    assert [(model.name, model.targets[0].model) for model in config_of(text).model] == [("anthropic/*", "*")]
    assert set(left_of(text)) == {"model_list[1].model_name", "model_list[2].model_name"}


def test_headers_prices_windows_and_budgets() -> None:
    params = (
        "model: gpt-4o, organization: org-1, extra_headers: {AI-Resource: x}, max_parallel_requests: 7, "
        "input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001, max_budget: 20, budget_duration: 1d, "
        "timeout: 90, stream_timeout: 12"
    )
    text = f"model_list: [{{model_name: m, litellm_params: {{{params}}}, model_info: {{max_input_tokens: 128000}}}}]"
    config = config_of(text)
    [provider], [model] = config.provider, config.model
    assert provider.headers == {"OpenAI-Organization": "org-1", "AI-Resource": "x"}
    assert provider.concurrency is not None
    assert provider.concurrency.ceiling == 7
    price = config.prices["openai/gpt-4o"]
    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == (2.5, 10.0)
    assert (model.budget_usd, model.period, model.targets[0].context_tokens) == (20.0, "day", 128_000)
    assert model.timeouts.answer_s == 90.0, "of what is not streamed"
    assert (model.timeouts.total_s, model.timeouts.first_token_s, model.timeouts.stall_s) == (90.0, 12.0, 12.0)


def test_the_proxys_budget_is_that_of_its_keys_organisation() -> None:
    text = one("model: gpt-4o", "litellm_settings: {max_budget: 50, budget_duration: 30d}\n")
    config = config_of(text + "general_settings: {master_key: sk-1234}")
    [organisation], [team], [key] = config.organisation, config.team, config.key
    assert (organisation.budget_usd, organisation.period) == (50.0, "month")
    assert (team.org, key.team) == (organisation.name, team.name)
    assert set(left_of(text)) == {"litellm_settings.max_budget"}


def test_order_is_rank_and_limits_refuse_where_they_did() -> None:
    text = """
model_list:
  - {model_name: m, litellm_params: {model: gpt-4o, order: 1, rpm: 100, tpm: 1000, weight: 2}}
  - {model_name: m, litellm_params: {model: gpt-4o-mini, order: 2, rpm: 50, weight: 1}}
  - {model_name: m, litellm_params: {model: gpt-5}}
"""
    [model] = config_of(text + "router_settings: {routing_strategy: least-busy}").model
    assert [(target.rank, target.weight) for target in model.targets] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert (model.balance, model.rpm) == ("least_loaded", None)
    two = text.replace("  - {model_name: m, litellm_params: {model: gpt-5}}\n", "")
    [model] = config_of(two + "router_settings: {routing_strategy: usage-based-routing-v2}").model
    assert (model.rpm, model.tpm) == (150, None)
    assert "nothing is refused by it" in left_of(two)["model_list[0].litellm_params.rpm"]


def test_fallbacks_make_no_circle_and_defaults_hold_for_the_rest() -> None:
    text = """
model_list:
  - {model_name: a, litellm_params: {model: gpt-4o}}
  - {model_name: b, litellm_params: {model: gpt-4o-mini}}
  - {model_name: c, litellm_params: {model: gpt-5}}
router_settings:
  fallbacks: [{a: [b]}, {b: [a, deployment-7]}, {nobody: [a]}]
  default_fallbacks: [a]
"""
    assert {model.name: model.fallback for model in config_of(text).model} == {"a": ("b",), "b": (), "c": ("a",)}
    assert [(left.path, left.why) for left in imported(text).left] == [
        ("router_settings.fallbacks[1].b", "'b' → 'a' would close a circle"),
        (
            "router_settings.fallbacks[1].b",
            "'deployment-7' is no model's name; a fallback to one deployment has no counterpart",
        ),
        ("router_settings.fallbacks[2].nobody", "no model is called that"),
    ]


def test_a_larger_window_is_a_fallback_if_it_is_known() -> None:
    text = """
model_list:
  - {model_name: small, litellm_params: {model: gpt-3.5-turbo}}
  - {model_name: large, litellm_params: {model: gpt-4o}, model_info: {max_input_tokens: 128000}}
  - {model_name: unknown, litellm_params: {model: gpt-5}}
litellm_settings:
  context_window_fallbacks: [{small: [large]}, {large: [unknown]}]
"""
    assert {model.name: model.fallback for model in config_of(text).model} == {
        "small": ("large",),
        "large": (),
        "unknown": (),
    }
    left = left_of(text)
    assert "for every failure" in left["litellm_settings.context_window_fallbacks[0].small"]
    assert "context_tokens" in left["litellm_settings.context_window_fallbacks[1].large"]


def test_redis_keeps_the_limits() -> None:
    settings = "router_settings: {redis_host: os.environ/REDIS_HOST, redis_port: 1992, redis_password: os.environ/PW}"
    assert config_of(one("model: gpt-4o", settings), REDIS_HOST="box", PW="p").limits.url == "redis://:p@box:1992"


def test_what_has_no_counterpart_is_listed_with_its_path() -> None:
    text = """
model_list:
  - {model_name: "*", litellm_params: {model: "*"}}
  - {model_name: sage, litellm_params: {model: sagemaker/gpt-j}}
  - {model_name: art, litellm_params: {model: dall-e-3}, model_info: {mode: image_generation}}
  - {model_name: m, litellm_params: {model: gpt-4o, temperature: 0.2, tags: [free]}, model_info: {id: x, team_id: t}}
litellm_settings: {drop_params: true, cache: true, success_callback: [langfuse]}
router_settings: {routing_strategy: cost-based-routing, retry_policy: {TimeoutErrorRetries: 3}}
general_settings: {database_url: "postgresql://…", alerting: [slack]}
environment_variables: {A: b}
guardrails: []
"""
    assert set(left_of(text)) == {
        "model_list[0].litellm_params.model",
        "model_list[1].litellm_params.model",
        "model_list[2].model_info.mode",
        "model_list[3].litellm_params.temperature",
        "model_list[3].litellm_params.tags",
        "model_list[3].model_info.team_id",
        "litellm_settings.cache",
        "litellm_settings.success_callback",
        "router_settings.routing_strategy",
        "router_settings.retry_policy",
        "general_settings.database_url",
        "general_settings.alerting",
        "environment_variables",
        "guardrails",
    }


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {"model_list": 3, "router_settings": []},
        {"model_list": [None, {}, {"model_name": 3, "litellm_params": {"model": ["x"]}}]},
        {"model_list": [{"model_name": "m", "litellm_params": {"model": "gpt-4o", "rpm": "many", "timeout": -1}}]},
        {"litellm_settings": {"fallbacks": [{"a": 3}, "b"], "num_retries": True, "max_budget": "x"}},
    ],
)
def test_odd_documents_are_read_as_far_as_they_go(document: Any) -> None:
    made = import_litellm(document)
    tomllib.loads(made.text)
    assert faults_of(made, {}) == []


def test_text_that_looks_like_a_variable_stays_text() -> None:
    [key] = config_of(one("model: gpt-4o", 'general_settings: {master_key: "sk-${HOME}\\"x"}')).key
    assert key.secret.reveal() == 'sk-${HOME}"x'


def test_the_command_writes_a_new_file_for_its_owner_only(tmp_path: Path) -> None:
    source, output = tmp_path / "config.yaml", tmp_path / "sluice.toml"
    source.write_text(LOAD_BALANCED)
    ran = CliRunner().invoke(sluice, ["import", "litellm", str(source), "-o", str(output)])
    assert ran.exit_code == 0, ran.output
    assert output.stat().st_mode & 0o777 == 0o600
    assert "set these variables, which it reads: AZURE_API_KEY_EU, AZURE_API_KEY_CA, ANTHROPIC_API_KEY" in ran.stderr
    assert "not carried over: model_list[0].litellm_params.rpm: it weighs the target" in ran.stderr
    again = CliRunner().invoke(sluice, ["import", "litellm", str(source), "-o", str(output)])
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    environ = {"AZURE_API_KEY_EU": "a", "AZURE_API_KEY_CA": "b", "ANTHROPIC_API_KEY": "c"}
    checked = CliRunner().invoke(sluice, ["check", "--config", str(output)], env=environ)
    assert checked.exit_code == 0, checked.stderr


def test_the_command_says_what_is_to_be_mended(tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    source.write_text(one("model: azure/x, api_base: your-azure-api-base, api_key: k"))
    ran = CliRunner().invoke(sluice, ["import", "litellm", str(source)])
    assert ran.exit_code == 2
    assert "to mend before it can be served: provider[0].base_url" in ran.stderr
    assert tomllib.loads(ran.stdout)["model"][0]["name"] == "m"


def test_what_is_no_yaml_is_said_to_be_none(tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    source.write_text("a: [")
    ran = CliRunner().invoke(sluice, ["import", "litellm", str(source)])
    assert (ran.exit_code, "is no YAML" in ran.stderr) == (1, True)
