"""Completion in real shells, manual pages in the real formatter, and what `system install` writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.harness import Daemon

BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD=$(({count} - 1))
_corten
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# zsh's completion needs a terminal: its own module for terminals gives it one.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1= PS2= TERM=dumb; autoload -Uz compinit; compinit -u -D; source {script}'
zpty -w shell 'bindkey "^I" list-choices; LISTMAX=1000; echo read""y'
while zpty -r shell line; do [[ $line == *ready* ]] && break; done
zpty -n -w shell $'{line}\\t\\n echo do""ne\\n'
while zpty -r shell line; do print -r -- $line; [[ $line == *done* ]] && break; done
"""


@pytest.fixture
def corten(daemon: Daemon, tmp_path: Path) -> Daemon:
    """A daemon with two containers, and `corten` on the PATH, in folder `bin` of the test's own."""
    program = tmp_path / "bin/corten"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m corten.cli.main "$@"\n')
    program.chmod(0o755)
    daemon.ok("run", "-d", "--name", "web-one", "busybox", "sleep", "1000")
    daemon.ok("create", "--name", "web-two", "busybox", "true")
    return daemon


def environment(daemon: Daemon, tmp_path: Path) -> dict[str, str]:
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "DOCKER_HOST": daemon.url,
        "DOCKER_CONFIG": str(tmp_path),
        "HOME": str(tmp_path),
    }


def shell(daemon: Daemon, tmp_path: Path, *command: str) -> list[str]:
    done = subprocess.run(
        command, env=environment(daemon, tmp_path), capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def script(daemon: Daemon, tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"script.{name}"
    path.write_text("\n".join(shell(daemon, tmp_path, "corten", "completion", name)) + "\n")
    return path


CASES = [
    (["corten", "st"], ["start", "stats", "stop"]),
    (["corten", "system", "d"], ["df"]),
    (["corten", "run", "--restart", "un"], ["unless-stopped"]),
    (["corten", "run", "--cap"], ["--cap-add", "--cap-drop"]),
    (["corten", "rm", "-f", "web"], ["web-one", "web-two"]),
    (["corten", "exec", "-it", "web"], ["web-one"]),
    (["corten", "run", "--rm", "busy"], ["busybox", "busybox:latest"]),
    (["corten", "run", "--network", "h"], ["host"]),
    (["corten", "-H", "nowhere", "rm", ""], []),
]


@pytest.mark.parametrize(("words", "expected"), CASES, ids=lambda value: " ".join(value))
def test_bash(corten: Daemon, tmp_path: Path, words: list[str], expected: list[str]) -> None:
    quoted = " ".join(f"'{word}'" for word in words)
    text = BASH.format(script=script(corten, tmp_path, "bash"), words=quoted, count=len(words))
    found = shell(corten, tmp_path, "bash", "--norc", "-c", text)
    assert sorted(set(found) - {""}) == expected


@pytest.mark.parametrize(("words", "expected"), CASES[:-1], ids=lambda value: " ".join(value))
def test_fish(corten: Daemon, tmp_path: Path, words: list[str], expected: list[str]) -> None:
    text = f"source {script(corten, tmp_path, 'fish')}; complete -C '{' '.join(words)}'"
    found = shell(corten, tmp_path, "fish", "--no-config", "-c", text)
    assert sorted(line.split("\t")[0] for line in found) == expected


def test_fish_offers_files_where_they_may_stand(corten: Daemon, tmp_path: Path) -> None:
    (tmp_path / "an-archive.tar").touch()
    text = f"source {script(corten, tmp_path, 'fish')}; complete -C 'corten load -i an-'"
    assert shell(corten, tmp_path, "fish", "--no-config", "-c", text) == ["an-archive.tar"]


def test_zsh(corten: Daemon, tmp_path: Path) -> None:
    text = ZSH.format(script=script(corten, tmp_path, "zsh"), line="corten rm -f web")
    found = " ".join(shell(corten, tmp_path, "zsh", "-f", "-c", text))
    assert "web-one" in found
    assert "web-two" in found


def test_bash_offers_files_where_they_may_stand(corten: Daemon, tmp_path: Path) -> None:
    (tmp_path / "an-archive.tar").touch()
    text = BASH.format(script=script(corten, tmp_path, "bash"), words="corten load -i an-", count=4)
    assert shell(corten, tmp_path, "bash", "--norc", "-c", text) == ["an-archive.tar"]


def test_an_unknown_shell(daemon: Daemon) -> None:
    done = daemon.corten("completion", "powershell")
    assert (done.code, "bash, fish, zsh" in done.err) == (1, True)


def test_every_manual_page_is_well_formed(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.corten("manual", "--output", str(tmp_path / "man1")).code == 0
    pages = sorted((tmp_path / "man1").iterdir())
    assert {"corten.1", "corten-system.1", "corten-container-run.1"} <= {page.name for page in pages}
    for page in pages:
        done = subprocess.run(
            ["groff", "-k", "-man", "-Tutf8", "-ww", str(page)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
    text = subprocess.run(
        ["groff", "-k", "-man", "-Tascii", "-P-cbou", str(tmp_path / "man1/corten-container-run.1")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "--cap-add list" in text
    assert "corten run" in text
    assert daemon.corten("manual", "run").out == (tmp_path / "man1/corten-container-run.1").read_text()
    assert daemon.corten("manual", "nothing").code == 1


def test_what_is_installed_as_for_a_package(daemon: Daemon, tmp_path: Path) -> None:
    root = tmp_path / "root"
    where = ("--root", str(root))
    done = daemon.corten(
        "system", "install", *where, "--socket", "/run/x.sock", "--group", "adm", "--", "--data-root", "/a b"
    )
    assert done.code == 0, done.err
    service = (root / "etc/systemd/system/cortend.service").read_text()
    assert (
        f"ExecStart={shutil.which('cortend', path=os.path.dirname(sys.executable))} -H fd:// --data-root '/a b'\n"
        in service
    )
    for line in ("Type=notify", "KillMode=process", "Delegate=yes"):
        assert f"\n{line}\n" in service
    socket = (root / "etc/systemd/system/cortend.socket").read_text()
    assert "\nListenStream=/run/x.sock\n" in socket
    assert "\nSocketGroup=adm\n" in socket
    installed = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert "usr/local/share/man/man1/corten.1" in installed
    assert "usr/local/share/zsh/site-functions/_corten" in installed
    assert daemon.corten("system", "install", *where, "--remove").code == 0
    assert [path for path in root.rglob("*") if path.is_file()] == []
