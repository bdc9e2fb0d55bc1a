"""What may be said about a log, and what the shim is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from corten.errors import InvalidArgument
from corten.logs import attributes
from corten.logs.options import Files, merged, parse
from corten.logs.prepare import prepare
from corten.logs.types import LogFacts

FACTS = LogFacts(
    id="0123456789abcdef",
    name="web",
    image_id="sha256:feedbeef",
    image_name="busybox:latest",
    argv=["sh", "-c", "x"],
    env=["FOO=bar", "FOOD=a=b", "EMPTY="],
    labels={"a": "1", "com.example.b": "<2>"},
)


def facts(**options: str) -> LogFacts:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return LogFacts(
        FACTS.id, FACTS.name, FACTS.image_id, FACTS.image_name, "", FACTS.argv, FACTS.env, FACTS.labels, named
    )


def test_files_have_their_defaults_and_limits() -> None:
    assert parse("json-file", {}).files == Files(20_000_000, 5, False)
    assert parse("local", {}).files == Files(20_000_000, 5, True)
    assert parse("json-file", {"max-size": "10m", "max-file": "3", "compress": "true"}).files == Files(
        10_000_000, 3, True
    )
    assert parse("json-file", {"max-size": "1.5KiB"}).files == Files(1536, 5, False)
    assert parse("json-file", {"max-size": "-1"}).files == Files(0, 1, False)
    assert parse("local", {"max-file": "1"}).files == Files(20_000_000, 1, False)
    assert parse("local", {"compress": "0"}).files == Files(20_000_000, 5, False)


def test_what_sends_lines_away_is_cached() -> None:
    assert parse("journald", {}).files == Files(20_000_000, 5, True)
    cached = {"cache-max-size": "1k", "cache-max-file": "2", "cache-compress": "false"}
    assert parse("syslog", cached).files == Files(1000, 2, False)
    assert parse("syslog", {"cache-disabled": "T"}).files is None
    assert parse("none", {"whatever": "x"}).files is None


def test_modes() -> None:
    assert parse("json-file", {}).buffer == parse("json-file", {"mode": "blocking"}).buffer == -1
    assert parse("json-file", {"mode": "non-blocking"}).buffer == 1_000_000
    assert parse("local", {"mode": "non-blocking", "max-buffer-size": "4m"}).buffer == 4 << 20


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("json-file", {"max-size": "ten"}, "failed to initialize logging driver: invalid size: 'ten'"),
        ("json-file", {"max-size": "0"}, "failed to initialize logging driver: max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "failed to initialize logging driver: max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'logging driver: strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"colour": "red"}, "unknown log opt 'colour' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("syslog", {"max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
        ("journald", {"syslog-format": ""}, "unknown log opt 'syslog-format' for journald log driver"),
        ("syslog", {"cache-colour": ""}, "unknown log opt 'cache-colour' for syslog log driver"),
        ("syslog", {"cache-disabled": "perhaps"}, "invalid value for option cache-disabled: perhaps"),
        ("gelf", {}, 'error looking up logging plugin gelf: plugin "gelf" not found'),
        ("json-file", {"mode": "bogus"}, "logger: logging mode not supported: bogus"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("local", {"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size"),
        (
            "json-file",
            {"compress": "true", "max-file": "1"},
            "failed to initialize logging driver: compress cannot be true when max-file is less than 2 or max-size",
        ),
        ("json-file", {"compress": "perhaps"}, 'strconv.ParseBool: parsing "perhaps": invalid syntax'),
        ("json-file", {"labels-regex": "(a"}, "error parsing regexp"),
        ("json-file", {"tag": "{{.ID"}, "failed to initialize logging driver: template: log-tag:1"),
        ("syslog", {"syslog-address": "bogus"}, "unsupported scheme: ''"),
        ("syslog", {"syslog-address": "ftp://x"}, "unsupported scheme: 'ftp'"),
        ("syslog", {"syslog-address": "udp://x:1:2"}, 'parse "udp://x:1:2"'),
        ("syslog", {"syslog-address": "unixgram:///nowhere/at/all"}, "stat /nowhere/at/all: no such file or directory"),
        ("syslog", {"syslog-facility": "bogus"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "rfc9"}, "Invalid syslog format"),
    ],
)
def test_what_makes_no_sense_is_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(driver, options)
    assert words in str(caught.value)


def test_the_daemons_options_count_for_its_own_driver_and_its_caches_for_all() -> None:
    default = ("json-file", {"max-size": "1m", "max-file": "9", "cache-disabled": "true"})
    assert merged("json-file", {"max-file": "2"}, default) == {
        "max-size": "1m",
        "max-file": "2",
        "cache-disabled": "true",
    }
    assert merged("syslog", {"tag": "x"}, default) == {"tag": "x", "cache-disabled": "true"}


def test_labels_and_variables_are_chosen_by_name_and_by_pattern() -> None:
    chosen = attributes.attributes(facts(labels="a,nosuch", env_regex="^FOO", env="EMPTY"))
    assert chosen == {"a": "1", "EMPTY": "", "FOO": "bar", "FOOD": "a=b"}
    assert attributes.attributes(facts(labels_regex="example")) == {"com.example.b": "<2>"}
    assert attributes.attributes(facts()) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.ID}}/{{.FullID}}", "0123456789ab/0123456789abcdef"),
        ("{{.Name}}@{{.ImageName}}", "web@busybox:latest"),
        ("{{.ImageID}} {{.ImageFullID}}", "sha256:feedb sha256:feedbeef"),
        ("{{.DaemonName}} {{.Command}}", "docker sh -c x"),
        ('{{index .ContainerLabels "a"}} {{upper .Name}}', "1 WEB"),
    ],
)
def test_a_tag_is_a_template(text: str, expected: str) -> None:
    assert attributes.tag(facts(tag=text), "") == expected


def test_a_tag_of_what_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"failed to initialize logging driver: template: log-tag:1:2: executing"):
        attributes.tag(facts(tag="{{.Nosuch}}"), "")


def test_the_shim_is_told_no_more_than_it_needs() -> None:
    assert prepare("json-file", Path("/l"), facts()) == ("json-file", "/l", 20_000_000, 5, {})
    assert prepare("none", None, facts()) == ("none", "", 0, 1, {})


def test_attributes_are_json_as_go_writes_it() -> None:
    *_, more = prepare("json-file", Path("/l"), facts(labels_regex=".", tag="{{.Name}}"))
    assert more == {"attributes": b'{"a":"1","com.example.b":"\\u003c2\\u003e","tag":"web"}'}


def test_a_journal_entry_has_its_containers_fields() -> None:
    driver, path, _, _, more = prepare("journald", Path("/cache"), facts(labels="com.example.b", env="FOO"))
    assert (driver, path, more["compress"]) == ("journald", "/cache", True)
    assert more["remote"]["fields"] == {
        "CONTAINER_ID": "0123456789ab",
        "CONTAINER_ID_FULL": "0123456789abcdef",
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": "0123456789ab",
        "IMAGE_NAME": "busybox:latest",
        "SYSLOG_IDENTIFIER": "0123456789ab",
        "COM_EXAMPLE_B": "<2>",
        "FOO": "bar",
    }


def test_syslog_settings() -> None:
    options = facts(syslog_address="tcp+tls://[::1]:6514", syslog_facility="local3", syslog_tls_skip_verify="")
    *_, more = prepare("syslog", Path("/cache"), options)
    remote = more["remote"]
    assert (remote["network"], remote["address"]) == ("tcp+tls", ("::1", 6514))
    assert (remote["facility"], remote["tag"], remote["tls"]["skip_verify"]) == (19, "0123456789ab", True)
    *_, more = prepare("syslog", None, facts(syslog_address="udp://host", syslog_facility="7"))
    assert (more["remote"]["address"], more["remote"]["facility"]) == (("host", 514), 7)
    *_, more = prepare("syslog", None, facts(cache_disabled="true"))
    assert (more["remote"]["network"], more["remote"]["facility"]) == ("", 3)
