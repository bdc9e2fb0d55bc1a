"""Why a process could not be started."""

from __future__ import annotations

import errno as codes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NOT_FOUND = 127
NOT_EXECUTABLE = 126
OTHER = 128


class ChildFailed(Exception):
    """A step between fork and execve failed; nothing of the process is left.

    `exit_code` is what Docker records: 127 for a command that does not exist, 126 for one that cannot be run, 128 for
    everything else. `detail` is the sentence for the user.
    """

    def __init__(self, step: str, errno: int, detail: str, exit_code: int = OTHER) -> None:
        super().__init__(step, errno, detail, exit_code)
        self.step, self.errno, self.detail, self.exit_code = step, errno, detail, exit_code

    def __str__(self) -> str:
        return self.detail


def fail(step: str, error: OSError, what: str, exit_code: int = OTHER) -> NoReturn:
    """Raise ChildFailed for a failed call: "what: permission denied"."""
    code = error.errno or codes.EIO
    raise ChildFailed(step, code, f"{what}: {reason(error)}", exit_code) from None


def reason(error: OSError) -> str:
    """The kernel's reason as Go spells it, in lower case: Docker's clients match on these words."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
