"""The structures spell their keys as the schema does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corten.errors import InvalidArgument
from corten.specs import oci_runtime as oci

REFERENCE = Path(__file__).resolve().parents[4] / "shared/refs/oci"


def keys(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.skipif(not REFERENCE.exists(), reason="the schemas are not here")
def test_keys_are_the_schemas() -> None:
    config = json.loads((REFERENCE / "runtime-config-schema.json").read_text())["properties"]
    linux = json.loads((REFERENCE / "runtime-config-linux.json").read_text())["linux"]["properties"]
    resources = linux["resources"]["properties"]
    process = config["process"]["properties"]

    def of(schema: dict[str, Any], *without: str) -> set[str]:
        return set(schema) - set(without)

    assert keys(oci.Spec) == of(config)
    assert keys(oci.Process) == of(process)
    assert keys(oci.User) == of(process["user"]["properties"])
    assert keys(oci.Capabilities) == of(process["capabilities"]["properties"])
    assert keys(oci.IOPriority) == of(process["ioPriority"]["properties"])
    assert keys(oci.Scheduler) == of(process["scheduler"]["properties"])
    assert keys(oci.Hooks) == of(config["hooks"]["properties"])
    assert keys(oci.Linux) == of(linux)
    assert keys(oci.Resources) == of(resources)
    assert keys(oci.Memory) == of(resources["memory"]["properties"])
    assert keys(oci.CPU) == of(resources["cpu"]["properties"])
    assert keys(oci.BlockIO) == of(resources["blockIO"]["properties"])
    assert keys(oci.Seccomp) == of(linux["seccomp"]["properties"])
    assert keys(oci.IntelRdt) == of(linux["intelRdt"]["properties"])


def test_defaults_are_left_out_but_for_the_ids_of_the_user() -> None:
    spec = oci.Spec(oci_version=oci.VERSION, process=oci.Process(cwd="/", args=["true"]))
    assert json.loads(oci.encode(spec)) == {
        "ociVersion": "1.3.0",
        "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
    }
    assert json.loads(oci.encode(oci.User())) == {"uid": 0, "gid": 0}


def test_there_and_back() -> None:
    spec = oci.Spec(
        oci_version=oci.VERSION,
        process=oci.Process(
            cwd="/", args=["a"], no_new_privileges=True, io_priority=oci.IOPriority(class_="IOPRIO_CLASS_BE")
        ),
        linux=oci.Linux(resources=oci.Resources(memory=oci.Memory(disable_oom_killer=True), pids=oci.Pids(limit=0))),
    )
    assert oci.decode_spec(oci.encode(spec)) == spec


def test_unknown_keys_are_passed_over_and_wrong_ones_named() -> None:
    assert oci.decode_process(b'{"cwd": "/", "later": 1}').cwd == "/"
    with pytest.raises(InvalidArgument, match="cwd"):
        oci.decode_process(b"{}")
    with pytest.raises(InvalidArgument, match="JSON"):
        oci.decode_spec(b"{")
