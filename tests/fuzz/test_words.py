"""Names, platforms, filters and times that people and images give: read as a slow model reads them, or refused."""

from __future__ import annotations

import re
import string
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.api.docker import container_filters, params, patterns
from corten.errors import CortenError, InvalidArgument
from corten.registry import download, search
from corten.specs import digest as digests
from corten.specs import platform as platforms
from corten.specs.reference import parse
from tests.fuzz.profile import fuzzed, in_order

LETTERS, DIGITS = set(string.ascii_letters), set(string.digits)
LOWER = set(string.ascii_lowercase) | DIGITS
HEX = set(string.hexdigits)

# The grammar of references, a character at a time


def is_component(text: str) -> bool:
    """Runs of small letters and digits, with a dot, one or two underscores or any number of dashes in between."""
    at = 0
    while True:
        start = at
        while at < len(text) and text[at] in LOWER:
            at += 1
        if at == start:
            return False
        if at == len(text):
            return True
        if text[at] == "-":
            while at < len(text) and text[at] == "-":
                at += 1
        elif text[at : at + 2] == "__":
            at += 2
        elif text[at] in "._":
            at += 1
        else:
            return False


def is_domain(text: str) -> bool:
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        good = bool(bracket and inside) and all(char in HEX or char == ":" for char in inside)
    else:
        host, colon, digits = text.partition(":")
        port = colon + digits
        labels = host.split(".")
        letters = LETTERS | DIGITS
        good = all(
            label and set(label) <= letters | {"-"} and label[0] in letters and label[-1] in letters for label in labels
        )
    return good and (not port or (port[0] == ":" and len(port) > 1 and set(port[1:]) <= DIGITS))


def model(text: str) -> tuple[str, str, str, str] | None:
    """Domain, path, tag and digest; None for what is no reference."""
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return None
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain = "docker.io" if first == "index.docker.io" else first
    else:
        domain, rest = "docker.io", text
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    rest, at, digest = rest.partition("@")
    path, colon, tag = rest.partition(":")
    word = LETTERS | DIGITS | {"_"}
    if colon and not (0 < len(tag) <= 128 and tag[0] in word and set(tag) <= word | {".", "-"}):
        return None
    if at and not (digest[:7] == "sha256:" and len(digest) == 71 and set(digest[7:]) <= set("0123456789abcdef")):
        return None
    if len(path) > 255 or not is_domain(domain) or not all(is_component(part) for part in path.split("/")):
        return None
    return domain, path, tag or ("" if digest else "latest"), digest


bits = st.sampled_from(
    [
        "a",
        "b1",
        "A",
        "0",
        ".",
        "..",
        "-",
        "--",
        "_",
        "__",
        "___",
        "/",
        ":",
        "@",
        "[",
        "]",
        "::1",
        "localhost",
        "docker.io",
        "index.docker.io",
        "library/",
        "a.b",
        ":5000",
        "sha256:",
        "ab" * 32,
        "é",
        "\n",
        "\0",
        " ",
        "²",
        "\u017f",
        "\udcff",
        "a" * 130,
    ]
)


@given(st.lists(bits, max_size=7).map("".join))
@fuzzed(600)
def test_references(text: str) -> None:
    expected = model(text)
    try:
        found = parse(text)
    except InvalidArgument:
        assert expected is None
        return
    assert (found.domain, found.path, found.tag, found.digest) == expected
    for again in (found.canonical, found.familiar):
        assert parse(again) == found
    assert found.canonical.isascii()
    assert found.canonical.isprintable()


@given(st.text(max_size=12) | st.lists(bits, max_size=4).map("".join))
@fuzzed(100)
def test_digests(text: str) -> None:
    assert digests.is_digest(text) == bool(re.fullmatch("sha256:[0-9a-f]{64}", text, re.ASCII))
    try:
        assert digests.parse(text) == text
    except InvalidArgument as error:
        in_order(error)


words = st.sampled_from(
    ["linux", "Linux", "amd64", "x86_64", "arm", "armhf", "arm64", "aarch64", "v7", "7", "v8", "²", "٣"]
)
fields = words | st.text(max_size=4)
anything = st.builds(platforms.Platform, fields, fields, fields)


