"""Where registries are, and which of them need no TLS."""

from __future__ import annotations

import pytest

from corten.errors import InvalidArgument
from corten.registry.endpoints import Endpoint, RegistrySettings
from corten.registry.transport import _upgraded


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.8.8.8", True),
        ("localhost:5000", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("10.2.0.1", False),
        ("plain.example:5000", True),
        ("plain.example", False),
        ("any.example:1", True),
        ("any.example", True),
        ("registry.example", False),
        ("localhost.example", False),
    ],
)
def test_insecure(host: str, insecure: bool) -> None:
    settings = RegistrySettings(insecure=("10.1.0.0/16", "plain.example:5000", "any.example"))
    assert settings.is_insecure(host) is insecure
    assert settings.endpoints(host) == (Endpoint(host, insecure),)
    assert Endpoint(host, insecure).schemes == (("https", "http") if insecure else ("https",))


def test_mirrors_stand_before_the_hub_for_pulling_only() -> None:
    settings = RegistrySettings(mirrors=("https://mirror.example/hub/", "http://10.0.0.1:5000"))
    first, second, hub = settings.endpoints("docker.io")
    assert (first.host, first.prefix, first.schemes) == ("mirror.example", "/hub", ("https",))
    assert (second.host, second.schemes) == ("10.0.0.1:5000", ("http",))
    assert hub == Endpoint("registry-1.docker.io")
    assert settings.endpoints("docker.io", push=True) == (hub,)
    assert len(settings.endpoints("quay.io")) == 1


@pytest.mark.parametrize("url", ["mirror.example", "ftp://x", "https://", "https://a:b@x", "https://x?y"])
def test_mirrors_that_are_none(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        RegistrySettings(mirrors=(url,))


@pytest.mark.parametrize("entry", ["http://x", "x/y", "", "a@b"])
def test_insecure_registries_that_are_none(entry: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid insecure registry"):
        RegistrySettings(insecure=(entry,))


def test_an_address_that_the_registry_gives_keeps_to_tls() -> None:
    assert _upgraded("http://r.example/v2/x?y", Endpoint("r.example"), "") == "https://r.example/v2/x?y"
    local = Endpoint("127.0.0.1:5000", True)
    assert _upgraded("http://127.0.0.1:5000/v2/", local, "http") == "http://127.0.0.1:5000/v2/"
    assert _upgraded("http://127.0.0.1:5000/v2/", local, "https") == "https://127.0.0.1:5000/v2/"
    assert _upgraded("http://127.0.0.1:5001/v2/", local, "https") == "http://127.0.0.1:5001/v2/"
    assert _upgraded("https://r.example/v2/", Endpoint("r.example"), "") == "https://r.example/v2/"
