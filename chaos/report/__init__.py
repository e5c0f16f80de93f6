"""The report of a run: one HTML file that a person can read, made of what the run's folder holds, as often as wanted.

Reads `verdict.json` (the checker's Verdict.to_json, and `measures` and `aims` as `chaos.measure` gives them; where they
are missing they are measured again from `history.jsonl`), `run.json` (scenario, seed, duration_s, started, nodes,
versions, argv) and `logs/*.log`. The file needs no network; it links to the folder's other files.
"""

import json
from pathlib import Path
from typing import Any

from penstock.chaos.history import entries
from penstock.chaos.measure import measure

FILE = "report.html"


class ReportError(Exception):
    """The folder is not that of a run; the message names the file."""


def write_report(folder: Path) -> Path:
    """Write the report into the folder; its path. Raises ReportError, chaos.history.HistoryError, OSError."""
    from penstock.chaos.report.page import render  # noqa: PLC0415  jinja2 and matplotlib are for reports only

    verdict, run = read_run(folder)
    path = folder / FILE
    path.write_text(render(folder, verdict, run), encoding="utf-8")
    return path


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read verdict.json, with its measures, and run.json. Raises ReportError, chaos.history.HistoryError, OSError."""
    verdict, run = _read(folder / "verdict.json"), _read(folder / "run.json")
    if "measures" not in verdict or "aims" not in verdict:
        measured = measure(entries(folder / "history.jsonl"))
        verdict |= {"measures": measured.to_json(), "aims": [aim.to_json() for aim in measured.aims]}
    return verdict, run


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError(f"{path}: no such file; the folder of a run holds one") from error
    except ValueError as error:
        raise ReportError(f"{path}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path}: no JSON object")
    return found
