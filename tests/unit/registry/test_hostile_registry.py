"""Registries that lie, never end, crawl, or send us where nobody should go. What they send is written byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from corten.errors import CortenError, DataCorrupt, SystemFault, Unavailable
from corten.registry import client as client_module
from corten.registry.addresses import is_metadata
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference
from tests.unit.registry.test_client import EagerClock
from tests.waiting import linger

BLOB = bytes(range(256)) * 100
DIGEST = digests.of(BLOB)
ANN = Credentials("ann", "s3cret")
Writer = asyncio.StreamWriter
Answer = Callable[[str, Writer], Awaitable[None]]


class Liar:
    """A server that hands each request's head to `answer` and closes the connection after it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.heads: list[str] = []
        self.host = ""
        self.written = 0

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            start = await reader.readexactly(1)
            if start == b"\x16":
                return  # TLS, which is tried first
            head = (start + await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            await reader.readexactly(int(head.lower().partition("content-length: ")[2].partition("\r")[0] or 0))
            await self._answer(head, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[Liar]:
    liar = Liar(answer)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    liar.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield liar
    finally:
        server.close()


def says(data: bytes) -> Answer:
    async def answer(head: str, writer: Writer) -> None:
        writer.write(data)

    return answer


def holding(start: bytes) -> Answer:
    """Says so much, and neither more nor that it was all."""

    async def answer(head: str, writer: Writer) -> None:
        writer.write(start)
        await asyncio.Event().wait()

    return answer


def endless(start: bytes, more: bytes) -> Answer:
    async def answer(head: str, writer: Writer) -> None:
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()

    return answer


def crawling(start: bytes, more: bytes) -> Answer:
    async def answer(head: str, writer: Writer) -> None:
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()
            await linger(0.02)

    return answer


def run(answer: Answer, script: Callable[[RegistryClient, Liar], Awaitable[None]], *, secret: bool = False) -> None:
    """`script` with a client of a repository at the liar; patience is short, and all of it ends within seconds."""

    async def main() -> None:
        async with lying(answer) as liar:
            transport = Transport(RegistrySettings(stall_timeout=0.2, connect_timeout=0.3, attempts=2), EagerClock())
            try:
                name = reference.parse(f"{liar.host}/app:1")
                async with asyncio.timeout(30):
                    await script(RegistryClient(transport, name, ANN if secret else None), liar)
            finally:
                await transport.close()

    asyncio.run(main())


async def blob(client: RegistryClient, size: int = len(BLOB)) -> bytes:
    return b"".join([part async for part in client.blob(DIGEST, size)])


OK = b"HTTP/1.1 200 OK\r\n"
FOREVER = OK + b"Content-Length: 99999999999\r\n\r\n"
BROKEN = [
    pytest.param(says(OK + b"Content-Length: 999999\r\n\r\n" + BLOB[:100]), id="longer than it is"),
    pytest.param(says(OK + b"Content-Length: -5\r\n\r\n" + BLOB), id="negative"),
    pytest.param(says(OK + b"Content-Length: 1e3\r\n\r\n" + BLOB), id="no number"),
    pytest.param(says(OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + BLOB), id="two lengths"),
    pytest.param(says(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BLOB), id="length and chunks"),
    pytest.param(says(OK + b"\r\n" + BLOB[:100]), id="no length, and cut"),
    pytest.param(says(OK + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n"), id="bad chunk"),
    pytest.param(says(OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx"), id="chunk too large"),
    pytest.param(says(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n"), id="negative chunk"),
    pytest.param(says(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nxxx\r\n"), id="chunks without an end"),
    pytest.param(says(OK + b"Transfer-Encoding: gzip\r\n\r\n\x1f\x8b"), id="coded"),
    pytest.param(says(b"HTTP/1.1 200\r\n\r\n"), id="nothing"),
    pytest.param(says(b"HTTP/9.9 200 OK\r\n\r\n"), id="version"),
    pytest.param(says(b"HTTP/1.1 abc OK\r\n\r\n"), id="status"),
    pytest.param(says(b"HTTP/1.1 99999 OK\r\n\r\n"), id="large status"),
    pytest.param(says(b"\x16\x03\x01\x02\x00"), id="tls"),
    pytest.param(says(b""), id="nothing at all"),
    pytest.param(says(OK + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n"), id="huge header"),
    pytest.param(says(OK + b"no colon here\r\n\r\n"), id="no header"),
    pytest.param(says(OK + b"A\0B: c\r\n\r\n"), id="nul in a header"),
    pytest.param(says(b"HTTP/1.1 401 x\r\n" + b"Www-Authenticate: Bearer a=b\r\n" * 5 + b"\r\n"), id="unauthorized"),
    pytest.param(says(b"HTTP/1.1 401 x\r\nWww-Authenticate: " + b"Basic," * 1000 + b"\r\n\r\n"), id="many challenges"),
    pytest.param(says(b"HTTP/1.1 503 x\r\nRetry-After: \xc2\xb2\r\nContent-Length: 0\r\n\r\n"), id="no seconds"),
    pytest.param(
        says(b"HTTP/1.1 503 x\r\nRetry-After: Mon, 01 Jan 99999 00:00:00 +9999\r\nContent-Length: 0\r\n\r\n"),
        id="no date",
    ),
    pytest.param(says(b"HTTP/1.1 429 x\r\nRetry-After: 99999999999999\r\nContent-Length: 0\r\n\r\n"), id="for ever"),
    pytest.param(says(b"HTTP/1.1 302 x\r\nLocation: //[\r\nContent-Length: 0\r\n\r\n"), id="no location"),
    pytest.param(says(b"HTTP/1.1 307 x\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n"), id="odd location"),
    pytest.param(says(b"HTTP/1.1 308 x\r\nContent-Length: 0\r\n\r\n"), id="no location at all"),
    pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), id="continue for ever"),
    pytest.param(endless(OK, b"X: y\r\n" * 1000), id="headers for ever"),
    pytest.param(endless(OK + b"X: ", b"y" * 1000), id="a header for ever"),
    pytest.param(endless(b"HTTP/1.1 500 x\r\n\r\n", b"<p>sorry</p>" * 500), id="an error for ever"),
    pytest.param(crawling(OK + b"X: ", b"y"), id="a header that crawls"),
    pytest.param(crawling(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue that crawls"),
    pytest.param(crawling(b"HTTP/1.1 500 x\r\n\r\n", b"y"), id="an error that crawls"),
    pytest.param(crawling(FOREVER, b"y"), id="a body that crawls"),
    pytest.param(crawling(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), id="chunks that crawl"),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_a_broken_answer_is_an_error_of_ours(answer: Answer) -> None:
    """For a blob, a manifest, and a list of tags: within bounds of time, and never an exception of a library."""

    async def script(client: RegistryClient, liar: Liar) -> None:
        begin = time.monotonic()
        for ask in (client.manifest, client.tags, lambda: blob(client)):
            with pytest.raises(CortenError) as caught:
                await ask()
            assert str(caught.value).isprintable()
        assert time.monotonic() - begin < 25

    run(answer, script)


def test_a_body_that_never_ends() -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(DataCorrupt, match="longer than the 25600 bytes"):
            await blob(client)
        for ask in (client.manifest, client.tags):
            with pytest.raises(SystemFault, match="longer than"):
                await ask()

    run(endless(FOREVER, bytes(1 << 16)), script)
    run(endless(OK + b"\r\n", bytes(1 << 16)), script)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(holding(OK + b"Content-Length: 25601\r\n\r\n"), id="said at once"),
        pytest.param(holding(OK + b"\r\n" + BLOB + b"x"), id="sent"),
    ],
)
def test_a_blob_that_is_longer_than_declared_is_cut_off_at_once(answer: Answer) -> None:
    """While the rest of it is still to come, or nothing of it is there yet; not by a time-out, and not asked again."""

    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(DataCorrupt, match="longer than the 25600 bytes"):
            await blob(client)
        assert len(liar.heads) == 1

    run(answer, script)


def test_a_blob_that_comes_byte_by_byte_is_given_up() -> None:
    """Each byte resets the clock of a connection on which nothing arrives; together they are still too few."""
    sent = 0

    async def crawl(head: str, writer: Writer) -> None:
        nonlocal sent
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(BLOB))
        while True:
            writer.write(b"x")
            sent += 1
            await writer.drain()
            await linger(0.05)

    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(Unavailable, match=r"only \d+ bytes came in"):
            await blob(client)
        assert len(liar.heads) == 2
        assert sent < 100

    run(crawl, script)


def test_connections_that_bring_hardly_anything_do_not_go_on_for_ever() -> None:
    async def one_byte(head: str, writer: Writer) -> None:
        start = int(head.partition("bytes=")[2].partition("-")[0] or 0)
        status = b"206 x" if start else b"200 OK"
        extra = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(BLOB) - 1, len(BLOB)) if start else b""
        writer.write(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status, extra, len(BLOB) - start))
        writer.write(BLOB[start : start + 1])

    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(Unavailable):
            await blob(client)
        assert len(liar.heads) == 2

    run(one_byte, script)


def test_a_taker_that_is_slow_is_not_taken_for_a_slow_registry() -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        got = b""
        async for part in client.blob(DIGEST, len(BLOB)):
            await linger(0.3)
            got += part
        assert got == BLOB
        assert len(liar.heads) == 1

    run(says(OK + b"Content-Length: %d\r\n\r\n" % len(BLOB) + BLOB), script)


# Where it sends us

ELSEWHERE = [
    "file:///etc/passwd",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/v1/info",
    "ftp://x/y",
    "gopher://x/",
    "ws://127.0.0.1/",
    "javascript:alert(1)",
    "data:,x",
    "https:",
    "https:///v2/",
]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_other_schemes_are_no_registries(place: str) -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(SystemFault, match="unsafe address"):
            await blob(client)
        with pytest.raises(SystemFault, match="unsafe address"):
            await client.manifest()

    run(says(b"HTTP/1.1 307 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place.encode()), script)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_nor_are_they_for_the_next_page_an_upload_or_a_foreign_layer(place: str) -> None:
    async def answer(head: str, writer: Writer) -> None:
        if "/tags/" in head:
            link = f'<{place}>; rel="next"'.encode()
            writer.write(OK + b"Link: %s\r\nContent-Length: 14\r\n\r\n" % link + b'{"tags":["a"]}')
        elif head.startswith("POST"):
            writer.write(b"HTTP/1.1 202 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place.encode())
        else:
            writer.write(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")

    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(SystemFault, match="unsafe address"):
            await client.tags()
        with pytest.raises(SystemFault, match="unsafe address"):
            await client.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB))
        with pytest.raises(CortenError):
            async for _ in client.blob(DIGEST, len(BLOB), urls=[place]):
                pass

    run(answer, script)


METADATA = [
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xA9FEA9FE/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://169.254.170.2/",
    "http://100.100.100.200/",
]


@pytest.mark.parametrize("place", METADATA)
def test_nobody_sends_us_to_the_secrets_of_the_machine(place: str) -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        begin = time.monotonic()
        with pytest.raises(CortenError, match=r"permission denied|no such host|not a canonical"):
            await blob(client)
        with pytest.raises(CortenError, match=r"permission denied|no such host|not a canonical"):
            async for _ in client.blob("sha256:" + "0" * 64, 5, urls=[place]):
                pass
        assert time.monotonic() - begin < 10

    async def answer(head: str, writer: Writer) -> None:
        if DIGEST in head:
            writer.write(b"HTTP/1.1 307 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place.encode())
        else:
            writer.write(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")

    run(answer, script)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("fd00:ec2::254", True),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_for_metadata(address: str, found: bool) -> None:
    assert is_metadata(address) == found


def test_who_we_are_does_not_follow() -> None:
    """Not by a redirect, a next page or an upload's place; nor to a name that only looks the same."""
    thieves: list[str] = []

    async def thief(head: str, writer: Writer) -> None:
        thieves.append(head)
        writer.write(OK + b"Content-Length: 2\r\n\r\n{}")

    async def main() -> None:
        async with lying(thief) as other:

            async def answer(head: str, writer: Writer) -> None:
                if "Authorization: Basic" not in head:
                    writer.write(b'HTTP/1.1 401 x\r\nWww-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n')
                    return
                place = f"http://{other.host}/{head.split()[1].rpartition('/')[2]}"
                if "/tags/" in head:
                    body = b'{"tags":["a"]}'
                    link = f'Link: <{place}>; rel="next"\r\n'.encode()
                    writer.write(OK + link + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                elif "/manifests/" in head:
                    odd = f"http://127.0.0.1@{other.host}/userinfo"
                    writer.write(b"HTTP/1.1 302 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % odd.encode())
                elif head.startswith("POST"):
                    writer.write(b"HTTP/1.1 202 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place.encode())
                else:
                    writer.write(b"HTTP/1.1 307 x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place.encode())

            async with lying(answer) as liar:
                transport = Transport(RegistrySettings(stall_timeout=0.2, attempts=1), EagerClock())
                client = RegistryClient(transport, reference.parse(f"{liar.host}/app:1"), ANN)
                asked = (client.tags, client.manifest, lambda: blob(client))
                for ask in (*asked, lambda: client.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB))):
                    with contextlib.suppress(CortenError):
                        await ask()
                await transport.close()
        assert len(thieves) >= 3
        assert not [head for head in thieves if "uthorization" in head or "s3cret" in head]

    asyncio.run(main())


# Answers that are well formed and lies


def test_an_upload_of_which_nothing_arrives() -> None:
    async def answer(head: str, writer: Writer) -> None:
        place = b"Location: /v2/app/blobs/uploads/1\r\nConnection: close\r\nContent-Length: 0\r\n"
        if head.startswith("HEAD"):
            writer.write(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith("PATCH"):
            writer.write(b"HTTP/1.1 202 x\r\nRange: 0-5\r\n" + place + b"\r\n")
        else:
            writer.write(b"HTTP/1.1 202 x\r\n" + place + b"\r\n")

    async def main() -> None:
        async with lying(answer) as liar:
            transport = Transport(RegistrySettings(attempts=3, upload_chunk=1000, stall_timeout=2), EagerClock())
            client = RegistryClient(transport, reference.parse(f"{liar.host}/app:1"))
            try:
                async with asyncio.timeout(20):
                    with pytest.raises(SystemFault, match="takes no more"):
                        await client.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB))
            finally:
                await transport.close()
            assert len(liar.heads) < 20

    asyncio.run(main())


def test_tags_that_go_in_circles_or_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: Iterator[int] = iter(range(10**9))

    async def circle(head: str, writer: Writer) -> None:
        writer.write(OK + b'Link: </v2/app/tags/list?n=1>; rel="next"\r\nContent-Length: 14\r\n\r\n{"tags":["a"]}')

    async def ever(head: str, writer: Writer) -> None:
        body = b'{"tags":["t%d","u%d"]}' % (at := next(pages), at)
        link = b'Link: <?page=%d>; rel="next"\r\n' % at
        writer.write(OK + link + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(SystemFault, match="too many tags"):
            await client.tags()
        assert len(liar.heads) <= 51

    run(circle, script)
    monkeypatch.setattr(client_module, "MAX_TAG_PAGES", 50)
    run(ever, script)
    monkeypatch.setattr(client_module, "MAX_TAG_PAGES", 1000)
    monkeypatch.setattr(client_module, "MAX_TAGS", 50)
    run(ever, script)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[", b"[]", b"{", b'{"tags":5}', b'{"tags":[5]}', b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900],
)
@pytest.mark.parametrize("status", [b"200", b"404", b"500", b"401"])
def test_html_and_other_json_where_json_was_expected(body: bytes, status: bytes) -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        for ask in (client.manifest, client.tags):
            with pytest.raises(CortenError):
                await ask()

    run(
        says(b"HTTP/1.1 %s x\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body),
        script,
    )


@pytest.mark.parametrize("said", [b"sha256:" + b"0" * 64, b"sha512:" + b"0" * 128, b"garbage", b"\x1b[31m", b""])
def test_a_digest_in_the_header_that_is_not_the_body_s(said: bytes) -> None:
    body = b'{"schemaVersion":2,"config":{"mediaType":"%s","digest":"%s","size":2},"layers":[]}'
    body %= (oci.OCI_CONFIG.encode(), b"sha256:" + b"1" * 64)

    async def script(client: RegistryClient, liar: Liar) -> None:
        if said == b"sha256:" + b"0" * 64:
            with pytest.raises(DataCorrupt, match="verification failed"):
                await client.manifest()
        else:
            assert (await client.manifest()).digest == digests.of(body)
            assert await client.resolve() is None
        with pytest.raises(DataCorrupt, match="verification failed"):
            await client.manifest("sha256:" + "2" * 64)

    async def answer(head: str, writer: Writer) -> None:
        kind = b"Content-Type: %s\r\n" % oci.OCI_MANIFEST.encode()
        writer.write(OK + kind + b"Docker-Content-Digest: %s\r\nContent-Length: %d\r\n\r\n" % (said, len(body)))
        writer.write(b"" if head.startswith("HEAD") else body)

    run(answer, script)


@pytest.mark.parametrize(
    "range_",
    [
        b"bytes 0-9/10",
        b"bytes 5-1/25600",
        b"bytes */25600",
        b"bytes -5-9/25600",
        b"garbage",
        b"bytes 99999-99999/25600",
    ],
)
def test_a_range_that_nobody_asked_for(range_: bytes) -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        try:
            got = await blob(client)
        except CortenError:
            return
        assert len(got) == len(BLOB)  # the digest is compared by the caller

    run(says(b"HTTP/1.1 206 x\r\nContent-Range: %s\r\nContent-Length: %d\r\n\r\n" % (range_, len(BLOB)) + BLOB), script)


@pytest.mark.parametrize(
    "answer",
    [
        says(OK + b"Content-Length: 7\r\n\r\n<html/>"),
        says(OK + b'Content-Length: 12\r\n\r\n{"token":""}'),
        says(OK + b'Content-Length: 21\r\n\r\n{"token":"a\\r\\nX: yyy"}'[:60]),
        says(OK + b"\r\n" + b'{"token":"' + b"t" * 100_000 + b'"}'),
        says(OK + b"\r\n" + b"[" * 500_000),
        endless(OK + b"\r\n", b" " * 1000),
        endless(b"HTTP/1.1 403 x\r\n\r\n", b"x" * 1000),
        crawling(OK + b"\r\n", b" "),
        says(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
        says(b"HTTP/1.1 302 x\r\nLocation: /token\r\nContent-Length: 0\r\n\r\n"),
        says(b""),
    ],
)
def test_token_servers_that_do_the_same(answer: Answer) -> None:
    async def script(client: RegistryClient, liar: Liar) -> None:
        with pytest.raises(CortenError) as caught:
            await client.manifest()
        assert str(caught.value).isprintable()
        assert "s3cret" not in str(caught.value)

    async def both(head: str, writer: Writer) -> None:
        if "/token" in head.split()[1]:
            await answer(head, writer)
        else:
            own = next(line for line in head.split("\r\n") if line.startswith("Host: ")).removeprefix("Host: ")
            challenge = f'Www-Authenticate: Bearer realm="http://{own}/token",service="x"\r\n'
            writer.write(b"HTTP/1.1 401 x\r\n" + challenge.encode() + b"Content-Length: 0\r\n\r\n")

    run(both, script, secret=True)
