"""The snapshotter without root passes the suite of the real ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from corten.storage.types import Snapshotter
from corten.testing.snapshots import MemorySnapshotter
from corten.testing.storage_contract import SnapshotterContract


@pytest.mark.parametrize("rebases", [True, False])
class TestMemorySnapshotter(SnapshotterContract):
    @pytest.fixture
    def snapshotter(self, rebases: bool) -> Snapshotter:
        return MemorySnapshotter(rebases=rebases)

    @pytest.fixture
    def reopen(self, snapshotter: Snapshotter) -> Callable[[], Snapshotter]:
        return lambda: snapshotter
