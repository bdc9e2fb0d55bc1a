"""The PyPI package `docker` against the API: what its users do."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest

from tests.unit.api.support import TIMEOUT, Api

# The package does not close the responses whose socket it has taken over.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def client(api: Api) -> Iterator[Any]:
    made = docker.DockerClient(base_url=f"unix://{api.path}", timeout=TIMEOUT)
    yield made
    made.close()
    gc.collect()  # what the package leaves behind is complained of here and not in another test


def test_the_version_is_negotiated(client: Any) -> None:
    assert client.ping() is True
    assert client.version()["MinAPIVersion"] == "1.24"
    assert client.info()["ID"] == "memory"


def test_a_container_from_create_to_remove(client: Any) -> None:
    container = client.containers.create(
        "busybox", ["echo", "two words"], name="one", labels={"a": "b"}, ports={"80/tcp": 8080}, mem_limit="64m"
    )
    assert container.status == "created"
    container.start()
    container.reload()
    assert container.status == "running"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert container.ports == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert container.image.tags == ["busybox:latest"]
    assert [found.name for found in client.containers.list(filters={"label": "a=b", "name": "one"})] == ["one"]
    container.pause()
    container.unpause()
    container.rename("two")
    container.stop()
    assert container.wait()["StatusCode"] == 143
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("two")


def test_logs_are_taken_apart(client: Any, api: Api) -> None:
    container = client.containers.create("busybox", "sh")
    api.engine.containers.log_lines[container.id] = ["one\n", "two\n", "three\n"]
    assert container.logs() == b"one\ntwo\nthree\n"
    assert container.logs(tail=1) == b"three\n"
    assert list(container.logs(stream=True)) == [b"one\n", b"two\n", b"three\n"]


def test_exec_and_its_exit_code(client: Any) -> None:
    container = client.containers.create("busybox", "sh")
    container.start()
    result = container.exec_run(["echo", "hi"])
    assert (result.exit_code, result.output) == (0, b"echo hi\n")
    assert client.api.exec_inspect(client.api.exec_create(container.id, "true")["Id"])["Running"] is False


def test_an_attached_socket_is_the_program_itself(client: Any) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True, tty=True)
    container.start()
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    sock._sock.sendall(b"through")
    sock._sock.shutdown(1)
    assert sock.read(100) == b"THROUGH"
    sock._sock.close()
    sock.close()


def test_stats_come_with_the_sample_before(client: Any) -> None:
    container = client.containers.create("busybox", "sh")
    container.start()
    stream = container.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert first["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert second["precpu_stats"] == first["cpu_stats"]
    assert second["preread"] == first["read"]
    stream.close()


def test_images(client: Any, api: Api) -> None:
    pulled = client.images.pull("registry.example:5000/team/app", tag="1")
    assert pulled.tags == ["registry.example:5000/team/app:1"]
    assert pulled.tag("other", tag="2") is True
    assert "other:2" in client.images.get(pulled.id).tags
    assert {tag for image in client.images.list() for tag in image.tags} >= {"busybox:latest", "other:2"}
    assert [layer["CreatedBy"] for layer in pulled.history()] == ["CMD sh", "ADD rootfs"]
    assert b"".join(pulled.save()).startswith(b"archive of sha256:")
    loaded = client.images.load(io.BytesIO(b"x" * 3_000_000).getvalue())
    assert [image.tags for image in loaded] == [["loaded:latest"]]
    assert len(api.engine.archives.uploaded) == 3_000_000
    assert "digest" in client.images.push("busybox")
    client.images.remove("other:2", force=True)
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("other:2")


def test_a_pull_that_fails_at_once_and_one_that_fails_later(client: Any) -> None:
    with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
        client.images.pull("missing", tag="1")
    lines = list(client.api.pull("broken.example/app", tag="1", stream=True, decode=True))
    assert lines[-1] == {"errorDetail": {"message": "unexpected EOF"}, "error": "unexpected EOF"}


def test_events(client: Any) -> None:
    stream = client.events(decode=True, filters={"event": "start"})
    container = client.containers.create("busybox", "sh", name="watched")
    container.start()
    event = next(stream)
    assert (event["Type"], event["Action"], event["Actor"]["ID"]) == ("container", "start", container.id)
    assert event["Actor"]["Attributes"]["name"] == "watched"
    stream.close()


def test_volumes_and_networks(client: Any) -> None:
    volume = client.volumes.create("data", labels={"kind": "test"}, driver_opts={"type": "tmpfs"})
    assert client.volumes.get("data").attrs["Labels"] == {"kind": "test"}
    assert [found.name for found in client.volumes.list(filters={"label": "kind=test"})] == ["data"]
    volume.remove()
    assert client.volumes.list() == []
    assert {network.name for network in client.networks.list()} == {"bridge", "host", "none"}
    with pytest.raises(docker.errors.APIError, match="NetworkCreate is not implemented") as caught:
        client.networks.create("mine")
    assert caught.value.status_code == 501
