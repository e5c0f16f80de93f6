"""The whole of consensus: real nodes, real gRPC on loopback, real journals."""

import asyncio
from pathlib import Path

from tests.raft.members import Members, until


async def test_commands_from_every_node_are_applied_on_every_node_in_one_order(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        await cluster.leader()
        nodes = [member.node for member in cluster.members.values()]
        answers = await asyncio.gather(
            *(nodes[i % 3].submit(f"command {i}".encode(), timeout_s=20) for i in range(300))
        )
        assert sorted(int(answer.result) for answer in answers) == list(range(1, 301))
        last = max(answer.index for answer in answers)
        await until(lambda: all(node.applied_index >= last for node in nodes))
        ledgers = [member.ledger.commands for member in cluster.members.values()]
        assert len(ledgers[0]) == 300
        assert ledgers[0] == ledgers[1] == ledgers[2]
