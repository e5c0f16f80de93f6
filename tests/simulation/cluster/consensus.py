"""A node's member of the Raft cluster in a world: the real RaftNode and RaftMachine, without thread and gRPC.

A round runs when something arrived and when the machine's next deadline is due, as the consensus thread does. Messages
go over connections of the simulated network: a stream for each directed pair, and back over the stream that an
observer dialed, as the real transport has it; a peer's new stream ends its former one. In some worlds they go through
the real transport, over simulated gRPC.
"""

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc

from penstock.raft.cluster import RaftConfig, RaftNode, StateMachine
from penstock.raft.core import clock
from penstock.raft.journal import Identity, RaftJournal
from penstock.raft.machine import Connected, Disconnected, Event, RaftMachine, Received
from penstock.raft.outbox import Message
from penstock.raft.transport import Inbox, PeerTransport
from tests.simulation.kernel.network import End, Network
from tests.simulation.kernel.rpc import SimChannel

RAFT_PORT = 1
"""Where a host's consensus streams are accepted."""
HEARTBEAT_S = 0.14
REDIAL_S = 0.1
DIAL_TIMEOUT_S = 1.0


class Streams:
    """What carries a machine's messages: an Outbox's Wire."""

    def __init__(
        self, identity: Identity, network: Network, loop: asyncio.AbstractEventLoop, deliver: Callable[[Event], None]
    ) -> None:
        self.identity = identity
        self.on_send: Callable[[int, Message], None] = lambda _peer, _message: None
        self._network = network
        self._host = host_of(identity.node_id)
        self._loop = loop
        self._deliver = deliver
        self._voters: dict[int, None] = {}
        self._out: dict[int, End] = {}
        self._in: dict[int, End] = {}
        self._dialing: dict[int, int] = {}
        self._attempts = 0
        network.listen(self._host, RAFT_PORT, self._accept)

    # ---- Wire

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        for peer, message in batch:
            end = self._out.get(peer)
            if end is not None:
                self.on_send(peer, message)
                end.send(message)

    def has_room(self, peer: int) -> bool:
        return peer in self._out

    def set_voters(self, addresses: dict[int, str]) -> None:
        for peer in sorted(set(addresses) - self._voters.keys()):
            self._loop.call_soon(self._dial, peer)
        dropped = [peer for peer in self._voters if peer not in addresses]
        self._voters = dict.fromkeys(sorted(addresses))
        for peer in dropped:
            self._loop.call_soon(self._drop, peer)

    def _drop(self, peer: int) -> None:
        """Nobody is dialed that is no voter; it is sent to over the stream that it dialed."""
        end = self._out.get(peer)
        if peer not in self._voters and end is not None and end not in self._in.values():
            self._lost(peer, end)
        if peer in self._in:
            self._answer_over(peer, self._in[peer])

    # ---- streams that this node dials

    def _dial(self, peer: int) -> None:
        if peer not in self._voters or peer in self._dialing:
            return
        end = self._out.get(peer)
        if end is not None and end in self._in.values():  # it became a voter: it is dialed from now on
            self._lost(peer, end)
        elif end is not None:
            return
        self._attempts += 1
        attempt = self._dialing[peer] = self._attempts
        self._network.connect(self._host, host_of(peer), RAFT_PORT, lambda got: self._dialed(peer, attempt, got))
        self._loop.call_later(DIAL_TIMEOUT_S, self._missed, peer, attempt)

    def _dialed(self, peer: int, attempt: int, got: "End | str") -> None:
        if isinstance(got, End):
            got.on_close = lambda _: self._call(self._lost, peer, got)
            got.on_frame = lambda frame: self._call(self._received, peer, got, frame)
        self._call(self._connected, peer, attempt, got)

    def _connected(self, peer: int, attempt: int, got: "End | str") -> None:
        if self._dialing.get(peer) != attempt or not isinstance(got, End):
            if isinstance(got, End):
                got.close()
            elif self._dialing.get(peer) == attempt:
                self._missed(peer, attempt)
            return
        del self._dialing[peer]
        if peer not in self._voters:
            got.close()
            return
        self._out[peer] = got
        got.send(self.identity.node_id)
        self._deliver(Connected(peer))

    def _missed(self, peer: int, attempt: int) -> None:
        if self._dialing.get(peer) == attempt:
            del self._dialing[peer]
            self._loop.call_later(REDIAL_S, self._dial, peer)

    def _lost(self, peer: int, end: End) -> None:
        end.close()
        if self._out.get(peer) is end:
            del self._out[peer]
            self._deliver(Disconnected(peer))
            self._loop.call_later(REDIAL_S, self._dial, peer)

    # ---- streams that peers dial

    def _accept(self, end: End) -> None:
        def first(peer: int) -> None:
            end.on_frame = lambda frame: self._call(self._received, peer, end, frame)
            end.on_close = lambda _: self._call(self._gone, peer, end)
            self._call(self._welcome, end, peer)

        end.on_frame = first

    def _welcome(self, end: End, peer: int) -> None:
        former = self._in.get(peer)
        if former is not None:
            self._gone(peer, former)
        self._in[peer] = end
        if peer not in self._voters:
            self._answer_over(peer, end)

    def _answer_over(self, peer: int, end: End) -> None:
        if peer not in self._out and peer not in self._voters and self._in.get(peer) is end:
            self._out[peer] = end
            self._deliver(Connected(peer))

    def _gone(self, peer: int, end: End) -> None:
        end.close()
        if self._in.get(peer) is end:
            del self._in[peer]
        if self._out.get(peer) is end:
            self._lost(peer, end)

    def _received(self, peer: int, end: End, message: Message) -> None:
        if self._in.get(peer) is end or self._out.get(peer) is end:
            self._deliver(Received(peer, message))

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon(function, *arguments)


