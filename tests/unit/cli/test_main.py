"""The command line from argv to exit code, against a scripted peer."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corten.cli.main import load, run
from corten.cli.table import ALIASES, COMMANDS, find
from tests.unit.client.fakes import ScriptedDaemon, answer

NO_SUCH = answer("404 Not Found", b'{"message":"No such container: x"}')
EMPTY = answer("200 OK", b"[]")
ID = "c6cfdfebd1e24706b86db2dafcfa0b5c0f269126066d6625018e09718af92ed6"
CREATED = answer("201 Created", json.dumps({"Id": ID, "Warnings": ["careful"]}).encode())


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("DOCKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))


def test_every_command_of_the_table_loads_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for path in COMMANDS:
        assert load(path).path == path
        assert run([*path.split(), "--help"]) == 0
        assert f"Usage:  corten {path}" in capsys.readouterr().out


def test_aliases_lead_to_commands() -> None:
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert find(["ps", "-a"]) == ("ps", "container ls", ["-a"])
    assert find(["container", "ls", "-a"]) == ("container ls", "container ls", ["-a"])
    assert find(["system"]) == ("", "", ["system"])


def test_no_daemon(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none"
    message = (
        f"corten: cannot connect to the Corten daemon at {url}. Is cortend running? Start it with: cortend (as root)"
    )
    assert run(["-H", url, "ps"]) == 1
    assert capsys.readouterr().err == message + "\n"
    assert run(["-H", url, "run", "busybox"]) == 125
    assert capsys.readouterr().err == f"{message}\n\nRun 'corten run --help' for more information\n"


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (
            ["ps", "--foo"],
            125,
            "unknown flag: --foo\n\nUsage:  corten ps [OPTIONS]\n\nRun 'corten ps --help' for more information\n",
        ),
        (
            ["--foo"],
            125,
            "unknown flag: --foo\n\nUsage:  corten [OPTIONS] COMMAND\n\nRun 'corten --help' for more information\n",
        ),
        (
            ["start"],
            1,
            "corten: 'corten start' requires at least 1 argument\n\n"
            "Usage:  corten start [OPTIONS] CONTAINER [CONTAINER...]\n\n"
            "See 'corten start --help' for more information\n",
        ),
        (["bogus"], 1, "corten: unknown command: corten bogus\n\nRun 'corten --help' for more information\n"),
        (
            ["container", "bogus"],
            1,
            "corten: unknown command: corten container bogus\n\nUsage:  corten container\n\n"
            "Run 'corten container --help' for more information\n",
        ),
        (
            ["run", "-p", "x", "busybox"],
            125,
            "corten: invalid containerPort: x\n\nRun 'corten run --help' for more information\n",
        ),
        (["run", "-d", "-a", "stdout", "x"], 1, "conflicting options: cannot specify both --attach and --detach\n"),
        (["inspect", "-f", "{{", "x"], 64, "template parsing error: template: :1: unclosed action\n"),
        (["-H", "foo://x", "ps"], 1, None),
        (["-c", "nope", "ps"], 1, None),
        (["-l", "loud", "ps"], 1, "unable to parse logging level: loud\n"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, error: str | None) -> None:
    assert run(argv) == code
    found = capsys.readouterr().err
    assert found == error if error else found.startswith("Failed to initialize: unable to resolve docker endpoint: ")


def test_failures_of_several_names_are_told_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon(tmp_path / "s", [NO_SUCH, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"]) as daemon:
        assert run(["-H", daemon.url, "stop", "-t", "3", "x", "y"]) == 1
    assert capsys.readouterr() == ("y\n", "Error response from daemon: No such container: x\n")
    assert daemon.requests[1].startswith(b"POST /containers/y/stop?t=3 ")


def test_removing_by_force_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon(tmp_path / "s", [NO_SUCH]) as daemon:
        assert run(["-H", daemon.url, "rm", "-f", "x"]) == 0
    assert capsys.readouterr() == ("", "Error response from daemon: No such container: x\n")


def test_running_in_the_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
    cidfile = tmp_path / "cid"
    with ScriptedDaemon(tmp_path / "s", [CREATED, started]) as daemon:
        assert run(["-H", daemon.url, "run", "-d", "--name", "n", "--cidfile", str(cidfile), "busybox", "sh"]) == 0
    assert capsys.readouterr() == (f"{ID}\n", "WARNING: careful\n")
    assert daemon.requests[0].startswith(b"POST /containers/create?name=n ")
    assert cidfile.read_text() == ID


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec: /x: permission denied", 126),
        ("no space left on device", 125),
    ],
)
def test_a_start_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str, code: int) -> None:
    refused = answer("400 Bad Request", json.dumps({"message": message}).encode())
    with ScriptedDaemon(tmp_path / "s", [CREATED, refused]) as daemon:
        assert run(["-H", daemon.url, "run", "-d", "busybox"]) == code
    error = f"corten: Error response from daemon: {message}\n\nRun 'corten run --help' for more information\n"
    assert capsys.readouterr().err == "WARNING: careful\n" + error


def test_an_image_that_is_not_here_is_pulled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = answer("404 Not Found", b'{"message":"No such image: busybox:latest"}')
    pulled = answer("200 OK", b'{"status":"Pulling from library/busybox","id":"latest"}\n{"status":"Status: Done"}\n')
    with ScriptedDaemon(tmp_path / "s", [missing, pulled, CREATED]) as daemon:
        assert run(["-H", daemon.url, "create", "busybox"]) == 0
    assert capsys.readouterr() == (
        f"{ID}\n",
        "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\nStatus: Done\n"
        "WARNING: careful\n",
    )
    assert daemon.requests[1].startswith(b"POST /images/create?fromImage=busybox&tag=latest ")


def test_nothing_is_pulled_where_that_is_forbidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = answer("404 Not Found", b'{"message":"No such image: busybox:latest"}')
    with ScriptedDaemon(tmp_path / "s", [missing]) as daemon:
        assert run(["-H", daemon.url, "run", "--pull", "never", "busybox"]) == 125
    assert "corten: Error response from daemon: No such image: busybox:latest" in capsys.readouterr().err


def test_the_context_says_where_the_daemon_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    folder = tmp_path / "config" / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    with ScriptedDaemon(tmp_path / "s", [EMPTY, EMPTY, EMPTY]) as daemon:
        meta = {"Name": "far", "Endpoints": {"docker": {"Host": daemon.url, "SkipTLSVerify": False}}}
        (folder / "meta.json").write_text(json.dumps(meta))
        assert run(["--context", "far", "ps", "-q"]) == 0
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
        assert run(["ps", "-q"]) == 0
        monkeypatch.delenv("DOCKER_CONTEXT")
        (tmp_path / "config" / "config.json").write_text('{"currentContext": "far", "psFormat": "{{.ID}}"}')
        assert run(["ps"]) == 0
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert run(["ps"]) == 1, "DOCKER_HOST comes before the current context"
    assert capsys.readouterr().out == ""


def test_inspect_of_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = answer("404 Not Found", b'{"message":"no"}')
    volume = answer("200 OK", b'{"Name": "v", "Labels": null, "Options": {"a": "<b>"}}')
    with ScriptedDaemon(tmp_path / "s", [missing] * 3 + [volume] + [missing] * 4) as daemon:
        assert run(["-H", daemon.url, "inspect", "v", "w"]) == 1
    out, error = capsys.readouterr()
    assert json.loads(out) == [{"Name": "v", "Labels": None, "Options": {"a": "<b>"}}]
    assert out.startswith('[\n    {\n        "Name": "v",\n')
    assert "\\u003cb\\u003e" in out
    assert error == "Error: No such object: w\n"


def test_ps_imports_little() -> None:
    """The way from argv to a table must stay short: these alone would double its time."""
    heavy = "click msgspec rich ssl socket asyncio http.client email typing dataclasses inspect contextlib logging"
    script = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from corten.cli.main import run\n"
        "run(['-H', 'unix:///nonexistent', 'ps'])\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    source = str(Path(__file__).parents[3] / "src")
    command = [sys.executable, "-I", "-S", "-c", script, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


FINDING = {
    "Kind": "layer",
    "Id": "sha256:aa",
    "What": "differs from its blob",
    "Paths": [{"Path": "/bin/sh", "What": "is missing"}],
    "Count": 3,
    "Images": ["box:1"],
    "Containers": ["web"],
    "Running": ["web"],
    "Reason": "stop the containers that run on it first: web",
}


def checked(*findings: dict[str, object], **counts: int) -> bytes:
    summary = {"Blobs": 2, "BlobBytes": 2_500_000, "Layers": 1, "Images": 1, "Containers": 1, **counts}
    lines = [{"status": "Verifying", "id": "blobs"}, *({"aux": {"Finding": finding}} for finding in findings)]
    return answer("200 OK", b"\r\n".join(json.dumps(line).encode() for line in [*lines, {"aux": {"Summary": summary}}]))


def test_system_check_says_what_is_damaged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = [checked(Unchecked=1), checked(FINDING, Damaged=1), checked(FINDING, Damaged=1), checked(FINDING, Damaged=1)]
    with ScriptedDaemon(tmp_path / "s", told) as daemon:
        assert run(["-H", daemon.url, "system", "check"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "Checked 2 blobs (2.5MB), 1 layers, 1 images, 1 containers.",
            "1 layers were not compared: their blob is damaged, or no image has it any more.",
            "Nothing is damaged.",
        ]
        assert run(["-H", daemon.url, "system", "check", "--repair"]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "layer sha256:aa of box:1: differs from its blob",
            "  /bin/sh is missing",
            "  and 2 more",
            "  running on it: web",
            "  not healed: stop the containers that run on it first: web",
            "Checked 2 blobs (2.5MB), 1 layers, 1 images, 1 containers.",
            "Damaged: 1, healed: 0, left: 1.",
        ]
        assert run(["-H", daemon.url, "system", "check", "-q"]) == 1
        assert "Checked" not in capsys.readouterr().out
        assert run(["-H", daemon.url, "system", "check", "--format", "json"]) == 1
        first, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert (first["Finding"]["Id"], last["Summary"]["Damaged"]) == ("sha256:aa", 1)
    assert [request.split()[1] for request in daemon.requests] == [
        *(b"/system/check", b"/system/check?repair=1", b"/system/check", b"/system/check")
    ]


def test_a_repair_takes_along_what_config_json_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auths = {"r.example:5000": {"auth": base64.b64encode(b"u:p").decode()}, "empty.example": {}}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.json").write_text(json.dumps({"auths": auths}))
    with ScriptedDaemon(tmp_path / "s", [checked(), checked()]) as daemon:
        assert run(["-H", daemon.url, "system", "check", "--repair"]) == 0
        assert run(["-H", daemon.url, "system", "check"]) == 0
    header = next(line for line in daemon.requests[0].split(b"\r\n") if line.lower().startswith(b"x-registry-config:"))
    sent = json.loads(base64.urlsafe_b64decode(header.split(b":", 1)[1].strip()))
    assert sent == {"r.example:5000": {"username": "u", "password": "p", "serveraddress": "r.example:5000"}}
    assert b"registry-config" not in daemon.requests[1].lower()
