"""The mounts of a specification, as steps."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from corten.errors import InvalidArgument, clip
from corten.linux.mount import MOUNT_ATTR_RDONLY as RDONLY
from corten.runtime import host_features, plan_namespaces, steps
from corten.runtime.mount_options import MountOptions, parse
from corten.runtime.types import MountSpec
from corten.specs.oci_runtime import Mount

MountStep = (
    steps.BindMount
    | steps.CgroupMount
    | steps.OverlayMount
    | steps.FileSystemMount
    | steps.CopyUpMount
    | steps.LegacyMount
    | steps.Remount
)

# What bind mounts do not have; the opposites of these words are what is so anyway.
_OF_FILE_SYSTEMS = frozenset(("sync", "dirsync", "lazytime", "mand", "iversion"))
# These have labels of their own making, or none (SELinux genfs and per-object labels).
_NOT_LABELLED = frozenset(("proc", "sysfs", "mqueue", "cgroup", "cgroup2"))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the mounts of one container have in common: where relative sources begin, the SELinux label of fresh file
    systems, and whether it has cgroup and user namespaces."""

    bundle: str
    label: str
    private_cgroup: bool
    remapped: bool


def compile_root(mount: MountSpec, target: str, *, remapped: bool) -> steps.Step:
    options = parse(mount.options)
    idmap = plan_namespaces.idmap_of("the root file system", options.idmap, (), (), remapped=remapped)
    if mount.type == "overlay":
        return _overlay(target, options, idmap)
    if options.bind or mount.type in ("bind", "none", ""):
        return steps.BindMount(mount.source, target, options.recursive or not options.bind, options.wire, idmap)
    _refuse_idmap(idmap, mount.type, target or "/")
    data = (*options.data, *_switches(options))
    return steps.FileSystemMount(mount.type, mount.source, target, data, options.wire)


def compile_all(mounts: Sequence[Mount], around: Surroundings) -> list[MountStep]:
    """The steps of a specification's mounts. Raises InvalidArgument that names the one at fault."""
    compiled: list[MountStep] = []
    for index, mount in enumerate(mounts):
        try:
            compiled.append(_compile(mount, around))
        except InvalidArgument as error:
            raise InvalidArgument(f"mounts[{index}]: {error}") from None
    return compiled


def warnings(mounts: Sequence[Mount]) -> Iterator[str]:
    """What is done differently than the words say."""
    for index, mount in enumerate(mounts):
        if not mount.destination.startswith("/"):
            yield f"mounts[{index}].destination {clip(mount.destination)} is relative; it was taken from /"
        lost = [word for word in mount.options if word in _OF_FILE_SYSTEMS]
        if lost and (mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options):
            yield f"mounts[{index}]: {', '.join(lost)} has no effect on a bind mount: it is the file system's"


def _refuse_idmap(idmap: steps.Idmap, kind: str, target: str) -> None:
    if idmap:
        raise InvalidArgument(f"{clip(target)}: a fresh {clip(kind, 40)} cannot be idmapped")


def _overlay(target: str, options: MountOptions, idmap: steps.Idmap) -> steps.OverlayMount:
    data = dict(options.data)
    lower = data.pop("lowerdir", None) or ""
    upper, work = data.pop("upperdir", None) or "", data.pop("workdir", None) or ""
    return steps.OverlayMount(
        target, split_lower(lower), upper, work, (*data.items(), *_switches(options)), options.wire, idmap
    )


def split_lower(text: str) -> tuple[str, ...]:
    """The directories of an overlay's `lowerdir`; a colon or backslash in a name is escaped by a backslash."""
    found, current, escaped = [], "", False
    for character in text:
        if escaped or character not in "\\:":
            current, escaped = current + character, False
        elif character == "\\":
            escaped = True
        else:
            found.append(current)
            current = ""
    return tuple(part for part in (*found, current) if part)


