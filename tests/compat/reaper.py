"""What testcontainers calls its reaper, for tests without Docker Hub: removes a session's containers when it has gone.

It listens on port 8080 and takes lines of filters (`label=key=value&…`), each answered `ACK`. When no connection has
been open for RYUK_RECONNECTION_TIMEOUT, it removes by the Docker Engine API all that fits one of them, and ends. It
runs as the first process of a container, with nothing but the standard library.
"""

from __future__ import annotations

import http.client
import json
import os
import selectors
import socket
import urllib.parse

SOCKET = "/var/run/docker.sock"


class Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def ask(method: str, path: str) -> bytes:
    connection = Connection("localhost")
    connection.request(method, path)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def reap(label: str) -> None:
    filters = urllib.parse.quote(json.dumps({"label": [label]}))
    for row in json.loads(ask("GET", f"/containers/json?all=1&filters={filters}")):
        ask("DELETE", f"/containers/{row['Id']}?force=1&v=1")
    for row in json.loads(ask("GET", f"/volumes?filters={filters}")).get("Volumes") or ():
        ask("DELETE", f"/volumes/{row['Name']}?force=1")


def main() -> None:
    grace = float(os.environ.get("RYUK_RECONNECTION_TIMEOUT", "10s").removesuffix("s"))
    labels: set[str] = set()
    selector = selectors.DefaultSelector()
    server = socket.create_server(("", 8080))
    selector.register(server, selectors.EVENT_READ)
    print("Started!", flush=True)
    while events := selector.select(None if len(selector.get_map()) > 1 or not labels else grace):
        for key, _ in events:
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            if peer is server:
                selector.register(server.accept()[0], selectors.EVENT_READ)
                continue
            try:
                lines = peer.recv(65536).decode()
                for line in lines.splitlines():
                    labels.update(part.removeprefix("label=") for part in line.split("&") if part.startswith("label="))
                    peer.sendall(b"ACK\n")
            except OSError:  # whoever dies does not read our answer first
                lines = ""
            if not lines:
                selector.unregister(peer)
                peer.close()
    for label in labels:
        reap(label)


if __name__ == "__main__":
    main()
