"""How a limit is told to the client: refusals that name the limit, its owner and when to come back, and headers.

OpenAI's ``x-ratelimit-*`` tell of the tightest limit on requests and on tokens; ``reset`` is when the next used unit
comes back. ``RateLimit-Policy`` and ``RateLimit`` list every limit on requests and tokens of the key, its team and
organisation, and the model. A refusal has the same of the limit that refuses. ``Retry-After`` is when as much as the
request needs will be back, to an eighth of the limit.

Source: OpenAI's guide on rate limits; draft-ietf-httpapi-ratelimit-headers-10 (``q``, ``qu``, ``w``; ``r``, ``t``).
Tokens are no registered unit of the draft's; without ``qu`` they would be read as requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from gateway.core.errors import Rejected
from gateway.core.limits import NEVER, LimitRule
from gateway.quota.meter import Meter, Verdict

WAIT_RETRY_S = 0.1
AWAY_RETRY_S = 1.0
RAISED_RETRY_S = 3_600.0  # where only an operator can help, who may look in once an hour
_NO_RETRY = (b"x-should-retry", b"false")  # which the libraries of OpenAI and Anthropic obey
_LEAST_RETRY_S = 0.1
SAME_S = 0.1  # for so long the same may be told of limits
EXACT_BELOW = 1_000
_OWNERS = {"key": "key", "team": "team", "org": "organisation", "model": "model"}
_REQUESTS, _TOKENS = ("rpm", "rpd"), ("tpm", "tpd")
_RATELIMIT = tuple(
    tuple(f"x-ratelimit-{name}-{unit}".encode() for name in ("limit", "remaining", "reset"))
    for unit in ("requests", "tokens")
)

Headers = list[tuple[bytes, bytes]]


class Refusal(Rejected):
    """A request that a limit refuses.

    Attributes:
        rule: The limit.
        may_wait: There may be some left, but none is in this process's hands yet: asking again in a few
            milliseconds may do.
    """

    def __init__(
        self,
        code: str,
        http_status: int,
        message: str,
        *,
        rule: LimitRule,
        retry_after_s: float,
        may_wait: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(code, http_status, message, retry_after_s=retry_after_s)
        self.rule = rule
        self.may_wait = may_wait
        self.headers = headers


def refusal(meter: Meter, units: int, verdict: Verdict, now: float, wall_s: float) -> Refusal:
    """Why ``units`` were refused. Counted, unless asking again may help at once."""
    meter.refused += verdict is not Verdict.WAIT
    rule = meter.rule
    limit = f"{_OWNERS[rule.scope]} '{rule.owner}' may {allowance(rule)}"
    code = "budget_exhausted" if rule.kind == "usd" else "rate_limited"
    if verdict is Verdict.AWAY:
        text, retry_after_s = "and how much of that is left cannot be found out now (on_failure = closed)", AWAY_RETRY_S
        return Refusal("limits_away", 503, f"{limit}, {text}", rule=rule, retry_after_s=retry_after_s)
    if verdict is Verdict.WAIT:
        text, retry_after_s = "this process has to ask for its part of that first", WAIT_RETRY_S
        return Refusal(code, 429, f"{limit}; {text}", rule=rule, retry_after_s=retry_after_s, may_wait=True)
    told = Notice(Told([meter])).headers(now)
    if units > rule.amount:
        text, retry_after_s = f"this request alone may take {_amount(rule, units)}", RAISED_RETRY_S
        told.append(_NO_RETRY)
    elif rule.kind == "usd":
        text, retry_after_s = _budget_ends(meter, units, wall_s)
        told += [_NO_RETRY] if retry_after_s == RAISED_RETRY_S else []
    elif rule.kind == "concurrent":
        text, retry_after_s = "so many are running", AWAY_RETRY_S
    else:
        retry_after_s = max(meter.back_at(units, now) - now, _LEAST_RETRY_S)
        text = f"that is used up (this request: {units}); retry after {retry_after_s:.1f} s"
    return Refusal(code, 429, f"{limit}; {text}", rule=rule, retry_after_s=retry_after_s, headers=told)


def allowance(rule: LimitRule) -> str:
    """A limit in words, to go after "may"."""
    if rule.kind == "usd":
        return f"spend {_amount(rule, rule.amount)} {_per(rule.period)}"
    if rule.kind == "concurrent":
        return f"have {rule.amount} requests running at the same time (max_concurrent)"
    verb = "make" if rule.kind in _REQUESTS else "use"
    per = {60.0: "a minute", 86_400.0: "a day"}.get(rule.pool_window_s, f"in {rule.pool_window_s:g} s")
    return f"{verb} {_amount(rule, rule.amount)} {per} ({rule.kind})"


def header_text(text: str) -> bytes:
    """Text as a header's value; what none can hold, as a line break in a team's name, becomes ``?``."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text).encode()


