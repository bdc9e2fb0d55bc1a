"""What the host's kernel has switched on, as far as a specification can ask for it."""

from __future__ import annotations

from pathlib import Path


def apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        return False


def selinux() -> bool:
    return Path("/sys/fs/selinux/enforce").exists()


def resctrl() -> bool:
    """Whether the processor's caches and memory bandwidth can be shared out (resctrl file system)."""
    return Path("/sys/fs/resctrl/schemata").exists()
