"""Remapped containers: what is refused, and what their namespaces, mounts and files become."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from corten.engine import remap
from corten.engine.hostfacts import HostFacts
from corten.engine.models import MountPoint
from corten.engine.remap import Remap
from corten.engine.spec import builder
from corten.errors import Conflict, InvalidArgument
from corten.specs.container import HostConfig
from corten.specs.oci_runtime import Spec
from tests.unit.engine.harness import Engine
from tests.unit.engine.test_spec import ETC, container

# The tests' own ids, so that files can be given to them without being root.
REMAP = Remap("app", ((0, os.getuid(), 65536),), ((0, os.getgid(), 1000), (1000, 300000, 500)))
OTHER = Remap("app", ((0, 500000, 65536),), ((0, 500000, 65536),))


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"privileged": True}, "privileged mode is incompatible with user namespaces.  You must run the container in"),
        ({"network_mode": "host"}, "cannot share the host's network namespace when user namespaces are enabled"),
        ({"pid_mode": "host"}, "cannot share the host PID namespace when user namespaces are enabled"),
        ({"userns_mode": "private"}, "invalid USER mode: private"),
        ({"userns_mode": "container:x"}, "invalid USER mode: container:x"),
        ({"userns_mode": "HOST"}, "invalid USER mode: HOST"),
    ],
)
def test_what_remapping_excludes(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        remap.check(REMAP, HostConfig(**host))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("host", [{"privileged": True}, {"network_mode": "host"}, {"pid_mode": "host"}])
def test_without_remapping_it_is_allowed(host: dict[str, Any]) -> None:
    remap.check(None, HostConfig(**host))
    remap.check(REMAP, HostConfig(userns_mode="host", **host))


@pytest.mark.parametrize("host", [{}, {"ipc_mode": "host"}, {"uts_mode": "host"}, {"readonly_rootfs": True}])
def test_the_rest_goes_with_it(host: dict[str, Any]) -> None:
    remap.check(REMAP, HostConfig(**host))


def build(mapping: Remap | None, path: str) -> Spec:
    subject = container()
    subject.mounts = [
        MountPoint(type="volume", destination="/v", source="/volumes/v/_data", name="v"),
        MountPoint(type="bind", destination="/b", source="/srv", propagation="rprivate"),
    ]
    plan = builder.NamespacePlan(network="/n", cgroup=builder.HOST, user=path)
    facts = HostFacts(sysctls=frozenset({"net.ipv4.ping_group_range"}))
    return builder.build(builder.SpecInputs(subject, facts, plan, ETC, remap=mapping))


def test_the_specification_of_a_remapped_container() -> None:
    spec = build(REMAP, "/proc/9/fd/7")
    assert spec.linux is not None
    assert ("user", "/proc/9/fd/7") in [(space.type, space.path) for space in spec.linux.namespaces]
    assert [(m.container_id, m.size) for m in spec.linux.uid_mappings] == [(0, 65536)]
    assert [(m.container_id, m.host_id, m.size) for m in spec.linux.gid_mappings] == [
        (0, os.getgid(), 1000),
        (1000, 300000, 500),
    ]
    assert spec.linux.sysctl["net.ipv4.ping_group_range"] == "0 1499"
    options = {mount.destination: mount.options for mount in spec.mounts}
    assert "idmap" in options["/v"]
    assert "idmap" not in options["/b"]


def test_the_specification_of_any_other() -> None:
    spec = build(None, builder.HOST)
    assert spec.linux is not None
    assert "user" not in [space.type for space in spec.linux.namespaces]
    assert spec.linux.uid_mappings == []
    assert spec.linux.sysctl["net.ipv4.ping_group_range"] == "0 2147483647"
    assert not any("idmap" in mount.options for mount in spec.mounts)


async def engine_with(root: Path, mapping: Remap | None) -> Engine:
    engine = Engine(root)
    engine.settings.remap = mapping
    await engine.start()
    return engine


def test_a_start_hands_sandbox_and_layers_to_the_users(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = await engine_with(tmp_path, REMAP)
        id = await engine.create()
        await engine.containers.life_cycle.start(id)
        request = engine.runtime.launches[-1]
        assert request.spec.linux is not None
        paths = {space.type: space.path for space in request.spec.linux.namespaces}
        assert paths["user"] == str(tmp_path / "exec" / "userns" / id)
        assert request.rootfs[0].options[-1] == "idmap"
        assert engine.containers.inspection.get(id).remapped == REMAP.key
        plain = await engine.create("plain", userns_mode="host")
        await engine.containers.life_cycle.start(plain)
        request = engine.runtime.launches[-1]
        assert request.spec.linux is not None
        assert "user" not in {space.type for space in request.spec.linux.namespaces}
        assert "idmap" not in request.rootfs[0].options
        assert engine.containers.inspection.get(plain).remapped == ""

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["network_mode", "ipc_mode", "pid_mode"])
def test_whoever_joins_a_namespace_joins_its_users(tmp_path: Path, mode: str) -> None:
    async def scenario() -> None:
        engine = await engine_with(tmp_path, REMAP)
        first = await engine.create("first", ipc_mode="shareable")
        await engine.containers.life_cycle.start(first)
        pid = engine.containers.inspection.get(first).state.pid
        second = await engine.create("second", **{mode: "container:first"})
        await engine.containers.life_cycle.start(second)
        linux = engine.runtime.launches[-1].spec.linux
        assert linux is not None
        assert f"/proc/{pid}/ns/user" in [space.path for space in linux.namespaces if space.type == "user"]

    asyncio.run(scenario())


def test_namespaces_of_other_users_are_not_joined(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = await engine_with(tmp_path, REMAP)
        for name, users in (("plain", "host"), ("one", ""), ("two", "")):
            await engine.containers.life_cycle.start(await engine.create(name, userns_mode=users, ipc_mode="shareable"))
        joiner = await engine.create("joiner", network_mode="container:plain")
        with pytest.raises(Conflict, match="it runs in another user namespace"):
            await engine.containers.life_cycle.start(joiner)
        torn = await engine.create("torn", network_mode="container:one", ipc_mode="container:two")
        with pytest.raises(Conflict, match="namespaces of several containers"):
            await engine.containers.life_cycle.start(torn)
        engine.settings.remap = OTHER
        changed = await engine.create("changed", ipc_mode="container:one")
        with pytest.raises(Conflict, match="it runs in another user namespace"):
            await engine.containers.life_cycle.start(changed)
        free = await engine.create("free", userns_mode="host", network_mode="container:one")
        await engine.containers.life_cycle.start(free)

    asyncio.run(scenario())


def test_a_new_setting_counts_at_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = await engine_with(tmp_path, None)
        id = await engine.create(privileged=True)
        engine.settings.remap = REMAP
        with pytest.raises(InvalidArgument, match="privileged mode is incompatible"):
            await engine.containers.life_cycle.start(id)

    asyncio.run(scenario())
