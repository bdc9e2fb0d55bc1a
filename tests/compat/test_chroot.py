"""A daemon started in a chroot, as on a half-installed machine: containers must not reach the root that it was shut
off from.
"""

from __future__ import annotations

import sys

from tests.compat.harness import Daemon, Host, busybox_tar

# All of the host but its top folder, in a mount namespace that goes with the script. The chroot's own root is no mount
# point: that is the case in which pivot_root alone leaves the host's root above the container's.
SCRIPT = """
set -e
jail=$1; shift
for name in $(ls -A /); do
    [ -d "/$name" ] || continue
    if [ -L "/$name" ]; then
        cp -a "/$name" "$jail/$name"
    else
        mkdir "$jail/$name"
        mount --rbind "/$name" "$jail/$name"
    fi
done
touch "$jail/in-the-jail"
exec chroot "$jail" "$@"
"""


class JailedDaemon(Daemon):
    """As Daemon, in a chroot below the host's place."""

    def command(self) -> list[str]:
        jail = self.host.place / "jail"
        jail.mkdir(exist_ok=True)
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh", str(jail), *super().command()]


def test_containers_of_a_daemon_in_a_chroot() -> None:
    host = Host()
    daemon = JailedDaemon(host)
    try:
        daemon.start()
        daemon.ok("import", str(busybox_tar(host.place / "busybox.tar")), "busybox:latest")
        daemon.ok("run", "-d", "--name", "jailed", "busybox", "sleep", "100")
        inside = daemon.ok("exec", "jailed", "ls", "/").split()
        assert "in-the-jail" not in inside
        assert "usr" not in inside
        assert daemon.ok("exec", "jailed", "sh", "-c", "ps | wc -l") == "5"
        # The classic way out needs CAP_SYS_CHROOT, which containers have.
        escape = "mkdir /x; chroot /x /nothing 2>/dev/null; cd /; ls /../../.."
        assert daemon.ok("run", "--rm", "busybox", "sh", "-c", escape).split() == sorted([*inside, "x"])
        daemon.ok("rm", "-f", "jailed")
    finally:
        daemon.stop()
        host.run(sys.executable, "-m", "corten.daemon.main", "--cleanup", *daemon.roots)
        host.close()
