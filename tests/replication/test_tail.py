"""The newest batches of a partition in memory, and what compaction takes out of them."""

from penstock.node.replication.tail import Tail, TailBudget
from tests.storage.support import batch


def test_what_compaction_has_rewritten_is_read_from_the_store() -> None:
    tail = Tail(TailBudget(1 << 20), 0)
    for at in range(0, 12, 3):
        tail.add(batch(at, [1, 2, 3]))
    tail.on_durable(9)
    tail.drop_below(7)
    assert tail.start_offset == 6
    assert tail.read(0, 12, 1 << 20) is None
    assert [held.base_offset for held in tail.read(6, 12, 1 << 20) or ()] == [6, 9]
    tail.drop_below(100)
    assert tail.start_offset == 9, "what is not durable yet stays"
    assert tail.end_offset == 12
