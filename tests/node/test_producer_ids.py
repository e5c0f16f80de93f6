"""Rule 15: an id is given out only when it is surely nobody else's."""

import asyncio

import pytest

from penstock.node.producer_ids import BLOCK, ProducerIds
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason


class Allocator:
    """The controller's counter: what it has answered is committed."""

    def __init__(self) -> None:
        self.next_id = 0
        self.fails = False

    async def __call__(self, count: int, timeout_s: float) -> range:
        await asyncio.sleep(0)
        first, self.next_id = self.next_id, self.next_id + count
        if self.fails:  # its answer is lost: the block is gone, and nobody's
            raise PenstockError(Reason.OUTCOME_UNKNOWN, "no answer")
        return range(first, first + count)


async def test_rule_15_ids_come_from_committed_blocks_and_each_once_on_all_nodes_and_restarts() -> None:
    controller = Allocator()
    nodes = [ProducerIds(controller), ProducerIds(controller)]
    given = list(await asyncio.gather(*(nodes[turn % 2].next(1) for turn in range(2 * BLOCK + 10))))
    restarted = ProducerIds(controller)  # what is left of its former block is never used
    given += [await restarted.next(1) for _ in range(5)]
    assert len(set(given)) == len(given)
    assert max(given) < controller.next_id == 5 * BLOCK


async def test_rule_15_a_lost_answer_gives_out_nothing() -> None:
    controller = Allocator()
    ids = ProducerIds(controller)
    controller.fails = True
    with pytest.raises(PenstockError):
        await ids.next(1)
    controller.fails = False
    assert await ids.next(1) == BLOCK
