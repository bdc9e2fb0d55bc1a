"""Docker's reference grammar; examples first, then what holds for all."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.specs.reference import Reference, parse

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/ann/tool", "docker.io/ann/tool:latest", "ann/tool:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("quay.io/a/b:v1", "quay.io/a/b:v1", "quay.io/a/b:v1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b:latest", "[::1]:5000/a/b:latest"),
        ("127.0.0.1:5000/x@" + DIGEST, "127.0.0.1:5000/x@" + DIGEST, "127.0.0.1:5000/x@" + DIGEST),
        ("x:1@" + DIGEST, "docker.io/library/x:1@" + DIGEST, "x:1@" + DIGEST),
        ("UPPER/name", "UPPER/name:latest", "UPPER/name:latest"),
        ("a_b/c__d-e.f---g", "docker.io/a_b/c__d-e.f---g:latest", "a_b/c__d-e.f---g:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
    ],
)
def test_normalised_and_familiar(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("a/B:c", "invalid reference format: repository name (a/B) must be lowercase"),
        ("x:", "invalid reference format"),
        (":x", "invalid reference format"),
        ("x@", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("x\n", "invalid reference format"),
        ("x:t\n", "invalid reference format"),
        ("../x", "invalid reference format"),
        ("é", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("[::1/x", "invalid reference format"),
        ("x@sha256:" + "a" * 63, "invalid reference format: invalid checksum digest length: sha256:" + "a" * 63),
        ("x@sha512:" + "a" * 64, "invalid reference format: unsupported digest algorithm: sha512"),
        ("a" * 256, "invalid reference format: repository name must not be more than 255 characters"),
    ],
)
def test_refused_in_docker_s_words(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert str(caught.value) == words


def test_an_id_is_no_name() -> None:
    with pytest.raises(InvalidArgument, match="cannot specify 64-byte hexadecimal strings"):
        parse("ab" * 32)


def test_tag_and_digest_replace_each_other() -> None:
    reference = parse("x:1")
    assert reference.with_digest(DIGEST).canonical == "docker.io/library/x@" + DIGEST
    assert reference.with_digest(DIGEST).with_tag("2") == parse("x:2")
    with pytest.raises(InvalidArgument, match="invalid tag format"):
        reference.with_tag("-")


def test_no_tag_where_none_is_wanted() -> None:
    assert parse("x", default_tag=False) == Reference("docker.io", "library/x")


component = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
domain = st.from_regex(
    r"([a-z0-9]([a-z0-9-]{0,4}[a-z0-9])?\.[a-z]{2,3}|localhost|\[[0-9a-f]{0,4}:[0-9a-f:]{1,8}\])(:[0-9]{1,5})?",
    fullmatch=True,
)
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digest = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(st.builds("/".join, st.lists(component, min_size=1, max_size=4)), domain, tag, digest, st.sampled_from("td2n"))
def test_what_the_grammar_makes_is_read_and_said_again(path: str, host: str, tag: str, digest: str, form: str) -> None:
    text = f"{host}/{path}" + (f":{tag}" if form in "t2" else "") + (f"@{digest}" if form in "d2" else "")
    reference = parse(text)
    assert (reference.domain, reference.path) == (host, path)
    assert reference.tag == (tag if form in "t2" else "" if form == "d" else "latest")
    assert parse(reference.canonical) == reference
    assert parse(reference.familiar) == reference


@given(st.builds("/".join, st.lists(component, min_size=1, max_size=3)))
def test_short_names_mean_what_long_ones_do(path: str) -> None:
    reference = parse("docker.io/" + path)
    assert reference.domain == "docker.io"
    assert parse(reference.familiar) == reference
    assert len(reference.familiar) <= len(reference.canonical)


@given(st.text(alphabet=st.sampled_from("aB0.-_:/@[]\n é"), max_size=20))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        reference = parse(text)
        assert parse(reference.canonical) == reference
        assert "\n" not in reference.canonical
