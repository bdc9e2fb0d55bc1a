"""The instructions of `docker import --change`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corten.engine.images import changes
from corten.errors import InvalidArgument
from corten.specs.oci_image import RunConfig


def applied(*lines: str) -> dict[str, Any]:
    config = RunConfig()
    changes.apply(lines, config)
    result: dict[str, Any] = msgspec.to_builtins(config)
    return result


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        (["CMD echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['cmd ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["ENTRYPOINT []"], {}),
        (['ENTRYPOINT ["/x"]'], {"Entrypoint": ["/x"]}),
        (["ENV A=1", "ENV B two words", "ENV A=3"], {"Env": ["A=3", "B=two words"]}),
        (["LABEL a=b 'c d'=\"e f\""], {"Labels": {"a": "b", "c d": "e f"}}),
        (["EXPOSE 8000-8002/UDP 80"], {"ExposedPorts": {f"{p}/udp": {} for p in (8000, 8001, 8002)} | {"80/tcp": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["WORKDIR ../../x"], {"WorkingDir": "/x"}),
        (["USER 1:2"], {"User": "1:2"}),
        (['VOLUME ["/a", "/b"]', "VOLUME /c"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        (["STOPSIGNAL SIGRTMIN+3"], {"StopSignal": "SIGRTMIN+3"}),
        (["ONBUILD RUN x", "ONBUILD CMD y"], {"OnBuild": ["RUN x", "CMD y"]}),
        (["# nothing", ""], {}),
    ],
)
def test_what_they_do(lines: list[str], result: dict[str, Any]) -> None:
    assert applied(*lines) == result


def test_healthcheck() -> None:
    health = applied("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD curl x")["Healthcheck"]
    assert health["Test"] == ["CMD-SHELL", "curl x"]
    assert (health["Interval"], health["Timeout"], health["Retries"]) == (90 * 10**9, 5 * 10**8, 2)
    assert applied('HEALTHCHECK CMD ["a"]')["Healthcheck"]["Test"] == ["CMD", "a"]
    assert applied("HEALTHCHECK NONE")["Healthcheck"]["Test"] == ["NONE"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("NONSENSE x", "unknown instruction: NONSENSE"),
        ("RUN x", "RUN is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ENV a=b c", "can't find = in 'c'"),
        ("ENV a='b", "No closing quotation"),
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 9-8", "invalid containerPort"),
        ("EXPOSE 80/icmp", "invalid containerPort"),
        ("EXPOSE 65536", "invalid containerPort"),
        ("USER a b", "USER requires exactly one argument"),
        ("STOPSIGNAL no-signal!", "invalid signal"),
        ("ONBUILD ONBUILD RUN x", "isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK RUN x", "Unknown type 'RUN' in HEALTHCHECK"),
        ("HEALTHCHECK --interval=5 CMD x", "invalid duration for --interval"),
        ("HEALTHCHECK --what=5s CMD x", "unknown or bad flag"),
    ],
)
def test_what_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        applied(line)
