"""A registry in this process, on a loopback port: serves, takes, asks for tokens, and fails as told.

Faults are put on a queue per path: the next request whose path holds the text meets the next fault of it, those after
the last are served. `log` has every request in order.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs

from aiohttp import web

from corten.specs import digest as digests

FaultKind = Literal["reset", "stall", "garbage", "truncate", "alter", "status", "no-range", "wrong-range"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`reset` breaks the connection after `after` bytes of the body, `truncate` ends it there as if it were whole,
    `stall` sends nothing more, `garbage` answers what is no HTTP, `alter` serves other bytes of the same length,
    `status` answers `status` with `headers`, `no-range` sends the whole blob whatever range was asked for,
    `wrong-range` says that it is part of a longer one.
    """

    kind: FaultKind
    after: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fake registry listens, with TLS or without, and which token server it names ("" for its own)."""

    address: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    realm: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    authorization: str
    range: str


@dataclass(slots=True)
class _Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class FakeRegistry:
    """`async with FakeRegistry() as registry`; then `registry.host` is "127.0.0.1:<port>".

    With `token_auth` it is a registry like Docker Hub: it sends clients to its own token server, which knows `users`
    (anonymous pulls are allowed unless `private`); each token is good for `token_uses` requests. `basic_auth` asks for
    name and password at each request.
    """

    def __init__(
        self,
        *,
        token_auth: bool = False,
        basic_auth: bool = False,
        users: dict[str, str] | None = None,
        private: bool = False,
        token_uses: int = 1_000_000,
        place: Place | None = None,
    ) -> None:
        self.repositories: defaultdict[str, _Repository] = defaultdict(_Repository)
        self.log: list[Seen] = []
        self.host = self.realm = ""
        self.sent = 0
        """Bytes of bodies that were written before a fault."""
        self.gate: asyncio.Event | None = None
        """When set to an event, blobs are not served until it is."""
        self.tags_page = 1000
        """Tags that one answer lists."""
        self._token_auth, self._basic_auth, self._private = token_auth, basic_auth, private
        self._users = users or {}
        self._token_uses = token_uses
        self._place = place or Place()
        self.tokens: dict[str, tuple[str, int]] = {}
        """Scopes and uses left of each token; two registries may share them, one being the other's token server."""
        self.headers: list[dict[str, str]] = []
        """Of each request to /v2/, names in small letters."""
        self._faults: list[tuple[str, deque[Fault]]] = []
        self._serial = itertools.count(1)
        self._uploads: dict[str, str] = {}
        self._parts: dict[str, bytearray] = {}
        self.found: list[dict[str, object]] = []
        """What every search finds."""
        self.losing_uploads = 0
        """So many of the next questions where an upload stands are answered with 404."""
        self.mounting = True
        """Whether a blob may be taken over from another repository."""
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeRegistry:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/token", self._token)
        app.router.add_route("*", "/cdn/{digest}", self._cdn)
        app.router.add_route("*", "/v2/{tail:.*}", self._v2)
        app.router.add_route("GET", "/v1/search", self._search)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._place.address, 0, ssl_context=self._place.tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.realm = self._place.realm or f"{'https' if self._place.tls else 'http'}://{self.host}/token"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests whose path holds `path` meet `faults`, one each."""
        self._faults.append((path, deque(faults)))

    def add_blob(self, repository: str, data: bytes) -> str:
        digest = digests.of(data)
        self.repositories[repository].blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        digest = digests.of(data)
        manifests = self.repositories[repository].manifests
        manifests[digest] = (media_type, data)
        if tag:
            manifests[tag] = (media_type, data)
        return digest

    def seen(self, method: str, part: str) -> list[Seen]:
        """Requests so far with this method whose path holds `part`."""
        return [entry for entry in self.log if entry.method == method and part in entry.path]

    async def _v2(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.log.append(Seen(request.method, request.path_qs, authorization, request.headers.get("Range", "")))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if (refused := self._check(request, authorization)) is not None:
            return refused
        fault = self._next_fault(request.path)
        if fault is not None and fault.kind in ("garbage", "status"):
            return await self._break(request, fault)
        tail = request.match_info["tail"]
        if tail.endswith("/tags/list"):
            return self._tags(request, tail.removesuffix("/tags/list"))
        for kind, handler in (("manifests", self._manifest), ("blobs/uploads", self._upload), ("blobs", self._blob)):
            name, found, rest = tail.rpartition(f"/{kind}/")
            if found:
                return await handler(request, name, rest, fault)
        return web.json_response({})

    async def _search(self, request: web.Request) -> web.Response:
        self.log.append(Seen(request.method, request.path_qs, request.headers.get("Authorization", ""), ""))
        if self._basic_auth and self._user(request.headers.get("Authorization", "")) is None:
            return _error(401, "UNAUTHORIZED", "authentication required", {"Www-Authenticate": 'Basic realm="fake"'})
        return web.json_response({"query": request.query["q"], "results": self.found})

    def _next_fault(self, path: str) -> Fault | None:
        for part, queue in self._faults:
            if part in path and queue:
                return queue.popleft()
        return None

    async def _break(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.kind == "garbage":
            assert request.transport is not None
            request.transport.write(b"\x00\x01garbage, no HTTP\r\n\r\n")
            request.transport.close()
            return web.Response()
        return web.Response(status=fault.status, headers=fault.headers, text=fault.body)

    def _check(self, request: web.Request, authorization: str) -> web.Response | None:
        """The 401 for a request without the right to make it."""
        if self._basic_auth:
            if self._user(authorization) is not None:
                return None
            return _error(401, "UNAUTHORIZED", "authentication required", {"Www-Authenticate": 'Basic realm="fake"'})
        if not self._token_auth:
            return None
        if not request.match_info["tail"]:
            return self._check_base(authorization)
        name = (
            request.match_info["tail"].rpartition("/manifests/")[0] or request.match_info["tail"].partition("/blobs")[0]
        )
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        scope, left = self.tokens.get(authorization.removeprefix("Bearer "), ("", 0))
        granted = any(part.startswith(f"repository:{name}:") and action in part for part in scope.split())
        if left > 0 and granted:
            self.tokens[authorization.removeprefix("Bearer ")] = (scope, left - 1)
            return None
        actions = "pull" if action == "pull" else "pull,push"
        challenge = f'Bearer realm="{self.realm}",service="fake",scope="repository:{name}:{actions}"'
        if left > 0:
            challenge += ',error="insufficient_scope"'
        return _error(401, "UNAUTHORIZED", "authentication required", {"Www-Authenticate": challenge})

    def _check_base(self, authorization: str) -> web.Response | None:
        """Of /v2/ itself, which any token opens, and which logins ask for."""
        if self.tokens.get(authorization.removeprefix("Bearer "), ("", 0))[1] > 0:
            return None
        challenge = {"Www-Authenticate": f'Bearer realm="{self.realm}",service="fake"'}
        return _error(401, "UNAUTHORIZED", "authentication required", challenge)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.log.append(Seen(request.method, request.path_qs, authorization, ""))
        if (fault := self._next_fault(request.path)) is not None:
            return await self._break(request, fault)
        if request.method == "POST":
            form = parse_qs(await request.text())
            user = form["refresh_token"][0].removeprefix("identity-of-")
            scopes = form.get("scope", [""])[0].split()
            known = user in self._users
        else:
            found = self._user(authorization)
            user, known = found or "", found is not None or not authorization
            scopes = [part for value in request.query.getall("scope", []) for part in value.split()]
        if not known:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        if not user:
            scopes = [] if self._private else [scope.replace(",push", "") for scope in scopes]
        token = f"token-{next(self._serial)}"
        self.tokens[token] = (" ".join(scopes), self._token_uses)
        answer = {"token": token, "expires_in": 300}
        if request.query.get("offline_token") == "true" and user:
            answer["refresh_token"] = f"identity-of-{user}"
        return web.json_response(answer)

    def _user(self, authorization: str) -> str | None:
        if not authorization.startswith("Basic "):
            return None
        name, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
        return name if self._users.get(name) == password and name else None

    async def _manifest(self, request: web.Request, name: str, ref: str, fault: Fault | None) -> web.StreamResponse:
        repository = self.repositories[name]
        if request.method == "PUT":
            data = await request.read()
            digest = self.add_manifest(name, data, request.content_type, ref)
            return web.Response(status=201, headers={"Docker-Content-Digest": digest})
        if ref not in repository.manifests:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = repository.manifests[ref]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digests.of(data)}
        return await self._serve(request, data, headers, fault)

    def _tags(self, request: web.Request, name: str) -> web.Response:
        if name not in self.repositories:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        last = request.query.get("last", "")
        tags = sorted(tag for tag in self.repositories[name].manifests if not digests.is_digest(tag) and tag > last)
        page = tags[: self.tags_page]
        headers = {"Link": f'</v2/{name}/tags/list?last={page[-1]}>; rel="next"'} if len(page) < len(tags) else None
        return web.json_response({"name": name, "tags": page}, headers=headers)

    async def _blob(self, request: web.Request, name: str, digest: str, fault: Fault | None) -> web.StreamResponse:
        data = self.repositories[name].blobs.get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.gate is not None and request.method == "GET":
            await self.gate.wait()
        return await self._serve(request, data, {"Content-Type": "application/octet-stream"}, fault)

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        """Blobs at another address; tests put redirects to it by a `status` fault."""
        self.log.append(Seen(request.method, request.path_qs, request.headers.get("Authorization", ""), ""))
        fault = self._next_fault(request.path)
        if fault is not None and fault.kind in ("garbage", "status"):
            return await self._break(request, fault)
        digest = request.match_info["digest"]
        data = next(r.blobs[digest] for r in self.repositories.values() if digest in r.blobs)
        return await self._serve(request, data, {}, fault)

    async def _serve(
        self, request: web.Request, data: bytes, headers: dict[str, str], fault: Fault | None
    ) -> web.StreamResponse:
        status = 200
        asked = request.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
        if asked and not (fault is not None and fault.kind == "no-range"):
            start = int(asked)
            wrong = fault is not None and fault.kind == "wrong-range"
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data) + wrong}"
            status, data = 206, data[start:]
        if fault is not None and fault.kind == "alter":
            data = bytes(byte ^ 1 for byte in data)
        if fault is None or fault.kind in ("alter", "no-range", "wrong-range"):
            return web.Response(status=status, body=data, headers=headers)
        declared = fault.after if fault.kind == "truncate" else len(data)
        response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(declared)})
        await response.prepare(request)
        await response.write(data[: fault.after])
        self.sent += len(data[: fault.after])
        if fault.kind == "stall":
            await self._closing.wait()
        if fault.kind == "reset":
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _upload(self, request: web.Request, name: str, rest: str, fault: Fault | None) -> web.StreamResponse:
        if request.method == "POST":
            mount, source = request.query.get("mount", ""), request.query.get("from", "")
            if self.mounting and mount in self.repositories[source].blobs:
                self.repositories[name].blobs[mount] = self.repositories[source].blobs[mount]
                return web.Response(status=201)
            upload = f"upload-{next(self._serial)}"
            self._uploads[upload] = name
            return web.Response(status=202, headers={"Location": f"/v2/{name}/blobs/uploads/{upload}?state=x"})
        if self._uploads.get(rest) != name:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if request.method == "GET":
            return self._upload_state(name, rest)
        if request.method == "DELETE":
            del self._uploads[rest]
            return web.Response(status=204)
        if fault is not None and fault.kind == "reset":
            assert request.transport is not None
            if fault.after:
                self._parts.setdefault(rest, bytearray()).extend(await request.content.readexactly(fault.after))
            request.transport.abort()
            return web.Response()
        if request.method == "PATCH":
            return await self._patch(request, name, rest)
        data = bytes(self._parts.pop(rest, b"")) + await request.read()
        if digests.of(data) != request.query["digest"]:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.add_blob(name, data)
        return web.Response(status=201)

    async def _patch(self, request: web.Request, name: str, upload: str) -> web.Response:
        have = self._parts.setdefault(upload, bytearray())
        start = int(request.headers["Content-Range"].partition("-")[0])
        if start != len(have):
            return _error(416, "RANGE_INVALID", "invalid content range")
        have.extend(await request.read())
        return web.Response(status=202, headers=self._upload_headers(name, upload))

    def _upload_state(self, name: str, upload: str) -> web.Response:
        if self.losing_uploads:
            self.losing_uploads -= 1
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return web.Response(status=204, headers=self._upload_headers(name, upload))

    def _upload_headers(self, name: str, upload: str) -> dict[str, str]:
        have = len(self._parts.get(upload, b""))
        return {
            "Location": f"/v2/{name}/blobs/uploads/{upload}?state={next(self._serial)}",
            "Range": f"0-{max(0, have - 1)}",
        }


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)
