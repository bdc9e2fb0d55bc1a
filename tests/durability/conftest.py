"""One lab for all tests here: it has the registry and the stores that every run begins with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


class RemoteLab:
    """`tests.durability.lab` in a process of its own, so that its mounts and victims end with it."""

    def __init__(self, place: Path) -> None:
        command = [sys.executable, "-m", "tests.durability.lab", str(place)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.unavailable = str(self._read().get("unavailable", ""))

    def ask(self, **request: Any) -> dict[str, Any]:
        """The report about an operation; see `lab.Report`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the lab has ended; what it said is above"
        read: dict[str, Any] = json.loads(line)
        return read

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLab]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = RemoteLab(tmp_path_factory.mktemp("lab"))
    try:
        if made.unavailable:
            pytest.skip(f"this machine gives no disk that could lose power: {made.unavailable}")
        yield made
    finally:
        made.close()
