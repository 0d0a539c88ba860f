"""All tests of faults run by the clock of :mod:`tests.faults.clock`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.faults import clock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.trio(run=clock.run))
