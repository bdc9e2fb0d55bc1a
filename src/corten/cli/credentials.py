"""Credentials for a registry from config.json (`docker login` writes them) or its credential helpers."""

from __future__ import annotations

import base64
import json

from corten.client.images import encode_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"


def registry_of(reference: str) -> str:
    """The key under which credentials of `reference`'s registry are filed."""
    first, slash, _ = reference.partition("/")
    if (
        not slash
        or not ("." in first or ":" in first or first == "localhost")
        or first in ("docker.io", "index.docker.io")
    ):
        return HUB
    return first


def auth_for(reference: str, config: dict[str, Any]) -> str:
    """The X-Registry-Auth header for `reference`; "" when nothing is known for its registry."""
    registry = registry_of(reference)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    found = _from_helper(helper, registry) if helper else None
    if found is None:
        entry = (config.get("auths") or {}).get(registry) or (config.get("auths") or {}).get(f"https://{registry}")
        found = _from_entry(entry) if entry else None
    if found is None:
        return ""
    return encode_auth({**found, "serveraddress": registry})


def _from_entry(entry: dict[str, Any]) -> dict[str, str] | None:
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"])}
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except ValueError:
        return None
    return {"username": user, "password": password.rstrip("\0")} if user else None


def _from_helper(helper: str, registry: str) -> dict[str, str] | None:
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=registry.encode(), capture_output=True, timeout=60, check=True
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None  # As for a registry that the helper knows nothing of: anonymous.
    if answer.get("Username") == "<token>":
        return {"identitytoken": str(answer["Secret"])}
    return {"username": str(answer.get("Username", "")), "password": str(answer.get("Secret", ""))}
