"""Templates over inspect's JSON, where Docker's structures show through."""

from __future__ import annotations

from typing import Any

import pytest

from corten.cli import inspecting
from corten.cli.errors import CliError

CONTAINER: dict[str, Any] = {
    "Id": "abc",
    "State": {"Status": "running", "Pid": 5},
    "Mounts": [{"Type": "bind", "Source": "/a", "RW": True}],
    "Config": {"Env": None, "Labels": {"b": "2", "a": "1"}, "ExposedPorts": {"80/tcp": {}}},
    "HostConfig": {"Binds": None, "Init": None, "Memory": 0, "LogConfig": {"Type": "json-file", "Config": {}}},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/tcp": None}},
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{.State}}", "{running 5}"),
        ("{{.Mounts}}", "[{bind /a true}]"),
        ("{{.Config.Labels}} {{.Config.Env}} {{.Config.ExposedPorts}}", "map[a:1 b:2] [] map[80/tcp:{}]"),
        ("{{.HostConfig.Binds}} {{.HostConfig.Init}} {{.HostConfig.LogConfig}}", "[] <nil> {json-file map[]}"),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{ 8080}] 81/tcp:[]]"),
        ("{{json .Mounts}} {{json .Config.Env}}", '[{"Type":"bind","Source":"/a","RW":true}] null'),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .NetworkSettings.Ports "80/tcp"}}', "[map[HostIp: HostPort:8080]]"),
        (
            "{{range $p, $b := .NetworkSettings.Ports}}{{$p}}={{range $b}}{{.HostPort}}{{end}} {{end}}",
            "80/tcp=8080 81/tcp= ",
        ),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.State.Health}}", "<nil>"),
        ('{{.Config.Labels.a}} {{index .Config.Labels "zz"}}|', "1 <no value>|"),
        ("{{range .Mounts}}{{.Source}}{{end}}", "/a"),
    ],
)
def test_what_users_write(source: str, text: str) -> None:
    assert inspecting.write([CONTAINER], source) == text + "\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Foo.Bar}}", ':1:6: executing "" at <.Foo.Bar>: map has no entry for key "Foo"'),
        ("{{.State.Health.Status}}", ':1:8: executing "" at <.State.Health.Status>: map has no entry for key "Health"'),
    ],
)
def test_fields_that_are_not_there(source: str, message: str) -> None:
    with pytest.raises(CliError) as caught:
        inspecting.write([CONTAINER], source)
    assert str(caught.value) == f"\ntemplate parsing error: template: {message}"
