"""What `docker events` tells and leaves out, with the real docker command."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.compat.harness import Daemon


def told(daemon: Daemon, since: float, *filters: str) -> list[dict[str, Any]]:
    chosen = [word for text in filters for word in ("--filter", text)]
    past = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
    return [json.loads(line) for line in daemon.ok("events", *past, *chosen, "--format", "json").splitlines()]


def actions(daemon: Daemon, since: float, *filters: str) -> list[str]:
    return [f"{event['Type']} {event['Action']}" for event in told(daemon, since, *filters)]


def test_filters_of_a_kind_add_up_and_kinds_narrow(daemon: Daemon) -> None:
    since = time.time()
    for name in ("fish-a", "fish-b", "bird"):
        daemon.ok("create", "--name", name, "-l", f"is={name[:4]}", "busybox")

    def names(*filters: str) -> list[str]:
        return [event["Actor"]["Attributes"]["name"] for event in told(daemon, since, "event=create", *filters)]

    assert names("container=fish") == ["fish-a", "fish-b"]
    assert names("container=fish-b", "container=bird") == ["fish-b", "bird"]
    assert names("container=fish", "label=is=bird") == names("container=fish", "image=other") == []
    assert names("container=fish", "image=busybox") == ["fish-a", "fish-b"]
    id = daemon.ok("inspect", "-f", "{{.Id}}", "bird")
    assert names(f"container={id[:10]}") == ["bird"]
    assert names("container=ish") == []
    daemon.ok("rename", "bird", "fish-c")
    renamed = told(daemon, since, "container=fish-c")
    assert [(event["Action"], event["Actor"]["Attributes"]["oldName"]) for event in renamed] == [("rename", "/bird")]


def test_top_is_told_once_it_has_worked(daemon: Daemon) -> None:
    since = time.time()
    daemon.ok("run", "-d", "--name", "busy", "busybox", "sleep", "100")
    refused = daemon.docker("top", "busy", "--no-such-option")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
    assert "unknown gnu long option" in refused.err
    daemon.ok("top", "busy")
    (event,) = told(daemon, since, "event=top")
    assert event["Actor"]["Attributes"] == {"image": "busybox", "name": "busy"}


def test_images_are_told_with_their_labels(daemon: Daemon) -> None:
    since = time.time()
    daemon.ok("create", "--name", "base", "busybox")
    id = daemon.ok("commit", "-c", "LABEL stage=test", "base", "made:1")
    daemon.ok("tag", "made:1", "made:2")
    daemon.ok("rmi", "made:1", "made:2")
    events = told(daemon, since, "type=image", "label=stage=test")
    assert [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in events] == [
        ("create", id),
        ("tag", "made:1"),
        ("tag", "made:2"),
        ("untag", "made:1"),
        ("untag", "made:2"),
        ("delete", id),
    ]
    assert actions(daemon, since, "image=made:1") == ["image tag", "image untag"]
    assert "container commit" in actions(daemon, since, "container=base")
