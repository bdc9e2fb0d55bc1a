"""Unit tests leave the process as they found it: others run after them in it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

_VARIABLE = "PYTEST_CURRENT_TEST"  # pytest's own


def _state() -> dict[str, object]:
    previous = os.umask(0o022)
    os.umask(previous)
    return {
        "working directory": os.getcwd(),
        "environment": {name: value for name, value in os.environ.items() if name != _VARIABLE},
        "umask": previous,
        "sys.path": tuple(sys.path),
        "handler of SIGINT": signal.getsignal(signal.SIGINT),
        "handler of SIGTERM": signal.getsignal(signal.SIGTERM),
    }


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """First set up and last taken down, so that what other fixtures put back is back."""
    before = _state()
    yield
    after = _state()
    assert after == before, [name for name in before if before[name] != after[name]]
