"""Documents from outside: whatever JSON comes, the answer is a value of the right types or InvalidArgument, soon."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.api.docker import params
from corten.engine.images import legacy
from corten.engine.images.archive import Archive, candidates
from corten.engine.images.layers import plan_layers
from corten.errors import CortenError, InvalidArgument
from corten.registry import faults
from corten.registry.auth import Credentials, RegistryAuth, TokenRequest
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs import wire
from corten.specs.reference import Reference
from corten.testing.storage import MemoryContentStore
from tests.fuzz.profile import fuzzed, in_order

DIGEST = "sha256:" + "1" * 64
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1 << 31, 1 << 63, 1 << 64, 10**30, 0.5, 1e300]),
    st.text(max_size=6),
    st.sampled_from(["\x00", "\x1b[2J", "é" * 300, "../..", "a" * 70_000, "sha256:" + "g" * 64]),
    st.just([]),
    st.just({}),
    st.recursive(
        st.integers(0, 3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
        max_leaves=4,
    ),
)


def either(usual: Any) -> st.SearchStrategy[Any]:
    """Mostly what belongs there."""
    strategy = usual if isinstance(usual, st.SearchStrategy) else st.just(usual)
    return st.integers(0, 11).flatmap(lambda at: odd if at == 0 else strategy)


def some(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these members or fewer, and a few that nobody knows."""
    known = st.fixed_dictionaries({}, optional={name.strip("_"): either(member) for name, member in members.items()})
    return st.tuples(known, st.dictionaries(st.text(max_size=3), odd, max_size=1)).map(
        lambda pair: {**pair[1], **pair[0]}
    )


kinds = st.sampled_from([*oci.MANIFEST_TYPES, *oci.INDEX_TYPES, oci.OCI_CONFIG, oci.OCI_LAYER_GZIP, "", "text/html"])
digest_words = st.sampled_from([DIGEST, DIGEST, DIGEST, "sha512:" + "1" * 128, "sha256:" + "A" * 64, "md5:x", ""])
platform_words = st.sampled_from(["linux", "amd64", "arm64", "arm", "v8", "7", "²", "", "a/b", "windows", "v99"])
platform_objects = some(os=platform_words, architecture=platform_words, variant=platform_words)
notes = st.dictionaries(st.text(max_size=4), st.text(max_size=4) | odd, max_size=2)
descriptors: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"digest": either(digest_words), "size": either(st.integers(-1, 1 << 20))},
    optional={
        "mediaType": either(kinds),
        "annotations": notes,
        "platform": either(platform_objects),
        "urls": odd,
    },
)
manifests = some(
    schemaVersion=2,
    mediaType=kinds,
    config=descriptors,
    layers=st.lists(descriptors, max_size=3),
    annotations=notes,
)
indexes = some(schemaVersion=2, mediaType=kinds, manifests=st.lists(descriptors, max_size=3), annotations=notes)
strings = st.lists(either(st.text(max_size=4)), max_size=2)
runs = some(
    User=st.text(max_size=4),
    Env=strings,
    Cmd=strings | st.text(max_size=3),
    Entrypoint=strings,
    Labels=st.dictionaries(st.text(max_size=3), either(st.text(max_size=3)), max_size=2),
    ExposedPorts=st.dictionaries(st.text(max_size=5), either(st.just({})), max_size=2),
    Volumes=st.dictionaries(st.text(max_size=5), either(st.just({})), max_size=2),
    Healthcheck=some(Test=strings, Interval=st.integers(-5, 1 << 70)),
    StopSignal=st.text(max_size=3),
)
times = st.sampled_from(
    ["2024-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "٢٠٢٤-01-01T00:00:00Z", "x"]
)
configs = some(
    created=times,
    architecture=platform_words,
    os=platform_words,
    variant=platform_words,
    config=runs,
    rootfs=some(type="layers", diff_ids=st.lists(either(digest_words), max_size=3)),
    history=st.lists(some(created=times, created_by=st.text(max_size=3), empty_layer=st.booleans()), max_size=3),
)
garbage = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"[" * 5000, b'{"a":' * 5000, b"1" * 5000, b"1e999", b"-0", b"NaN", b'"\\ud800"', b"\xef\xbb\xbf{}", b""]
    ),
    odd.map(lambda value: json.dumps(value).encode()),
)


