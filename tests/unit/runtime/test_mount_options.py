"""mount(8)'s words."""

from __future__ import annotations

from corten.linux import mount as api
from corten.runtime.mount_options import MountOptions, parse


def test_words_of_the_mount_and_of_the_file_system() -> None:
    assert parse(["nosuid", "noexec", "ro", "mode=755", "size=64k", "newinstance"]) == MountOptions(
        attributes=api.MOUNT_ATTR_NOSUID | api.MOUNT_ATTR_NOEXEC | api.MOUNT_ATTR_RDONLY,
        data=(("mode", "755"), ("size", "64k"), ("newinstance", None)),
    )


def test_the_last_word_wins() -> None:
    assert parse(["ro", "rw"]) == MountOptions(cleared=api.MOUNT_ATTR_RDONLY)
    assert parse(["rw", "ro"]) == MountOptions(attributes=api.MOUNT_ATTR_RDONLY)
    assert parse(["noatime", "strictatime"]).attributes == api.MOUNT_ATTR_STRICTATIME
    assert parse(["strictatime", "relatime"]).attributes == 0


def test_bind_and_propagation() -> None:
    assert parse(["rbind", "rprivate", "shared"]) == MountOptions(
        bind=True, recursive=True, propagation=((api.MS_PRIVATE, True), (api.MS_SHARED, False))
    )
    assert parse(["bind"]) == MountOptions(bind=True)


def test_recursive_attributes() -> None:
    assert parse(["rbind", "rro", "rnosuid"]) == MountOptions(
        bind=True, recursive=True, recursive_attributes=api.MOUNT_ATTR_RDONLY | api.MOUNT_ATTR_NOSUID
    )


def test_idmapped_mounts() -> None:
    assert parse(["bind"]).idmap == ""
    assert parse(["bind", "idmap", "ro"]).idmap == "idmap"
    assert parse(["rbind", "ridmap"]).idmap == "ridmap"


def test_words_of_all_file_systems_and_of_mount_alone() -> None:
    assert parse(["sync", "dirsync", "lazytime", "mand", "iversion"]) == MountOptions(
        superblock=("sync", "dirsync", "lazytime", "mand"), flags=api.MS_I_VERSION
    )
    assert parse(["iversion", "noiversion"]).flags == 0
    assert parse(["defaults", "silent", "loud"]) == MountOptions()
    assert parse(["remount", "tmpcopyup"]) == MountOptions(remount=True, copy_up=True)
