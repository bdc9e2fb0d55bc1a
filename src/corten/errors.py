"""The closed error taxonomy.

Code below `api` raises these (or lets an OSError through to the nearest service, which translates it);
`api/docker` maps each class to a status code in one function. A message is a complete sentence in Docker's wording
where clients match on it. Text that came from outside (a registry, an image, a container) is bounded by `clip` before
it enters one.
"""

from __future__ import annotations

MAX_FOREIGN_TEXT = 512


def clip(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Foreign text made safe for a message: control characters replaced, at most `limit` characters kept."""
    safe = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


class CortenError(Exception):
    """Base of every error that Corten raises on purpose."""

    @property
    def message(self) -> str:
        return str(self)


class InvalidArgument(CortenError):
    """The request makes no sense whatever the state (400). The caller is at fault; retrying does not help."""


class Unauthorized(CortenError):
    """Credentials are missing or wrong (401)."""


class Forbidden(CortenError):
    """The request is understood and refused (403)."""


class NotFound(CortenError):
    """The caller named something that does not exist (404)."""

    def __init__(self, kind: str, name: str, message: str = "") -> None:
        super().__init__(message or f"No such {kind}: {name}")
        self.kind, self.name = kind, name


class Conflict(CortenError):
    """The request does not fit the present state of what it names (409); it may later."""


class IllegalTransition(Conflict):
    """A life-cycle step that the present state does not allow."""

    def __init__(self, name: str, source: str, target: str, message: str = "") -> None:
        super().__init__(message or f"cannot bring {name} from {source} to {target}")
        self.name, self.source, self.target = name, source, target


class NotModified(CortenError):
    """The state that was asked for is there already (304)."""


class TooLarge(CortenError):
    """A body or a value is over its limit (413)."""


class NotImplementedYet(CortenError):
    """Part of the API that Corten does not serve (501); says which, and pretends nothing."""


class Unavailable(CortenError):
    """Something that is needed does not answer now (503): a registry, the spawner, the daemon shutting down."""


class SystemFault(CortenError):
    """The host failed us (500): a full disk, a kernel refusal. Carries the step and the errno where known."""

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step, self.errno = step, errno


class DataCorrupt(SystemFault):
    """Stored or received bytes are not what their digest says (500)."""


class StartFailed(CortenError):
    """The container's first process could not be started.

    `exit_code` is what Docker records for it: 127 for a command that is not there, 126 for one that cannot be run, 128
    for everything else. The API answers 400 for the first two and 500 for the last.
    """

    def __init__(self, message: str, *, step: str = "", errno: int = 0, exit_code: int = 128) -> None:
        super().__init__(message)
        self.step, self.errno, self.exit_code = step, errno, exit_code
