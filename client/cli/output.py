"""What the commands write: results on standard output in the format asked for, everything else on standard error."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rich.cells import cell_len

from penstock.client import Admin, PenstockError
from penstock.client.cli.settings import Format, Settings

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNHEALTHY = 10
WATCH_INTERVAL_S = 2.0
_BOLD, _PLAIN = "\033[1m", "\033[0m"

Cell: TypeAlias = str | int | None
Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns. None is shown as a dash."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


def say(text: str) -> None:
    """Write a line for people to standard error."""
    print(text, file=sys.stderr, flush=True)


def show(settings: Settings, document: Document, *parts: Table | str) -> None:
    """Write a result: the document as JSON; the tables alone as TSV; or tables and lines of text for people."""
    if settings.format is Format.JSON:
        print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
    elif settings.format is Format.TSV:
        for table in [part for part in parts if isinstance(part, Table)]:
            for row in (table.columns, *table.rows):
                print("\t".join(escaped(_text(cell, "")) for cell in row))
    else:
        _show_text(parts)
    sys.stdout.flush()


def _show_text(parts: Sequence[Table | str]) -> None:
    for part in parts:
        if isinstance(part, str):
            print(part)
            continue
        head, *rows = table_lines(part)
        print(f"{_BOLD}{head}{_PLAIN}" if sys.stdout.isatty() else head)
        for row in rows:
            print(row)


def table_lines(table: Table) -> list[str]:
    """Write header and rows for people, a line each: a narrow terminal wraps the line, never a time or an id in it."""
    columns = []
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        texts = [name.upper(), *(printable(_text(cell, "-")) for cell in cells)]
        width = max(map(cell_len, texts))
        present = [cell for cell in cells if cell is not None]
        is_number = bool(present) and all(isinstance(cell, int) for cell in present)
        columns.append([_padded(text, width, to_the_right=is_number) for text in texts])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


def _padded(text: str, width: int, *, to_the_right: bool) -> str:
    room = " " * (width - cell_len(text))
    return room + text if to_the_right else text + room


def printable(text: str) -> str:
    """Show what would move the cursor or colour a terminal as an escape: names of groups and clients are free text."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _text(cell: Cell, absent: str) -> str:
    return absent if cell is None else str(cell)


def escaped(text: str) -> str:
    r"""Escape a TSV cell: backslash, tab, newline and carriage return as \\ \t \n \r."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def error_document(error: PenstockError) -> dict[str, Any]:
    """Give the form of an error in JSON output."""
    return {"reason": error.reason.name, "message": error.message, "metadata": error.metadata}


def report(error: PenstockError, *, as_json: bool) -> None:
    """Write an error: JSON to standard output, else text to standard error."""
    if as_json:
        print(json.dumps({"error": error_document(error)}, ensure_ascii=False), flush=True)
    else:
        say(f"penstock: {error}")


def ask(settings: Settings, once: Callable[[Admin], Awaitable[int]]) -> int:
    """Run `once` with an admin client, and with --watch again and again until stopped; its exit code."""

    async def run() -> int:
        async with settings.admin() as admin:
            return await (_watch(settings, admin, once) if settings.watch else once(admin))

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        if settings.watch:
            return EXIT_OK
        raise


async def _watch(settings: Settings, admin: Admin, once: Callable[[Admin], Awaitable[int]]) -> int:
    while True:
        if sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        try:
            await once(admin)
        except PenstockError as error:
            report(error, as_json=settings.is_json)
        await asyncio.sleep(WATCH_INTERVAL_S)
