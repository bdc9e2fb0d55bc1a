"""Addresses that `docker import` is given."""

from __future__ import annotations

import pytest

from corten.errors import InvalidArgument
from corten.registry.download import checked


@pytest.mark.parametrize("url", ["http://[", "[", "http://[::1", "file:///etc/passwd", "http://", "https:///x", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid source"):
        checked(url)


def test_a_scheme_may_be_left_out() -> None:
    assert checked("a.b/c.tar") == "http://a.b/c.tar"
