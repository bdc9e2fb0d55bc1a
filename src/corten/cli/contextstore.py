"""Docker's context store: ~/.docker/contexts/meta/<sha256 of the name>/meta.json and tls/<the same>/docker/*.pem."""

from __future__ import annotations

import hashlib
import json
import os

from corten.cli.errors import CliError
from corten.client.transport import TlsFiles


def load_context(config_dir: str, name: str) -> tuple[str, TlsFiles | None]:
    """The address and TLS files of a context's docker endpoint. Raises CliError when there is none of that name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    path = os.path.join(config_dir, "contexts", "meta", digest, "meta.json")
    try:
        with open(path, encoding="utf-8") as file:
            meta = json.load(file)
        endpoint = meta["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except FileNotFoundError:
        raise CliError(f'context "{name}": context not found: open {path}: no such file or directory') from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(f'context "{name}": cannot read {path}: {error}') from None
    folder = os.path.join(config_dir, "contexts", "tls", digest, "docker")
    files = {name: os.path.join(folder, name) for name in ("ca.pem", "cert.pem", "key.pem")}
    found = {name: path for name, path in files.items() if os.path.exists(path)}
    skip = bool(endpoint.get("SkipTLSVerify"))
    if not found and not (skip and host.startswith("tcp://")):
        return host, None
    return host, TlsFiles(found.get("ca.pem"), found.get("cert.pem"), found.get("key.pem"), verify=not skip)
