"""Life cycles as transcripts: what was asked, what was told, what is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corten.engine.containers import restarts
from corten.engine.models import AttachOptions, Hijacked, Status
from corten.errors import Conflict, InvalidArgument, NotFound, NotModified, StartFailed, SystemFault
from corten.network.types import PortMapping
from corten.specs.container import CreateRequest, HostConfig, Mount, PortBinding, RestartPolicy
from tests.unit.engine.harness import client, engine, settle


def test_run_and_exit(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("web", port_bindings={"80/tcp": [PortBinding(host_port="8080")]})
            assert e.status("web") is Status.CREATED
            assert e.records.durable_puts == 1
            waiter = await e.containers.life_cycle.wait(id, "next-exit")
            await e.containers.life_cycle.start(id)
            container = e.containers.inspection.get("web")
            assert e.status("web") is Status.RUNNING
            assert container.state.pid == e.runtime.containers[id].pid
            assert container.networks["bridge"].ip_address == "172.17.0.2"
            assert container.ports["80/tcp"] == [
                PortBinding(host_ip="0.0.0.0", host_port="8080"),
            ]
            assert (Path(container.hosts_path)).read_text().endswith(f"172.17.0.2\t{id[:12]}\n")
            assert Path(container.resolv_conf_path).read_text() == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
            await e.clock.advance(3)
            await e.runtime.finish(id, 7)
            result = await waiter
            assert result.status_code == 7
            assert e.status("web") is Status.EXITED
            assert container.ports == {}
            assert container.networks["bridge"].ip_address == ""
            assert e.controller.sandboxes == {}
            assert e.runtime.forgotten == [id]
            assert e.told() == ["create", "start", "die"]
            assert e.told("network") == ["connect", "disconnect"]
            die = next(event for event in e.events._kept if event.action == "die")
            assert die.attributes == {"image": "busybox", "name": "web", "exitCode": "7", "execDuration": "3"}

    asyncio.run(story())


def test_out_of_memory_is_told_when_it_happens_and_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("hungry")
            await e.runtime.kill_for_memory(id)
            assert e.containers.inspection.get("hungry").state.oom_killed
            assert e.status("hungry") is Status.RUNNING
            await e.runtime.finish(id, 137, oom_killed=True)
            assert e.told()[-2:] == ["oom", "die"]
            await e.containers.life_cycle.start(id)
            assert not e.containers.inspection.get("hungry").state.oom_killed
            await e.runtime.finish(id, 137, oom_killed=True)  # by a shim that nobody had heard before
            assert e.told()[-2:] == ["oom", "die"]
            await e.runtime.kill_for_memory("0" * 64)  # of a container that is gone: no error

    asyncio.run(story())


def test_remove_after_exit_takes_everything(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(
                "once", auto_remove=True, binds=["kept:/kept"], mounts=[Mount(type="volume", target="/anon")]
            )
            assert len(e.volumes.list()) == 2
            gone = await e.containers.life_cycle.wait(id, "removed")
            await e.runtime.finish(id, 3)
            assert (await gone).status_code == 3
            with pytest.raises(NotFound):
                e.containers.inspection.get("once")
            assert e.records.all() == {}
            assert e.snapshots.active == set()
            assert [volume.name for volume in e.volumes.list()] == ["kept"]
            assert list((tmp_path / "data" / "containers").iterdir()) == []
            assert list((tmp_path / "exec" / "containers").iterdir()) == []
            assert e.told()[-1] == "destroy"
            await e.create("once")  # the name is free again

    asyncio.run(story())


def test_a_failed_start_leaves_a_reason_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("bad")
            e.runtime.containers.failures.append(StartFailed("no such program", step="execve", errno=2, exit_code=127))
            with pytest.raises(StartFailed, match='exec: "sh": executable file not found in \\$PATH'):
                await e.containers.life_cycle.start(id)
            state = e.containers.inspection.get(id).state
            assert (state.status, state.exit_code) == (Status.CREATED, 127)
            assert "executable file not found" in state.error
            assert e.controller.sandboxes == {}
            assert "start" not in e.told()
            await e.containers.life_cycle.start(id)
            assert e.containers.inspection.get(id).state.error == ""

    asyncio.run(story())


def test_a_failed_start_with_rm_removes(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("bad", auto_remove=True)
            gone = await e.containers.life_cycle.wait(id, "removed")
            e.runtime.containers.failures.append(StartFailed("no", exit_code=126))
            with pytest.raises(StartFailed, match="permission denied"):
                await e.containers.life_cycle.start(id)
            assert (await gone).status_code == 126
            assert list(e.containers.inspection.list()) == []

    asyncio.run(story())


def test_name_conflict_in_dockers_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("web")
            words = (
                f'Conflict. The container name "/web" is already in use by container "{id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
            with pytest.raises(Conflict) as refused:
                await e.create("/web")
            assert str(refused.value) == words
            await e.create("db")
            with pytest.raises(Conflict) as refused:
                await e.containers.configuration.rename("db", "web")
            assert str(refused.value) == words
            await e.containers.configuration.rename("db", "store")
            assert e.containers.inspection.get("store").name == "store"
            with pytest.raises(NotFound):
                e.containers.inspection.get("db")

    asyncio.run(story())


def test_create_unwinds_when_the_disk_is_full(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.snapshots.fail = True
            with pytest.raises(SystemFault, match="no space left on device"):
                await e.create("web", mounts=[Mount(type="volume", target="/data")])
            assert e.records.all() == {}
            assert list(e.volumes.list()) == []
            e.snapshots.fail = False
            await e.create("web", mounts=[Mount(type="volume", target="/data")])

    asyncio.run(story())


def test_start_and_stop_twice(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run()
            with pytest.raises(NotModified):
                await e.containers.life_cycle.start(id)
            await e.containers.life_cycle.stop(id)
            assert e.containers.inspection.get(id).state.exit_code == 143
            with pytest.raises(NotModified):
                await e.containers.life_cycle.stop(id)
            assert e.told() == ["create", "start", "kill", "die", "stop"]

    asyncio.run(story())


def test_stop_kills_after_its_patience(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.runtime.exit_on_signal = {9}
            id = await e.run()
            stopping = asyncio.ensure_future(e.containers.life_cycle.stop(id, 5))  # noqa: TID251 - the test is its owner
            await settle()
            await e.clock.advance(4.9)
            assert e.runtime.containers[id].signals == [15]
            await e.clock.advance(0.2)
            await stopping
            assert e.runtime.containers[id].signals == [15, 9]
            assert e.containers.inspection.get(id).state.exit_code == 137

    asyncio.run(story())


def test_restart_policy_backs_off_and_gives_up_when_stopped(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("loop", restart_policy=RestartPolicy(name="always"))
            for pause in (0.1, 0.2, 0.4):
                await e.runtime.finish(id, 1)
                assert e.status(id) is Status.RESTARTING
                launches = len(e.runtime.launches)
                await e.clock.advance(pause * 0.9)
                await settle()
                assert len(e.runtime.launches) == launches
                await e.clock.advance(pause * 0.2)
                await settle()
                assert len(e.runtime.launches) == launches + 1
            assert e.containers.inspection.get(id).restart_count == 3
            await e.clock.advance(11)
            await e.runtime.finish(id, 1)
            await e.clock.advance(0.11)  # ten good seconds: the pauses begin anew
            await settle()
            assert e.status(id) is Status.RUNNING
            await e.containers.life_cycle.stop(id)
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_on_failure_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=1))
            await e.runtime.finish(id, 1)
            await e.clock.advance(1)
            await settle()
            assert e.status(id) is Status.RUNNING
            await e.runtime.finish(id, 1)
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_pauses_grow_to_a_minute() -> None:
    pauses = [0.0]
    for _ in range(12):
        pauses.append(restarts.pause(pauses[-1], uptime_s=9.9))
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert restarts.pause(60.0, uptime_s=10.0) == 0.1


@pytest.mark.parametrize(
    ("stop_signal", "sent", "restarts"),
    [
        ("", "KILL", False),
        ("SIGUSR1", "KILL", False),
        ("SIGUSR1", "USR1", False),
        ("SIGUSR1", "TERM", True),  # not how it is stopped: what it ends of is a failure
        ("", "TERM", False),
        ("", "INT", False),  # as Docker has it: without a signal of its own, each one is taken for the stop
    ],
)
def test_a_kill_ends_what_would_be_restarted(tmp_path: Path, stop_signal: str, sent: str, restarts: bool) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.runtime.exit_on_signal = {2, 9, 10, 15}
            request = CreateRequest(
                image="busybox",
                stop_signal=stop_signal,
                host_config=HostConfig(restart_policy=RestartPolicy(name="always")),
            )
            id = (await e.containers.creation.create("box", request)).id
            await e.containers.life_cycle.start(id)
            await e.containers.life_cycle.kill(id, sent)
            await settle()
            assert e.status(id) is (Status.RESTARTING if restarts else Status.EXITED)
            await e.containers.life_cycle.start(id)  # from now on it is restarted again
            await e.runtime.finish(id, 1)
            assert e.status(id) is Status.RESTARTING

    asyncio.run(story())


def test_stop_while_waiting_for_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(restart_policy=RestartPolicy(name="always"))
            await e.runtime.finish(id, 1)
            assert e.status(id) is Status.RESTARTING
            await e.containers.life_cycle.stop(id)
            assert e.status(id) is Status.EXITED
            await e.clock.advance(5)
            await settle()
            assert len(e.runtime.launches) == 1

    asyncio.run(story())


def test_manual_restart_keeps_a_container_that_would_go_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(auto_remove=True)
            await e.containers.life_cycle.restart(id)
            assert e.status(id) is Status.RUNNING
            assert e.told()[-1] == "restart"
            assert len(e.runtime.launches) == 2

    asyncio.run(story())


def test_wait_conditions(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create()
            assert (await (await e.containers.life_cycle.wait(id, "not-running"))).status_code == 0
            following = await e.containers.life_cycle.wait(id, "next-exit")
            gone = await e.containers.life_cycle.wait(id, "removed")
            await e.containers.life_cycle.start(id)
            running = await e.containers.life_cycle.wait(id, "not-running")
            await e.runtime.finish(id, 9)
            assert (await following).status_code == 9
            assert (await running).status_code == 9
            await e.containers.removal.remove(id)
            assert (await gone).status_code == 9

    asyncio.run(story())


def test_remove_refuses_what_runs(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            with pytest.raises(Conflict) as refused:
                await e.containers.removal.remove("web")
            assert str(refused.value) == (
                'cannot remove container "/web": container is running: '
                "stop the container before removing or force remove"
            )
            await e.containers.life_cycle.pause(id)
            with pytest.raises(Conflict, match="container is paused and must be unpaused first"):
                await e.containers.removal.remove("web")
            await e.containers.life_cycle.unpause(id)
            await e.containers.removal.remove("web", force=True)
            assert list(e.containers.inspection.list()) == []
            assert e.told()[-3:] == ["kill", "die", "destroy"]

    asyncio.run(story())


def test_stop_of_a_paused_container_lets_it_go_on_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            e.runtime.exit_on_signal = {9}  # it ignores SIGTERM
            await e.containers.life_cycle.pause(id)
            await e.containers.life_cycle.stop(id, timeout=0)
            assert e.runtime.containers[id].signals == [15, 9]
            assert e.told()[-6:] == ["pause", "kill", "unpause", "kill", "die", "stop"]

    asyncio.run(story())


def test_clients_that_attach_first_are_there_from_the_first_byte(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create()
            with client() as (ours, hijacked):

                async def upgrade() -> Hijacked:
                    return hijacked

                options = AttachOptions(stdout=True, stream=True, stdin=True, detach_keys="ctrl-a,x")
                await e.containers.streams.attach(id, options, upgrade)
                assert e.runtime.containers == {}
                await e.containers.life_cycle.start(id)
                (stream,) = e.runtime.containers[id].attached
                assert (stream.stdin, stream.detach_keys) == (False, b"\x01x")  # its stdin is not open
                await e.runtime.finish(id)
                assert ours.recv(1) == b""
            assert e.told()[:3] == ["create", "attach", "start"]

    asyncio.run(story())


def test_parked_clients_are_let_go_with_the_container(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create()
            with client() as (ours, hijacked):

                async def upgrade() -> Hijacked:
                    return hijacked

                await e.containers.streams.attach(id, AttachOptions(stdout=True, stream=True), upgrade)
                await e.containers.removal.remove(id)
                assert ours.recv(1) == b""

    asyncio.run(story())


def test_attach_with_logs_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("talk")
            with client() as (ours, hijacked):

                async def upgrade() -> Hijacked:
                    return hijacked

                await e.containers.streams.attach(id, AttachOptions(stdout=True, logs=True), upgrade)
                assert ours.recv(100) == b"log of talk\n"
                assert ours.recv(1) == b""

    asyncio.run(story())


def test_joining_another_containers_network(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            first = await e.create("first")
            second = await e.create("second", network_mode="container:first")
            assert e.containers.inspection.get(second).host_config.network_mode == f"container:{first}"
            with pytest.raises(Conflict, match="cannot join network of a non running container"):
                await e.containers.life_cycle.start(second)
            await e.containers.life_cycle.start(first)
            await e.containers.life_cycle.start(second)
            linux = e.runtime.launches[-1].spec.linux
            assert linux is not None
            paths = [namespace.path for namespace in linux.namespaces if namespace.type == "network"]
            assert paths == [e.containers.inspection.get(first).sandbox_key]
            await e.runtime.finish(second)
            assert list(e.controller.sandboxes) == [first]

    asyncio.run(story())


def test_a_port_in_use_starts_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            binding = {"80/tcp": [PortBinding(host_port="8080")]}
            await e.run("one", port_bindings=binding)
            two = await e.create("two", port_bindings=binding)
            with pytest.raises(SystemFault, match="port is already allocated"):
                await e.containers.life_cycle.start(two)
            assert len(e.controller.sandboxes) == 1
            assert e.containers.inspection.get(two).state.exit_code == 128

    asyncio.run(story())


def test_published_range_and_publish_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            request = CreateRequest(
                image="busybox", exposed_ports={"53/udp": {}}, host_config=HostConfig(publish_all_ports=True)
            )
            id = (await e.containers.creation.create("", request)).id
            await e.containers.life_cycle.start(id)
            (mapping,) = e.containers.inspection.get(id).endpoints[0].ports
            assert isinstance(mapping, PortMapping)
            assert (mapping.container_port, mapping.transport) == (53, "udp")
            assert mapping.host_port >= 49153

    asyncio.run(story())


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"nano_cpus": 3_000_000_000}, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"cpuset_cpus": "7"}, "Requested CPUs are not available - requested 7, available: 0-1"),
        ({"cap_add": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"binds": ["a:b:c:d"]}, "invalid volume specification: 'a:b:c:d'"),
        (
            {"mounts": [Mount(type="bind", source="/nowhere", target="/x")]},
            'invalid mount config for type "bind": bind source path does not exist: /nowhere',
        ),
        (
            {"auto_remove": True, "restart_policy": RestartPolicy(name="always")},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"security_opt": ["bogus"]}, 'invalid --security-opt 1: "bogus"'),
        ({"runtime": "nope"}, "unknown or invalid runtime name: nope"),
        ({"tmpfs": {"/a": ""}, "binds": ["/tmp:/a"]}, "Duplicate mount point: /a"),
    ],
)
def test_refusals_leave_nothing(tmp_path: Path, host: dict[str, Any], message: str) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            with pytest.raises(InvalidArgument) as refused:
                await e.create("web", **host)
            assert message in str(refused.value)
            assert e.records.all() == {}
            assert e.snapshots.active == set()
            assert e.catalog.names == {}

    asyncio.run(story())


def test_unknown_things_are_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            with pytest.raises(NotFound, match="No such image: nope"):
                await e.create(image="nope")
            # Not NotFound: the docker command line would pull the image.
            with pytest.raises(InvalidArgument, match="network nope not found"):
                await e.create(network_mode="nope")
            with pytest.raises(InvalidArgument, match="No such container: nope"):
                await e.create(network_mode="container:nope")
            with pytest.raises(NotFound, match="No such container: nope"):
                await e.containers.life_cycle.start("nope")

    asyncio.run(story())
