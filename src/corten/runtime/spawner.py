"""The spawner: an interpreter that is warm, and forks a shim for each container.

Run as `python -I -S -c BOOT` by `spawner_process`, from a sealed copy of the interpreter. It has imported all that a
shim needs and nothing more, has one thread, and keeps no state: killed at any moment it loses nothing but its warmth.
It ends when the daemon's end of its socket is closed. The shims are in sessions of their own and are not its concern.
"""

from __future__ import annotations

import _socket
import gc
import os

from corten.linux.process import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, prctl, set_command_line, set_process_name
from corten.linux.scm import recv_fds
from corten.runtime import protocol
from corten.runtime.immortal import immortalise
from corten.runtime.shim import signals
from corten.runtime.shim.main import run
from corten.runtime.shim.rehearsal import rehearse


def main(socket_fd: int, program_fd: int, directory: str) -> None:
    """Serve FORK requests on `socket_fd`, whose first message is the plan to rehearse.

    `program_fd` is what we were executed from; it is not needed any more. `directory` is one that we may write to.
    """
    os.close(program_fd)
    os.set_inheritable(socket_fd, False)
    # /proc/self/fd and /proc/self/exe are closed to others, to containers with our credentials too.
    prctl(PR_SET_DUMPABLE, 0)
    set_process_name("corten-spawner")
    set_command_line("corten-spawner")  # paths of the host are no business of the containers that see our forks
    # If a shim is killed its container's processes come to us, and are reaped; pid 1 may be slow to do it.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.chdir("/")
    os.umask(0o022)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, socket_fd)
    rehearse(sock.recv(protocol.PACKET), directory)
    # The shims inherit these: only SIGKILL parts them from their container. And the kernel reaps the shims.
    signals.ignore((*signals.IGNORED, signals.SIGCHLD))
    gc.collect()
    immortalise()
    gc.freeze()  # the collector never writes into the pages that the shims share with us
    while True:
        data, fds = recv_fds(sock, 16, 1)
        if not data:
            return
        if data != protocol.FORK or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            continue
        if os.fork() == 0:
            sock.close()
            run(fds[0])
        os.close(fds[0])
