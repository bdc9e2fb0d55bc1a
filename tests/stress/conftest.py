from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon, daemon_on_host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stress" in str(item.path):
            item.add_marker(pytest.mark.root)


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon under load; what the test leaves running is ended with it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with daemon_on_host() as daemon:
        yield daemon
