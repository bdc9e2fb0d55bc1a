"""Every operation of the API's description is served, or refused by its name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from corten.api.docker.app import make_router
from corten.api.docker.unsupported import OPERATIONS
from tests.unit.api import schema
from tests.unit.api.support import Api, read_all, read_head, serve

# Where Docker's own answers are not what the description says: null for "not set", a member that does not exist.
DOCKERS_OWN = ("MemorySwappiness: null", "OomKillDisable: null", "ExitCode: null", "UnpackedSize is missing")
REFUSED = {line.split()[2] for line in OPERATIONS.splitlines() if line}


def concrete(path: str) -> str:
    return path.replace("{id}", "nothing").replace("{name}", "nothing/at:all" if "/images" in path else "nothing")


def test_every_operation_is_routed() -> None:
    router = make_router()
    operations = schema.operations()
    assert len(operations) == 108
    assert [op for op in operations if router.find(op[0], concrete(op[1])) is None] == []


def test_every_operation_is_served_or_answers_501_with_its_name(api: Api) -> None:
    wrong = []
    for method, path, name in schema.operations():
        if name in ("SystemEvents",):
            continue  # its answer has no end
        body: dict[str, str] | None = (
            {} if method in ("POST", "PUT") and not path.endswith(("/attach", "/load", "/start")) else None
        )
        answer = api.request(method, concrete(path), body)
        if name in REFUSED:
            if answer.status != 501 or (method != "HEAD" and name not in answer.json["message"]):
                wrong.append((name, answer.status, answer.body))
        elif answer.status >= 500 or b"page not found" in answer.body:
            wrong.append((name, answer.status, answer.body))
    assert wrong == []


def test_what_is_refused_is_in_the_description_or_older() -> None:
    assert {name for _, _, name in schema.operations()} >= REFUSED - {"BuildCancel", "Grpc"}


@pytest.mark.parametrize("version", ["", "/v1.43", "/v1.24"])
def test_answers_have_the_shape_of_the_description(api: Api, version: str) -> None:
    container_id = api.started(
        "shaped",
        ExposedPorts={"80/tcp": {}, "53/udp": {}},
        Volumes={"/data": {}},
        Labels={"a": "b"},
        Healthcheck={"Test": ["CMD", "true"], "Interval": 10**9},
        HostConfig={
            "PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
            "Mounts": [{"Type": "tmpfs", "Target": "/tmp"}],
            "LogConfig": {"Type": "json-file"},
            "CgroupnsMode": "private",
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        },
    )
    api.post("/volumes/create", {"Name": "data"})
    exec_id = api.post(f"/containers/{container_id}/exec", {"Cmd": ["true"]}).json["Id"]
    found = []
    for path, query, names in (
        ("/containers/json", "?all=1&size=1", {}),
        ("/containers/{id}/json", "?size=1", {"id": container_id}),
        ("/containers/{id}/top", "", {"id": container_id}),
        ("/containers/{id}/stats", "?stream=0&one-shot=1", {"id": container_id}),
        ("/exec/{id}/json", "", {"id": exec_id}),
        ("/images/json", "?manifests=1", {}),
        ("/images/{name}/json", "?manifests=1", {"name": "busybox"}),
        ("/images/{name}/history", "", {"name": "busybox"}),
        ("/networks", "", {}),
        ("/networks/{id}", "", {"id": "bridge"}),
        ("/volumes", "", {}),
        ("/volumes/{name}", "", {"name": "data"}),
        ("/plugins", "", {}),
        ("/version", "", {}),
        ("/system/df", "", {}),
    ):
        answer = api.get(version + path.format(**names) + query)
        assert answer.status == 200, (path, answer.body)
        found += [f"{path}: {fault}" for fault in schema.faults(answer.json, schema.answer_schema("GET", path, 200))]
    assert [fault for fault in found if not fault.endswith(DOCKERS_OWN)] == []


def test_the_check_itself_finds_faults() -> None:
    volume = schema.answer_schema("GET", "/volumes/{name}", 200)
    assert schema.faults({"Name": 1}, volume)[-1] == "$.Name: int instead of string"


def test_a_new_server_takes_the_place_of_one_that_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with serve(tmp_path) as api:
            assert api.get("/_ping").body == b"OK"


def test_streams_without_an_end_do_not_hold_up_a_server_that_stops(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        container_id = api.started()
        requests = ("GET /events", f"POST /containers/{container_id}/wait", f"GET /containers/{container_id}/stats")
        socks = []
        for request in requests:
            socks.append(api.connect())
            socks[-1].sendall(f"{request} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
            assert read_head(socks[-1])[0].startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    for sock in socks:
        read_all(sock)
        sock.close()
