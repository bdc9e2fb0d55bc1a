from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon, daemon_on_host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/compat" in str(item.path):
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert shutil.which("docker"), "the docker command is missing: scripts/test installs it"
    with daemon_on_host() as daemon:
        yield daemon


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The session's daemon; containers that a test leaves are removed, and it must have survived."""
    yield shared_daemon
    assert shared_daemon.answers()
    if left := shared_daemon.ok("ps", "-aq").split():
        shared_daemon.ok("rm", "-fv", *left)


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon that the test may kill."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with daemon_on_host() as daemon:
        yield daemon
