"""Debian's docker-registry in the daemon's network namespace, on 127.0.0.1:5000, filled by our own push."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import TracebackType

from tests.compat.harness import Daemon
from tests.waiting import until


class Registry:
    """Serves `image`, a busybox with a layer more."""

    host = "127.0.0.1:5000"
    image = "127.0.0.1:5000/test/box:1"

    def __init__(self, daemon: Daemon, *, fill: bool = True) -> None:
        self.daemon, self.fill = daemon, fill
        self.storage = daemon.host.place / "registry"

    def __enter__(self) -> Registry:
        config = self.daemon.host.place / "registry.yml"
        config.write_text(
            f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {self.storage}}}\n  delete: {{enabled: true}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        self.log = Path(str(config) + ".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.daemon.host.inside("docker-registry", "serve", str(config)), stdout=log, stderr=log
            )
        until(lambda: b"listening on" in self.log.read_bytes(), what="the registry")
        if self.fill:
            self.daemon.ok("tag", "busybox", self.image)
            self.daemon.ok("push", "-q", self.image)
            self.daemon.ok("rmi", self.image)
        return self

    def downloads(self) -> int:
        return len(re.findall(r'"GET /v2/\S+/blobs/\S+ HTTP/[^"]*" 20', self.log.read_text(errors="replace")))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(10)
