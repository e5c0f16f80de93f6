"""Rule 5 between leader and controller: what is sent again, what the view decides, what is final."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from penstock.internal.v1 import controller_pb2, metadata_pb2
from penstock.node.replication import proposals
from penstock.node.replication.events import IsrProposal
from penstock.node.replication.proposals import Proposals
from penstock.node.replication.shell import ReplicaShell
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.storage import PartitionKey

PROPOSAL = IsrProposal(1, 5, 7, (1, 2, 3), ((3, 13),), ())


class Leader:
    """What Proposals needs of a replica that leads."""

    def __init__(self) -> None:
        self.key = PartitionKey(bytes(16), 0)
        self.node_id = 1
        self.core = SimpleNamespace(leader=SimpleNamespace(pending=PROPOSAL, leader_epoch=5))
        self.refused: list[IsrProposal] = []

    def on_proposal_refused(self, proposal: IsrProposal) -> None:
        self.refused.append(proposal)


class Controller:
    """Answers as it is told; None: the answer is lost."""

    def __init__(self, *answers: "metadata_pb2.Refusal.ValueType | None") -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.done = asyncio.Event()

    async def __call__(self, request: controller_pb2.AlterPartitionsRequest) -> controller_pb2.AlterPartitionsResponse:
        self.asked.append(request.SerializeToString(deterministic=True))
        answer = self.answers.pop(0)
        if not self.answers:
            self.done.set()
        if answer is None:
            raise PenstockError(Reason.OUTCOME_UNKNOWN, "no answer")
        return controller_pb2.AlterPartitionsResponse(changes=[metadata_pb2.ChangeResult(refusal=answer)])


async def settled(controller: Controller) -> list[IsrProposal]:
    """Propose once; what the leader heard of refusals when all answers were given."""
    leader = Leader()
    queue = Proposals(controller, lambda error: pytest.fail(str(error)))
    queue.propose(cast("ReplicaShell", leader), PROPOSAL)
    await controller.done.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    await queue.close()
    return leader.refused


@pytest.mark.parametrize("name", ["UNSPECIFIED", "STALE", "NOT_LEADER", "UNKNOWN_TOPIC", "UNKNOWN_PARTITION"])
async def test_rule_5_what_the_view_will_show_releases_nothing(name: str) -> None:
    assert await settled(Controller(metadata_pb2.Refusal.Value(f"REFUSAL_{name}"))) == []


@pytest.mark.parametrize("name", ["INELIGIBLE_MEMBER", "INVALID"])
async def test_rule_5_a_final_refusal_is_told_to_the_leader(name: str) -> None:
    assert await settled(Controller(metadata_pb2.Refusal.Value(f"REFUSAL_{name}"))) == [PROPOSAL]


async def test_rule_5_without_an_answer_the_same_change_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "RETRY_PAUSE_MS", 0)
    controller = Controller(None, None, metadata_pb2.REFUSAL_UNSPECIFIED)
    assert await settled(controller) == []
    assert len(controller.asked) == 3
    assert len(set(controller.asked)) == 1
