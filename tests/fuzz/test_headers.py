"""What registries say in headers, and what is written down about them: read as it was meant, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import yarl
from hypothesis import given
from hypothesis import strategies as st

from corten.clock import SystemClock
from corten.errors import InvalidArgument, SystemFault, Unauthorized
from corten.registry import hosts, transport
from corten.registry.auth import Challenge, Credentials, RegistryAuth, parse_challenges
from corten.registry.client import _NEXT_LINK, _NoRange, _range_start
from corten.registry.endpoints import Endpoint, RegistrySettings
from corten.registry.transport import Transport, target_of
from tests.fuzz.profile import fuzzed, in_order

# Challenges

token = st.text("abcXYZ019-_.", min_size=1, max_size=5)
quoted = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
challenges = st.lists(
    st.tuples(
        token.filter(lambda text: text[0].isalpha()),
        st.dictionaries(token.map(str.lower), quoted, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def written(challenge: tuple[str, dict[str, str]], blank: str) -> str:
    scheme, parts = challenge
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in parts.items()}
    return f"{scheme} " + f",{blank}".join(f'{key}="{value}"' for key, value in escaped.items())


@given(challenges, st.sampled_from(["", " ", "  "]), st.booleans())
@fuzzed(150)
def test_challenges_are_read_as_they_were_meant(
    made: list[tuple[str, dict[str, str]]], blank: str, together: bool
) -> None:
    headers = [written(challenge, blank) for challenge in made]
    found = parse_challenges([", ".join(headers)] if together else headers)
    assert found == [Challenge(scheme.lower(), parts) for scheme, parts in made]


noise = st.lists(
    st.sampled_from(["Bearer ", "Basic", " ", ",", "=", '"', "\\", "realm", "a=b", 'c="d"', "é", "\0", "\t"]),
    max_size=12,
)


@given(noise.map("".join), st.text(max_size=20))
@fuzzed(150)
def test_challenges_of_any_form(text: str, realm: str) -> None:
    found = parse_challenges([text, text])
    assert len(found) <= 16
    for params in (*(challenge.params for challenge in found), {"realm": realm}, {"realm": "https://x/" + realm}):
        auth = RegistryAuth(Credentials("ann", "s3cret"))
        try:
            request = auth.challenged([Challenge("bearer", params)], "repository:a:pull", "")
        except Unauthorized as error:
            in_order(error)
            continue
        assert request is not None
        assert request.url.startswith("https://")
        assert request.url.isascii()
        assert yarl.URL(request.url, encoded=True).user is None


def test_a_challenge_without_end_costs_its_length() -> None:
    begin = time.process_time()
    for text in (
        'a="' * 3000,
        "Bearer " * 3000,
        "," * 9000,
        'Bearer a="' + "\\" * 9000,
        "Bearer " + "a=b," * 3000,
        "a" * 9000 + "=",
        " " * 9000,
    ):
        parse_challenges([text] * 3)
    assert time.process_time() - begin < 2


# Where it sends us

HOME = Endpoint("reg.example:5000")
PLAIN = Endpoint("reg.example", insecure=True)
places = st.lists(
    st.sampled_from(
        [
            "https:",
            "http:",
            "HTTPS:",
            "file:",
            "//",
            "/",
            "\\",
            "reg.example",
            "reg.example:5000",
            ":5000",
            ":443",
            "evil",
            "@",
            "?",
            "#",
            "%40",
            "%2f",
            "..",
            "[",
            "]",
            "\t",
            "\n",
            " ",
            "é",
            "。",
            "\uff1a",
            "\uff52",
            ";",
            "&",
            "x=",
            "\0",
            ".",
        ]
    ),
    max_size=8,
).map("".join)


@given(places, st.sampled_from([HOME, PLAIN]))
@fuzzed(500)
def test_nobody_is_taken_for_the_registry(place: str, endpoint: Endpoint) -> None:
    """We are told where to go in one library's words, and go there in another's. They must mean the same host."""
    url = f"https://{endpoint.host}/v2/a/blobs/x"
    try:
        target = target_of(url, place)
        transport._check_scheme(target, endpoint)
    except SystemFault as error:
        in_order(error)
        return
    at_home = transport._at_home(target, endpoint)
    transport._upgraded(target, endpoint, "https")
    parts = urlsplit(target)
    assert parts.scheme in ("http", "https")
    with contextlib.suppress(ValueError):  # what cannot be said is refused when it is sent
        real = yarl.URL(target, encoded=True)
        assert real.user is None
        if at_home:
            assert f"{real.host}:{real.port}" in (f"{parts.hostname}:{real.port}", f"{endpoint.host}:{real.port}")
            assert (real.host or "").lower() == "reg.example"
            assert real.port in {5000} if endpoint is HOME else {80, 443}


links = st.lists(
    st.sampled_from(["<", ">", "; ", "rel=", '"next"', "next", "prev", ",", "/v2/a?n=1", "https://evil/", "[", "é"]),
    max_size=9,
)


@given(links.map("".join))
@fuzzed(150)
def test_the_next_page(header: str) -> None:
    match = _NEXT_LINK.search(header)
    if match is None:
        return
    assert f"<{match[1]}>" in header
    with contextlib.suppress(SystemFault):
        target_of("https://reg.example/v2/x", match[1])


@given(
    st.text("bytes 0123456789-/*+.", max_size=20)
    | st.builds("bytes {}-{}/{}".format, *[st.integers(0, 10**20)] * 2, st.integers(0, 3) | st.just("*")),
    st.integers(0, 3),
)
@fuzzed(200)
def test_content_range(header: str, size: int) -> None:
    try:
        start = _range_start(header, size)
    except _NoRange:
        return
    match = re.match(r"\s*bytes (\d+)-(\d+)/(.*?)\s*$", header, re.ASCII)
    assert match is not None
    assert (start, match[3] in ("*", str(size))) == (int(match[1]), True)


dates = st.lists(
    st.sampled_from(
        [
            "Mon",
            ",",
            " ",
            "01",
            "99999",
            "Jan",
            "Foo",
            "00:00:00",
            "25:61:61",
            "+9999",
            "GMT",
            "-",
            "²",
            ":",
            "\0",
            "12",
            "0000",
            "(",
        ]
    ),
    max_size=8,
)


@given(dates.map("".join) | st.text("0123456789-+.e² ", max_size=14))
@fuzzed(250)
def test_retry_after(value: str) -> None:
    made = Transport(RegistrySettings(), SystemClock())
    asked: Any = SimpleNamespace(headers={"Retry-After": value})
    seconds = made._retry_after(asked)
    assert seconds is None or seconds >= 0
    asyncio.run(made.close())


# hosts.toml

keys = st.sampled_from("server capabilities ca client skip_verify header override_path dial_timeout host nope".split())
toml = st.sampled_from(
    [
        "true",
        "false",
        "1",
        "1.5",
        "nan",
        '""',
        '"https://a.b:5000/v2"',
        '"://"',
        '"http://["',
        '"a b"',
        '"5s"',
        '"1h1"',
        "[]",
        '["pull"]',
        '["x", 1]',
        '[["a", "b"]]',
        '[["a"]]',
        "{}",
        '{x = "y"}',
        '{"a b" = "c"}',
        '{x = ["\\n"]}',
        "1979-05-27",
        '"\\u0000"',
        "[" * 40 + "]" * 40,
    ]
)
tables = st.sampled_from(
    ["", '[host."https://m.example"]\n', '[host."http://[::1"]\n', "[host.x]\n", "[header]\n", "[host]\n", "[[host]]\n"]
)
lines = st.lists(st.tuples(tables, keys, toml).map(lambda line: f"{line[0]}{line[1]} = {line[2]}\n"), max_size=4)


@given(lines.map("".join) | st.text(max_size=20) | st.just("a = " + "[" * 3000))
@fuzzed(150)
def test_hosts_toml(text: str) -> None:
    with tempfile.TemporaryDirectory() as base:
        place = Path(base, "a.b")
        place.mkdir()
        (place / "hosts.toml").write_bytes(text.encode("utf-8", "replace"))
        try:
            found = hosts.read([Path(base)], "a.b")
            endpoints = RegistrySettings(directories=(Path(base),)).endpoints("a.b")
        except InvalidArgument as error:
            in_order(error)
            return
    assert len(endpoints) <= len(found.places) + 1
    for endpoint in endpoints:
        assert endpoint.host
        assert set(endpoint.schemes) <= {"http", "https"}
    assert isinstance(found.server.dial_timeout, float)
