"""Containers over the wire: life cycle, listing, waiting, logs, and clients that go away."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from urllib.parse import quote

import pytest

from corten.api.docker.app import ApiSettings
from corten.engine.models import Health, Link, Status
from tests.unit.api.support import Api, UnixConnection, read_all, read_head, serve
from tests.waiting import until


def names(api: Api, **filters: list[str]) -> list[str]:
    answer = api.get("/containers/json?all=1&filters=" + quote(json.dumps(filters)))
    assert answer.status == 200, answer.body
    return sorted(entry["Names"][0] for entry in answer.json)


def test_the_life_of_a_container(api: Api) -> None:
    container_id = api.create("web", Cmd=["sleep", "1 day"])
    path = f"/containers/{container_id}"
    assert api.post(f"{path}/start").status == 204
    assert api.post(f"{path}/start").status == 304
    assert api.post(f"{path}/pause").status == 204
    assert api.post(f"{path}/pause").status == 409
    assert api.post(f"{path}/unpause").status == 204
    assert api.post(f"{path}/restart?t=1").status == 204
    assert api.post(f"{path}/kill?signal=TERM").status == 204
    assert api.post(f"{path}/kill").status == 409
    assert api.post(f"{path}/stop").status == 304
    assert api.post(f"{path}/rename?name=other").status == 204
    assert api.get("/containers/other/json").json["Name"] == "/other"
    assert api.request("DELETE", path).status == 204
    gone = api.get(f"{path}/json")
    assert (gone.status, gone.json) == (404, {"message": f"No such container: {container_id}"})


def test_a_running_container_is_removed_by_force_only(api: Api) -> None:
    api.started("web")
    assert api.request("DELETE", "/containers/web").status == 409
    assert api.request("DELETE", "/containers/web?force=true&v=1").status == 204


def test_a_name_is_taken_once(api: Api) -> None:
    first = api.create("web")
    answer = api.post("/containers/create?name=/web", {"Image": "busybox"})
    assert answer.status == 409
    assert f'The container name "/web" is already in use by container "{first}"' in answer.json["message"]


def test_listing_shows_what_runs_unless_asked_for_more(api: Api) -> None:
    api.create("made")
    api.started("running")
    assert [entry["Names"] for entry in api.get("/containers/json").json] == [["/running"]]
    assert len(api.get("/containers/json?all=true").json) == 2
    assert [entry["Names"] for entry in api.get("/containers/json?limit=1").json] == [["/running"]]
    assert [entry["Names"] for entry in api.get('/containers/json?filters={"status":["created"]}').json] == [["/made"]]
    assert "SizeRw" not in api.get("/containers/json").json[0]
    assert api.get("/containers/json?size=1").json[0]["SizeRootFs"] == 1010


def test_links_are_names_too(api: Api) -> None:
    target, source = api.create("zdb"), api.create("web")
    web = api.engine.containers.get(source)
    web.links = [Link(alias="sql", target=target, name="zdb"), Link(alias="again", target=target, name="zdb")]
    listed = {entry["Id"]: entry["Names"] for entry in api.get("/containers/json?all=1").json}
    assert listed == {target: ["/web/again", "/web/sql", "/zdb"], source: ["/web"]}
    shown = api.get(f"/containers/{source}/json").json["HostConfig"]["Links"]
    assert shown == ["/zdb:/web/sql", "/zdb:/web/again"]
    for path in ("/containers/web/nosuch/json", "/containers/web/nosuch/logs?stdout=1"):
        assert api.get(path).json == {"message": "No such container: web/nosuch"}
    assert api.get("/containers//zdb/json").json["Id"] == target  # as users write it: /zdb


def test_every_filter(api: Api) -> None:
    api.create("old", Labels={"tier": "db"})
    middle = api.started("middle", ExposedPorts={"80/tcp": {}}, Labels={"tier": "web", "on": ""})
    api.started("young", HostConfig={"PortBindings": {"53/udp": [{"HostPort": "5353"}]}}, ExposedPorts={"53/udp": {}})
    api.do(lambda: api.engine.containers.exit("young", 3))
    api.do(lambda: setattr(api.engine.containers.get("middle").state, "health", Health(status="healthy")))
    assert names(api, name=["^/mid"]) == names(api, name=["^mid"]) == ["/middle"]
    assert names(api, name=["middle", "old"]) == ["/middle", "/old"]
    assert names(api, id=[middle[:12]]) == ["/middle"]
    assert names(api, label=["tier"]) == ["/middle", "/old"]
    assert names(api, label=["tier=web", "on"]) == ["/middle"]
    assert names(api, before=["middle"]) == ["/old"]
    assert names(api, since=["middle"]) == ["/young"]
    assert names(api, status=["exited", "created"]) == ["/old", "/young"]
    assert names(api, exited=["3"]) == ["/young"]
    assert names(api, exited=["0"]) == []
    assert names(api, health=["healthy"]) == ["/middle"]
    assert names(api, ancestor=["busybox:latest"]) == ["/middle", "/old", "/young"]
    assert names(api, ancestor=["nothing"]) == []
    assert names(api, expose=["79-81"]) == ["/middle"]
    assert names(api, publish=["5353/udp"]) == []  # it does not run
    api.post("/containers/young/start")
    assert names(api, publish=["5353/udp"]) == ["/young"]
    assert names(api, publish=["5353"]) == []
    assert names(api, network=["bridge"]) == ["/middle", "/old", "/young"]
    assert names(api, network=["b" * 12]) == ["/middle", "/old", "/young"]
    assert names(api, volume=["data"]) == []
    assert names(api, **{"is-task": ["true"]}) == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ('{"nope":["x"]}', "invalid filter 'nope'"),
        ('{"status":["nope"]}', "invalid filter 'status=nope'"),
        ('{"is-task":["maybe"]}', "invalid filter 'is-task=[maybe]'"),
        ("{", "invalid filters"),
        ("[1]", "invalid filters"),
        ('{"a":' * 1000, "invalid filters"),
    ],
)
def test_bad_filters(api: Api, filters: str, message: str) -> None:
    answer = api.get("/containers/json?filters=" + quote(filters))
    assert (answer.status, answer.json) == (400, {"message": message})


@pytest.mark.parametrize("pattern", ["(" * 3000, "a{99999999999}", "["])
def test_a_pattern_that_is_none(api: Api, pattern: str) -> None:
    answer = api.get("/containers/json?filters=" + quote(json.dumps({"name": [pattern]})))
    assert answer.status == 400
    assert answer.json["message"].startswith("error parsing regexp: ")


def test_filters_in_their_old_form(api: Api) -> None:
    api.create("one", Labels={"a": "b"})
    answer = api.get("/containers/json?all=1&filters=" + quote('{"label":{"a=b":true,"c":false}}'))
    assert [entry["Names"] for entry in answer.json] == [["/one"]]


def test_wait_sends_its_headers_before_the_container_ends(api: Api) -> None:
    container_id = api.create("web")
    with api.connect() as sock:
        sock.sendall(f"POST /containers/{container_id}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 200")
        api.post(f"/containers/{container_id}/start")
        api.do(lambda: api.engine.containers.exit("web", 7))
        while b"}" not in rest:
            rest += sock.recv(1024)
        assert b'{"StatusCode":7}' in rest


def test_wait_for_what_has_ended_and_for_nonsense(api: Api) -> None:
    container_id = api.started()
    api.post(f"/containers/{container_id}/kill")
    assert api.post(f"/containers/{container_id}/wait").json == {"StatusCode": 137}
    answer = api.post(f"/containers/{container_id}/wait?condition=later")
    assert (answer.status, answer.json) == (400, {"message": 'invalid condition: "later"'})


def test_a_client_that_goes_away_waits_no_longer(api: Api) -> None:
    container_id = api.started()
    with api.connect() as sock:
        sock.sendall(f"POST /containers/{container_id}/wait HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        read_head(sock)
        assert api.do(lambda: api.engine.containers.waiting(container_id)) == 1
    until(lambda: api.do(lambda: api.engine.containers.waiting(container_id)) == 0)


def test_followed_logs_send_headers_at_once_and_end_with_the_container(api: Api) -> None:
    container_id = api.started()
    with api.connect() as sock:
        request = f"GET /containers/{container_id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(request.encode())
        head, rest = read_head(sock)
        assert b"Content-Type: application/vnd.docker.multiplexed-stream" in head
        api.do(lambda: api.engine.containers.exit(container_id, 0))
        while not rest.endswith(b"0\r\n\r\n"):
            rest += sock.recv(1024)


def test_a_client_that_goes_away_before_the_first_line_follows_no_longer(api: Api) -> None:
    container_id = api.started()
    with api.connect() as sock:
        request = f"GET /containers/{container_id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(request.encode())
        until(lambda: api.do(lambda: api.engine.containers.waiting(container_id)) == 1)
    until(lambda: api.do(lambda: api.engine.containers.waiting(container_id)) == 0)


def test_logs_need_a_stream(api: Api) -> None:
    container_id = api.create()
    answer = api.get(f"/containers/{container_id}/logs")
    assert answer.json == {"message": "Bad parameters: you must choose at least one stream"}
    api.do(lambda: api.engine.containers.log_lines.update({container_id: ["a\n", "b\n"]}))
    answer = api.get(f"/containers/{container_id}/logs?stdout=1&tail=1")
    assert answer.body == struct.pack(">BxxxL", 1, 2) + b"b\n"
    assert api.get(f"/v1.41/containers/{container_id}/logs?stdout=1").headers["Content-Type"] == (
        "application/vnd.docker.raw-stream"
    )


def test_resizing_a_terminal(api: Api) -> None:
    container_id = api.started(Tty=True)
    assert api.post(f"/containers/{container_id}/resize?h=40&w=120").status == 200
    assert api.do(lambda: api.engine.containers.terminal_sizes[container_id]) == (40, 120)
    answer = api.post(f"/containers/{container_id}/resize?h=x&w=120")
    assert (answer.status, answer.json) == (400, {"message": 'invalid resize height "x": invalid syntax'})


def test_update(api: Api) -> None:
    container_id = api.create()
    body = {"Memory": 1 << 26, "RestartPolicy": {"Name": "always"}}
    assert api.post(f"/containers/{container_id}/update", body).json == {"Warnings": []}
    host = api.get(f"/containers/{container_id}/json").json["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]) == (1 << 26, {"Name": "always", "MaximumRetryCount": 0})


def test_update_of_what_follows_a_failing_health_check(api: Api) -> None:
    container_id = api.create()
    path = f"/containers/{container_id}"
    assert api.post(f"{path}/update", {"Healthcheck": {"OnFailure": "stop"}}).json == {"Warnings": []}
    assert api.get(f"{path}/json").json["Config"]["Healthcheck"] == {"OnFailure": "stop"}
    answer = api.post(f"{path}/update", {"Healthcheck": {"OnFailure": "kill", "Retries": 2}})
    assert (answer.status, answer.json) == (
        400,
        {"message": "of Healthcheck, only OnFailure can be changed on an existing container"},
    )


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "invalid JSON: "),
        (b'{"Tty": 1}', {"Content-Type": "application/json"}, 400, "invalid JSON: "),
        (b'{"Image": "missing/image"}', {"Content-Type": "application/json"}, 404, "No such image: missing/image:late"),
        (b"{}", {"Content-Type": "text/plain"}, 400, "unsupported Content-Type header (text/plain): must be 'applica"),
        (b"{}", {"Content-Type": "json"}, 400, "malformed Content-Type header (json)"),
        (b"{}", {}, 400, "unsupported Content-Type header (): must be 'application/json'"),
        (None, {}, 400, "invalid JSON: got EOF while reading request body"),
    ],
)
def test_bad_bodies(api: Api, body: bytes | None, headers: dict[str, str], status: int, message: str) -> None:
    answer = api.post("/containers/create", body, headers)
    assert answer.status == status
    assert answer.json["message"].startswith(message)


def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    with serve(tmp_path, settings=ApiSettings(max_body=1000)) as api:
        assert api.post("/containers/create", {"Image": "busybox", "Cmd": ["x" * 900]}).status == 201
        answer = api.post("/containers/create", {"Image": "busybox", "Cmd": ["x" * 1000]})
        assert answer.status == 413
        connection = UnixConnection(api.path)
        connection.putrequest("POST", "/containers/create")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(1 << 30))
        connection.endheaders(b" " * 2000)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_container_that_ends_is_shown_with_its_code(api: Api) -> None:
    container_id = api.started("web")
    assert api.get("/containers/json").json[0]["Status"].startswith("Up ")
    api.do(lambda: api.engine.containers.exit("web", 3))
    entry = api.get("/containers/json?all=1").json[0]
    assert (entry["State"], entry["Status"]) == ("exited", "Exited (3) Less than a second ago")
    state = api.get(f"/containers/{container_id}/json").json["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == (Status.EXITED, 3, False)


def test_network_settings_of_old_and_new_clients(api: Api) -> None:
    container_id = api.started()
    old = api.get(f"/v1.51/containers/{container_id}/json").json
    assert old["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert old["GraphDriver"]["Name"] == "overlayfs"
    new = api.get(f"/v1.52/containers/{container_id}/json").json
    assert "IPAddress" not in new["NetworkSettings"]
    assert new["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert new["Storage"]["RootFS"]["Snapshot"]["Name"] == "overlayfs"


def test_stats_of_one_moment(api: Api) -> None:
    container_id = api.started()
    answer = api.get(f"/containers/{container_id}/stats?stream=false&one-shot=true").json
    assert answer["preread"] == "0001-01-01T00:00:00Z"
    assert answer["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert api.get(f"/containers/{container_id}/stats?one-shot=true").status == 400


def test_prune(api: Api) -> None:
    stopped = api.create()
    api.started()
    assert api.post("/containers/prune").json == {"ContainersDeleted": [stopped], "SpaceReclaimed": 10}
    assert api.post("/containers/prune").json == {"ContainersDeleted": None, "SpaceReclaimed": 0}


def test_many_requests_in_one_write(api: Api) -> None:
    with api.connect() as sock:
        one = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
        sock.sendall(one * 4 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 5


def test_a_container_is_shown_with_its_image_as_long_as_the_name_means_it(api: Api) -> None:
    by_name, by_id = api.create("by-name"), api.create("by-id")
    image_id = api.get("/images/busybox/json").json["Id"]
    api.do(lambda: setattr(api.engine.containers.get("by-id"), "image_name", image_id[7:19]))

    def shown() -> dict[str, str]:
        return {entry["Id"]: entry["Image"] for entry in api.get("/containers/json?all=1").json}

    assert shown() == {by_name: "busybox", by_id: image_id[7:19]}
    api.do(lambda: api.engine.images.get("busybox").names.clear())
    assert shown() == {by_name: image_id, by_id: image_id[7:19]}
