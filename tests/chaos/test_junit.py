"""The JUnit file: what CI servers count, and that any text can stand in it."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from penstock.chaos.junit import Case, case_of, skipped, write_junit

ANOMALY = {"kind": "lost-write", "message": "value 3", "topic": "t", "partition": 0, "operations": []}
AIM = {"name": "Back", "measured": 3.0, "wanted": 10.0, "unit": "s", "met": True, "detail": ""}
RUN = {"scenario": "kills", "seed": 7}


def verdict(valid: bool | None = True, **fields: Any) -> dict[str, Any]:
    whole = {"valid": valid, "reasons": [], "anomalies": [], "measures": {"records": {"share": 0.5}}, "aims": [AIM]}
    return whole | fields


def written(path: Path, *cases: Case) -> ET.Element:
    write_junit(path / "junit.xml", cases)
    root = ET.parse(path / "junit.xml").getroot()
    check_schema(root)
    return root


def check_schema(root: ET.Element) -> None:
    """What all readers of JUnit files agree on: the nesting, the attributes, and counts that are those of the cases."""
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors", "skipped", "time"} <= set(suite.attrib)
        assert {case.tag for case in suite} == {"testcase"}
        assert int(suite.attrib["tests"]) == len(suite)
        for counted, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[counted]) == len(suite.findall(f"testcase/{tag}"))
        for case in suite:
            assert {"name", "classname", "time"} <= set(case.attrib)
            assert float(case.attrib["time"]) >= 0
            assert {part.tag for part in case} <= {"properties", "failure", "error", "skipped"}
            assert len([part for part in case if part.tag != "properties"]) <= 1
    for counted in ("tests", "failures", "errors"):
        assert int(root.attrib[counted]) == sum(int(suite.attrib[counted]) for suite in root)


def test_a_case_a_run_and_a_suite_a_scenario(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        case_of(verdict(), RUN, 61.5),
        case_of(verdict(valid=False, anomalies=[ANOMALY]), RUN | {"seed": 8}, 1),
        case_of(verdict(valid=None, reasons=["no final reading"]), RUN | {"scenario": "cuts"}, 2),
        skipped("power", 9, "needs root"),
    )
    assert [(suite.attrib["name"], len(suite)) for suite in root] == [("kills", 2), ("cuts", 1), ("power", 1)]
    assert root.attrib == {"name": "penstock-chaos", "tests": "4", "failures": "1", "errors": "1", "time": "64.500"}
    first = root[0][0]
    assert (first.attrib["name"], first.attrib["classname"], first.attrib["time"]) == ("seed 7", "kills", "61.500")


def test_an_invalid_run_is_a_failure_with_its_anomalies(tmp_path: Path) -> None:
    case = case_of(verdict(valid=False, anomalies=[ANOMALY, ANOMALY | {"message": "value 4"}]), RUN, 1)
    failure = written(tmp_path, case).find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "lost-write in t/0: value 3"
    assert failure.text == "lost-write in t/0: value 3\nlost-write in t/0: value 4"


def test_an_unknown_run_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    error = written(tmp_path, case_of(verdict(valid=None, reasons=["no end"]), RUN, 1)).find(".//error")
    assert error is not None
    assert error.attrib["message"] == "no end"


def test_the_verdict_of_the_run_stands_above_that_of_its_history(tmp_path: Path) -> None:
    case = case_of(verdict(valid=True, verdict="unknown", reasons=["broke off"]), RUN, 1)
    assert written(tmp_path, case).find(".//error") is not None


def test_a_run_that_cannot_be_done_here_is_skipped_with_the_reason(tmp_path: Path) -> None:
    found = written(tmp_path, skipped("power", 9, "needs root")).find(".//skipped")
    assert found is not None
    assert found.attrib["message"] == "needs root"


def test_share_seed_and_aims_are_properties(tmp_path: Path) -> None:
    root = written(tmp_path, case_of(verdict(), RUN, 1))
    found = {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}
    assert found == {"seed": "7", "acknowledged": "0.500000", "Back": "3.0 s (met)"}


def test_what_xml_cannot_hold_is_replaced(tmp_path: Path) -> None:
    hostile = "a\x00b\x1b[1m<script>&\ud800"
    case = case_of(verdict(valid=False, reasons=[hostile]), RUN | {"scenario": hostile}, 1)
    failure = written(tmp_path, case).find(".//failure")
    assert failure is not None
    assert failure.text == "a\ufffdb\ufffd[1m<script>&\ufffd"


def test_nothing_run_is_a_file_too(tmp_path: Path) -> None:
    assert written(tmp_path).attrib["tests"] == "0"
