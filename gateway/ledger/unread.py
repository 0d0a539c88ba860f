"""What nobody read: how long a cancelled answer had become, and how long it would have been.

Generated: what the provider had sent when its connection was closed, and what it makes in the ``CLOSE_S`` until it
notices, at the answer's own pace. A drained answer was generated as far as it was read.

Expected: the median of those among the target's last answers that were longer than what was generated, but not more
than the client's ``max_tokens``: an answer that is already long is expected to become a long one. Where none was
longer, nothing is known to have been saved, unless no answer is known at all: then ``max_tokens``, which answers
seldom reach, is all there is. Saved is expected less generated, at the price of output. Of an answer that was left
before its first token nothing is said: nobody knows what the model had thought by then.

Limits: 101 answers of each target, 1,000 targets, of this process; estimates, and called so wherever they are shown.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import Final

from attrs import frozen

from gateway.core.facts import AttemptFact, Record, Usage
from gateway.ledger.prices import Known

CLOSE_S: Final = 0.02
ANSWERS: Final = 101
TARGETS: Final = 1_000
MAX_TOKENS: Final = 10_000_000  # no answer is longer, whatever a client allows


@frozen(kw_only=True, slots=True)
class Unread:
    """What became of an answer whose client left.

    Attributes:
        delivered, generated, saved: Tokens, see the module.
        saved_micro_usd: What the saved ones would have cost.
    """

    delivered: int = 0
    generated: int = 0
    saved: int = 0
    saved_micro_usd: int = 0


ALL_READ: Final = Unread()


class Lengths:
    """How long the answers of each target are."""

    def __init__(self) -> None:
        self._last: dict[str, deque[int]] = {}
        self._usual: dict[str, tuple[int, int]] = {}  # the median, and for how many more requests it is taken for that

    def learn(self, target: str, completion_tokens: int) -> None:
        """Take in a whole answer."""
        last = self._last.get(target)
        if last is None:
            if len(self._last) >= TARGETS:
                del self._last[next(iter(self._last))]
            last = self._last[target] = deque(maxlen=ANSWERS)
        last.append(completion_tokens)

    def usual(self, target: str) -> int:
        """How long its answers are as a rule: the median, looked at anew now and then; 0 before there was one."""
        usual, left = self._usual.get(target, (0, 0))
        if not usual or not left:
            usual, left = self.expected(target, 0, 0), ANSWERS // 4
            if len(self._usual) >= TARGETS:
                self._usual.clear()
        self._usual[target] = usual, left - 1
        return usual

    def expected(self, target: str, generated: int, max_tokens: int) -> int:
        """How long an answer would have become that has ``generated`` tokens; at least that."""
        last = self._last.get(target)
        if last:
            longer = [length for length in last if length > generated]
            expected = median_low(longer) if longer else generated
        else:
            expected = max_tokens
        expected = min(expected, MAX_TOKENS)
        if max_tokens:
            expected = min(expected, max_tokens)
        return max(expected, generated)


def generated_tokens(record: Record, attempt: AttemptFact) -> int:
    """How many tokens of a cancelled answer the provider made, as far as can be known."""
    if attempt.usage is None:
        return 0
    sent = attempt.usage.completion_tokens
    if attempt.outcome == "drained" or record.first_token_at <= 0:
        return sent
    streamed_s = record.ended_at - record.first_token_at
    return sent + round(sent / streamed_s * CLOSE_S) if streamed_s > CLOSE_S else sent


def what_nobody_read(record: Record, served: AttemptFact, lengths: Lengths, price: Known) -> Unread:
    """Of a cancelled answer that had begun, served by ``served``; a drained one saved nothing."""
    delivered, generated = record.tokens, generated_tokens(record, served)
    if served.outcome == "drained":
        return Unread(delivered=delivered, generated=generated)
    saved = lengths.expected(record.target, generated, record.max_tokens) - generated
    worth = price.more_micro_usd(served.usage or Usage(), saved)
    return Unread(delivered=delivered, generated=generated, saved=saved, saved_micro_usd=worth)
