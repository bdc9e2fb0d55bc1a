"""What a registry asks and what we answer, as transcripts; no network."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from corten.errors import Unauthorized
from corten.registry.auth import Challenge, Credentials, RegistryAuth, basic, parse_challenges

PULL = "repository:library/alpine:pull"
HUB = [Challenge("bearer", {"realm": "https://auth.example/token", "service": "registry.example", "scope": PULL})]


def test_an_anonymous_pull() -> None:
    auth = RegistryAuth(Credentials())
    assert auth.header(PULL, now=0) == ""
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    assert request.authorization == request.form == ""
    assert parse_qs(urlsplit(request.url).query) == {"service": ["registry.example"], "scope": [PULL]}
    auth.granted(request, b'{"token":"t1","expires_in":300}', now=0)
    assert auth.header(PULL, now=0) == "Bearer t1"
    assert auth.header(PULL, now=289) == "Bearer t1"
    assert auth.header(PULL, now=290) == ""
    assert auth.header("repository:other:pull", now=0) == ""


def test_name_and_password_buy_a_token() -> None:
    auth = RegistryAuth(Credentials("ann", "pw"))
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    assert request.authorization == basic("ann", "pw")
    assert parse_qs(urlsplit(request.url).query)["account"] == ["ann"]
    auth.granted(request, b'{"access_token":"t1"}', now=5)
    assert auth.header(PULL, now=54) == "Bearer t1"
    assert auth.header(PULL, now=55) == ""


def test_an_identity_token_is_traded_by_oauth() -> None:
    auth = RegistryAuth(Credentials("<token>", "", identity_token="secret"))
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    assert request.url == "https://auth.example/token"
    assert parse_qs(request.form) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["secret"],
        "service": ["registry.example"],
        "client_id": ["corten"],
        "scope": [PULL],
    }


def test_a_token_refused_in_the_middle_is_renewed() -> None:
    auth = RegistryAuth(Credentials())
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    auth.granted(request, b'{"token":"t1","expires_in":300}', now=0)
    again = auth.challenged(HUB, PULL, used="Bearer t1")
    assert again is not None
    assert auth.header(PULL, now=1) == ""
    auth.granted(again, b'{"token":"t2","expires_in":1}', now=1)
    assert auth.header(PULL, now=1.4) == "Bearer t2"


def test_the_registry_may_want_more_than_we_asked_for() -> None:
    wider = [Challenge("bearer", {"realm": "https://a/t", "scope": "repository:b:pull"})]
    request = RegistryAuth(Credentials()).challenged(wider, PULL, used="")
    assert request is not None
    assert parse_qs(urlsplit(request.url).query)["scope"] == ["repository:b:pull", PULL]
    assert request.scope == PULL


def test_basic_is_tried_once() -> None:
    challenge = [Challenge("basic", {"realm": "x"})]
    with pytest.raises(Unauthorized, match=r"^no basic auth credentials$"):
        RegistryAuth(Credentials()).challenged(challenge, PULL, used="")
    auth = RegistryAuth(Credentials("ann", "pw"))
    assert auth.challenged(challenge, PULL, used="") is None
    used = auth.header(PULL, now=0)
    assert used == "Basic YW5uOnB3"
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        auth.challenged(challenge, PULL, used=used)


def test_a_ready_token_is_sent_as_it_is() -> None:
    auth = RegistryAuth(Credentials(registry_token="ready"))
    assert auth.header(PULL, now=0) == "Bearer ready"
    with pytest.raises(Unauthorized):
        auth.challenged(HUB, PULL, used="Bearer ready")


def test_nothing_to_try() -> None:
    for challenges in ([], [Challenge("negotiate", {})], [Challenge("bearer", {})]):
        with pytest.raises(Unauthorized, match=r"^unauthorized: authentication required$"):
            RegistryAuth(Credentials("ann", "pw")).challenged(challenges, PULL, used="")


def test_credentials_do_not_go_to_a_token_server_without_tls() -> None:
    plain = [Challenge("bearer", {"realm": "http://auth.example/token"})]
    with pytest.raises(Unauthorized, match="unsafe token server"):
        RegistryAuth(Credentials("ann", "pw")).challenged(plain, PULL, used="")
    assert RegistryAuth(Credentials("ann", "pw")).challenged(plain, PULL, used="", plain_realm=True) is not None
    local = [Challenge("bearer", {"realm": "file:///etc/passwd"})]
    with pytest.raises(Unauthorized, match="token server that is none"):
        RegistryAuth(Credentials()).challenged(local, PULL, used="", plain_realm=True)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"token":""}', b'{"token":"a\\r\\nX: y"}', b'{"token":5}']
)
def test_a_token_server_that_says_nothing_usable(body: bytes) -> None:
    auth = RegistryAuth(Credentials())
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    with pytest.raises(Unauthorized):
        auth.granted(request, body, now=0)
    assert auth.header(PULL, now=0) == ""


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"'],
            [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"})],
        ),
        (['Basic realm="a \\"b\\""'], [Challenge("basic", {"realm": 'a "b"'})]),
        (
            ["Basic realm=x, Bearer realm=https://a/t , service=s"],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "https://a/t", "service": "s"})],
        ),
        (["Negotiate", "BASIC realm=x"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (["", "=,=", '"'], []),
    ],
)
def test_challenges(values: list[str], found: list[Challenge]) -> None:
    assert parse_challenges(values) == found


def test_secrets_do_not_show_in_a_repr() -> None:
    shown = repr(Credentials("ann", "hunter2", "hunter3", "hunter4"))
    auth = RegistryAuth(Credentials("ann", "hunter2"))
    shown += repr(auth.challenged(HUB, PULL, used=""))
    assert "hunter" not in shown
    assert "Basic" not in shown
