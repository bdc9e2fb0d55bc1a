"""The host's refusals as SystemFault, in Go's wording, which Docker's clients know."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from corten.errors import SystemFault

_GO_WORDS = {
    errno.ENOSPC: "no space left on device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EIO: "input/output error",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOENT: "no such file or directory",
}


def words(number: int) -> str:
    """What Go says for this errno."""
    return _GO_WORDS.get(number) or os.strerror(number).lower()


def fault(step: str, error: OSError) -> SystemFault:
    """`error`, which happened while doing `step`, as the error that the API answers."""
    number = error.errno or 0
    where = f" {error.filename}" if isinstance(error.filename, str) else ""
    return SystemFault(f"{step}{where}: {words(number) if number else error}", step=step, errno=number)


@contextmanager
def host(step: str) -> Iterator[None]:
    """Within it, an OSError becomes a SystemFault that names `step`."""
    try:
        yield
    except OSError as error:
        raise fault(step, error) from error
