"""`corten pull`, `corten push`, and the pull that `run` does for an image that is not here."""

from __future__ import annotations

import sys

from corten.cli import progress
from corten.cli.context import Context, say
from corten.cli.credentials import auth_for
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.foreign import refuse_trust
from corten.cli.terminal import is_terminal
from corten.client.images import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TextIO


def familiar(reference: str) -> str:
    """`reference` with the default tag where it has none: what messages call it."""
    _, tag = split_tag(reference)
    return reference if tag else f"{reference}:latest"


def canonical(reference: str) -> str:
    """With the registry and the namespace that are implied: docker.io/library/busybox:latest."""
    first, slash, rest = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    if "." in first or ":" in first or first == "localhost":
        return f"docker.io/{rest}" if first == "index.docker.io" else reference
    return f"docker.io/{reference}"


def check_reference(reference: str) -> None:
    """Raises CliError for what cannot be a reference; the daemon judges the rest."""
    name, tag = split_tag(reference)
    if not name or reference.endswith(":") or any(character.isspace() for character in reference):
        raise CliError("invalid reference format")
    path = name.rpartition(":")[2] if "/" not in name else name.partition("/")[2] or name
    if any(character.isupper() for character in path) and not tag.startswith("sha256:"):
        raise CliError(f"invalid reference format: repository name ({canonical(name)[10:]}) must be lowercase")


def pull_image(context: Context, reference: str, out: TextIO, *, platform: str, quiet: bool) -> None:
    """Pulls `reference`, its progress drawn on `out`."""
    name, tag = split_tag(familiar(reference))
    messages = context.client.images.pull(name, tag, platform=platform, auth=auth_for(reference, context.config))
    _follow(messages, out, quiet=quiet)


def _follow(messages: Iterable[dict[str, Any]], out: TextIO, *, quiet: bool) -> None:
    if quiet:
        for _ in messages:
            pass
    else:
        progress.show(messages, out, terminal=is_terminal(2 if out is sys.stderr else 1))


def _pull(context: Context, options: Options) -> None:
    refuse_trust(options)
    reference = options.args[0]
    check_reference(reference)
    name, tag = split_tag(reference)
    if options["all-tags"]:
        if tag:
            raise CliError("tag can't be used with --all-tags/-a")
        messages = context.client.images.pull(
            name, platform=options["platform"], auth=auth_for(reference, context.config)
        )
        _follow(messages, sys.stdout, quiet=options["quiet"])
    else:
        if not tag and not options["quiet"]:
            say("Using default tag: latest")
        pull_image(context, reference, sys.stdout, platform=options["platform"], quiet=options["quiet"])
    full = canonical(familiar(reference) if not options["all-tags"] else reference)
    say(full)


def _push(context: Context, options: Options) -> None:
    refuse_trust(options)
    reference = options.args[0]
    check_reference(reference)
    name, tag = split_tag(reference)
    if options["all-tags"]:
        if tag:
            raise CliError("tag can't be used with --all-tags/-a")
    elif not tag:
        tag = "latest"
        if not options["quiet"]:
            say("Using default tag: latest")
    messages = context.client.images.push(
        name, tag, platform=options["platform"], auth=auth_for(reference, context.config)
    )
    if options["quiet"]:
        for _ in messages:
            pass
        say(canonical(f"{name}:{tag}" if tag else name))
        return
    notes: list[str] = []
    try:
        progress.show(_noted(messages, notes), sys.stdout, terminal=is_terminal(1))
    finally:
        for note in notes:
            say(f"\nInfo: {note}")


def _noted(messages: Iterable[dict[str, Any]], notes: list[str]) -> Iterator[dict[str, Any]]:
    """`messages`; what users should know of a push that was not all that its name stands for goes to `notes`."""
    for message in messages:
        aux = message.get("aux") or {}
        if aux.get("manifestPushedInsteadOfIndex"):
            both = f"{aux['originalIndex']['digest']} -> {aux['selectedManifest']['digest']}"
            notes.append(f"{_ONE_OF_MANY}\n{both}")
        if aux.get("contentMissing"):
            notes.append(_MISSING)
        yield message


_ONE_OF_MANY = "Not all multiplatform-content is present and only the available single-platform image was pushed"
_MISSING = """\
The index that you are pushing lists platforms that are neither here nor at the registry.
Pull or load them and try again, or push a single one with --platform."""
_COMMON = (
    Flag("disable-content-trust", "", "bool", default=True),
    Flag("platform", "", "string", "Platform to take, where the image has several"),
)

PULL = Command(
    "image pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    _pull,
    (
        Flag("all-tags", "a", "bool", "Download all tags of the repository"),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
        *_COMMON,
    ),
    least=1,
    most=1,
)
PUSH = Command(
    "image push",
    "[OPTIONS] NAME[:TAG]",
    _push,
    (
        Flag("all-tags", "a", "bool", "Push all tags of the repository"),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
        *_COMMON,
    ),
    least=1,
    most=1,
)
