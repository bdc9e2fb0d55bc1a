"""How much is done for a request, counted and not timed: some ask for a list of five hundred containers each second."""

from __future__ import annotations

import sys

import pytest

from tests.counting import Calls
from tests.unit.api.support import Api

FEW, MANY = 10, 60
CALLS = 40
"""Functions called for each container of a list; there were 23 when this was written."""


def calls_of(api: Api, path: str) -> Calls:
    """What the server's thread calls for the second of two requests: the first one fills what is remembered."""
    calls = Calls()
    api.get(path)
    api.do(lambda: sys.setprofile(calls.note))
    try:
        assert api.get(path).status == 200
    finally:
        api.do(lambda: sys.setprofile(None))
    return calls


def populate(api: Api, count: int) -> None:
    for number in range(count):
        make = api.create if number % 2 else api.started
        ports = {"80/tcp": [{"HostPort": str(2000 + count + number)}]}
        make(f"c{number}of{count}", Labels={"a": "b"}, HostConfig={"Binds": ["v:/data"], "PortBindings": ports})


@pytest.mark.parametrize("path", ["/v1.41/containers/json?all=1", "/v1.54/containers/json?all=1"])
def test_a_list_does_little_for_each_container_and_asks_the_kernel_nothing(api: Api, path: str) -> None:
    populate(api, FEW)
    few = calls_of(api, path)
    populate(api, MANY - FEW)
    more = calls_of(api, path).more(few)
    each = Calls({name: number for name, number in more.items() if number >= (MANY - FEW) // 2})
    assert each["corten.api.docker.encode_container.summary"] == MANY - FEW
    assert not each.of_kernel()
    assert sum(more.values()) / (MANY - FEW) <= CALLS, more


def test_an_inspection_does_not_look_at_the_others(api: Api) -> None:
    populate(api, FEW)
    id = api.create("wanted")
    few = calls_of(api, f"/containers/{id}/json")
    populate(api, MANY - FEW)
    more = calls_of(api, f"/containers/{id}/json").more(few)
    assert sum(more.values()) < (MANY - FEW) // 2, more
