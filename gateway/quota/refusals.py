"""How a limit is told to the client: refusals that name the limit, its owner and when to come back, and headers.

OpenAI's ``x-ratelimit-*`` tell of the tightest limit on requests and on tokens; ``reset`` is when the next used unit
comes back. ``RateLimit-Policy`` and ``RateLimit`` list every limit on requests and tokens of the key, team and
organisation.

Source: OpenAI's guide on rate limits; draft-ietf-httpapi-ratelimit-headers (``q``, ``w``; ``r``, ``t``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from gateway.core.errors import Rejected
from gateway.core.limits import NEVER, LimitRule
from gateway.policy.lease import SLOTS
from gateway.quota.meter import Meter, Verdict

WAIT_RETRY_S = 0.1
AWAY_RETRY_S = 1.0
_LEAST_RETRY_S = 0.1
_TELLING_S = 0.3  # until the keeper has been told, and asked again
_OWNERS = {"key": "key", "team": "team", "org": "organisation", "model": "model"}
_REQUESTS, _TOKENS = ("rpm", "rpd"), ("tpm", "tpd")

Headers = list[tuple[bytes, bytes]]


class Refusal(Rejected):
    """A request that a limit refuses.

    Attributes:
        rule: The limit.
        may_wait: There may be some left, but none is in this process's hands yet: asking again in a few
            milliseconds may do.
    """

    def __init__(
        self, code: str, http_status: int, message: str, *, rule: LimitRule, retry_after_s: float | None, may_wait: bool
    ) -> None:
        super().__init__(code, http_status, message, retry_after_s=retry_after_s)
        self.rule = rule
        self.may_wait = may_wait


def refusal(meter: Meter, units: int, verdict: Verdict, now: float, wall_s: float) -> Refusal:
    """Why ``units`` were refused. Counted, unless asking again may help at once."""
    meter.refused += verdict is not Verdict.WAIT
    rule = meter.rule
    limit = f"{_OWNERS[rule.scope]} '{rule.owner}' may {allowance(rule)}"
    code = "budget_exhausted" if rule.kind == "usd" else "rate_limited"
    retry_after_s: float | None
    if verdict is Verdict.AWAY:
        text, retry_after_s = "and how much of that is left cannot be found out now (on_failure = closed)", AWAY_RETRY_S
        return Refusal("limits_away", 503, f"{limit}, {text}", rule=rule, retry_after_s=AWAY_RETRY_S, may_wait=False)
    if verdict is Verdict.WAIT:
        text, retry_after_s = "this process has to ask for its part of that first", WAIT_RETRY_S
    elif units > rule.amount:
        text, retry_after_s = f"this request alone may take {_amount(rule, units)}", None
    elif rule.kind == "usd":
        text, retry_after_s = _budget_ends(rule, wall_s)
    elif rule.kind == "concurrent":
        text, retry_after_s = "so many are running", AWAY_RETRY_S
    else:
        back_at = meter.reset_at
        if back_at <= now and meter.used > meter.told:  # what was used just now comes back a window later
            back_at = now + meter.window_s * (1 + 1 / SLOTS) + _TELLING_S
        retry_after_s = max(back_at - now, _LEAST_RETRY_S)
        text = f"that is used up (this request: {units}); retry after {retry_after_s:.1f} s"
    may_wait = verdict is Verdict.WAIT
    return Refusal(code, 429, f"{limit}; {text}", rule=rule, retry_after_s=retry_after_s, may_wait=may_wait)


def allowance(rule: LimitRule) -> str:
    """A limit in words, to go after "may"."""
    if rule.kind == "usd":
        return f"spend {_amount(rule, rule.amount)} {_per(rule.period)}"
    if rule.kind == "concurrent":
        return f"have {rule.amount} requests running at the same time (max_concurrent)"
    verb = "make" if rule.kind in _REQUESTS else "use"
    per = {60.0: "a minute", 86_400.0: "a day"}.get(rule.pool_window_s, f"in {rule.pool_window_s:g} s")
    return f"{verb} {_amount(rule, rule.amount)} {per} ({rule.kind})"


def headers(meters: Iterable[Meter], now: float) -> Headers:
    """What is left of the limits, for the answer's head."""
    rates = [meter for meter in meters if meter.rule.kind in _REQUESTS + _TOKENS]
    out: Headers = []
    for what, kinds in (("requests", _REQUESTS), ("tokens", _TOKENS)):
        of_kind = [meter for meter in rates if meter.rule.kind in kinds]
        if of_kind:
            meter = min(of_kind, key=lambda one: left(one) / one.amount)
            reset = _go_duration(max(meter.reset_at - now, 0.0))
            for name, value in (("limit", meter.amount), ("remaining", left(meter)), ("reset", reset)):
                out.append((f"x-ratelimit-{name}-{what}".encode(), str(value).encode()))
    if rates:
        policy = (f'"{_name(one.rule)}";q={one.amount};w={math.ceil(one.window_s)}' for one in rates)
        state = (f'"{_name(one.rule)}";r={left(one)};t={math.ceil(max(one.reset_at - now, 0.0))}' for one in rates)
        out += [(b"ratelimit-policy", ", ".join(policy).encode()), (b"ratelimit", ", ".join(state).encode())]
    return out


def left(meter: Meter) -> int:
    """Units that this process knows to be left: in its slice, and in the pool as last told."""
    return min(max(meter.remaining + max(meter.avail, 0), 0), meter.amount)


def _budget_ends(rule: LimitRule, wall_s: float) -> tuple[str, float | None]:
    _, ends_at = rule.period_at(wall_s)
    if ends_at == NEVER:
        return "that is spent", None
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_at))
    return f"that is spent, or set aside for requests that run; it begins anew at {at}", ends_at - wall_s


def _amount(rule: LimitRule, units: int) -> str:
    if rule.kind == "usd":
        digits = f"{units // 1_000_000}.{units % 1_000_000:06d}"
        whole, _, cents = digits.partition(".")
        return f"{whole}.{cents.rstrip('0').ljust(2, '0')} USD"
    return f"{units} {'requests' if rule.kind in _REQUESTS else 'tokens'}"


def _per(period: str) -> str:
    return {"": "in all", "total": "in all"}.get(period, f"a {period}")


def _name(rule: LimitRule) -> str:
    return f"{rule.scope}-{rule.kind}"


def _go_duration(seconds: float) -> str:
    """As OpenAI writes it: ``120ms``, ``1.5s``, ``6m0s``, ``2h0m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{math.ceil(rest)}s"
    return f"{minutes}m{math.ceil(rest)}s" if minutes else f"{rest:.3g}s"
