"""What a request can end in. `ApiError` carries the daemon's own sentence; the others say what happened on the way."""

from __future__ import annotations


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""

    @property
    def message(self) -> str:
        return str(self)


class BadEndpoint(ClientError):
    """The address of the daemon cannot be understood. The caller is at fault."""


class CannotConnect(ClientError):
    """Nothing answers at `address`. `reason` is the system's own word for it."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to {address}: {reason}")
        self.address, self.reason = address, reason


class ConnectionLost(ClientError):
    """The daemon closed the connection in the middle of an answer."""


class ProtocolError(ClientError):
    """The daemon's answer is not HTTP/1.1 as it is written."""


class StreamError(ClientError):
    """A progress stream ended in an error message of the daemon's."""


class ApiError(ClientError):
    """The daemon refused: `status` is its HTTP status, the message its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFound(ApiError):
    """404: what the request names does not exist."""


class Conflict(ApiError):
    """409: the state does not allow it."""


def api_error(status: int, message: str) -> ApiError:
    """The narrowest class for `status`."""
    if status == 404:
        return NotFound(status, message)
    if status == 409:
        return Conflict(status, message)
    return ApiError(status, message)
