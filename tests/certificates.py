"""Certificates for tests, made by openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path

_OPTIONS = ["-nodes", "-days", "2"]
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *_OPTIONS]
# The system's configuration would put extensions of an authority into every certificate.
_CONFIG = "[req]\ndistinguished_name = dn\n[dn]\n"


class Authority:
    """`ca` is its certificate's path. Everything is written below `directory`."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self.directory = directory
        self.ca, self._key = directory / "ca.crt", directory / "ca.key.pem"
        self._config = directory / "openssl.cnf"
        self._config.write_text(_CONFIG)
        usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._make(name, self.ca, self._key, [*_NEW_KEY, *usage])

    def issue(self, name: str, *, subjects: str = "", rsa: bool = False) -> tuple[Path, Path]:
        """Certificate and key of `name`; `subjects` in openssl's words: "IP:127.0.0.1,DNS:localhost"."""
        cert, key = (self.directory / f"{name}.{kind}" for kind in ("cert", "key"))
        options = ["-newkey", "rsa:2048", *_OPTIONS] if rsa else [*_NEW_KEY]
        options += ["-CA", str(self.ca), "-CAkey", str(self._key), "-addext", "basicConstraints=critical,CA:FALSE"]
        if subjects:
            options += ["-addext", f"subjectAltName={subjects}"]
        self._make(name, cert, key, options)
        return cert, key

    def _make(self, name: str, cert: Path, key: Path, options: list[str]) -> None:
        command = ["openssl", "req", "-x509", "-config", str(self._config), "-subj", f"/CN={name}", *options]
        subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
