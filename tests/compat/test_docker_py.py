"""The PyPI package `docker`, as programs use it, against the daemon's unix socket."""

from __future__ import annotations

import gc
import io
import json
import socket
import struct
import tarfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from tests.compat.harness import Daemon
from tests.compat.registry import Registry
from tests.waiting import until

# The package leaves sockets to the garbage collector after hijacked and streamed answers.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SLEEP = ["sleep", "100"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Any]:
    client = docker.DockerClient(base_url=daemon.url, timeout=30)
    yield client
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def frames(raw: bytes) -> list[tuple[int, bytes]]:
    """The parts of a multiplexed stream: its number (1 stdout, 2 stderr) and its bytes."""
    parts = []
    while raw:
        stream, size = struct.unpack(">BxxxL", raw[:8])
        parts.append((stream, raw[8 : 8 + size]))
        raw = raw[8 + size :]
    return parts


def drain(stream: Any) -> bytes:
    """Everything until the other side ends."""
    stream._sock.settimeout(20)
    seen = b""
    while chunk := stream._sock.recv(65536):
        seen += chunk
    return seen


def test_ping_version_info(client: Any) -> None:
    assert client.ping() is True
    assert client.version()["MinAPIVersion"] == "1.24"
    info = client.info()
    assert info["Driver"] == "overlayfs"
    assert info["OSType"] == "linux"


def test_run_gives_the_output_and_removes(client: Any) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    assert client.containers.run("busybox", "sh -c 'echo err >&2'", remove=True, stderr=True, stdout=False) == b"err\n"
    assert client.containers.list(all=True) == []


