"""Tokens to a tree, by recursive descent."""

from __future__ import annotations

from corten.specs.gotemplate import lexer, nodes
from corten.specs.gotemplate.errors import TemplateError
from corten.specs.gotemplate.literals import unquote, unquote_char

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from corten.specs.gotemplate.lexer import Token

_CONSTANTS = {"true": True, "false": False}


class Parser:
    """`functions` are the names that may be called; anything else is "function … not defined", as Go says it."""

    def __init__(self, source: str, functions: Container[str]) -> None:
        self._source, self._functions = source, functions
        self._tokens = list(lexer.tokens(source))
        self._index = 0
        self._scope = ["$"]
        self._loops = 0

    def parse(self) -> list[nodes.Node]:
        body, end = self._body()
        if end:
            raise self._error(f"unexpected {{{{{end}}}}}")
        return body

    # Tokens.

    def _peek(self) -> Token:
        return self._tokens[self._index]

    def _next(self) -> Token:
        token = self._tokens[self._index]
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def _peek_word(self) -> Token:
        while self._peek().kind == lexer.SPACE:
            self._next()
        return self._peek()

    def _next_word(self) -> Token:
        self._peek_word()
        return self._next()

    def _error(self, message: str, token: Token | None = None) -> TemplateError:
        return TemplateError(lexer.line_of(self._source, (token or self._peek()).at), message)

    def _unexpected(self, token: Token, where: str) -> TemplateError:
        text = "EOF" if token.kind == lexer.EOF else f'"{token.text}"'
        if token.kind in (lexer.WORD, lexer.FIELD, lexer.VARIABLE, lexer.CLOSE):
            text = f"<{token.text}>" if token.kind == lexer.WORD else text
        return self._error(f"unexpected {text} in {where}", token)

    # Statements.

    def _body(self) -> tuple[list[nodes.Node], str]:
        """Nodes up to `{{end}}`, `{{else…` (named in the result, read up to after the word) or the end of the text."""
        body: list[nodes.Node] = []
        while True:
            token = self._next()
            if token.kind == lexer.EOF:
                return body, ""
            if token.kind == lexer.TEXT:
                body.append(nodes.Text(token.at, token.text))
                continue
            word = self._peek_word()
            if word.kind == lexer.WORD and word.text in lexer.KEYWORDS:
                self._next()
                if word.text in ("end", "else"):
                    return body, word.text
                body.append(self._statement(word))
            else:
                pipeline = self._pipeline("command")
                self._close("command")
                body.append(nodes.Action(pipeline.at, pipeline))

    def _close(self, where: str) -> None:
        token = self._next_word()
        if token.kind != lexer.CLOSE:
            raise self._unexpected(token, where)

    def _statement(self, word: Token) -> nodes.Node:
        if word.text in ("if", "range", "with"):
            return self._branch(word)
        if word.text in ("break", "continue"):
            if not self._loops:
                raise self._error(f"{{{{{word.text}}}}} outside {{{{range}}}}", word)
            self._close(f"{{{{{word.text}}}}}")
            return nodes.Jump(word.at, word.text)
        raise self._error(f"{word.text} is not supported in a format", word)

    def _branch(self, word: Token) -> nodes.Branch:
        scope = len(self._scope)
        pipeline = self._pipeline(word.text)
        self._close(word.text)
        self._loops += word.text == "range"
        body, end = self._body()
        self._loops -= word.text == "range"
        otherwise: list[nodes.Node] = []
        if end == "else":
            otherwise, end = self._otherwise(word)
        if not end:
            raise self._error("unexpected EOF")
        if end != "chained":  # `{{else if}}` has read the one `{{end}}` that closes both
            self._close("end")
        del self._scope[scope:]
        return nodes.Branch(word.at, word.text, pipeline, body, otherwise)

    def _otherwise(self, word: Token) -> tuple[list[nodes.Node], str]:
        after = self._peek_word()
        if after.kind == lexer.WORD and after.text == word.text and word.text in ("if", "with"):
            self._next()
            return [self._branch(after)], "chained"
        self._close("else")
        return self._body()

    # Pipelines.

    def _pipeline(self, where: str) -> nodes.Pipeline:
        start = self._peek_word()
        variables, declares = self._assignment(where)
        commands: list[nodes.Command] = []
        while True:
            token = self._peek_word()
            if token.kind == lexer.CLOSE or token.text == ")":
                break
            if token.text == "|" and token.kind == lexer.OPERATOR:
                if not commands:
                    raise self._unexpected(token, where)
                self._next()
                if self._peek_word().kind == lexer.CLOSE:
                    raise self._error(f"missing value for {where}")
            commands.append(self._command(where))
        if not commands:
            raise self._error(f"missing value for {where}")
        for command in commands[1:]:
            if isinstance(command.words[0], nodes.Literal | nodes.Dot | nodes.Nil):
                number = commands.index(command) + 1
                raise self._error(f"non executable command in pipeline stage {number}")
        return nodes.Pipeline(start.at, commands, variables, declares)

    def _assignment(self, where: str) -> tuple[list[str], bool]:
        """`$x :=`, `$x =`, and for range `$i, $x :=`; nothing consumed when it is none."""
        mark, names = self._index, []
        while self._peek_word().kind == lexer.VARIABLE:
            name = self._next().text
            names.append(name)
            token = self._peek_word()
            if token.text == "," and where == "range" and len(names) == 1:
                self._next()
                continue
            if token.kind == lexer.OPERATOR and token.text in (":=", "="):
                self._next()
                if token.text == "=":
                    self._known(names, token)
                else:
                    self._scope.extend(names)
                return names, token.text == ":="
            break
        self._index = mark
        return [], False

    def _known(self, names: list[str], token: Token) -> None:
        for name in names:
            if name not in self._scope:
                raise self._error(f'undefined variable "{name}"', token)

    def _command(self, where: str) -> nodes.Command:
        start = self._peek_word()
        words: list[nodes.Node] = []
        while True:
            token = self._peek_word()
            if token.kind == lexer.CLOSE or (token.kind == lexer.OPERATOR and token.text in ("|", ")")):
                break
            words.append(self._operand(where))
            after = self._peek()
            if after.kind not in (lexer.SPACE, lexer.CLOSE) and after.text not in ("|", ")"):
                raise self._unexpected(after, "operand")
        if not words:
            raise self._error("empty command")
        return nodes.Command(start.at, words)

    def _operand(self, where: str) -> nodes.Node:
        term = self._term(where)
        first = self._peek()
        names = []
        while self._peek().kind == lexer.FIELD:
            names.append(self._next().text[1:])
        if not names:
            return term
        if isinstance(term, nodes.Field):
            return nodes.Field(first.at, term.names + names)
        if isinstance(term, nodes.Variable):
            return nodes.Variable(first.at, term.name, term.names + names)
        if isinstance(term, nodes.Pipeline):
            return nodes.Chain(first.at, term, names)
        raise self._error(f"unexpected . after term {str(term)!r}", first)

    def _term(self, where: str) -> nodes.Node:
        token = self._next_word()
        if token.kind == lexer.WORD:
            return self._name(token)
        if token.kind == lexer.FIELD:
            return nodes.Field(token.at, [token.text[1:]])
        if token.kind == lexer.DOT:
            return nodes.Dot(token.at)
        if token.kind == lexer.VARIABLE:
            self._known([token.text], token)
            return nodes.Variable(token.at, token.text, [])
        if token.text == "(":
            inner = self._pipeline("parenthesized pipeline")
            closing = self._next_word()
            if closing.text != ")":
                raise self._unexpected(closing, where)
            return inner
        return self._constant(token, where)

    def _name(self, token: Token) -> nodes.Node:
        if token.text in _CONSTANTS:
            return nodes.Literal(token.at, _CONSTANTS[token.text], token.text)
        if token.text == "nil":
            return nodes.Nil(token.at)
        if token.text not in self._functions:
            raise self._error(f'function "{token.text}" not defined', token)
        return nodes.Function(token.at, token.text)

    def _constant(self, token: Token, where: str) -> nodes.Node:
        if token.kind == lexer.NUMBER:
            return nodes.Literal(token.at, self._number(token), token.text)
        if token.kind == lexer.STRING:
            value = unquote(token.text)
            if value is None:
                raise self._error(f"invalid syntax in {token.text}", token)
            return nodes.Literal(token.at, value, token.text)
        if token.kind == lexer.RAW:
            return nodes.Literal(token.at, token.text[1:-1], token.text)
        if token.kind == lexer.CHAR:
            code = unquote_char(token.text)
            if code is None:
                raise self._error(f"malformed character constant: {token.text}", token)
            return nodes.Literal(token.at, code, token.text)
        raise self._unexpected(token, where)

    def _number(self, token: Token) -> int | float:
        text = token.text
        try:
            digits = text.lstrip("+-")
            if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
                return int(text, 8)
            return int(text, 0)
        except ValueError:
            try:
                return float(text)
            except ValueError:
                raise self._error(f'bad number syntax: "{text}"', token) from None
