"""What makes a verdict unknown, what is counted and shown, and what is no history."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.chaos.checker import HistoryError, Verdict, check
from penstock.chaos.checker.check import EXAMPLES
from tests.chaos.checker.build import RC, RU, Book, kinds


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def _reason(verdict: Verdict) -> str:
    assert verdict.valid is None
    assert verdict.exit_code == 3
    (reason,) = verdict.reasons
    return reason


def test_nothing_acknowledged_is_unknown(book: Book) -> None:
    book.info(1)
    book.send(2, 0, acks="leader", process="c1/send2.0")
    book.final([(0, 2)])
    assert "nothing was acknowledged" in _reason(book.check())


def test_an_empty_history_is_unknown(book: Book) -> None:
    assert "nothing was acknowledged" in _reason(book.check())


def test_no_final_reading_is_unknown(book: Book) -> None:
    book.send(1, 0)
    book.poll([(0, 1)])
    reason = _reason(book.check())
    assert "not whole of t-0" in reason


def _final_of(book: Book, isolation: str, start: int, end: int) -> None:
    rows = [(offset, offset + 1) for offset in range(start, end)]
    book.poll(rows, start, end, process=f"final/read{isolation}.0", isolation=isolation, final=True)


@pytest.mark.parametrize(
    "ranges",
    [
        {RU: [(0, 3)]},
        {RU: [(0, 3)], RC: [(0, 2)]},
        {RU: [(1, 3)], RC: [(0, 3)]},
        {RU: [(0, 1), (2, 3)], RC: [(0, 3)]},
    ],
)
def test_a_final_reading_that_is_not_whole_is_unknown(book: Book, ranges: dict[str, list[tuple[int, int]]]) -> None:
    for value in (1, 2, 3):
        book.send(value, value - 1)
    for isolation, spans in ranges.items():
        for start, end in spans:
            book.assign(start, process=f"final/read{isolation}.0")
            _final_of(book, isolation, start, end)
    book.recorder.note("runner", "end_of_log", topic="t", partition=0, offset=3)
    assert "not whole" in _reason(book.check())


def test_a_final_reading_in_several_polls_is_whole(book: Book) -> None:
    for value in (1, 2, 3):
        book.send(value, value - 1)
    for isolation in (RU, RC):
        _final_of(book, isolation, 0, 2)
        _final_of(book, isolation, 2, 3)
    book.recorder.note("runner", "end_of_log", topic="t", partition=0, offset=3)
    assert book.check().valid is True


def test_a_partition_in_which_nothing_landed_needs_no_poll(book: Book) -> None:
    book.send(1, 0)
    book.info(2, partition=1)
    book.final([(0, 1)])
    book.recorder.note("runner", "end_of_log", topic="t", partition=1, offset=0)
    assert book.check().valid is True


def test_a_partition_whose_writes_all_failed_needs_no_final_reading(book: Book) -> None:
    book.send(1, 0)
    book.end(book.invoke(2, partition=7), "fail")
    book.final([(0, 1)])
    assert book.check().valid is True


@pytest.mark.parametrize("kind", ["ok", "info"])
def test_a_deleted_topic_has_to_keep_nothing(book: Book, kind: str) -> None:
    book.send(1, 0)
    book.send(2, 0, topic="gone")
    book.change("delete_topic", "gone", kind=kind)
    book.final([(0, 1)])
    assert book.check().valid is True


def test_a_deletion_that_failed_excuses_nothing(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 0, topic="gone")
    book.change("delete_topic", "gone", kind="fail")
    book.final([(0, 1)])
    assert "gone-0" in _reason(book.check())


def test_an_anomaly_is_one_though_all_else_is_unknown(book: Book) -> None:
    book.send(1, 0)
    book.poll([(0, 77)])
    verdict = book.check()
    assert verdict.valid is False
    assert verdict.exit_code == 1
    assert verdict.reasons
    assert kinds(verdict) == {"invented", "inconsistent-offsets"}


def test_a_history_that_is_cut_off_is_unknown(book: Book) -> None:
    book.send(1, 0)
    book.final([(0, 1)])
    book.recorder.close()
    book.path.write_text(book.path.read_text() + '{"time":9.0,"process":"c1')
    assert "cut off" in _reason(check(book.path))


def test_all_are_counted_and_some_are_shown(book: Book) -> None:
    count = 3 * EXAMPLES
    for value in range(1, count + 1):
        book.send(value, value - 1)
    book.final([(count - 1, count)], count)
    verdict = book.check()
    assert verdict.found == {"lost-write": count - 1}
    assert len(verdict.anomalies) == EXAMPLES
    assert verdict.exit_code == 1


def test_operations_are_counted(book: Book) -> None:
    book.send(1, 0)
    book.end(book.invoke(2), "fail")
    book.info(3)
    book.invoke(4)
    book.append([5, 6], 1)
    book.change("create_topic", "x", partitions=1, topic_id="a")
    book.final([(0, 1), (1, 5), (2, 6)])
    assert book.check().counts == {
        "send": {"ok": 1, "fail": 1, "info": 2},
        "append": {"ok": 1, "fail": 0, "info": 0},
        "create_topic": {"ok": 1, "fail": 0, "info": 0},
        "poll": {"ok": 2, "fail": 0, "info": 0},
    }


# ---- what is no history

_SEND = {
    "process": "c1/send1.0", "type": "invoke", "f": "send", "op": 1, "topic": "t", "partition": 0, "value": 1,
    "acks": "all", "idempotent": True,
}  # fmt: skip
_OK = {"process": "c1/send1.0", "type": "ok", "f": "send", "op": 1, "offset": 0, "leader_epoch": 0}
_READ = {"topic": "t", "partition": 0, "from": 0, "to": 1, "records": [[0, 1, 0]]}
_POLL = {"process": "r", "type": "ok", "f": "poll", "began": 0.0, "isolation": RU, "reads": [_READ]}
_END = {
    "process": "r", "type": "ok", "f": "end_offset", "began": 0.0, "isolation": RU, "topic": "t", "partition": 0,
    "offset": 1, "leader_epoch": 0,
}  # fmt: skip
_VIEW = {
    "process": "o", "type": "ok", "f": "view", "began": 0.0, "node": 1, "version": 1, "hash": "x", "controller": 1,
    "partitions": [["t", "id", 0, 1, 0, 0, [1], [], [1]]],
}  # fmt: skip


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _each_field_missing() -> list[list[dict[str, Any]]]:
    lines = []
    for line in (_SEND, _POLL, _END, _VIEW):
        lines += [[_without(line, name)] for name in line if name not in ("process", "type", "controller")]
    lines += [[_SEND, _without(_OK, name)] for name in _OK if name != "process"]
    lines += [[_POLL | {"reads": [_without(_READ, name)]}] for name in _READ]
    return lines


_TRIM = {"f": "trim", "type": "invoke", "process": "c", "op": 1, "topic": "t", "partition": 0, "before": 3}
_BROKEN = [
    *_each_field_missing(),
    [_SEND | {"f": "sned"}],
    [_SEND | {"acks": "some"}],
    [_SEND | {"value": "1"}],
    [_SEND | {"value": 2**70}],
    [_SEND | {"topic": 7}],
    [_SEND | {"partition": -1}],
    [_SEND, _SEND],
    [_SEND, _SEND | {"op": 2}],
    [_OK],
    [_SEND, _OK, _OK],
    [_SEND, _OK | {"type": "maybe"}],
    [_SEND, _OK | {"offset": "0"}],
    [_SEND, _OK | {"offset": -1}],
    [_SEND, _OK | {"leader_epoch": None}],
    [_SEND, _OK | {"f": "append"}],
    [_SEND | {"f": "append", "values": [], "expected": None}],
    [_SEND | {"f": "append", "values": [1], "expected": -1}],
    [_SEND | {"f": "append", "values": 5, "expected": None}],
    [_POLL | {"isolation": "some"}],
    [_POLL | {"began": "now"}],
    [_POLL | {"began": float("nan")}],
    [_POLL | {"reads": [7]}],
    [_POLL | {"reads": [_READ | {"from": -1}]}],
    [_POLL | {"reads": [_READ | {"to": None}]}],
    [_POLL | {"reads": [_READ | {"records": [[0, 1]]}]}],
    [_POLL | {"reads": [_READ | {"records": [["0", 1, 0]]}]}],
    [_POLL | {"reads": [_READ | {"records": [[-1, 1, 0]]}]}],
    [_POLL | {"reads": [_READ | {"records": [[0, "1", 0]]}]}],
    [_POLL | {"reads": [_READ | {"records": [[0, 1, None]]}]}],
    [_POLL | {"reads": [_READ | {"records": [[0.0, 1, 0]]}]}],
    [_POLL | {"reads": [_READ | {"records": 7}]}],
    [_POLL | {"time": 0.5}],
    [_END | {"offset": -1}],
    [_END | {"leader_epoch": "0"}],
    [_VIEW | {"partitions": [["t", "id"]]}],
    [_VIEW | {"version": None}],
    [_VIEW | {"partitions": [["t", [], 0, 1, 0]]}],
    [{"f": "describe_topic", "process": "c", "began": 0.0, "topic": "t", "exists": True, "topic_id": None}],
    [{"f": "create_topic", "type": "invoke", "process": "c", "op": 1, "topic": "t"}],
    [{"f": "create_topic", "type": "ok", "process": "c", "op": 1}],
    [{"f": "fault", "type": "info", "process": "nemesis", "phase": "inject"}],
    [{"f": "end_of_log", "type": "info", "process": "runner", "topic": "t", "partition": 0, "offset": -1}],
    [_TRIM, _TRIM],
    [_TRIM, _TRIM | {"type": "ok"}],
    [_TRIM | {"type": "ok", "log_start": 3}],
    [_TRIM | {"before": -1}],
    [_SEND | {"size": -1}],
    [_SEND | {"size": 1, "key": 7}],
    [{"f": "create_topic", "type": "invoke", "process": "c", "op": 1, "topic": "t", "partitions": 1, "config": 5}],
    [{"f": "start_offset", "type": "ok", "process": "c", "topic": "t", "partition": 0, "offset": 1, "began": 0.1}],
]


@pytest.mark.parametrize("lines", _BROKEN)
def test_what_is_no_history(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    path = tmp_path / "history.jsonl"
    fine = [_SEND | {"value": 9, "op": 9, "topic": "fine"}]
    text = [json.dumps({"time": number, **line}) for number, line in enumerate(fine + lines, 1)]
    path.write_text("\n".join(text) + "\n")
    with pytest.raises(HistoryError, match=rf"history\.jsonl:{len(text)}: "):
        check(path)


@pytest.mark.parametrize("text", ["{\n", "7\n", "[]\n", '{"time":1}\n', "\n", '{"f":"phase"}\n', '{"f":[],"time":1}\n'])
def test_what_is_no_entry(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"time":0.5,"f":"phase","name":"warm-up"}\n' + text + '{"time":2,"f":"phase","name":"end"}\n')
    with pytest.raises(HistoryError, match=r"history\.jsonl:2: "):
        check(path)


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(HistoryError, match="no text"):
        check(path)


def test_the_message_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"time": 1.0, **_without(_SEND, "acks")}) + "\n")
    with pytest.raises(HistoryError, match="no 'acks'"):
        check(path)
