"""The HTML report and what the terminal is told: made of a run's folder, whatever is in it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from penstock.chaos.history import entries
from penstock.chaos.measure import measure
from penstock.chaos.report import ReportError, excerpts, logs, write_report
from penstock.chaos.report.plots import rows_of, timeline
from penstock.chaos.status import WIDTH, summary
from tests.chaos.histories import Script

HOSTILE = "<script>alert('x')</script>&\"$x$"
SECTIONS = ("verdict", "run", "aims", "timeline", "faults", "anomalies", "operations", "logs")
VOID = {"meta", "br", "link", "img", "hr"}
ANOMALY: dict[str, Any] = {
    "kind": "lost-write",
    "message": "value 3 was never read",
    "topic": "t",
    "partition": 0,
    "operations": [["op 3: send", 2.0, 2.1], ["line 9: poll", 12.0, 12.5]],
}
RUN: dict[str, Any] = {
    "scenario": "everything",
    "seed": 17,
    "duration_s": 60,
    "started": "2026-01-31T12:00:00+00:00",
    "nodes": [1, 2, 3],
    "schedule": [],
    "versions": {"penstock": "0.1.0"},
    "argv": ["penstock-chaos", "run", "--scenario", "every thing"],
}


class Page(HTMLParser):
    """Checks that elements nest, and gathers tags, ids and what is linked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in {"src", "href", "xlink:href"}:
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "history.jsonl")


Folder = Callable[..., Path]


@pytest.fixture
def folder(script: Script) -> Folder:
    def made(run: dict[str, Any] | None = None, **verdict: Any) -> Path:
        measured = measure(entries(script.done()))
        whole = {"valid": True, "reasons": [], "found": {}, "allowed": {}, "counts": {}, "anomalies": []}
        whole |= {"measures": measured.to_json(), "aims": [aim.to_json() for aim in measured.aims], **verdict}
        folder = script.path.parent
        (folder / "verdict.json").write_text(json.dumps(whole), encoding="utf-8")
        (folder / "run.json").write_text(json.dumps(RUN if run is None else run), encoding="utf-8")
        return folder

    return made


def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def told(folder: Path) -> str:
    verdict, run = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("verdict.json", "run.json"))
    return summary(verdict, run, folder)