class SimRaft(RaftNode):
    """RaftNode whose rounds run on the node's own event loop."""

    def __init__(
        self, config: RaftConfig, machine: StateMachine, network: Network, open_journal: Callable[[], RaftJournal]
    ) -> None:
        super().__init__(dataclasses.replace(config, heartbeat_s=HEARTBEAT_S), machine)
        self.settings: dict[str, Any] = {}
        """Of RaftConfig, to be set before the start."""
        self.lost_power: tuple[type[Exception], Callable[[], None]] = (Exception, lambda: None)
        """What the journal's disk raises when the power goes in a commit, and what then happens."""
        self.has_real_transport = False
        """Messages go through raft.transport and gRPC, as in production; else over plain streams, which are faster."""
        self.after_round: Callable[[SimRaft], None] = lambda _: None
        self.on_send: Callable[[SimRaft, int, Message], None] = lambda _node, _peer, _message: None
        self._network = network
        self._open_journal = open_journal
        self._round_due = False
        self._deadline: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.journal = self._open_journal()
        self._wake = _Wake(self._due)  # type: ignore[assignment]
        self._inbox = Inbox(self._deliver)
        self._transport = self._new_transport()  # type: ignore[assignment]
        self.config = dataclasses.replace(self.config, **self.settings)
        self.raft = self._build(self.journal)
        self._running = True
        if isinstance(self._transport, PeerTransport):
            self._servicer.transport = self._transport
        self._publish(self.raft, self.journal)
        self._due()

    def _new_transport(self) -> "Streams | SimTransport":
        identity = self.journal.identity
        if self.has_real_transport:
            return SimTransport(self, identity, self._inbox, self._rng, self._network)
        streams = Streams(identity, self._network, self._loop, self._arrived)
        streams.on_send = lambda peer, message: self.on_send(self, peer, message)
        return streams

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        self._servicer.transport = None
        self._abandon_waiting("this node is stopping")
        if isinstance(self._transport, PeerTransport):
            self._inbox.room.set()
            await self._transport.stop()
        try:
            self.journal.close()
        except self.lost_power[0]:
            self.lost_power[1]()
        self._network.unlisten(host_of(self.config.node_id), RAFT_PORT)

    def _arrived(self, event: Event) -> None:
        self._events.append(event)
        self._due()

    def _due(self) -> None:
        if not self._round_due:
            self._round_due = True
            self._loop.call_soon(self._one_round)

    def _one_round(self) -> None:
        self._round_due = False
        if not self._running:
            return
        try:
            self._turn(self.raft, self.journal)
        except self.lost_power[0]:
            self._running = False
            self.lost_power[1]()
            return
        except Exception as error:  # noqa: BLE001  as the consensus thread has it
            self._fail(error, self._loop.create_future())
            return
        self.after_round(self)
        if self.raft.busy or self._events:
            self._due()
            return
        self._set_deadline()

    def _turn(self, machine: RaftMachine, journal: RaftJournal) -> None:
        events = [self._events.popleft() for _ in range(len(self._events))]
        machine.round(events)
        self._publish(machine, journal)

    def _set_deadline(self) -> None:
        machine: Any = self.raft
        if self._deadline is not None:
            self._deadline.cancel()
        leads = machine._isLeader()
        due = machine._SyncObj__newAppendEntriesTime if leads else machine._SyncObj__raftElectionDeadline
        left = due - clock()  # over, and no reason to act (no vote may be cast): as the thread, look again at each tick
        self._deadline = self._loop.call_later(left + 1e-6 if left > 0 else self.config.tick_s, self._due)


class SimTransport(PeerTransport):
    """The real transport, over simulated gRPC."""

    def __init__(self, raft: SimRaft, identity: Identity, inbox: Inbox, rng: random.Random, network: Network) -> None:
        super().__init__(identity, {}, None, inbox, rng)
        self._raft = raft
        self._network = network

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        for peer, message in batch:
            if peer in self._queues:
                self._raft.on_send(self._raft, peer, message)
        super().post(batch)

    def channel(self, address: str) -> grpc.aio.Channel:
        return cast("grpc.aio.Channel", SimChannel(self._network, host_of(self.identity.node_id), address))


class _Wake:
    """Stands for the event that wakes the consensus thread."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due

    def is_set(self) -> bool:
        return False

    def set(self) -> None:
        self._due()


def host_of(node_id: int) -> str:
    """Name of a node's host."""
    return f"n{node_id}"
