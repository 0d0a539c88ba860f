"""How the simulated provider behaves: its pace, its length and its faults, as one frozen value.

Settings come from three places, each overriding the one before: the simulator's own (which a test may change while it
runs: ``Simulator.behave``), the model name, the ``x-sim`` header. All speak one grammar (``sim/grammar.py``), so that
whatever a test can say in Python, a person can type into a model field, in every dialect::

    model   = "sim" { "-" setting }            sim-ttft=0.2-tps=50-tokens=64
    header  = setting { "," setting }          x-sim: ttft=0.2, tps=50, tokens=64
    setting = key [ "=" ( value | "off" ) ]    "off" takes an inherited setting back

    pace    ttft=S         seconds until the first byte (headers included); the median when sigma is set
            sigma=X        log-normal spread of ttft; 0 is fixed
            tail=P         with probability P the time to first token is tail_factor times as long
            tail_factor=F  10 unless said otherwise
            ttft_tail=P:S  of a hundred requests exactly 100*P take S seconds, evenly spread (no drawing)
            tps=N          tokens per second and choice; 0 is as fast as possible
            tokens=N       length of the answer; as long as what there is to say unless set
    faults  status=N       answer with this HTTP status (400-599) and no completion
            retry_after=S  tell with that answer when to come back …
            retry_form=F   … as seconds (Retry-After: 2), date (an HTTP date), ms (retry-after-ms) or reset (the
                           dialect's own rate limit headers); Gemini also says it in the document, in every form
            policy         refuse the prompt for what it says: 400, or what the dialect has for it
            reset          reset the connection before the first byte
            silence        take the request and never answer
            error_first    status 200, and the first event (or the document) is an error
            slow=S         send the head at once and the first token S seconds later
            pings=S        send a keep-alive every S seconds: during slow and stall; without these for ever, no content
            cut=N          close the connection (FIN) after N tokens; 0 is a preamble without content
            rst=N          reset the connection (RST) after N tokens
            stall=N        send nothing more after N tokens, and stay connected
            error=N        after N tokens send an error event and end without the end marker
            end=N          after N tokens end the body in an orderly way, without a finish reason
            filter=N       after N tokens finish because of a content filter
            malformed=N    make the N-th content event (from 1) invalid JSON
            double_finish  send the finish, and the end marker, twice
            nousage        say nothing of usage
            nodone         end the stream without the end marker ([DONE], message_stop, response.completed)
            flap=N         N requests fail, the next N work, and so on, per model name and header; what fails is the
                           other fault that is set, status=503 if there is none
    other   window=N       refuse prompts of more than N tokens as too long for the model
            prefill=P      a last message of the assistant is gone on from (continue, the default), refused with the
                           dialect's words (refuse), or as if it were not there (ignore)
            thinking=N     N tokens of thoughts before the answer; where a request asks for thoughts, 12 without this
            tool           call a tool of the request, whatever the prompt says
            echo           answer with the JSON of the request, to see what reached the provider

Faults combine; where two cannot both happen, the earlier in this list wins; among cut, rst, stall, error and end the
one with the fewest tokens. A part of a model name that is no setting (``sim-large``) is only a name; a known key with a
bad value and an unknown key with a value are faults of the request. Values hold no ``-``, so no negative numbers.
Gemini has no end marker, so ``nodone`` changes nothing there.
"""

from __future__ import annotations

import random
from typing import Literal

import attrs
from attrs import field, frozen

MAX_TOKENS = 100_000
"""Longest answer: a simulator that can be asked for a billion tokens is a way to lose a machine."""

MAX_DELAY_S = 86_400.0

RetryForm = Literal["seconds", "date", "ms", "reset"]
Prefill = Literal["continue", "refuse", "ignore"]


