"""What must not creep into the tree: binaries, sleeping tests, unpinned requirements, addresses of registries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_only_text_is_tracked() -> None:
    """What is built or downloaded is none of the sources. A file with a NUL byte is binary, as git judges it."""
    found = [str(path.relative_to(ROOT)) for path in tracked() if b"\0" in path.read_bytes()[:8000]]
    assert not found, "\n".join(found)


def test_tests_never_sleep() -> None:
    """`time.sleep` and a positive `asyncio.sleep` hide races; wait for the thing itself (tests/waiting.py polls
    with a deadline).
    """
    pattern = re.compile(r"(?:time|asyncio)\.sleep\((?!0\))")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked("tests/*.py")
        if path.name not in ("waiting.py", "test_hygiene.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_what_a_checker_is_told_to_overlook_has_its_reason() -> None:
    """At the end of the line, after the code: the next reader is to know whether it still holds."""
    bare = re.compile(r"# (?:type: ignore\[[^]]*\]|noqa: [A-Z0-9, ]+)\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked("src/*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert not found, "\n".join(found)


def test_requirements_are_pinned_with_hashes_and_name_no_index() -> None:
    for path in tracked("requirements/*.txt"):
        text = path.read_text()
        assert "://" not in text, f"{path.name} records an address"
        for entry in re.split(r"\n(?=[a-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.M).strip()):
            assert "==" in entry.splitlines()[0], entry[:80]
            assert "--hash=sha256:" in entry, entry[:80]


def test_no_copied_reference_data() -> None:
    """The reference descriptions are read from beside the repository, never kept in it."""
    names = {path.name for path in tracked()}
    assert not names & {"docker-engine-api.yaml", "seccomp-default.json", "compose-spec.json"}


def test_a_skip_does_not_hide_what_the_set_up_should_have_installed() -> None:
    """As scripts/test runs the tests, here without the openssl that makes their certificate."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/client/test_tls.py"]
    for set_up, code in ({"CORTEN_TEST_SET_UP": "1"}, 1), ({}, 0):
        ran = subprocess.run(
            command, cwd=ROOT, env={"PATH": "/nonexistent", **set_up}, capture_output=True, text=True, check=False
        )
        assert ran.returncode == code, ran.stdout
        assert ("was not run though everything is set up" in ran.stdout) == bool(set_up)
