"""What a specification must not say, refused with the name of the member."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from corten.errors import InvalidArgument, clip
from corten.runtime import host_features
from corten.runtime.mount_options import ROOT_PROPAGATIONS
from corten.specs.oci_runtime import Linux, Process, Spec, encode

_MAX_NAME = 64  # linux/utsname.h: __NEW_UTS_LEN
OTHER_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")


def check(spec: Spec) -> None:
    """Raises InvalidArgument."""
    linux = spec.linux or Linux()
    if not spec.oci_version.startswith("1."):
        raise InvalidArgument(f"ociVersion {clip(spec.oci_version, 40)} is not a version 1 of the specification")
    for name in OTHER_PLATFORMS:
        if getattr(spec, name) is not None:
            raise InvalidArgument(f"{name} of the runtime specification is for another platform than linux")
    for name, text in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if len(text.encode()) > _MAX_NAME:
            raise InvalidArgument(f"{name} {clip(text, 80)} is longer than {_MAX_NAME} bytes")
    for name, paths in (("maskedPaths", linux.masked_paths), ("readonlyPaths", linux.readonly_paths)):
        for index, path in enumerate(paths):
            if not path.startswith("/"):
                raise InvalidArgument(f"linux.{name}[{index}] {clip(path)} is not an absolute path")
    if linux.intel_rdt is not None:
        why = "" if host_features.resctrl() else ": this host has no resctrl file system"
        raise InvalidArgument(f"linux.intelRdt of the runtime specification is not supported{why}")
    if linux.rootfs_propagation not in ROOT_PROPAGATIONS:
        raise InvalidArgument(
            f"linux.rootfsPropagation: rootfsPropagation {clip(linux.rootfs_propagation, 40)} is unknown"
        )
    check_text(spec)


def check_process(process: Process) -> None:
    """Raises InvalidArgument."""
    if process.command_line:
        raise InvalidArgument("process.commandLine is for another platform than linux")
    if not process.args or not process.args[0]:
        raise InvalidArgument("no command specified: process.args is empty")
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd: the working directory {clip(process.cwd)} is not an absolute path")
    for index, entry in enumerate(process.env):
        if entry.find("=") < 1:
            raise InvalidArgument(f"process.env[{index}] {clip(entry, 80)} is not a variable: it has no name or no =")
    score = process.oom_score_adj
    if score is not None and not -1000 <= score <= 1000:
        raise InvalidArgument(f"process.oomScoreAdj {score} is not from -1000 to 1000")
    if process.terminal and process.console_size is not None:
        size = process.console_size
        if not (0 <= size.height < 1 << 16 and 0 <= size.width < 1 << 16):
            raise InvalidArgument(f"process.consoleSize {size.height}x{size.width} is larger than a terminal can be")
    _check_user(process)


def _check_user(process: Process) -> None:
    user = process.user
    if user.umask is not None and not 0 <= user.umask <= 0o777:
        raise InvalidArgument(f"process.user.umask {user.umask:#o} is not from 0 to 0o777")
    # The last number of 32 bits means "none" to the kernel.
    for name, number in (
        ("uid", user.uid),
        ("gid", user.gid),
        *(("additionalGids", gid) for gid in user.additional_gids),
    ):
        if not 0 <= number < (1 << 32) - 1:
            raise InvalidArgument(f"process.user.{name} {number} is out of range")


def check_text(document: Spec | Process) -> None:
    """A zero byte ends a C string: the kernel would see another text than was checked. Raises InvalidArgument."""
    if b"\\u0000" in encode(document):  # rarely, so that the walk costs nothing
        root = "process." if isinstance(document, Process) else ""
        for name, text in _texts(msgspec.to_builtins(document), ""):
            if "\0" in text:
                raise InvalidArgument(f"{root}{name.lstrip('.')} has a zero byte in it")


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{name}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{name}, in a key", key
            yield from _texts(item, f"{name}.{key}")
