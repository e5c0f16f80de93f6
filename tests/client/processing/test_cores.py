"""The pure cores of process(): order per key, commit positions, the window, giving partitions up, policies, headers."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.client import InvalidRequestError, Record, TopicPartition
from penstock.client.processing.core import STALL_MS, Limits, ProcessingCore
from penstock.client.processing.letters import MAX_MESSAGE_BYTES, MAX_STACK_BYTES, PREFIX, headers_of
from penstock.client.processing.options import ProcessConfig
from penstock.client.processing.policies import (
    Again,
    DeadLetter,
    Failure,
    HandlerError,
    Retry,
    Skip,
    Stop,
    decide,
)
from penstock.client.processing.progress import Work

P0, P1 = TopicPartition("orders", 0), TopicPartition("orders", 1)


def record(offset: int, key: bytes | None = None, partition: int = 0) -> Record:
    return Record("orders", partition, offset, 1000 + offset, key, b"v", (), 3)


def core(max_in_flight: int = 1000, *, any_order: bool = False) -> ProcessingCore:
    return ProcessingCore(Limits(max_in_flight, "any" if any_order else "partition"))


def begin_all(made: ProcessingCore, now_ms: int = 0) -> list[Work]:
    return list(iter(lambda: made.next(now_ms), None))


def offsets(works: Iterable[Work]) -> list[int]:
    return [work.record.offset for work in works]


class Model:
    """Drives a core at random, as the shell does, and holds it to what it promises."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.core = core(self.rng.choice([1, 3, 1000]), any_order=self.rng.random() < 0.5)
        self.any_order = self.core._limits.keyless == "any"
        self.running: list[Work] = []
        self.ended: dict[TopicPartition, set[int]] = defaultdict(set)
        self.taken: dict[TopicPartition, int] = {}
        self.last_of_key: dict[tuple[int, bytes | None], int] = {}
        self.now_ms = 0

    def take(self) -> None:
        partition = self.rng.choice([P0, P1])
        count = min(self.core.room, self.rng.randint(1, 5))
        for _ in range(count):
            offset = self.taken.get(partition, -1) + self.rng.choice([1, 1, 3])
            self.taken[partition] = offset
            key = self.rng.choice([None, b"a", b"b", b"c"])
            self.core.add([record(offset, key, partition.partition)], self.now_ms)

    def begin(self) -> None:
        work = self.core.next(self.now_ms)
        if work is None:
            return
        key = work.record.key
        if key is not None or not self.any_order:
            beside = [(w.record.partition, w.record.key) for w in self.running]
            assert (work.record.partition, key) not in beside
            lane = (work.record.partition, key)
            assert work.record.offset >= self.last_of_key.get(lane, -1)
            assert work.attempts > 1 or work.record.offset > self.last_of_key.get(lane, -1)
            self.last_of_key[lane] = work.record.offset
        self.running.append(work)

    def end(self) -> None:
        if not self.running:
            return
        work = self.running.pop(self.rng.randrange(len(self.running)))
        if self.rng.random() < 0.3:
            self.core.postpone(work, self.now_ms + self.rng.randint(0, 20))
        else:
            self.core.finish(work, self.now_ms)
            self.ended[TopicPartition("orders", work.record.partition)].add(work.record.offset)

    def commit(self) -> None:
        points = self.core.to_commit()
        for partition, point in points.items():
            below = {offset for offset in self.ended[partition] if offset < point.offset}
            assert self.taken_below(partition, point.offset) == below
            assert point.leader_epoch == 3
        if self.rng.random() < 0.7:
            self.core.committed(points)

    def taken_below(self, partition: TopicPartition, offset: int) -> set[int]:
        """Offsets of records that were given to the core: those that ended, run or wait."""
        progress = self.core._progress[partition]
        waiting = {work.record.offset for work in progress._works if not work.done}
        return {o for o in waiting | self.ended[partition] if o < offset}

    def step(self) -> None:
        self.now_ms += self.rng.randint(0, 5)
        self.rng.choice([self.take, self.begin, self.begin, self.end, self.end, self.commit])()
        assert self.core.room >= 0


