"""What the configuration makes of registries, and what `docker info` says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corten.daemon.config import merge
from corten.daemon.wiring import _registries
from corten.engine.deps import EngineSettings
from corten.engine.hostfacts import read as read_facts
from corten.engine.system import _registry_config
from corten.errors import InvalidArgument


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name)


def test_proxies_of_the_environment_and_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://from-environment:1")
    monkeypatch.setenv("http_proxy", "http://small:2")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    proxies = _registries(merge({}, {})).proxies
    assert proxies.of("https://r.example/") == "http://from-environment:1"
    assert proxies.of("http://r.example/") == "http://small:2"
    assert proxies.of("https://10.1.1.1/") is None
    configured = _registries(merge({"https_proxy": "http://flag:3"}, {"no_proxy": "x.example"})).proxies
    assert configured.of("https://10.1.1.1/") == "http://flag:3"
    assert configured.of("http://r.example/") == "http://small:2"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://ann:hunter2@p:1")
    with pytest.raises(InvalidArgument, match="invalid proxy") as caught:
        _registries(merge({}, {}))
    assert "hunter2" not in str(caught.value)


def test_directories_of_the_configuration(tmp_path: Path) -> None:
    assert _registries(merge({}, {})).directories == (Path("/etc/corten/certs.d"), Path("/etc/docker/certs.d"))
    assert _registries(merge({}, {"registry_config_dirs": (tmp_path,)})).directories == (tmp_path,)


def test_what_info_says(tmp_path: Path) -> None:
    settings = EngineSettings(
        data_root=tmp_path,
        exec_root=tmp_path,
        facts=read_facts(),
        insecure_registries=("plain.example:5000", "10.0.0.0/8"),
        registry_mirrors=("https://mirror.example", "https://other.example/hub/"),
    )
    mirrors = ["https://mirror.example/", "https://other.example/hub/"]
    assert _registry_config(settings) == {
        "IndexConfigs": {
            "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True},
            "plain.example:5000": {"Name": "plain.example:5000", "Mirrors": [], "Secure": False, "Official": False},
        },
        "InsecureRegistryCIDRs": ["10.0.0.0/8", "127.0.0.0/8", "::1/128"],
        "Mirrors": mirrors,
    }