@given(st.lists(fields | st.just("/"), max_size=4).map("/".join))
@fuzzed(100)
def test_platforms_in_words(text: str) -> None:
    try:
        found = platforms.parse(text)
    except InvalidArgument as error:
        in_order(error)
        return
    assert found == found.normalised()
    assert platforms.parse(str(found)) == found
    assert platforms.recorded(str(found)) == found


@given(anything, st.lists(anything, max_size=4))
@fuzzed(150)
def test_which_platform_serves(wanted: platforms.Platform, offered: list[platforms.Platform]) -> None:
    at = platforms.best(wanted, offered)
    exact = [n for n, offer in enumerate(offered) if offer.normalised() == wanted.normalised()]
    if exact:
        assert at == exact[0]
    if at is not None:
        assert offered[at].normalised().os == wanted.normalised().os
    assert platforms.recorded(str(wanted)) == platforms.recorded(str(wanted))


# Patterns, times, addresses


def glob(pattern: str, text: str) -> bool | None:
    """Go's path.Match by trying; None for a malformed pattern. Without brackets."""
    if re.search(r"(?<!\\)(\\\\)*\\$", pattern):
        return None
    if not pattern:
        return not text
    if pattern[0] == "*":
        tries = [text[at:] for at in range(len(text) + 1) if "/" not in text[:at]]
        return any(bool(glob(pattern[1:], rest)) for rest in tries)
    if not text:
        return False
    if pattern[0] == "?":
        return text[0] != "/" and bool(glob(pattern[1:], text[1:]))
    wanted, rest = (pattern[1], pattern[2:]) if pattern[0] == "\\" else (pattern[0], pattern[1:])
    return text[0] == wanted and bool(glob(rest, text[1:]))


@given(st.text("ab/*?\\.+(", max_size=6), st.text("ab/.+(", max_size=6))
@fuzzed(250)
def test_path_patterns(pattern: str, text: str) -> None:
    try:
        compiled = patterns.path_pattern(pattern)
    except InvalidArgument:
        assert glob(pattern, text) is None
        return
    assert bool(compiled.fullmatch(text)) == glob(pattern, text)


@given(st.text("ab[]^-\\*?é\n\udcff/", max_size=8))
@fuzzed(150)
def test_patterns_with_sets(pattern: str) -> None:
    try:
        patterns.path_pattern(pattern).fullmatch("a/b")
    except InvalidArgument as error:
        in_order(error)


@given(
    st.text("ab*+?(){}[]|^$\\.,19i:!<=P>#", max_size=8)
    | st.sampled_from(["a{99999999999}", "(" * 3000, "(?i)" * 9, "((a" * 200])
)
@fuzzed(150)
def test_names_by_regular_expression(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what will mean something else in a later Python
        try:
            container_filters.text_test([pattern])("ab")
        except InvalidArgument as error:
            in_order(error)


moments = st.text("0123456789.:-+TZhmsnuµ ", max_size=14) | st.sampled_from(
    ["9" * 400, "1e9", "inf", "nan", "٣", "0." + "9" * 300]
)


@given(moments)
@fuzzed(200)
def test_moments(text: str) -> None:
    readers: list[Callable[[], int]] = [lambda: params.parse_time(text, 10**18), lambda: params.parse_int(text)]
    for read in readers:
        try:
            assert isinstance(read(), int)
        except InvalidArgument as error:
            in_order(error)


urls = st.lists(
    st.sampled_from(
        [
            "http",
            "https",
            "file",
            "://",
            "[",
            "]",
            "::1",
            "a.b",
            ":",
            "80",
            "@",
            "/",
            "?",
            "#",
            "%zz",
            "\\",
            "é",
            "\n",
            " ",
        ]
    ),
    max_size=7,
)


@given(urls.map("".join))
@fuzzed(200)
def test_addresses_to_import_from_and_to_search_at(text: str) -> None:
    for read in (lambda url: download.shown(download.checked(url)), search.split):
        try:
            read(text)
        except InvalidArgument as error:
            in_order(error)


@pytest.mark.parametrize("unit", ["a", "a-", "a.", "a_", "a/", ":", "@", "A", "[", "-", "_", "aé"])
def test_long_ones_cost_little(unit: str) -> None:
    begin = time.process_time()
    for end in ("", "-", "!", ":t", "@sha256:" + "0" * 64):
        for text in (unit * 30_000 + end, "a.b/" + unit * 30_000 + end):
            try:
                parse(text)
            except CortenError as error:
                in_order(error, 70_000)
    assert time.process_time() - begin < 2
