"""What callers of `create`, `run` and `exec` ask for beside the specification, and what they are sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corten.linux.scm import send_fds
from corten.runtime import protocol, steps
from corten.runtime.oci import inherited
from corten.runtime.oci.options import Options
from corten.runtime.plan import ExecPlan, LaunchPlan


@dataclass(frozen=True, slots=True)
class Wishes:
    """Paths are "" when not wanted. `listen_fds` and `preserve_fds` count descriptors, the former first."""

    bundle: Path
    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    listen_fds: int = 0
    preserve_fds: int = 0
    no_pivot: bool = False
    no_new_keyring: bool = False

    @classmethod
    def of(cls, options: Options) -> Wishes:
        """Raises InvalidArgument."""
        listen, preserve = inherited.count(options)
        return cls(
            bundle=Path(options.text("bundle", ".")).resolve(),
            console_socket=options.text("console-socket"),
            pidfd_socket=options.text("pidfd-socket"),
            pid_file=options.text("pid-file"),
            listen_fds=listen,
            preserve_fds=preserve,
            no_pivot=options.has("no-pivot"),
            no_new_keyring=options.has("no-new-keyring"),
        )

    @property
    def kept(self) -> int:
        return self.listen_fds + self.preserve_fds

    def environment(self) -> list[str]:
        return [f"LISTEN_FDS={self.listen_fds}", "LISTEN_PID=1"] if self.listen_fds else []

    def launch_plan(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan with what is wanted in it."""
        return replace(plan, steps=tuple(self._adapted(plan.steps)), keep_fds=self.kept)

    def exec_plan(self, plan: ExecPlan, enter: Sequence[str]) -> ExecPlan:
        return replace(plan, keep_fds=self.kept, enter=tuple(enter))

    def _adapted(self, planned: Sequence[steps.Step]) -> list[steps.Step]:
        found: list[steps.Step] = []
        for step in planned:
            if self.no_pivot and isinstance(step, steps.PivotRoot):
                found.append(steps.MoveRoot(step.propagation))
            elif not (self.no_new_keyring and isinstance(step, steps.NewKeyring)):
                found.append(step)
        return found


def send_console(path: str, console: int) -> None:
    """Give a pty's master to whoever listens at `path`, as runc's callers expect it, and close ours."""
    try:
        _send(path, b"/dev/pts/ptmx", console)
    finally:
        os.close(console)


def send_pidfd(path: str, pidfd: int, kind: bytes) -> None:
    """`kind` is b"standard" for a container's first process, b"setns" for a later one."""
    _send(path, kind, pidfd)


def _send(path: str, word: bytes, fd: int) -> None:
    short, anchor = protocol.near(os.path.abspath(path))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(short)
            send_fds(sock, word, [fd])
    finally:
        os.close(anchor)


def write_pid(path: str, pid: int) -> None:
    """Whole or not at all, as callers wait for the file. Links that somebody has put there are not followed."""
    temporary = Path(path).with_name(f".{Path(path).name}.{os.urandom(4).hex()}")
    with open(temporary, "x") as file:  # O_EXCL
        file.write(str(pid))
    temporary.rename(path)