@given(st.integers(0, 1 << 32))
@settings(max_examples=150)
def test_keys_keep_their_order_and_only_what_is_done_is_committed(seed: int) -> None:
    model = Model(seed)
    for _ in range(120):
        model.step()
    while model.core.in_flight:  # what was taken comes to its end, without help
        model.now_ms += 5
        model.begin()
        model.end()
    model.core.committed({})
    final = {partition: point.offset for partition, point in model.core.to_commit().items()}
    for partition, last in model.taken.items():
        assert model.core.positions()[partition] == last + 1
        assert final.get(partition, last + 1) == last + 1


def test_a_record_that_is_not_done_holds_the_commit_position() -> None:
    made = core(any_order=True)
    made.add([record(offset) for offset in (4, 5, 9)], 0)
    first, second, third = begin_all(made)
    made.finish(second, 0)
    made.finish(third, 0)
    assert made.to_commit() == {}
    assert made.positions() == {P0: 4}
    made.finish(first, 0)
    assert made.to_commit() == {P0: (10, 3, "")}
    made.committed(made.to_commit())
    assert made.to_commit() == {}


def test_without_a_key_the_order_is_the_partitions_unless_any_will_do() -> None:
    ordered, free = core(), core(any_order=True)
    for made in (ordered, free):
        made.add([record(0), record(1), record(0, None, 1), record(2, b"k")], 0)
    assert len(begin_all(ordered)) == 3
    assert len(begin_all(free)) == 4


def test_a_key_waits_for_its_record_that_is_tried_again_and_others_do_not() -> None:
    made = core()
    made.add([record(0, b"a"), record(1, b"a"), record(2, b"b")], 0)
    first, other = begin_all(made)
    made.postpone(first, 100)
    made.finish(other, 0)
    assert begin_all(made, 99) == []
    assert made.next_due_ms == 100
    assert begin_all(made, 100) == [first]
    assert first.attempts == 2
    made.finish(first, 100)
    assert offsets(begin_all(made, 100)) == [1]


def test_the_window_bounds_what_lies_behind_a_slow_record_too() -> None:
    made = core(max_in_flight=4, any_order=True)
    made.add([record(offset) for offset in range(4)], 0)
    slow, *quick = begin_all(made)
    for work in quick:
        made.finish(work, 0)
    assert made.room == 0  # three are done, and none can be committed
    made.finish(slow, 0)
    assert made.room == 4


def test_a_partition_that_stalls_is_set_aside_and_taken_back() -> None:
    made = core(max_in_flight=10)
    made.add([record(offset, b"k") for offset in range(10)], 0)
    work = made.next(0)
    assert made.set_aside(STALL_MS - 1, 2) == []
    assert made.set_aside(STALL_MS, 1) == []  # nobody to starve
    assert made.set_aside(STALL_MS, 2) == [P0]
    assert made.room == 10
    made.add([record(0, b"k", 1)], STALL_MS)
    assert made.room == 9
    assert made.take_back(2) == []
    while made.in_flight > 2:
        assert work is not None
        made.finish(work, STALL_MS)
        work = made.next(STALL_MS)
    assert made.take_back(2) == [P0]
    assert made.room == 10 - 2


def test_draining_finishes_what_was_begun_and_what_lies_before_it() -> None:
    made = core()
    made.add([record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"b"), record(0, b"a", 1)], 0)
    a, b, other = begin_all(made)
    made.drain([P0])
    made.finish(b, 0)
    assert begin_all(made) == []  # 3 was dropped
    made.finish(a, 0)
    (second,) = begin_all(made)  # 1 lies before 2, which is done: without it 2 would come again
    assert offsets([second]) == [1]
    assert not made.is_drained([P0])
    made.finish(second, 0)
    assert made.is_drained([P0])
    assert made.to_commit([P0]) == {P0: (3, 3, "")}
    assert not made.is_drained([P1])
    made.finish(other, 0)


def test_cutting_begins_nothing_any_more_not_even_what_was_to_be_tried_again() -> None:
    made = core()
    made.add([record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"c")], 0)
    a, b, c = begin_all(made)
    made.postpone(a, 50)
    made.finish(c, 0)
    made.cut([P0])
    assert begin_all(made, 50) == []
    made.postpone(b, 60)
    assert begin_all(made, 60) == []
    assert made.is_drained([P0])
    assert made.to_commit() == {}
    assert made.positions() == {P0: 0}


