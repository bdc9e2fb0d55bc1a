"""Columns, and the rows that are put into them, as Docker's own output has them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from corten.cli.commands import df, events, images, info, ps, version
from corten.cli.commands.volumes import SHAPE as VOLUMES
from corten.cli.errors import CliError
from corten.cli.records import render
from corten.cli.tabwriter import align


@pytest.mark.parametrize(
    ("text", "aligned"),
    [
        ("A\tB", "A         B"),
        ("AAAAAAAAAAAAAA\tB\tC\na\tb\tc", "AAAAAAAAAAAAAA   B         C\na                b         c"),
        ("a\tb\n\naaaaaaaaaaaaaa\tb", "a         b\n\naaaaaaaaaaaaaa   b"),
        ("a\tbbbbbbbbbbbbbb\tc\nx\ny\tz\tw", "a         bbbbbbbbbbbbbb   c\nx\ny         z         w"),
        ("ü…\tb", "ü…        b"),
    ],
)
def test_alignment(text: str, aligned: str) -> None:
    assert align(text) == aligned


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "Type": kind} | ({"IP": ip, "PublicPort": public} if ip else {})


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(83, kind="udp")], "80-81/tcp, 83/udp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        (
            [port(9001, 9001, "0.0.0.0"), port(9000, 9000, "0.0.0.0"), port(80, 8080, "0.0.0.0")],
            "0.0.0.0:9000-9001->9000-9001/tcp, 0.0.0.0:8080->80/tcp",
        ),
        ([port(9000, 9000, "1.2.3.4"), port(9002, 9002, "1.2.3.4")], "1.2.3.4:9000->9000/tcp, 1.2.3.4:9002->9002/tcp"),
    ],
)
def test_ports(found: list[dict[str, Any]], text: str) -> None:
    assert ps.ports(found) == text


ROW = {
    "Id": "c6cfdfebd1e24706b86db2dafcfa0b5c0f269126066d6625018e09718af92ed6",
    "Names": ["/web", "/other/alias"],
    "Image": "busybox",
    "ImageID": "sha256:3f68bbc5",
    "Command": "sh -c 'while :; do sleep 1;done'",
    "Created": 0,
    "Ports": [port(80, 8080, "0.0.0.0")],
    "Labels": {"b": "2", "a": "1"},
    "State": "running",
    "Status": "Up 3 seconds",
    "SizeRw": 1500,
    "SizeRootFs": 1985000,
    "Mounts": [{"Name": "vol", "Driver": "local"}, {"Source": "/a/very/long/path/of/the/host"}],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}


def test_the_table_of_ps() -> None:
    row = {**ROW, "Created": time.time() - 5}
    assert render(ps.shape(truncate=True), [row], "") == (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  "
        "NAMES\n"
        'c6cfdfebd1e2   busybox   "sh -c \'while :; do …"   5 seconds ago   Up 3 seconds   0.0.0.0:8080->80/tcp   web\n'
    )


def test_formats_of_ps() -> None:
    source = r'table {{.ID}}\t{{.Label "a"}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.Networks}}'
    assert render(ps.shape(truncate=True), [ROW], source) == (
        "CONTAINER ID   a         MOUNTS                LOCAL VOLUMES   SIZE                     NETWORKS\n"
        "c6cfdfebd1e2   1         vol,/a/very/long/p…   1               1.5kB (virtual 1.99MB)   bridge\n"
    )
    assert render(ps.shape(truncate=False), [ROW], "{{.Names}} {{.Labels}} {{.Command}}") == (
        "web,other/alias a=1,b=2 \"sh -c 'while :; do sleep 1;done'\"\n"
    )
    assert '"Names":"web"' in render(ps.shape(truncate=True), [ROW], "json")


def test_a_format_that_does_not_fit() -> None:
    with pytest.raises(CliError) as caught:
        render(ps.shape(truncate=True), [ROW], "{{.Foo}}")
    assert str(caught.value) == (
        'failed to execute template: template: :1:2: executing "" at <.Foo>: '
        "can't evaluate field Foo in type *formatter.ContainerContext"
    )
    with pytest.raises(CliError, match="failed to parse template: template: :1: unclosed action"):
        render(ps.shape(truncate=True), [ROW], "{{.Foo")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"Image": "", "ImageID": "sha256:1"}, "<no image>"),
        ({"Image": "sha256:3f68bbc50697b85f", "ImageID": "sha256:3f68bbc50697b85f"}, "3f68bbc50697"),
        ({"Image": "a/b@sha256:12", "ImageID": "sha256:9"}, "a/b"),
        ({"Image": "localhost:5000/x:1", "ImageID": ""}, "localhost:5000/x:1"),
    ],
)
def test_what_an_image_is_called(row: dict[str, Any], name: str) -> None:
    assert ps.image(row, truncate=True) == name


def test_images_have_a_row_for_each_name() -> None:
    image = {"Id": "sha256:aaaabbbbccccdddd", "Created": 0, "Size": 1984172, "RepoTags": ["h:5000/a:1", "b:2"]}
    image["RepoDigests"] = ["h:5000/a@sha256:11", "c@sha256:22"]
    rows = images.rows_of([image, {**image, "RepoTags": [], "RepoDigests": []}], digests=True)
    assert render(
        images.shape(truncate=True, digests=True), rows, "{{.Repository}} {{.Tag}} {{.Digest}} {{.Size}}"
    ) == ("h:5000/a 1 sha256:11 1.98MB\nb 2 <none> 1.98MB\nc <none> sha256:22 1.98MB\n<none> <none> <none> 1.98MB\n")


def test_volumes() -> None:
    row = {"Name": "v", "Driver": "local", "Labels": None, "UsageData": {"Size": 2000, "RefCount": 1}}
    assert render(VOLUMES, [row], "") == "DRIVER    VOLUME NAME\nlocal     v\n"
    assert render(VOLUMES, [row], "{{.Links}} {{.Size}} {{.Labels}}|") == "1 2kB |\n"


def test_events() -> None:
    actor = {"ID": "x", "Attributes": {"name": "web", "image": "busybox"}}
    event = {"Type": "container", "Action": "start", "Actor": actor, "timeNano": 1795501336000000000}
    assert events.line(event).endswith(" container start x (image=busybox, name=web)")


def test_what_the_disk_is_used_for() -> None:
    usage = {
        "LayersSize": 3000,
        "Images": [
            {"Containers": 1, "Size": 1000, "SharedSize": 0},
            {"Containers": 0, "Size": 2000, "SharedSize": 0},
        ],
        "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}],
        "Volumes": [{"UsageData": {"Size": 5, "RefCount": 1}}, {"UsageData": {"Size": -1, "RefCount": 0}}],
    }
    assert render(df.SHAPE, df.summary(usage), "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}") == (
        "Images 2 1 3kB 2kB (66%)\nContainers 2 1 40B 30B (75%)\nLocal Volumes 2 1 5B 0B (0%)\nBuild Cache 0 0 0B 0B\n"
    )


def test_what_the_disk_is_used_for_as_the_daemon_counts_it() -> None:
    counts = {"TotalCount": 2, "ActiveCount": 1, "TotalSize": 3000, "Reclaimable": 2000}
    usage = {"ImageUsage": counts, "BuildCacheUsage": counts}
    assert render(df.SHAPE, df.summary(usage), "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}") == (
        "Images 2 1 3kB 2kB (66%)\nContainers 0 0 0B 0B\nLocal Volumes 0 0 0B 0B\nBuild Cache 2 1 3kB 2kB\n"
    )


def test_the_lines_of_info() -> None:
    lines = info.server_lines(
        {
            "Containers": 2,
            "ContainersRunning": 1,
            "DriverStatus": [["Backing Filesystem", "extfs"]],
            "Driver": "overlay2",
            "Plugins": {"Volume": ["local"]},
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "MemTotal": 1 << 30,
            "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"]},
        }
    )
    assert lines[:3] == [" Containers: 2", "  Running: 1", "  Paused: 0"]
    for expected in ("  Backing Filesystem: extfs", "   Profile: builtin", " Total Memory: 1GiB", "  127.0.0.0/8"):
        assert expected in lines


def test_version_is_read_under_both_names(capsys: pytest.CaptureFixture[str]) -> None:
    halves: dict[str, dict[str, Any] | None] = {"Client": {"ApiVersion": "1.56"}, "Server": {"ApiVersion": "1.44"}}
    version._formatted("{{.Client.APIVersion}} {{.Server.APIVersion}} {{json .Server}}", halves)
    assert capsys.readouterr().out == '1.56 1.44 {"ApiVersion":"1.44"}\n'
    with pytest.raises(CliError, match="can't evaluate field Nothing"):
        version._formatted("{{.Server.Nothing}}", halves)
