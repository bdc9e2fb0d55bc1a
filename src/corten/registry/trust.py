"""TLS contexts for registries: the system's authorities and those of one host, our certificate where it wants one."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import OrderedDict

from corten.errors import InvalidArgument, clip
from corten.registry.hosts import SYSTEM, Trust

_KEPT = 32

_Stamp = tuple[tuple[str, int, int], ...]


class TlsContexts:
    """A context for each way to trust, made when it is first needed; files that have changed since are read again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Trust, bool, _Stamp], ssl.SSLContext] = OrderedDict()

    async def of(self, trust: Trust, *, verify: bool) -> ssl.SSLContext | bool:
        """True stands for the usual verification. Raises InvalidArgument that names a file which cannot be used."""
        if verify and trust == SYSTEM:
            return True
        files = [*trust.ca, *(trust.client or ())]
        key = (trust, verify, await asyncio.to_thread(_stamp, files) if files else ())
        if key not in self._kept:
            # The system's authorities are some hundred files; reading them takes long enough to be noticed.
            made = await asyncio.to_thread(_make, trust, verify=verify)
            self._kept[key] = self._kept.get(key, made)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _stamp(files: list[str]) -> _Stamp:
    try:
        return tuple((path, (stat := os.stat(path)).st_mtime_ns, stat.st_size) for path in files)
    except OSError as error:
        raise InvalidArgument(f"cannot read {error.filename}: {error.strerror}") from None


def _make(trust: Trust, *, verify: bool) -> ssl.SSLContext:
    if verify:
        context = ssl.create_default_context()
        if trust.ca:
            # Python 3.13 began to want extensions that authorities made by Docker's own instructions lack.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in trust.ca:
        try:
            context.load_verify_locations(path)
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{path} holds no certificates in PEM format: {clip(str(error))}") from None
    if trust.client:
        cert, key = trust.client
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{cert} and {key} are no certificate with its key: {clip(str(error))}") from None
    return context


def _no_password() -> str:
    """An encrypted key would have OpenSSL ask on the daemon's terminal."""
    raise ValueError("the key is encrypted")
