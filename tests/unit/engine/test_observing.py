"""Updates, counters, sizes, and what the daemon says of itself."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from corten.engine.containers import processes
from corten.engine.models import Event, Image, LogWindow
from corten.engine.system import SystemService
from corten.errors import Conflict, InvalidArgument, NotFound, NotImplementedYet
from corten.specs.container import (
    CreateRequest,
    EndpointIPAMConfig,
    EndpointSettings,
    HostConfig,
    LogConfig,
    Mount,
    NetworkingConfig,
    Resources,
    RestartPolicy,
    Ulimit,
)
from corten.storage.types import SnapshotInfo, Usage
from tests.unit.engine.harness import engine, settle


def test_update_reaches_the_running_container(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run()
            policy = RestartPolicy(name="always")
            assert await e.containers.configuration.update(id, Resources(memory=64 << 20, pids_limit=5), policy) == []
            (spec,) = e.runtime.containers[id].updates
            assert spec.linux is not None
            limits = spec.linux.resources
            assert limits is not None
            assert limits.memory is not None
            assert (limits.memory.limit, limits.memory.swap) == (64 << 20, 128 << 20)
            assert e.containers.inspection.get(id).host_config.restart_policy == policy
            with pytest.raises(InvalidArgument, match="6MB"):
                await e.containers.configuration.update(id, Resources(memory=1), None)
            assert e.containers.inspection.get(id).host_config.memory == 64 << 20
            with pytest.raises(Conflict, match="already set memoryswap limit"):
                await e.containers.configuration.update(id, Resources(memory=1 << 30), None)
            with pytest.raises(NotImplementedYet, match="--ulimit"):
                await e.containers.configuration.update(id, Resources(ulimits=[Ulimit(name="core")]), None)

    asyncio.run(story())


def test_stats_have_the_apis_shape(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            sample = await e.containers.inspection.stats(id)
            assert sample["name"] == "/web"
            assert sample["pids_stats"] == {"current": 1}
            assert sample["cpu_stats"]["online_cpus"] == 2
            assert sample["cpu_stats"]["system_cpu_usage"] > 0
            assert sample["memory_stats"]["limit"] == 8 << 30
            assert set(sample["networks"]["eth0"]) >= {"rx_bytes", "tx_dropped"}
            await e.runtime.finish(id)
            sample = await e.containers.inspection.stats(id)
            assert (sample["memory_stats"], sample["pids_stats"]) == ({}, {})
            with pytest.raises(Conflict, match="is not running"):
                await e.containers.inspection.top(id, "")

    asyncio.run(story())


def test_samples_follow_a_container_through_its_life(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            with pytest.raises(NotFound):
                e.containers.inspection.follow("nobody")
            samples = e.containers.inspection.follow("web")
            assert (await anext(samples)).value["pids_stats"] == {"current": 1}
            await e.runtime.finish(id)
            await e.clock.advance(1)
            stopped = await anext(samples)
            assert (stopped.value["pids_stats"], (stopped.before or {})["pids_stats"]) == ({}, {"current": 1})
            await e.containers.removal.remove(id)
            await e.clock.advance(1)
            assert await anext(samples, None) is None

    asyncio.run(story())


def test_logs_of_a_driver_without_reading(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create(log_config=LogConfig(type="none"))
            with pytest.raises(InvalidArgument, match="configured logging driver does not support reading"):
                e.containers.streams.logs(id, LogWindow())
            with pytest.raises(InvalidArgument, match="choose at least one stream"):
                e.containers.streams.logs(id, LogWindow(stdout=False, stderr=False))
            with pytest.raises(InvalidArgument, match="unknown log opt 'bogus' for json-file log driver"):
                await e.create("other", log_config=LogConfig(type="json-file", config={"bogus": "1"}))

    asyncio.run(story())


def test_sizes_and_prune(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            running = await e.run("running")
            stopped = await e.create("stopped")
            sizes = await e.containers.inspection.sizes(stopped)
            assert (sizes.rw, sizes.root_fs) == (7, 107)
            assert await e.containers.removal.prune({}) == ([stopped], 7)
            assert [container.id for container in e.containers.inspection.list()] == [running]

    asyncio.run(story())


def test_info_and_disk_usage(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            system = SystemService(e.deps, e.settings)
            await e.run("one", mounts=[Mount(type="volume", target="/data")])
            await e.create("two")
            info = await system.info()
            assert (info["Containers"], info["ContainersRunning"], info["ContainersStopped"]) == (2, 1, 1)
            assert info["ID"] == (await SystemService(e.deps, e.settings).info())["ID"]
            version = await system.version()
            assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.56", "1.24")
            usage = await system.disk_usage()
            assert [container["SizeRw"] for container in usage["Containers"]] == [7, 7]
            (volume,) = usage["Volumes"]
            assert volume["UsageData"]["RefCount"] == 1
            assert volume["UsageData"]["Size"] == 4096
            assert [container["State"] for container in usage["Containers"]] == ["running", "created"]

    asyncio.run(story())


def test_events_since_until_and_a_listener_that_sleeps(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.events.publish("daemon", "first", "", {})
            start = e.clock.now_ns()
            until = start + 5_000_000_000
            heard: list[Event] = []

            async def listen() -> None:
                async for event in e.events.subscribe(start, until):
                    heard.append(event)

            listening = asyncio.ensure_future(listen())  # noqa: TID251 - the test is its owner
            await settle()
            e.events.publish("daemon", "second", "", {})
            await settle()
            await e.clock.advance(6)
            e.events.publish("daemon", "late", "", {})
            await listening
            assert [event.action for event in heard] == ["first", "second"]
            assert e.events.listeners == 0

    asyncio.run(story())


def test_endpoints_that_cannot_be_had(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:

            async def create(mode: str, endpoint: EndpointSettings) -> str:
                networking = NetworkingConfig(endpoints_config={mode: endpoint})
                host = HostConfig(network_mode=mode)
                request = CreateRequest(image="busybox", host_config=host, networking_config=networking)
                return (await e.containers.creation.create("", request)).id

            address = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="172.18.0.9"))
            with pytest.raises(InvalidArgument, match="supported on user defined networks only"):
                await create("bridge", address)
            with pytest.raises(InvalidArgument, match="network-scoped alias"):
                await create("default", EndpointSettings(aliases=["x"]))
            id = await create("second", address)
            await e.containers.life_cycle.start(id)
            assert e.containers.inspection.get(id).networks["second"].ip_address == "172.18.0.9"

    asyncio.run(story())


def test_read_only_binds_cover_what_is_below(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(binds=[f"{tmp_path}:/h:ro"])
            mount = e.runtime.containers[id].request.spec.mounts[-1]  # type: ignore[union-attr]
            assert mount.options == ["rbind", "rprivate", "ro", "rro"]

    asyncio.run(story())


def test_top_of_this_process(tmp_path: Path) -> None:
    async def story() -> None:
        top = await processes.top([os.getpid()], "-o pid,comm")
        assert top.titles[0] == "PID"
        assert [row[0] for row in top.processes] == [str(os.getpid())]
        with pytest.raises(InvalidArgument, match="ps: "):
            await processes.top([os.getpid()], "--bogus")
        plain = processes._without_ps([os.getpid()], "")
        assert plain.processes[0][1] == str(os.getpid())

    asyncio.run(story())


def _image(at: int, **more: Any) -> Image:
    id = f"sha256:{at:064x}"
    chains = [f"chain-{at // 10}-{layer}" for layer in range(9)] + [f"chain-{at}"]
    return Image(
        **{
            "id": id,
            "target": id,
            "target_media_type": "",
            "manifest": id,
            "size": 1000,
            "created_ns": at,
            "platform": "linux/amd64",
            "chain_ids": chains,
            "names": [f"docker.io/library/x:{at}"],
            **more,
        }
    )


def test_disk_usage_of_a_container_s_root_has_all_layers_below(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("one")
            chain = e.deps.catalog.find(id).container.chain_id
            layers = [("base", "", 10), ("middle", "base", 20), (chain, "middle", 30), ("other", "base", 40)]
            infos = [SnapshotInfo(key, parent, "committed", Usage(size, 1)) for key, parent, size in reversed(layers)]
            e.deps.snapshotter.walk = lambda: iter(infos)  # type: ignore[method-assign]
            (container,) = (await SystemService(e.deps, e.settings).disk_usage())["Containers"]
            assert (container["SizeRw"], container["SizeRootFs"]) == (7, 67)

    asyncio.run(story())


def test_disk_usage_of_many_images_is_told_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            found = [_image(at) for at in range(200)]
            found.append(_image(200, names=[], head=found[0].id))
            layers = [SnapshotInfo(c, "", "committed", Usage(10, 1)) for c in {c for i in found for c in i.chain_ids}]
            e.images.list = lambda: found  # type: ignore[method-assign]
            e.deps.snapshotter.walk = lambda: iter(layers)  # type: ignore[method-assign]
            system = SystemService(e.deps, e.settings)
            took = []
            for _ in range(5):
                start = time.process_time()
                usage = await system.disk_usage()
                took.append(time.process_time() - start)
            assert min(took) < 0.05
            assert usage["LayersSize"] == 10 * len(layers)
            assert len(usage["Images"]) == 200  # one is of another platform of the first
            first, second = usage["Images"][:2]
            assert (second["Size"], second["SharedSize"]) == (1000, 90)
            assert first["Size"] == 10 * 20
            assert first["SharedSize"] == 90

    asyncio.run(story())