def test_what_is_lost_is_not_committed_and_its_key_waits_for_the_handler_that_still_runs() -> None:
    made = core()
    made.add([record(0, b"a"), record(1, b"b")], 0)
    a, b = begin_all(made)
    made.finish(a, 0)
    assert made.lose([P0]) == [b]
    assert made.to_commit() == {}
    made.add([record(1, b"b"), record(2, b"a")], 0)  # it came back
    (again,) = begin_all(made)
    assert offsets([again]) == [2]
    made.finish(again, 0)
    made.finish(b, 0)
    assert made.to_commit() == {}  # b was done for the former stay
    assert offsets(begin_all(made)) == [1]


def test_a_seek_backwards_begins_anew() -> None:
    made = core()
    made.add([record(5), record(6)], 0)
    (five,) = begin_all(made)
    made.finish(five, 0)
    made.committed(made.to_commit())
    made.add([record(2), record(3)], 0)
    assert made.positions() == {P0: 2}
    (two,) = begin_all(made)
    made.finish(two, 0)
    assert made.to_commit() == {P0: (3, 3, "")}


def failure(attempts: int, stage: str = "handle", error: BaseException | None = None) -> Failure:
    return Failure(record(7), error or ValueError("no"), attempts, stage)  # type: ignore[arg-type]  # a Literal


@pytest.mark.parametrize("end", [Stop(), Skip(), DeadLetter("dead")])
def test_retries_double_up_to_the_bound_and_then_the_end_comes(end: Stop | Skip | DeadLetter) -> None:
    policy = Retry(4, backoff_ms=100, max_backoff_ms=250, then=end)
    assert [decide(policy, failure(n), 0.0) for n in (1, 2, 3)] == [Again(50), Again(100), Again(125)]
    assert decide(policy, failure(1), 0.999) == Again(100)
    assert decide(policy, failure(4), 0.5) is end
    assert decide(policy, failure(0, "parse"), 0.5) is end
    assert decide(end, failure(1), 0.5) is end
    assert decide(policy, failure(1, error=SystemExit(1)), 0.5) == Stop()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retry(0),
        lambda: Retry(backoff_ms=10, max_backoff_ms=5),
        lambda: Retry(then=Retry()),  # type: ignore[arg-type]  # what is tested
        lambda: Skip(on_skip=asyncio.sleep),  # type: ignore[arg-type]  # what is tested
        lambda: ProcessConfig(concurrency=0),
        lambda: ProcessConfig(max_in_flight=0),
        lambda: ProcessConfig(commit_interval_ms=0),
        lambda: ProcessConfig(keyless="none"),  # type: ignore[arg-type]  # what is tested
        lambda: ProcessConfig(on_failure="skip"),  # type: ignore[arg-type]  # what is tested
        lambda: ProcessConfig(on_failure=Skip),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError):
        wrong()


def test_a_dead_letter_says_where_it_came_from_and_why() -> None:
    raised = raise_deep("x" * 5000 + "\udcff")
    told = failure(3, error=raised)._replace(record=record(7)._replace(headers=[("trace", b"1"), ("none", None)]))
    own, added = headers_of(told, "billing")[:2], dict(headers_of(told, "billing")[2:])
    assert own == [("trace", b"1"), ("none", None)]
    values = {name.removeprefix(PREFIX): value for name, value in added.items()}
    stack = values.pop("stack")
    message = values.pop("message")
    assert values == {
        "topic": b"orders",
        "partition": b"0",
        "offset": b"7",
        "timestamp-ms": b"1007",
        "group": b"billing",
        "stage": b"handle",
        "attempts": b"3",
        "exception": b"KeyError",
    }
    assert message is not None
    assert stack is not None
    assert len(message) == MAX_MESSAGE_BYTES
    assert len(stack) == MAX_STACK_BYTES


def raise_deep(text: str) -> BaseException:
    try:
        {}[text]  # type: ignore[index]  # what is tested
    except KeyError as error:
        return error
    raise AssertionError


def test_the_error_of_a_handler_names_the_record_and_the_cause() -> None:
    assert str(HandlerError(failure(2))) == (
        "the record at orders-0 offset 7 failed in its handler (2 attempts): ValueError: no"
    )
    assert "cannot be parsed" in str(HandlerError(failure(0, "parse")))
