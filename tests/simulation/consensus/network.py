"""The simulated network: a stream for each directed pair, in order; streams among each other in any order.

A cut breaks a stream at once, or lets it hang: then messages wait, as TCP has it, until the link heals or the stream is
given up. What was under way on a broken stream is lost, or still arrives until the sender's next stream fences it.
"""

import random
from typing import Any

GIVE_UP_S = 2.0


class Stream:
    """One connection from a node to another."""

    __slots__ = ("arrival", "held", "hung", "keeps", "open", "receiver", "sender")

    def __init__(self, sender: int, receiver: int) -> None:
        self.sender = sender
        self.receiver = receiver
        self.open = True
        self.hung = False
        self.keeps = False  # broken, but what is under way may still arrive
        self.held: list[Any] = []
        self.arrival = 0.0  # of the last message sent: none overtakes it


class Network:
    """All streams. `at(time, function, *arguments)` schedules; `deliver` and `notify` are the world's."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._rng: random.Random = world.rng
        self.streams: dict[tuple[int, int], Stream] = {}
        self.cuts: set[tuple[int, int]] = set()
        self.slow = False

    def _latency(self) -> float:
        draw = self._rng.random()
        if draw < 0.9 or not self.slow:
            return 0.001 + 0.004 * draw
        return 0.02 + 0.4 * self._rng.random()

    def connect(self, sender: int, receiver: int) -> None:
        """Dial; nothing happens if the other is down or the link cut."""
        world = self._world
        stream = self.streams.get((sender, receiver))
        if (stream is not None and stream.open) or (sender, receiver) in self.cuts:
            return
        if not (world.is_up(sender) and world.is_up(receiver)):
            return
        if stream is not None:
            stream.keeps = False  # the new stream fences the old one
        self.streams[sender, receiver] = Stream(sender, receiver)
        world.notify(sender, receiver, up=True)

    def send(self, sender: int, receiver: int, message: Any) -> None:
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        if stream.hung:
            stream.held.append(message)
            return
        self._dispatch(stream, message)

    def _dispatch(self, stream: Stream, message: Any) -> None:
        world = self._world
        stream.arrival = max(stream.arrival + 1e-6, world.now + self._latency())
        world.at(stream.arrival, self._arrive, stream, message)

    def _arrive(self, stream: Stream, message: Any) -> None:
        if stream.open or stream.keeps:
            if stream.hung:
                stream.held.append(message)
            else:
                self._world.deliver(stream.receiver, stream.sender, message)

    def has_stream(self, sender: int, receiver: int) -> bool:
        stream = self.streams.get((sender, receiver))
        return stream is not None and stream.open

    def break_stream(self, sender: int, receiver: int, *, keeps: bool = False) -> None:
        """End a stream; the sender learns of it."""
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        stream.open, stream.hung, stream.keeps = False, False, keeps
        stream.held.clear()
        self._world.notify(sender, receiver, up=False)

    def cut(self, sender: int, receiver: int, *, hang: bool) -> None:
        """No message passes this way from now on."""
        self.cuts.add((sender, receiver))
        stream = self.streams.get((sender, receiver))
        if stream is None or not stream.open:
            return
        if hang:
            stream.hung = True
            self._world.at(self._world.now + GIVE_UP_S, self._give_up, stream)
        else:
            self.break_stream(sender, receiver, keeps=self._rng.random() < 0.5)

    def _give_up(self, stream: Stream) -> None:
        if stream.hung and self.streams.get((stream.sender, stream.receiver)) is stream:
            self.break_stream(stream.sender, stream.receiver)

    def heal(self, sender: int, receiver: int) -> None:
        """Messages pass again; what hung arrives."""
        self.cuts.discard((sender, receiver))
        stream = self.streams.get((sender, receiver))
        if stream is not None and stream.hung:
            stream.hung = False
            held, stream.held = stream.held, []
            for message in held:
                self._dispatch(stream, message)
        self._world.at(self._world.now + 0.2 * self._rng.random(), self.connect, sender, receiver)

    def lose_node(self, node_id: int, *, silently: bool) -> None:
        """A node is gone, and its streams; those to it end at once, or (power loss) when they are given up."""
        for (sender, receiver), stream in self.streams.items():
            if sender == node_id:
                stream.open, stream.keeps = False, not silently and self._rng.random() < 0.5
                stream.held.clear()
            elif receiver == node_id and stream.open:
                stream.hung = True
                delay = GIVE_UP_S if silently else 0.001
                self._world.at(self._world.now + delay, self._give_up, stream)
