"""`system df`, as both command lines show it: exact right after something was written."""

from __future__ import annotations

import json
import re

import pytest

from tests.compat.harness import Daemon


@pytest.mark.parametrize("client", ["docker", "corten"])
def test_what_was_written_is_counted(daemon: Daemon, client: str) -> None:
    def df() -> dict[str, dict[str, str]]:
        done = (daemon.docker if client == "docker" else daemon.corten)("system", "df", "--format", "{{json .}}")
        assert done.code == 0, done.err
        return {row["Type"]: row for row in map(json.loads, done.lines)}

    def details() -> str:
        return (daemon.docker if client == "docker" else daemon.corten)("system", "df", "-v").out

    before = df()
    daemon.ok("run", "-d", "--name", "writer", "-v", "filled:/v", "busybox", "sleep", "1000")
    daemon.ok(
        "exec", "writer", "sh", "-c", "dd if=/dev/zero of=/a bs=1M count=40; dd if=/dev/zero of=/v/a bs=1M count=30"
    )
    now = df()
    assert now["Containers"]["Size"].startswith("41.9")
    assert int(now["Containers"]["Active"]) == int(before["Containers"]["Active"]) + 1
    assert now["Build Cache"]["Size"] == "0B"
    told = details()
    (row,) = [line for line in told.splitlines() if line.endswith(" writer")]
    assert '"sleep 1000"' in row
    assert " Up " in row
    assert re.search(r"  1 +(41.9|42)MB  ", row)  # its volumes, and its size
    (row,) = [line for line in told.splitlines() if line.startswith("filled ")]
    assert row.split()[1:] == ["1", "31.46MB"]

    daemon.ok("exec", "writer", "rm", "/a", "/v/a")
    daemon.ok("kill", "writer")
    daemon.docker("wait", "writer")
    assert df()["Containers"]["Size"].endswith("kB")
    (row,) = [line for line in details().splitlines() if line.endswith(" writer")]
    assert " Exited (137) " in row
    daemon.ok("rm", "writer")
    (row,) = [line for line in details().splitlines() if line.startswith("filled ")]
    assert row.split()[1:] == ["0", "4.096kB"]
    daemon.ok("volume", "rm", "filled")
