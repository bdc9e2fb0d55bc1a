"""What a container sends to `corten cp` stays where it was asked for."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from corten.cli.errors import CliError
from corten.cli.unpacking import unpack


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """Of (name, type, link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o755
            tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("top/../../planted", tarfile.REGTYPE, "")],
        [("top/l", tarfile.SYMTYPE, "VICTIM"), ("top/l/planted", tarfile.REGTYPE, "")],
        [("top/l", tarfile.SYMTYPE, "VICTIM"), ("top/l/deep", tarfile.DIRTYPE, "")],
        [("top/h", tarfile.LNKTYPE, "top/../../victim/secret")],
        [("top/l", tarfile.SYMTYPE, "VICTIM"), ("top/h", tarfile.LNKTYPE, "top/l/secret")],
    ],
)
def test_nothing_lands_outside(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("secret")
    named = [(name, kind, link.replace("VICTIM", str(victim))) for name, kind, link in members]
    data = archive(("top", tarfile.DIRTYPE, ""), *named)
    with pytest.raises(CliError):
        unpack(iter([data]), "top", str(tmp_path / "place"))
    assert os.listdir(victim) == ["secret"]
    assert not (tmp_path / "planted").exists()
    assert (victim / "secret").stat().st_nlink == 1


def test_a_link_takes_the_place_of_a_file_and_not_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "here").symlink_to(tmp_path / "file")
    assert unpack(iter([archive(("f", tarfile.REGTYPE, ""))]), "f", str(tmp_path / "here")) > 0
    assert not (tmp_path / "here").is_symlink()
    assert (tmp_path / "file").read_text() == "kept"


def test_an_archive_that_is_cut(tmp_path: Path) -> None:
    with pytest.raises(CliError):
        unpack(iter([archive(("f", tarfile.REGTYPE, ""))[:300]]), "f", str(tmp_path / "f"))
