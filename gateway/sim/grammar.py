"""The settings' grammar: reads model names and ``x-sim`` headers into a :class:`~gateway.sim.behaviour.Behaviour`.

The grammar itself stands in the docstring of :mod:`gateway.sim.behaviour`, next to what the settings do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from gateway.sim.behaviour import MAX_DELAY_S, MAX_TOKENS, Behaviour


class SettingError(ValueError):
    """A setting that cannot be followed; the message names it and says what would do."""


def from_model(model: str, base: Behaviour) -> Behaviour:
    """Apply the settings in a model name; names that do not begin with ``sim`` have none.

    Raises:
        SettingError: A setting is unknown or out of range.
    """
    name, *parts = model.split("-")
    if name != "sim":
        return base
    return _apply(base, (part for part in parts if "=" in part or part in _KEYS))


def from_header(value: str, base: Behaviour) -> Behaviour:
    """Apply the settings of an ``x-sim`` header.

    Raises:
        SettingError: A setting is unknown or out of range.
    """
    return _apply(base, (part.strip() for part in value.split(",") if part.strip()))


Reader = Callable[[str, str], Any]


def _apply(base: Behaviour, settings: Iterable[str]) -> Behaviour:
    changes: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in _KEYS:
            raise SettingError(f"unknown setting '{key}'; known are {', '.join(_KEYS)}")
        names, read = _KEYS[key]
        if text == "off":
            changes.update({name: getattr(_DEFAULT, name) for name in names})
        elif len(names) == 1:
            changes[names[0]] = read(key, text)
        else:
            changes.update(zip(names, read(key, text), strict=True))
    return attrs.evolve(base, **changes) if changes else base


def _number(low: float, high: float) -> Reader:
    def read(key: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # false for NaN, too
            raise SettingError(f"{key}={text}: needs a number from {low:g} to {high:g}, e.g. {key}={max(low, 1):g}")
        return value

    return read


def _whole(low: int, high: int) -> Reader:
    def read(key: str, text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
        if not low <= value <= high:
            raise SettingError(f"{key}={text}: needs a whole number from {low} to {high}, e.g. {key}={max(low, 1)}")
        return value

    return read


def _choice(*words: str) -> Reader:
    def read(key: str, text: str) -> str:
        if text not in words:
            raise SettingError(f"{key}={text}: needs one of {', '.join(words)}, e.g. {key}={words[-1]}")
        return text

    return read


def _switch(key: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise SettingError(f"{key}={text}: is a switch; write {key}, {key}=1 or {key}=0")
    return text != "0"


def _late(key: str, text: str) -> tuple[float, float]:
    share, colon, delay_s = text.partition(":")
    if not colon:
        raise SettingError(f"{key}={text}: needs a share and seconds, e.g. {key}=0.05:2.0")
    return _number(0, 1)(key, share), _SECONDS(key, delay_s)


_DEFAULT = Behaviour()
_SECONDS, _POSITION = _number(0, MAX_DELAY_S), _whole(0, MAX_TOKENS)

_KEYS: Mapping[str, tuple[tuple[str, ...], Reader]] = MappingProxyType(
    {
        "ttft": (("ttft_s",), _SECONDS),
        "sigma": (("ttft_sigma",), _number(0, 5)),
        "tail": (("ttft_tail",), _number(0, 1)),
        "tail_factor": (("ttft_tail_factor",), _number(1, 10_000)),
        "ttft_tail": (("late_share", "late_ttft_s"), _late),
        "tps": (("tokens_per_s",), _number(0, 1_000_000)),
        "tokens": (("tokens",), _POSITION),
        "status": (("status",), _whole(400, 599)),
        "retry_after": (("retry_after_s",), _SECONDS),
        "retry_form": (("retry_form",), _choice("seconds", "date", "ms", "reset")),
        "policy": (("policy",), _switch),
        "reset": (("reset",), _switch),
        "silence": (("silence",), _switch),
        "error_first": (("error_first",), _switch),
        "slow": (("slow_s",), _SECONDS),
        "pings": (("pings_s",), _SECONDS),
        "cut": (("cut_after",), _POSITION),
        "rst": (("rst_after",), _POSITION),
        "stall": (("stall_after",), _POSITION),
        "error": (("error_after",), _POSITION),
        "end": (("end_after",), _POSITION),
        "filter": (("filter_after",), _POSITION),
        "malformed": (("malformed_at",), _whole(1, MAX_TOKENS)),
        "double_finish": (("double_finish",), _switch),
        "nousage": (("no_usage",), _switch),
        "nodone": (("no_done",), _switch),
        "flap": (("flap",), _whole(0, 1_000_000)),
        "window": (("window_tokens",), _whole(0, 1_000_000_000)),
        "prefill": (("prefill",), _choice("continue", "ignore", "refuse")),
        "thinking": (("thinking",), _POSITION),
        "tool": (("call_tool",), _switch),
        "echo": (("echo",), _switch),
    }
)
