"""Promise: whatever stands in a LiteLLM configuration is in ours, or in the list of what could not be carried over.

Each field of a document is taken away in turn: the result has to be another one, or the list, unless the field is one
of the few that mean nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from gateway.migrate.litellm import Imported, import_litellm

DOCUMENT: dict[str, Any] = yaml.safe_load("""
model_list:
  - model_name: chat
    litellm_params:
      model: azure/our-deployment
      litellm_credential_name: europe
      weight: 2
      order: 1
      timeout: 300
      stream_timeout: 60
      max_budget: 10
      budget_duration: 1d
      tags: [free]
      temperature: 0.2
      max_retries: 2
      extra_headers: {X-Group: one}
      cache_control_injection_points: [{location: message}]
    model_info:
      base_model: azure/gpt-4o
      max_input_tokens: 16000
      access_groups: [beta]
      health_check_timeout: 1
  - model_name: chat
    litellm_params: {model: gpt-4o, api_key: sk-1, weight: 1, max_parallel_requests: 7, organization: [a, b]}
  - model_name: other
    litellm_params:
      model: anthropic/claude-haiku-4-5
      rpm: 60
      tpm: 1000
      input_cost_per_token: 0.000001
      output_cost_per_token: 0.000002
      cache_read_input_token_cost: 0.0000001
  - model_name: bedrock
    litellm_params: {model: bedrock/m, aws_region_name: us-east-1, aws_profile_name: p}
  - model_name: elsewhere
    litellm_params: {model: sagemaker/x}
  - model_name: image
    litellm_params: {model: dall-e-3}
    model_info: {mode: image_generation}
credential_list:
  - credential_name: europe
    credential_values: {api_base: "https://e.openai.azure.com", api_key: os.environ/E, api_version: "2024-10-21"}
  - credential_name: of-nobody
    credential_values: {api_key: os.environ/N}
litellm_settings:
  num_retries: 5
  request_timeout: 600
  cache: true
  callbacks: [otel]
  default_fallbacks: [other]
  fallbacks: [{other: [bedrock, missing]}]
  context_window_fallbacks: [{other: [chat]}]
  content_policy_fallbacks: [{other: [chat]}]
  max_budget: 100
  budget_duration: 30d
  something_new: {of: tomorrow}
router_settings:
  routing_strategy: least-busy
  redis_host: os.environ/R
  redis_port: 6380
  redis_password: secret
  model_group_alias: {short: chat, hidden: {model: other, hidden: true}}
  stream_timeout: 20
  allowed_fails: 3
  cooldown_time: 30
  retry_policy: {TimeoutErrorRetries: 3}
  optional_pre_call_checks: [enforce_model_rate_limits, prompt_caching]
general_settings:
  master_key: sk-1234567890abcdef
  database_url: postgresql://u:p@h/d
  max_parallel_requests: 5
  global_max_parallel_requests: 50
  pass_through_endpoints: [{path: /v1/rerank, target: "https://x"}]
environment_variables: {A: b}
guardrails: [{guardrail_name: g}]
something_else: 1
""")
MEANS_NOTHING = {
    "model_list[4].model_name",  # what is left out as a whole is told by its model …
    "model_list[5].model_name",  # … or its mode
    "model_list[5].litellm_params",
    "model_list[5].litellm_params.model",
    "model_list[0].litellm_params.budget_duration",  # of a budget that is listed
    "credential_list[1].credential_name",  # of credentials that are
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        yield from places(one, (*path, name))


def written(path: tuple[Any, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def all_of(made: Imported) -> tuple[Any, ...]:
    return made.text, made.left, made.variables


@pytest.mark.parametrize("path", list(places(DOCUMENT)), ids=written)
def test_a_field_more_or_less_makes_a_difference(path: tuple[Any, ...]) -> None:
    without = deepcopy(DOCUMENT)
    place: Any = without
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    made, name = import_litellm(DOCUMENT), written(path)
    listed = any(name == left.path or name.startswith((f"{left.path}.", f"{left.path}[")) for left in made.left)
    whole = any(left.path == f"{name.rpartition('.')[0]}.model" for left in made.left)
    assert all_of(import_litellm(without)) != all_of(made) or listed or whole or name in MEANS_NOTHING
