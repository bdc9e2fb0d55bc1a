"""What a container's labels and variables add to its log entries, and its tag."""

from __future__ import annotations

import re
from collections.abc import Callable

from corten.errors import InvalidArgument, clip
from corten.logs.types import LogFacts
from corten.specs import gotemplate
from corten.specs.gotemplate.values import Record

DEFAULT_TAG = "{{.ID}}"


_FIELDS: dict[str, Callable[[LogFacts], object]] = {
    "ID": lambda facts: facts.id[:12],
    "FullID": lambda facts: facts.id,
    "ContainerID": lambda facts: facts.id,
    "Name": lambda facts: facts.name,
    "ContainerName": lambda facts: "/" + facts.name,
    "ImageID": lambda facts: facts.image_id[:12],
    "ImageFullID": lambda facts: facts.image_id,
    "ContainerImageID": lambda facts: facts.image_id,
    "ImageName": lambda facts: facts.image_name,
    "ContainerImageName": lambda facts: facts.image_name,
    "ContainerCreated": lambda facts: facts.created,
    "ContainerEntrypoint": lambda facts: facts.argv[0] if facts.argv else "",
    "ContainerArgs": lambda facts: list(facts.argv[1:]),
    "ContainerEnv": lambda facts: list(facts.env),
    "ContainerLabels": lambda facts: dict(facts.labels),
    "Command": lambda facts: " ".join(facts.argv),
    "Config": lambda facts: dict(facts.options),
    "DaemonName": lambda facts: "docker",
    "Hostname": lambda facts: facts.hostname,
}


def expression(text: str) -> re.Pattern[str]:
    """Raises InvalidArgument."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgument(f"error parsing regexp: {error}: `{clip(text)}`") from None


def template(text: str) -> gotemplate.Template:
    """Raises InvalidArgument."""
    try:
        return gotemplate.parse(text)
    except gotemplate.TemplateError as error:
        raise _unfit(error) from None


def _unfit(error: Exception) -> InvalidArgument:
    text = str(error).replace("template: :", "template: log-tag:", 1).replace('executing ""', 'executing "log-tag"', 1)
    return InvalidArgument(f"failed to initialize logging driver: {clip(text)}")


def tag(facts: LogFacts, default: str) -> str:
    """The text of `--log-opt tag`, or of `default`. Raises InvalidArgument for a template that does not fit."""
    text = facts.options.get("tag") or default
    if "{{" not in text:
        return text
    try:
        return template(text).execute(Record("logger.Info", dict(_FIELDS), facts))
    except gotemplate.ExecError as error:
        raise _unfit(error) from None


def attributes(facts: LogFacts, rename: Callable[[str], str] = str) -> dict[str, str]:
    """Labels and variables that were asked for, under the names that `rename` makes of theirs."""
    options = facts.options
    env = dict(entry.split("=", 1) for entry in facts.env if "=" in entry)
    found: dict[str, str] = {}
    for option, source in (("labels", facts.labels), ("env", env)):
        for name in filter(None, options.get(option, "").split(",")):
            if name in source:
                found[rename(name)] = source[name]
        if options.get(f"{option}-regex"):
            pattern = expression(options[f"{option}-regex"])
            found |= {rename(name): value for name, value in source.items() if pattern.search(name)}
    return found
