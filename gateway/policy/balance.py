"""In which order equal targets are asked. The first is the choice, the others are where a failure goes.

Power of two choices: the less loaded of two that are drawn at random is nearly as good as the least loaded of all, and
does not send everybody to the same one while the news of its load is on its way.

Cost: O(n log n) for n targets of one stage; a handful.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001); P. Efraimidis, P. Spirakis,
"Weighted random sampling with a reservoir" (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

WEIGHTED = "weighted"
LEAST_LOADED = "least_loaded"


def order(balance: str, weights: Sequence[float], loads: Callable[[], Sequence[float]], rng: Random) -> list[int]:
    """Positions of equal targets in the order in which they are asked.

    Args:
        balance: ``weighted``, ``least_loaded``, or anything else for the order of the configuration.
        weights: One per target.
        loads: Called for ``least_loaded`` only; one per target, as :meth:`PeakEwma.load` gives them.
    """
    if len(weights) < 2:
        return list(range(len(weights)))
    if balance == WEIGHTED:
        return weighted_order(weights, rng)
    if balance == LEAST_LOADED:
        return least_loaded(loads(), rng)
    return list(range(len(weights)))


def weighted_order(weights: Sequence[float], rng: Random) -> list[int]:
    """A random order in which each place is drawn from those left in proportion to their weights.

    Those of weight 0 come last, in the order given: only failures reach them.
    """
    keys = [rng.expovariate(weight) if weight > 0 else math.inf for weight in weights]
    return sorted(range(len(weights)), key=keys.__getitem__)


def least_loaded(loads: Sequence[float], rng: Random) -> list[int]:
    """The less loaded of two drawn at random, then the others from the least loaded on."""
    by_load = sorted(range(len(loads)), key=loads.__getitem__)
    if len(loads) < 2:
        return by_load
    one, other = rng.sample(range(len(loads)), 2)
    first = other if loads[other] < loads[one] else one
    by_load.remove(first)
    return [first, *by_load]
