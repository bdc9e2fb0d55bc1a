"""Which proxy a request goes through, by the rules that Go's programs have."""

from __future__ import annotations

import pytest

from corten.errors import InvalidArgument
from corten.registry.proxies import Proxies, ProxySettings, masked

BOTH = {"http": "http://plain:3128", "https": "http://tls:3129"}


def direct(no_proxy: str, url: str) -> bool:
    return Proxies(ProxySettings(**BOTH, no_proxy=no_proxy)).of(url) is None


def test_each_scheme_has_its_proxy() -> None:
    proxies = Proxies(ProxySettings(**BOTH))
    assert proxies.of("https://registry.example/v2/") == "http://tls:3129"
    assert proxies.of("http://registry.example/v2/") == "http://plain:3128"
    assert proxies.of("ftp://registry.example/") is None
    assert Proxies(ProxySettings(http="plain:3128")).of("http://x.example/") == "http://plain:3128"
    assert Proxies(ProxySettings(http="plain:3128")).of("https://x.example/") is None


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"])
def test_this_machine_is_never_behind_a_proxy(host: str) -> None:
    assert direct("", f"https://{host}/v2/")
    assert direct("", f"http://{host}/v2/")


@pytest.mark.parametrize(
    ("no_proxy", "url", "wanted"),
    [
        ("*", "https://any.example/", True),
        ("inner.example", "https://inner.example/", True),
        ("inner.example", "https://deep.inner.example/", True),
        ("inner.example", "https://notinner.example/", False),
        (".inner.example", "https://deep.inner.example:5000/", True),
        (".inner.example", "https://inner.example/", False),
        ("*.inner.example", "https://deep.inner.example/", True),
        ("*.inner.example", "https://inner.example/", False),
        ("a.example, INNER.example", "https://Inner.Example/", True),
        ("inner.example:5000", "https://inner.example:5000/", True),
        ("inner.example:5000", "https://inner.example/", False),
        ("inner.example:443", "https://inner.example/", True),
        ("10.0.0.0/8", "https://10.20.30.40:5000/", True),
        ("10.0.0.0/8", "https://11.0.0.1/", False),
        ("10.1.2.3", "https://10.1.2.3/", True),
        ("10.1.2.3:80", "https://10.1.2.3/", False),
        ("fd00::/8", "https://[fd00::1]:5000/", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000/", True),
        ("fd00::1", "https://[fd00::1]/", True),
        ("fd00::2", "https://[fd00::1]/", False),
        ("10.0.0.0/99,,  ,no/net", "https://10.0.0.1/", False),
        ("example", "https://10.0.0.1/", False),
    ],
)
def test_what_is_reached_directly(no_proxy: str, url: str, wanted: bool) -> None:
    assert direct(no_proxy, url) is wanted


def test_the_configuration_comes_before_the_environment_and_capitals_before_small_letters() -> None:
    environment = {"HTTP_PROXY": "big:1", "http_proxy": "small:1", "https_proxy": "small:2", "NO_PROXY": "a"}
    assert ProxySettings().over(environment) == ProxySettings("big:1", "small:2", "a")
    own = ProxySettings(https="http://own:3", no_proxy="b")
    assert own.over(environment) == ProxySettings("big:1", "http://own:3", "b")


@pytest.mark.parametrize(
    "url", ["socks5://u:hunter2@p:1", "http://", "http://u:hunter2@:80", "http://p:x", "file:///x"]
)
def test_what_is_no_proxy_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid proxy") as caught:
        Proxies(ProxySettings(https=url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://ann:hunter2@proxy:3128/x", "http://xxxxx:xxxxx@proxy:3128/x"),
        ("ann:hunter2@proxy:3128", "xxxxx:xxxxx@proxy:3128"),
        ("http://ann:hun/ter2@proxy", "http://xxxxx:xxxxx@proxy"),
        ("http://ann:hun@ter2@proxy", "http://xxxxx:xxxxx@proxy"),
        ("", ""),
    ],
)
def test_a_proxy_is_shown_without_who_uses_it(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_secrets_do_not_show_in_a_repr() -> None:
    assert "hunter2" not in repr(ProxySettings("http://ann:hunter2@p", "http://ann:hunter2@p"))
