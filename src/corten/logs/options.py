"""What users may say about a log: `--log-driver` and `--log-opt`.

Refusals are in Docker's words where it has some. What Docker finds at the start of a container only is found here
when it is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corten.errors import InvalidArgument, clip

DEFAULT_MAX_SIZE = 20 * 1000 * 1000  # bytes
DEFAULT_MAX_FILES = 5
DEFAULT_BUFFER = 1_000_000  # bytes of a non-blocking log, as in Docker

_POWERS = {"": 0, "b": 0} | {f"{unit}{end}": power for power, unit in enumerate("kmg", 1) for end in ("", "b", "ib")}
ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
_FAILED = "failed to initialize logging driver: "
_FILES = ("max-size", "max-file", "compress")
_SYSLOG = tuple(
    f"syslog-{name}"
    for name in ("address", "facility", "format", "tls-ca-cert", "tls-cert", "tls-key", "tls-skip-verify")
)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "json-file": (*_FILES, *ATTRIBUTES),
    "local": _FILES,
    "syslog": (*_SYSLOG, *ATTRIBUTES),
    "journald": ATTRIBUTES,
}
DRIVERS = tuple(_OPTIONS)  # "none" is the absence of one
_COMMON = ("mode", "max-buffer-size")  # for every driver; and what begins with _CACHE
_CACHE = "cache-"
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class Files:
    """Limits of a log that is kept. `max_size` in bytes, 0 for no limit; `max_files` counts the live file."""

    max_size: int = DEFAULT_MAX_SIZE
    max_files: int = DEFAULT_MAX_FILES
    compress: bool = False


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`files` are the driver's own, or of the cache that `logs` reads in their place; None: nothing is kept.

    `buffer` in bytes is how far a container may be ahead of a non-blocking log; -1 for a blocking one.
    """

    driver: str
    files: Files | None
    buffer: int = -1


def merged(driver: str, options: Mapping[str, str], default: tuple[str, Mapping[str, str]]) -> dict[str, str]:
    """The options of a container: the daemon's (`default`) count if the driver is the same; those of caches always."""
    name, general = default
    taken = {key: value for key, value in general.items() if driver == name or key.startswith(_CACHE)}
    return {**taken, **options}


def parse(driver: str, options: Mapping[str, str]) -> LogSettings:
    """Check a driver and its options. Raises InvalidArgument."""
    if driver == "none":
        return LogSettings("none", None)  # whatever is said about it
    if driver not in _OPTIONS:
        name = clip(driver)
        raise InvalidArgument(f'error looking up logging plugin {name}: plugin "{name}" not found')
    buffer = _buffer(options)
    cache = {key.removeprefix(_CACHE): value for key, value in options.items() if key.startswith(_CACHE)}
    cached = not _boolean("cache-disabled", cache.pop("disabled", ""), "invalid value for option {}: {}")
    own = {key: value for key, value in options.items() if key not in _COMMON and not key.startswith(_CACHE)}
    _check_names(driver, own, cache)
    _check_texts(driver, own)
    if driver in ("json-file", "local"):
        return LogSettings(driver, _files(own, compress=driver == "local"), buffer)
    return LogSettings(driver, _files(cache, compress=True) if cached else None, buffer)


def _check_names(driver: str, own: Mapping[str, str], cache: Mapping[str, str]) -> None:
    for name in own:
        if name not in _OPTIONS[driver]:
            words = "for log driver local" if driver == "local" else f"for {driver} log driver"
            raise InvalidArgument(f"unknown log opt '{clip(name)}' {words}")
    for name in cache:
        if name not in _FILES:
            raise InvalidArgument(f"unknown log opt '{_CACHE}{clip(name)}' for {driver} log driver")


def _check_texts(driver: str, own: Mapping[str, str]) -> None:
    """What others than this module make something of: checked now, used when the container is started."""
    if any(name in own for name in ATTRIBUTES):
        from corten.logs import attributes  # templates and patterns: rarely asked for

        for name in ("labels-regex", "env-regex"):
            if own.get(name):
                attributes.expression(own[name])
        if own.get("tag"):
            attributes.template(own["tag"])
    if driver == "syslog":
        from corten.logs import syslogopts

        syslogopts.remote(own, "")


def _buffer(options: Mapping[str, str]) -> int:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {clip(mode)}")
    if "max-buffer-size" in options and mode != "non-blocking":
        raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    if mode != "non-blocking":
        return -1
    if "max-buffer-size" not in options:
        return DEFAULT_BUFFER
    size = _bytes(options["max-buffer-size"], 1024)
    if size < 0:
        text = clip(options["max-buffer-size"])
        raise InvalidArgument(f"error parsing option max-buffer-size: invalid size: '{text}'")
    return size


def _files(options: Mapping[str, str], *, compress: bool) -> Files:
    size, files = DEFAULT_MAX_SIZE, DEFAULT_MAX_FILES
    if "max-size" in options:
        text = options["max-size"]
        size = 0 if text.strip() == "-1" else _bytes(text, 1000)
        if size < 0:
            raise InvalidArgument(f"{_FAILED}invalid size: '{clip(text)}'")
        if size == 0 and text.strip() != "-1":
            raise InvalidArgument(f"{_FAILED}max-size must be a positive number")
    if "max-file" in options:
        files = _count(options["max-file"])
    if options.get("compress"):
        compress = _boolean(
            "compress", options["compress"], _FAILED + 'strconv.ParseBool: parsing "{1}": invalid syntax'
        )
        if compress and (files < 2 or size == 0):
            raise InvalidArgument(
                _FAILED + "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
    if size == 0:
        files = 1  # without a limit nothing is ever rotated
    return Files(size, files, compress and files > 1)


def _boolean(name: str, text: str, words: str) -> bool:
    """As Go reads one. Nothing is false."""
    if text and text not in _TRUE + _FALSE:
        raise InvalidArgument(words.format(name, clip(text)))
    return text in _TRUE


def _bytes(text: str, kilo: int) -> int:
    """A size with a unit, of which k, m and g without "i" count in powers of `kilo`; -1 for what is none."""
    word = text.strip().lower()
    digits = word.rstrip("bkmgi")
    unit = word[len(digits) :].strip()
    base = 1024 if "i" in unit else kilo
    try:
        return max(-1, round(float(digits) * float(base) ** _POWERS[unit]))
    except (KeyError, ValueError, OverflowError):
        return -1


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise InvalidArgument(f'{_FAILED}strconv.Atoi: parsing "{clip(text)}": invalid syntax') from None
    if count < 1:
        raise InvalidArgument(f"{_FAILED}max-file cannot be less than 1")
    return count
