"""The options of volumes, as mount(2) takes them."""

from __future__ import annotations

import pytest

from corten.engine import localmounts
from corten.linux.mount import MS_BIND, MS_NOSUID, MS_RDONLY, MS_REC, MS_SHARED


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        ("", (0, 0, "")),
        ("bind", (MS_BIND, 0, "")),
        ("rbind,ro,rshared", (MS_BIND | MS_REC | MS_RDONLY, MS_SHARED | MS_REC, "")),
        ("defaults,size=1m,nosuid,ro,rw,mode=700", (MS_NOSUID, 0, "size=1m,mode=700")),
        ("addr=10.0.0.1,vers=4", (0, 0, "addr=10.0.0.1,vers=4")),
    ],
)
def test_options(words: str, parsed: tuple[int, int, str]) -> None:
    assert localmounts.parse(words) == parsed
