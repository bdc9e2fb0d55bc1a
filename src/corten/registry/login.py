"""Whether a registry lets somebody in."""

from __future__ import annotations

import asyncio

from corten.errors import SystemFault, Unauthorized
from corten.registry.auth import Credentials, RegistryAuth, RejectedPassword
from corten.registry.faults import Refused, status_text
from corten.registry.transport import Request, Transport

ATTEMPTS = 2
"""A user waits for this."""


async def login(transport: Transport, address: str, credentials: Credentials) -> str:
    """Ask the registry at `address` (as `RegistrySettings.registry` takes it) whether `credentials` are good.

    Returns the identity token to be kept instead of the password, "" where the registry gives none. Raises
    Unauthorized when they are not, in Docker's words; InvalidArgument, Unavailable or SystemFault when nobody can say.
    """
    endpoint = await asyncio.to_thread(transport.settings.registry, address)
    # What is known of the registry from pulls must not answer for it.
    auth = RegistryAuth(credentials, offline=True)
    try:
        async with transport.send(endpoint, credentials, Request("GET", "/v2/", auth=auth, attempts=ATTEMPTS)):
            return auth.identity_token
    except RejectedPassword:
        raise Unauthorized(_failed(transport.url_of(endpoint), 401)) from None
    except Refused as refused:
        kind = Unauthorized if refused.status in (401, 403) else SystemFault
        raise kind(_failed(transport.url_of(endpoint), refused.status)) from None


def _failed(url: str, status: int) -> str:
    return f"login attempt to {url} failed with status: {status_text(status)}"
