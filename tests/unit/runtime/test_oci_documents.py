"""What `spec` and `features` print, and how states follow each other."""

from __future__ import annotations

import msgspec
import pytest

from corten.errors import IllegalTransition, InvalidArgument
from corten.runtime.mount_options import MountOptions, parse
from corten.runtime.oci import documents
from corten.runtime.oci.operations import signal_number
from corten.runtime.plan import compile_launch
from corten.runtime.states import Exited, Forgotten, Paused, Running, Starting, advance
from corten.runtime.types import ExitStatus, LaunchRequest
from corten.specs.oci_runtime import Hooks, decode_spec, encode


def test_the_default_specification_can_be_run(tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's Path
    spec = decode_spec(encode(documents.default_spec()))
    assert compile_launch(LaunchRequest("x", spec, tmp_path, tmp_path / "exit", ())).steps


def test_the_mount_options_that_are_told_are_known() -> None:
    known = MountOptions()
    for word in documents.features()["mountOptions"]:
        options = parse([word])
        assert options.data == known.data, f"{word} is passed on to the file system"


def test_the_kinds_of_namespaces_that_are_told() -> None:
    linux = documents.features()["linux"]
    assert linux["namespaces"] == ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
    assert linux["mountExtensions"] == {"idmap": {"enabled": True}}


def test_the_features_tell_of_memory_policies_and_links() -> None:
    linux = documents.features()["linux"]
    assert "MPOL_WEIGHTED_INTERLEAVE" in linux["memoryPolicy"]["modes"]
    assert "MPOL_F_STATIC_NODES" in linux["memoryPolicy"]["flags"]
    assert (linux["netDevices"], linux["intelRdt"]) == ({"enabled": True}, {"enabled": False})


def test_signals_have_names_and_numbers() -> None:
    assert [signal_number(text) for text in ("TERM", "sigterm", "15", "KILL")] == [15, 15, 15, 9]
    for text in ("", "0", "999", "NOSUCH", "-9"):
        with pytest.raises(InvalidArgument):
            signal_number(text)


def test_a_life_goes_one_way() -> None:
    exited = Exited(ExitStatus(0, 1))
    state = advance("c", Starting(), Running(1, 2))
    for target in (Paused(1, 2), Running(1, 2), exited, Forgotten()):
        state = advance("c", state, target)
    for source, target in ((exited, Running(1, 2)), (Forgotten(), exited), (Paused(1, 2), Paused(1, 2))):
        with pytest.raises(IllegalTransition) as caught:
            advance("c", source, target)
        assert caught.value.target == type(target).__name__.lower()


def test_features_tell_of_hooks_and_seccomp() -> None:
    told = documents.features()
    assert set(told["hooks"]) == {field.encode_name for field in msgspec.structs.fields(Hooks)}
    seccomp = told["linux"]["seccomp"]
    assert (len(seccomp["actions"]), len(seccomp["operators"]), len(seccomp["archs"])) == (9, 7, 23)
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["supportedFlags"]
