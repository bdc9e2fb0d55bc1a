"""A daemon to measure, in a network namespace and directories of its own, which go with it; and how to print a time."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Daemon:
    python: str
    place: Path
    netns: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return f"{self.place}/s"

    def command(self, *more: str) -> list[str]:
        roots = ["--data-root", f"{self.place}/data", "--exec-root", f"{self.place}/run"]
        inside = ["nsenter", f"--net=/run/netns/{self.netns}", self.python, "-m", "corten.daemon.main"]
        return [*inside, "-H", f"unix://{self.socket}", *roots, *more]

    def start(self) -> None:
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd="/")
        until = time.monotonic() + 60
        while True:
            try:
                self.call("GET", "/_ping")
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/x-tar" if isinstance(body, bytes) else "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300 and answer.status != 304:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text.startswith((b"{", b"[")) and b"\r\n" not in text else text


@contextmanager
def running(python: str) -> Iterator[Daemon]:
    name = f"cb{os.getpid()}"
    place = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp"))
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        daemon = Daemon(python, place, name)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            subprocess.run(daemon.command("--cleanup"), check=False, cwd="/")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        shutil.rmtree(place)


def measure(name: str, rounds: int, work: Callable[[], object]) -> None:
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        took.append((time.perf_counter() - begin) * 1e3)
    took.sort()
    print(
        f"{name:42} p50 {took[len(took) // 2]:7.1f} ms   p99 {took[min(int(len(took) * 0.99), len(took) - 1)]:7.1f} ms"
    )
