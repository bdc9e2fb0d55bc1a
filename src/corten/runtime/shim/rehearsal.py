"""A container's life, played through in the spawner before it forks the first shim.

What a process writes after a fork it has to itself: every page that a shim touches costs its 4 KiB. Code that has run
before is specialised already, the interpreter's caches of attributes are filled, and holes in the allocator's pages
are used up, so that shims write to fewer of the pages that they share. Measured in docs/design.
"""

from __future__ import annotations

import _socket
import os

from corten.linux.process import pidfd_open
from corten.runtime import protocol
from corten.runtime.cgroups import host_layout
from corten.runtime.shim import signals
from corten.runtime.shim.main import Shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.runtime.shim.process import Process

ROUNDS = 10  # CPython specialises a function in its ninth call


class Extra:
    """Stands in for a runtime: its container is a process that says a word and ends."""

    external = False

    def launch(self, process: Process) -> list[str]:
        pid = os.fork()
        if pid == 0:
            os.write(process.stdio.child_fds[1], b"word\n")
            os._exit(0)
        process.started(pid, pidfd_open(pid))
        return []

    def exec(self, process: Process, init: Process, settings: dict[str, Any]) -> None:
        self.launch(process)

    def take_console(self) -> int:
        return -1

    def signal(self, process: Process, signo: int) -> None:
        process.signal(signo)

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def ended(self) -> bool:
        return False

    def clean_up(self) -> None:
        return


def rehearse(directory: str) -> None:
    """Play, with `directory` for the files of a container. SIGCHLD has its default before and after."""
    host_layout()  # read once for all shims
    for _ in range(ROUNDS):
        _play(directory)
        signals.unhang_bell()
    signals.restore(signals.SIGCHLD)
    os.unlink(f"{directory}/exit")


def _play(directory: str) -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    client, stream = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    settings = {**_SETTINGS, "run_dir": directory, "exit_file": f"{directory}/exit"}
    protocol.send(ours, (protocol.LAUNCH, settings), [stream.fileno()])
    stream.close()
    received = protocol.receive(theirs)
    assert received is not None
    (_, settings), fds = received
    shim = Shim(settings, Extra())
    shim.control.adopt(theirs)
    shim.launch(fds)
    client.send(b"input")
    client.close()
    protocol.send(ours, (protocol.REQUEST, 1, protocol.SIGNAL, "", 0))
    ours.close()  # with nobody to tell, it leaves when its process has ended
    shim.run()
    shim.close()


_SETTINGS: dict[str, Any] = {
    "id": "0" * 64,
    "terminal": False,
    "open_stdin": True,
    "stdin_once": True,
    "size": None,
    "log": ("json-file", "/dev/null", 0, 1),
    "streams": [(True, True, True, False, b"", b"")],
}
