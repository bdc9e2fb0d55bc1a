"""Answers that are sent piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from corten.api.docker.errors import http_message, http_status
from corten.api.docker.server import Connection
from corten.errors import CortenError, SystemFault, Unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corten.api.docker.call import Call
    from corten.engine.models import ProgressMessage

FIRST_WAIT = 0.1
"""Seconds in which a stream that cannot be served is expected to say so; the headers go out after them."""

_encode = msgspec.json.Encoder().encode


def encode_line(value: Any) -> bytes:
    """`value` as one line of a stream of JSON."""
    return _encode(value) + b"\n"


async def begin(call: Call, content_type: str) -> web.StreamResponse:
    """Send the headers, now."""
    response = web.StreamResponse(headers={"Content-Type": content_type, **call.services.headers})
    await response.prepare(call.request)
    call.started = response
    if isinstance(call.request.protocol, Connection):
        call.request.protocol.streams = True
    return response


async def send_progress(call: Call, messages: AsyncIterator[ProgressMessage]) -> web.StreamResponse:
    """JSON lines as the CLI draws them. An error before the first line is an HTTP error, a later one the last line."""
    iterator = messages.__aiter__()
    try:
        message = await anext(iterator, None)
    except Unauthorized as error:
        # As Docker's daemon does: at a 401 its command line asks for a name and waits, where nobody may be to answer.
        raise SystemFault(str(error), step="registry") from None
    response = await begin(call, "application/json")
    try:
        while message is not None:
            await response.write(_encode(message) + b"\r\n")
            message = await anext(iterator, None)
    except CortenError as error:
        await response.write(_encode(_progress_error(error)) + b"\r\n")
    finally:
        await _close(iterator)
    await response.write_eof()
    return response


def _progress_error(error: CortenError) -> dict[str, Any]:
    text = http_message(error)
    detail: dict[str, Any] = {"message": text}
    # At 401 the docker command says that "authentication is required", instead of what the registry says.
    if (code := http_status(error)) not in (500, 401):
        detail["code"] = code
    return {"errorDetail": detail, "error": text}


async def send_bytes(call: Call, chunks: AsyncIterator[bytes], content_type: str, *, live: bool) -> web.StreamResponse:
    """`chunks` as they come. With `live` the first may be long in coming, so the headers do not wait for it."""
    iterator = chunks.__aiter__()
    try:
        if live:
            first = call.services.tasks.start("first chunk", _first(iterator))
            try:
                await asyncio.wait((first,), timeout=FIRST_WAIT)
                response = await begin(call, content_type) if not first.done() else None
                chunk, error = await first
            except asyncio.CancelledError:
                first.cancel()
                raise
            if error is not None:
                raise error
            response = response or await begin(call, content_type)
        else:
            chunk = await anext(iterator, None)
            response = await begin(call, content_type)
        while chunk is not None:
            await response.write(chunk)
            chunk = await anext(iterator, None)
    finally:
        await _close(iterator)
    await response.write_eof()
    return response


async def _first(iterator: AsyncIterator[bytes]) -> tuple[bytes | None, Exception | None]:
    try:
        return await anext(iterator, None), None
    except Exception as error:
        return None, error


async def _close(iterator: AsyncIterator[Any]) -> None:
    """End a generator now rather than when it is collected: it may hold a file or a subscription."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        await aclose()
