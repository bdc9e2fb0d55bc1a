"""The kernel's interfaces, as far as they need no privileges."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from corten.linux import capability, libc, memfd, openat2, process
from corten.linux.scm import recv_fds, send_fds


def test_an_unknown_architecture_or_call_raises() -> None:
    with pytest.raises(OSError, match="vax"):
        libc.number("pivot_root", "vax")
    with pytest.raises(OSError, match="nonsense"):
        libc.number("nonsense")
    assert libc.number("pivot_root", "x86_64") == 155
    assert libc.number("pivot_root", "aarch64") == 41
    assert libc.number("openat2", "aarch64") == libc.number("openat2", "x86_64") == 437


def test_failed_calls_carry_their_errno() -> None:
    with pytest.raises(OSError) as caught:
        process.setns(-1)
    assert caught.value.errno == 9


def test_a_sealed_copy_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"#!/bin/true\n" * 1000)
    fd = memfd.sealed_copy(str(tmp_path / "program"), "copy")
    try:
        assert Path(f"/proc/self/fd/{fd}").read_bytes() == (tmp_path / "program").read_bytes()
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 1 << 20)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


def test_descriptors_over_a_socket() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        reading, writing = os.pipe()
        send_fds(left, b"message", (reading, writing))
        data, fds = recv_fds(right, 100)
        assert data == b"message"
        assert len(fds) == 2
        assert not any(os.get_inheritable(fd) for fd in fds)
        os.write(fds[1], b"through")
        assert os.read(reading, 10) == b"through"
        for fd in (reading, writing, *fds):
            os.close(fd)


def test_a_message_too_long_is_an_error_and_keeps_no_descriptor() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with left, right:
        send_fds(left, b"x" * 100, (writing,))
        os.close(writing)
        with pytest.raises(OSError, match="too long"):
            recv_fds(right, 10)
    assert os.read(reading, 1) == b"", "nobody holds the other end"
    os.close(reading)


def test_paths_stay_in_their_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/passwd").symlink_to("/etc/passwd")
    root = os.open(tmp_path / "root", os.O_RDONLY)
    try:
        with pytest.raises(FileNotFoundError) as caught:
            openat2.open_in_root(root, "/passwd")
        assert caught.value.filename == "/passwd"
        with pytest.raises(OSError):
            openat2.openat2(root, "..", openat2.O_PATH, openat2.RESOLVE_BENEATH)
    finally:
        os.close(root)


def test_capabilities() -> None:
    assert capability.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capability.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert len(capability.NAMES) == 41
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines())
    assert capability.capget()[0] == int(fields["CapEff"], 16)


def test_a_clone_is_a_child_with_a_pidfd() -> None:
    """In a process of its own, as it must have one thread."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from corten.linux.process import clone3, pidfd_send_signal, pidfd_open\n"
        "pid, pidfd = clone3(0)\n"
        "if pid == 0: os._exit(5 if os.getppid() == int(sys.argv[2] or os.getppid()) else 6)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5\n"
        "try: pidfd_send_signal(pidfd, 0)\n"
        "except ProcessLookupError: print('gone', os.get_inheritable(pidfd))\n"
    )
    source = str(Path(__file__).resolve().parents[3] / "src")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, source, ""], capture_output=True, text=True)
    assert done.stdout == "gone False\n", done.stderr
