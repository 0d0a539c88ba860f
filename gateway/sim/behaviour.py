"""How the simulated provider behaves: its pace, its length and its faults, as one frozen value.

Settings come from three places, each overriding the one before: the simulator's own default, the model name, the
``x-sim`` header. All speak one grammar, so that whatever a test can say in Python, a person can type into a model
field::

    model   = "sim" { "-" setting }            sim-ttft=0.2-tps=50-tokens=64
    header  = setting { "," setting }          x-sim: ttft=0.2, tps=50, tokens=64
    setting = key [ "=" ( value | "off" ) ]    "off" takes an inherited setting back

    pace    ttft=S         seconds until the first byte; the median when sigma is set
            sigma=X        log-normal spread of ttft; 0 is fixed
            tail=P         with probability P the time to first token is tail_factor times as long
            tail_factor=F  10 unless said otherwise
            tps=N          tokens per second and choice; 0 is as fast as possible
            tokens=N       length of the answer; as long as what there is to say unless set
    faults  status=N       answer with this HTTP status (400-599) and no completion
            retry_after=S  Retry-After of that answer
            reset          reset the connection before the first byte
            silence        take the request and never answer
            slow=S         send the head at once and the first token S seconds later
            cut=N          close the connection after N tokens
            stall=N        send nothing more after N tokens, and stay connected
            error=N        after N tokens send an error event and end without [DONE]
            malformed=N    make the N-th content event (from 1) invalid JSON
            nodone         end the stream without [DONE]
            flap=N         N requests fail, the next N work, and so on, per model name and header; what fails is the
                           other fault that is set, status=503 if there is none
    other   echo           answer with the JSON of the request, to see what reached the provider

Faults combine; where two cannot both happen, the earlier in this list wins; among cut, stall and error the one with
the fewest tokens. A part of a model name that is no setting (``sim-large``) is only a name; a known key with a bad
value and an unknown key with a value are faults of the request. Values hold no ``-``, so no negative numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from attrs import frozen

MAX_TOKENS = 100_000
"""Longest answer: a simulator that can be asked for a billion tokens is a way to lose a machine."""

MAX_DELAY_S = 86_400.0


class SettingError(ValueError):
    """A setting that cannot be followed; the message names it and says what would do."""


@frozen(kw_only=True, slots=True)
class Behaviour:
    """What one request gets; the fields are those of the grammar above, with their units.

    Attributes:
        ttft_s: Seconds until the first byte; the median of the distribution when ``ttft_sigma`` is set.
        ttft_sigma: Sigma of the log-normal factor on ``ttft_s``; 0 is a fixed time.
        ttft_tail: Probability (0 to 1) that a request takes ``ttft_tail_factor`` times as long.
        tokens_per_s: Pace of each choice; 0 is as fast as the client reads.
        tokens: Length of each answer; None lets the prompt decide.
        flap: That many requests fail, then that many work; 0 does not flap.
    """

    ttft_s: float = 0.0
    ttft_sigma: float = 0.0
    ttft_tail: float = 0.0
    ttft_tail_factor: float = 10.0
    tokens_per_s: float = 0.0
    tokens: int | None = None
    status: int | None = None
    retry_after_s: float | None = None
    reset: bool = False
    silence: bool = False
    slow_s: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    error_after: int | None = None
    malformed_at: int | None = None
    no_done: bool = False
    flap: int = 0
    echo: bool = False

    @property
    def fault(self) -> str | None:
        """Name of the fault this request shows first, as the grammar and the statistics call it."""
        if self.status is not None:
            return "status"
        for name, present in (("reset", self.reset), ("silence", self.silence), ("slow", self.slow_s > 0)):
            if present:
                return name
        ends = self.ending
        if ends is not None:
            return ends[1]
        if self.malformed_at is not None:
            return "malformed"
        return "nodone" if self.no_done else None

    @property
    def ending(self) -> tuple[int, str] | None:
        """After how many tokens the answer breaks off, and how; None when it does not."""
        ends = ((self.cut_after, "cut"), (self.stall_after, "stall"), (self.error_after, "error"))
        return min(((after, name) for after, name in ends if after is not None), key=lambda end: end[0], default=None)

    def failing(self) -> Behaviour:
        """This behaviour in the failing half of its flapping."""
        return self if self.fault is not None else attrs.evolve(self, status=503)

    def working(self) -> Behaviour:
        """This behaviour in the working half of its flapping: the same pace and length, no fault."""
        return Behaviour(
            ttft_s=self.ttft_s,
            ttft_sigma=self.ttft_sigma,
            ttft_tail=self.ttft_tail,
            ttft_tail_factor=self.ttft_tail_factor,
            tokens_per_s=self.tokens_per_s,
            tokens=self.tokens,
            echo=self.echo,
        )

    def draw_ttft_s(self, rng: random.Random) -> float:
        """Seconds until the first byte of one request."""
        delay_s = self.ttft_s
        if self.ttft_sigma:
            delay_s *= rng.lognormvariate(0.0, self.ttft_sigma)
        if self.ttft_tail and rng.random() < self.ttft_tail:
            delay_s *= self.ttft_tail_factor
        return min(delay_s, MAX_DELAY_S)


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
        name, read = _KEYS[key]
        changes[name] = getattr(Behaviour(), name) if text == "off" else read(key, text)
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


def _switch(key: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise SettingError(f"{key}={text}: is a switch; write {key}, {key}=1 or {key}=0")
    return text != "0"


_SECONDS, _POSITION = _number(0, MAX_DELAY_S), _whole(0, MAX_TOKENS)

_KEYS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "ttft": ("ttft_s", _SECONDS),
        "sigma": ("ttft_sigma", _number(0, 5)),
        "tail": ("ttft_tail", _number(0, 1)),
        "tail_factor": ("ttft_tail_factor", _number(1, 10_000)),
        "tps": ("tokens_per_s", _number(0, 1_000_000)),
        "tokens": ("tokens", _POSITION),
        "status": ("status", _whole(400, 599)),
        "retry_after": ("retry_after_s", _SECONDS),
        "reset": ("reset", _switch),
        "silence": ("silence", _switch),
        "slow": ("slow_s", _SECONDS),
        "cut": ("cut_after", _POSITION),
        "stall": ("stall_after", _POSITION),
        "error": ("error_after", _POSITION),
        "malformed": ("malformed_at", _whole(1, MAX_TOKENS)),
        "nodone": ("no_done", _switch),
        "flap": ("flap", _whole(0, 1_000_000)),
        "echo": ("echo", _switch),
    }
)
