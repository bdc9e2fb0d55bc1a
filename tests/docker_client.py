"""Which docker command line is installed: Debian's are older than the one that Corten follows."""

from __future__ import annotations

import functools
import re
import subprocess


@functools.cache
def major_version() -> int:
    """20 for Docker 20.10."""
    told = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.", told)
    assert found, told
    return int(found[1])
