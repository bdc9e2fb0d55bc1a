"""The response parser, fed in every way that a socket may cut bytes, and with what a hostile peer may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.client.errors import ConnectionLost, ProtocolError
from corten.client.http1 import ResponseParser, parse_head, quote, request_head, target


def read(wire: bytes, cuts: list[int] | None = None, *, end: bool = False) -> tuple[ResponseParser, bytes]:
    parser, body, at = ResponseParser(), b"", 0
    for cut in sorted({min(cut, len(wire)) for cut in cuts or []} | {len(wire)}):
        if cut > at:
            body += b"".join(parser.feed(wire[at:cut]))
            at = cut
    if end:
        body += b"".join(parser.feed(b""))
    return parser, body


def chunked(pieces: list[bytes], tail: bytes = b"\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n" + tail


@given(st.lists(st.binary(max_size=200), max_size=20), st.lists(st.integers(0, 3000), max_size=30))
def test_chunks_cut_anywhere_give_the_same_body(pieces: list[bytes], cuts: list[int]) -> None:
    parser, body = read(chunked(pieces), cuts)
    assert (body, parser.done) == (b"".join(pieces), True)


@given(st.binary(max_size=500), st.lists(st.integers(0, 700), max_size=20))
def test_a_body_with_a_length_cut_anywhere(body: bytes, cuts: list[int]) -> None:
    parser, found = read(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), cuts)
    assert (found, parser.done) == (body, True)


def test_one_byte_at_a_time_with_extensions_and_trailers() -> None:
    wire = chunked([b"abc", b"de"], b"X-Sum: 1\r\n\r\n").replace(b"3\r\n", b"3;name=value\r\n")
    parser, body = read(wire, list(range(len(wire))))
    assert (body, parser.done) == (b"abcde", True)


def test_a_body_that_ends_with_the_connection() -> None:
    parser, body = read(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", end=True)
    assert (body, parser.done) == (b"until the end", True)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_statuses_without_a_body(status: bytes) -> None:
    parser, body = read(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert (body, parser.done) == (b"", True)


def test_interim_answers_are_passed_over() -> None:
    parser, body = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert parser.head is not None
    assert (parser.head.status, body) == (200, b"ok")


def test_after_an_upgrade_the_rest_is_not_http() -> None:
    parser, body = read(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0raw", [20, 60])
    assert parser.head is not None
    assert parser.head.upgraded
    assert (body, parser.take_rest()) == (b"", b"\x01\0\0\0raw")


@pytest.mark.parametrize(
    "tail",
    [
        b"-1\r\nx\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"3 3\r\nabc\r\n",
        b"\r\n",
        b"g\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"11111111111111111\r\n",
        b"0\r\n\r\nmore",
        b"5" * 5000,
        b"3\r\nabc\r\nzz\r\n",
    ],
)
def test_hostile_chunks_are_refused(tail: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + tail)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
def test_hostile_heads_are_refused(head: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(head)


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200", chunked([b"abc"])[:-3], chunked([b"abc"])[:-8]])
def test_a_connection_that_ends_early_is_lost(wire: bytes) -> None:
    with pytest.raises(ConnectionLost):
        read(wire, end=True)


def test_a_length_in_front_of_chunks_does_not_count() -> None:
    wire = chunked([b"abc"]).replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n", 1)
    assert read(wire)[1] == b"abc"


def test_headers_that_repeat_are_joined() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nVia: a\r\nvia: b").headers == {"via": "a, b"}


def test_a_request_head_and_its_target() -> None:
    path = target("/images/json", {"filters": '{"a":["b c"]}', "names": ["x", "ö"]})
    assert path == "/images/json?filters=%7B%22a%22%3A%5B%22b%20c%22%5D%7D&names=x&names=%C3%B6"
    assert request_head("GET", path, {"Host": "x"}).startswith(b"GET /images/json?")
    with pytest.raises(ProtocolError):
        request_head("GET", "/", {"X": "a\r\nInjected: b"})


def test_quoting_keeps_what_is_safe() -> None:
    assert quote("a/b:c@d e", b"/:@") == "a/b:c@d%20e"
