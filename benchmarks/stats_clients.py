"""What clients of `stats` cost the daemon: its processor time, its memory, and how long `ps` takes beside them.

    .venv/bin/python -m benchmarks.stats_clients --clients 0,1,50,200 --containers 5 --seconds 20
    .venv/bin/python -m benchmarks.stats_clients --python /somewhere/else/.venv/bin/python   # another version's daemon

The clients are spread over the containers and read all that comes. Needs root and a static busybox. All is made for it,
in a network namespace and directories of its own, and removed again.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import sys
import time
from pathlib import Path

from benchmarks.many import processor, start_all
from benchmarks.own_daemon import Daemon, running


def resident(daemon: Daemon) -> float:
    """MiB in the daemon's resident set."""
    assert daemon.process is not None
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def connect(daemon: Daemon, container: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(daemon.socket)
    client.sendall(f"GET /v1.44/containers/{container}/stats HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.setblocking(False)
    return client


def read_for(clients: list[socket.socket], seconds: float, daemon: Daemon) -> tuple[int, list[float]]:
    """Answers that came, and what each of the requests beside them took, one a half second."""
    poll = select.poll()
    by_fd = {client.fileno(): client for client in clients}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    answers, end, next_request = 0, time.monotonic() + seconds, 0.0
    took: list[float] = []
    while (now := time.monotonic()) < end:
        for fd, _ in poll.poll(50):
            answers += by_fd[fd].recv(1 << 16).count(b'"read"')
        if now >= next_request:
            asked = time.monotonic()
            daemon.call("GET", "/v1.44/containers/json?all=1")
            took.append(time.monotonic() - asked)
            next_request = now + 0.5
    return answers, took


def measure(daemon: Daemon, containers: list[str], count: int, seconds: float) -> None:
    clients = [connect(daemon, containers[n % len(containers)]) for n in range(count)]
    read_for(clients, 3, daemon)
    begin, before = time.monotonic(), processor(daemon)
    answers, took = read_for(clients, seconds, daemon)
    spent = time.monotonic() - begin
    share = 100 * (processor(daemon) - before) / spent
    print(
        f"{count:>5} clients: {share:5.1f} % of a processor, {resident(daemon):6.1f} MiB,"
        f" {answers / spent:6.1f} answers/s,"
        f" ps {1000 * statistics.median(took):5.1f} ms (at most {1000 * max(took):.1f})"
    )
    for client in clients:
        client.close()
    time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--clients", default="0,1,50,200")
    parser.add_argument("--containers", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with running(options.python) as daemon:
        containers = start_all(daemon, options.containers)
        for count in map(int, options.clients.split(",")):
            measure(daemon, containers, count, options.seconds)


if __name__ == "__main__":
    main()
