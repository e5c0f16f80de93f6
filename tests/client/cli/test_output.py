"""Tables for people, whatever the names in them are and however narrow the terminal is."""

import pytest

from penstock.client.cli.output import Table, show, table_lines
from penstock.client.cli.settings import Settings


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    table = Table(("name", "number"), [("a", 1), ("表計算", None), ("bc", 100)])
    assert table_lines(table) == ["NAME    NUMBER", "a            1", "表計算       -", "bc         100"]
    assert table_lines(Table(("name", "number"), [])) == ["NAME  NUMBER"]


def test_what_would_move_the_cursor_is_shown_as_an_escape() -> None:
    rows = table_lines(Table(("group", "note"), [("a\x1b[2J\r\nb", "\u202ex")]))[1:]
    assert rows == [r"a\x1b[2J\r\nb  \u202ex"]


def test_a_narrow_terminal_breaks_neither_times_nor_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    row = ("2026-11-02T00:00:00.000Z", "0123456789abcdef", "joined " * 20)
    show(Settings(), {}, Table(("time", "member", "detail"), [row, ("-", "-", "-")]))
    head, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == list(row[:2])
    assert (len(second), second.split()) == (45, ["-", "-", "-"])
    assert head.startswith("\033[1mTIME")