def _compile(mount: Mount, around: Surroundings) -> MountStep:
    target = posixpath.normpath("/" + mount.destination)
    if target in ("/", "//"):
        raise InvalidArgument("a mount must not be on the root")
    target = "/" + target.strip("/")
    options = parse(mount.options)
    if options.copy_up and (mount.type != "tmpfs" or options.bind or options.remount):
        raise InvalidArgument("mount option tmpcopyup is for a tmpfs")
    idmap: steps.Idmap = ()
    if options.idmap or mount.uid_mappings or mount.gid_mappings:
        idmap = plan_namespaces.idmap_of(
            clip(target), options.idmap, mount.uid_mappings, mount.gid_mappings, remapped=around.remapped
        )
    if options.remount:
        _refuse_idmap(idmap, "remount", target)
        return _remount(target, options)
    if options.bind or mount.type == "bind":
        return _bind(mount, target, options, around, idmap)
    if mount.type == "overlay":
        return _overlay(target, options, idmap)
    _refuse_idmap(idmap, mount.type, target)
    if target == "/proc" and mount.type != "proc":
        raise InvalidArgument('"/proc" cannot be mounted because it is not of type proc')
    if mount.type in ("cgroup", "cgroup2"):
        _refuse_data(options, "cgroup")
        return steps.CgroupMount(target, options.wire, around.private_cgroup)
    if not mount.type:
        raise InvalidArgument(f"the mount on {clip(target)} has no type")
    return _fresh(mount, target, options, around)


def _bind(
    mount: Mount, target: str, options: MountOptions, around: Surroundings, idmap: steps.Idmap
) -> steps.BindMount:
    _refuse_data(options, "bind")
    if not mount.source:
        raise InvalidArgument(f"the bind mount on {clip(target)} has no source")
    source = os.path.join(around.bundle, mount.source)
    return steps.BindMount(source, target, options.recursive or not options.bind, options.wire, idmap)


def _refuse_data(options: MountOptions, kind: str) -> None:
    """Such a mount shows a file system that is mounted already: there is nobody to take these words."""
    if options.data:
        raise InvalidArgument(f'invalid mount option "{clip(options.data[0][0], 60)}" of a {kind} mount')


def _remount(target: str, options: MountOptions) -> steps.Remount:
    """With "bind" it is about the mount alone, as for mount(8)."""
    if options.flags:
        raise InvalidArgument("mount option iversion cannot be changed by remounting")
    if options.bind:
        _refuse_data(options, "bind")
        return steps.Remount(target, (), options.wire)
    return steps.Remount(target, (*options.data, *_switches(options)), options.wire)


def _fresh(mount: Mount, target: str, options: MountOptions, around: Surroundings) -> MountStep:
    data = (*options.data, *_switches(options))
    attributes = _of_one_mount(options)
    if around.label and mount.type not in _NOT_LABELLED:
        data = (*data, ("context", around.label))
    if options.copy_up:
        if options.flags:
            raise InvalidArgument("mount option iversion is not for a tmpfs with tmpcopyup")
        return steps.CopyUpMount(mount.source, target, data, attributes)
    if options.flags:
        return steps.LegacyMount(mount.type, mount.source, target, options.flags, data, attributes)
    return steps.FileSystemMount(mount.type, mount.source, target, data, attributes)


def _of_one_mount(options: MountOptions) -> steps.Attributes:
    """Nothing is below a fresh mount: what holds for the whole tree holds for it."""
    own, recursive = options.attributes, options.recursive_attributes
    return (own & ~options.recursive_cleared | recursive, options.cleared, 0, 0, options.propagation)


def _switches(options: MountOptions) -> steps.Data:
    return tuple((word, None) for word in options.superblock)


def checked_label(label: str) -> str:
    """linux.mountLabel. Raises InvalidArgument where there is no SELinux to make sense of it."""
    if label and not host_features.selinux():
        raise InvalidArgument("linux.mountLabel: selinux is not enabled on this host")
    return label


def writable(step: MountStep) -> MountStep:
    """A tmpfs that shall be read-only is so last: until then nodes and mount points are made in it."""
    tmpfs = isinstance(step, steps.CopyUpMount) or (isinstance(step, steps.FileSystemMount) and step.kind == "tmpfs")
    if tmpfs and step.attributes[0] & RDONLY:
        return replace(step, attributes=(step.attributes[0] & ~RDONLY, *step.attributes[1:]))
    return step
