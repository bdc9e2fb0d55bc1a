"""Templates against what Go's text/template gives, checked with the docker command line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.specs.gotemplate import ExecError, TemplateError, parse
from corten.specs.gotemplate.lexer import CLOSE, EOF, OPEN, TEXT, tokens
from corten.specs.gotemplate.literals import quote, unquote
from corten.specs.gotemplate.values import NIL, GoStruct, Record, show_float

DATA: dict[str, Any] = {
    "Name": "web",
    "N": 3,
    "F": 1.5,
    "Yes": True,
    "Nil": None,
    "L": ["a", "b", "c"],
    "Empty": [],
    "M": {"k": "v", "a": "z"},
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
    "S": GoStruct({"A": 1, "B": "x"}),
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .Name }}:{{.N}}", "web:3"),
        ("{{.M.k}} {{.S.B}}", "v x"),
        ("{{.M}} {{.L}} {{.S}} {{.F}} {{.Yes}} {{.Nil}}", "map[a:z k:v] [a b c] {1 x} 1.5 true <no value>"),
        ("{{.Missing}}", "<no value>"),
        ("a {{- .N -}} b", "a3b"),
        ("a {{/* c */}} b{{- /* c */ -}} c", "a  bc"),
        ("{{`raw`}}{{'a'}}{{0x10}}{{-3}}{{1.5e3}}{{010}}", "raw9716-315008"),
        ('{{"q\\"\\t\\u00e9\\x41"}}', 'q"\té' + "A"),
        ("{{if .Yes}}y{{else}}n{{end}}", "y"),
        ("{{if .Empty}}y{{else if eq .N 3}}three{{else}}n{{end}}", "three"),
        ("{{if and .Yes (not .Nil) (or .Nil .N)}}ok{{end}}", "ok"),
        ("{{with .M}}{{.k}}{{$.Name}}{{else}}none{{end}}", "vweb"),
        ("{{with .Nil}}x{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{range .L}}<{{.}}>{{end}}", "<a><b><c>"),
        ("{{range $i, $e := .L}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b,c"),
        ("{{range $k, $v := .M}}{{$k}}={{$v}} {{end}}", "a=z k=v "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ('{{range .L}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "ac"),
        ('{{range .L}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{$x := 1}}{{range .L}}{{$x = len $.L}}{{end}}{{$x}}", "3"),
        ("{{$x := .M}}{{$x.k}}{{if true}}{{$x := 2}}{{$x}}{{end}}", "v2"),
        ('{{index .Ports "80/tcp"}}', "[map[HostIp:0.0.0.0 HostPort:8080]]"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .L 1}}{{index .M "nope"}}', "b<no value>"),
        ("{{slice .Name 1}} {{slice .Name 0 2}} {{slice .L 1 3}}", "eb we [b c]"),
        ("{{len .L}} {{len .Name}} {{len .M}}", "3 3 2"),
        (
            '{{eq .N 1 2 3}} {{ne .N 3}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1.5 2.5}}',
            "true false true true true false",
        ),
        ('{{print 1 2 "x" 3}}|{{println "a" 1}}', "1 2x3|a 1\n"),
        (
            '{{printf "%s-%d|%5s|%-5s|%05d|%q|%v|%t|%x|%.2f|%%" .Name .N "r" "l" 42 "q" .L true 255 .F}}',
            'web-3|    r|l    |00042|"q"|[a b c]|true|ff|1.50|%',
        ),
        ('{{printf "%d" "x"}} {{printf "%s"}} {{printf "x" 1}}', "%!d(string=x) %!s(MISSING) x%!(EXTRA int=1)"),
        ('{{html "<a&\'>"}} {{js "it\'s"}} {{urlquery "a b&c"}}', "&lt;a&amp;&#39;&gt; it\\'s a+b%26c"),
        ("{{json .L}} {{json .M}} {{json .Name}} {{json .Nil}}", '["a","b","c"] {"k":"v","a":"z"} "web" null'),
        ('{{json "<&>"}}', '"\\u003c\\u0026\\u003e"'),
        ('{{join .L ", "}} {{split "a:b" ":"}}', "a, b, c [a b]"),
        ('{{lower "AB"}}{{upper "cd"}}{{title "ef gh"}}|{{pad "x" 1 2}}|{{truncate "abcdef" 3}}', "abCDEf Gh| x  |abc"),
        ('{{.Name | printf "%s/%s" "x" | upper}}', "X/WEB"),
        ("{{.}}", None),
    ],
)
def test_what_it_gives(source: str, expected: str | None) -> None:
    result = parse(source).execute(DATA)
    assert result == expected if expected is not None else result.startswith("map[Empty:[] F:1.5 L:[a b c]")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Foo", "template: :1: unclosed action"),
        ("a\n{{ .Foo", "template: :2: unclosed action"),
        ("{{", "template: :1: unclosed action"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{if .A}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{foo .A}}", 'template: :1: function "foo" not defined'),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ('{{"abc}}', "template: :1: unterminated quoted string"),
        ("{{(.A}}", "template: :1: unclosed left paren"),
        ("{{.A)}}", "template: :1: unexpected right paren"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{/* x", "template: :1: unclosed comment"),
        ('{{.A | "x"}}', "template: :1: non executable command in pipeline stage 2"),
        ("{{define}}", "template: :1: define is not supported in a format"),
    ],
)
def test_what_does_not_parse(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(source)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Foo.Bar}}", 'template: :1:6: executing "" at <.Foo.Bar>: map has no entry for key "Foo"'),
        ("{{.M.nope}}", 'template: :1:4: executing "" at <.M.nope>: map has no entry for key "nope"'),
        ("x\n{{.S.Zip}}", 'template: :2:4: executing "" at <.S.Zip>: can\'t evaluate field Zip in type struct'),
        ("{{index .L 9}}", 'template: :1:2: executing "" at <index .L 9>: error calling index: index out of range: 9'),
        ("{{len 3}}", 'template: :1:2: executing "" at <len 3>: error calling len: len of type int'),
        (
            '{{lt 1 "a"}}',
            'template: :1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison',
        ),
        ("{{range .Name}}x{{end}}", 'template: :1:8: executing "" at <.Name>: range can\'t iterate over web'),
    ],
)
def test_what_does_not_fit_its_data(source: str, message: str) -> None:
    with pytest.raises(ExecError) as caught:
        parse(source).execute(DATA, strict=True)
    assert str(caught.value) == message


def test_records_have_methods() -> None:
    row = Record("formatter.X", {"ID": lambda item: item["id"], "Label": lambda item, name: f"<{name}>"}, {"id": "1"})
    assert parse('{{.ID}} {{.Label "a"}} {{json .}}').execute(row) == '1 <a> {"ID":"1"}'
    with pytest.raises(ExecError, match=r"can't evaluate field Foo in type \*formatter.X"):
        parse("{{.Foo}}").execute(row)


def test_a_nil_pointer_prints_and_is_false() -> None:
    assert parse("{{.A}} {{if .A}}y{{else}}n{{end}}").execute({"A": NIL}) == "<nil> n"
    with pytest.raises(ExecError, match="nil pointer evaluating"):
        parse("{{.A.B}}").execute({"A": NIL})


def test_the_fields_that_a_template_reads() -> None:
    assert parse("{{if .A}}{{range .B.C}}{{.D | upper}}{{end}}{{end}}").fields() == {"A", "B", "D"}
    assert parse("{{json .}}").fields() == {"."}


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1.5, "1.5"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1e-5, "1e-05"), (0.0001, "0.0001")],
)
def test_floats(value: float, text: str) -> None:
    assert show_float(value) == text


ACTION = st.sampled_from(
    [
        "{{.A}}",
        "{{ .A.B | upper }}",
        "{{if .X}}",
        "{{end}}",
        "{{`r}}`}}",
        '{{"}}"}}',
        "{{/* {{ */}}",
        "{{$x := (.A)}}",
        "{{'}'}}",
    ]
)
LITERAL = st.text(alphabet=st.characters(exclude_characters="{}\r"), max_size=12)


@given(st.lists(st.one_of(ACTION, LITERAL), max_size=12))
def test_tokens_cover_the_source_in_order(parts: list[str]) -> None:
    """Without trim markers nothing is lost: each token is the source at its place, only comments are passed over."""
    source = "".join(parts)
    at = 0
    for token in tokens(source):
        assert source.startswith(token.text, token.at)
        assert source[at : token.at].replace("{{/* {{ */}}", "") == ""
        at = token.at + len(token.text)
    assert at == len(source)


@given(st.text(max_size=60))
def test_any_text_is_tokens_or_an_error(source: str) -> None:
    try:
        found = list(tokens(source))
    except TemplateError:
        return
    assert found[-1].kind == EOF
    assert sum(token.kind == OPEN for token in found) == sum(token.kind == CLOSE for token in found)


@given(LITERAL, LITERAL)
def test_trim_markers_take_white_space_alone(before: str, after: str) -> None:
    found = [token.text for token in tokens(before + "{{- .A -}}" + after) if token.kind == TEXT]
    assert found == [text for text in (before.rstrip(" \t\r\n"), after.lstrip(" \t\r\n")) if text]


@given(st.text(max_size=40))
def test_quoting_is_undone_by_unquoting(text: str) -> None:
    assert unquote(quote(text)) == text
