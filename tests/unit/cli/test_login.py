"""`corten login` and `corten logout`: what is said, and what is kept where."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from corten.cli import credentials
from corten.cli.credhelper import Helper, HelperError
from corten.cli.main import run
from tests.unit.client.fakes import ScriptedDaemon, answer
from tests.waiting import patience

OK = answer("200 OK", b'{"IdentityToken":"","Status":"Login Succeeded"}')
TOKEN = answer("200 OK", b'{"IdentityToken":"id-token","Status":"Login Succeeded"}')
REFUSED = answer("401 Unauthorized", b'{"message":"unauthorized: incorrect username or password"}')
BROKEN = answer("500 Internal Server Error", b'{"message":"no such host"}')

HELPER = """#!/bin/sh
dir={place}
echo "$@" >> $dir/argv
case $1 in
store) cat > $dir/in; server=$(sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/' $dir/in); cp $dir/in $dir/kept ;;
get) read server; if [ -e $dir/kept ] && grep -q "\\"$server\\"" $dir/kept; then cat $dir/kept
     else echo credentials not found in native keychain; exit 1; fi ;;
erase) read server; [ -e $dir/kept ] || {{ echo credentials not found in native keychain; exit 1; }}; rm $dir/kept ;;
list) echo '{{"r.example":"ann"}}' ;;
esac
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of config.json; no helper of this machine is found."""
    for name in list(os.environ):
        if name.startswith("DOCKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path / "config"


def config(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "config.json").read_text())
    return content


def write(home: Path, content: object) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps(content))


def helper(tmp_path: Path, name: str = "test") -> Path:
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.write_text(HELPER.format(place=tmp_path))
    program.chmod(0o755)
    return tmp_path


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def corten(daemon: ScriptedDaemon, *argv: str, typed: bytes = b"", monkeypatch: pytest.MonkeyPatch) -> int:
    """With `typed` on a standard input that is no terminal."""
    reader, writer = os.pipe()
    os.write(writer, typed)
    os.close(writer)
    with open(reader, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        return run(["-H", daemon.url, *argv])


def sent(request: bytes) -> dict[str, str]:
    body: dict[str, str] = json.loads(request.partition(b"\r\n\r\n")[2])
    return body


def test_what_is_kept_is_for_its_owner_and_leaves_the_rest_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"psFormat": "x", "unheard-of": [1], "auths": {"other.example": {"auth": "eA=="}}}
    write(home, others)
    (home / "config.json").chmod(0o644)
    (home / "config.json").rename(tmp_path / "dotfile.json")
    (home / "config.json").symlink_to(tmp_path / "dotfile.json")
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        argv = ("login", "-u", "ann", "--password-stdin", "https://r.example:5000/v1/")
        assert corten(daemon, *argv, typed=b"hunter2\r\n", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    path = home / "config.json"
    assert said.out == "Login Succeeded\n"
    assert said.err == (
        f"\nWARNING! Your credentials are stored unencrypted in '{path}'.\nConfigure a credential helper to remove "
        "this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"
    )
    assert sent(daemon.requests[0]) == {"username": "ann", "password": "hunter2", "serveraddress": "r.example:5000"}
    assert config(home) == {
        **others,
        "auths": {"other.example": {"auth": "eA=="}, "r.example:5000": {"auth": encoded("ann:hunter2")}},
    }
    assert path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["bin", "config", "dotfile.json", "s"]
    assert os.listdir(home) == ["config.json"]


def test_a_new_folder_is_for_its_owner(home: Path, tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [TOKEN]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2"]) == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    entry = {"auth": encoded("ann:"), "identitytoken": "id-token"}
    assert config(home) == {"auths": {"https://index.docker.io/v1/": entry}}
    assert "hunter2" not in (home / "config.json").read_text()


def test_a_file_that_is_not_understood_is_not_lost(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "config.json").write_text("{ my notes")
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2", "r.example"]) == 1
    assert "Error saving credentials: " in (err := capsys.readouterr().err)
    assert "hunter2" not in err
    assert (home / "config.json").read_text() == "{ my notes"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["-u", "ann"], "Error: Cannot perform an interactive login from a non TTY device\n"),
        ([], "Error: Cannot perform an interactive login from a non TTY device\n"),
        (["--password-stdin"], "the --password-stdin option requires --username to be set\n"),
        (
            ["-u", "a", "-p", "b", "--password-stdin"],
            "conflicting options: cannot specify both --password and --password-stdin\n",
        ),
        (["-u", "a", "--password-stdin"], "Error: Cannot perform an interactive login from a non TTY device\n"),
    ],
)
def test_what_cannot_be(
    argv: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("corten.cli.commands.login.is_terminal", lambda fd: False)
    with ScriptedDaemon(tmp_path / "s", []) as daemon:
        assert corten(daemon, "login", *argv, "r.example", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == error
    assert daemon.requests == []


def test_who_is_refused_keeps_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedDaemon(tmp_path / "s", [REFUSED]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2", "r.example"]) == 1
    assert capsys.readouterr().err == (
        "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
        "Error response from daemon: unauthorized: incorrect username or password\n"
    )
    assert not home.exists()


def test_what_is_kept_serves_again(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, {"auths": {"https://r.example/v1/": {"auth": encoded("ann:hunter2")}}})
    before = (home / "config.json").read_text()
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        assert run(["-H", daemon.url, "login", "r.example"]) == 0
    said = capsys.readouterr()
    assert said.out == "Login Succeeded\n"
    assert said.err == (
        "Authenticating with existing credentials... [Username: ann]\n\n Info -> To login with a different account, "
        "run 'corten logout' followed by 'corten login'\n\n\n"
    )
    assert (home / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (REFUSED, "Stored credentials invalid or expired"),
        (BROKEN, "Login did not succeed, error: Error response from daemon: no such host"),
    ],
)
def test_typing_a_password_shows_nothing_of_it(home: Path, tmp_path: Path, refusal: bytes, words: str) -> None:
    write(home, {"auths": {"r.example": {"auth": encoded("ann:old")}}})
    with ScriptedDaemon(tmp_path / "s", [refusal, OK]) as daemon:
        shown, code = on_terminal(
            ["-H", daemon.url, "login", "r.example"], [("Username (ann): ", "\n"), ("Password: ", "hunter2\n")]
        )
    assert code == 0, shown
    assert words in shown
    assert "hunter2" not in shown
    assert shown.endswith("Login Succeeded\r\n")
    assert sent(daemon.requests[1])["password"] == "hunter2"
    assert config(home)["auths"]["r.example"] == {"auth": encoded("ann:hunter2")}


@pytest.mark.parametrize(
    ("argv", "typed", "words"),
    [
        ([], [("Username: ", "\n")], "Error: Non-null Username Required"),
        (["-u", "ann"], [("Password: ", "\n")], "Error: Password Required"),
    ],
)
def test_nothing_was_typed(tmp_path: Path, argv: list[str], typed: list[tuple[str, str]], words: str) -> None:
    with ScriptedDaemon(tmp_path / "s", []) as daemon:
        shown, code = on_terminal(["-H", daemon.url, "login", *argv, "r.example"], typed)
    assert code == 1
    assert words in shown


def on_terminal(argv: list[str], typed: list[tuple[str, str]]) -> tuple[str, int]:
    """What a terminal shows while at each prompt the answer to it is typed, and the exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "corten.cli.main", *argv])
    shown, waiting = b"", list(typed)
    try:
        while select.select([fd], [], [], patience(30))[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
            # The prompt for the password comes when the terminal is silent already.
            if waiting and shown.endswith(waiting[0][0].encode()):
                os.write(fd, waiting.pop(0)[1].encode())
    finally:
        os.close(fd)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_logging_out(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"auth": encoded("ann:hunter2")}
    names = ("r.example", "https://r.example", "https://index.docker.io/v1/", "other.example")
    write(home, {"auths": dict.fromkeys(names, entry), "kept": 1})
    assert run(["logout", "http://r.example/v1/"]) == 0
    assert run(["logout"]) == 0
    assert run(["logout", "never.example"]) == 0
    assert capsys.readouterr().out == (
        "Removing login credentials for r.example\nRemoving login credentials for https://index.docker.io/v1/\n"
        "Removing login credentials for never.example\n"
    )
    assert config(home) == {"auths": {"other.example": entry}, "kept": 1}


# -- helpers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_keeps_the_secret(
    key: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = helper(tmp_path)
    write(home, {key: "test" if key == "credsStore" else {"r.example": "test"}})
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        argv = ("login", "-u", "ann", "--password-stdin", "r.example")
        assert corten(daemon, *argv, typed=b"hunter2", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().err == ""
    assert json.loads((place / "kept").read_text()) == {
        "ServerURL": "r.example",
        "Username": "ann",
        "Secret": "hunter2",
    }
    assert config(home)["auths"] == {"r.example": {}}
    assert credentials.find(config(home), "r.example") == {"username": "ann", "password": "hunter2"}
    known = json.loads(base64.urlsafe_b64decode(credentials.config_header(config(home))))
    assert known == {"r.example": {"username": "ann", "password": "hunter2", "serveraddress": "r.example"}}
    assert run(["logout", "r.example"]) == 0
    assert not (place / "kept").exists()
    assert config(home)["auths"] == {}
    assert "hunter2" not in (place / "argv").read_text()
    assert "hunter2" not in (home / "config.json").read_text()


def test_a_helper_keeps_an_identity_token_as_one(home: Path, tmp_path: Path) -> None:
    place = helper(tmp_path)
    write(home, {"credsStore": "test"})
    with ScriptedDaemon(tmp_path / "s", [TOKEN]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2", "r.example"]) == 0
    assert json.loads((place / "kept").read_text())["Username"] == "<token>"
    assert credentials.find(config(home), "r.example") == {"identitytoken": "id-token"}


def test_the_desktops_helper_is_taken_where_nothing_is_kept_yet(home: Path, tmp_path: Path) -> None:
    helper(tmp_path, "secretservice")
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2", "r.example"]) == 0
    assert config(home) == {"auths": {"r.example": {}}, "credsStore": "secretservice"}


def test_a_helper_that_fails_says_why_without_the_secret(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = helper(tmp_path) / "bin" / "docker-credential-test"
    program.write_text("#!/bin/sh\necho locked: $(cat)\nexit 3\n")
    write(home, {"credsStore": "test"})
    with ScriptedDaemon(tmp_path / "s", [OK]) as daemon:
        assert run(["-H", daemon.url, "login", "-u", "ann", "-p", "hunter2", "r.example"]) == 1
    err = capsys.readouterr().err
    assert "Error saving credentials: error storing credentials - err: exit status 3, out: `locked: " in err
    assert "hunter2" not in err
    program.write_text("#!/bin/sh\necho hunter2\n")
    with pytest.raises(HelperError, match="answer is not JSON") as caught:
        Helper("test").get("r.example")
    assert "hunter2" not in str(caught.value)
    program.unlink()
    assert credentials.auth_for("r.example/a", config(home)) == ""
    assert 'WARNING: error getting credentials - err: exec: "docker-credential-test": executable file not found' in (
        capsys.readouterr().err
    )


# -- the environment ---------------------------------------------------------------------------------------------------


def test_the_environment_comes_first_and_is_not_written_down(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, {"auths": {"r.example": {"auth": encoded("ann:old")}, "b.example": {"auth": encoded("bob:pw")}}})
    given = json.dumps({"auths": {"r.example": {"auth": encoded("ann:hunter2")}}})
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", given)
    before = (home / "config.json").read_text()
    assert credentials.find(config(home), "r.example") == {"username": "ann", "password": "hunter2"}
    assert credentials.find(config(home), "b.example") == {"username": "bob", "password": "pw"}
    with ScriptedDaemon(tmp_path / "s", [TOKEN]) as daemon:
        assert run(["-H", daemon.url, "login", "r.example"]) == 0
    assert sent(daemon.requests[0])["password"] == "hunter2"
    assert (home / "config.json").read_text() == before
    assert "WARNING: DOCKER_AUTH_CONFIG is set and takes precedence." in capsys.readouterr().err
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "hunter2")
    assert credentials.find(config(home), "r.example") == {"username": "ann", "password": "old"}
    err = capsys.readouterr().err
    assert "Failed to create credential store from DOCKER_AUTH_CONFIG" in err
    assert "hunter2" not in err
