"""Sandboxes that belong to a user namespace of remapped ids."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corten.daemon import idmapping
from corten.engine.remap import Remap
from corten.errors import SystemFault
from corten.linux import mount, usernamespace
from corten.network.controller import BridgeController
from corten.network.types import Sandbox, UserNamespace
from corten.testing.network import bridge_spec, endpoint_request, network_id
from tests.kernel.isolation import isolated

pytestmark = pytest.mark.root
NS_GET_USERNS = 0xB701  # linux/nsfs.h
REMAPPED = UserNamespace(((0, 100000, 65536),), ((0, 200000, 1000), (1000, 300000, 10)))


def owner_of(sandbox: Sandbox) -> int:
    """The inode of the user namespace that a network namespace belongs to."""
    fd = os.open(sandbox.path, os.O_RDONLY)
    try:
        owner = fcntl.ioctl(fd, NS_GET_USERNS)
        try:
            return os.fstat(owner).st_ino
        finally:
            os.close(owner)
    finally:
        os.close(fd)


@asynccontextmanager
async def controlled(root: Path, ready: int = 1) -> AsyncIterator[BridgeController]:
    controller = BridgeController(root, pool_size=ready)
    await controller.start([bridge_spec()], [])
    try:
        yield controller
    finally:
        await controller.close(keep=False)


def test_a_sandbox_belongs_to_a_user_namespace_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controlled(tmp_path) as controller:
            plain = await controller.open_sandbox("plain")
            first = await controller.open_sandbox("first", REMAPPED)
            second = await controller.open_sandbox("second", REMAPPED)
            assert plain.user_path == ""
            assert owner_of(plain) == os.stat("/proc/self/ns/user").st_ino
            for sandbox in (first, second):
                assert owner_of(sandbox) == os.stat(sandbox.user_path).st_ino
            assert len({owner_of(sandbox) for sandbox in (plain, first, second)}) == 3
            connected = await controller.connect(first, network_id("a"), endpoint_request("first"))
            assert connected.endpoint.ip
            assert [link.name for link in await controller.stats("first")] == ["eth0"]
            await controller.close_sandbox("first")
            assert not os.path.exists(first.user_path)

    isolated(lambda: asyncio.run(scenario()))


def test_a_sandbox_in_a_user_namespace_that_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controlled(tmp_path) as controller:
            first = await controller.open_sandbox("first", REMAPPED)
            beside = UserNamespace(REMAPPED.uids, REMAPPED.gids, first.user_path)
            second = await controller.open_sandbox("second", beside)
            assert owner_of(first) == owner_of(second)
            assert os.stat(first.path).st_ino != os.stat(second.path).st_ino

    isolated(lambda: asyncio.run(scenario()))


def test_nothing_is_left_where_it_cannot_be_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controlled(tmp_path, ready=0) as controller:
            descriptors = len(os.listdir("/proc/self/fd"))
            for user in (UserNamespace(path="/proc/self/ns/user"), UserNamespace(((0, 2**32 - 1, 1),), ((0, 1, 1),))):
                with pytest.raises(SystemFault, match="make a user namespace"):
                    await controller.open_sandbox("bad", user)
            assert len(os.listdir("/proc/self/fd")) <= descriptors

    isolated(lambda: asyncio.run(scenario()))


def test_the_mappings_are_the_ones_asked_for() -> None:
    user, network = usernamespace.make_pair(REMAPPED.uids, REMAPPED.gids)
    os.close(network)
    child = os.fork()
    if child == 0:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY)
        from corten.linux.process import CLONE_NEWUSER, setns

        setns(user, CLONE_NEWUSER)
        told = [Path(f"/proc/self/{name}").read_text().split() for name in ("uid_map", "gid_map")]
        os.close(fd)
        os._exit(0 if told == ["0 100000 65536".split(), "0 200000 1000 1000 300000 10".split()] else 1)
    assert os.waitpid(child, 0)[1] == 0
    os.close(user)


REMAP = Remap("app", REMAPPED.uids, REMAPPED.gids)


def test_storage_that_can_be_idmapped(tmp_path: Path) -> None:
    idmapping.check(REMAP, [tmp_path], overlay=True)


def test_storage_that_cannot_be_idmapped_is_named(tmp_path: Path) -> None:
    def work() -> None:
        for name in ("lower", "upper", "work", "merged"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
        with pytest.raises(SystemFault) as caught:
            idmapping.check(REMAP, [tmp_path, tmp_path / "merged"], overlay=True)
        assert f"the file system of {tmp_path}/merged (overlay) cannot be idmapped" in caught.value.message

    isolated(work)


def test_a_daemon_in_a_chroot_can_remap(tmp_path: Path) -> None:
    """The kernel lets nobody in a chroot make a user namespace."""

    def work() -> None:
        mount.mount("/", str(tmp_path), "", mount.MS_BIND | mount.MS_REC)
        os.chroot(tmp_path)
        os.chdir("/")
        for fd in usernamespace.make_pair(REMAPPED.uids, REMAPPED.gids):
            os.close(fd)

    isolated(work)


def test_limits_of_the_host_are_named(tmp_path: Path) -> None:
    def work() -> None:
        with pytest.raises(SystemFault) as caught:
            idmapping.check(Remap("app", ((0, 2**32 - 1, 1),), ((0, 1, 1),)), [tmp_path], overlay=True)
        assert "--userns-remap cannot be had: " in caught.value.message

    isolated(work)
