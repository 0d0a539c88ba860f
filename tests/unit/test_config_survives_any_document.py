"""Whatever TOML can say gives a configuration or its faults, and never another exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, ConfigFaults, Fault, advice, build, describe, load
from gateway.config.read import HOLE
from gateway.config.tree import (
    Admission,
    Assistant,
    ContextRules,
    HttpLoader,
    Key,
    Log,
    Model,
    Provider,
    RetrievalLoader,
    Server,
    Store,
    Target,
    Timeouts,
)

TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "a",
                "chat",
                "o/*",
                "*",
                "openai",
                "http",
                "GET",
                "POST",
                "${A}",
                "${B:-3}",
                "${",
                "{a}",
                "{input}",
                "true",
            ),
            *(
                "https://h/{input}",
                "https://[::1/",
                "http://h:x",
                "h",
                "[::1]:80",
                "0.0.0.0:1",
                "sqlite:///x",
                "{",
                "/~2",
            ),
        ]
    ),
    st.text(max_size=12),
)
SCALARS = st.one_of(TEXTS, st.integers(), st.floats(), st.booleans(), st.dates(), st.datetimes(), st.times())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def table(cls: type, **fields: Any) -> Any:
    """A table with some of the class's fields, each with a fitting value or anything at all."""
    names = [field.name for field in attrs.fields(cls)]
    fitting = {name: st.one_of(fields.get(name, SCALARS), VALUES) for name in names}
    return st.one_of(st.fixed_dictionaries({}, optional=fitting), VALUES)


def several(inner: Any) -> Any:
    return st.one_of(st.lists(inner, max_size=3), VALUES)


HEADERS = st.dictionaries(TEXTS, TEXTS, max_size=3)
LOADERS = st.one_of(
    table(RetrievalLoader, kind=st.just("retrieval"), name=TEXTS),
    table(HttpLoader, kind=st.just("http"), name=TEXTS, url=TEXTS, headers=HEADERS, body=TEXTS, pointer=TEXTS),
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "server": table(Server),
        "admission": table(Admission),
        "timeouts": table(Timeouts),
        "store": table(Store),
        "log": table(Log),
        "context": table(ContextRules, allowed_hosts=several(TEXTS)),
        "provider": several(table(Provider, name=TEXTS, base_url=TEXTS, headers=HEADERS)),
        "model": several(table(Model, name=TEXTS, targets=several(table(Target, provider=TEXTS, model=TEXTS)))),
        "assistant": several(table(Assistant, name=TEXTS, model=TEXTS, system=TEXTS, loader=several(LOADERS))),
        "key": several(table(Key, name=TEXTS, secret=TEXTS, models=several(TEXTS))),
        "other": VALUES,
    },
)


def outcome_of(make: Callable[[], Config]) -> Config | tuple[Fault, ...]:
    try:
        return make()
    except ConfigFaults as faults:
        return faults.faults


@settings(derandomize=True, deadline=None, max_examples=150)
@given(DOCUMENTS)
def test_any_document_is_a_configuration_or_faults(document: dict[str, Any]) -> None:
    outcome = outcome_of(lambda: build(document, environ={"A": "1\n\x00"}))
    if isinstance(outcome, Config):
        assert repr(HOLE) not in repr(outcome)
        assert describe(outcome)
        assert isinstance(advice(outcome), tuple)
    else:
        assert outcome
        assert all(fault.message and fault.path for fault in outcome)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(st.sampled_from("[]{}=\"'\n\\,.#-+0a1e:T${}\x00é"), max_size=60))
def test_any_text_is_a_configuration_or_faults(text: str) -> None:
    outcome = outcome_of(lambda: load(None, environ={}, text=text))
    assert isinstance(outcome, Config) or outcome
