"""Links between containers: what they say, who follows whom, and what is left when the daemon or a target goes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from corten.engine.containers import linkwords
from corten.engine.models import Status
from corten.errors import Conflict, InvalidArgument, NotFound, SystemFault
from corten.runtime.types import ExitStatus
from corten.specs.container import CreateRequest, ExecRequest, HostConfig, RestartPolicy
from tests.unit.engine.harness import Engine, engine, settle


@pytest.mark.parametrize(
    ("text", "name", "alias"),
    [
        ("db", "db", "db"),
        ("db:sql", "db", "sql"),
        ("/db:/web/sql", "db", "sql"),
        ("/db", "db", "db"),
        ("db:a//b", "db", "a/b"),
        ("web/sql:x", "web/sql", "x"),
        ("db:", "db", ""),
        (":x", "", "x"),
    ],
)
def test_the_flag_is_read_as_docker_reads_it(text: str, name: str, alias: str) -> None:
    assert linkwords.parse(text) == (name, alias)


@pytest.mark.parametrize("text", ["", "a:b:c", "db:..", "db:a/../b", "db:.", "db:a\nb", "db:a\tb", "d\0b"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"bad format for links: |empty string specified for links"):
        linkwords.parse(text)


def test_variables_of_ports_in_a_row() -> None:
    """As dockerd 20.10 was seen to write them, the order included."""
    exposed: dict[str, dict[str, str]] = {
        "6000-6002/udp": {},
        "5432/tcp": {},
        "53/udp": {},
        "53/tcp": {},
        "54/tcp": {},
        "80/sctp": {},
    }
    found = linkwords.variables("/web/my-db.x", "172.17.0.2", exposed, ["PW=a=b", "EMPTY=", "PATH=/bin", "HOME=/", "X"])
    plain = []
    for number, kind in ((53, "tcp"), (53, "udp"), (54, "tcp"), (80, "sctp"), (5432, "tcp")):
        name = f"MY_DB.X_PORT_{number}_{kind.upper()}"
        plain += [f"{name}={kind}://172.17.0.2:{number}", f"{name}_ADDR=172.17.0.2"]
        plain += [f"{name}_PORT={number}", f"{name}_PROTO={kind}"]
    start = [
        "MY_DB.X_PORT=tcp://172.17.0.2:53",
        "MY_DB.X_PORT_53_TCP_START=tcp://172.17.0.2:53",
        "MY_DB.X_PORT_53_TCP_ADDR=172.17.0.2",
        "MY_DB.X_PORT_53_TCP_PROTO=tcp",
        "MY_DB.X_PORT_53_TCP_PORT_START=53",
        "MY_DB.X_PORT_53_TCP_END=tcp://172.17.0.2:54",
        "MY_DB.X_PORT_53_TCP_PORT_END=54",
        "MY_DB.X_PORT_6000_UDP_START=udp://172.17.0.2:6000",
    ]
    assert found[: len(start)] == start
    assert found[len(start) + 5 : len(start) + 5 + len(plain)] == plain
    assert found[-3:] == ["MY_DB.X_NAME=/web/my-db.x", "MY_DB.X_ENV_PW=a=b", "MY_DB.X_ENV_EMPTY="]
    assert "MY_DB.X_PORT_6000_UDP_PORT_END=6002" in found


def test_two_ports_in_a_row_are_no_range() -> None:
    found = linkwords.variables("/web/db", "172.17.0.2", ["100/tcp", "101/tcp"], [])
    assert not [entry for entry in found if "_START" in entry]


def test_only_the_line_of_the_link_is_changed() -> None:
    before = "127.0.0.1\tlocalhost\n1.2.3.4\tsql.example\n172.17.0.2\tsql host db\n10.0.0.1\tsql\n172.17.0.3\tme"
    after = linkwords.readdress(before, "sql", "host", "172.17.0.9")
    assert after == before.replace("172.17.0.2", "172.17.0.9")
    assert linkwords.readdress(before, "sql", "host", "") == before.replace("172.17.0.2\tsql host db\n", "")


async def pair(e: Engine) -> tuple[str, str]:
    """`db`, which runs, and `web`, which links to it and runs; their ids."""
    request = CreateRequest(image="busybox", hostname="dbhost", env=["PW=x"], exposed_ports={"5432/tcp": {}})
    db = (await e.containers.creation.create("db", request)).id
    await e.containers.life_cycle.start(db)
    return db, await e.run("web", links=["db:sql"])


def hosts(e: Engine, ref: str) -> list[str]:
    text = Path(e.containers.inspection.get(ref).hosts_path).read_text()
    return [line for line in text.splitlines() if "sql" in line]


def test_hosts_and_variables(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            address = e.containers.inspection.get(db).networks["bridge"].ip_address
            assert hosts(e, web) == [f"{address}\tsql dbhost db"]
            process = e.runtime.launches[-1].spec.process
            assert process is not None
            assert {"SQL_NAME=/web/sql", "SQL_ENV_PW=x", f"SQL_PORT=tcp://{address}:5432"} <= set(process.env)
            session = e.execs.open(e.containers.inspection.get(web), ["sh"], ExecRequest(cmd=["sh"]))
            assert "SQL_NAME=/web/sql" in session.linked
            assert e.containers.inspection.link_names() == {db: ["/web/sql"]}
            for ref in ("web/sql", "/web/sql"):
                assert e.containers.inspection.get(ref).id == db
            assert not e.containers.inspection.get(web).host_config.links

    asyncio.run(story())


def test_a_target_that_does_not_run(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            await e.containers.life_cycle.stop(db)
            words = "Cannot link to a non running container: /db AS /web/sql"
            with pytest.raises(Conflict, match=words):
                await e.execs.exec_create(web, ExecRequest(cmd=["sh"]))
            await e.containers.life_cycle.stop(web)
            with pytest.raises(Conflict, match=words):
                await e.containers.life_cycle.start(web)
            state = e.containers.inspection.get(web).state
            assert (state.status, state.exit_code, state.error) == (Status.EXITED, 128, words)
            assert not e.controller.sandboxes

    asyncio.run(story())


def test_the_linking_container_follows_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            own = Path(e.containers.inspection.get(web).hosts_path)
            own.write_text(own.read_text() + "9.9.9.9\tthe.containers.own\n")
            inode = own.stat().st_ino
            first = e.containers.inspection.get(db).networks["bridge"].ip_address
            await e.containers.life_cycle.stop(db)
            await e.run("taker")
            await e.containers.life_cycle.start(db)
            second = e.containers.inspection.get(db).networks["bridge"].ip_address
            assert second != first
            assert hosts(e, web) == [f"{second}\tsql dbhost db"]
            assert "9.9.9.9\tthe.containers.own\n" in own.read_text()
            assert own.stat().st_ino == inode

    asyncio.run(story())


def test_hosts_without_bounds_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            own = Path(e.containers.inspection.get(web).hosts_path)
            own.write_text(own.read_text() + "x" * (1 << 20))
            before = own.read_text()
            await e.containers.life_cycle.stop(db)
            await e.run("taker")
            await e.containers.life_cycle.start(db)
            assert own.read_text() == before

    asyncio.run(story())
    assert "the hosts of container web are not updated: the file is too large" in caplog.text


def test_renamed_on_either_side(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            await e.containers.configuration.rename(db, "db2")
            await e.containers.configuration.rename(web, "web2")
            assert e.containers.inspection.get("web2/sql").id == db
            with pytest.raises(NotFound, match="No such container: web/sql"):
                e.containers.inspection.get("web/sql")
            await e.restart()
            (link,) = e.containers.inspection.get(web).links
            assert (link.target, link.name, link.alias) == (db, "db2", "sql")
            assert e.containers.inspection.link_names() == {db: ["/web2/sql"]}

    asyncio.run(story())


def test_a_removed_target_stays_missing_whatever_takes_its_name(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)
            await e.containers.life_cycle.stop(web)
            await e.containers.removal.remove(db, force=True)
            for again in (False, True):
                if again:
                    await e.restart()
                    await e.run("db")
                assert [link.name for link in e.containers.inspection.get(web).links] == ["db"]
                with pytest.raises(NotFound):
                    e.containers.inspection.get("web/sql")
                with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/sql"):
                    await e.containers.life_cycle.start(web)
            await e.containers.removal.remove("web/sql", link=True)
            await e.containers.life_cycle.start(web)

    asyncio.run(story())


def test_a_link_is_removed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db, web = await pair(e)

            async def full(*_: object, **__: object) -> None:
                raise SystemFault("no space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(e.records, "put", full)
                with pytest.raises(SystemFault):
                    await e.containers.removal.remove("web/sql", link=True)
            assert e.containers.inspection.get("web/sql").id == db
            assert len(hosts(e, web)) == 1
            durable = e.records.durable_puts
            await e.containers.removal.remove("/web/sql", link=True)
            assert e.records.durable_puts == durable + 1
            assert hosts(e, web) == []
            assert e.status(db) is e.status(web) is Status.RUNNING
            with pytest.raises(NotFound, match="No such container: web/sql"):
                await e.containers.removal.remove("web/sql", link=True)
            for ref in ("web", "/web", web):
                with pytest.raises(Conflict, match="Conflict, cannot remove the default link name of the container"):
                    await e.containers.removal.remove(ref, link=True)
            await e.restart()
            assert e.containers.inspection.get(web).links == []
            assert e.containers.inspection.link_names() == {}

    asyncio.run(story())


def test_a_record_of_before_links_is_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run()
            record = json.loads(e.records.all()[id])
            del record["links"]
            await e.records.put(id, json.dumps(record).encode())
            await e.restart()
            assert e.containers.inspection.get(id).links == []

    asyncio.run(story())


def test_which_containers_can_be_linked_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db = await e.run("db")
            await e.run("joined", network_mode="container:db")
            await e.run("outside", network_mode="host")
            await e.run("alone", network_mode="none")
            joins = await e.create("joins", links=["joined:j"])
            assert e.containers.inspection.get("joins/j").id == db
            assert [link.target for link in e.containers.inspection.get(joins).links] == [db]
            await e.create("far", links=["alone"])
            with pytest.raises(Conflict, match="Cannot link to /alone, as it does not belong to the default network"):
                await e.containers.life_cycle.start("far")
            unused = await e.run("unused", network_mode="none", links=["db"])
            assert "DB_NAME" not in str(e.runtime.launches[-1].spec.process)
            assert e.containers.inspection.get("unused/db").id == db
            assert e.status(unused) is Status.RUNNING
            conflict = "networking can't be used with links. This would result in undefined behavior"
            for host, words in (
                (HostConfig(links=["outside"]), f"conflicting options: host type {conflict}"),
                (HostConfig(links=["db"], network_mode="host"), f"conflicting options: host type {conflict}"),
                (
                    HostConfig(links=["db"], network_mode="container:db"),
                    "conflicting options: container type network can't be used with links",
                ),
                (HostConfig(links=["x:y"]), "could not get container for x: No such container: x"),
                (HostConfig(links=[":y"]), 'could not get container for : invalid name or ID supplied: ""'),
            ):
                with pytest.raises(InvalidArgument, match=words):
                    await e.containers.creation.create("", CreateRequest(image="busybox", host_config=host))

    asyncio.run(story())


def test_an_alias_that_is_taken_is_left_out_and_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            db = await e.run("db")
            await e.run("other")
            host = HostConfig(links=["db:a", "other:a", "db:"])
            made = await e.containers.creation.create("web", CreateRequest(image="busybox", host_config=host))
            assert made.warnings == [
                'The link other:a is ignored, as the name "/web/a" is in use already.',
                'The link db: is ignored, as the name "/web" is in use already.',
            ]
            assert [link.target for link in e.containers.inspection.get("web").links] == [db]

    asyncio.run(story())


def test_at_boot_targets_start_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            always = RestartPolicy(name="always")
            c = await e.run("cc", restart_policy=always)
            b = await e.run("bb", restart_policy=always, links=["cc"])
            a = await e.run("aa", restart_policy=always, links=["bb", "cc"])
            joins = await e.run("joins", restart_policy=always, network_mode="container:aa")
            for id in (joins, a, b, c):
                e.runtime.containers[id].exit = ExitStatus(0, e.clock.now_ns())
            await e.restart()
            await settle()
            assert [request.id for request in e.runtime.launches] == [c, b, a, joins]

    asyncio.run(story())
