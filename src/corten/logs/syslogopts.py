"""The options of the syslog driver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from corten.errors import InvalidArgument, clip

PORT = 514
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_NAMES = "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp"
FACILITIES = {name: number for number, name in enumerate(_NAMES.split())} | {f"local{n}": 16 + n for n in range(8)}


def remote(options: Mapping[str, str], tag: str) -> dict[str, Any]:
    """The settings of `logs.syslog`. Raises InvalidArgument."""
    network, address = _address(options.get("syslog-address", ""))
    facility = options.get("syslog-facility", "") or "daemon"
    number = FACILITIES.get(facility, -1)
    if number < 0 and facility.isascii() and facility.isdigit():
        number = int(facility)
    if not 0 <= number <= 23:
        raise InvalidArgument("invalid syslog facility")
    form = options.get("syslog-format", "")
    if form not in FORMATS:
        raise InvalidArgument("Invalid syslog format")
    return {
        "network": network,
        "address": address,
        "facility": number,
        "format": form,
        "tag": tag,
        "tls": {
            "ca": options.get("syslog-tls-ca-cert", ""),
            "cert": options.get("syslog-tls-cert", ""),
            "key": options.get("syslog-tls-key", ""),
            "skip_verify": "syslog-tls-skip-verify" in options,
        },
    }


def _address(text: str) -> tuple[str, Any]:
    """(network, path or (host, port)); ("", "") for the host's own syslog."""
    if not text:
        return "", ""
    try:
        url = urlsplit(text)
        port = url.port or PORT
    except ValueError as error:
        raise InvalidArgument(f'parse "{clip(text)}": {error}') from None
    if url.scheme in ("unix", "unixgram"):
        if not os.path.exists(url.path):
            raise InvalidArgument(f"stat {clip(url.path)}: no such file or directory")
        return url.scheme, url.path
    if url.scheme not in ("udp", "tcp", "tcp+tls"):
        raise InvalidArgument(f"unsupported scheme: '{clip(url.scheme)}'")
    return url.scheme, (url.hostname or "localhost", port)
