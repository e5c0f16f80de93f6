"""The simulated network: a stream for each directed pair, in order; streams among each other in any order.

A cut breaks a stream at once, or lets it hang: then messages wait, as TCP has it, until the link heals or the stream is
given up. What was under way on a broken stream is lost, or still arrives until the sender's next stream fences it.
"""

import random
from heapq import heappush
from typing import Any

GIVE_UP_S = 2.0
ECHO_SHARE = 0.5  # of messages come twice, while they do


class Stream:
    """One connection from a node to another."""

    __slots__ = ("arrival", "held", "hung", "keeps", "network", "open", "receiver", "sender")

    def __init__(self, network: "Network", sender: int, receiver: int) -> None:
        self.network = network
        self.sender = sender
        self.receiver = receiver
        self.open = True
        self.hung = False
        self.keeps = False  # broken, but what is under way may still arrive
        self.held: list[Any] = []
        self.arrival = 0.0  # of the last message sent: none overtakes it

    def arrive(self, message: Any) -> None:
        """A message is there, unless the stream is not."""
        if self.open or self.keeps:
            if self.hung:
                self.held.append(message)
            else:
                self.network.deliver(self.receiver, self.sender, message)


class Network:
    """All streams. The world delivers, and is told when a stream opens or breaks."""

    def __init__(self, world: Any, seed: int) -> None:
        self.world = world
        self.deliver = world.deliver
        self._rng = random.Random(seed ^ 0x4E7)
        self._draw = self._rng.random
        self.streams: dict[tuple[int, int], Stream] = {}
        self.cuts: set[tuple[int, int]] = set()
        self.slow = False
        self.echoes_until = 0.0  # messages that can be repeated come twice
        self.lost_at: dict[tuple[int, int], float] = {}  # when messages of a pair may have been lost last

    def dial_soon(self, sender: int, receiver: int, at_most_s: float = 0.12) -> None:
        """Let a node dial another in a moment."""
        world = self.world
        world.at(world.now + at_most_s * (0.17 + 0.83 * self._rng.random()), self.connect, sender, receiver)

    def renew_soon(self, sender: int, receiver: int) -> None:
        """Let a node break its stream and dial anew, in a moment."""
        self.world.at(self.world.now + 0.03 * self._draw(), self.break_stream, sender, receiver)
        self.dial_soon(sender, receiver)

    def connect(self, sender: int, receiver: int) -> None:
        """Dial; nothing happens if the other is down or the link cut."""
        world = self.world
        stream = self.streams.get((sender, receiver))
        if (stream is not None and stream.open) or (sender, receiver) in self.cuts:
            return
        if not (world.is_up(sender) and world.is_up(receiver)):
            return
        if stream is not None:
            stream.keeps = False  # the new stream fences the old one
        self.streams[sender, receiver] = Stream(self, sender, receiver)
        self.lost_at[sender, receiver] = world.now
        world.notify(sender, receiver, up=True)

    def send(self, sender: int, receiver: int, message: Any) -> None:
        """Send a message, if there is a stream."""
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        world = self.world
        draw = self._draw()
        if draw < 0.9 or not self.slow:
            arrival = world.now + 0.001 + 0.004 * draw
        else:
            arrival = world.now + 0.02 + 0.4 * self._rng.random()
        if arrival <= stream.arrival:
            arrival = stream.arrival + 1e-6
        stream.arrival = arrival
        world.sequence += 1
        heappush(world.events, (arrival, world.sequence, stream.arrive, (message,)))
        if world.now < self.echoes_until and draw < ECHO_SHARE and not self._is_command(message):
            stream.arrival += 1e-6
            world.at(stream.arrival, stream.arrive, message)

    @staticmethod
    def _is_command(message: Any) -> bool:
        """A command that is taken twice is applied twice: that is why its transport must not repeat it."""
        return bool(message["type"] == "apply_command" if isinstance(message, dict) else message.HasField("forward"))

    def has_stream(self, sender: int, receiver: int) -> bool:
        """Whether messages can be sent."""
        stream = self.streams.get((sender, receiver))
        return stream is not None and stream.open

    def break_stream(self, sender: int, receiver: int, *, keeps: bool = False) -> None:
        """End a stream; the sender learns of it."""
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        stream.open, stream.hung, stream.keeps = False, False, keeps
        stream.held.clear()
        self.lost_at[sender, receiver] = self.world.now
        self.world.notify(sender, receiver, up=False)

    def cut(self, sender: int, receiver: int, *, hang: bool, keeps: bool) -> None:
        """No message passes this way from now on."""
        self.cuts.add((sender, receiver))
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        if hang:
            stream.hung = True
            self.world.at(self.world.now + GIVE_UP_S, self._give_up, stream)
        else:
            self.break_stream(sender, receiver, keeps=keeps)

    def _give_up(self, stream: Stream) -> None:
        if stream.hung and self.streams.get((stream.sender, stream.receiver)) is stream:
            self.break_stream(stream.sender, stream.receiver)

    def heal(self) -> None:
        """All messages pass again; what hung arrives."""
        for sender, receiver in sorted(self.cuts):
            stream = self.streams.get((sender, receiver))
            if stream is not None and stream.hung:
                stream.hung = False
                held, stream.held = stream.held, []
                for message in held:
                    stream.arrive(message)
            self.dial_soon(sender, receiver, 0.2)
        self.cuts.clear()

    def lose_node(self, node_id: int, *, silently: bool, keeps: bool) -> None:
        """A node is gone, and its streams; those to it end at once, or (power loss) when they are given up."""
        world = self.world
        for (sender, receiver), stream in self.streams.items():
            if sender == node_id:
                stream.open, stream.keeps = False, keeps and not silently
                stream.held.clear()
                self.lost_at[sender, receiver] = world.now
            elif receiver == node_id and stream.open:
                stream.hung = True
                world.at(world.now + (GIVE_UP_S if silently else 0.001), self._give_up, stream)
