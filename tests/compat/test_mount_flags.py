"""What `--mount` and `-v` say of the mounts below a bind mount, with the real docker command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.linux.mount import mount, umount2
from tests.compat.harness import Daemon

TRY = "touch /v/x && echo top; test -e /v/below/here && echo seen; touch /v/below/x && echo below"


@pytest.fixture
def tree(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system mounted below it."""
    below = tmp_path / "tree/below"
    below.mkdir(parents=True)
    mount("tmpfs", str(below), "tmpfs")
    try:
        (below / "here").touch()
        yield tmp_path / "tree"
    finally:
        umount2(str(below))


@pytest.mark.parametrize(
    ("words", "able"),
    [
        ("", "top seen below"),
        (",bind-recursive=enabled", "top seen below"),
        (",bind-recursive=disabled", "top below"),
        (",readonly", "seen"),
        (",readonly,bind-recursive=disabled", ""),
        (",readonly,bind-recursive=writable", "seen below"),
        (",readonly,bind-recursive=readonly,bind-propagation=rprivate", "seen"),
    ],
)
def test_bind_recursive(daemon: Daemon, tree: Path, words: str, able: str) -> None:
    done = daemon.docker("run", "--rm", "--mount", f"type=bind,src={tree},dst=/v{words}", "busybox", "sh", "-c", TRY)
    assert done.out.split() == able.split(), done.err


def test_a_readonly_volume_is_so_all_the_way_down(daemon: Daemon, tree: Path) -> None:
    done = daemon.docker("run", "--rm", "-v", f"{tree}:/v:ro", "busybox", "sh", "-c", TRY)
    assert done.out.split() == ["seen"], done.err


def test_a_directory_on_a_file_is_explained(daemon: Daemon, tree: Path) -> None:
    done = daemon.docker("run", "--rm", "-v", f"{tree}:/etc/passwd", "busybox", "true")
    assert done.code == 127
    assert "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?" in done.err
