"""One commit request at a time: the latest of each partition counts, every commit is settled once and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.errors import BufferFullError
from penstock.client.group import commit_queue
from penstock.client.group.commit_queue import CommitQueue
from penstock.client.records import CommitPoint, TopicPartition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.client.group.talk import partition

P0, P1 = partition(0), partition(1)
WHY = PenstockError(Reason.PARTITION_NOT_OWNED, "gone")


class Queue:
    def __init__(self) -> None:
        self.queue = CommitQueue()
        self.settled: list[tuple[str, set[TopicPartition]]] = []

    def add(self, name: str, **offsets: int) -> None:
        points = {P0 if p == "p0" else P1: CommitPoint(at) for p, at in offsets.items()}
        self.queue.add(points, lambda errors: self.settled.append((name, set(errors))))


def test_what_comes_while_one_is_under_way_is_merged_into_the_next() -> None:
    q = Queue()
    q.add("a", p0=1)
    first = q.queue.take()
    assert first is not None
    assert first.left == {P0: CommitPoint(1)}
    q.add("b", p0=2, p1=7)
    q.add("c", p0=3)
    assert q.queue.take() is None
    q.queue.settle({P0: None})
    second = q.queue.take()
    assert second is not None
    assert second.left == {P0: CommitPoint(3), P1: CommitPoint(7)}
    assert second.sequence > first.sequence
    q.queue.settle({P0: None, P1: None})
    assert q.settled == [("a", set()), ("b", set()), ("c", set())]
    assert not q.queue


def test_a_failure_is_told_to_all_who_committed_the_partition_and_to_nobody_else() -> None:
    q = Queue()
    q.add("a", p0=1)
    q.add("b", p1=1)
    q.queue.take()
    q.queue.settle({P0: WHY})
    assert q.settled == []
    q.queue.settle({P1: None})
    assert q.settled == [("a", {P0}), ("b", set())]


def test_what_the_member_has_no_more_is_not_sent_and_not_repeated() -> None:
    q = Queue()
    q.add("a", p0=1, p1=1)
    batch = q.queue.take()
    assert batch is not None
    q.add("b", p0=2)
    q.queue.drop([P0], WHY)
    assert batch.left == {P1: CommitPoint(1)}
    q.queue.settle({P1: None})
    following = q.queue.take()
    assert following is not None
    assert following.left == {}
    q.queue.settle({})
    assert q.settled == [("a", {P0}), ("b", {P0})]


def test_too_many_that_nobody_waits_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "MAX_WAITING", 3)
    q = Queue()
    for _ in range(3):
        q.queue.check_room()
        q.add("x", p0=1)
    with pytest.raises(BufferFullError):
        q.queue.check_room()
    q.add("y", p0=1)  # the last one before a partition is given up


@given(st.lists(st.sampled_from(["add0", "add1", "take", "good", "bad", "drop0"]), max_size=25))
def test_every_commit_is_settled_once_and_in_order(steps: list[str]) -> None:
    q, added, sequences = Queue(), 0, [0]
    batch = None
    for step in steps:
        if step.startswith("add"):
            q.add(str(added), **{f"p{step[-1]}": added})
            added += 1
        elif step == "take":
            taken = q.queue.take()
            if taken is not None:
                sequences.append(taken.sequence)
                batch = taken
        elif step == "drop0":
            q.queue.drop([P0], WHY)
        elif batch is not None:
            q.queue.settle(dict.fromkeys(list(batch.left), None if step == "good" else WHY))
    for _ in range(2):
        last = q.queue.take() or batch
        if last is not None:
            q.queue.settle(dict.fromkeys(list(last.left)))
    assert [name for name, _ in q.settled] == [str(number) for number in range(added)]
    assert sequences == sorted(set(sequences))
