"""Tests for a machine with systemd, pure cgroup v2 and an older kernel: `scripts/test-vm` boots one and runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon, busybox_tar
from tests.vm.machine import Machine, residue

# Elsewhere they are not skipped but not there: an ordinary run has no such machine, and is complete without.
collect_ignore_glob = [] if "CORTEN_TEST_VM" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    before = residue()
    machine = Machine()
    daemon = Daemon(machine)
    try:
        daemon.start()
        daemon.ok("import", "-c", 'CMD ["sh"]', str(busybox_tar(machine.place / "b.tar")), "busybox:latest")
        yield daemon
    finally:
        print(daemon.log())
        daemon.close()
        machine.close()
    after = residue()
    for kind, things in before.items():
        assert after[kind] == things


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    yield shared_daemon
    assert shared_daemon.answers()
    if left := shared_daemon.ok("ps", "-aq").split():
        shared_daemon.ok("rm", "-fv", *left)
