"""A file with faults of every kind gives all of them in one go, however they hide behind each other."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from gateway.config import (
    Admission,
    Assistant,
    Breaker,
    Concurrency,
    ConfigFaults,
    ContextRules,
    ConversationLoader,
    Hedge,
    HttpLoader,
    Key,
    Ledger,
    Log,
    Model,
    ModelTimeouts,
    Price,
    Provider,
    RetrievalLoader,
    Retry,
    RetryBudget,
    Server,
    Store,
    Target,
    Timeouts,
    load,
)

TEXT = """
surprise = 1
[server]
bind = "0.0.0.0"
workers = "two"
[admission]
queue = -1
[[provider]]
name = "openai"
base_url = "openai.com"
api_key = "${NOT_SET}"
[[provider]]
name = "openai"
base_url = "https://api.openai.com/v1"
[[model]]
name = "chat"
targets = [{ provider = "openai", model = 7 }, { provider = "opnai", model = "m" }]
[[assistant]]
name = "chat"
model = "chatt"
system = "{docs} {dogs}"
context_budget_s = 0
[[assistant.loader]]
name = "docs"
kind = "nonsense"
[[assistant.loader]]
name = "crm"
kind = "http"
url = "http://10.0.0.1/"
[[key]]
name = "dev"
secret = ""
models = ["caht"]
"""

PATHS = [
    "surprise",
    "server.workers",
    "admission.queue",
    "provider[0].api_key",
    "model[0].targets[0].model",
    "assistant[0].context_budget_s",
    "assistant[0].loader[0].kind",
    "server.bind",
    "provider[1].name",
    "assistant[0].name",
    "provider[0].base_url",
    "model[0].targets[1].provider",
    "assistant[0].model",
    "assistant[0].loader[1].url",
    "assistant[0].system",
    "key[0].secret",
    "key[0].models[0]",
]


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(None, environ={}, text=TEXT)
    assert [fault.path for fault in caught.value.faults] == PATHS
    assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"name = '\xff'", "not TOML: not UTF-8 at byte 8"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "sluice.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFaults) as caught:
        load(path, environ={})
    assert str(caught.value) == message


def test_a_folder_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="cannot be read"):
        load(tmp_path, environ={})


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sluice.toml"
    path.write_bytes(b"\xef\xbb\xbf[admission]\r\nqueue = 7\r\n")
    assert load(path, environ={}).admission.queue == 7


def test_overrides_replace_what_the_file_says_before_it_is_checked() -> None:
    text = "[server]\nbind = 'nonsense'\nbacklog = 9"
    server = load(None, environ={}, text=text, overrides={"server": {"bind": "127.0.0.1:1", "workers": 2}}).server
    assert (server.bind, server.workers, server.backlog) == ("127.0.0.1:1", 2, 9)
    with pytest.raises(ConfigFaults, match=r"^server\.bind: '0\.0\.0\.0:1' can be reached"):
        load(None, environ={}, overrides={"server": {"bind": "0.0.0.0:1"}})


NOT_DEFAULTS = ("# ${", "# A number", "# A target", "# Azure", "# tls_", "# on_disconnect", "# concurrency", "# hedge")
TABLES = (
    Server, Admission, Timeouts, Store, Log, ContextRules, Provider, RetryBudget, Breaker, Concurrency, Model, Target,
    Retry, Hedge, ModelTimeouts, Ledger, Price, Assistant, RetrievalLoader, ConversationLoader, HttpLoader, Key,
)  # fmt: skip


def test_the_example_file_loads_with_an_empty_environment_and_names_every_field() -> None:
    path = Path(__file__).parents[2] / "sluice.example.toml"
    config = load(path, environ={})
    words = set(re.findall(r"[a-z_]+", path.read_text()))
    assert {name for table in TABLES for name in attrs.fields_dict(table)} - words == set()
    assert [model.name for model in config.model] == ["chat", "offline", "openai/*"]
    assert {loader.kind for loader in config.assistant[0].loader} == {"retrieval", "profile", "context", "http"}
    assert config.provider[0].api_key is None


def test_every_default_in_the_example_file_is_the_real_one() -> None:
    path = Path(__file__).parents[2] / "sluice.example.toml"
    text = path.read_text()
    written_out = "\n".join(
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") and " = " in line and "$" not in line else line
        for line in text.splitlines()
        if not line.startswith(NOT_DEFAULTS)
    )
    assert written_out != text
    kept = load(path, environ={})
    spelled = load(None, environ={}, text=written_out)
    assert (spelled.server, spelled.admission, spelled.timeouts) == (kept.server, kept.admission, kept.timeouts)
    assert (spelled.store, spelled.log, spelled.provider) == (kept.store, kept.log, kept.provider)
    assert (spelled.assistant, spelled.model) == (kept.assistant, kept.model)
