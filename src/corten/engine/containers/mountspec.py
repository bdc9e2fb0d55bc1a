"""Binds (`-v`), mounts (`--mount`) and an image's volumes, parsed into what is to be mounted. Looks at no file."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from corten.engine.spec.mounts import PROPAGATIONS
from corten.errors import InvalidArgument, clip
from corten.specs.container import ContainerConfig, HostConfig, Mount, VolumeOptions

_ACCESS = {"ro": False, "rw": True}
_IGNORED_ON_LINUX = {"consistent", "cached", "delegated"}


@dataclass(frozen=True, slots=True)
class Wish:
    """A mount as asked for. `source` is a host path for a bind, a volume's name ("" for an anonymous one), an image.

    `deep_read_only` is whether a read-only bind covers what is mounted below it: None where the host can.
    `create_source` makes a missing host folder, as `-v` does; `--mount` refuses. `tmpfs` are its options.
    """

    type: str
    destination: str
    source: str = ""
    rw: bool = True
    mode: str = ""
    propagation: str = ""
    create_source: bool = False
    copy: bool = True
    non_recursive: bool = False
    deep_read_only: bool | None = None
    driver: str = "local"
    driver_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    subpath: str = ""
    tmpfs: tuple[str, ...] = ()


def wishes(config: ContainerConfig, host_config: HostConfig) -> list[Wish]:
    """All mounts, in Docker's order; image volumes only where nothing else is mounted.

    Raises InvalidArgument in Docker's words, for two mounts in one place too.
    """
    asked = [parse_bind(text, host_config.volume_driver) for text in host_config.binds or []]
    asked += [parse_mount(mount) for mount in host_config.mounts or []]
    tmpfs = [_clean_tmpfs(target) for target in host_config.tmpfs or {}]
    _refuse_duplicates([*(wish.destination for wish in asked), *tmpfs])
    taken = {wish.destination for wish in asked} | set(tmpfs)
    for target in config.volumes or {}:
        destination = clean(target, target)
        if destination not in taken:
            asked.append(Wish("volume", destination, driver=host_config.volume_driver or "local"))
    return asked


def clean(destination: str, spec: str) -> str:
    """An absolute path inside the container, normalised. Raises InvalidArgument."""
    if not destination.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{clip(spec, 200)}': invalid mount config for type \"volume\": "
            f"invalid mount path: '{clip(destination, 200)}' mount path must be absolute"
        )
    normal = posixpath.normpath("/" + destination.lstrip("/"))
    if normal == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{clip(spec, 200)}': invalid specification: destination can't be '/'"
        )
    return normal


def _clean_tmpfs(destination: str) -> str:
    if not destination.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{clip(destination, 200)}' mount path must be absolute")
    return clean(destination, destination)


def parse_bind(spec: str, driver: str = "") -> Wish:
    """One `-v`: [source:]destination[:mode]."""
    parts = spec.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{clip(spec, 200)}'")
    if len(parts) == 2 and _is_mode(parts[1]):
        parts = ["", parts[0], parts[1]]
    source, destination, mode = (["", *parts, ""] if len(parts) == 1 else [*parts, ""])[:3]
    is_bind = source.startswith("/")
    rw, propagation, copy = _mode(mode, is_bind)
    return Wish(
        type="bind" if is_bind else "volume",
        destination=clean(destination, spec),
        source=posixpath.normpath(source) if is_bind else source,
        rw=rw,
        mode=mode,
        propagation=(propagation or "rprivate") if is_bind else "",
        create_source=is_bind,
        copy=copy,
        driver=driver or "local",
    )


def _is_mode(text: str) -> bool:
    known = {*_ACCESS, *_IGNORED_ON_LINUX, "z", "Z", "nocopy"} | PROPAGATIONS
    return all(word in known for word in text.split(","))


def _mode(mode: str, is_bind: bool) -> tuple[bool, str, bool]:
    """(writable, propagation, copy-up); each kind of word may appear once."""
    rw, propagation, copy = True, "", True
    seen: set[str] = set()
    for word in filter(None, mode.split(",")):
        if word in _ACCESS:
            kind, rw = "access", _ACCESS[word]
        elif word in PROPAGATIONS and is_bind:
            kind, propagation = "propagation", word
        elif word in ("z", "Z"):
            kind = "label"  # means something to SELinux only, and nothing on a host without it
        elif word == "nocopy" and not is_bind:
            kind, copy = "copy", False
        elif word in _IGNORED_ON_LINUX and is_bind:
            kind = "consistency"
        else:
            raise _bad_mode(mode)
        if kind in seen:
            raise _bad_mode(mode)
        seen.add(kind)
    return rw, propagation, copy


def _bad_mode(mode: str) -> InvalidArgument:
    return InvalidArgument(f"invalid mode: {clip(mode, 80)}")


def parse_mount(mount: Mount) -> Wish:
    """One `--mount`."""
    if not mount.target:
        raise _bad(mount, "field Target must not be empty")
    if not mount.target.startswith("/"):
        raise _bad(mount, f"invalid mount path: '{clip(mount.target, 200)}' mount path must be absolute")
    destination = posixpath.normpath("/" + mount.target.lstrip("/"))
    if destination == "/":
        raise _bad(mount, "invalid specification: destination can't be '/'")
    if mount.type == "bind":
        return _bind(mount, destination)
    if mount.type == "volume":
        return _volume(mount, destination)
    if mount.type == "tmpfs":
        return _tmpfs(mount, destination)
    if mount.type == "image":
        return _image(mount, destination)
    raise InvalidArgument(f'invalid mount config for type "{clip(mount.type, 40)}": mount type unknown')


def _bind(mount: Mount, destination: str) -> Wish:
    options = mount.bind_options
    if not mount.source:
        raise _bad(mount, "field Source must not be empty")
    if not mount.source.startswith("/"):
        raise _bad(mount, f"invalid mount path: '{clip(mount.source, 200)}' mount path must be absolute")
    if mount.volume_options is not None:
        raise _bad(mount, "field VolumeOptions must not be specified")
    propagation = options.propagation if options else ""
    if propagation and propagation not in PROPAGATIONS:
        raise _bad(mount, f"invalid propagation mode: {clip(propagation, 40)}")
    deep = None
    if options and options.read_only_force_recursive:
        if not mount.read_only or options.propagation not in ("private", "rprivate"):
            raise _bad(mount, "bind-recursive=readonly needs read-only and a private propagation")
        deep = True
    elif options and options.read_only_non_recursive:
        deep = False
    return Wish(
        type="bind",
        destination=destination,
        source=posixpath.normpath(mount.source),
        rw=not mount.read_only,
        propagation=propagation or "rprivate",
        create_source=bool(options and options.create_mountpoint),
        deep_read_only=deep,
        non_recursive=bool(options and options.non_recursive),
    )


def _volume(mount: Mount, destination: str) -> Wish:
    if mount.bind_options is not None:
        raise _bad(mount, "field BindOptions must not be specified")
    options = mount.volume_options or VolumeOptions()
    if not mount.source and options.subpath:
        raise _bad(mount, "must not set Subpath when using anonymous volumes")
    _check_subpath(mount, options.subpath)
    driver = options.driver_config
    return Wish(
        type="volume",
        destination=destination,
        source=mount.source,
        rw=not mount.read_only,
        mode="" if not mount.read_only else "ro",
        copy=not options.no_copy,
        driver=(driver.name if driver else "") or "local",
        driver_options=dict((driver.options if driver else None) or {}),
        labels=dict(options.labels or {}),
        subpath=options.subpath,
    )


def _check_subpath(mount: Mount, subpath: str) -> None:
    """By its letters; links are found when it is mounted."""
    if subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == "..":
        raise _bad(mount, "subpath must be a relative path within the volume")


def _image(mount: Mount, destination: str) -> Wish:
    """Whatever is asked for, it is read-only, as with Docker."""
    if mount.bind_options is not None:
        raise _bad(mount, "field BindOptions must not be specified")
    if mount.volume_options is not None:
        raise _bad(mount, "field VolumeOptions must not be specified")
    if not mount.source:
        raise _bad(mount, "field Source must not be empty")
    subpath = mount.image_options.subpath if mount.image_options is not None else ""
    _check_subpath(mount, subpath)
    return Wish(
        type="image",
        destination=destination,
        source=mount.source,
        rw=False,
        propagation="rprivate",
        subpath=subpath,
    )


def _tmpfs(mount: Mount, destination: str) -> Wish:
    if mount.source:
        raise _bad(mount, "field Source must not be specified")
    options = ["nosuid", "nodev", "noexec"]
    if mount.read_only:
        options.append("ro")
    if (asked := mount.tmpfs_options) is not None:
        if asked.size_bytes < 0:
            raise _bad(mount, "size must not be negative")
        if asked.size_bytes:
            options.append(f"size={asked.size_bytes}")
        if asked.mode:
            options.append(f"mode={asked.mode:o}")
        options += _pairs(asked.options or [])
    return Wish(type="tmpfs", destination=destination, rw=not mount.read_only, tmpfs=tuple(options))


def _pairs(options: Sequence[Sequence[str]]) -> Iterable[str]:
    for pair in options:
        if not 1 <= len(pair) <= 2:
            raise InvalidArgument("invalid option array length")
        yield "=".join(pair)


def _refuse_duplicates(destinations: Sequence[str]) -> None:
    seen: set[str] = set()
    for destination in destinations:
        if destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {destination}")
        seen.add(destination)


def _bad(mount: Mount, what: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{mount.type}": {what}')
