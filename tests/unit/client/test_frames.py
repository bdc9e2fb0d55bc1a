"""Frames of stdout and stderr, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.client.errors import ProtocolError
from corten.client.frames import FrameReader


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    out: list[tuple[int, bytes]] = []
    for stream, piece in pieces:
        if out and out[-1][0] == stream:
            out[-1] = (stream, out[-1][1] + piece)
        elif piece:
            out.append((stream, piece))
    return out


@given(
    st.lists(st.tuples(st.integers(1, 2), st.binary(max_size=40)), max_size=30),
    st.lists(st.integers(0, 1500), max_size=30),
)
def test_payload_in_order_however_it_is_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(frame(stream, payload) for stream, payload in frames)
    reader, found, at = FrameReader(), [], 0
    for cut in sorted({min(cut, len(wire)) for cut in cuts} | {len(wire)}):
        found += reader.feed(wire[at:cut])
        at = cut
    assert joined(found) == joined(frames)


def test_frames_of_one_stream_come_together() -> None:
    wire = frame(1, b"a\n") + frame(1, b"b\n") + frame(2, b"!") + frame(1, b"c")
    assert FrameReader().feed(wire) == [(1, b"a\nb\n"), (2, b"!"), (1, b"c")]


@pytest.mark.parametrize("first", [4, 72, 255])
def test_what_is_no_frame_is_refused(first: int) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(bytes((first,)) + b"ELLO, WORLD")
    reader = FrameReader()
    pieces = [reader.feed(bytes((byte,))) for byte in bytes((first,)) + b"ELLO, "]
    assert not any(pieces)
    with pytest.raises(ProtocolError):
        reader.feed(b"W")
