"""Why a program could not be started, in the words that Docker's command line finds its exit code (126, 127) in."""

from __future__ import annotations

from corten.errors import StartFailed, clip

RESOLVE_USER = "resolve user"
"""The step of the runtime in which the names of users and groups are looked up."""


def start_refusal(error: StartFailed, program: str) -> str:
    """Of a whole container. Docker looks users and groups up itself, before its runtime is asked for anything."""
    said = refusal(error, program)
    if error.step == RESOLVE_USER:
        return said
    return f"failed to create task for container: failed to start container process: {said}"


def refusal(error: StartFailed, program: str) -> str:
    said = error.message
    lower = said.lower()
    if error.exit_code == 127 and "not found" not in lower and "no such file" not in lower:
        return f'exec: "{clip(program, 200)}": executable file not found in $PATH: {said}'
    if error.exit_code == 126 and "permission denied" not in lower and "is a directory" not in lower:
        return f'exec: "{clip(program, 200)}": permission denied: {said}'
    return said
