"""What 500 containers cost a daemon: lists, inspections, events, memory, and its start with all of them there.

    .venv/bin/python -m benchmarks.many --containers 500

First all of them run, then all have exited. Needs root and a static busybox. All is made for it, in a network namespace
and directories of its own, and removed again.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.own_daemon import Daemon, measure, running

AT_ONCE = 10
LISTS = {
    "ps -a": "/v1.54/containers/json?all=1",
    "ps -a, as 20.10 is asked": "/v1.41/containers/json?all=1",
    "ps -a --filter label": "/v1.54/containers/json?all=1&filters=%7B%22label%22%3A%5B%22group%3D7%22%5D%7D",
}


class Open:
    """A connection that stays, as a client in Go keeps it."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = http.client.HTTPConnection("x")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(daemon.socket)

    def get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()


def image() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    return buffer.getvalue()


def start_all(daemon: Daemon, count: int) -> list[str]:
    """As people have them: labels, variables, a volume, every tenth with a published port."""
    daemon.call("POST", "/images/create?fromSrc=-&repo=image&tag=0", image())

    def one(at: int) -> str:
        ports = {"80/tcp": [{"HostPort": str(20_000 + at)}]} if at % 10 == 0 else {}
        body = {
            "Image": "image:0",
            "Cmd": ["/bin/busybox", "sleep", "100000"],
            "StopSignal": "SIGKILL",
            "Env": [f"VARIABLE_{n}=value {n}" for n in range(8)],
            "Labels": {"group": str(at % 20)} | {f"com.example.label.{n}": f"value {n}" for n in range(6)},
            "HostConfig": {"Binds": [f"volume{at % 20}:/data"], "PortBindings": ports},
        }
        id: str = daemon.call("POST", f"/containers/create?name=container{at}", body)["Id"]
        daemon.call("POST", f"/containers/{id}/start")
        return id

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(count)))


def memory(daemon: Daemon) -> float:
    """MiB that belong to the daemon itself (PSS)."""
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def processor(daemon: Daemon) -> float:
    """Seconds of processor time that the daemon has used."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")")[-1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def looks(daemon: Daemon, ids: list[str], rounds: int) -> None:
    client = Open(daemon)
    for name, path in LISTS.items():
        measure(f"{name} ({len(client.get(path)) >> 10} KiB)", rounds, lambda path=path: client.get(path))  # type: ignore[misc] # the default of a lambda
    measure("inspect", rounds * 4, lambda: client.get(f"/v1.54/containers/{ids[len(ids) // 2]}/json"))
    measure("inspect by name", rounds * 4, lambda: client.get("/v1.54/containers/container7/json"))
    measure("inspect by a part of the id", rounds * 4, lambda: client.get(f"/v1.54/containers/{ids[3][:12]}/json"))


def event(daemon: Daemon, id: str, rounds: int) -> None:
    """From a request that makes an event to the event."""
    stream = http.client.HTTPConnection("x")
    stream.sock = socket.socket(socket.AF_UNIX)
    stream.sock.connect(daemon.socket)
    stream.request("GET", "/v1.54/events?filters=%7B%22event%22%3A%5B%22rename%22%5D%7D")
    answer, client = stream.getresponse(), 0

    def once() -> None:
        nonlocal client
        client += 1
        daemon.call("POST", f"/containers/{id}/rename?name=other{client}")
        assert json.loads(answer.readline())["Action"] == "rename"

    measure("rename, until its event is there", rounds, once)
    stream.close()


def restart(daemon: Daemon, what: str) -> None:
    daemon.stop()
    begun = time.perf_counter()
    daemon.start()
    took = time.perf_counter() - begun
    print(f"{what:42} {took:.2f} s, processor {processor(daemon):.2f} s, {memory(daemon):.1f} MiB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--containers", type=int, default=500)
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--python", default=sys.executable, help="the interpreter of the daemon")
    chosen = options.parse_args()
    with running(chosen.python) as daemon:
        restart(daemon, "start, no container")
        before = memory(daemon)
        begun = time.perf_counter()
        ids = start_all(daemon, chosen.containers)
        print(f"{len(ids)} started, {AT_ONCE} at a time: {time.perf_counter() - begun:.1f} s")
        looks(daemon, ids, chosen.rounds)
        event(daemon, ids[-1], chosen.rounds)
        after = memory(daemon)
        print(f"memory {before:.1f}, then {after:.1f} MiB: {(after - before) * 1024 / len(ids):.1f} KiB a container")
        restart(daemon, "start, all of them running")
        looks(daemon, ids, chosen.rounds)
        begun = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda id: daemon.call("POST", f"/containers/{id}/kill"), ids))
        while daemon.call("GET", "/containers/json"):
            time.sleep(0.02)
        print(f"killed: {time.perf_counter() - begun:.1f} s")
        restart(daemon, "start, all of them exited")
        looks(daemon, ids, chosen.rounds)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda id: daemon.call("DELETE", f"/containers/{id}"), ids))


if __name__ == "__main__":
    main()
