"""What users write: names, ports, mounts, keys, signals, commands; and what is made of it."""

from __future__ import annotations

import msgspec
import pytest

from corten.engine.containers import (
    detach,
    etcfiles,
    imagemerge,
    mountspec,
    names,
    ports,
    processes,
    prune,
    restarts,
    signals,
)
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.models import Container
from corten.errors import InvalidArgument
from corten.network.types import PortMapping
from corten.specs.container import (
    BindOptions,
    ContainerConfig,
    HealthConfig,
    HostConfig,
    ImageOptions,
    Mount,
    PortBinding,
    RestartPolicy,
    TmpfsOptions,
    VolumeOptions,
)
from corten.specs.oci_image import RunConfig
from corten.testing.storage import MemoryDocuments


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@,ctrl-[,x", b"\x00\x1bx"),
        ("ctrl-\\", b"\x1c"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert detach.parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-1", "ab", "a,,b", "é"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Unknown character"):
        detach.parse(text)


def test_signals() -> None:
    assert [signals.parse(text) for text in ("TERM", "sigterm", "15", "RTMIN+3", "64")] == [15, 15, 15, 37, 64]
    for text in ("", "0", "65", "BOGUS"):
        with pytest.raises(InvalidArgument, match="invalid signal"):
            signals.parse(text)


def test_names() -> None:
    assert names.check("/web.1") == "web.1"
    for text in ("a", "-a", "a b", "ä1", ""):
        with pytest.raises(InvalidArgument, match="only \\[a-zA-Z0-9\\]"):
            names.check(text)
    invented = {names.invent(()) for _ in range(50)}
    assert all(names.check(name) == name for name in invented)
    assert len(invented) > 40


def test_ports() -> None:
    host = HostConfig(
        port_bindings={
            "80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080"), PortBinding(host_port="9000-9010")],
            "53/udp": [],
        },
        publish_all_ports=True,
    )
    assert ports.mappings(host, ["80/tcp", "443"]) == (
        PortMapping("tcp", 80, "127.0.0.1", 8080),
        PortMapping("tcp", 80, "", 9000, 9010),
        PortMapping("udp", 53),
        PortMapping("tcp", 443),
    )
    assert ports.expand_exposed("8000-8002/udp") == ["8000/udp", "8001/udp", "8002/udp"]
    assert ports.table(["81"], [PortMapping("tcp", 80, "0.0.0.0", 8080)]) == {
        "81/tcp": None,
        "80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080")],
    }
    for bad in ("x", "0/tcp", "70000", "80/foo", ""):
        with pytest.raises(InvalidArgument, match="invalid port specification"):
            ports.parse_port(bad)
    with pytest.raises(InvalidArgument, match='invalid port specification: "99999"'):
        ports.mappings(HostConfig(port_bindings={"80/tcp": [PortBinding(host_port="99999")]}), [])


def test_binds() -> None:
    bind = mountspec.parse_bind("/src/../h:/c/:ro,rslave")
    assert (bind.type, bind.source, bind.destination, bind.rw, bind.propagation) == (
        "bind",
        "/h",
        "/c",
        False,
        "rslave",
    )
    assert bind.create_source
    volume = mountspec.parse_bind("data:/d:nocopy")
    assert (volume.type, volume.source, volume.copy, volume.rw) == ("volume", "data", False, True)
    anonymous = mountspec.parse_bind("/only:ro")
    assert (anonymous.type, anonymous.source, anonymous.destination, anonymous.rw) == ("volume", "", "/only", False)
    for bad in ("a:b", "/a:/", "::", ""):
        with pytest.raises(InvalidArgument, match="invalid volume specification"):
            mountspec.parse_bind(bad)
    for mode in ("rw,ro", "nope", "nocopy"):
        with pytest.raises(InvalidArgument) as caught:
            mountspec.parse_bind(f"/a:/b:{mode}")
        assert caught.value.message == f"invalid mode: {mode}"


def test_mounts() -> None:
    tmpfs = mountspec.parse_mount(
        Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=1024, mode=0o700, options=[["exec"]]))
    )
    assert tmpfs.tmpfs == ("nosuid", "nodev", "noexec", "size=1024", "mode=700", "exec")
    bind = mountspec.parse_mount(
        Mount(type="bind", source="/a", target="/b", read_only=True, bind_options=BindOptions(non_recursive=True))
    )
    assert (bind.rw, bind.non_recursive, bind.create_source, bind.propagation) == (False, True, False, "rprivate")
    with pytest.raises(InvalidArgument, match='type "bind": field Source must not be empty'):
        mountspec.parse_mount(Mount(type="bind", target="/b"))
    with pytest.raises(InvalidArgument, match='type "volume": field Target must not be empty'):
        mountspec.parse_mount(Mount(type="volume"))
    for kind in ("npipe", "cluster", "bogus"):
        with pytest.raises(InvalidArgument, match=f'invalid mount config for type "{kind}": mount type unknown'):
            mountspec.parse_mount(Mount(type=kind, source="x", target="/b"))


def test_images_as_mounts() -> None:
    part = ImageOptions(subpath="a/b")
    image = mountspec.parse_mount(Mount(type="image", source="x", target="/b/", image_options=part))
    assert (image.type, image.source, image.destination, image.subpath) == ("image", "x", "/b", "a/b")
    assert (image.rw, image.propagation) == (False, "rprivate")
    for bad, words in (
        ({"source": ""}, "field Source must not be empty"),
        ({"bind_options": BindOptions()}, "field BindOptions must not be specified"),
        ({"volume_options": VolumeOptions()}, "field VolumeOptions must not be specified"),
        ({"image_options": ImageOptions(subpath="/a")}, "subpath must be a relative path within the volume"),
        ({"image_options": ImageOptions(subpath="a/../../b")}, "subpath must be a relative path within the volume"),
    ):
        with pytest.raises(InvalidArgument, match=f'invalid mount config for type "image": {words}'):
            mountspec.parse_mount(msgspec.structs.replace(Mount(type="image", source="x", target="/b"), **bad))


