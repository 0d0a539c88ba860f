"""A LiteLLM proxy's ``config.yaml`` as our configuration, and a list of what could not be carried over.

===========================================  =========================================================================
there                                        here
===========================================  =========================================================================
``model_list``, equal ``model_name``         one ``[[model]]`` with several targets
``litellm_params`` of provider, address,     ``[[provider]]``: see ``litellm_providers``
keys, headers, ``max_parallel_requests``
``weight``, else ``rpm``, else ``tpm``       ``weight``: what LiteLLM picks a deployment by, too
``rpm``, ``tpm`` where they are enforced     the model's ``rpm``, ``tpm``: the sum of its deployments'
``order``                                    ``rank``
``timeout``, ``stream_timeout``              ``timeouts``: ``total_s``, ``answer_s``; ``first_token_s``, ``stall_s``
``max_budget``, ``budget_duration``          the model's ``budget_usd``; the proxy's own become an organisation's
``…_cost_per_token``                         ``[prices]``, per 10^6 tokens
``model_info.max_input_tokens``              ``context_tokens``
``routing_strategy``                         ``balance``: ``least_loaded`` for *least-busy* and *latency-based-routing*,
                                             else ``weighted``
``num_retries``                              ``retry.max``, which here counts per target
``fallbacks``, ``default_fallbacks``         ``fallback``; what would close a circle is left out
``context_window_fallbacks``                 ``fallback``, if the other model's ``max_input_tokens`` is given
``model_group_alias``                        another ``[[model]]`` with the same targets
``allowed_fails``, ``cooldown_time``         ``breaker``: ``consecutive``, ``open_s``
``redis_host`` …                             ``[limits] url``
``master_key``                               a ``[[key]]``
``global_max_parallel_requests``             ``admission.workers``
===========================================  =========================================================================

Everything else is listed with its path (``reading``). Source: LiteLLM documentation, "Config.yaml", "All settings",
"Fallbacks", "Load Balancing", "Custom pricing".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway.migrate.litellm_models import Models
from gateway.migrate.litellm_settings import Settings
from gateway.migrate.reading import Left, Notes, Table
from gateway.migrate.toml import write_toml

_REASONS = {
    "environment_variables": "set them in the environment of the process",
    "include": "import each of these files, and put the results together",
    "mcp_servers": "tools are the client's business here",
    "guardrails": "nothing here reads or changes what is said",
}


@frozen(kw_only=True, slots=True)
class Imported:
    """What came out.

    Attributes:
        text: Our configuration, as TOML.
        left: What was not carried over.
        variables: Those that the configuration reads.
    """

    text: str
    left: tuple[Left, ...]
    variables: tuple[str, ...]


def import_litellm(document: Any) -> Imported:
    """Convert a ``config.yaml`` that was read."""
    notes = Notes()
    root = Table.of(document, "", notes)
    settings = Settings.of(root, notes)
    models = Models.of(root, settings, notes)
    root.rest(_REASONS)
    return Imported(
        text=write_toml(_document(settings, models)),
        left=tuple(notes.left),
        variables=tuple(notes.variables),
    )


def _document(settings: Settings, models: Models) -> Mapping[str, Any]:
    return {
        "server": settings.server,
        "admission": settings.admission,
        "timeouts": settings.timeouts,
        "limits": settings.limits,
        "prices": models.prices,
        "provider": models.providers.tables,
        "model": models.tables,
        **settings.access,
    }
