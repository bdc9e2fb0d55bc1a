"""What holds for all tests: after a complete set-up none is skipped for the want of something that it installs, and
none fails because the machine was busy for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import hypothesis
import pytest

hypothesis.settings.register_profile("corten", deadline=None)  # its 200 ms are the machine's, not the code's
hypothesis.settings.load_profile("corten")

SET_UP = bool(os.environ.get("CORTEN_TEST_SET_UP"))
"""Said by scripts/test, which has installed everything and runs as root."""

_MISSING = ("needs root", "not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SET_UP and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if any(words in reason for words in _MISSING):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was not run though everything is set up: {reason}"
    return report
