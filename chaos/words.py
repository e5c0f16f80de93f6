"""How the end of a run is told to people: the same words on the terminal, in the JUnit file and in the HTML report.

Pure; reads the parsed verdict.json and run.json of a run's folder. What a file does not hold is told as unknown.
"""

from collections.abc import Iterable, Mapping
from math import floor
from typing import Any

Json = Mapping[str, Any]

UNKNOWN = "-"


def percent(share: float | None) -> str:
    """Give a share of 0 to 1 with two digits, rounded down: only all is 100 %."""
    return UNKNOWN if share is None else f"{floor(share * 10_000 + 1e-6) / 100:.2f} %"


def seconds(value: float | None) -> str:
    """Give a time."""
    return UNKNOWN if value is None else f"{value:.1f} s"


def number(value: float | None) -> str:
    """Give a count with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", "\u202f")


def aim_measured(aim: Json) -> str:
    """Tell what was measured for an aim."""
    return percent(aim["measured"]) if aim["unit"] == "share" else seconds(aim["measured"])


def aim_wanted(aim: Json) -> str:
    """Tell what an aim asks for."""
    return f"≥ {aim['wanted'] * 100:g} %" if aim["unit"] == "share" else f"≤ {aim['wanted']:g} s"


def met(value: bool | None) -> str:
    """Tell whether an aim is met."""
    return "not measured" if value is None else "met" if value else "NOT MET"


def fault_hit(fault: Json) -> str:
    """Tell what became of a fault: hit, NOT HIT, skipped, failed."""
    if fault["status"] == "healed" or (fault["status"] == "open" and fault["hit"] is not None):
        return "hit" if fault["hit"] else "NOT HIT"
    return {"open": "not healed", "failed": "FAILED"}.get(str(fault["status"]), str(fault["status"]))


def faults_of(verdict: Json) -> list[Json]:
    """Give the faults that were measured."""
    return list(verdict.get("measures", {}).get("faults", ()))


def without_effect(faults: Iterable[Json]) -> list[Json]:
    """Give the faults that did not hit, failed or were skipped: what the run does not prove."""
    return [fault for fault in faults if fault_hit(fault) != "hit"]


def reason_of(fault: Json) -> str:
    """Tell why a fault is not known to have hit, or how it is known."""
    return str(fault["evidence"] or fault["detail"])


def verdict_of(verdict: Json) -> str:
    """Give `valid`, `invalid` or `unknown`: of the whole run, where the file says it, else of its history alone."""
    valid = verdict.get("valid")
    alone = "unknown" if valid is None else "valid" if valid else "invalid"
    return str(verdict.get("verdict", alone))


def first_of_each_kind(verdict: Json) -> list[tuple[Json, int]]:
    """Give the first anomaly of each kind and how many of the kind there are, those that are not shown included."""
    firsts: dict[str, Json] = {}
    for anomaly in verdict.get("anomalies", ()):
        firsts.setdefault(anomaly["kind"], anomaly)
    return [(anomaly, verdict.get("found", {}).get(kind, 1)) for kind, anomaly in firsts.items()]


def anomaly_line(anomaly: Json) -> str:
    """Tell an anomaly in one line."""
    where = "" if anomaly.get("topic") is None else f" in {anomaly['topic']}/{anomaly['partition']}"
    return f"{anomaly['kind']}{where}: {anomaly['message']}"
