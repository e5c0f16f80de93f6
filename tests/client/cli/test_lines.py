"""Lines to records, as Kafka's console producer reads them."""

import pytest

from penstock.client.cli.lines import LineError, LineParser, Parsed, PropertyError


def test_a_line_is_a_value_by_default() -> None:
    assert LineParser.of([]).parse(b"a,b\tc\xff") == Parsed(None, b"a,b\tc\xff", ())


def test_a_key_is_split_off_at_the_first_separator_only() -> None:
    parser = LineParser.of(["parse.key=true", "key.separator=,"])
    assert parser.parse(b"k,v,w,") == Parsed(b"k", b"v,w,", ())
    assert parser.parse(b",v") == Parsed(b"", b"v", ())
    assert parser.parse(b"k,") == Parsed(b"k", b"", ())


def test_separators_may_be_longer_and_written_as_escapes() -> None:
    assert LineParser.of(["parse.key=true", "key.separator=::"]).parse(b"a:b::c") == Parsed(b"a:b", b"c", ())
    assert LineParser.of(["parse.key=true", r"key.separator=\t"]).parse(b"a\tb") == Parsed(b"a", b"b", ())
    assert LineParser.of(["parse.key=true"]).parse(b"a\tb") == Parsed(b"a", b"b", ())
    assert LineParser.of(["parse.key=true", "key.separator=="]).parse(b"a=b=c") == Parsed(b"a", b"b=c", ())


def test_a_line_without_separator_is_an_error_that_names_it() -> None:
    with pytest.raises(LineError, match="','"):
        LineParser.of(["parse.key=true", "key.separator=,"]).parse(b"no comma")


def test_headers_and_null_marker() -> None:
    parser = LineParser.of(["parse.headers=true", "parse.key=true", "null.marker=NULL"])
    assert parser.parse(b"a:1,b:x:y,c:NULL\tkey\tNULL") == Parsed(
        b"key", None, [("a", b"1"), ("b", b"x:y"), ("c", None)]
    )
    assert parser.parse(b"NULL\tNULL\tv") == Parsed(None, b"v", ())
    assert parser.parse(b"\tk\tv").headers == ()
    with pytest.raises(LineError, match="header without"):
        parser.parse(b"broken\tk\tv")
    with pytest.raises(LineError, match="headers delimiter"):
        parser.parse(b"nothing")


def test_a_fixed_key() -> None:
    assert LineParser.of([], key="k").parse(b"v") == Parsed(b"k", b"v", ())


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (["parse.keys=true"], "did you mean parse.key"),
        (["zzzzzzz=1"], "known: parse.key"),
        (["parse.key"], "not KEY=VALUE"),
        (["parse.key=yes"], "true or false"),
        (["key.separator=,"], "no effect"),
        (["parse.key=true", "key.separator="], "must not be empty"),
    ],
)
def test_properties_that_cannot_work_are_refused(properties: list[str], message: str) -> None:
    with pytest.raises(PropertyError, match=message):
        LineParser.of(properties)
