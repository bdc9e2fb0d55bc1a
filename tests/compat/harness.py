"""A daemon under test: in a network namespace of its own, with temporary roots, so that nothing of the host changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import patience, until

_numbers = itertools.count()
BUSYBOX = "/bin/busybox"


@dataclass
class Outcome:
    """What a command left: exit status and both outputs, decoded."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def both(self) -> str:
        return self.out + self.err


class Host:
    """A network namespace, and a place for a daemon in it. Everything goes with `close`."""

    def __init__(self) -> None:
        self.netns = f"ct{os.getpid()}n{next(_numbers)}"
        self.place = Path(tempfile.mkdtemp(prefix="corten-test-", dir="/var/tmp"))
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)

    def inside(self, *command: str) -> list[str]:
        # nsenter, not `ip netns exec`: that one mounts a new /sys and hides the cgroups.
        return ["nsenter", f"--net=/run/netns/{self.netns}", *command]

    def run(self, *command: str, timeout: float = 60, **options: Any) -> Outcome:
        done = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience(timeout),
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def processes(self) -> dict[int, str]:
        """The names of all processes in the namespace, by pid."""
        home = os.stat(f"/run/netns/{self.netns}").st_ino
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has ended, or is a thread of the kernel
                    if os.stat(entry / "ns/net").st_ino == home:
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.netns], check=True)
        shutil.rmtree(self.place)


@dataclass
class Daemon:
    """One `cortend`, started and stopped by the tests."""

    host: Host
    args: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.host.place / "corten.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def roots(self) -> list[str]:
        return ["--data-root", str(self.host.place / "data"), "--exec-root", str(self.host.place / "run")]

    def start(self) -> None:
        with open(self.host.place / "log", "ab") as log:
            self.process = subprocess.Popen(self.host.inside(*self.command()), stdout=log, stderr=log)
        until(self.answers, what="the daemon's first answer")

    def command(self) -> list[str]:
        return [sys.executable, "-m", "corten.daemon.main", "-H", self.url, *self.roots, *self.args]

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.socket.exists() and self.curl("/_ping").out == "OK"

    def curl(self, path: str, method: str = "GET", body: Any = None) -> Outcome:
        """A raw request, by a client that knows nothing of Docker."""
        return _raw_request(self.socket, method, path, body)

    def log(self) -> str:
        return (self.host.place / "log").read_text(errors="replace")[-8000:]

    def kill(self) -> None:
        """As a crash: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(patience(30))

    def close(self) -> None:
        """Stop, end what still runs, and check that nothing is left of it."""
        self.stop()
        cleaned = self.host.run(sys.executable, "-m", "corten.daemon.main", "--cleanup", *self.roots)
        assert cleaned.code == 0, cleaned.err + self.log()

    def docker(self, *args: str, timeout: float = 60, **options: Any) -> Outcome:
        environment = {**os.environ, "DOCKER_CONFIG": str(self.host.place / "dc"), "DOCKER_HOST": self.url}
        return self.host.run("docker", *args, timeout=timeout, env=environment, **options)

    def corten(self, *args: str, timeout: float = 60, **options: Any) -> Outcome:
        environment = {**os.environ, "DOCKER_CONFIG": str(self.host.place / "dc"), "DOCKER_HOST": self.url}
        return self.host.run(
            sys.executable, "-m", "corten.cli.main", *args, timeout=timeout, env=environment, **options
        )

    def ok(self, *args: str, **options: Any) -> str:
        """The output of a docker command that has to succeed."""
        done = self.docker(*args, **options)
        assert done.code == 0, f"docker {' '.join(args)}: {done.code}\n{done.out}{done.err}\n{self.log()}"
        return done.out.strip()

    def inspect(self, ref: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.ok("inspect", ref))
        return found[0]


def _raw_request(path: Path, method: str, target: str, body: Any) -> Outcome:
    import http.client
    import socket

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(patience(30))
            self.sock.connect(str(path))

    connection = Connection("localhost")
    try:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, {"Content-Type": "application/json"} if data is not None else {})
        answer = connection.getresponse()
        return Outcome(answer.status, answer.read().decode(errors="replace"), "")
    except OSError as error:
        return Outcome(0, "", str(error))
    finally:
        connection.close()


def busybox_tar(path: Path) -> Path:
    """A root file system of the host's busybox, with a passwd and group file that have more than root."""
    root = path.parent / (path.name + ".d")
    for directory in ("bin", "etc", "tmp", "root", "home/app"):
        (root / directory).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    (root / "etc/notexec").write_text("not a program\n")
    (root / "tmp").chmod(0o1777)
    with tarfile.open(path, "w") as archive:
        archive.add(root, ".")
    shutil.rmtree(root)
    return path


@contextlib.contextmanager
def daemon_on_host(*args: str) -> Iterator[Daemon]:
    """A running daemon with the image `busybox:latest`."""
    host = Host()
    daemon = Daemon(host, list(args))
    try:
        daemon.start()
        daemon.ok("import", "-c", 'CMD ["sh"]', str(busybox_tar(host.place / "busybox.tar")), "busybox:latest")
        yield daemon
    finally:
        try:
            daemon.close()
        finally:
            host.close()
