"""The one translation of Corten's errors into HTTP."""

from __future__ import annotations

from corten.errors import (
    Conflict,
    CortenError,
    Forbidden,
    InvalidArgument,
    NotFound,
    NotImplementedYet,
    NotModified,
    StartFailed,
    TooLarge,
    Unauthorized,
    Unavailable,
)

# First match wins; a subclass stands before its base. What is not named here is the host's fault: 500.
_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (InvalidArgument, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (NotModified, 304),
    (TooLarge, 413),
    (NotImplementedYet, 501),
    (Unavailable, 503),
)


class PageNotFound(CortenError):
    """No operation lives at this method and path (404)."""

    def __init__(self) -> None:
        super().__init__("page not found")


def http_status(error: BaseException) -> int:
    """The status code of `error`: Docker's for the class, 500 for everything that is nobody's request's fault."""
    if isinstance(error, PageNotFound):
        return 404
    if isinstance(error, StartFailed):
        return 400 if error.exit_code in (126, 127) else 500
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def http_message(error: BaseException) -> str:
    """What the client is told: our own errors whole, the host's without its Python dressing."""
    if isinstance(error, CortenError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    return f"internal error: {type(error).__name__}"
