"""`storage-limit`: said by `docker info`, kept by pulls, imports and loads, changed by SIGHUP."""

from __future__ import annotations

import json
import os
import signal

from tests.compat.harness import Daemon, daemon_on_host
from tests.compat.registry import Registry
from tests.waiting import until


def limit(daemon: Daemon, size: str) -> None:
    """Write the limit into the daemon's configuration, and have it read again."""
    (daemon.host.place / "daemon.json").write_text(json.dumps({"storage-limit": size}))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    shown = ["Storage Limit", size]
    until(lambda: shown in json.loads(daemon.ok("info", "--format", "{{json .DriverStatus}}")), what=size)


def test_a_pull_is_refused_at_the_limit_and_goes_on_above_it() -> None:
    with daemon_on_host() as daemon, Registry(daemon) as registry:
        daemon.stop()
        config = daemon.host.place / "daemon.json"
        config.write_text("{}")
        daemon.args = ["--config-file", str(config)]
        daemon.start()
        limit(daemon, "4MB")  # busybox is there, as blob and as files
        tar = daemon.host.place / "busybox.tar"
        refused = daemon.docker("import", str(tar), "second:1")
        assert refused.code == 1
        assert "storage limit" in refused.err
        daemon.ok("rmi", "-f", "busybox")
        until(lambda: daemon.ok("images", "-q") == "")
        limit(daemon, "1MB")
        refused = daemon.docker("pull", registry.image)
        assert refused.code == 1
        assert "of the storage limit of 1MB are used; remove images" in refused.err
        assert daemon.ok("images", "-q") == ""
        limit(daemon, "100MB")
        daemon.ok("pull", "-q", registry.image)
        assert daemon.ok("run", "--rm", registry.image, "echo", "fits") == "fits"
        # What a container writes counts as well.
        daemon.ok("run", "--name", "writer", registry.image, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=100")
        assert daemon.docker("import", str(tar), "second:1").code == 1
        daemon.ok("rm", "writer")
        daemon.ok("import", str(tar), "second:1")
        assert os.path.exists(tar)