@frozen(kw_only=True, slots=True)
class Behaviour:
    """What one request gets; the fields are those of the grammar above, with their units.

    Attributes:
        ttft_s: Seconds until the first byte; the median of the distribution when ``ttft_sigma`` is set.
        ttft_sigma: Sigma of the log-normal factor on ``ttft_s``; 0 is a fixed time.
        ttft_tail: Probability (0 to 1) that a request takes ``ttft_tail_factor`` times as long.
        late_share: Share (0 to 1) of requests that take ``late_ttft_s`` instead, counted and not drawn.
        tokens_per_s: Pace of each choice; 0 is as fast as the client reads.
        tokens: Length of each answer; None lets the prompt decide.
        pings_s: Seconds between keep-alives; 0 sends none.
        flap: That many requests fail, then that many work; 0 does not flap.
        window_tokens: The longest prompt; None takes any.
        thinking: Tokens of thoughts; 0 leaves it to the request.
        ending: After how many tokens the answer breaks off, and how; None when it does not. Found once: it is asked
            for with every request.
        fault: Name of the fault this request shows first, as the grammar and the statistics call it.
    """

    ttft_s: float = 0.0
    ttft_sigma: float = 0.0
    ttft_tail: float = 0.0
    ttft_tail_factor: float = 10.0
    late_share: float = 0.0
    late_ttft_s: float = 0.0
    tokens_per_s: float = 0.0
    tokens: int | None = None
    status: int | None = None
    retry_after_s: float | None = None
    retry_form: RetryForm = "seconds"
    policy: bool = False
    reset: bool = False
    silence: bool = False
    error_first: bool = False
    slow_s: float = 0.0
    pings_s: float = 0.0
    cut_after: int | None = None
    rst_after: int | None = None
    stall_after: int | None = None
    error_after: int | None = None
    end_after: int | None = None
    filter_after: int | None = None
    malformed_at: int | None = None
    double_finish: bool = False
    no_usage: bool = False
    no_done: bool = False
    flap: int = 0
    window_tokens: int | None = None
    prefill: Prefill = "continue"
    thinking: int = 0
    call_tool: bool = False
    echo: bool = False

    ending: tuple[int, str] | None = field(init=False, eq=False, repr=False)
    fault: str | None = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "ending", self._find_ending())
        object.__setattr__(self, "fault", self._find_fault())

    @property
    def pings_for_ever(self) -> bool:
        """There will be keep-alives and never any content."""
        return self.pings_s > 0 and not self.slow_s and self.stall_after is None

    def failing(self) -> Behaviour:
        """This behaviour in the failing half of its flapping."""
        return self if self.fault is not None else attrs.evolve(self, status=503)

    def working(self) -> Behaviour:
        """This behaviour in the working half of its flapping: everything but the faults."""
        return Behaviour(**{name: getattr(self, name) for name in _NO_FAULTS})

    def draw_ttft_s(self, rng: random.Random, turn: int = 0) -> float:
        """Seconds until the first byte of one request.

        Args:
            turn: How many requests have been before; decides which of them are late.
        """
        if self.late_share and int((turn + 1) * self.late_share + 1e-9) > int(turn * self.late_share + 1e-9):
            return min(self.late_ttft_s, MAX_DELAY_S)
        delay_s = self.ttft_s
        if self.ttft_sigma:
            delay_s *= rng.lognormvariate(0.0, self.ttft_sigma)
        if self.ttft_tail and rng.random() < self.ttft_tail:
            delay_s *= self.ttft_tail_factor
        return min(delay_s, MAX_DELAY_S)

    def _find_fault(self) -> str | None:
        if self.status is not None:
            return "status"
        early = (
            ("policy", self.policy),
            ("reset", self.reset),
            ("silence", self.silence),
            ("error_first", self.error_first),
            ("slow", self.slow_s > 0),
            ("pings", self.pings_s > 0 and self.stall_after is None),
        )
        for name, present in early:
            if present:
                return name
        ends = self.ending
        if ends is not None:
            return ends[1]
        late = (
            ("filter", self.filter_after is not None),
            ("malformed", self.malformed_at is not None),
            ("double_finish", self.double_finish),
            ("nousage", self.no_usage),
            ("nodone", self.no_done),
        )
        return next((name for name, present in late if present), None)

    def _find_ending(self) -> tuple[int, str] | None:
        ends = (
            (self.cut_after, "cut"),
            (self.rst_after, "rst"),
            (self.stall_after, "stall"),
            (self.error_after, "error"),
            (self.end_after, "end"),
        )
        return min(((after, name) for after, name in ends if after is not None), key=lambda end: end[0], default=None)


_NO_FAULTS = (
    "ttft_s",
    "ttft_sigma",
    "ttft_tail",
    "ttft_tail_factor",
    "late_share",
    "late_ttft_s",
    "tokens_per_s",
    "tokens",
    "window_tokens",
    "prefill",
    "thinking",
    "call_tool",
    "echo",
)
