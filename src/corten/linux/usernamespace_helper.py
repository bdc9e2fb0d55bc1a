"""The helper of `usernamespace`, a program of its own: enter the namespaces, say so, stay until the input ends.

The argument is "new" for a user namespace of its own, else the path of the one to join. It answers with the number of
the error that kept it from that, 0 for none.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def main(target: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if target == "new":
            # The limits of its maker bound the sums over all processes of the namespace: they should be the host's.
            for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_SIGPENDING):
                ceiling = resource.getrlimit(limit)[1]
                resource.setrlimit(limit, (ceiling, ceiling))
            # Nobody in a chroot may make a user namespace: the mount namespace's own root is a way out of it.
            root = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            failed = library.setns(root, CLONE_NEWNS) or library.unshare(CLONE_NEWUSER | CLONE_NEWNET)
        else:
            fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            failed = library.setns(fd, CLONE_NEWUSER) or library.unshare(CLONE_NEWNET)
        code = ctypes.get_errno() if failed else 0
    except OSError as error:
        code = error.errno or 1
    os.write(1, b"%d\n" % code)
    os.read(0, 1)


if __name__ == "__main__":
    main(sys.argv[1])
