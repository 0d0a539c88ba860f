"""Take the one real error out of the group that a nursery wraps round it.

A Trio nursery raises an ``ExceptionGroup`` even when a single task failed. Callers of a function must not have to know
that it uses a nursery inside, so each nursery lives in one function, under ``with unwrapped():``.

Order of precedence, when tasks ended differently: a single error wins over any number of ``Cancelled`` (they are only
the echo of the nursery closing); several different errors stay a group, nothing is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


def leaves(error: BaseException) -> list[BaseException]:
    """Every exception in ``error`` that is not itself a group, in order."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


def sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one error of ``group``; a ``Cancelled`` if there is nothing else; None if there are several errors."""
    found = leaves(group)
    errors = [leaf for leaf in found if not isinstance(leaf, trio.Cancelled)]
    if not errors:
        return found[0]
    return errors[0] if len(errors) == 1 else None


@contextmanager
def unwrapped() -> Iterator[None]:
    """Re-raise a group that holds a single error as that error, with its own traceback, cause and context.

    *Cancellation*: transparent; a group of nothing but ``Cancelled`` becomes one ``Cancelled``.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = sole_error(group)
        if error is None:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # the group is noise, what came before it is not
            del error, context
