"""A registry of one image, `x:1`, that goes wrong as told: `python lying_registry.py PORT [FAULT…]`.

The layer: `reset` in the middle, `stall` in it, `stall-once`, `truncate` it, `alter` a byte, or `garbage` that is no
HTTP. The manifest: `manifest-garbage` is no JSON, `manifest-alter` is another than its digest says. Ranges that are
asked for are printed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import struct
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("noise")
        noise = os.urandom(3_000_000)
        info.size = len(noise)
        archive.addfile(info, io.BytesIO(noise))
    return data.getvalue()


PLAIN = layer()
LAYER = gzip.compress(PLAIN, 1)
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(PLAIN)]}}
).encode()
KIND = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": KIND,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": sha256(LAYER),
                "size": len(LAYER),
            }
        ],
    }
).encode()
FAULTS = sys.argv[2:]


class Handler(BaseHTTPRequestHandler):
    stalled = False
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, body: bytes, kind: str = "application/octet-stream", length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Docker-Content-Digest", self.digest)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.digest = path.rpartition("/")[2]
        if path.startswith("/v2/x/manifests/"):
            self.manifest()
        elif path.endswith(sha256(CONFIG)):
            self.answer(CONFIG)
        elif path.endswith(sha256(LAYER)):
            self.layer()
        else:
            self.digest = ""
            self.answer(b"{}", "application/json")

    def manifest(self) -> None:
        self.digest = sha256(MANIFEST)
        body = MANIFEST
        if "manifest-garbage" in FAULTS:
            body = b"<html>it works!</html>"
            self.digest = sha256(body)
        if "manifest-alter" in FAULTS:
            body = MANIFEST.replace(b"schemaVersion", b"schemaVersiom")
        self.answer(body, KIND)

    def layer(self) -> None:
        half = LAYER[: len(LAYER) // 2]
        if "alter" in FAULTS:
            self.answer(half + bytes([LAYER[len(half)] ^ 1]) + LAYER[len(half) + 1 :])
        elif "truncate" in FAULTS:
            self.answer(half)
        elif "garbage" in FAULTS:
            self.wfile.write(b"what is it that you want?\r\n\r\n" * 100)
            self.close_connection = True
        elif "stall" in FAULTS or ("stall-once" in FAULTS and not Handler.stalled):
            Handler.stalled = True
            self.answer(half, length=len(LAYER))
            self.wfile.flush()
            threading.Event().wait()
        elif "reset" in FAULTS:
            self.answer(half, length=len(LAYER))
            self.wfile.flush()
            # Lingering for no time makes close() a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif asked := self.headers.get("Range"):
            print(asked, flush=True)
            self.part(int(asked.removeprefix("bytes=").removesuffix("-")))
        else:
            self.answer(LAYER)

    def part(self, start: int) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}")
        self.send_header("Content-Length", str(len(LAYER) - start))
        self.end_headers()
        self.wfile.write(LAYER[start:])


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("ready", flush=True)
    server.serve_forever()
