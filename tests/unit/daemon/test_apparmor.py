from __future__ import annotations

from pathlib import Path

import pytest

from corten.daemon import apparmor


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with AppArmor; a program written to `apparmor_parser` in it is its parser."""
    enabled = tmp_path / "enabled"
    enabled.write_text("Y\n")
    label = tmp_path / "current"
    label.write_text("cortend (enforce)\0\n")
    monkeypatch.setattr(apparmor, "ENABLED", enabled)
    monkeypatch.setattr(apparmor, "OWN_LABELS", (tmp_path / "missing", label))
    monkeypatch.setattr(apparmor, "PARSER_PATH", str(tmp_path))
    return tmp_path


def parser(host: Path, script: str) -> None:
    program = host / "apparmor_parser"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_profile_is_loaded(host: Path) -> None:
    parser(host, f'echo "$@" > {host}/args; cat > {host}/text')
    assert apparmor.install() == apparmor.Confinement("corten-default")
    assert "--replace" in (host / "args").read_text()
    text = (host / "text").read_text()
    assert text.startswith("profile corten-default ")
    assert 'peer="cortend"' in text


def test_a_host_without_apparmor(host: Path) -> None:
    parser(host, f"touch {host}/ran")
    (host / "enabled").write_text("N\n")
    assert apparmor.install() == apparmor.Confinement()
    (host / "enabled").unlink()
    assert apparmor.install() == apparmor.Confinement()
    assert not (host / "ran").exists()


def test_a_host_without_the_parser(host: Path) -> None:
    assert apparmor.install() == apparmor.Confinement()


def test_a_parser_that_fails(host: Path) -> None:
    parser(host, "cat >/dev/null; echo 'Access denied.' >&2; exit 1")
    confinement = apparmor.install()
    assert confinement.profile == ""
    assert confinement.fault.endswith("could not be loaded: Access denied.")


def test_a_parser_that_hangs(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apparmor, "PARSER_SECONDS", 0.1)
    parser(host, "exec sleep 100")
    assert "timed out" in apparmor.install().fault
