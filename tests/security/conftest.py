from __future__ import annotations

from tests.compat.conftest import daemon, own_daemon, shared_daemon
from tests.security.attacker import lab

__all__ = ["daemon", "lab", "own_daemon", "shared_daemon"]
