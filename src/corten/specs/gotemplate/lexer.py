"""Text to tokens: literal text, and inside `{{ }}` the words of an action.

Spaces are tokens, because `.A .B` and `.A.B` differ. Every character of the source is in exactly one token or in
white space that a trim marker (`{{- `, ` -}}`) removed; the property test holds the lexer to that.
"""

from __future__ import annotations

import re

from corten.specs.gotemplate.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

TEXT, OPEN, CLOSE, SPACE, FIELD, VARIABLE, WORD, NUMBER, STRING, RAW, CHAR, OPERATOR, DOT, EOF = range(14)
KEYWORDS = frozenset("if else end range with break continue define template block".split())
_SPACES = " \t\r\n"

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)(?!\w))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<variable>\$\w*)
    |(?P<word>[^\W\d]\w*)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\[^\n]+?)')
    |(?P<operator>:=|[=|,()])
    |(?P<dot>\.)""",
    re.VERBOSE,
)
_KINDS = {
    "space": SPACE,
    "number": NUMBER,
    "field": FIELD,
    "variable": VARIABLE,
    "word": WORD,
    "string": STRING,
    "raw": RAW,
    "char": CHAR,
    "operator": OPERATOR,
    "dot": DOT,
}


class Token:
    """`at` is the offset of its first character in the source."""

    __slots__ = ("at", "kind", "text")

    def __init__(self, kind: int, text: str, at: int) -> None:
        self.kind, self.text, self.at = kind, text, at

    def __repr__(self) -> str:
        return f"Token({self.kind}, {self.text!r}, {self.at})"


def tokens(source: str) -> Iterator[Token]:
    """All tokens of `source`, EOF last. Raises TemplateError."""
    at, trim = 0, False
    while True:
        opening = source.find("{{", at)
        text = source[at:] if opening < 0 else source[at:opening]
        start = at
        if trim:
            stripped = text.lstrip(_SPACES)
            start, text = at + len(text) - len(stripped), stripped
        inside = opening + 2
        if opening >= 0 and source.startswith("-", inside) and source[inside + 1 : inside + 2] in tuple(_SPACES):
            text = text.rstrip(_SPACES)
            inside += 2
        if text:
            yield Token(TEXT, text, start)
        if opening < 0:
            yield Token(EOF, "", len(source))
            return
        comment = _comment_end(source, inside)
        if comment is not None:
            at, trim = comment
            continue
        yield Token(OPEN, "{{", opening)
        at, trim = yield from _action(source, inside, opening)


def line_of(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def _comment_end(source: str, at: int) -> tuple[int, bool] | None:
    """Where a comment that begins at `at` ends, with its trim marker; None when there is no comment."""
    if not source.startswith("/*", at):
        return None
    end = source.find("*/", at)
    if end < 0:
        raise TemplateError(line_of(source, at), "unclosed comment")
    match = re.compile(r"([ \t\r\n]-)?\}\}").match(source, end + 2)
    if not match:
        raise TemplateError(line_of(source, at), "comment ends before closing delimiter")
    return match.end(), match.group(1) is not None


def _action(source: str, at: int, opening: int) -> Generator[Token, None, tuple[int, bool]]:
    """The tokens of one action. Returns where it ends, and whether it trims what follows."""
    depth = 0
    while True:
        trim = source.startswith("-}}", at + 1) and source[at : at + 1] in tuple(_SPACES)
        if trim or source.startswith("}}", at):
            if depth:
                raise TemplateError(line_of(source, at), "unclosed left paren")
            yield Token(CLOSE, "}}", at)
            return at + (4 if trim else 2), trim
        if at >= len(source):
            raise TemplateError(line_of(source, opening), "unclosed action")
        match = _TOKEN.match(source, at)
        if match is None:
            raise _bad(source, at)
        kind = _KINDS[match.lastgroup or ""]
        text = match.group()
        if kind == SPACE and _trims(source, match.end()):
            text = text[:-1]  # its last character belongs to the trim marker
            if not text:
                raise AssertionError("the marker was tested for above")
        depth += (text == "(") - (text == ")")
        if depth < 0:
            raise TemplateError(line_of(source, at), "unexpected right paren")
        yield Token(kind, text, at)
        at += len(text)


def _trims(source: str, at: int) -> bool:
    return source.startswith("-}}", at)


def _bad(source: str, at: int) -> TemplateError:
    character = source[at]
    line = line_of(source, at)
    if character == '"':
        return TemplateError(line, "unterminated quoted string")
    if character == "`":
        return TemplateError(line, "unterminated raw quoted string")
    if character == "'":
        return TemplateError(line, "unterminated character constant")
    if character.isdigit() or character in "+-.":
        return TemplateError(line, f"bad number syntax: {_go_quote(source[at : at + 2])}")
    return TemplateError(line, f"unrecognized character in action: U+{ord(character):04X} {character!r}")


def _go_quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
