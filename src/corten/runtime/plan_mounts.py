"""The mounts of a specification, as steps."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from corten.errors import InvalidArgument, clip
from corten.linux.mount import MOUNT_ATTR_RDONLY as RDONLY
from corten.runtime import plan_namespaces, steps
from corten.runtime.mount_options import MountOptions, parse
from corten.runtime.types import MountSpec
from corten.specs.oci_runtime import Mount

MountStep = steps.BindMount | steps.CgroupMount | steps.OverlayMount | steps.FileSystemMount


def compile_root(mount: MountSpec, target: str, *, remapped: bool) -> steps.Step:
    options = parse(mount.options)
    idmap = plan_namespaces.idmap_of("the root file system", options.idmap, (), (), remapped=remapped)
    if mount.type == "overlay":
        return _overlay(target, options, idmap)
    if options.bind or mount.type in ("bind", "none", ""):
        return steps.BindMount(mount.source, target, options.recursive or not options.bind, options.wire, idmap)
    _refuse_idmap(idmap, mount.type, target or "/")
    return steps.FileSystemMount(mount.type, mount.source, target, options.data, options.wire)


def _refuse_idmap(idmap: steps.Idmap, kind: str, target: str) -> None:
    if idmap:
        raise InvalidArgument(f"mounts: {clip(target)}: a fresh {clip(kind, 40)} cannot be idmapped")


def _overlay(target: str, options: MountOptions, idmap: steps.Idmap) -> steps.OverlayMount:
    data = dict(options.data)
    lower = data.pop("lowerdir", None) or ""
    upper, work = data.pop("upperdir", None) or "", data.pop("workdir", None) or ""
    return steps.OverlayMount(target, split_lower(lower), upper, work, tuple(data.items()), options.wire, idmap)


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


def compile_mount(mount: Mount, *, private_cgroup: bool, remapped: bool) -> MountStep:
    """`private_cgroup` and `remapped`: whether the container has cgroup and user namespaces."""
    target = posixpath.normpath("/" + mount.destination)
    if target in ("/", "//"):
        raise InvalidArgument("a mount must not be on the root")
    target = "/" + target.strip("/")
    options = parse(mount.options)
    idmap: steps.Idmap = ()
    if options.idmap or mount.uid_mappings or mount.gid_mappings:
        idmap = plan_namespaces.idmap_of(
            f"mounts: {clip(target)}", options.idmap, mount.uid_mappings, mount.gid_mappings, remapped=remapped
        )
    if options.bind or mount.type == "bind":
        if options.data:
            raise InvalidArgument(f'invalid mount option "{clip(options.data[0][0], 60)}" of a bind mount')
        return steps.BindMount(mount.source, target, options.recursive or not options.bind, options.wire, idmap)
    if mount.type == "overlay":
        return _overlay(target, options, idmap)
    _refuse_idmap(idmap, mount.type, target)
    if mount.type in ("cgroup", "cgroup2"):
        return steps.CgroupMount(target, options.wire, private_cgroup)
    if not mount.type:
        raise InvalidArgument(f"the mount on {clip(target)} has no type")
    return steps.FileSystemMount(mount.type, mount.source, target, options.data, options.wire)


def writable(step: MountStep) -> MountStep:
    """A tmpfs that shall be read-only is so last: until then nodes and mount points are made in it."""
    if isinstance(step, steps.FileSystemMount) and step.kind == "tmpfs" and step.attributes[0] & RDONLY:
        return replace(step, attributes=(step.attributes[0] & ~RDONLY, *step.attributes[1:]))
    return step
