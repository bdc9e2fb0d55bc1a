"""`corten system install`: the daemon becomes a service of systemd; completion and manual pages where shells look."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from corten.cli.commands.manual import write_pages
from corten.cli.completion import SCRIPTS
from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.manual import pages

UNITS = "etc/systemd/system"
MANUALS = "usr/local/share/man/man1"
_COMPLETIONS = {
    "bash": "usr/local/share/bash-completion/completions/corten",
    "fish": "usr/local/share/fish/vendor_completions.d/corten.fish",
    "zsh": "usr/local/share/zsh/site-functions/_corten",
}
_SERVICE = """\
[Unit]
Description=Corten, a container platform
Wants=network-online.target
After=network-online.target nss-lookup.target cortend.socket
Requires=cortend.socket

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
# Containers outlive the daemon: their shims stay when it stops, and are found again.
KillMode=process
# The control groups below this one are not systemd's.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""
_SOCKET = """\
[Unit]
Description=The API of Corten, a container platform

[Socket]
ListenStream={path}
SocketMode=0660
SocketUser=root
SocketGroup={group}

[Install]
WantedBy=sockets.target
"""
NAMES = ("cortend.socket", "cortend.service")


def _install(context: Context, options: Options) -> None:
    root = options["root"]
    running = root == "/" and os.path.isdir("/run/systemd/system")
    if options["remove"]:
        if running:
            _systemctl("disable", "--now", *reversed(NAMES), fail=False)
        for path in _paths(root):
            if os.path.lexists(path):
                os.unlink(path)
        if running:
            _systemctl("daemon-reload")
        return
    files = _files(options["socket"], options["group"], options.args)
    for name, text in files.items():
        _write(os.path.join(root, name), text)
    write_pages(os.path.join(root, MANUALS))
    if not running:
        say(
            f"Wrote {' and '.join(NAMES)} below {os.path.join(root, UNITS)}, and started nothing: no systemd runs here."
        )
        return
    _systemctl("daemon-reload")
    if options["no-start"]:
        say(f"Wrote {' and '.join(NAMES)}. Start them with: systemctl enable --now {' '.join(NAMES)}")
        return
    _systemctl("enable", *NAMES)
    _systemctl("stop", "cortend.service")  # one that runs already; its containers go on running
    _systemctl("restart", "cortend.socket")
    _systemctl("start", "cortend.service")
    say(f"Corten runs, and will after a restart of the machine. It answers on unix://{options['socket']}")


def _files(socket: str, group: str, words: list[str]) -> dict[str, str]:
    """Text by path below the root. Raises CliError."""
    command = shlex.join([_daemon(), "-H", "fd://", *words])
    return {
        f"{UNITS}/cortend.service": _SERVICE.format(command=command.replace("%", "%%").replace("$", "$$")),
        f"{UNITS}/cortend.socket": _SOCKET.format(path=socket, group=group or _docker_group()),
        **{path: SCRIPTS[shell] for shell, path in _COMPLETIONS.items()},
    }


def _paths(root: str) -> list[str]:
    from corten.cli.main import GLOBAL_FLAGS, load

    units = [f"{UNITS}/{name}" for name in NAMES]
    manuals = [f"{MANUALS}/{name}" for name, _ in pages(GLOBAL_FLAGS, load)]
    return [os.path.join(root, path) for path in (*units, *_COMPLETIONS.values(), *manuals)]


def _daemon() -> str:
    """The program beside ours, of the same installation."""
    for beside in (os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.argv[0]))):
        path = os.path.join(beside, "cortend")
        if os.access(path, os.X_OK):
            return path
    raise CliError("cortend is not beside corten: install both with pip")


def _docker_group() -> str:
    import grp

    try:
        return grp.getgrnam("docker").gr_name
    except KeyError:
        return "root"


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from None


def _systemctl(*words: str, fail: bool = True) -> None:
    done = subprocess.run(["systemctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode and fail:
        raise CliError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}")


INSTALL = Command(
    "system install",
    "[OPTIONS] [-- CORTEND-OPTION...]",
    _install,
    (
        Flag("group", "", "string", "Group that may use the socket (default docker where it exists, else root)"),
        Flag("no-start", "", "bool", "Write the units, but start nothing"),
        Flag("remove", "", "bool", "Stop the daemon and take everything away again; containers and data stay"),
        Flag("root", "", "string", "Write below this folder, as for a package", default="/", says="folder"),
        Flag("socket", "", "string", "Where the API is served", default="/run/corten/corten.sock", says="path"),
    ),
)
