"""Making what exists in the spawner immortal, so that its forks share it for good.

CPython writes to an object whenever it is used: its reference count. In a fork each such write copies a page, until
hardly anything is shared. Since 3.12 an object whose count is a certain huge number is immortal (PEP 683): the
interpreter reads the count and writes nothing. It makes its own constants so; we do it to all that a shim inherits.
Measured with 3.12: 0.94 MB instead of 1.40 MB that a shim has to itself.

Nothing that is immortal is ever freed, which is what the spawner wants of its modules. On versions that work otherwise
(3.11, builds without the GIL, those to come) this does nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sys

KNOWN = ((3, 12), (3, 13), (3, 14))
_IMMORTAL = 0xFFFFFFFF  # Include/object.h of these: the lower half of the count is negative as a 32-bit number


def immortalise() -> int:
    """Do it to everything that can be reached; how many objects it was done to."""
    if not _works():
        return 0
    addresses = _reachable()
    for address in addresses:
        ctypes.c_uint32.from_address(address).value = _IMMORTAL
    return len(addresses)


def _works() -> bool:
    """Whether this interpreter keeps the count where we think, and leaves it alone."""
    if sys.version_info[:2] not in KNOWN or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    if sys.maxsize < 2**32 or hasattr(sys, "gettotalrefcount") or sys.byteorder != "little":
        return False
    probe = ["probe"]
    more = [probe, probe]
    if ctypes.c_uint32.from_address(id(probe)).value != sys.getrefcount(probe) - 1:
        return False
    ctypes.c_uint32.from_address(id(probe)).value = _IMMORTAL
    more.append(probe)
    return ctypes.c_uint32.from_address(id(probe)).value == _IMMORTAL


def _reachable() -> set[int]:
    """Addresses of all objects that the collector knows, and of what they refer to: strings, numbers, code."""
    seen: set[int] = set()
    pending = gc.get_objects()
    while pending:
        fresh = dict(zip(map(id, pending), pending, strict=True))
        for address in seen & fresh.keys():
            del fresh[address]
        seen.update(fresh)
        pending = gc.get_referents(*fresh.values())
    return seen
