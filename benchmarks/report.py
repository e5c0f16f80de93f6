"""Reports of results: on a terminal, in a folder, and between two marks of a document."""

import json
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.summary import Summary
from benchmarks.table import machine_lines, tables

BEGIN = "<!-- results: written by `python -m benchmarks report RESULTS.json --into` this file; do not edit -->"
END = "<!-- results end -->"


class ReportError(Exception):
    """The document cannot take the report; the message says why."""


def text(summary: Summary, soak: dict[str, Any] | None = None) -> str:
    """Everything as text."""
    parts = ["\n".join(machine_lines(summary)), *(table.text() for table in tables(summary, soak))]
    return "\n\n".join(parts) + "\n"


def write_folder(summary: Summary, folder: Path, soak: dict[str, Any] | None = None) -> list[Path]:
    """Write report.txt and the plots; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.txt"
    report.write_text(text(summary, soak))
    return [report, *plots.draw(summary, folder)]


def markdown(summary: Summary, folder: str, drawn: list[Path], soak: dict[str, Any] | None = None) -> str:
    """Everything as Markdown; `folder`: of the plots, as the document names it."""
    lines = ["Machine and software:", "", *(f"- {line}" for line in machine_lines(summary))]
    lines += ["", *(f"![{plots.CAPTIONS[file.stem]}]({folder}/{file.name})\n" for file in drawn)]
    return "\n".join(lines) + "\n" + "\n\n".join(table.markdown() for table in tables(summary, soak))


def write_into(document: Path, summary: Summary, soak: dict[str, Any] | None = None) -> list[Path]:
    """Replace what stands between BEGIN and END; plots go to a folder named as the document. Raises ReportError."""
    before = document.read_text()
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise ReportError(f"{document} has not, once each and in this order, the lines\n{BEGIN}\n{END}")
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    folder = document.with_suffix("")
    drawn = plots.draw(summary, folder, ["svg"])
    document.write_text(f"{head}{BEGIN}\n\n{markdown(summary, folder.name, drawn, soak)}\n\n{END}{tail}")
    return [document, *drawn]


def read_soak(path: Path | None) -> dict[str, Any] | None:
    """Read the file of benchmarks.soak. Raises ReportError for anything else, OSError where it cannot be read."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text())
        content["summary"], content["samples"]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is not a file of benchmarks.soak: {error!r}") from error
    return dict(content)
