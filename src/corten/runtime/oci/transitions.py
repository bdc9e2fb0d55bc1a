"""The states of the OCI runtime specification, and paused; which operation leads from where to where."""

from __future__ import annotations

from corten.errors import IllegalTransition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Status = Literal["creating", "created", "running", "paused", "stopped"]

# Files of a container's directory.
WAITING = "start.sock"  # is there as long as the container waits for its start
STARTING = "starting"  # and this while its startContainer hooks run

_LEGAL: dict[str, tuple[tuple[Status, ...], str]] = {
    "start": (("created",), "running"),
    "pause": (("created", "running"), "paused"),
    "resume": (("paused",), "running"),
    "exec in": (("created", "running"), "running"),
    "kill": (("created", "running", "paused"), "killed"),
    "delete": (("created", "stopped"), "deleted"),
}


def require(verb: str, name: str, status: Status) -> None:
    """Raise IllegalTransition unless `verb` may be done to a container in `status`."""
    sources, target = _LEGAL[verb]
    if status not in sources:
        # Callers of runc look for these words.
        start = "container not running: " if verb == "kill" else ""
        words = f"{start}cannot {verb} a container that is {status}: {name} cannot go from {status} to {target}"
        raise IllegalTransition(name, status, target, words)
