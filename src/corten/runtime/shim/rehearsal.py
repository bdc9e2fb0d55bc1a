"""A container's life, played through in the spawner before it forks the first shim.

What a process writes after a fork it has to itself: every page that a shim touches costs its 4 KiB. Code that has run
before is specialised already, the interpreter's caches of attributes are filled, and holes in the allocator's pages
are used up, so that shims write to fewer of the pages that they share. Measured with 3.12, 100 shims: 0.83 instead of
1.01 MiB each.
"""

from __future__ import annotations

import _socket
import os

from corten.runtime import cgroups, protocol
from corten.runtime.child.channel import EXEC
from corten.runtime.child.launch import HANDLERS
from corten.runtime.shim import signals
from corten.runtime.shim.embedded import Embedded
from corten.runtime.shim.main import Shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.runtime.child.context import Context

ROUNDS = 2  # fills the caches; ten, after which code is specialised too, save 30 KiB more and cost 40 ms of CPU


def rehearse(wire: bytes, directory: str) -> None:
    """Play the plan `wire` (plan.rehearsal), with `directory` for the files of its container and its control group.

    SIGCHLD has its default before and after.
    """
    layout = cgroups.host_layout()  # read once for all shims
    cgroups.use_layout(cgroups.Layout("", (cgroups.Hierarchy(("pids",), directory),)))
    HANDLERS["Rehearse"] = _say_a_word
    for _ in range(ROUNDS):
        _play(wire, directory)
        signals.unhang_bell()
    signals.restore(signals.SIGCHLD)
    os.unlink(f"{directory}/exit")
    del HANDLERS["Rehearse"]
    cgroups.use_layout(layout)


def _say_a_word(ctx: Context) -> None:
    """What stands for execve: all that the parent can see of it."""
    ctx.channel.send(EXEC)
    os.write(1, b"word\n")
    os._exit(0)


def _play(wire: bytes, directory: str) -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    client, stream = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    settings = {**_SETTINGS, "wire": wire, "run_dir": directory, "exit_file": f"{directory}/exit"}
    protocol.send(ours, (protocol.LAUNCH, settings), [stream.fileno()])
    stream.close()
    received = protocol.receive(theirs)
    assert received is not None
    (_, settings), fds = received
    shim = Shim(settings, Embedded(settings))
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
    "cgroup": "/rehearsal",
    "shared_pids": False,
    "terminal": False,
    "open_stdin": True,
    "stdin_once": True,
    "size": None,
    "log": ("json-file", "/dev/null", 0, 1, {}),
    "streams": [(True, True, True, False, b"", b"")],
}
