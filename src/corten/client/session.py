"""Requests over sockets: one idle connection is kept, busy ones (streams) have a connection each."""

from __future__ import annotations

import json

from corten.client.errors import ClientError, ConnectionLost, ProtocolError, StreamError, api_error
from corten.client.http1 import Head, ResponseParser, request_head, target
from corten.client.transport import Endpoint, Socket, dial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Query = Mapping[str, str | list[str]]

READ_SIZE = 256 * 1024


class Response:
    """An answer whose head has been read. Read it to its end, `close` it, or `detach` its socket."""

    def __init__(self, session: Session, sock: Socket, parser: ResponseParser, early: list[bytes]) -> None:
        assert parser.head is not None
        self.head: Head = parser.head
        self._session, self._sock, self._parser, self._early = session, sock, parser, early
        self._released = False
        if parser.done:
            self._release()

    @property
    def status(self) -> int:
        return self.head.status

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces as they arrive. Raises ConnectionLost when it ends early."""
        early, self._early = self._early, []
        yield from early
        while not self._parser.done:
            yield from self._parser.feed(self._sock.recv(READ_SIZE))
        self._release()

    def fileno(self) -> int:
        """The socket's, to wait for more of the answer; -1 when it has all come."""
        return -1 if self._parser.done else self._sock.fileno()

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        body = self.read()
        try:
            return json.loads(body) if body else None
        except ValueError:
            raise ProtocolError("the daemon's answer is not JSON") from None

    def lines(self) -> Iterator[Any]:
        """JSON values of a stream, one after another, however they are separated (events, stats, pull progress)."""
        decoder, text = json.JSONDecoder(), ""
        pending = b""
        for chunk in self.chunks():
            pending += chunk
            # Every producer ends a value with a line end, so a value cut in two waits for the rest.
            whole, newline, pending = pending.rpartition(b"\n")
            text = (whole + newline).decode("utf-8", "replace").strip()
            while text:
                value, end = _decode(decoder, text)
                yield value
                text = text[end:].lstrip()
        text = pending.decode("utf-8", "replace").strip()
        while text:
            value, end = _decode(decoder, text)
            yield value
            text = text[end:].lstrip()

    def detach(self) -> tuple[Socket, bytes]:
        """The socket, no longer ours, and what has been read from it beyond the head (101 and hijacked streams)."""
        rest = b"".join(self._early) + self._parser.take_rest()
        return self._sock, rest

    def close(self) -> None:
        self._sock.close()

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        if self._parser.done and self.head.keep_alive and not self.head.upgraded:
            self._session.keep(self._sock)
        else:
            self._sock.close()


def _decode(decoder: json.JSONDecoder, text: str) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text)
    except ValueError:
        raise ProtocolError("the daemon's stream is not JSON") from None


class Session:
    """`request` sends and reads the head. `version` "1.45" puts /v1.45 before each path; None leaves the version to
    the daemon, which saves the round trip of a negotiation."""

    def __init__(self, endpoint: Endpoint, *, version: str | None = None, user_agent: str = "corten") -> None:
        self.endpoint, self.version = endpoint, version
        self._user_agent = user_agent
        self._idle: Socket | None = None

    def keep(self, sock: Socket) -> None:
        """Takes back a connection that may serve again."""
        if self._idle is None:
            self._idle = sock
        else:
            sock.close()

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The response to a request, whose status is below 400. Raises ApiError, CannotConnect, ConnectionLost."""
        prefix = f"/v{self.version}" if self.version and path != "/_ping" else ""
        head = self._head(method, target(self.endpoint.base + prefix + path, query), body, headers)
        reused = self._idle is not None
        try:
            response = self._exchange(method, head, body)
        except (ConnectionLost, OSError) as error:
            # An idle connection may have been closed by the daemon meanwhile; only a body that can be sent twice is.
            if not reused or not isinstance(body, bytes | None):
                raise error if isinstance(error, ClientError) else self._lost(error) from None
            response = self._exchange(method, head, body)
        if response.status >= 400:
            raise api_error(response.status, _message(response))
        return response

    def json(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Sends `body` as JSON unless it is None and decodes the answer; None when it is empty."""
        payload = None if body is None else json.dumps(body).encode()
        return self.request(method, path, query, body=payload, headers=headers).json()

    def _head(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str] | None
    ) -> bytes:
        fields = {"Host": self.endpoint.host_header, "User-Agent": self._user_agent}
        if isinstance(body, bytes):
            fields["Content-Type"] = "application/json"
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Content-Type"] = "application/x-tar"
            fields["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            fields["Content-Length"] = "0"
        fields.update(headers or {})
        return request_head(method, path, fields)

    def _lost(self, error: OSError) -> ConnectionLost:
        return ConnectionLost(f"lost the connection to {self.endpoint.url}: {error.strerror or error}")

    def _exchange(self, method: str, head: bytes, body: bytes | Iterable[bytes] | None) -> Response:
        sock, self._idle = self._idle or dial(self.endpoint), None
        try:
            self._send(sock, head, body)
            parser = ResponseParser(head_only=method == "HEAD")
            early: list[bytes] = []
            while parser.head is None:
                early.extend(parser.feed(sock.recv(READ_SIZE)))
            return Response(self, sock, parser, early)
        except BaseException:
            sock.close()
            raise

    @staticmethod
    def _send(sock: Socket, head: bytes, body: bytes | Iterable[bytes] | None) -> None:
        if body is None or isinstance(body, bytes):
            sock.sendall(head + (body or b""))
            return
        sock.sendall(head)
        try:
            for piece in body:
                if piece:
                    sock.sendall(b"%x\r\n" % len(piece))
                    sock.sendall(piece)
                    sock.sendall(b"\r\n")
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # The daemon stopped reading because it has answered, most likely with an error worth more than EPIPE.


def _message(response: Response) -> str:
    body = response.read()
    try:
        message = json.loads(body)["message"]
        return str(message)
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace").strip()
        return text[:512] or f"request returned {response.status} {response.head.reason}"


def raise_stream_errors(messages: Iterator[Any]) -> Iterator[Any]:
    """The messages of a progress stream; one that says `error` ends it as StreamError."""
    for message in messages:
        if isinstance(message, dict) and ("errorDetail" in message or "error" in message):
            detail = message.get("errorDetail") or {}
            raise StreamError(str(detail.get("message") or message.get("error") or "unknown error"))
        yield message
