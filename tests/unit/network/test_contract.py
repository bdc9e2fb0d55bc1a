from __future__ import annotations

import pytest

from corten.testing.network import ControllerFactory, FakeNetworkController, NetworkControllerContract


class TestFakeNetworkController(NetworkControllerContract):
    @pytest.fixture
    def factory(self) -> ControllerFactory:
        return lambda *, foreign_ports=frozenset(): FakeNetworkController(foreign_ports=foreign_ports)
