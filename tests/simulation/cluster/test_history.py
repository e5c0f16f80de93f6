"""Each rule on histories made by hand: one that keeps it, and ones that break it."""

import pytest

from tests.simulation.cluster.history import (
    RULES,
    Appended,
    ConditionalAppendExact,
    Content,
    DefinitelyFailedIsAbsent,
    EndNeverGoesBack,
    EndSeen,
    History,
    MetadataReadYourWrites,
    NoAcknowledgedRecordLost,
    NoDuplicateOfIdempotentProducer,
    NothingChanged,
    NothingInvented,
    OrderWithinPartition,
    Outcome,
    Reading,
    ReadsAreAPrefix,
    RecordsStayInTheirTopic,
    Row,
    Rule,
    Sent,
    Spot,
    TopicChange,
    TopicSeen,
    Violation,
    check_all,
)

OLD, NEW = b"o" * 16, b"n" * 16
P0, P1 = Spot(OLD, 0), Spot(OLD, 1)


def sent(value: bytes, offset: int = -1, *, spot: Spot = P0, acks: str = "all", client: str = "c1.1") -> Sent:
    """Acknowledged where an offset is given, else of unknown outcome."""
    made = Sent(client, value, "orders", None, acks, acks == "all", 1.0, 2.0, Outcome.UNKNOWN)
    if offset >= 0:
        made.outcome, made.topic_id, made.at_partition, made.offset = Outcome.ACKED, *spot, offset
    return made


def content(*values: bytes, spot: Spot = P0, epoch: int = 1) -> Content:
    rows = [Row(offset, epoch, value) for offset, value in enumerate(values)]
    return Content({"orders": spot.topic_id}, {spot: rows})


def deleted(outcome: Outcome = Outcome.ACKED, began: float = 3.0, client: str = "a") -> TopicChange:
    return TopicChange(client, "delete", "orders", began, began + 1, outcome)


def created(topic_id: bytes, began: float, client: str = "a") -> TopicChange:
    return TopicChange(client, "create", "orders", began, began + 1, Outcome.ACKED, topic_id, 1)


def seen(topic_id: bytes | None, began: float, client: str = "a", partitions: int = 1) -> TopicSeen:
    return TopicSeen(client, "orders", topic_id, partitions, began, began + 1)


def reading(start: int, *values: bytes, spot: Spot = P0, epoch: int = 1) -> Reading:
    rows = [Row(start + index, epoch, value) for index, value in enumerate(values)]
    return Reading("c3.1", spot, "orders", start, rows)


def rows_read(*rows: Row) -> Reading:
    return Reading("c3.1", P0, "orders", 0, list(rows))


def in_both(first: Row, second: Row) -> Content:
    return Content({}, {P0: [first], P1: [second]})


def appended(*values: bytes, expected: int | None = None, offsets: tuple[int, ...] = ()) -> Appended:
    outcome = Outcome.ACKED if offsets else Outcome.UNKNOWN
    return Appended("c2.1", values, "orders", 0, expected, 1.0, 2.0, outcome, offsets)


def end(offset: int, began: float, client: str = "a", spot: Spot = P0) -> EndSeen:
    return EndSeen(client, spot, "orders", offset, began, began + 1)


def history(*operations: object) -> History:
    made = History()
    lists = {
        Sent: made.sent,
        Appended: made.appended,
        Reading: made.readings,
        EndSeen: made.ends,
        TopicChange: made.changes,
        TopicSeen: made.seen,
    }
    for operation in operations:
        lists[type(operation)].append(operation)  # type: ignore[attr-defined]  # each list is of its key's type
    return made


def failed(value: bytes) -> Sent:
    made = sent(value)
    made.outcome, made.error = Outcome.FAILED, "NOT_ENOUGH_REPLICAS"
    return made


RENEWED = Content({"orders": NEW}, {})
GOOD: list[tuple[History, Content]] = [
    (history(), Content()),
    (history(sent(b"1", 0), sent(b"2"), sent(b"3", 1), failed(b"4")), content(b"1", b"3")),
    (history(sent(b"1", 0), sent(b"2"), sent(b"3", 2)), content(b"1", b"2", b"3")),
    (history(sent(b"1", 0, acks="leader"), sent(b"2", 0)), content(b"2")),
    (history(sent(b"1", 0), deleted(), sent(b"2")), content(b"2", spot=Spot(NEW, 0))),
    (history(sent(b"1", 0), deleted(Outcome.UNKNOWN)), Content()),
    (history(sent(b"2", client="c1.2"), sent(b"1")), content(b"1", b"2")),
    (history(sent(b"1"), sent(b"2"), reading(0, b"1", b"2"), reading(1, b"2"), reading(2)), content(b"1", b"2")),
    (history(appended(b"1", b"2", expected=0, offsets=(0, 1)), appended(b"3", expected=0)), content(b"1", b"2")),
    (history(appended(b"1", expected=0), appended(b"2", b"3")), content(b"1", b"2", b"3")),
    (history(sent(b"1", 0), end(0, 1), end(1, 3), end(0, 3.5), end(1, 6)), content(b"1")),
    (history(sent(b"1", 0), end(1, 1), end(0, 3, "b"), end(0, 3, spot=Spot(NEW, 0)), deleted()), content(b"1")),
    (history(created(OLD, 1), seen(OLD, 3), deleted(began=5), seen(None, 7), created(NEW, 9), seen(NEW, 11)), RENEWED),
    (history(created(OLD, 1), seen(None, 3, "b"), seen(None, 1.5)), Content({"orders": OLD}, {})),
    (history(created(OLD, 1), deleted(Outcome.UNKNOWN), seen(None, 3.5), seen(OLD, 9)), Content()),
]  # fmt: skip


