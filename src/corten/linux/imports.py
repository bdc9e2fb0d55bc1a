"""No module is looked for in a container."""

from __future__ import annotations

import sys

_IN_MEMORY = ("BuiltinImporter", "FrozenImporter")


def seal_imports() -> None:
    """Before "/" becomes the container's: an import that reads files would run the image's code with all of our rights.

    That was CVE-2019-14271: a helper in the container's root loaded its libraries from there. What is needed has been
    imported already; whatever else asks for a module (an unknown codec does) is told that there is none.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") in _IN_MEMORY]
