from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from corten.network.controller import BridgeController
from corten.network.types import NetworkController
from corten.testing.network import ControllerFactory, NetworkControllerContract
from tests.kernel.isolation import isolated


@pytest.mark.root
class TestBridgeController(NetworkControllerContract):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> ControllerFactory:
        foreign: list[socket.socket] = []

        def make(*, foreign_ports: frozenset[int] = frozenset()) -> NetworkController:
            for port in foreign_ports:
                foreign.append(socket.create_server(("0.0.0.0", port)))
            return BridgeController(tmp_path, pool_size=1)

        return make

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        isolated(lambda: asyncio.run(scenario()))
