"""The initial file system of the test machine: busybox, the modules for its disk, and a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# What must be loaded to see the disk; the rest is udev's work, as on any Debian.
DISK = ("virtio_pci", "virtio_blk", "ext4")
APPLETS = ("sh", "insmod", "mount", "switch_root", "grep", "poweroff")
# With `corten.probe` the machine only shows that it boots: how an accelerator is tried.
SCRIPT = """
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
if grep -q corten.probe /proc/cmdline; then
    echo alive > /dev/ttyS1
    poweroff -f
fi
mount -t ext4 /dev/vda /root || echo "the disk cannot be mounted"
mount --move /dev /root/dev
mount --move /proc /root/proc
exec switch_root /root /sbin/init
"""


def initial_file_system(root: Path, kernel: str) -> bytes:
    """A cpio archive for the kernel of version `kernel`, from the Debian system at `root`."""
    return b"".join(_entries(root, modules_for(DISK, root / "lib/modules" / kernel)))


def modules_for(names: tuple[str, ...], modules: Path) -> dict[str, Path]:
    """File name → path of the named modules and of what they need, in the order of loading.

    A name without a module is built into the kernel, or absent: the machine says so when it finds no disk.
    """
    needed: dict[str, Path] = {}
    for name in names:
        for line in (modules / "modules.dep").read_text().splitlines():
            path, _, before = line.partition(":")
            if Path(path).name.partition(".")[0].replace("-", "_") == name:
                for module in (*reversed(before.split()), path):
                    needed.setdefault(Path(module).name, modules / module)
    return needed


def _entries(root: Path, modules: dict[str, Path]) -> Iterator[bytes]:
    script = ["#!/bin/sh", *(f"insmod /{name}" for name in modules), SCRIPT]
    for directory in ("bin", "dev", "proc", "root"):
        yield entry(directory, 0o040755)
    yield entry("bin/busybox", 0o100755, (root / "bin/busybox").read_bytes())
    for applet in APPLETS:
        yield entry(f"bin/{applet}", 0o120777, b"busybox")
    for name, path in modules.items():
        yield entry(name, 0o100644, path.read_bytes())
    yield entry("init", 0o100755, "\n".join(script).encode())
    yield entry("TRAILER!!!", 0)


def entry(name: str, mode: int, data: bytes = b"") -> bytes:
    """One file of an archive in cpio's "newc" format."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