def documents(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    whole = kind.map(lambda value: json.dumps(value).encode())
    cut = st.tuples(whole, st.integers(0, 200)).map(lambda pair: pair[0][: -pair[1]])
    return st.integers(0, 9).flatmap(lambda at: garbage if at == 0 else cut if at == 1 else whole)


@given(documents(manifests))
@fuzzed(150)
def test_manifests(data: bytes) -> None:
    try:
        manifest = oci.parse_manifest(data)
    except InvalidArgument as error:
        return in_order(error)
    for descriptor in (manifest.config, *manifest.layers):
        assert digests.is_digest(descriptor.digest)
        assert 0 <= descriptor.size < 1 << 63
    # What reads it in the simplest way sees the same; and nobody takes it for an index.
    raw = json.loads(data)
    assert [layer.digest for layer in manifest.layers] == [layer["digest"] for layer in raw.get("layers") or []]
    assert oci.kind_of(data) in oci.MANIFEST_TYPES
    with pytest.raises(InvalidArgument):
        oci.parse_index(data)
    with contextlib.suppress(InvalidArgument):
        plan = plan_layers(manifest.layers, [DIGEST] * len(manifest.layers))
        assert len(plan) == len(manifest.layers)
    return None


@given(documents(indexes), platform_objects)
@fuzzed(150)
def test_indexes(data: bytes, wanted: dict[str, Any]) -> None:
    try:
        index = oci.parse_index(data)
    except InvalidArgument as error:
        return in_order(error)
    assert oci.kind_of(data) in (*oci.INDEX_TYPES, "")
    with pytest.raises(InvalidArgument):
        oci.parse_manifest(data)
    offers = [descriptor.platform or platforms.Platform() for descriptor in index.manifests]
    with contextlib.suppress(InvalidArgument):
        best = platforms.best(wire.convert(wire.parse(json.dumps(wanted)), platforms.Platform), offers)
        assert best is None or 0 <= best < len(offers)
    return None


@given(documents(configs))
@fuzzed(150)
def test_configs(data: bytes) -> None:
    try:
        config = oci.parse_config(data)
    except InvalidArgument as error:
        return in_order(error)
    assert config.created_ns >= 0
    assert all(digests.is_digest(diff_id) for diff_id in config.rootfs.diff_ids)
    platform = config.platform.normalised()
    assert platforms.best(platform, [platform]) == 0
    platforms.recorded(str(platform))
    assert oci.parse_config(msgspec.json.encode(config)) == config
    return None


@given(documents(odd))
@fuzzed(100)
def test_what_registries_and_token_servers_say(data: bytes) -> None:
    refusal = faults.read_refusal(404, data, [], "MANIFEST_UNKNOWN")
    assert isinstance(faults.translate(refusal, Reference("a.b", "c", "d")), CortenError)
    assert refusal.detail.isprintable()
    auth = RegistryAuth(Credentials())
    with contextlib.suppress(CortenError):
        auth.granted(TokenRequest("https://x", "s"), data, 0.0)
        header = auth.header("s", 1.0)
        assert header == "" or (header.startswith("Bearer ") and header.isprintable())


tokens = some(
    token=st.text(max_size=4),
    access_token=st.text(max_size=4),
    expires_in=st.integers(-5, 1 << 70),
    refresh_token=st.text(max_size=2),
)


@given(documents(tokens))
@fuzzed(100)
def test_tokens(data: bytes) -> None:
    auth = RegistryAuth(Credentials())
    try:
        auth.granted(TokenRequest("https://x", "s"), data, 100.0)
    except CortenError as error:
        return in_order(error)
    assert auth.header("s", 100.0).startswith("Bearer ")
    return None


# Archives

names = st.sampled_from(
    ["c.json", "l.tar", "../l.tar", "/etc/passwd", "./c.json", "gone", "", "a\0b", "blobs/sha256/" + "1" * 64]
)
entries = st.lists(
    some(
        Config=names,
        RepoTags=st.lists(either(st.text(max_size=4)), max_size=2),
        Layers=st.lists(either(names), max_size=3),
    ),
    max_size=2,
)
steps = some(id=names, parent=st.sampled_from(["", "a", "b", "c"]), created=times, config=runs, container_config=runs)


class _Kept:
    def __init__(self, content: MemoryContentStore) -> None:
        self._content = content

    def put(self, data: bytes) -> str:
        return self._content.put(data).digest


@given(documents(entries), documents(configs), documents(indexes), st.integers(0, 3))
@fuzzed(120)
def test_docker_s_and_oci_s_archives(entries: bytes, config: bytes, index: bytes, which: int) -> None:
    content = MemoryContentStore()
    layer = content.put(b"layer").digest
    documents = {"manifest.json": entries, "c.json": config} | ({"index.json": index} if which == 0 else {})
    archive = Archive(documents, {"l.tar": layer}, {"gone": "gone2", "gone2": "gone", "x": "c.json"})
    try:
        found = candidates(archive, content, _Kept(content))  # type: ignore[arg-type]  # put is all that is called
    except CortenError as error:
        return in_order(error)
    for candidate in found:
        if which:
            manifest = oci.parse_manifest(content.read(candidate.target.digest))
            assert {descriptor.digest for descriptor in manifest.layers} <= {layer}
    return None


@given(
    documents(
        st.dictionaries(
            st.sampled_from(["r", "R", "a b"]),
            either(st.dictionaries(names, either(st.sampled_from("abc")), max_size=2)),
            max_size=2,
        )
    ),
    st.lists(documents(steps), min_size=3, max_size=3),
)
@fuzzed(80)
def test_archives_from_before(repositories: bytes, chain: list[bytes]) -> None:
    documents = {"repositories": repositories} | {f"{id}/json": step for id, step in zip("abc", chain, strict=True)}
    content = MemoryContentStore()
    blobs = {f"{id}/layer.tar": content.put(id.encode()).digest for id in "abc"}
    with contextlib.suppress(CortenError):
        for candidate in candidates(Archive(documents, blobs, {}), content, _Kept(content)):  # type: ignore[arg-type]
            oci.parse_config(content.read(oci.parse_manifest(content.read(candidate.target.digest)).config.digest))
    with contextlib.suppress(InvalidArgument):
        assert len(legacy.chain(documents, "a")) <= 3


# The API

filters = st.dictionaries(
    st.text(max_size=3),
    either(
        st.lists(either(st.text(max_size=3)), max_size=2)
        | st.dictionaries(st.text(max_size=2), st.booleans(), max_size=2)
    ),
    max_size=2,
)


@given(documents(filters).map(lambda data: data.decode("utf-8", "surrogateescape")))
@fuzzed(100)
def test_filters(text: str) -> None:
    try:
        found = params.parse_filters(text)
    except InvalidArgument as error:
        return in_order(error)
    assert all(isinstance(value, str) for values in found.values() for value in values)
    with contextlib.suppress(InvalidArgument):
        params.check_filters(found, frozenset("ab"))
        params.filter_flag(found, "a")
    return None


@given(documents(odd), st.booleans())
@fuzzed(60)
def test_credentials_in_headers(data: bytes, wrapped: bool) -> None:
    import base64

    text = base64.urlsafe_b64encode(data).decode() if wrapped else data.decode("latin-1")
    for parse in (params.parse_auth, params.parse_auths):
        with contextlib.suppress(InvalidArgument):
            parse(text)


# Costs


@pytest.mark.parametrize(
    "unit",
    [b"[", b"[[", b'{"a":', b"[1,", b'{"a":[', b"[],", b'{"":0},', b"0,", b'"\\u0000",', b"\\", b'"', b"9" * 100],
)
def test_eight_megabytes_of_the_same(unit: bytes) -> None:
    data = b'{"a":[' + unit * ((8 << 20) // len(unit))
    begin = time.process_time()
    for end in (b"", b"0]}"):
        for parse in (oci.parse_manifest, oci.parse_index, oci.parse_config, oci.kind_of):
            with contextlib.suppress(InvalidArgument):
                parse(data + end)
    assert time.process_time() - begin < 4
