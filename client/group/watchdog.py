"""Heartbeats from a thread, for the time in which the event loop is blocked by the application.

The thread wakes a few times a heartbeat interval and looks when the loop was last alive; only where that is longer ago
than an interval it sends a heartbeat itself, on a channel of its own. `polls` stays as it is: who blocks the loop
beyond max_poll_interval still loses its partitions. What crosses between the threads is one frozen value each way.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc

from penstock.client.clock import Clock
from penstock.client.failures import error_of_call
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc

CALL_TIMEOUT_S = 3.0
LOOKS_PER_INTERVAL = 4


@dataclass(frozen=True, slots=True)
class Beat:
    """What the loop says each time it is alive."""

    alive_ms: int
    address: str
    """Of the coordinator; empty: there is nobody to be told."""
    interval_ms: int
    request: bytes
    """A serialized HeartbeatRequest."""


class Watchdog:
    """See the module. Made and told on the loop; `close` ends the thread. `dial` makes a channel to an address."""

    def __init__(self, clock: Clock, dial: Callable[[str], grpc.Channel]) -> None:
        self.acknowledged_ms = 0
        """When the last heartbeat that was acknowledged was sent."""
        self._clock = clock
        self._dial = dial
        self._beat = Beat(0, "", 1_000, b"")
        self._stop = threading.Event()
        self._channel: tuple[str, grpc.Channel] | None = None
        self._thread = threading.Thread(target=self._run, name="penstock-heartbeats", daemon=True)
        self._thread.start()

    def alive(self, beat: Beat) -> None:
        """The loop runs."""
        self._beat = beat

    def close(self) -> None:
        """End the thread; it may take the call under way to its end."""
        self._stop.set()

    def _run(self) -> None:
        sent_ms, told, address = 0, "", ""
        while not self._stop.wait(self._beat.interval_ms / LOOKS_PER_INTERVAL / 1000):
            beat, now_ms = self._beat, self._clock.monotonic_ms()
            if beat.address and now_ms - max(beat.alive_ms, sent_ms) > beat.interval_ms:
                if told != beat.address:
                    told = address = beat.address
                sent_ms = now_ms
                address = self._send(address, beat, now_ms)
        if self._channel is not None:
            self._channel[1].close()

    def _send(self, address: str, beat: Beat, now_ms: int) -> str:
        """Send a heartbeat; gives where to send the next one."""
        try:
            stub = group_service_pb2_grpc.GroupServiceStub(self._channel_to(address))
            stub.Heartbeat(pb.HeartbeatRequest.FromString(beat.request), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as failure:
            error = error_of_call(
                cast(grpc.Call, failure), write=False
            )  # anything else is found out by the loop when it runs again
            if error.reason is Reason.NOT_COORDINATOR and error.metadata.get("host"):
                return f"{error.metadata['host']}:{error.metadata.get('port', '')}"
            return address
        self.acknowledged_ms = now_ms
        return address

    def _channel_to(self, address: str) -> grpc.Channel:
        if self._channel is None or self._channel[0] != address:
            if self._channel is not None:
                self._channel[1].close()
            self._channel = (address, self._dial(address))
        return self._channel[1]
