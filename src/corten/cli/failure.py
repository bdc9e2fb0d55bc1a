"""Errors of the client in words for the user."""

from __future__ import annotations

from corten.cli.errors import CliError
from corten.client.errors import ApiError, CannotConnect, ClientError


def describe(error: Exception) -> str | None:
    """The message for `error`; None when it is not one that a user can cause."""
    if isinstance(error, CannotConnect):
        return _cannot_connect(error)
    if isinstance(error, ApiError):
        return f"Error response from daemon: {error}"
    if isinstance(error, ClientError | CliError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def _cannot_connect(error: CannotConnect) -> str:
    text = f"cannot connect to the Corten daemon at {error.address}"
    if error.reason == "Permission denied":
        return (
            f"permission denied while trying to connect to the Corten daemon at {error.address}: "
            "be root, or of the group that owns the socket"
        )
    if not error.address.startswith("unix://"):
        return f"{text}: {error.reason}. Is cortend running and listening there?"
    return f"{text}. Is cortend running? Start it with: cortend (as root)"
