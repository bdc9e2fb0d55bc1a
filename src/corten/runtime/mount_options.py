"""The words of mount(8), as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from corten.errors import clip
from corten.linux import mount as api


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a list of words comes to.

    `attributes` and `cleared` are MOUNT_ATTR_ bits of the mount itself, the recursive ones also of all below it;
    `propagation` are (MS_ flag, recursive) in order; `data` goes to the file system, and so do `superblock`'s words,
    which the kernel knows for all of them. `flags` are the MS_ ones that only mount(2) takes. `idmap` is "idmap" or
    "ridmap" (the whole tree) for a mount whose files' owners are mapped, "" for any other.
    """

    bind: bool = False
    recursive: bool = False
    attributes: int = 0
    cleared: int = 0
    recursive_attributes: int = 0
    recursive_cleared: int = 0
    propagation: tuple[tuple[int, bool], ...] = ()
    data: tuple[tuple[str, str | None], ...] = field(default=())
    idmap: str = ""
    superblock: tuple[str, ...] = ()
    flags: int = 0
    remount: bool = False
    copy_up: bool = False

    @property
    def wire(self) -> tuple[int, int, int, int, tuple[tuple[int, bool], ...]]:
        return (
            self.attributes,
            self.cleared,
            self.recursive_attributes,
            self.recursive_cleared,
            self.propagation,
        )


# Word → (bits set, bits cleared). With an "r" in front they hold for the whole tree.
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (api.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, api.MOUNT_ATTR_RDONLY),
    "nosuid": (api.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, api.MOUNT_ATTR_NOSUID),
    "nodev": (api.MOUNT_ATTR_NODEV, 0),
    "dev": (0, api.MOUNT_ATTR_NODEV),
    "noexec": (api.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, api.MOUNT_ATTR_NOEXEC),
    "noatime": (api.MOUNT_ATTR_NOATIME, api.MOUNT_ATTR__ATIME),
    "atime": (0, api.MOUNT_ATTR__ATIME),
    "relatime": (api.MOUNT_ATTR_RELATIME, api.MOUNT_ATTR__ATIME),
    "norelatime": (0, 0),
    "strictatime": (api.MOUNT_ATTR_STRICTATIME, api.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, api.MOUNT_ATTR__ATIME),
    "nodiratime": (api.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, api.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (api.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, api.MOUNT_ATTR_NOSYMFOLLOW),
}

_PROPAGATIONS: dict[str, tuple[int, bool]] = {
    "private": (api.MS_PRIVATE, False),
    "rprivate": (api.MS_PRIVATE, True),
    "slave": (api.MS_SLAVE, False),
    "rslave": (api.MS_SLAVE, True),
    "shared": (api.MS_SHARED, False),
    "rshared": (api.MS_SHARED, True),
    "unbindable": (api.MS_UNBINDABLE, False),
    "runbindable": (api.MS_UNBINDABLE, True),
}

# What rootfsPropagation may say; "" is rslave, as Docker has it. First for the copies of the host's mounts, then for
# the finished root, where the specification's own words leave the mounts below it as their options made them. Copies
# are never unbindable: there would be nothing to bind volumes from.
ROOT_PROPAGATIONS: dict[str, tuple[int, int]] = {
    "": (api.MS_SLAVE | api.MS_REC, 0),
    "private": (api.MS_PRIVATE | api.MS_REC, api.MS_PRIVATE),
    "rprivate": (api.MS_PRIVATE | api.MS_REC, api.MS_PRIVATE | api.MS_REC),
    "slave": (api.MS_SLAVE | api.MS_REC, api.MS_SLAVE),
    "rslave": (api.MS_SLAVE | api.MS_REC, api.MS_SLAVE | api.MS_REC),
    "shared": (api.MS_SHARED, api.MS_SHARED),
    "rshared": (api.MS_SHARED, api.MS_SHARED | api.MS_REC),
    "unbindable": (api.MS_PRIVATE | api.MS_REC, api.MS_UNBINDABLE),
    "runbindable": (api.MS_PRIVATE | api.MS_REC, api.MS_UNBINDABLE | api.MS_REC),
}

_SUPERBLOCK = frozenset(("sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"))
_FLAGS: dict[str, tuple[int, int]] = {"iversion": (api.MS_I_VERSION, 0), "noiversion": (0, api.MS_I_VERSION)}
# "silent" keeps the kernel's complaints out of its log; by the mount API they come to us alone anyway.
_IGNORED = frozenset(("defaults", "silent", "loud"))


# All words with a meaning of their own; any other goes to the file system.
WORDS = frozenset((
    *_ATTRIBUTES, *(f"r{word}" for word in _ATTRIBUTES), *_PROPAGATIONS, *_SUPERBLOCK, *_FLAGS, *_IGNORED,
    "bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup",
))  # fmt: skip


def parse(words: Iterable[str]) -> MountOptions:
    """Later words win over earlier ones. A word that is not known goes to the file system."""
    bind = recursive = False
    idmap = ""
    own, tree = [0, 0], [0, 0]
    propagation: list[tuple[int, bool]] = []
    data: list[tuple[str, str | None]] = []
    superblock: list[str] = []
    flags = [0, 0]
    remount = copy_up = False
    for word in words:
        if word in ("bind", "rbind"):
            bind, recursive = True, recursive or word == "rbind"
        elif word in _ATTRIBUTES:
            _apply(own, *_ATTRIBUTES[word])
        elif word in _PROPAGATIONS:
            propagation.append(_PROPAGATIONS[word])
        elif word[:1] == "r" and word[1:] in _ATTRIBUTES:
            _apply(tree, *_ATTRIBUTES[word[1:]])
        elif word in ("idmap", "ridmap"):
            idmap = word
        elif word in _SUPERBLOCK:
            superblock.append(word)
        elif word in _FLAGS:
            _apply(flags, *_FLAGS[word])
        elif word == "remount":
            remount = True
        elif word == "tmpcopyup":
            copy_up = True
        elif word and word not in _IGNORED:
            key, separator, value = word.partition("=")
            data.append((clip(key), value if separator else None))
    return MountOptions(
        bind=bind,
        recursive=recursive,
        attributes=own[0],
        cleared=own[1],
        recursive_attributes=tree[0],
        recursive_cleared=tree[1],
        propagation=tuple(propagation),
        data=tuple(data),
        superblock=tuple(superblock),
        flags=flags[0],
        remount=remount,
        copy_up=copy_up,
        idmap=idmap,
    )


def _apply(bits: list[int], attributes: int, cleared: int) -> None:
    bits[0] = bits[0] & ~cleared | attributes
    bits[1] = bits[1] & ~attributes | cleared & ~attributes
