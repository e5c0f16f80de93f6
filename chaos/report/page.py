"""Fills the template. Everything but the timeline is escaped: values, logs and errors may hold anything."""

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from penstock.chaos import words
from penstock.chaos.report import excerpts, logs
from penstock.chaos.report.plots import timeline
from penstock.chaos.words import Json

TEMPLATES = Path(__file__).parents[1] / "templates"
MAX_ANOMALIES = 50
"""Shown with their operations; verdict.json has them all."""


def render(folder: Path, verdict: Json, run: Json) -> str:
    """Give the page for a run's folder. Raises OSError."""
    anomalies = list(verdict.get("anomalies", ()))[:MAX_ANOMALIES]
    moments = [excerpts.moment_of(anomaly) for anomaly in anomalies]
    asked = sorted({moment for moment in moments if moment is not None})
    nodes = logs.read_logs(folder, run.get("started"), asked)
    lines = excerpts.excerpts(folder / "history.jsonl", anomalies)
    told = [
        {"anomaly": anomaly, "moment": moment, "lines": its_lines, "logs": _near(nodes, asked, moment)}
        for anomaly, moment, its_lines in zip(anomalies, moments, lines, strict=True)
    ]
    measures = verdict["measures"]
    return _template().render(
        name=words.verdict_of(verdict),
        verdict=verdict,
        run=run,
        facts=_facts(verdict, run),
        repeat=_repeat(run),
        command=shlex.join(str(word) for word in run.get("argv", ())),
        measures=measures,
        faults=words.faults_of(verdict),
        timeline=Markup(timeline(measures)),  # noqa: S704  matplotlib escapes the texts in it
        anomalies=told,
        anomalies_in_all=sum(verdict.get("found", {}).values()),
        nodes=nodes,
        files=[name for name in ("history.jsonl", "verdict.json", "run.json") if (folder / name).exists()],
        words=words,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _facts(verdict: Json, run: Json) -> list[tuple[str, str]]:
    known: list[tuple[str, Any]] = [
        ("Scenario", run.get("scenario")),
        ("Seed", run.get("seed")),
        ("Asked for", words.seconds(run["duration_s"]) if "duration_s" in run else None),
        ("Recorded", words.seconds(verdict["measures"]["duration_s"])),
        ("Started", run.get("started")),
        ("Nodes", _listed(run.get("nodes"))),
        ("Versions", _listed(run.get("versions"))),
        ("Notes", "; ".join(map(str, run.get("notes", ())))),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]


def _repeat(run: Json) -> str:
    """Give the command that does this one run again, with the very faults that it had; "" where too little is known."""
    if "scenario" not in run or "seed" not in run:
        return ""
    command = ["penstock-chaos", "run", "--scenario", str(run["scenario"]), "--seed", str(run["seed"])]
    if "duration_s" in run:
        command += ["--duration", f"{run['duration_s']:g}"]
    if run.get("cluster", "local") != "local":
        command += ["--cluster", str(run["cluster"])]
    return shlex.join([*command, *(["--schedule", "run.json"] if "schedule" in run else [])])


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _near(nodes: Sequence[logs.NodeLog], asked: list[float], moment: float | None) -> list[tuple[str, list[logs.Line]]]:
    """Give what each node said around a moment; nodes that said nothing are left out."""
    if moment is None:
        return []
    index = asked.index(moment)
    return [(node.name, node.near[index]) for node in nodes if node.near[index]]
