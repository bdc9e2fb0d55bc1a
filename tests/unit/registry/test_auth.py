"""What a registry asks and what we answer, as transcripts; no network."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Unauthorized, Unavailable
from corten.registry.auth import (
    Challenge,
    Credentials,
    RegistryAuth,
    TokenRequest,
    basic,
    parse_challenges,
    refused_token,
)

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


def test_a_login_asks_for_an_identity_token_and_goes_on_with_the_newest() -> None:
    auth = RegistryAuth(Credentials("ann", "pw"), offline=True)
    request = auth.challenged(HUB, "", used="")
    assert request is not None
    asked = parse_qs(urlsplit(request.url).query)
    assert (asked["offline_token"], asked["client_id"]) == (["true"], ["corten"])
    auth.granted(request, b'{"token":"t1","refresh_token":"first"}', now=0)
    assert auth.identity_token == "first"
    again = auth.challenged(HUB, "", used="Bearer t1")
    assert again is not None
    assert parse_qs(again.form)["refresh_token"] == ["first"]
    auth.granted(again, b'{"access_token":"t2","refresh_token":"second"}', now=0)
    assert auth.identity_token == "second"


def test_a_pull_does_not_take_an_identity_token_that_it_did_not_ask_for() -> None:
    auth = RegistryAuth(Credentials("ann", "pw"))
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    assert "offline_token" not in request.url
    auth.granted(request, b'{"token":"t1","refresh_token":"x"}', now=0)
    assert auth.identity_token == ""


def test_a_token_that_went_off_in_the_middle_of_a_pull() -> None:
    auth = RegistryAuth(Credentials())
    request = auth.challenged(HUB, PULL, used="")
    assert request is not None
    auth.granted(request, b'{"token":"t1","expires_in":60}', now=0)
    assert auth.header(PULL, now=49) == "Bearer t1"
    assert auth.header(PULL, now=51) == ""  # asked anew, without waiting to be refused
    renewed = auth.challenged(HUB, PULL, used="")
    assert renewed is not None
    auth.granted(renewed, b'{"token":"t2","expires_in":60}', now=51)
    assert auth.header(PULL, now=52) == "Bearer t2"


def test_each_scope_has_its_token_and_old_ones_are_forgotten() -> None:
    auth = RegistryAuth(Credentials("ann", "pw"))
    push, mount = "repository:a:pull,push", "repository:a:pull,push repository:b:pull"
    for scope in (PULL, push, mount):
        request = auth.challenged([Challenge("bearer", {"realm": "https://a/t"})], scope, used="")
        assert request is not None
        assert parse_qs(urlsplit(request.url).query)["scope"] == sorted(scope.split())
        auth.granted(request, b'{"token":"for-%d"}' % len(scope), now=0)
    assert [auth.header(scope, now=1) for scope in (PULL, push, mount)] == [
        f"Bearer for-{len(scope)}" for scope in (PULL, push, mount)
    ]
    for number in range(1000):
        auth.granted(TokenRequest("https://a/t", f"repository:{number}:pull"), b'{"token":"t"}', now=1)
    assert len(auth._tokens) <= 256
    auth.granted(TokenRequest("https://a/t", "last"), b'{"token":"t"}', now=100)
    assert list(auth._tokens) == ["last"]


@pytest.mark.parametrize(
    "realm",
    [
        "https://",
        "https://[",
        "https://a b/",
        "https://u:p@evil.example/",
        "https://a:0/",
        "https://a:99999/",
        "https://a/#x",
        "//a/token",
        "https://\N{SNOWMAN}.example/",
    ],
)
def test_token_servers_that_are_none(realm: str) -> None:
    with pytest.raises(Unauthorized, match=r"names a(n unsafe)? token server"):
        RegistryAuth(Credentials("ann", "pw")).challenged([Challenge("bearer", {"realm": realm})], PULL, used="")


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, b'{"details":"incorrect username or password"}', "unauthorized: incorrect username or password"),
        (401, b'{"details":"account\\nlocked"}', "unauthorized: account\N{REPLACEMENT CHARACTER}locked"),
        (403, b"<html>", "unauthorized: incorrect username or password"),
        (400, b'{"details":5}', "unauthorized: incorrect username or password"),
    ],
)
def test_how_a_token_server_says_no(status: int, body: bytes, text: str) -> None:
    error = refused_token(TokenRequest("https://a/t?account=ann", PULL, authorization="Basic x"), status, body)
    assert isinstance(error, Unauthorized)
    assert str(error) == f'Get "https://a/t": {text}'
    assert isinstance(refused_token(TokenRequest("https://a/t", PULL, form="x"), 500, body), Unavailable)


HOSTILE = [
    " " * 200_000,
    "," * 200_000,
    "a " * 100_000,
    'Bearer realm="' + "\\" * 100_000,
    'Bearer realm="' + "x" * 200_000,
    "Bearer " + "a=b," * 50_000,
    "Bearer " + "a=" * 100_000,
    "Bearer realm=" + '"' * 100_000,
    "Bearer\t" * 50_000,
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_challenges_take_no_time(value: str) -> None:
    before = time.process_time()
    assert len(parse_challenges([value] * 3)) <= 16
    assert time.process_time() - before < 2


@given(st.text(alphabet=' \t,="\\abBearer;\N{SNOWMAN}', max_size=200))
def test_any_text_is_a_list_of_challenges(value: str) -> None:
    for challenge in parse_challenges([value]):
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name == name.lower() for name in challenge.params)


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
