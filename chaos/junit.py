"""Runs as JUnit XML, for CI servers: a suite for each scenario, a case for each seed.

A case of an invalid run has a `failure` with its anomalies, of an unknown one an `error` with the reasons, of one that
could not be run here `skipped` with the reason. Its properties: `seed`, `acknowledged` (share of the records' writes,
0 to 1), and one for each aim.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from penstock.chaos import words
from penstock.chaos.words import Json

MAX_TEXT = 20_000
"""Characters of a case's text; the report has all."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    scenario: str
    seed: int
    verdict: str
    """`valid`, `invalid`, `unknown` or `skipped`."""
    seconds: float
    """How long it took."""
    message: str = ""
    """One line."""
    text: str = ""
    """Everything that is to be read there."""
    properties: Mapping[str, str] = field(default_factory=dict)


def case_of(verdict: Json, run: Json, seconds: float) -> Case:
    """Make the case of a run that took place, from its parsed verdict.json and run.json."""
    reasons = [str(reason) for reason in verdict.get("reasons", ())]
    anomalies = [words.anomaly_line(anomaly) for anomaly in verdict.get("anomalies", ())]
    return Case(
        scenario=str(run.get("scenario", "")),
        seed=int(run.get("seed", 0)),
        verdict=words.verdict_of(verdict),
        seconds=seconds,
        message=next(iter([*reasons, *anomalies]), ""),
        text="\n".join([*reasons, *anomalies]),
        properties=_properties(verdict, run),
    )


def skipped(scenario: str, seed: int, reason: str) -> Case:
    """Make the case of a run that cannot take place here."""
    return Case(scenario, seed, "skipped", 0.0, reason, reason, {"seed": str(seed)})


def write_junit(path: Path, cases: Iterable[Case]) -> None:
    """Write the file. Raises OSError."""
    by_scenario: dict[str, list[Case]] = {}
    for case in cases:
        by_scenario.setdefault(case.scenario, []).append(case)
    everything = [case for found in by_scenario.values() for case in found]
    root = ET.Element("testsuites", _counts("penstock-chaos", everything))
    for scenario, found in by_scenario.items():
        suite = ET.SubElement(root, "testsuite", _counts(scenario, found) | {"skipped": _count(found, "skipped")})
        for case in found:
            _add(suite, case)
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _add(suite: ET.Element, case: Case) -> None:
    names = {"name": f"seed {case.seed}", "classname": _clean(case.scenario), "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", names)
    if case.properties:
        properties = ET.SubElement(element, "properties")
        for name, value in case.properties.items():
            ET.SubElement(properties, "property", {"name": _clean(name), "value": _clean(value)})
    kind = _KINDS.get(case.verdict, "error")
    if kind == "skipped":
        ET.SubElement(element, kind, {"message": _clean(case.message)})
    elif kind:
        told = ET.SubElement(element, kind, {"message": _clean(case.message), "type": case.verdict})
        told.text = _clean(case.text)[:MAX_TEXT]


_KINDS = {"valid": "", "invalid": "failure", "skipped": "skipped"}
"""The element of each verdict; that of any other is `error`."""


def _counts(name: str, cases: list[Case]) -> dict[str, str]:
    return {
        "name": _clean(name),
        "tests": str(len(cases)),
        "failures": _count(cases, "failure"),
        "errors": _count(cases, "error"),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _count(cases: list[Case], kind: str) -> str:
    return str(sum(_KINDS.get(case.verdict, "error") == kind for case in cases))


def _properties(verdict: Json, run: Json) -> dict[str, str]:
    share = verdict.get("measures", {}).get("records", {}).get("share")
    found = {"seed": str(run.get("seed", "")), "acknowledged": "" if share is None else f"{share:.6f}"}
    for aim in verdict.get("aims", ()):
        found[str(aim["name"])] = f"{words.aim_measured(aim)} ({words.met(aim['met'])})"
    return found


def _clean(text: str) -> str:
    """Replace what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
