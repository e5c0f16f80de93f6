"""The simulated network: hosts by name, links between them by direction, connections in order over two links.

A link is open, or cut: then what is sent waits, as TCP has it, and goes on when the link heals, unless the connection
was given up meanwhile. A cut may also reset the connections over it. Connections are ordered in themselves and in no
order among each other. A host whose process ended answers with a reset; a host without power does not answer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.kernel.scheduler import Scheduler

GIVE_UP_S = 6.0
"""After which a side that hears nothing over a cut link gives its connection up (keepalive)."""
MIN_LATENCY_S = 0.0002


@dataclass
class Weather:
    """How long messages take. `slow_share` of them take up to `slow_s`."""

    usual_s: float = 0.002
    slow_share: float = 0.0
    slow_s: float = 0.4


class End:
    """One side of a connection, for the process on `host`. Set `on_frame` and `on_close` before time goes on."""

    __slots__ = (
        "arrival",
        "arrived",
        "connection",
        "early",
        "held",
        "host",
        "is_open",
        "on_close",
        "on_frame",
        "peer",
        "sent",
        "watched",
    )

    def __init__(self, connection: "Connection", host: str) -> None:
        self.connection = connection
        self.host = host
        self.peer: End = self
        self.on_frame: Callable[[Any], None] = _ignore
        self.on_close: Callable[[str], None] = _ignore
        """Called once, with a reason, where the other side or the network ended the connection; not by `close`."""
        self.held: list[tuple[int, Any]] = []
        """What this side sent over a link that is cut, numbered."""
        self.early: dict[int, Any] = {}
        """What this side sent and arrived before something that a cut held up."""
        self.arrival = 0.0
        """When the last frame that this side sent arrives."""
        self.sent = 0
        self.arrived = 0
        """The number of the last frame that the other side took."""
        self.is_open = True
        self.watched = False

    def send(self, frame: Any) -> None:
        """Send a frame; it arrives in order, or never. Nothing where the connection is over."""
        self.connection.network.dispatch(self, frame)

    def close(self, reason: str = "closed") -> None:
        """End the connection; the other side learns of it after what was sent before."""
        self.connection.close(self, reason)


class Connection:
    """Made by `Network.connect`. A side learns of the end when its link lets it."""

    __slots__ = ("dialed", "network", "served")

    def __init__(self, network: "Network", dialing: str, serving: str) -> None:
        self.network = network
        self.dialed = End(self, dialing)
        self.served = End(self, serving)
        self.dialed.peer, self.served.peer = self.served, self.dialed

    @property
    def is_over(self) -> bool:
        return not (self.dialed.is_open or self.served.is_open)

    def close(self, end: End, reason: str) -> None:
        """`end` closes: it hears nothing any more, the other one is told in order."""
        if end.is_open:
            end.is_open = False
            self.network.dispatch(end, _Fin(reason), closing=True)

    def ended(self, end: End, reason: str) -> None:
        """`end` learns that the connection is over."""
        if end.is_open:
            end.is_open = False
            end.held.clear()
            end.on_close(reason)


class Dial:
    """An attempt to connect, and who wants to know."""

    __slots__ = ("answer", "given_up")

    def __init__(self, answer: Callable[[End | str], None]) -> None:
        self.answer = answer
        self.given_up = False

    def give_up(self) -> None:
        """Stop trying: no answer comes, and what stands by now is closed."""
        self.given_up = True


@dataclass(frozen=True, slots=True)
class _Fin:
    reason: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """The dialing side learns that the connection stands."""

    answer: Callable[["End | str"], None]


class Network:
    """All links and connections. Hosts need not be declared; a host is up when something listens or dials there."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, weather: Weather | None = None) -> None:
        self.weather = weather or Weather()
        self.cuts: set[tuple[str, str]] = set()
        """(from, to) that let nothing pass."""
        self.dark: set[str] = set()
        """Hosts without power: they answer nothing, not even with a refusal."""
        self.slow: set[str] = set()
        """Hosts whose every message is slow."""
        self._scheduler = scheduler
        self._rng = rng
        self._listeners: dict[tuple[str, int], Callable[[End], None]] = {}
        self._connections: dict[Connection, None] = {}

    @property
    def now(self) -> float:
        """The present time of the world."""
        return self._scheduler.now

    # ---- hosts

    def is_listening(self, host: str, port: int) -> bool:
        """Whether connections are taken there."""
        return (host, port) in self._listeners

    def listen(self, host: str, port: int, accept: Callable[[End], None]) -> None:
        """Take connections. `accept` gets this side of each and sets its callbacks."""
        self._listeners[host, port] = accept

    def unlisten(self, host: str, port: int) -> None:
        """Refuse connections from now on; those that stand go on."""
        self._listeners.pop((host, port), None)

    def lose_host(self, host: str, *, silently: bool) -> None:
        """The process on this host is gone. `silently`: with the power, so that nobody is told."""
        for key in [key for key in self._listeners if key[0] == host]:
            del self._listeners[key]
        if silently:
            self.dark.add(host)
        for connection in list(self._connections):
            for end in (connection.dialed, connection.served):
                if end.host == host:
                    if silently:
                        end.is_open = False
                        end.held.clear()
                        self._watch(end.peer)
                    else:
                        connection.close(end, "connection reset")

    def power(self, host: str) -> None:
        """The host has power again."""
        self.dark.discard(host)

    # ---- connecting

    def connect(self, dialing: str, host: str, port: int, answer: Callable[[End | str], None]) -> Dial:
        """Dial. `answer` gets this side of a connection, or "refused"; nothing is heard over a cut link.

        A dial waits for a cut link to heal: the caller has a timeout, and gives the dial up then.
        """
        dial = Dial(answer)
        self._leg(dialing, host, self._knock, dialing, host, port, dial)
        return dial

    def _knock(self, dialing: str, host: str, port: int, dial: Dial) -> None:
        if dial.given_up:
            return
        accept = self._listeners.get((host, port))
        if accept is None:
            self._leg(host, dialing, self._refuse, dial)
            return
        connection = Connection(self, dialing, host)
        self._connections[connection] = None
        self.dispatch(connection.served, dial)  # ahead of all that the server sends
        accept(connection.served)

    def _refuse(self, dial: Dial) -> None:
        if not dial.given_up:
            dial.answer("refused")

    def _leg(self, sender: str, receiver: str, function: Callable[..., None], *arguments: Any) -> None:
        """Pass a link, waiting while it is cut."""
        if receiver in self.dark or sender in self.dark:
            return
        if (sender, receiver) in self.cuts:
            if not (isinstance(arguments[-1], Dial) and arguments[-1].given_up):
                self._scheduler.after(0.2, self._leg, sender, receiver, function, *arguments)
            return
        self._scheduler.after(self.latency(sender, receiver), function, *arguments)

    # ---- passing frames

    def latency(self, sender: str, receiver: str) -> float:
        """Draw how long one message takes."""
        weather, draw = self.weather, self._rng.random()
        slow = self.slow and (sender in self.slow or receiver in self.slow)
        if slow or (weather.slow_share and self._rng.random() < weather.slow_share):
            return MIN_LATENCY_S + weather.slow_s * draw
        return MIN_LATENCY_S + weather.usual_s * draw

    def dispatch(self, end: End, frame: Any, *, closing: bool = False) -> None:
        """Send a frame of `end` on its way."""
        if closing or end.is_open:
            end.sent = number = end.sent + 1
            self._depart(end, number, frame)

    def _depart(self, end: End, number: int, frame: Any) -> None:
        if self.cuts and (end.host, end.peer.host) in self.cuts:
            end.held.append((number, frame))
            return
        arrival = self._scheduler.now + self.latency(end.host, end.peer.host)
        arrival = max(arrival, end.arrival + 1e-6)
        end.arrival = arrival
        self._scheduler.at(arrival, self._arrive, end, number, frame)

    def _arrive(self, end: End, number: int, frame: Any) -> None:
        peer = end.peer
        if self.cuts and (end.host, peer.host) in self.cuts:  # it was cut while the frame was under way
            end.held.append((number, frame))
        elif number == end.arrived + 1:
            end.arrived = number
            self._deliver(end, peer, frame)
            while end.early and end.arrived + 1 in end.early:
                end.arrived += 1
                self._deliver(end, peer, end.early.pop(end.arrived))
        else:  # what was sent before it was held up by a cut that has healed since
            end.early[number] = frame

    def _deliver(self, end: End, peer: End, frame: Any) -> None:
        if self.dark and peer.host in self.dark:
            return
        kind = type(frame)
        if peer.is_open and kind is not _Fin and kind is not Dial:
            peer.on_frame(frame)
            return
        connection = end.connection
        if not peer.is_open:  # a process that is gone or has closed: its host answers with a reset
            if end.is_open:
                self._reset(end)
            self._forget(connection)
        elif kind is _Fin:
            connection.ended(peer, frame.reason)
            self._forget(connection)
        else:
            self._stand(peer, frame)

    def _reset(self, end: End) -> None:
        """Tell `end` that nobody has the other side any more, but not ahead of what that side sent before."""
        peer = end.peer
        if peer.host in self.dark:
            return
        if (peer.host, end.host) in self.cuts:
            self._scheduler.after(0.2, self._reset, end)
            return
        arrival = max(peer.arrival + 1e-6, self._scheduler.now + self.latency(peer.host, end.host))
        self._scheduler.at(arrival, end.connection.ended, end, "connection reset")

    def _stand(self, end: End, dial: Dial) -> None:
        if dial.given_up:
            end.close("connection reset")
        else:
            dial.answer(end)

    def _forget(self, connection: Connection) -> None:
        if connection.is_over:
            self._connections.pop(connection, None)

    def _watch(self, end: End) -> None:
        """Give up after a while if nothing passes (keepalive)."""
        if not end.watched:
            end.watched = True
            self._scheduler.after(GIVE_UP_S * (0.5 + 0.5 * self._rng.random()), self._give_up, end)

    def _give_up(self, end: End) -> None:
        end.watched = False
        one, other = end.host, end.peer.host
        if end.is_open and ((one, other) in self.cuts or (other, one) in self.cuts or not end.peer.is_open):
            end.connection.ended(end, "connection timed out")
        self._forget(end.connection)

    # ---- cuts

    def cut(self, sender: str, receiver: str, *, reset: bool = False) -> None:
        """Let nothing pass this way. `reset`: the connections over it end on both sides at once."""
        self.cuts.add((sender, receiver))
        for connection in list(self._connections):
            ends = (connection.dialed, connection.served)
            if {end.host for end in ends} != {sender, receiver}:
                continue
            for end in ends:
                if reset:
                    connection.ended(end, "connection reset")
                else:
                    self._watch(end)
            self._forget(connection)

    def heal(self, sender: str, receiver: str) -> None:
        """Let messages pass; what was held goes on its way, in order."""
        self.cuts.discard((sender, receiver))
        for connection in list(self._connections):
            for end in (connection.dialed, connection.served):
                if end.host == sender and end.peer.host == receiver:
                    held, end.held = sorted(end.held, key=_number), []
                    for number, frame in held:
                        self._depart(end, number, frame)

    def heal_all(self) -> None:
        """Open every link."""
        for sender, receiver in sorted(self.cuts):
            self.heal(sender, receiver)


def _number(held: tuple[int, Any]) -> int:
    return held[0]


def _ignore(_: Any) -> None:
    """Nothing listens yet, or any more."""
