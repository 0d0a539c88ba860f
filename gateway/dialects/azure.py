"""Azure OpenAI: OpenAI's chat dialect at Azure's addresses.

With an ``api_version`` the model's name is a deployment in the path; without one the newer ``/openai/v1`` surface is
asked, which has no versions and takes the deployment as ``model``. Either way the base URL is the resource's:
``https://NAME.openai.azure.com``. The key goes into ``api-key``.

Azure's streams begin with a chunk without choices, the prompt's filter results; a filtered prompt is a 400
``content_filter``, a filtered answer the finish reason of that name. Both are read in ``chat_reader`` and
``chat_provider``.

Limits: keys only. Tokens of Entra ID expire, and nothing here renews them.
Source: Microsoft Learn, "Azure OpenAI REST API reference" and "API version lifecycle"; OpenAI's Python client,
``AzureOpenAI``.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from attrs import frozen

from gateway.dialects.chat_provider import OpenAIChat


@frozen(kw_only=True)
class AzureOpenAI(OpenAIChat):
    """A :class:`gateway.dialects.provider.ProviderDialect`.

    Attributes:
        api_version: ``2024-10-21``; "" for the surface without versions.
    """

    name: ClassVar[str] = "azure"
    api_version: str = ""

    def endpoint(self, name: str, model: str) -> bytes:
        if not self.api_version:
            return f"/openai/v1/{name}".encode()
        deployment, version = quote(model, safe=""), quote(self.api_version, safe="")
        return f"/openai/deployments/{deployment}/{name}?api-version={version}".encode()

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"api-key": key.encode()} if key else {}
