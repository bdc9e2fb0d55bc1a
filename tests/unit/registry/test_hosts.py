"""hosts.toml and certs.d, as containerd and Docker lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from corten.errors import InvalidArgument
from corten.registry.endpoints import Endpoint, RegistrySettings
from corten.registry.hosts import Trust

FULL = """
server = "https://registry.example"

[host."https://mirror.example:5000/cache/"]
  capabilities = ["pull", "resolve"]
  ca = ["ca.pem", "/abs/other.pem"]
  client = [["me.cert", "me.key"]]
  dial_timeout = "1m1.5s"
  [host."https://mirror.example:5000/cache/".header]
    x-team = ["a", "b"]
    authorization = "Basic hunter2"

[host."http://10.0.0.1:5000/v2/proxy"]
  capabilities = ["pull"]
  override_path = true

[host."registry.example/v2/"]
  skip_verify = true
  client = "both.pem"
"""


def written(tmp_path: Path, name: str, text: str) -> RegistrySettings:
    (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / name / "hosts.toml").write_text(text)
    return RegistrySettings(directories=(tmp_path,))


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    settings = written(tmp_path, "registry.example", FULL)
    first, second, third, last = settings.endpoints("registry.example")
    here = str(tmp_path / "registry.example")
    assert first == Endpoint(
        "mirror.example:5000",
        prefix="/cache",
        scheme="https",
        own=False,
        namespace="registry.example",
        capabilities=frozenset(("pull", "resolve")),
        trust=Trust((f"{here}/ca.pem", "/abs/other.pem"), (f"{here}/me.cert", f"{here}/me.key")),
        headers=(("x-team", "a"), ("x-team", "b"), ("authorization", "Basic hunter2")),
        dial_timeout=61.5,
    )
    assert first.url("https", "/v2/a/manifests/1") == (
        "https://mirror.example:5000/cache/v2/a/manifests/1?ns=registry.example"
    )
    assert first.url("https", "/v2/a/tags/list?n=5").endswith("/tags/list?n=5&ns=registry.example")
    assert second.url("http", "/v2/a/blobs/x") == "http://10.0.0.1:5000/v2/proxy/a/blobs/x?ns=registry.example"
    assert (second.schemes, second.plain, second.own) == (("http",), True, False)
    assert third.url("https", "/v2/") == "https://registry.example/v2/"
    assert third.own
    assert third.unverified
    assert third.schemes == ("https",)
    assert third.trust.client == (f"{here}/both.pem", f"{here}/both.pem")
    assert last == Endpoint("registry.example", scheme="https")
    assert settings.endpoints("registry.example", push=True) == (third,)
    assert "hunter2" not in repr(first)


def test_what_stands_at_the_top_is_for_the_registry_itself(tmp_path: Path) -> None:
    settings = written(tmp_path, "r.example", 'ca = "ca.pem"\ncapabilities = ["pull"]\n')
    (only,) = settings.endpoints("r.example")
    assert (only.host, only.trust.ca) == ("r.example", (str(tmp_path / "r.example/ca.pem"),))
    with pytest.raises(InvalidArgument, match=r"nothing may be pushed to r\.example"):
        settings.endpoints("r.example", push=True)
    settings = written(tmp_path, "r.example", 'server = "http://other.example:80"\n[host."https://m.example"]\n')
    mirror, server = settings.endpoints("r.example")
    assert (mirror.own, server.own, server.host, server.schemes) == (False, True, "other.example:80", ("http",))


def test_the_hub_has_its_files_and_its_mirrors(tmp_path: Path) -> None:
    written(tmp_path, "docker.io", '[host."https://first.example"]\n')
    settings = RegistrySettings(directories=(tmp_path,), mirrors=("https://second.example",))
    found = settings.endpoints("docker.io")
    assert [endpoint.host for endpoint in found] == ["first.example", "second.example", "registry-1.docker.io"]
    assert [endpoint.namespace for endpoint in found] == ["docker.io", "", ""]
    for address in ("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"):
        assert settings.registry(address) == Endpoint("registry-1.docker.io")


@pytest.mark.parametrize(
    ("name", "host", "found"),
    [
        ("r.example", "r.example", True),
        ("r.example", "r.example:5000", False),
        ("r.example:5000", "r.example:5000", True),
        ("r.example_5000_", "r.example:5000", True),
        ("[::1]_5000_", "[::1]:5000", True),
        ("[::1]", "[::1]", True),
        ("_default", "any.example:1", True),
    ],
)
def test_the_directory_of_a_host(tmp_path: Path, name: str, host: str, found: bool) -> None:
    settings = written(tmp_path, name, '[host."https://m.example"]\n')
    assert len(settings.endpoints(host)) == 1 + found


def test_the_first_directory_that_knows_a_host_is_the_only_one(tmp_path: Path) -> None:
    ours, dockers = tmp_path / "ours", tmp_path / "docker"
    written(ours, "r.example", '[host."https://m.example"]\n')
    written(dockers, "r.example", '[host."https://a.example"]\n[host."https://b.example"]\n')
    written(dockers, "other.example", '[host."https://c.example"]\n')
    settings = RegistrySettings(directories=(ours, dockers))
    assert [endpoint.host for endpoint in settings.endpoints("r.example")] == ["m.example", "r.example"]
    assert settings.endpoints("other.example")[0].host == "c.example"


def test_what_was_changed_holds_at_once(tmp_path: Path) -> None:
    settings = written(tmp_path, "r.example", '[host."https://old.example"]\n')
    assert settings.endpoints("r.example")[0].host == "old.example"
    written(tmp_path, "r.example", '[host."https://new.example"]\n')
    assert settings.endpoints("r.example")[0].host == "new.example"


def test_dockers_certificates(tmp_path: Path) -> None:
    place = tmp_path / "r.example:5000"
    place.mkdir()
    for name in ("b.crt", "a.crt", "me.cert", "me.key", "notes.txt"):
        (place / name).touch()
    (found,) = RegistrySettings(directories=(tmp_path,)).endpoints("r.example:5000")
    assert found.trust == Trust((f"{place}/a.crt", f"{place}/b.crt"), (f"{place}/me.cert", f"{place}/me.key"))
    (place / "me.key").unlink()
    with pytest.raises(
        InvalidArgument, match=r"missing key me\.key for client certificate me\.cert\. CA certificates must"
    ):
        RegistrySettings(directories=(tmp_path,)).endpoints("r.example:5000")
    (place / "me.cert").rename(place / "you.key")
    with pytest.raises(InvalidArgument, match=r"missing client certificate you\.cert for key you\.key"):
        RegistrySettings(directories=(tmp_path,)).endpoints("r.example:5000")


def test_an_authority_makes_a_loopback_registry_secure_unless_it_is_listed(tmp_path: Path) -> None:
    (tmp_path / "127.0.0.1:5000").mkdir()
    (tmp_path / "127.0.0.1:5000" / "ca.crt").touch()
    assert not RegistrySettings(directories=(tmp_path,)).endpoints("127.0.0.1:5000")[0].insecure
    assert RegistrySettings(directories=(tmp_path,)).endpoints("127.0.0.1:5001")[0].insecure
    listed = RegistrySettings(directories=(tmp_path,), insecure=("127.0.0.0/8",))
    assert listed.endpoints("127.0.0.1:5000")[0].insecure


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = [", "is not TOML"),
        ("server = 5", "server must be a string"),
        ("mirror = 'x'", "unknown key mirror"),
        ("[host.'https://m']\nca-cert = 'x'", 'unknown key host."https://m".ca-cert'),
        ("host = ['https://m']", "host must be tables"),
        ("[host.'ftp://m']", "'ftp://m' is no address of a registry"),
        ("[host.'https://']", "is no address of a registry"),
        ("[host.'https://u:p@m']", "is no address of a registry"),
        ("[host.'https://m:99999']", "is no address of a registry"),
        ("[host.'https://m']\ncapabilities = ['pull', 'steal']", "may be pull, resolve and push, not steal"),
        ("[host.'https://m']\nskip_verify = 'yes'", "skip_verify must be true or false"),
        ("[host.'https://m']\ndial_timeout = 5", "dial_timeout must be a duration"),
        ("[host.'https://m']\ndial_timeout = 'soon'", "dial_timeout must be a duration"),
        ("[host.'https://m']\nca = 5", "ca must be a string or a list of strings"),
        ("[host.'https://m']\nclient = [['a', 'b', 'c']]", "client must be paths, or pairs"),
        ("[host.'https://m']\nclient = 5", "client must be a path"),
        ("[host.'https://m'.header]\n'a b' = 'x'", "cannot be sent"),
        ("[host.'https://m'.header]\na = \"x\\r\\ny: z\"", "cannot be sent"),
        ("[host.'https://m']\nheader = 'a'", "header must be a table"),
    ],
)
def test_a_file_that_makes_no_sense_is_named_with_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        written(tmp_path, "r.example", text).endpoints("r.example")
    assert str(tmp_path / "r.example/hosts.toml") in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("address", ["", "..", "https://", "ftp://x", "u:p@x", "x:y", "https://[", "a b", "../../etc"])
def test_addresses_of_no_registry(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse server address"):
        RegistrySettings(directories=(tmp_path,)).registry(address)


@pytest.mark.parametrize(
    ("address", "host"), [("r.example", "r.example"), ("http://[::1]:5000/v1/", "[::1]:5000"), ("a-b:5/x", "a-b:5")]
)
def test_addresses_of_registries(address: str, host: str) -> None:
    assert RegistrySettings().registry(address).host == host


def test_a_file_that_is_nested_without_end(tmp_path: Path) -> None:
    settings = written(tmp_path, "registry.example", "server = " + "[" * 5000)
    with pytest.raises(InvalidArgument, match="is not TOML"):
        settings.endpoints("registry.example")