def write_log(folder: Path, node: int, *lines: str) -> None:
    (folder / "logs").mkdir(exist_ok=True)
    (folder / f"logs/node-{node}.log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def log_line(second: float, level: str, message: str) -> str:
    return f'time=2026-01-31T12:00:{second:06.3f}Z level={level} node=1 logger=x msg="{message}"'


def test_the_report_has_all_sections_and_needs_no_network(script: Script, folder: Folder) -> None:
    script.load(0, 20)
    script.injected(20)
    script.healed(30)
    script.load(30, 60)
    found = page(folder())
    assert set(SECTIONS) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "script" not in found.tags
    assert "link" not in found.tags
    own = [link for link in found.links if not link.startswith("#")]
    assert sorted(own) == ["history.jsonl", "run.json", "verdict.json"]


def test_facts_and_the_command_to_repeat_the_run(script: Script, folder: Folder) -> None:
    text = page(folder()).text
    for fact in ("everything", "17", "2026-01-31T12:00:00+00:00", "1, 2, 3", "penstock 0.1.0"):
        assert fact in text
    assert "penstock-chaos run --scenario everything --seed 17 --duration 60 --schedule run.json" in text
    assert "penstock-chaos run --scenario 'every thing'" in text


@pytest.mark.parametrize(("valid", "word"), [(True, "valid"), (False, "invalid"), (None, "unknown")])
def test_the_verdict_stands_first(folder: Folder, valid: bool | None, word: str) -> None:
    made = folder(valid=valid, reasons=["the final reading did not end"])
    found = page(made)
    assert re.search(r"valid|invalid|unknown", found.text.split("</style>")[-1])
    html = (made / "report.html").read_text(encoding="utf-8")
    assert f'<header class="banner {word}"' in html
    assert "the final reading did not end" in found.text
    assert told(made).startswith(word.upper() + ":")
    assert "the final reading did not end" in told(made)


def test_the_verdict_of_the_run_stands_above_that_of_its_history(folder: Folder) -> None:
    made = folder(valid=True, verdict="unknown", reasons=["the run broke off"])
    write_report(made)
    assert '<header class="banner unknown"' in (made / "report.html").read_text(encoding="utf-8")
    assert told(made).startswith("UNKNOWN:")


def test_a_run_without_anything(folder: Folder) -> None:
    made = folder(run={})
    text = page(made).text
    assert "No faults." in text
    assert "None." in text
    assert "None in the folder." in text
    assert "Faults: 0 of 0 hit" in told(made)


def test_faults_that_did_not_hit_or_were_skipped_are_told_with_their_reason(script: Script, folder: Folder) -> None:
    script.injected(1, number=1, fault="cut")
    script.healed(2, number=1, hit=False, evidence="0 connections were held up")
    script.fault(3, "skipped", number=2, fault="power-loss", detail="needs root")
    script.injected(4, number=3, fault="kill")
    script.healed(5, number=3, evidence="3 of 3 nodes are gone")
    script.fault(6, "inject", number=4, fault="slow")
    script.fault(7, "failed", number=4, detail="no such link")
    made = folder()
    text = page(made).text
    for words in ("NOT HIT", "0 connections were held up", "skipped", "needs root", "3 of 3 nodes are gone", "FAILED"):
        assert words in text
    terminal = told(made)
    assert "Faults: 1 of 4 hit" in terminal
    assert "1, cut: NOT HIT: 0 connections were held up" in terminal
    assert "2, power-loss: skipped: needs root" in terminal
    assert "4, slow: FAILED: no such link" in terminal
    assert "3, kill" not in terminal


def test_the_timeline_has_the_windows_of_the_faults_and_their_names_as_text(script: Script, folder: Folder) -> None:
    script.load(0, 10)
    script.injected(10, number=1, fault="kill-leader")
    script.healed(20, number=1)
    script.injected(25, number=2, fault="cut")
    script.fault(26, "skipped", number=3, fault="power-loss")
    script.load(26, 40)
    found = page(folder())
    assert {"fault-1", "fault-2"} <= set(found.ids)
    assert "fault-3" not in found.ids
    assert "1 kill-leader" in found.text
    assert "2 cut" in found.text


def test_no_name_in_the_timeline_is_taken_for_a_formula(script: Script) -> None:
    script.injected(1, fault="$x$")
    script.time = 2
    script.recorder.note("runner", "phase", name="$y$")
    drawn = timeline(measure(entries(script.done())).to_json())
    assert "1 $x$<" in drawn
    assert ">$y$<" in drawn


def test_the_timeline_is_the_same_each_time(script: Script) -> None:
    script.load(0, 3)
    script.injected(3)
    script.load(3, 10)
    measures = measure(entries(script.done())).to_json()
    assert timeline(measures) == timeline(measures)


def test_hostile_texts_stay_texts(script: Script, folder: Folder) -> None:
    script.write(1.0, took=1.0)
    script.injected(3, fault=HOSTILE, detail=HOSTILE, cut_hosts=[HOSTILE])
    script.healed(4, evidence=HOSTILE)
    script.write(5.0, took=1.0, host=HOSTILE, kind="fail", error=HOSTILE, message=HOSTILE)
    script.time = 7
    script.recorder.note("runner", "phase", name=HOSTILE)
    run = RUN | {"scenario": HOSTILE, "argv": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
    anomaly = ANOMALY | {"message": HOSTILE, "kind": HOSTILE, "operations": [["op 2: " + HOSTILE, 5.0, 6.0]]}
    made = folder(run, valid=False, reasons=[HOSTILE], anomalies=[anomaly], counts={HOSTILE: {HOSTILE: 1}})
    write_log(made, 1, log_line(5, "ERROR", HOSTILE))
    found = page(made)
    assert "script" not in found.tags
    assert found.text.count(HOSTILE) > 12
    assert all(len(line) <= WIDTH for line in told(made).splitlines())


def test_an_anomaly_has_its_lines_of_the_history_and_what_the_nodes_said(script: Script, folder: Folder) -> None:
    for at in range(10):
        script.write(float(at))
    made = folder(valid=False, anomalies=[ANOMALY], found={"lost-write": 5})
    write_log(made, 1, log_line(11, "INFO", "long before"), log_line(12, "INFO", "just then"))
    html = write_report(made).read_text(encoding="utf-8")
    marked = re.findall(r'<span class="mark">(\d+): ', html)
    assert marked == ["5", "6", "9"]  # op 3 has lines 5 and 6
    text = Page(html).text
    assert "just then" in text
    assert "long before" not in text
    assert "lost-write in t/0: value 3 was never read" in text
    assert "lost-write: 5" in text
    assert "lost-write in t/0: value 3 was never read (and 4 more)" in told(made)


def test_an_excerpt_has_two_lines_before_and_after(script: Script) -> None:
    for at in range(10):
        script.write(float(at))
    (found,) = excerpts.excerpts(script.done(), [ANOMALY | {"operations": [["op 5: send", 4.0, 4.1]]}])
    assert [(line.number, line.concerned) for line in found] == [
        (7, False),
        (8, False),
        (9, True),
        (10, True),
        (11, False),
        (12, False),
    ]


def test_logs_are_counted_and_the_middle_of_many_warnings_is_left_out(tmp_path: Path) -> None:
    lines = [log_line(index % 60, "WARNING", f"number {index}.") for index in range(100)]
    write_log(tmp_path, 1, log_line(0, "INFO", "fine"), *lines)
    (found,) = logs.read_logs(tmp_path, RUN["started"], [])
    assert found.levels == {"INFO": 1, "WARNING": 100}
    assert (len(found.first), len(found.last), found.left_out) == (logs.FIRST, logs.LAST, 40)
    assert "number 0." in found.first[0].text
    assert "number 99." in found.last[-1].text


def test_a_traceback_belongs_to_the_line_before_it(tmp_path: Path) -> None:
    write_log(tmp_path, 2, log_line(3, "ERROR", "broken"), "Traceback:", "  ValueError", log_line(4, "INFO", "on"))
    (found,) = logs.read_logs(tmp_path, RUN["started"], [3.0])
    assert [line.text for line in found.first][1:] == ["Traceback:", "  ValueError"]
    assert found.levels["ERROR"] == 1
    assert found.levels["INFO"] == 1
    assert len(found.near[0]) == 4


def test_logs_are_in_the_order_of_the_nodes(tmp_path: Path) -> None:
    for node in (10, 2, 1):
        write_log(tmp_path, node, log_line(0, "INFO", "here"))
    found = logs.read_logs(tmp_path, None, [0.0])
    assert [log.name for log in found] == ["logs/node-1.log", "logs/node-2.log", "logs/node-10.log"]
    assert found[0].near == [[]]  # when the run began is not known


def test_measures_that_are_missing_are_measured_again(script: Script, folder: Folder) -> None:
    script.load(0, 10)
    made = folder()
    with_measures = write_report(made).read_text(encoding="utf-8")
    verdict = json.loads((made / "verdict.json").read_text(encoding="utf-8"))
    del verdict["measures"], verdict["aims"]
    (made / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    assert write_report(made).read_text(encoding="utf-8") == with_measures


def test_a_folder_that_is_none_of_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"verdict\.json: no such file"):
        write_report(tmp_path)
    (tmp_path / "verdict.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match=r"verdict\.json: no JSON"):
        write_report(tmp_path)


def test_a_long_run_with_many_faults_makes_no_huge_page(script: Script, folder: Folder) -> None:
    for number in range(100):
        script.write(number * 72.0)
        script.injected(number * 72 + 10, number=number)
        script.healed(number * 72 + 30, number=number)
    assert write_report(folder()).stat().st_size < 2_000_000


def test_labels_of_faults_take_rows_in_which_they_touch_no_other() -> None:
    assert rows_of([(0, 10), (5, 8), (7, 20), (9, 12), (10, 11)]) == [0, 1, 2, 1, 0]


def test_what_the_terminal_is_told_fits_its_width(script: Script, folder: Folder) -> None:
    script.load(0, 10)
    script.fault(10, "skipped", number=1, detail="no " * 200)
    made = folder(valid=None, reasons=["long " * 100], anomalies=[ANOMALY | {"message": "m" * 500}])
    text = told(made)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    unwrapped = " ".join(text.split())
    assert "Records: 100.00 % acknowledged (100 acked, 0 failed, 0 unknown, 0 refused)" in unwrapped
    assert "Acknowledged while a majority was reachable: 100.00 % (wanted ≥ 90 %): met" in unwrapped
    assert "no fault with operations to judge" in unwrapped


def test_no_control_character_reaches_the_terminal() -> None:
    assert "\x1b" not in summary({"valid": None, "reasons": ["a\x1b[31mb"]}, {})


@pytest.mark.parametrize(
    ("acked", "failed", "words"), [(1, 0, "100.00 %"), (99_999, 1, "99.99 %"), (9, 1, "90.00 %"), (0, 1, "0.00 %")]
)
def test_only_all_is_told_as_all(acked: int, failed: int, words: str) -> None:
    share = {"share": acked / (acked + failed), "asked": acked + failed, "refused": 0}
    counts = {"acked": acked, "failed": failed, "unknown": 0}
    assert f"Records: {words} " in summary({"valid": True, "measures": {"records": share | counts}}, {})
