"""Versions, ping, errors, events, and what belongs to images, volumes and networks alone."""

from __future__ import annotations

import base64
import errno
import json
from urllib.parse import quote

import pytest

from corten import errors
from corten.api.docker.encode_usage import totals
from corten.api.docker.errors import http_message, http_status
from corten.api.docker.params import parse_auth, parse_auths, parse_filters, parse_time
from corten.engine.models import RegistryAuth
from corten.specs.container import ContainerConfig
from tests.unit.api.support import Api, read_head
from tests.waiting import until

NOW = 1_700_000_000 * 10**9


def test_ping(api: Api) -> None:
    answer = api.get("/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    wanted = {
        "Api-Version": "1.56",
        "Docker-Experimental": "false",
        "Ostype": "linux",
        "Builder-Version": "1",
        "Swarm": "inactive",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Content-Type": "text/plain; charset=utf-8",
    }
    assert {name: answer.headers[name] for name in wanted} == wanted
    assert answer.headers["Server"].startswith("Corten/")
    head = api.request("HEAD", "/v1.30/_ping")
    assert (head.status, head.body, head.headers["Api-Version"]) == (200, b"", "1.56")


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (
            "/v1.10/info",
            400,
            "client version 1.10 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.56"),
        ("/v2.0/info", 400, "client version 2.0 is too new. Maximum supported API version is 1.56"),
        ("/nothing", 404, "page not found"),
        ("/v1.44/", 404, "page not found"),
        ("/vx/info", 404, "page not found"),
        ("/containers", 404, "page not found"),
    ],
)
def test_paths_that_are_not_served(api: Api, path: str, status: int, message: str) -> None:
    answer = api.get(path)
    assert (answer.status, answer.json) == (status, {"message": message})
    assert answer.headers["Content-Type"] == "application/json"


def test_a_method_that_is_not_served(api: Api) -> None:
    assert api.request("PATCH", "/info").status == 404
    assert api.get("/v1.24/info").status == 200


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.InvalidArgument("bad"), 400, "bad"),
        (errors.Unauthorized("who"), 401, "who"),
        (errors.Forbidden("no"), 403, "no"),
        (errors.NotFound("image", "x"), 404, "No such image: x"),
        (errors.IllegalTransition("x", "a", "b"), 409, "cannot bring x from a to b"),
        (errors.NotModified("same"), 304, "same"),
        (errors.TooLarge("big"), 413, "big"),
        (errors.NotImplementedYet("later"), 501, "later"),
        (errors.Unavailable("down"), 503, "down"),
        (errors.DataCorrupt("rot"), 500, "rot"),
        (errors.StartFailed("no such file", exit_code=127), 400, "no such file"),
        (errors.StartFailed("not executable", exit_code=126), 400, "not executable"),
        (errors.StartFailed("mount failed", exit_code=128), 500, "mount failed"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 500, "/x: no space left on device"),
        (ZeroDivisionError("secret"), 500, "internal error: ZeroDivisionError"),
    ],
)
def test_errors_and_their_codes(error: Exception, status: int, message: str) -> None:
    assert (http_status(error), http_message(error)) == (status, message)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("", 0),
        ("0", 0),
        ("1136073600", 1_136_073_600 * 10**9),
        ("1136073600.000000001", 1_136_073_600_000_000_001),
        ("2006-01-01T00:00:00Z", 1_136_073_600 * 10**9),
        ("2006-01-01T01:00:00.5+01:00", 1_136_073_600_500_000_000),
        ("2006-01-01T00:00:00", 1_136_073_600 * 10**9),
        ("2006-01-01", 1_136_073_600 * 10**9),
        ("10m", NOW - 600 * 10**9),
        ("1h30m", NOW - 5400 * 10**9),
        ("1.5s", NOW - 1_500_000_000),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert parse_time(text, NOW) == ns