@pytest.mark.parametrize(("operations", "final"), GOOD)
def test_what_keeps_every_rule_passes(operations: History, final: Content) -> None:
    check_all(operations, final)


grown = TopicChange("a", "grow", "orders", 1.0, 2.0, Outcome.ACKED, OLD, 3)

BAD: list[tuple[type[Rule], History, Content]] = [
    (NoAcknowledgedRecordLost, history(sent(b"1", 0), sent(b"2", 1)), content(b"1")),
    (NoAcknowledgedRecordLost, history(sent(b"1", 0), sent(b"2", 1)), content(b"2")),
    (NoAcknowledgedRecordLost, history(sent(b"1", 0)), Content()),
    (NoAcknowledgedRecordLost, history(sent(b"1", 0), deleted()), content()),
    (NoAcknowledgedRecordLost, history(appended(b"1", offsets=(0,))), content()),
    (NothingChanged, history(sent(b"1"), sent(b"2"), reading(0, b"1")), content(b"2")),
    (NothingChanged, history(sent(b"1"), reading(0, b"1", epoch=2)), content(b"1")),
    (NothingChanged, history(sent(b"1"), sent(b"2"), reading(0, b"1"), reading(0, b"2")), Content()),
    (NothingChanged, history(sent(b"1", 0), reading(0, b"2"), deleted()), Content()),
    (NothingInvented, history(), content(b"1")),
    (NothingInvented, history(reading(0, b"1")), Content()),
    (NothingInvented, history(appended(b"1")), content(b"1", spot=P1)),
    (NothingInvented, history(sent(b"1")), Content({"others": OLD}, {P0: [Row(0, 1, b"1")]})),
    (RecordsStayInTheirTopic, history(sent(b"1", 0), deleted()), content(b"1", spot=Spot(NEW, 0))),
    (NoDuplicateOfIdempotentProducer, history(sent(b"1")), content(b"1", b"1")),
    (NoDuplicateOfIdempotentProducer, history(sent(b"1")), in_both(Row(0, 1, b"1"), Row(0, 1, b"1"))),
    (NoDuplicateOfIdempotentProducer, history(appended(b"1")), content(b"1", b"1")),
    (NoDuplicateOfIdempotentProducer, history(sent(b"1"), reading(1, b"1"), deleted()), content(b"1")),
    (OrderWithinPartition, history(sent(b"1"), sent(b"2")), content(b"2", b"1")),
    (ReadsAreAPrefix, history(sent(b"1"), reading(1, b"1")), content(b"1")),
    (ReadsAreAPrefix, history(sent(b"1"), reading(0, b"1")), content()),
    (ReadsAreAPrefix, history(sent(b"1"), reading(0, b"1")), Content()),
    (ReadsAreAPrefix, history(rows_read(Row(0, 1, b"1"), Row(2, 1, b"3"))), content(b"1", b"2", b"3")),
    (ReadsAreAPrefix, history(rows_read(Row(0, 1, b"1"), Row(0, 1, b"1"))), content(b"1")),
    (EndNeverGoesBack, history(end(1, 1), end(0, 3)), content(b"1")),
    (EndNeverGoesBack, history(end(2, 1)), content(b"1")),
    (EndNeverGoesBack, history(end(0, 1)), Content()),
    (ConditionalAppendExact, history(appended(b"1", expected=0)), content(b"0", b"1")),
    (ConditionalAppendExact, history(appended(b"1", expected=1, offsets=(0,))), Content()),
    (ConditionalAppendExact, history(appended(b"1", b"2", expected=0)), content(b"1")),
    (ConditionalAppendExact, history(appended(b"1", b"2")), content(b"1", b"0", b"2")),
    (ConditionalAppendExact, history(appended(b"1", b"2")), in_both(Row(0, 1, b"1"), Row(1, 1, b"2"))),
    (DefinitelyFailedIsAbsent, history(failed(b"1")), content(b"1")),
    (DefinitelyFailedIsAbsent, history(failed(b"1"), reading(0, b"1")), Content()),
    (MetadataReadYourWrites, history(created(OLD, 1), seen(None, 3)), Content({"orders": OLD}, {})),
    (MetadataReadYourWrites, history(created(OLD, 1)), Content()),
    (MetadataReadYourWrites, history(created(OLD, 1)), Content({"orders": NEW}, {})),
    (MetadataReadYourWrites, history(created(OLD, 1), deleted(began=3), seen(OLD, 5)), Content()),
    (MetadataReadYourWrites, history(created(OLD, 1), deleted(began=3)), Content({"orders": OLD}, {})),
    (MetadataReadYourWrites, history(deleted(began=1), created(OLD, 3), seen(None, 5)), Content({"orders": OLD}, {})),
    (MetadataReadYourWrites, history(grown, seen(OLD, 3, partitions=2)), Content({"orders": OLD}, {})),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "operations", "final"), BAD)
def test_what_breaks_a_rule_is_seen_by_it(rule: type[Rule], operations: History, final: Content) -> None:
    with pytest.raises(Violation):
        rule().check(operations, final)


def test_every_rule_has_a_history_that_breaks_it_and_the_breach_names_it() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)
    with pytest.raises(Violation, match=r"^DefinitelyFailedIsAbsent: b'1' failed \(NOT_ENOUGH_REPLICAS\)"):
        check_all(history(failed(b"1")), content(b"1"))
