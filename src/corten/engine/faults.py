"""The host's refusals as the engine's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from corten.errors import SystemFault


@contextmanager
def host_fault(step: str) -> Iterator[None]:
    """An OSError inside becomes a SystemFault that names the step, the file where there is one, and the errno."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        raise SystemFault(f"{step}:{where} {reason}".replace(":  ", ": "), step=step, errno=error.errno or 0) from error
