"""What passed a link, by Toxiproxy's counters, which know ended connections, and the kernel, which knows open ones.

Pure but for the asking. Not exact to the byte: a connection that ends at that moment may be missing, and Toxiproxy
forgets to count what an end that broke was sent.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.chaos.sockets import Connection

_SAMPLE = re.compile(r"^toxiproxy_proxy_(received|sent)_bytes_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ANY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  compared with, not listened on


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes one way, since the proxy exists. `received` by the proxy, `sent` by it."""

    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one link. Of open connections only what the one who dialled sent (`upstream.received`) and got
    (`downstream.sent`) is in it, and only where the kernel tells."""

    upstream: Flow = Flow()
    """From the source to the target."""
    downstream: Flow = Flow()
    dialled_from: frozenset[tuple[str, int]] | None = None
    """Ends of open connections on the source's side; None where they are not known."""


Counters = Mapping[tuple[str, str, str], Flow]
"""By proxy, address where it listens, and stream."""


def parse_counters(text: str) -> Counters:
    """Read Toxiproxy's metrics."""
    found: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for which, labels, value in _SAMPLE.findall(text):
        named = dict(_LABEL.findall(labels))
        flow = found[named["proxy"], named["listener"], named["direction"]]
        flow[which] = flow.get(which, 0) + int(float(value))
    return {key: Flow(**flow) for key, flow in found.items()}


def of_proxy(name: str, listen: str, counters: Counters, connections: Iterable[Connection] | None) -> Traffic:
    """Put together what is known of one proxy."""
    up, down = (counters.get((name, listen, stream), Flow()) for stream in ("upstream", "downstream"))
    if connections is None:
        return Traffic(up, down)
    address, _, port = listen.rpartition(":")
    address = address.strip("[]")
    here = [
        connection
        for connection in connections
        if connection.local[1] == int(port) and (address in _ANY_ADDRESS or connection.local[0] == address)
    ]
    return Traffic(
        Flow(up.received + sum(connection.received for connection in here), up.sent),
        Flow(down.received, down.sent + sum(connection.sent for connection in here)),
        frozenset(connection.remote for connection in here),
    )
