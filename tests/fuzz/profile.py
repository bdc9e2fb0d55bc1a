"""How long the fuzzing goes on: a few seconds a test, the same inputs each time; with CORTEN_TEST_FUZZ=long a hundred
times as many, others each time, and those that failed are kept in .hypothesis and tried first.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from corten.errors import CortenError

LONG = os.environ.get("CORTEN_TEST_FUZZ") == "long"
_FACTOR = 100


def in_order(error: CortenError, limit: int = 1500) -> None:
    """What is told to people who did nothing wrong: bounded, and without control characters."""
    text = str(error)
    assert text.isprintable()
    assert len(text) <= limit


def fuzzed(examples: int) -> settings:
    """So many inputs in the ordinary run."""
    return settings(
        max_examples=examples * _FACTOR if LONG else examples,
        derandomize=not LONG,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
