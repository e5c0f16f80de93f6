"""gRPC in memory: what the project's code needs of grpc.aio, over the simulated network.

The parts: `rpc_channel` (SimChannel), `rpc_client` and `rpc_call` (its calls), `rpc_server` (SimServer), `rpc_context`
(its calls) and `rpc_wire` (frames, windows and deadlines, which both sides share).
"""

import asyncio

from tests.simulation.kernel.network import End, Network
from tests.simulation.kernel.rpc_channel import SimChannel
from tests.simulation.kernel.rpc_server import SimServer

__all__ = ["SimChannel", "SimServer", "refuses"]


async def refuses(network: Network, host: str, target_host: str, port: int, timeout_s: float) -> bool:
    """Whether nobody listens there, as node.peers.refuses. A time-out says nothing."""
    loop = asyncio.get_running_loop()
    refused: asyncio.Future[bool] = loop.create_future()

    def answered(answer: End | str) -> None:
        if isinstance(answer, End):
            answer.close()
        if not loop.is_closed():
            loop.call_soon(settle, answer == "refused")

    def settle(answer: bool) -> None:
        if not refused.done():
            refused.set_result(answer)

    dial = network.connect(host, target_host, port, answered)
    try:
        async with asyncio.timeout(timeout_s):
            return await refused
    except TimeoutError:
        return False
    finally:
        dial.give_up()
