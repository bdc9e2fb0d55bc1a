"""What completion offers of what the daemon has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from corten.cli import completion


def test_a_container_is_offered_by_its_own_name_alone() -> None:
    row = {"Names": ["/web/sql", "/zdb"], "Image": "busybox", "Status": "Up 1 second"}
    client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: [row]))
    assert completion._containers(cast("Any", client), "") == [("zdb", "busybox, Up 1 second")]
