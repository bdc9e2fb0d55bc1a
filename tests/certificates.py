"""Certificates for tests, made by openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """`ca` is its certificate's path. Everything is written below `directory`."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self.directory = directory
        self.ca, self._key = directory / "ca.crt", directory / "ca.key.pem"
        self._openssl(
            "req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.ca)
        )

    def issue(self, name: str, *, subjects: str = "", rsa: bool = False) -> tuple[Path, Path]:
        """Certificate and key of `name`; `subjects` in openssl's words: "IP:127.0.0.1,DNS:localhost"."""
        cert, key = (self.directory / f"{name}.{kind}" for kind in ("cert", "key"))
        kind = ["-newkey", "rsa:2048", *_OPTIONS] if rsa else _NEW_KEY
        request = ["req", "-x509", *kind, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
        request += ["-CA", str(self.ca), "-CAkey", str(self._key), "-addext", "basicConstraints=critical,CA:FALSE"]
        if subjects:
            request += ["-addext", f"subjectAltName={subjects}"]
        self._openssl(*request)
        return cert, key

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


_OPTIONS = ["-nodes", "-days", "2"]
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *_OPTIONS]