def test_run_that_fails_is_a_container_error(client: Any) -> None:
    with pytest.raises(ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 4"], remove=True)
    assert caught.value.exit_status == 4
    assert b"why" in caught.value.stderr


def test_errors_have_their_classes(client: Any) -> None:
    with pytest.raises(NotFound):
        client.containers.get("nobody")
    with pytest.raises(ImageNotFound):
        client.images.get("nothing")
    with pytest.raises(NotFound):
        client.volumes.get("nothing")
    with pytest.raises(NotFound):
        client.networks.get("nothing")
    with pytest.raises(APIError) as caught:
        client.containers.create("busybox", name="a/b")
    assert caught.value.status_code == 400
    assert "Invalid container name" in caught.value.explanation
    client.containers.create("busybox", name="twice")
    with pytest.raises(APIError) as caught:
        client.containers.create("busybox", name="twice")
    assert caught.value.status_code == 409
    with pytest.raises(APIError) as caught:
        client.containers.run("busybox", ["no-such-program"], detach=True)
    assert caught.value.status_code == 400
    assert "executable file not found in $PATH" in caught.value.explanation


def test_logs_stream_and_follow(client: Any) -> None:
    box = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done"], detach=True)
    assert b"".join(box.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert box.logs(tail=1) == b"3\n"
    assert box.logs(stdout=False, stderr=True) == b""
    assert box.logs(timestamps=True).split(b"\n")[0].endswith(b"Z 1")


def test_wait_gives_the_status(client: Any) -> None:
    box = client.containers.run("busybox", ["sh", "-c", "exit 6"], detach=True)
    assert box.wait(timeout=20)["StatusCode"] == 6
    assert client.containers.create("busybox", ["true"]).wait(timeout=20, condition="not-running")["StatusCode"] == 0


def test_exec_run(client: Any) -> None:
    box = client.containers.run("busybox", SLEEP, detach=True, environment={"A": "1"})
    assert box.exec_run(["sh", "-c", "echo $A$B; exit 3"], environment={"B": "2"}) == (3, b"12\n")
    assert box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True) == (0, (b"o\n", b"e\n"))
    assert box.exec_run(["tty"], tty=True).output.strip().startswith(b"/dev/pts/")
    assert b"".join(box.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output) == b"1\n2\n"
    assert box.exec_run("id -un", user="app", workdir="/tmp").output == b"app\n"
    assert box.exec_run(["no-such"]).exit_code == 127
    ident = client.api.exec_create(box.id, ["true"])["Id"]
    client.api.exec_start(ident, detach=True)
    assert until(lambda: client.api.exec_inspect(ident)["ExitCode"] is not None, what="the exec's end")


def test_exec_through_a_socket(client: Any) -> None:
    box = client.containers.run("busybox", SLEEP, detach=True)
    ident = client.api.exec_create(box.id, ["cat"], stdin=True)["Id"]
    stream = client.api.exec_start(ident, socket=True)
    stream._sock.sendall(b"there and back\n")
    stream._sock.shutdown(socket.SHUT_WR)
    assert frames(drain(stream)) == [(1, b"there and back\n")]
    stream.close()
    assert until(lambda: client.api.exec_inspect(ident)["Running"] is False, what="the exec's end")
    assert client.api.exec_inspect(ident)["ExitCode"] == 0


def test_attach_with_stdin(client: Any) -> None:
    box = client.containers.create("busybox", ["sh", "-c", "read x; echo got $x; echo bad >&2"], stdin_open=True)
    stream = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    box.start()
    stream._sock.sendall(b"word\n")
    assert frames(drain(stream)) == [(1, b"got word\n"), (2, b"bad\n")]
    stream.close()
    assert box.attach(logs=True, stream=False) == b"got word\nbad\n"


def test_stats_top_diff_and_states(client: Any) -> None:
    box = client.containers.run("busybox", SLEEP, detach=True, name="stated", mem_limit="64m")
    stats = box.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert "eth0" in stats["networks"]
    first = next(box.stats(decode=True))
    assert first["name"] == "/stated"
    assert (first["preread"], first["precpu_stats"]["cpu_usage"]["total_usage"]) == ("0001-01-01T00:00:00Z", 0)
    begin = time.monotonic()
    streams = [box.stats(decode=True) for _ in range(20)]  # each begins without a sample before, and all get the same
    assert {next(stream)["preread"] for stream in streams} == {"0001-01-01T00:00:00Z"}
    later = [next(stream) for stream in streams]
    assert all(sample["preread"] > "2" for sample in later)
    assert len({sample["read"] for sample in later}) <= time.monotonic() - begin + 2
    for stream in streams:
        stream.close()
    assert box.top()["Processes"][0][-1] == "sleep 100"
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("renamed")
    box.reload()
    assert (box.status, box.name) == ("running", "renamed")
    box.restart(timeout=0)
    box.stop(timeout=0)
    box.reload()
    assert (box.status, box.attrs["State"]["ExitCode"]) == ("exited", 137)
    box.remove()
    with pytest.raises(NotFound):
        box.reload()


def test_container_filters(client: Any) -> None:
    one = client.containers.run("busybox", SLEEP, detach=True, name="one", labels={"k": "v"})
    two = client.containers.create("busybox", ["true"], name="two")
    assert [box.id for box in client.containers.list()] == [one.id]
    assert [box.id for box in client.containers.list(all=True, filters={"status": "created"})] == [two.id]
    assert [box.id for box in client.containers.list(filters={"label": "k=v"})] == [one.id]
    assert [box.id for box in client.containers.list(filters={"label": ["k=no"]})] == []
    assert [box.id for box in client.containers.list(all=True, filters={"name": "^tw"})] == [two.id]
    assert len(client.containers.list(all=True, filters={"ancestor": "busybox"})) == 2
    with pytest.raises(APIError) as caught:
        client.containers.list(filters={"nonsense": "x"})
    assert caught.value.status_code == 400


def test_ports_and_environment_in_inspect(client: Any) -> None:
    box = client.containers.run(
        "busybox", SLEEP, detach=True, ports={"80/tcp": ("127.0.0.1", 8300), "53/udp": None}, environment=["X=1"]
    )
    box.reload()
    assert box.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8300"}]
    assert {int(bound["HostPort"]) > 1023 for bound in box.ports["53/udp"]} == {True}
    assert "X=1" in box.attrs["Config"]["Env"]


def test_images_tag_list_save_load_remove(client: Any) -> None:
    image = client.images.get("busybox")
    assert image.tags == ["busybox:latest"]
    assert image.tag("other", tag="2")
    assert sorted(client.images.get("busybox").tags) == ["busybox:latest", "other:2"]
    assert [found.id for found in client.images.list(name="other")] == [image.id]
    assert client.images.list(filters={"reference": "none*"}) == []
    saved = b"".join(client.images.get("other:2").save(named="other:2"))
    client.images.remove("other:2")
    with pytest.raises(ImageNotFound):
        client.images.get("other:2")
    (loaded,) = client.images.load(saved)
    assert "other:2" in loaded.tags
    client.images.remove("other:2")
    assert image.history()


def test_pull_and_push(client: Any, daemon: Daemon) -> None:
    with Registry(daemon) as registry:
        pulled = client.images.pull(registry.image)
        assert registry.image in pulled.tags
        assert pulled.tag("127.0.0.1:5000/test/pushed", tag="3")
        told = list(client.images.push("127.0.0.1:5000/test/pushed", tag="3", stream=True, decode=True))
        assert told[-1]["aux"]["Digest"].startswith("sha256:")
        with pytest.raises((NotFound, ImageNotFound)):
            client.images.pull("127.0.0.1:5000/test/none", tag="1")
        client.images.remove(registry.image)
        client.images.remove("127.0.0.1:5000/test/pushed:3")


def test_networks_and_volumes(client: Any) -> None:
    assert sorted(network.name for network in client.networks.list()) == ["bridge", "host", "none"]
    assert client.networks.get("bridge").attrs["Driver"] == "bridge"
    volume = client.volumes.create("pyvol", labels={"a": "b"})
    client.containers.run("busybox", "touch /d/f", volumes={"pyvol": {"bind": "/d", "mode": "rw"}}, remove=True)
    assert client.containers.run("busybox", "ls /d", volumes=["pyvol:/d:ro"], remove=True) == b"f\n"
    assert [found.name for found in client.volumes.list(filters={"label": "a=b"})] == ["pyvol"]
    box = client.containers.create("busybox", volumes=["pyvol:/d"])
    with pytest.raises(APIError) as caught:
        volume.remove()
    assert caught.value.status_code == 409
    box.remove()
    volume.remove()


def test_events_are_decoded(client: Any) -> None:
    start = time.time()
    client.containers.run("busybox", ["true"], name="told", remove=True)
    told = client.events(since=start - 1, until=time.time() + 0.3, filters={"container": "told"}, decode=True)
    actions = [event["Action"] for event in told]
    assert [action for action in actions if action in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_an_image_made_from_a_tar(client: Any) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    client.api.import_image_from_data(data.getvalue(), repository="made", tag="1")
    assert client.images.get("made:1").attrs["RootFS"]["Layers"]
    client.images.remove("made:1")


def test_disk_usage_names_images_as_users_do(client: Any, daemon: Daemon) -> None:
    usage = json.loads(daemon.curl("/v1.51/system/df").out)
    assert [image["RepoTags"] for image in usage["Images"]] == [["busybox:latest"]]
    assert usage["LayersSize"] > 0
    items = client.api._get(client.api._url("/system/df"), params={"verbose": "1"}).json()["ImageUsage"]["Items"]
    assert [image["RepoTags"] for image in items] == [["busybox:latest"]]
