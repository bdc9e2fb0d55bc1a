from __future__ import annotations

import pytest

from tests.compat.conftest import own_daemon as own_daemon


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stress" in str(item.path):
            item.add_marker(pytest.mark.root)