@pytest.mark.parametrize("text", ["yesterday", "1.2.3", "10x", "2006-13-01"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="failed to parse"):
        parse_time(text, NOW)


def auth_header(value: object, *, padded: bool = True, url: bool = True) -> str:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(json.dumps(value).encode()).decode()
    return text if padded else text.rstrip("=")


def test_registry_credentials() -> None:
    given = {"username": "me?>", "password": "p~~>", "serveraddress": "https://r.example"}
    wanted = RegistryAuth(username="me?>", password="p~~>", server_address="https://r.example")
    for padded in (True, False):
        for url in (True, False):
            assert parse_auth(auth_header(given, padded=padded, url=url)) == wanted
    assert parse_auth(auth_header({"auth": base64.b64encode(b"a:b:c").decode()})) == RegistryAuth("a", "b:c")
    assert parse_auth(auth_header({"identitytoken": "t"})) == RegistryAuth(identity_token="t")
    assert parse_auth(None) is parse_auth("") is parse_auth(auth_header({})) is parse_auth(auth_header(None)) is None
    with pytest.raises(errors.InvalidArgument, match="X-Registry-Auth"):
        parse_auth("!!")
    deep = base64.b64encode(b'{"a":' * 5000).decode()
    with pytest.raises(errors.InvalidArgument, match="X-Registry-Auth"):
        parse_auth(deep)
    with pytest.raises(errors.InvalidArgument, match="X-Registry-Config"):
        parse_auths(deep)


def test_credentials_reach_the_pull_and_are_not_shown(api: Api) -> None:
    headers = {"X-Registry-Auth": auth_header({"username": "me", "password": "hidden"})}
    assert api.post("/images/create?fromImage=a/b&tag=1", headers=headers).status == 200
    auth = api.engine.images.auth
    assert auth is not None
    assert auth.password == "hidden"
    assert "hidden" not in repr(auth)


def test_credentials_for_many_registries() -> None:
    given = {"https://index.docker.io/v1/": {"username": "a", "password": "b"}, "r.example": {}, "i": {"auth": "eDp5"}}
    wanted = {"https://index.docker.io/v1/": RegistryAuth("a", "b"), "i": RegistryAuth("x", "y")}
    assert parse_auths(auth_header(given)) == parse_auths(auth_header(given, padded=False, url=False)) == wanted
    assert parse_auths(None) == parse_auths("") == parse_auths(auth_header({})) == parse_auths(auth_header(None)) == {}
    for bad in ("!!", auth_header([]), auth_header({"x": "y"}), auth_header({"x": {"auth": "!"}})):
        with pytest.raises(errors.InvalidArgument, match="X-Registry-Config"):
            parse_auths(bad)


def test_logging_in(api: Api) -> None:
    good = {"username": "me", "password": "right", "serveraddress": "registry.example"}
    answer = api.post("/auth", good)
    assert (answer.status, answer.json) == (200, {"IdentityToken": "identity-of-me", "Status": "Login Succeeded"})
    plain = api.post("/v1.24/auth", {"auth": base64.b64encode(b"me:right").decode(), "email": "x"})
    assert (plain.status, plain.json) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
    refused = api.post("/auth", {**good, "password": "hunter2"})
    assert refused.status == 401
    assert refused.json["message"].endswith("failed with status: 401 Unauthorized")
    for bad in ({"password": ["hunter2"]}, {"auth": "hunter2"}, b'"hunter2"'):
        answer = api.post("/auth", bad, {"Content-Type": "application/json"})
        assert answer.status == 400
        assert "hunter2" not in answer.json["message"]


def test_a_pull_that_needs_a_login_does_not_have_the_docker_command_ask_for_one(api: Api) -> None:
    answer = api.post("/images/create?fromImage=registry.example/private&tag=1")
    assert (answer.status, answer.json) == (500, {"message": "no basic auth credentials"})


def test_filters_that_are_none() -> None:
    assert parse_filters("") == parse_filters("{}") == {}
    with pytest.raises(errors.InvalidArgument):
        parse_filters('{"a": "b"}')


def test_events_are_sent_as_they_come(api: Api) -> None:
    filters = quote('{"type":["container"],"event":["start","die"]}')
    with api.connect() as sock:
        sock.sendall(f"GET /v1.51/events?filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        _, rest = read_head(sock)
        container_id = api.started("watched", Labels={"a": "b"})
        while b"}\n" not in rest:
            rest += sock.recv(4096)
        event = json.loads(rest.split(b"\r\n")[1])
        assert event["Action"] == event["status"] == "start"
        assert event["id"] == event["Actor"]["ID"] == container_id
        assert event["from"] == "busybox"
        assert event["Actor"]["Attributes"] == {"name": "watched", "image": "busybox", "a": "b"}
        assert event["timeNano"] // 10**9 == event["time"]
    until(lambda: api.do(lambda: api.engine.events.listeners) == 0)


def test_events_of_the_past(api: Api) -> None:
    api.started("one", Labels={"a": "b"})
    api.started("two")
    since = "since=1&until=0.0000001s"

    def actions(filters: dict[str, list[str]]) -> list[str]:
        answer = api.get(f"/events?{since}&filters={quote(json.dumps(filters))}")
        assert answer.status == 200, answer.body
        assert all("status" not in event for event in answer.lines)
        return [event["Actor"]["Attributes"]["name"] + " " + event["Action"] for event in answer.lines]

    assert actions({}) == ["one create", "one start", "two create", "two start"]
    assert actions({"container": ["one"]}) == actions({"label": ["a=b"]}) == ["one create", "one start"]
    assert actions({"image": ["busybox"], "event": ["start"]}) == ["one start", "two start"]
    assert actions({"type": ["image"]}) == actions({"container": ["three"]}) == actions({"scope": ["swarm"]}) == []
    assert actions({"container": ["on"]}) == ["one create", "one start"]  # the start of a name
    assert actions({"container": ["on", "two"], "event": ["start"]}) == ["one start", "two start"]
    assert actions({"container": ["ne"]}) == actions({"image": ["busy"]}) == []
    both = {"container": ["one"], "image": ["busybox"]}
    assert actions(both) == ["one create", "one start"]  # kinds of filters narrow each other
    assert actions(both | {"image": ["other"]}) == actions(both | {"network": ["bridge"]}) == []
    assert api.get(f"/events?{since}&filters=" + quote('{"x":["y"]}')).json == {"message": "invalid filter 'x'"}
    assert api.get("/events?since=2000&until=1000").status == 400


def test_image_listing(api: Api) -> None:
    api.post("/images/create?fromImage=registry.example:5000/team/app&tag=1")

    def tags(**filters: list[str]) -> list[str]:
        answer = api.get("/images/json?filters=" + quote(json.dumps(filters)))
        assert answer.status == 200, answer.body
        return sorted(tag for image in answer.json for tag in image["RepoTags"])

    app = "registry.example:5000/team/app:1"
    assert tags() == ["busybox:latest", app]
    assert tags(reference=["busy*"]) == tags(reference=["busybox:latest"]) == ["busybox:latest"]
    assert tags(reference=["*/team/*"]) == tags(reference=[app]) == [app]
    assert tags(reference=["app"]) == []
    assert tags(before=[app]) == ["busybox:latest"]
    assert tags(since=["busybox"]) == [app]
    assert tags(dangling=["true"]) == []
    assert tags(label=["a"]) == []
    assert api.get("/images/json?filters=" + quote('{"dangling":["x"]}')).status == 400


def test_a_reference_filter_shows_the_names_that_match(api: Api) -> None:
    api.post("/images/busybox/tag?repo=registry.example/team/box&tag=1")
    api.do(lambda: api.engine.images.get("busybox").digests.append("registry.example/team/box@sha256:" + "a" * 64))

    def names(*patterns: str) -> list[str]:
        answer = api.get("/images/json?filters=" + quote(json.dumps({"reference": patterns})))
        return [name for image in answer.json for name in image["RepoTags"] + image["RepoDigests"]]

    assert names("busy*")[0] == "busybox:latest"
    assert [name.partition("@")[0] for name in names("busy*")] == ["busybox:latest", "busybox"]
    assert [name.partition("@")[0] for name in names("*/team/*")] == [
        "registry.example/team/box:1",
        "registry.example/team/box",
    ]
    assert names("*:1") == []
    refused = api.get("/images/json?filters=" + quote('{"reference":["[a"]}'))
    assert refused.json == {"message": "invalid filter 'reference=[a': syntax error in pattern"}


def test_platforms_of_images(api: Api) -> None:
    def ask(path: str, **platform: str) -> int:
        return api.get(f"{path}?platform={quote(json.dumps(platform))}").status

    for path in ("/images/busybox/json", "/images/busybox/history", "/v1.48/images/busybox/history"):
        assert ask(path, os="linux", architecture="amd64") == 200, path
        assert ask(path, os="linux", architecture="arm64") == 404, path
        assert ask(path, os="linux") == 400, path
    assert ask("/v1.48/images/busybox/json", os="linux", architecture="arm64") == 200
    assert api.get("/images/busybox/json?manifests=1&platform=linux/amd64").status == 400
    assert api.get("/images/busybox/json?platform=linux/amd64&platform=linux/arm64").status == 400


def test_images_of_old_and_new_clients(api: Api) -> None:
    old, new = (api.get(f"/v{version}/images/busybox/json").json for version in ("1.43", "1.52"))
    assert old["VirtualSize"] == old["Size"] == 1000
    assert {"Container", "ContainerConfig"} <= old.keys()
    assert not {"Container", "ContainerConfig", "VirtualSize"} & new.keys()
    assert (old["Config"]["Cmd"], old["Config"]["Hostname"]) == (["sh"], "")
    assert new["Config"] == {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    assert new["Descriptor"]["digest"].startswith("sha256:")
    assert new["Metadata"]["LastTagTime"] == "0001-01-01T00:00:00Z"
    listed = api.get("/v1.43/images/json").json[0]
    assert listed["VirtualSize"] == 1000
    assert "Descriptor" not in listed


def test_image_archives(api: Api) -> None:
    archive = api.get("/images/get?names=busybox&names=busybox")
    assert archive.headers["Content-Type"] == "application/x-tar"
    assert archive.body.count(b"archive of") == 2
    assert api.get("/images/nothing/get").status == 404
    loaded = api.post("/images/load?quiet=1", b"abc" * 100_000, {"Content-Type": "application/x-tar"})
    assert loaded.lines == [{"stream": "Loaded image: loaded:latest\n"}]
    assert api.engine.archives.uploaded == b"abc" * 100_000
    imported = api.post("/images/create?fromSrc=-&repo=mine&tag=2", b"tar", {"Content-Type": "application/x-tar"})
    assert imported.lines[0]["status"].startswith("sha256:")
    assert api.get("/images/mine:2/json").status == 200


def test_commit(api: Api) -> None:
    container_id = api.create("work")
    query = (
        f"?container={container_id}&repo=made&tag=1&author=me&comment=words&pause=0&changes=ENV+A%3Db&changes=USER+x"
    )
    done = api.post(f"/commit{query}")
    assert done.status == 201
    assert done.json == {"Id": api.get("/images/made:1/json").json["Id"]}
    asked = api.engine.commits.asked
    assert asked is not None
    assert (asked.ref, asked.author, asked.comment, asked.pause) == ("made:1", "me", "words", False)
    assert asked.changes == ["ENV A=b", "USER x"]
    assert asked.config is None
    assert api.post(f"/commit?container={container_id}", {"Cmd": ["x"]}).status == 201
    asked = api.engine.commits.asked
    assert asked is not None
    assert (asked.ref, asked.pause, asked.config) == ("", True, ContainerConfig(cmd=["x"]))
    assert api.post("/commit?container=none").status == 404
    assert api.post("/commit").status == 400


def test_a_push_says_what_it_means(api: Api) -> None:
    platform = quote(json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"}))
    api.post(f"/images/busybox/push?tag=latest&platform={platform}")
    api.post("/images/busybox/push")
    api.post(f"/v1.45/images/busybox/push?tag=latest&platform={platform}")
    assert api.engine.images.pushed == [("busybox:latest", "linux/arm64"), ("busybox", ""), ("busybox:latest", "")]


def test_distribution_and_search(api: Api) -> None:
    assert api.get("/distribution/busybox/json").json["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert api.get("/distribution/team/none/json").status == 404
    assert api.get("/images/search?term=box&limit=7").json[0] == {
        "name": "box",
        "description": "",
        "star_count": 7,
        "is_official": True,
        "is_automated": False,
    }
    assert api.get("/images/search").status == 400


def test_image_names_with_slashes(api: Api) -> None:
    api.post("/images/create?fromImage=registry.example:5000/team/app&tag=1")
    name = "registry.example:5000/team/app:1"
    assert api.get(f"/images/{name}/json").json["RepoTags"] == [name]
    assert api.get(f"/images/{quote(name, safe='')}/history").status == 200
    assert api.post(f"/images/{name}/tag?repo=other&tag=x").status == 201
    assert api.post("/images/other:x/push").lines[0]["status"].startswith("The push refers to repository [")
    assert {"Untagged": "other:x"} in api.request("DELETE", f"/images/{name}?force=1").json


def test_volumes(api: Api) -> None:
    made = api.post("/volumes/create", {"Name": "data", "DriverOpts": {"o": "x"}, "Labels": {"a": "b"}})
    assert made.status == 201
    assert made.json["CreatedAt"].endswith("Z")
    assert api.get("/volumes").json == {"Volumes": [made.json], "Warnings": None}
    assert api.get("/volumes?filters=" + quote('{"dangling":["false"]}')).json["Volumes"] == []
    assert api.get("/volumes?filters=" + quote('{"dangling":["1"],"name":["dat"]}')).json["Volumes"] == [made.json]
    assert api.get("/volumes/none").json == {"message": "get none: no such volume"}
    api.post("/v1.41/volumes/prune")
    assert api.engine.volumes.pruned_with == {"all": ["true"]}
    api.post("/v1.42/volumes/prune")
    assert api.engine.volumes.pruned_with == {}
    assert api.request("DELETE", "/volumes/data").status == 404
    assert api.request("DELETE", "/volumes/data?force=1").status == 204


def test_networks(api: Api) -> None:
    def found(**filters: list[str]) -> list[str]:
        answer = api.get("/networks?filters=" + quote(json.dumps(filters)))
        assert answer.status == 200, answer.body
        return [network["Name"] for network in answer.json]

    assert found() == ["bridge", "host", "none"]
    assert found(name=["^br"]) == found(driver=["bridge"]) == ["bridge"]
    assert found(type=["custom"]) == found(dangling=["true"]) == found(label=["x"]) == found(scope=["swarm"]) == []
    assert api.get("/networks?filters=" + quote('{"type":["x"]}')).status == 400
    assert api.get("/networks/bridge").json["Driver"] == "bridge"
    assert api.get("/networks/bridge?scope=swarm").status == 404


def test_disk_usage_by_type(api: Api) -> None:
    assert api.get("/v1.51/system/df?type=image").json == {"LayersSize": 1000, "Images": []}
    assert api.get("/system/df?type=x").status == 400
    new = api.get("/system/df?type=image&type=volume&verbose=1").json
    empty = {"ActiveCount": 0, "TotalCount": 0, "TotalSize": 0, "Reclaimable": 0, "Items": []}
    assert new == {"ImageUsage": {**empty, "TotalSize": 1000, "Reclaimable": 1000}, "VolumeUsage": empty}


def test_disk_usage_in_totals() -> None:
    usage = {
        "LayersSize": 100,
        "Images": [{"Containers": 1, "Size": 60, "SharedSize": 20}, {"Containers": 0, "Size": 60, "SharedSize": 20}],
        "Containers": [{"State": "running", "SizeRw": 5}, {"State": "exited", "SizeRw": 7}, {"State": "created"}],
        "Volumes": [{"UsageData": {"Size": 9, "RefCount": 1}}, {"UsageData": {"Size": -1, "RefCount": 0}}, {}],
        "BuildCache": None,
    }

    def numbers(kind: str) -> list[int]:
        (entry,) = totals(usage, [kind], verbose=False).values()
        return [entry[name] for name in ("ActiveCount", "TotalCount", "TotalSize", "Reclaimable")]

    assert numbers("image") == [1, 2, 100, 60]
    assert numbers("container") == [1, 3, 12, 7]
    assert numbers("volume") == [1, 3, 9, 0]
    assert numbers("build-cache") == [0, 0, 0, 0]


def test_shared_sizes_are_computed_when_asked_for(api: Api) -> None:
    assert api.get("/images/json").json[0]["SharedSize"] == -1
    assert api.get("/images/json?shared-size=1").json[0]["SharedSize"] == 0


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(api: Api) -> None:
    head = "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with api.connect() as sock:
        sock.sendall(head.encode())
        assert read_head(sock) == (b"HTTP/1.1 100 Continue", b"")
        sock.sendall(b"abcde")
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200 OK")
    assert api.engine.archives.uploaded == b"abcde"


def test_a_long_query(api: Api) -> None:
    query = "&".join(["names=busybox"] * 5000)
    assert api.get(f"/images/get?{query}").body.count(b"archive of") == 5000


def test_a_check_streams_findings_and_takes_credentials(api: Api) -> None:
    api.engine.checks.findings = [{"Kind": "blob", "Id": "sha256:x", "What": "is missing"}]
    config = {"https://index.docker.io/v1/": {"username": "u", "password": "p"}, "r.example:5000": {"auth": "dTpw"}}
    header = {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(config).encode()).decode()}
    answer = api.post("/v1.44/system/check?repair=1", headers=header)
    assert (answer.status, answer.lines[1]) == (200, {"aux": {"Finding": api.engine.checks.findings[0]}})
    assert answer.lines[-1]["aux"]["Summary"]["Damaged"] == 1
    ((repair, auths),) = api.engine.checks.asked
    assert repair
    assert {host: auth.username for host, auth in auths.items()} == {"docker.io": "u", "r.example:5000": "u"}


def test_a_check_refuses_credentials_that_are_none(api: Api) -> None:
    assert api.post("/system/check", headers={"X-Registry-Config": "!"}).status == 400
    assert api.engine.checks.asked == []