def test_image_volumes_give_way() -> None:
    config = ContainerConfig(volumes={"/data": {}, "/other": {}})
    found = mountspec.wishes(config, HostConfig(binds=["/h:/data"]))
    assert [(wish.type, wish.destination) for wish in found] == [("bind", "/data"), ("volume", "/other")]


def test_merging_an_image() -> None:
    image = RunConfig(
        env=["PATH=/x", "A=image"],
        entrypoint=["/entry"],
        cmd=["default"],
        labels={"a": "image", "b": "image"},
        exposed_ports={"80/tcp": {}},
        user="app",
        healthcheck=HealthConfig(test=["CMD", "x"], retries=5),
    )
    config = ContainerConfig(
        env=["A=own"], labels={"a": "own"}, exposed_ports={"81/tcp": {}}, healthcheck=HealthConfig(retries=1)
    )
    imagemerge.merge(config, image)
    assert imagemerge.command(config) == ["/entry", "default"]
    assert config.env == ["A=own", "PATH=/x"]
    assert config.labels == {"a": "own", "b": "image"}
    assert config.exposed_ports == {"80/tcp": {}, "81/tcp": {}}
    assert config.user == "app"
    assert config.healthcheck == HealthConfig(test=["CMD", "x"], retries=1)


def test_commands() -> None:
    def of(config: ContainerConfig) -> list[str]:
        imagemerge.merge(config, RunConfig(entrypoint=["/entry"], cmd=["default"]))
        return imagemerge.command(config)

    assert of(ContainerConfig(cmd=["own"])) == ["/entry", "own"]
    assert of(ContainerConfig(entrypoint=["/own"])) == ["/own"]
    assert of(ContainerConfig(entrypoint=[""], cmd=["sh"])) == ["sh"]
    with pytest.raises(InvalidArgument, match="no command specified"):
        of(ContainerConfig(entrypoint=[""]))


def test_resolv_conf() -> None:
    host = "# made by x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nsearch a b\noptions ndots:1\n"
    none = etcfiles.Resolver()
    assert etcfiles.resolv_conf(host, none) == "nameserver 10.0.0.1\nsearch a b\noptions ndots:1\n"
    assert etcfiles.resolv_conf("nameserver 127.0.0.1\n", none) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert etcfiles.resolv_conf(host, none, host_network=True) == host
    own = etcfiles.Resolver(("1.1.1.1",), (".",), ("timeout:1",))
    assert etcfiles.resolv_conf(host, own) == "nameserver 1.1.1.1\noptions timeout:1\n"


def test_hosts() -> None:
    text = etcfiles.hosts(
        ["172.17.0.2"], "box", "example.org", ["db:10.0.0.9", "h:host-gateway", "v6:[::2]"], "172.17.0.1"
    )
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.0.0.9\tdb\n172.17.0.1\th\n::2\tv6\n172.17.0.2\tbox.example.org box\n")


def test_restart_rules() -> None:
    pauses, previous = [], 0.0
    for _ in range(12):
        previous = restarts.pause(previous, 0)
        pauses.append(previous)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 60
    assert restarts.pause(60, 10) == 0.1
    on_failure = RestartPolicy(name="on-failure", maximum_retry_count=2)
    assert [restarts.wanted(on_failure, code, count) for code, count in ((0, 0), (1, 0), (1, 2))] == [
        False,
        True,
        False,
    ]


def test_ps_output() -> None:
    output = "UID   PID  PPID CMD\nroot    1     0 init\nroot  200     1 sh -c sleep 1\n"
    top = processes.parse(output, [200])
    assert top.titles == ["UID", "PID", "PPID", "CMD"]
    assert top.processes == [["root", "200", "1", "sh -c sleep 1"]]
    with pytest.raises(InvalidArgument, match="Couldn't find PID field"):
        processes.parse("CMD\nsh\n", [1])


def container(id: str, name: str, created_ns: int = 0, labels: dict[str, str] | None = None) -> Container:
    return Container(
        id=id,
        name=name,
        created_ns=created_ns,
        image_id="",
        image_name="",
        chain_id="",
        path="",
        args=[],
        config=ContainerConfig(labels=labels),
        host_config=HostConfig(),
    )


def test_finding() -> None:
    catalog = Catalog(MemoryDocuments())
    for subject in (container("ab" * 32, "one"), container("ac" * 32, "ab")):
        catalog.claim(subject.name, subject.id)
        catalog.show(Entry(subject))
    assert catalog.find("/one").container.name == "one"
    assert catalog.find("ab").container.name == "ab"  # a name before the start of an id
    assert catalog.find("aba").container.name == "one"
    with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: a"):
        catalog.find("a")


def test_prune_filters() -> None:
    old = container("1", "a", created_ns=10**18, labels={"env": "test"})
    hour = 3600 * 10**9
    assert prune.selector({"until": ["1h"]}, 10**18 + hour)(old)
    assert not prune.selector({"until": ["1h30m"]}, 10**18 + hour)(old)
    assert prune.selector({"label": ["env=test"]}, 0)(old)
    assert not prune.selector({"label!": ["env"]}, 0)(old)
    with pytest.raises(InvalidArgument, match="invalid filter"):
        prune.selector({"bogus": ["x"]}, 0)
