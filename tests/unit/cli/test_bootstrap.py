"""Base images from the host: their layout, and what is said when a tool is missing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from corten.cli.commands import bootstrap
from corten.cli.errors import CliError
from corten.cli.main import run

STATIC = [path for path in bootstrap._BUSYBOX_PATHS if Path(path).exists()]


def static_busybox() -> bool:
    return any(not bootstrap._is_dynamic(Path(path).read_bytes()) for path in STATIC)


@pytest.mark.skipif(not static_busybox(), reason="busybox-static is not installed")
def test_a_root_of_busybox() -> None:
    out = io.BytesIO()
    bootstrap._busybox_layer(out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        members = {member.name: member for member in tar}
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read().startswith(b"root:x:0:0:root:/root:/bin/sh\n")
    assert (members["tmp"].mode, members["root"].mode) == (0o1777, 0o700)
    assert (members["bin/sh"].linkname, members["bin/sh"].issym()) == ("busybox", True)
    assert members["bin/busybox"].isreg()
    assert {member.uid for member in members.values()} == {0}


@pytest.mark.skipif(not static_busybox(), reason="busybox-static is not installed")
def test_the_same_bytes_every_time() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    bootstrap._busybox_layer(first)
    bootstrap._busybox_layer(second)
    assert first.getvalue() == second.getvalue()


def test_the_layout_of_an_image(tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    layer.write_bytes(b"layer" * 1000)
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    out = io.BytesIO()
    bootstrap.write_image(out, str(layer), "x:1", ["sh"], "made here")
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        content = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        data = {name: file.read() for name, file in content.items() if file}
    (manifest,) = json.loads(data["manifest.json"])
    assert (manifest["RepoTags"], manifest["Layers"]) == (["x:1"], [f"{digest}/layer.tar"])
    assert data[manifest["Layers"][0]] == layer.read_bytes()
    config = json.loads(data[manifest["Config"]])
    assert hashlib.sha256(data[manifest["Config"]]).hexdigest() == manifest["Config"].removesuffix(".json")
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert config["config"]["Cmd"] == ["sh"]
    assert config["config"]["Env"][0].startswith("PATH=/usr/local/sbin:")


def test_tools_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bootstrap, "_BUSYBOX_PATHS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CliError, match="apt-get install busybox-static"):
        bootstrap._busybox_layer(io.BytesIO())
    with pytest.raises(CliError, match="apt-get install mmdebstrap"):
        bootstrap._debian_layer(str(tmp_path / "x"), "bookworm", "")


def test_what_it_cannot_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "bootstrap", "alpine"]) == 1
    assert capsys.readouterr().err == "cannot make alpine: it must be busybox or debian\n"
