"""`--storage-opt`: how large a container's writable layer may become."""

from __future__ import annotations

import re
from collections.abc import Mapping

from corten.errors import InvalidArgument, clip

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])?i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_REFUSED = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"


def limit(options: Mapping[str, str] | None, *, quotas: bool) -> int:
    """Bytes; 0 for no limit. `quotas` is whether the storage can hold to one. Raises InvalidArgument as Docker does."""
    asked = {name.lower(): value for name, value in (options or {}).items()}
    if "size" in asked and not quotas:
        raise InvalidArgument(_REFUSED)
    for name in asked:
        if name != "size":
            raise InvalidArgument(f"Unknown option {clip(name, 80)}")
    return _bytes(asked["size"]) if "size" in asked else 0


def _bytes(text: str) -> int:
    """Of "512", "64m", "1.5 GiB": powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{clip(text, 40)}'")
    return int(float(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()])