class Told:
    """What never changes of what is told of some limits in every head.

    Args:
        meters: Of any kind; only rates are told.
    """

    __slots__ = ("policy", "rates")

    def __init__(self, meters: Iterable[Meter]) -> None:
        rates = [meter for meter in meters if meter.rule.kind in _REQUESTS + _TOKENS]
        self.rates = [(meter, meter.rule.kind in _TOKENS, f'"{_name(meter.rule)}";r=') for meter in rates]
        self.policy = ", ".join(
            f'"{_name(one.rule)}";q={one.amount}{_unit(one.rule)};w={math.ceil(one.window_s)}' for one in rates
        ).encode()


class Notice:
    """What the heads of some requests tell of the same limits.

    The same is told again for ``SAME_S``, as long as it is right to a thousandth of the tightest limits on requests and
    on tokens: who asks often does not pay for it with each request. The tightest is told exactly if it is below 1,000;
    what others use up of a limit that is not, may be told so much later.
    """

    __slots__ = ("_headers", "_lines", "_tightest", "_told", "_until")

    def __init__(self, *told: Told) -> None:
        self._told = told
        self._headers: Headers = []
        self._lines = b""
        self._tightest: list[tuple[Meter, int]] = []
        self._until = -math.inf

    def headers(self, now: float) -> Headers:
        """For the answer's head; the list is not to be changed. Cost: 0.6 µs, 6 where it is told anew."""
        if now < self._until:
            for meter, left in self._tightest:
                if abs(meter.left() - left) > meter.amount // EXACT_BELOW:
                    break
            else:
                return self._headers
        self._until = now + SAME_S
        tightest: list[tuple[float, int, Meter] | None] = [None, None]
        states = []
        for some in self._told:
            for meter, unit, begin in some.rates:
                left = meter.left()
                share = left / meter.amount
                least = tightest[unit]
                if least is None or share < least[0]:
                    tightest[unit] = share, left, meter
                reset_s = meter.reset_at - now
                states.append(f"{begin}{left};t={math.ceil(reset_s) if reset_s > 0.0 else 0}")
        self._tightest = [(meter, left) for _, left, meter in filter(None, tightest)]
        out: Headers = []
        for names, least in zip(_RATELIMIT, tightest, strict=True):
            if least is not None:
                _, left, meter = least
                reset = _go_duration(max(meter.reset_at - now, 0.0))
                out += zip(names, (b"%d" % meter.amount, b"%d" % left, reset.encode()), strict=True)
        if states:
            policy = b", ".join([some.policy for some in self._told if some.policy])
            out += [(b"ratelimit-policy", policy), (b"ratelimit", ", ".join(states).encode())]
        self._headers, self._lines = out, b"".join([b"%b: %b\r\n" % header for header in out])
        return out

    def lines(self, now: float) -> bytes:
        """The same, written out."""
        self.headers(now)
        return self._lines


def _budget_ends(meter: Meter, units: int, wall_s: float) -> tuple[str, float]:
    """Why a budget refuses, and when to come back: soon, if requests that run may not need all they have set aside."""
    if meter.left() + meter.reserved + meter.elsewhere >= units:
        return "what is left is set aside for requests that run", AWAY_RETRY_S
    _, ends_at = meter.rule.period_at(wall_s)
    if ends_at == NEVER:
        return "that is spent", RAISED_RETRY_S
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_at))
    return f"that is spent; it begins anew at {at}", ends_at - wall_s


def _amount(rule: LimitRule, units: int) -> str:
    if rule.kind == "usd":
        digits = f"{units // 1_000_000}.{units % 1_000_000:06d}"
        whole, _, cents = digits.partition(".")
        return f"{whole}.{cents.rstrip('0').ljust(2, '0')} USD"
    return f"{units} {'requests' if rule.kind in _REQUESTS else 'tokens'}"


def _per(period: str) -> str:
    return {"": "in all", "total": "in all"}.get(period, f"a {period}")


def _unit(rule: LimitRule) -> str:
    """``qu``, where it is not the requests that are meant without it."""
    return "" if rule.kind in _REQUESTS else ';qu="tokens"'


def _name(rule: LimitRule) -> str:
    return f"{rule.scope}-{rule.kind}"


def _go_duration(seconds: float) -> str:
    """As OpenAI writes it: ``120ms``, ``1.5s``, ``6m0s``, ``2h0m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{math.ceil(rest)}s"
    return f"{minutes}m{math.ceil(rest)}s"
